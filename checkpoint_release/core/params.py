"""params.yaml, read once and parse_section whole.

The defaults stand in params.yaml and nowhere else: every key is required, unknown ones
are refused. It is read as YAML 1.2 by the library that DVC itself uses, so that both
see the same values.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from checkpoint_release.core.errors import ParamsError

PATH = Path("params.yaml")
_LARGEST = sys.float_info.max  # below infinity
_VERSION = (  # v and https://semver.org's own expression
    r"^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-((0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(\+([0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*))?\Z"
)
_BYTES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

# A description says what a pattern or a range allows, and stands in the message about a
# value that it refuses.
Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
NotNegative = Annotated[float, Meta(ge=0, le=_LARGEST)]
Opset = Annotated[int, Meta(ge=14, le=25, description="an integer from 14 to 25")]
Factory = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*\Z",
        description="package.module:callable",
    ),
]
Size = Annotated[
    str,
    Meta(
        pattern=r"^[1-9][0-9]*(KB|MB|GB|TB)?\Z",
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
        pattern=r"^[A-Za-z0-9_.-]{1,96}(/[A-Za-z0-9_.-]{1,96})?\Z",
        description="organisation/name on the Hub",
    ),
]
Repository = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*\Z",
        description="organisation/name",
    ),
]
Branch = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+/-]*\Z", description="a branch's name")
]
Version = Annotated[
    str, Meta(pattern=_VERSION, description="v and a semantic version, such as v1.2.0")
]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping of params.yaml: unknown keys and wrong types are refused."""

    def validate(self) -> Iterator[tuple[str, str]]:
        """What no type can say of the section's values: the key, and what is wrong with
        its value.
        """
        yield from ()


class CheckpointParams(Section, frozen=True):
    """checkpoint: what to read."""

    path: Text
    state_dict: Text | None
    adapter: Text | None
    lora_alpha: Positive | None
    salvage: bool
    half_precision: Literal["keep", "cast", "refuse"]
    non_finite: Literal["refuse", "keep"]


class ModelParams(Section, frozen=True):
    """model: which nn.Module, and what its exports take."""

    factory: Factory
    source: Text
    kwargs: dict[str, Any]
    signature: dict[str, Any] | None
    inputs: list[Text] | None
    image_size: (
        Annotated[
            list[Count],
            Meta(
                min_length=2,
                max_length=2,
                description="[height, width], each at least 1",
            ),
        ]
        | None
    )


class FormatsParams(Section, frozen=True):
    """formats: which artifacts to make."""

    safetensors: bool
    onnx: bool
    torchscript: bool
    torch_export: bool

    def enabled(self) -> list[str]:
        """The names of the formats that are switched on."""
        return [name for name, on in msgspec.structs.asdict(self).items() if on]


FORMATS = FormatsParams.__struct_fields__


class SafetensorsParams(Section, frozen=True):
    """safetensors: how the weights are stored."""

    dtype: Literal["keep", "float32", "float16", "bfloat16"]
    max_shard_size: Size

    @property
    def max_shard_bytes(self) -> int:
        """max_shard_size in bytes (decimal units, as the Hub counts)."""
        count = self.max_shard_size.rstrip("KMGTB")
        return int(count) * _BYTES[self.max_shard_size[len(count) :]]


class OnnxParams(Section, frozen=True):
    """onnx: what the graph must be."""

    opset: Opset
    exporter: Literal["auto", "direct", "torchscript", "dynamo"]
    ir_version: Annotated[int, Meta(ge=3)] | None
    variants: list[Literal["float16", "int8"]]


class ToleranceParams(Section, frozen=True):
    """One of parity.tolerances: the fixed tolerance of an output, |error| ≤ atol + rtol
    · |expected|.
    """

    atol: NotNegative
    rtol: NotNegative


class ReducedParams(Section, frozen=True):
    """parity.reduced: the typical error that reduced precision may have, as a share of
    the output's magnitude.
    """

    float16: Positive
    bfloat16: Positive
    int8: Positive


class ParityParams(Section, frozen=True):
    """parity: what is compared, and what is close enough."""

    seed: Annotated[int, Meta(ge=0)]
    noise_multiple: Positive
    large_multiple: Positive
    sizes: dict[Text, list[Count]]
    magnitudes: list[NotNegative]
    repeats: Annotated[int, Meta(ge=1, le=1000)]
    tolerances: dict[Text, ToleranceParams]
    reduced: ReducedParams


class CardParams(Section, frozen=True):
    """card: what only the author can say of the model."""

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


class PublishParams(Section, frozen=True):
    """publish: where the release goes."""

    repo_id: Repository | None
    revision: Branch
    private: bool
    version: Version | None
    create_pr: bool
    dry_run: bool
    card: Literal["replace", "keep"]
    timeout: Positive
    sbom: bool
    signing_key: Text | None

    def validate(self) -> Iterator[tuple[str, str]]:
        """What the Hub can't do."""
        if self.create_pr and self.revision != "main":
            yield (
                "create_pr",
                (
                    "pull requests are opened against main, and revision is"
                    f" {self.revision!r}"
                ),
            )


class Params(Section, frozen=True):
    """All of params.yaml."""

    checkpoint: CheckpointParams
    model: ModelParams
    formats: FormatsParams
    safetensors: SafetensorsParams
    onnx: OnnxParams
    parity: ParityParams
    card: CardParams
    publish: PublishParams

    def validate(self) -> Iterator[tuple[str, str]]:
        """A release of nothing."""
        if not self.formats.enabled():
            yield (
                "formats",
                f"no format is enabled; set one of {', '.join(FORMATS)} to true",
            )


def load_params(path: Path = PATH) -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: it is missing, isn't YAML, or holds an unknown key, a wrong type or
            an impossible value; the message names every such key, what was found and
            what is allowed.
    """
    try:
        value = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise ParamsError(
            f"{path} is missing", "run in the project's root folder"
        ) from None
    except (MarkedYAMLError, UnicodeDecodeError) as error:
        raise ParamsError(
            f"{path} is not YAML: {' '.join(str(error).split())}", "correct that line"
        ) from None
    if not isinstance(value, dict):
        raise ParamsError(
            f"{path} holds {value!r}, not a mapping",
            "start from the params.yaml of the project",
        )
    return parse_section(Params, value, path)


S = TypeVar("S", bound=Section)


def parse_section(kind: type[S], value: Any, path: Path = PATH) -> S:
    """A mapping as the section that it should be.

    Args:
        kind: the section.
        value: what was read.
        path: where from, for the message.

    Raises:
        ParamsError: as load_params.
    """
    problems: list[str] = []
    section = _section(kind, value, "", problems)
    if section is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ParamsError(
            f"{path}:\n{lines}", f"correct {path}; its comments say what each key takes"
        )
    return section


def _section(kind: type[S], value: Any, key: str, problems: list[str]) -> S | None:
    """Check a mapping key by key, so that all that is wrong is told at once; None where
    anything is.
    """
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    if not isinstance(value, dict):
        problems.append(
            f"{key}: found {value!r}: expected a section with {', '.join(types)}"
        )
        return None
    prefix, place = (
        (f"{key}.", f"add it under {key}") if key else ("", "add this section")
    )
    own = [
        f"{prefix}{name}: unknown key; allowed here: {', '.join(types)}"
        for name in value
        if name not in types
    ]
    own += [f"{prefix}{name}: missing; {place}" for name in types if name not in value]
    found = {
        name: _value(types[name], value[name], prefix + name, own)
        for name in types
        if name in value
    }
    if not own:
        section = kind(**found)
        own += [
            f"{prefix}{name}: found {value[name]!r}: {said}"
            for name, said in section.validate()
        ]
    problems += own
    return None if own else section


def _value(kind: Any, value: Any, key: str, problems: list[str]) -> Any:
    if isinstance(kind, type) and issubclass(kind, Section):
        return _section(kind, value, key, problems)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said, _, inside = str(error).partition(" - at `$")
        allowed = _allowed_values(kind)
        why = f"expected {allowed}" if allowed else said[0].lower() + said[1:]
        problems.append(f"{key}{inside.removesuffix('`')}: found {value!r}: {why}")
        return None


def _allowed_values(kind: Any) -> str:
    """What a type allows, where msgspec would say it by a pattern or not at all;
    otherwise empty.
    """
    if get_origin(kind) is Literal:
        *others, last = map(repr, get_args(kind))
        return f"{', '.join(others)} or {last}"
    for part in get_args(kind):
        if allowed := (
            part.description if isinstance(part, Meta) else _allowed_values(part)
        ):
            return str(allowed)
    return ""
