"""Run one file by one adapter on every case, in whatever environment has its runtime.

    python -P harness.py <adapter.py> <file> <folder>

An adapter is a Python file that names its distribution in PACKAGE, or states a VERSION,
and has

    load(file: Path, outputs: list[str]) -> run
    run(inputs: dict[str, array]) -> dict[str, array]

The folder holds outputs.json, the names of the model's outputs, and cases as
safetensors files inputs-0, inputs-1, …; what is computed goes into outputs-0,
outputs-1, …, and the runtime's version into version.txt. Nothing of this library is
imported: the environment may have nothing but the runtime, numpy and safetensors.
"""

from __future__ import annotations

import json
import runpy
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def main(adapter: str, file: Path, folder: Path) -> None:
    """Run the file on every case, in order.

    Args:
        adapter: path of its file.
        file: what the adapter loads.
        folder: with the cases.
    """
    module = runpy.run_path(adapter)
    stated = module.get("VERSION") or version(module["PACKAGE"])
    (folder / "version.txt").write_text(stated)
    names = json.loads((folder / "outputs.json").read_text())
    run = module["load"](file, names)
    for number in range(len(list(folder.glob("inputs-*.safetensors")))):
        found = run(load_file(folder / f"inputs-{number}.safetensors"))
        outputs = {}
        for name in names:
            outputs[name] = np.ascontiguousarray(found[name])
        save_file(outputs, folder / f"outputs-{number}.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
