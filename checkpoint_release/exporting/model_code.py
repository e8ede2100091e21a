"""The model's own modules as files of a release, for transformers to build it from.

transformers copies the Python files of one folder, and those that they import from
beside them. So a package becomes a row of modules, `tagger/layers.py` as
`tagger_layers.py`, and imports among them are written anew; nothing else is.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.signature import Signature
from checkpoint_release.core.sources import module_file

AUTO_MAP = {
    "AutoConfig": "configuration_release.ReleaseConfig",
    "AutoModel": "modeling_release.ReleaseModel",
}
_FOLDER = Path(__file__).parent / "transformers_code"
_OWN_FILES = ("configuration_release.py", "modeling_release.py")
_FACTORY_FILE = "model_code.py"


@dataclass(frozen=True)
class _Code:
    """One module of the model.

    Attributes:
        name: dotted.
        file: where it lies.
        is_package: whether it is the __init__.py of a package.
    """

    name: str
    file: Path
    is_package: bool

    @property
    def flat(self) -> str:
        """Its name in a release, where all modules lie in one folder."""
        return self.name.replace(".", "_")

    def absolute(self, level: int, module: str | None) -> str:
        """The module that an import statement in it names.

        Args:
            level: dots in front.
            module: what follows them.
        """
        if level == 0:
            return module or ""
        parts = self.name.split(".")
        kept = parts[: len(parts) - level + (1 if self.is_package else 0)]
        return ".".join([*kept, module] if module else kept)


@dataclass
class _Collector:
    """Collects the modules that a factory needs.

    Attributes:
        roots: folders from which the model's code is imported.
        files: name in the release → text.
    """

    roots: Sequence[Path]
    files: dict[str, str] = field(default_factory=dict)

    def find(self, module: str) -> _Code | None:
        """A module of the model's own; None: it is a library's."""
        for root in self.roots:
            file = module_file(root, module)
            if file is not None:
                return _Code(module, file, file.name == "__init__.py")
        return None

    def collect(self, code: _Code) -> None:
        """Take a module, and those that it imports.

        Raises:
            ExportError: it can't be carried.
        """
        name = f"{code.flat}.py"
        if name in self.files:
            return
        if name in (*_OWN_FILES, _FACTORY_FILE):
            raise _cannot(f"{code.flat} is the name of a file of the release itself")
        text = code.file.read_text(encoding="utf-8")
        self.files[name] = text  # before those that import it in turn
        self.files[name] = self._rewritten(code, text)

    def _rewritten(self, code: _Code, text: str) -> str:
        """The module's text, its imports of own modules as the release has them."""
        lines = text.encode().splitlines(keepends=True)
        replaced: list[tuple[ast.ImportFrom, str]] = []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Name) and node.id == "__file__":
                raise _cannot(
                    f"{code.name} reads files beside itself (line {node.lineno})"
                )
            if isinstance(node, ast.Import):
                self._require_foreign(code, node)
            if isinstance(node, ast.ImportFrom):
                statement = self._statement(code, node)
                if statement is not None:
                    replaced.append((node, statement))
        for node, statement in sorted(replaced, key=lambda pair: -pair[0].lineno):
            _replace(lines, node, statement)
        return b"".join(lines).decode()

    def _require_foreign(self, code: _Code, node: ast.Import) -> None:
        """Refuse `import tagger.layers`, whose name the module's code then uses.

        Raises:
            ExportError: it imports one of the model's own modules.
        """
        for alias in node.names:
            if self.find(alias.name) is not None:
                raise _whole_module(code, node.lineno, alias.name)

    def _statement(self, code: _Code, node: ast.ImportFrom) -> str | None:
        """What takes the place of an import; None: it is a library's, and stays.

        Raises:
            ExportError: it imports a module as a whole, or one that isn't there.
        """
        module = code.absolute(node.level, node.module)
        target = self.find(module)
        for alias in node.names:
            if self.find(f"{module}.{alias.name}") is not None:
                raise _whole_module(code, node.lineno, f"{module}.{alias.name}")
        if target is None:
            if node.level:
                raise _cannot(
                    f"{code.name} imports {module} (line {node.lineno}), which doesn't"
                    " lie where model.source says"
                )
            return None
        self.collect(target)
        names = [
            alias.name if alias.asname is None else f"{alias.name} as {alias.asname}"
            for alias in node.names
        ]
        return f"from .{target.flat} import {', '.join(names)}"


def _replace(lines: list[bytes], node: ast.ImportFrom, statement: str) -> None:
    """Put a statement in the place of a node.

    Args:
        lines: of the module, changed in place; those that it took become empty.
        node: whose columns count bytes.
        statement: on one line.
    """
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    before = lines[first][: node.col_offset]
    after = lines[last][node.end_col_offset or 0 :]
    lines[first] = before + statement.encode() + after
    for number in range(first + 1, last + 1):
        lines[number] = b""


def _whole_module(code: _Code, line: int, module: str) -> ExportError:
    return _cannot(
        f"{code.name} imports the module {module} as a whole (line {line}), which has"
        " another name in a release",
        f"write `from {module} import …` there, or ",
    )


def _cannot(problem: str, remedy: str = "") -> ExportError:
    """An error about code that a release can't carry."""
    return ExportError(
        "{safetensors.code} is true, and the model's code can't be carried:"
        f" {problem}",
        f"{remedy}set {{safetensors.code}} to false",
        options=["safetensors.code"],
    )


def code_files(
    factory: str, signature: Signature, roots: Sequence[Path]
) -> dict[str, str]:
    """The files with which transformers builds a model: name → text.

    Nothing of the model's code is imported.

    Args:
        factory: `package.module:callable`.
        signature: of the model, whose outputs get its names.
        roots: folders from which its code is imported.

    Raises:
        ExportError: the code isn't there, or can't be carried as it is.
    """
    module, _, name = factory.partition(":")
    collector = _Collector(roots)
    code = collector.find(module)
    if code is None:
        raise _cannot(f"{module} doesn't lie where model.source says")
    odd = [each for each in signature.output_names if not each.isidentifier()]
    if odd:
        raise _cannot(f"the output {odd[0]!r} has a name that Python can't spell")
    collector.collect(code)
    files = {name: (_FOLDER / name).read_text(encoding="utf-8") for name in _OWN_FILES}
    files[_FACTORY_FILE] = (
        '"""The function that builds the model."""\n\n'
        f"from .{code.flat} import {name} as build_model\n\n"
        '__all__ = ["build_model"]\n'
    )
    return files | collector.files


def with_code(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config.json by which transformers finds the code beside it."""
    return {**keys, "architectures": ["ReleaseModel"], "auto_map": AUTO_MAP}
