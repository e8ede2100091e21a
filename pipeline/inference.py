"""One way to run a model, whatever format it comes in.

    from pipeline.inference import load

    model = load("artifacts/release")
    outputs = model(motion=motion, text_embedding=text_embedding, action_sequence=actions)
    outputs["pose"]

Takes .safetensors, .onnx, .pt (TorchScript), .pt2 (torch.export), .pth (deprecated), a folder of artifacts or a
release, or a repository on a Hub. Named numpy arrays go in and come out. ONNX is run without torch, the others
without onnxruntime. On the command line:

    python -m pipeline.inference artifacts/release --describe
    python -m pipeline.inference artifacts/onnx --inputs case.safetensors --outputs out.safetensors
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.detect import FORMATS, SUPPORTED, detect
from pipeline.errors import ArchitectureError, InferenceError, PipelineError
from pipeline.files import read_json
from pipeline.models import Architecture, family_module, is_trusted
from pipeline.runtimes import Runtime, open_runtime, run_module
from pipeline.signature import Arrays, Signature, TensorSpec
from pipeline.tensor import TensorLike

Run = Callable[[Arrays], Arrays]

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SUFFIXES = (".safetensors", ".onnx", ".pt", ".pt2", ".pth", ".bin", ".ckpt")


class Model:
    """A model that was loaded: call it with the inputs that its signature names.

    Attributes:
        path: what was loaded, as it was given.
        format: safetensors, checkpoint, onnx, torchscript, torch_export or pth.
        signature: inputs and outputs by name, with dtypes, shapes and ranges.
    """

    def __init__(self, path: str, format: str, signature: Signature, run: Run) -> None:
        self.path = path
        self.format = format
        self.signature = signature
        self._run = run

    def __call__(self, **inputs: npt.ArrayLike) -> Arrays:
        """Compute the outputs.

        Args:
            inputs: exactly the signature's inputs, as arrays in its dtypes and shapes. Only of a .pth may those be
                left out that the model's forward can do without.

        Returns:
            Output name → array, in the signature's order.

        Raises:
            InferenceError: a name, dtype, shape or range isn't what the signature says.
        """
        return self._run({name: np.asarray(array) for name, array in inputs.items()})

    def __repr__(self) -> str:
        takes = ", ".join(spec.name for spec in self.signature.inputs)
        return f"<{self.format} model {self.path} of {takes}>"

    def describe(self) -> str:
        """What it takes and gives, as a table for people."""
        dimensions = [
            [name, f"{bounds.minimum} to {bounds.maximum or 'any number'}", f"for example {bounds.example}"]
            for name, bounds in self.signature.dimensions.items()
        ]
        return "\n".join(
            [
                f"{self.path}: {self.format}",
                *_table("inputs", [_row(spec) for spec in self.signature.inputs]),
                *_table("outputs", [_row(spec) for spec in self.signature.outputs]),
                *_table("dimensions", dimensions),
            ]
        )


def load(
    path: str | Path,
    *,
    format: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    revision: str | None = None,
    trust: Sequence[str] = (),
) -> Model:
    """Load a model, told by what its file holds rather than by its name.

    Args:
        path: a file, a folder, or the name of a repository on the Hub (`organisation/name`).
        format: which of a folder's or repository's formats to take; None: the first of safetensors, onnx,
            torchscript, torch_export that is there (with providers: onnx).
        device: a torch device, or for ONNX cpu or cuda.
        threads: threads that one run uses; None leaves the library's default.
        providers: ONNX Runtime's execution providers, in order.
        revision: branch, tag or commit of the repository.
        trust: model code ("package.module:callable") that config.json may name, beside this project's own and that
            of params.yaml. ONNX, TorchScript and torch.export need none.

    Raises:
        InferenceError: it isn't there, isn't a model that this can run, or names model code that isn't trusted.
        ArtifactError: it is damaged, or its config.json is missing.
    """
    given = str(path)
    if format not in (None, *FORMATS):
        raise InferenceError(f"there is no format {format!r}", f"choose one of {', '.join(FORMATS)}")
    if providers is not None and format is None and not Path(path).is_file():
        format = "onnx"
    local = _local(given, format, revision)
    found, target = detect(local, format)
    if found in ("safetensors", "pth"):
        _refuse_unknown_code(target if target.is_dir() else target.parent, trust)
    options: dict[str, Any] = {"device": device, "threads": threads, "providers": providers}
    if found == "pth":
        warnings.warn(
            f"loading {given}: .pth is deprecated, for it is a pickle with no description of the model. Convert it "
            f"once: set checkpoint.path to {given} in params.yaml, run `dvc repro`, and load artifacts/release",
            DeprecationWarning,
            stacklevel=2,
        )
        return Model(given, found, *_open_pth(target, options))
    runtime = open_runtime(found, target, aligned=False, **options)
    return Model(given, found, runtime.signature, runtime.run)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.inference", description="Run a model of any format.")
    parser.add_argument("model", help="file, folder, or repository on the Hub (organisation/name)")
    parser.add_argument("--describe", action="store_true", help="print what it takes and gives")
    parser.add_argument("--inputs", type=Path, metavar="FILE", help="safetensors file with the inputs, by name")
    parser.add_argument("--outputs", type=Path, metavar="FILE", help="safetensors file to write the outputs to")
    parser.add_argument("--format", choices=FORMATS, help="which of a folder's formats to take")
    parser.add_argument("--device", default="cpu", help="torch device, or cpu or cuda for ONNX (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads that one run uses")
    parser.add_argument("--providers", nargs="+", metavar="NAME", help="ONNX Runtime's execution providers")
    parser.add_argument("--revision", help="branch, tag or commit of a repository")
    parser.add_argument("--trust", action="append", default=[], metavar="FACTORY", help="model code that may run")
    asked = parser.parse_args(arguments)
    if not asked.describe and not (asked.inputs and asked.outputs):
        parser.error("give --inputs and --outputs, or --describe")
    try:
        model = load(
            asked.model,
            format=asked.format,
            device=asked.device,
            threads=asked.threads,
            providers=asked.providers,
            revision=asked.revision,
            trust=asked.trust,
        )
        if asked.describe:
            print(model.describe())
        if asked.inputs and asked.outputs:
            _run_case(model, asked.inputs, asked.outputs)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _refuse_unknown_code(folder: Path, trust: Sequence[str]) -> None:
    config = folder / "config.json"
    factory = read_json(config).get("factory") if config.is_file() else None
    if factory is not None and not is_trusted(factory, trust):
        raise InferenceError(
            f"{config} names {factory!r} as its model code, which is not known here",
            f"if you know and trust it, give trust=[{factory!r}] (--trust {factory}); or load the ONNX file, which "
            "needs no model code",
        )


def _local(given: str, format: str | None, revision: str | None) -> Path:
    """The file or folder on this machine; a repository on the Hub is fetched as far as it is needed."""
    path = Path(given)
    if path.exists():
        if revision is not None:
            raise InferenceError(f"revision is {revision!r}, and {given} is on this machine", "drop revision")
        return path
    if not _HUB_ID.fullmatch(given) or path.suffix in _SUFFIXES or path.parent.is_dir():
        raise InferenceError(f"{given} is missing", SUPPORTED)
    return _fetch(given, format, revision)


def _fetch(repo_id: str, format: str | None, revision: str | None) -> Path:
    """A snapshot that holds the one format to load, and config.json."""
    from huggingface_hub import snapshot_download

    wanted = {
        "safetensors": ["config.json", "model*.safetensors", "model.safetensors.index.json"],
        **{name: [f"{name}/*"] for name in ("onnx", "torchscript", "torch_export")},
    }
    for name in [format] if format else wanted:
        if name not in wanted:
            raise InferenceError(f"a release on the Hub holds no {name}", f"choose one of {', '.join(wanted)}")
        try:
            folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=wanted[name]))
        except (OSError, ValueError) as error:  # the library's own errors are of these
            at = f" at {revision}" if revision else ""
            raise InferenceError(
                f"there is no {repo_id}{at} on this machine, and fetching it from the Hub failed: "
                f"{' '.join(str(error).split())[:300]}",
                "check the name, the revision, the network, and HF_TOKEN for a private repository",
            ) from None
        if any(folder.rglob("model*")):
            return folder
    raise InferenceError(f"{repo_id} on the Hub holds no model that this can run", SUPPORTED)


def _open_pth(path: Path, options: Mapping[str, Any]) -> tuple[Signature, Run]:
    """Read a checkpoint without running anything in it, and build the model around its weights.

    The model is what the config.json beside the file says, or else one of the stick-figure family. No export has
    settled which inputs it takes, so each call takes those that it is given.

    Raises:
        InferenceError: it is neither.
    """
    from safetensors.torch import load_file

    from pipeline.eager import load_model
    from pipeline.pth import read_checkpoint, refuse_dangerous
    from pipeline.safetensors_file import write_safetensors
    from pipeline.state_dict import find_weights, lora_alpha, merge_lora, without_prefix

    checkpoint = read_checkpoint(path)
    refuse_dangerous(checkpoint)
    weights, _ = without_prefix(find_weights(checkpoint.value, None).weights)
    weights, _ = merge_lora(weights, None, lora_alpha(checkpoint.value, None, weights))
    architecture = _architecture_of_pth(path, weights)
    with tempfile.TemporaryDirectory() as folder:
        write_safetensors(Path(folder) / "weights.safetensors", weights)
        module = load_model(architecture, load_file(Path(folder) / "weights.safetensors"))
    everything = architecture.signature
    parameters = inspect.signature(module.forward).parameters.values()
    optional = {parameter.name for parameter in parameters if parameter.default is not parameter.empty}
    runtimes: dict[tuple[str, ...], Runtime] = {}

    def run(inputs: Arrays) -> Arrays:
        names = tuple(spec.name for spec in everything.inputs if spec.name in inputs or spec.name not in optional)
        if names not in runtimes:
            runtimes[names] = run_module(path, module, everything.taking(names), **options)
        return runtimes[names].run(inputs)

    return everything, run


def _architecture_of_pth(path: Path, weights: Mapping[str, TensorLike]) -> Architecture:
    beside = path.parent / "config.json"
    if beside.is_file() and "factory" in (config := read_json(beside)):
        return Architecture.from_json(config)
    factory = "pipeline.models.stick_figure:build"
    family = family_module(factory)
    try:
        kwargs = family.read_architecture({name: (each.dtype, each.shape) for name, each in weights.items()}, {})
    except ArchitectureError as error:
        raise InferenceError(
            f"{path} doesn't say which model its weights are of, and it isn't a StickFigureTransformer: "
            f"{error.problem}",
            "state model.factory and model.signature in params.yaml, run `dvc repro`, and load artifacts/release",
        ) from None
    return Architecture(factory, kwargs, family.signature(kwargs, None))


def _run_case(model: Model, inputs: Path, outputs: Path) -> None:
    from pipeline.safetensors_file import open_safetensors, write_safetensors
    from pipeline.tensor import Tensor

    computed = model(**{name: tensor.numpy() for name, tensor in open_safetensors(inputs).items()})
    write_safetensors(outputs, {name: Tensor.of_numpy(array) for name, array in computed.items()})
    for name, array in computed.items():
        print(f"{name} {array.dtype} {list(array.shape)}")


def _row(spec: TensorSpec) -> list[str]:
    shape = f"[{', '.join(map(str, spec.shape))}]" if spec.shape is not None else ""
    span = f"{spec.low} to {spec.high - 1}" if spec.high is not None else ""
    return [spec.name, spec.dtype, shape, span, spec.description]


def _table(title: str, rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [title, *(f"  {line}".rstrip() for line in lines)]


if __name__ == "__main__":
    main()
