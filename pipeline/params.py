"""params.yaml, read once and checked whole.

The defaults stand in params.yaml and nowhere else: every key is required, unknown ones are refused. It is
read as YAML 1.2 by the library that DVC itself uses, so that both see the same values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from pipeline.errors import ParamsError
from pipeline.hub_terms import LICENSES, TASKS

Text = Annotated[str, StringConstraints(min_length=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_VERSION = (  # v and https://semver.org's own expression
    r"^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-((0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(\+([0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*))?$"
)
_BYTES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class Section(BaseModel):
    """A mapping of params.yaml: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CheckpointParams(Section):
    """checkpoint: what to read."""

    path: Text
    state_dict: Text | None
    adapter: Text | None
    lora_alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    salvage: bool
    half_precision: Literal["keep", "cast", "refuse"]
    non_finite: Literal["refuse", "keep"]


class ModelParams(Section):
    """model: which nn.Module, and what its exports take."""

    factory: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    source: Text
    kwargs: dict[str, Any]
    signature: dict[str, Any] | None
    inputs: list[Text] | None
    image_size: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=2, max_length=2)] | None


class FormatsParams(Section):
    """formats: which artifacts to make."""

    safetensors: bool
    onnx: bool
    torchscript: bool
    torch_export: bool

    def enabled(self) -> list[str]:
        """The names of the formats that are switched on."""
        return [name for name, on in self if on]


class SafetensorsParams(Section):
    """safetensors: how the weights are stored."""

    dtype: Literal["keep", "float32", "float16", "bfloat16"]
    max_shard_size: Annotated[str, StringConstraints(pattern=r"^[1-9]\d*(KB|MB|GB|TB)?$")]

    @property
    def max_shard_bytes(self) -> int:
        """max_shard_size in bytes (decimal units, as the Hub counts)."""
        digits = re.match(r"\d+", self.max_shard_size)
        count = digits.group() if digits else "0"
        return int(count) * _BYTES[self.max_shard_size[len(count) :]]


class OnnxParams(Section):
    """onnx: what the graph must be."""

    opset: int
    exporter: Literal["auto", "direct", "torchscript", "dynamo"]
    ir_version: Annotated[int, Field(ge=3)] | None
    variants: list[Literal["float16", "int8"]]

    @field_validator("opset")
    @classmethod
    def _within_reach(cls, opset: int) -> int:
        if not 14 <= opset <= 25:
            raise ValueError("no exporter here writes it; choose 14 to 25")
        return opset


class ToleranceParams(Section):
    """One of parity.tolerances: the fixed tolerance of an output, |error| ≤ atol + rtol · |expected|."""

    atol: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rtol: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ReducedParams(Section):
    """parity.reduced: the typical error that reduced precision may have, as a share of the output's magnitude."""

    float16: Positive
    bfloat16: Positive
    int8: Positive


class ParityParams(Section):
    """parity: what is compared, and what is close enough."""

    seed: Annotated[int, Field(ge=0)]
    noise_multiple: Positive
    large_multiple: Positive
    sizes: dict[Text, list[Annotated[int, Field(gt=0)]]]
    magnitudes: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    repeats: Annotated[int, Field(gt=0, le=1000)]
    tolerances: dict[Text, ToleranceParams]
    reduced: ReducedParams


_HubId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,96}(/[A-Za-z0-9_.-]{1,96})?$")]


class CardParams(Section):
    """card: what only the author can say of the model."""

    written_for: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")] | None
    words: Text
    title: Text | None
    license: Text | None
    license_name: Text | None
    license_link: Text | None
    authors: list[Text]
    language: list[Annotated[str, StringConstraints(pattern=r"^([a-z]{2,3}|code|multilingual)$")]]
    datasets: list[_HubId]
    base_model: list[_HubId]
    pipeline_tag: Text | None
    tags: list[Text]
    evaluated_on: Text | None

    @field_validator("license")
    @classmethod
    def _license_of_the_hub(cls, license: str | None) -> str | None:
        if license is not None and license not in LICENSES:
            near = get_close_matches(license.lower(), LICENSES, n=3, cutoff=0.4)
            raise ValueError(f"not an identifier of the Hub's; {' or '.join([*near, 'other with a license_name'])}")
        return license

    @field_validator("license_name")
    @classmethod
    def _named_other_license(cls, name: str | None, info: ValidationInfo) -> str | None:
        if (info.data.get("license") == "other") != (name is not None):
            raise ValueError("the Hub wants a name for license: other, and for no other license")
        return name

    @field_validator("pipeline_tag")
    @classmethod
    def _task_of_the_hub(cls, task: str | None) -> str | None:
        if task is not None and task not in TASKS:
            near = get_close_matches(task.lower(), TASKS, n=3, cutoff=0.4)
            raise ValueError(f"not a task of the Hub's; {' or '.join([*near, 'other'])}")
        return task


class PublishParams(Section):
    """publish: where the release goes."""

    repo_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")] | None
    revision: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.+/-]*$")]
    private: bool
    version: Annotated[str, StringConstraints(pattern=_VERSION)] | None
    create_pr: bool
    dry_run: bool
    card: Literal["replace", "keep"]
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    sbom: bool
    signing_key: Text | None

    @model_validator(mode="after")
    def _pull_requests_are_against_main(self) -> Self:
        if self.create_pr and self.revision != "main":
            raise ValueError(f"create_pr opens pull requests against main, and revision is {self.revision!r}")
        return self


class Params(Section):
    """All of params.yaml."""

    checkpoint: CheckpointParams
    model: ModelParams
    formats: FormatsParams
    safetensors: SafetensorsParams
    onnx: OnnxParams
    parity: ParityParams
    card: CardParams
    publish: PublishParams

    @field_validator("formats")
    @classmethod
    def _some_format(cls, formats: FormatsParams) -> FormatsParams:
        if not formats.enabled():
            raise ValueError(f"no format is enabled; set one of {', '.join(FormatsParams.model_fields)} to true")
        return formats


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: it is missing, isn't YAML, or holds an unknown key, a wrong type or an impossible value;
            the message names every such key, what was found and what is allowed.
    """
    try:
        value = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing", "run in the project's root folder") from None
    except (MarkedYAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not YAML: {' '.join(str(error).split())}", "mend that line") from None
    if not isinstance(value, dict):
        raise ParamsError(f"{path} holds {value!r}, not a mapping", "start from the params.yaml of the project")
    try:
        return Params.model_validate(value)
    except ValidationError as error:
        problems = "\n".join(f"  {_problem(problem)}" for problem in error.errors())
        raise ParamsError(f"{path}:\n{problems}", f"correct {path}; its comments say what each key takes") from None


def _problem(problem: Any) -> str:
    """One line for one pydantic error: the key's path, what was found, what is allowed."""
    key = _key(problem["loc"])
    match problem["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key; allowed here: {', '.join(_siblings(problem['loc']))}"
        case "missing":
            return f"{key}: missing; {_describe(problem['loc'])}"
        case _:
            message = problem["msg"].removeprefix("Value error, ")
            return f"{key}: found {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _key(location: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _siblings(location: Sequence[str | int]) -> list[str]:
    section: Any = Params
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return list(section.model_fields)


def _describe(location: Sequence[str | int]) -> str:
    where = _key(location[:-1])
    return f"add it under {where}" if where else "add this section"
