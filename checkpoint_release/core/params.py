"""params.yaml, read once and validated as a whole.

The defaults are in params.yaml and nowhere else: every key is required, and unknown
ones are refused. It is read as YAML 1.2 by the library that DVC itself uses, so that
both see the same values.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta

from checkpoint_release.core.artifacts.formats import FORMATS, OPSETS
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.text import printable, shown
from checkpoint_release.core.yaml_text import (
    MAX_SIZE,
    YamlError,
    parse_yaml,
    unsuitable_values,
)

PATH = Path("params.yaml")
_LARGEST = sys.float_info.max  # below infinity
_VERSION = (  # v and https://semver.org's own expression
    r"^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-((0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(\+([0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*))?\Z"
)
# A letter, digit or underscore at both ends, and neither -- nor .. within.
_HUB_NAME = r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_BYTES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

# The description states what a pattern or a range allows, in the message about a value
# that it refuses.
Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]  # as ONNX and runtimes index
Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
Seconds = Annotated[
    float, Meta(gt=0, le=1e6, description="a number of seconds up to a million")
]
Weight = Annotated[
    float, Meta(ge=-1e6, le=1e6, description="a number by which an adapter counts")
]
NotNegative = Annotated[float, Meta(ge=0, le=_LARGEST)]
Opset = Annotated[
    int,
    Meta(
        ge=OPSETS[0],
        le=OPSETS[-1],
        description=f"an integer from {OPSETS[0]} to {OPSETS[-1]}",
    ),
]
FACTORY_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*\Z"
Factory = Annotated[
    str, Meta(pattern=FACTORY_PATTERN, description="package.module:callable")
]
Size = Annotated[
    str,
    Meta(
        pattern=r"^[1-9][0-9]{0,17}(KB|MB|GB|TB)?\Z",
        description="a number of bytes, or of KB, MB, GB or TB",
    ),
]
Digits = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{8,64}\Z",
        description="8 to 64 hexadecimal digits, in quotes",
    ),
]
Language = Annotated[
    str,
    Meta(
        pattern=r"^([a-z]{2,3}|code|multilingual)\Z",
        description="ISO 639's code, code or multilingual",
    ),
]
HubId = Annotated[
    str,
    Meta(
        pattern=rf"^{_HUB_NAME}(/{_HUB_NAME})?\Z",
        description="organisation/name on the Hub",
    ),
]
_REPO_PART = r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?"
Repository = Annotated[
    str,
    Meta(
        # https://huggingface.co/docs/huggingface_hub/package_reference/utilities
        pattern=rf"^(?=.{{3,96}}\Z)(?!.*(--|\.\.|\.git\Z)){_REPO_PART}/{_REPO_PART}\Z",
        description="organisation/name, each of letters, digits, -, _ and . between"
        " them, without -- or .., 96 characters at most, and not ending in .git",
    ),
]
# https://git-scm.com/docs/git-check-ref-format
_BRANCH = r"(?!.*(\.\.|//|/\.|\.lock(/|\Z)|[./]\Z))[A-Za-z0-9][A-Za-z0-9_.+/-]*"
Branch = Annotated[str, Meta(pattern=rf"^{_BRANCH}\Z", description="a branch's name")]
HubAddress = Annotated[
    str,
    Meta(
        pattern=r"^(?=[^@]{3,96}(@|\Z))(?![^@]*(--|\.\.|\.git(@|\Z)))"
        rf"{_REPO_PART}/{_REPO_PART}(@{_BRANCH})?\Z",
        description="organisation/name or organisation/name@revision, as the Hub has"
        " them",
    ),
]
Version = Annotated[
    str, Meta(pattern=_VERSION, description="v and a semantic version, such as v1.2.0")
]


def is_version(text: str) -> bool:
    """Whether a text is v and a semantic version, as {publish.version} takes it."""
    return re.match(_VERSION, text) is not None


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping of params.yaml: unknown keys and wrong types are refused."""

    def validate(self) -> Iterator[tuple[str, str]]:
        """What types can't express.

        It is called on a section whose values all have their types.

        Returns:
            For each wrong value, its key within the section and what is wrong with it.
        """
        yield from ()


class CheckpointParams(Section, frozen=True):
    """checkpoint: what to read, and how strictly."""

    path: Text
    state_dict: Text | None
    prefix: Text | None
    leave_out: list[Text]
    adapter: Text | dict[Text, Weight] | None
    lora_alpha: Positive | None
    salvage: bool
    dequantise: bool
    half_precision: Literal["keep", "cast", "refuse"]
    recompute_buffers: bool
    non_finite: Literal["refuse", "keep"]


class ModelParams(Section, frozen=True):
    """model: which nn.Module it is, and which inputs its exports take."""

    factory: Factory
    source: Text | Annotated[list[Text], Meta(min_length=1)] | None
    kwargs: dict[str, Any]
    signature: dict[str, Any] | None
    inputs: list[Text] | None
    image_size: (
        Annotated[
            list[Count],
            Meta(
                min_length=2,
                max_length=2,
                description="[height, width], each at least 1 and below 2**31",
            ),
        ]
        | None
    )


class FormatsParams(Section, frozen=True):
    """formats: which formats to export; the names are those of the registry."""

    safetensors: bool
    onnx: bool
    torchscript: bool
    torch_export: bool

    def enabled(self) -> list[str]:
        """The names of the formats that are switched on, in the registry's order."""
        return [name for name in FORMATS if getattr(self, name)]


class SafetensorsParams(Section, frozen=True):
    """safetensors: how the weights are stored."""

    dtype: Literal["keep", "float32", "float16", "bfloat16"]
    max_shard_size: Size
    code: bool

    @property
    def max_shard_bytes(self) -> int:
        """max_shard_size in bytes (decimal units, as the Hub counts)."""
        count = self.max_shard_size.rstrip("KMGTB")
        unit = self.max_shard_size.removeprefix(count)
        return int(count) * _BYTES[unit]


class OnnxParams(Section, frozen=True):
    """onnx: which opset, exporter, variants and fixed sizes."""

    opset: Opset
    exporter: Literal["auto", "direct", "torchscript", "dynamo"]
    ir_version: Annotated[int, Meta(ge=3, le=2**31 - 1)] | None
    variants: list[Literal["float16", "int8"]]
    fixed: Annotated[dict[Text, Count], Meta(min_length=1)] | None


class ToleranceParams(Section, frozen=True):
    """parity.tolerances, one output's: |error| ≤ atol + rtol · |expected|."""

    atol: NotNegative
    rtol: NotNegative


class ReducedParams(Section, frozen=True):
    """parity.reduced: the typical error allowed in reduced precision.

    Attributes:
        float16, bfloat16, int8: a share of the output's magnitude.
    """

    float16: Positive
    bfloat16: Positive
    int8: Positive


OnnxRuntime = Literal[
    "onnxruntime", "onnxruntime-node", "onnxruntime-web", "openvino", "tract"
]
"""What runs ONNX files."""


class ParityParams(Section, frozen=True):
    """parity: what is compared, and what is close enough."""

    seed: Annotated[int, Meta(ge=0)]
    noise_multiple: Positive
    sizes: dict[Text, list[Count]]
    magnitudes: list[NotNegative]
    repeats: Annotated[int, Meta(ge=1, le=1000)]
    tolerances: dict[Text, ToleranceParams]
    reduced: ReducedParams
    runtimes: list[OnnxRuntime] = msgspec.field(default_factory=lambda: ["onnxruntime"])

    def validate(self) -> Iterator[tuple[str, str]]:
        """ONNX files are judged by ONNX Runtime, whatever else runs them."""
        if "onnxruntime" not in self.runtimes:
            yield "runtimes", "expected onnxruntime among them"
        if len(set(self.runtimes)) < len(self.runtimes):
            yield "runtimes", "expected each runtime once"


class BenchmarkParams(Section, frozen=True):
    """benchmark: whether and what is measured of speed and memory."""

    enabled: bool
    sizes: dict[Text, list[Count]]
    threads: Annotated[
        list[Annotated[int, Meta(ge=1, le=1024)]],
        Meta(min_length=1, description="a list of whole numbers from 1 to 1024"),
    ]
    rounds: Annotated[int, Meta(ge=3, le=10_000)]

    def validate(self) -> Iterator[tuple[str, str]]:
        """Nothing is measured twice."""
        if len(set(self.threads)) < len(self.threads):
            yield "threads", "a number is there twice"
        for name, sizes in self.sizes.items():
            if len(set(sizes)) < len(sizes):
                yield "sizes", f"a size of {printable(name)} is there twice"


class CardParams(Section, frozen=True):
    """card: what only the author can say about the model."""

    written_for: Digits | None
    notes_dir: Text
    title: Text | None
    license: Text | None
    license_name: Text | None
    license_link: Text | None
    authors: list[Text]
    language: list[Language]
    datasets: list[HubId]
    base_model: list[HubId]
    pipeline_tag: Text | None
    tags: list[Text]
    evaluated_on: Text | None
    address: HubAddress | None
    metadata: dict[Text, Any]

    def validate(self) -> Iterator[tuple[str, str]]:
        """The front matter's other fields are those that nothing else writes."""
        for name in self.metadata:
            if name in CARD_FIELDS:
                problem = f"{printable(name)} comes from the other options of card"
                yield "metadata", f"{problem}, or from what was measured"


CARD_FIELDS = frozenset(
    {
        *("license", "license_name", "license_link", "language", "datasets"),
        *("base_model", "pipeline_tag", "tags", "metrics", "model-index"),
        *("model_name", "eval_results", "ignore_metadata_errors"),
    }
)
"""Fields of a card's front matter that aren't for card.metadata."""


class PublishParams(Section, frozen=True):
    """publish: where the release goes."""

    repo_id: Repository | None
    revision: Branch
    private: bool
    version: Version | None
    create_pr: bool
    dry_run: bool
    card: Literal["replace", "keep"]
    extra: Text
    page: bool
    space: Repository | None
    delete: list[Text]
    timeout: Seconds
    patience: Seconds
    transfer: Literal["lfs", "xet", "auto"]
    sbom: bool
    signing_key: Text | None

    def validate(self) -> Iterator[tuple[str, str]]:
        """What the Hub can't do."""
        if self.create_pr and self.revision != "main":
            problem = "pull requests are opened against main, and revision is"
            yield "create_pr", f"{problem} {self.revision!r}"
        if self.space and self.repo_id is None:
            yield "space", "a Space shows a release on the Hub, and repo_id is null"


class Params(Section, frozen=True):
    """All of params.yaml."""

    checkpoint: CheckpointParams
    model: ModelParams
    formats: FormatsParams
    safetensors: SafetensorsParams
    onnx: OnnxParams
    parity: ParityParams
    benchmark: BenchmarkParams
    card: CardParams
    publish: PublishParams

    def validate(self) -> Iterator[tuple[str, str]]:
        """A release needs at least one format."""
        if not self.formats.enabled():
            names = ", ".join(FORMATS)
            yield "formats", f"no format is enabled; set one of {names} to true"


def load_params(path: Path = PATH) -> Params:
    """Read and validate params.yaml.

    Args:
        path: of the file.

    Raises:
        ParamsError: it is missing, isn't YAML, or holds an unknown key, a wrong type or
            an impossible value; the message names every such key, what was found and
            what is allowed.
    """
    value = read_mapping(path, "start from the params.yaml that comes with the project")
    return parse_section(Params, value, path)


def read_mapping(path: Path, example: str) -> dict[str, Any]:
    """Read a YAML file that a person wrote and that holds a mapping.

    Args:
        path: of the file.
        example: where the reader finds how to write it, as an imperative sentence.

    Raises:
        ParamsError: it is missing, can't be read, or isn't YAML or a mapping.
    """
    try:
        with path.open("rb") as file:
            value = parse_yaml(file.read(MAX_SIZE + 1))
    except FileNotFoundError:
        raise ParamsError(
            f"{path} is missing", "run this in the project's root folder"
        ) from None
    except OSError as error:
        raise ParamsError(
            f"{path} can't be read: {error.strerror}", "make it a readable file"
        ) from None
    except YamlError as error:
        raise ParamsError(
            f"{path} is {error}", "correct that line, and save the file as UTF-8"
        ) from None
    if not isinstance(value, dict):
        raise ParamsError(f"{path} holds {shown(value)}, not a mapping", example)
    return value


S = TypeVar("S", bound=Section)


def parse_section(
    kind: type[S], value: Any, path: Path = PATH, remedy: str | None = None
) -> S:
    """Turn a mapping into the section that it should be.

    Args:
        kind: the section; a key that has a default may be left out.
        value: what was read.
        path: where it was read from, for the message.
        remedy: what to do about a problem; None: what helps with params.yaml.

    Raises:
        ParamsError: as load_params, of a file that can be read.
    """
    problems = _section_problems(kind, value, key="")
    if not problems:
        problems = list(unsuitable_values(value))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ParamsError(
            f"{path}:\n{lines}",
            remedy or f"correct {path}; its comments explain what each key allows",
        )
    return msgspec.convert(value, kind)


def _section_problems(kind: type[Section], value: Any, key: str) -> list[str]:
    """Everything that is wrong with a section.

    msgspec reports the first problem alone, so each value is converted by itself.
    What values mean together is looked at once each of them is right.

    Args:
        kind: the section.
        value: what was found in its place.
        key: the section's own dotted key; empty for the whole file.

    Returns:
        A line for each problem: the full key, what was found, what is allowed.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    names = ", ".join(fields)
    if not isinstance(value, dict):
        return [f"{key}: found {_found(value)}: expected a section with {names}"]
    prefix = f"{key}." if key else ""
    problems = []
    for name, field in fields.items():
        full_key = f"{prefix}{name}"
        if name in value:
            problems += _value_problems(field.type, value[name], full_key)
        elif field.required:
            problems.append(f"{full_key}: missing; every key is required")
    for name in value:
        if name not in fields:
            shown_key = f"{prefix}{printable(str(name))}"
            problems.append(f"{shown_key}: unknown key; allowed here: {names}")
    if problems:
        return problems
    for name, problem in msgspec.convert(value, kind).validate():
        found = f"found {shown(value[name])}: " if name in value else ""
        problems.append(f"{prefix}{name}: {found}{problem}")
    return problems


def value_problem(kind: Any, value: Any, key: str) -> str | None:
    """What is wrong with one value: its key, what was found, what is allowed; None:
    nothing is.

    Args:
        kind: the type that it should have; no section.
        value: what was found.
        key: its dotted key.
    """
    return next(iter(_value_problems(kind, value, key)), None)


def _value_problems(kind: Any, value: Any, key: str) -> list[str]:
    """What is wrong with a value.

    Args:
        kind: the type that it should have.
        value: what was found.
        key: its dotted key.

    Returns:
        Lines as of _section_problems; of a value that is no section, one at most.
    """
    if value is not None and isinstance(kind, UnionType):  # a section, or null
        sections = [part for part in get_args(kind) if _is_section(part)]
        kind = sections[0] if sections else kind
    if _is_section(kind):
        return _section_problems(kind, value, key)
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        reason = reason[0].lower() + reason[1:]
        allowed = _allowed_values(kind)
        if allowed:
            reason = f"expected {allowed}"
        return [f"{key}{place.removesuffix('`')}: found {_found(value)}: {reason}"]
    return []


def _found(value: Any) -> str:
    """A value as params.yaml has it, where Python spells it otherwise."""
    return "null" if value is None else shown(value)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _allowed_values(kind: Any) -> str:
    """What a type allows, where msgspec's message doesn't state it; otherwise empty.

    Args:
        kind: a type; a description of it, or of one of its parts, is what it allows.
            The parts of `Annotated[int, Meta(...)] | None` are the annotated type and
            None, and those of the annotated type are int and the Meta.
    """
    if get_origin(kind) is Literal:
        *others, last = map(repr, get_args(kind))
        return f"{', '.join(others)} or {last}"
    for part in get_args(kind):
        if isinstance(part, Meta):
            return part.description or ""
        allowed = _allowed_values(part)
        if allowed:
            return allowed
    return ""
