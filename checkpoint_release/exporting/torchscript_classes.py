"""TorchScript's classes, called by their own names alone.

torch names a class after the Python module that it came from, and numbers classes of
one name by how many the process has compiled before:
`__torch__.torch.nn.modules.linear.___torch_mangle_3.Linear`. Here that becomes
`__torch__.Linear`, one class for each distinct text, all in one file; where two classes
of one name differ, the later is `Linear_1`. So the archive is the same whatever the
process exported before.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from checkpoint_release.exporting.torch_archive import Records

_DOTTED_NAME = re.compile(r"__torch__(?:\.\w+)+")
_DEFINITION = re.compile(r"^(?:class|def) (\w+)", re.MULTILINE)
_CODE_FOLDER = "code/"
_CODE = "code/__torch__.py"
_OWN_NAME = "\0"  # stands for a definition's own name while texts are compared


def rename_classes(records: Records) -> Records:
    """The archive's code and pickles with classes and functions renamed.

    Args:
        records: name, without the archive's root → content.

    Returns:
        The same for the edited archive, in the order in which it is to be written. All
        code is in one file; what is neither code nor a pickle is as it was.
    """
    naming = _Naming(_definitions(records))
    edited = {_CODE: naming.code().encode()}
    for name, content in records.items():
        if name.endswith(".pkl"):
            edited[name] = _rename_globals(content, naming)
        elif not name.startswith(_CODE_FOLDER):
            edited[name] = content
    # data.pkl is the archive's first record
    order = sorted(edited, key=lambda name: (name != "data.pkl", name))
    return {name: edited[name] for name in order}


@dataclass(frozen=True)
class _Definition:
    """A class or function.

    Attributes:
        name: its own name, without any module.
        text: all of its code.
    """

    name: str
    text: str


def _definitions(records: Records) -> dict[str, _Definition]:
    """Find all classes and functions of the archive's code.

    Args:
        records: name → content. torch.jit.save writes a module's code to
            code/<module, with slashes>.py (torch/csrc/jit/serialization).

    Returns:
        Dotted name, with the module → definition.
    """
    definitions = {}
    for record, content in records.items():
        if not record.startswith(_CODE_FOLDER):
            continue
        path = record.removeprefix(_CODE_FOLDER).removesuffix(".py")
        module = path.replace("/", ".")
        for definition in _split(content.decode()):
            definitions[f"{module}.{definition.name}"] = definition
    return definitions


def _split(code: str) -> Iterator[_Definition]:
    """The classes and functions of one file, each up to the next one.

    Args:
        code: as TorchScript prints it: nothing but definitions at its left margin.
    """
    starts = list(_DEFINITION.finditer(code))
    for i, start in enumerate(starts):
        is_last = i + 1 == len(starts)
        stop = len(code) if is_last else starts[i + 1].start()
        yield _Definition(start.group(1), code[start.start() : stop])


class _Naming:
    """Gives every definition its new name, those it refers to first."""

    def __init__(self, definitions: Mapping[str, _Definition]) -> None:
        """Name all definitions.

        Args:
            definitions: dotted name → definition. Of several that differ and have one
                name, the first to be named keeps it.
        """
        self._definitions = definitions
        self._new_names: dict[str, str] = {}  # dotted name → new name
        self._by_text: dict[tuple[str, str], str] = {}  # (own name, text) → new name
        self._texts: list[str] = []
        for dotted in definitions:
            self.new_name(dotted)

    def __contains__(self, dotted: str) -> bool:
        """Whether the archive defines the class, rather than torch."""
        return dotted in self._definitions

    def code(self) -> str:
        """The text of all definitions, each after those it refers to."""
        return "".join(self._texts)

    def new_name(self, dotted: str) -> str:
        """The new name of a definition, without `__torch__.`.

        Args:
            dotted: its old name, with its module.
        """
        if dotted not in self._new_names:
            self._new_names[dotted] = self._name(dotted, self._definitions[dotted])
        return self._new_names[dotted]

    def _name(self, dotted: str, definition: _Definition) -> str:
        """The new name of a definition; its text is kept if no other has the same.

        Args:
            dotted: the definition's old name, with its module.
            definition: its own name is taken out of the text before texts are compared,
                so that a class that refers to itself is equal to its copy.
        """

        def replace(match: re.Match[str]) -> str:
            return self._replace_reference(match.group(), dotted)

        own = definition.name
        text = _DOTTED_NAME.sub(replace, definition.text)
        text = re.sub(rf"^(class|def) {own}\b", rf"\1 {_OWN_NAME}", text)
        if (own, text) not in self._by_text:
            name = self._unused(own)
            self._by_text[own, text] = name
            self._texts.append(text.replace(_OWN_NAME, name))
        return self._by_text[own, text]

    def _replace_reference(self, reference: str, inside: str) -> str:
        """What a dotted name in the code becomes.

        Args:
            reference: names a class, a function or a class's method, of this archive or
                of torch.
            inside: the dotted name of the definition whose text it is in.

        Returns:
            The reference with the new name of what it refers to; of what the archive
            doesn't define, the reference as it is.
        """
        parts = reference.split(".")
        for stop in range(len(parts), 1, -1):
            dotted = ".".join(parts[:stop])
            if dotted in self:
                name = _OWN_NAME if dotted == inside else self.new_name(dotted)
                return ".".join(["__torch__", name, *parts[stop:]])
        return reference

    def _unused(self, wanted: str) -> str:
        """The wanted name, or the first free one of wanted_1, wanted_2 and so on."""
        used = set(self._by_text.values())
        name, number = wanted, 0
        while name in used:
            number += 1
            name = f"{wanted}_{number}"
        return name


def _rename_globals(pickle: bytes, naming: _Naming) -> bytes:
    """A pickle with the classes that it names renamed; nothing is unpickled.

    A GLOBAL opcode is the letter c, the module and a line feed, the name and a line
    feed (Python's Lib/pickletools.py, which gives the two with a space between).

    Args:
        pickle: names its classes by GLOBAL opcodes, as torch.jit.save writes them.
        naming: of the archive's classes; those of torch keep their names.
    """
    pieces = []
    end = 0
    for opcode, argument, position in pickletools.genops(pickle):
        if opcode.name != "GLOBAL" or position is None:
            continue
        dotted = str(argument).replace(" ", ".")
        if dotted in naming:
            pieces.append(pickle[end:position])
            pieces.append(f"c__torch__\n{naming.new_name(dotted)}\n".encode())
            end = position + len(f"c{argument}\n".encode())
    pieces.append(pickle[end:])
    return b"".join(pieces)
