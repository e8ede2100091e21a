"""TorchScript in C++: compiled against torch's own headers and libraries."""

from __future__ import annotations

import atexit
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch.utils.cpp_extension import include_paths, library_paths

PACKAGE = "torch"
SOURCE = Path(__file__).with_suffix(".cpp")
COMPILER = "g++"


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A TorchScript module."""
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder)
    program = folder / "libtorch"
    compile_program(program)
    schema = torch.jit.load(str(file)).forward.schema
    names = [argument.name for argument in schema.arguments[1:]]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        paths = []
        for name in names:
            path = folder / f"{name}.pt"
            torch.save(torch.from_numpy(inputs[name]), path)
            paths.append(str(path))
        found = folder / "outputs.pt"
        subprocess.run([str(program), str(file), str(found), *paths], check=True)
        tensors = torch.load(found, weights_only=True)
        arrays = [tensor.numpy() for tensor in tensors]
        return dict(zip(outputs, arrays, strict=True))

    return run


def compile_program(program: Path) -> None:
    """Compile the source with the flags that torch's libraries need."""
    command = [COMPILER, "-std=c++20", "-O0", str(SOURCE), "-o", str(program)]
    command += [f"-I{path}" for path in include_paths()]
    for path in library_paths():
        command += [f"-L{path}", f"-Wl,-rpath,{path}"]
    libraries = ["-ltorch", "-ltorch_cpu", "-lc10"]
    subprocess.run([*command, "-Wl,--no-as-needed", *libraries], check=True)
