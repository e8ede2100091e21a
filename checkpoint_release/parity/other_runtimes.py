"""Other runtimes than a format's own: the same file, run by somebody else's code.

Each runs in a process of its own, by an adapter that may live in another environment
(see adapters/harness.py). What comes back is judged as any format's outputs are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.numpy import load_file, save_file

from checkpoint_release.core.signature import Arrays
from checkpoint_release.core.text import printable
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.workers import JobResult

ADAPTERS = Path(__file__).with_name("adapters")
OWN = "onnxruntime"
"""What ONNX files are run by in any case."""
_PATIENCE = 600  # seconds that all cases together may take
_IMPATIENT = "it took longer than"
_LONGEST = 300  # characters of a failed process's message
_RESOLVES = """
require("module").createRequire(process.cwd() + "/x").resolve(process.argv[1])
"""


@dataclass(frozen=True)
class OtherRuntime:
    """A runtime and how to call it.

    Attributes:
        name: as {parity.runtimes} has it.
        package: what must be installed: a Python module, or an npm package.
        adapter: a Python file for harness.py, or a script for Node; None: the package
            is onnxruntime for Node.
        python: the interpreter whose environment has the module.
        folder: from which, upwards, Node looks for the package; None: the working
            directory.
    """

    name: str
    package: str
    adapter: Path | None = None
    python: str = sys.executable
    folder: Path | None = None

    @property
    def lack(self) -> str | None:
        """What would have to be installed, as a clause; None: nothing.

        Of another environment's interpreter, whoever made that knows.
        """
        if self.interpreter != "node":
            missing = self.python == sys.executable and find_spec(self.package) is None
            return f"{self.package} isn't installed" if missing else None
        if shutil.which("node") is None:
            return "node isn't installed"
        command = ["node", "-e", _RESOLVES, self.package]
        found = subprocess.run(
            command, cwd=self.folder, capture_output=True, check=False
        )
        if found.returncode:
            return f"node finds no {self.package} in {self.folder or Path.cwd()}"
        return None

    def command(self, file: Path, folder: Path) -> list[str]:
        """What runs a file on the cases in a folder."""
        arguments = [str(file), str(folder)]
        if self.interpreter == "node":
            script = self.adapter or ADAPTERS / "harness.mjs"
            return ["node", str(script), self.package, *arguments]
        harness = str(ADAPTERS / "harness.py")
        return [self.python, "-P", harness, str(self.adapter), *arguments]

    @property
    def interpreter(self) -> str:
        """What runs the adapter."""
        is_python = self.adapter is not None and self.adapter.suffix == ".py"
        return self.python if is_python else "node"


OTHER_RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        OtherRuntime("onnxruntime-node", "onnxruntime-node"),
        OtherRuntime("onnxruntime-web", "onnxruntime-web"),
        OtherRuntime("openvino", "openvino", ADAPTERS / "openvino.py"),
        OtherRuntime("tract", "tract", ADAPTERS / "tract.py"),
    )
}
"""Name → runtime, of those that read ONNX files and may be installed beside this."""


def other_runtimes(names: Sequence[str]) -> list[OtherRuntime]:
    """The runtimes of these names, but for ONNX Runtime, by which formats are judged.

    Args:
        names: OWN and keys of OTHER_RUNTIMES.
    """
    return [OTHER_RUNTIMES[name] for name in names if name != OWN]


@dataclass(frozen=True)
class Elsewhere:
    """What came of a file in another runtime.

    Attributes:
        result: as of a job; its outputs are judged like any.
        version: of the runtime; empty where it didn't get so far.
        took_too_long: whether patience was at an end, and that is the failure.
    """

    result: JobResult
    version: str = ""
    took_too_long: bool = False


def run_elsewhere(
    runtime: OtherRuntime,
    file: Path,
    cases: Sequence[Case],
    outputs: Sequence[str],
    *,
    patience: float = _PATIENCE,
) -> Elsewhere:
    """Run a file in another runtime; a failure is no error here.

    Args:
        runtime: which one; nothing of it is lacking.
        file: what its adapter loads.
        cases: what to run it on.
        outputs: names of the model's outputs, in order.
        patience: seconds that all cases together may take.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "outputs.json").write_text(json.dumps(list(outputs)))
        for number, case in enumerate(cases):
            save_file(case.inputs, folder / f"inputs-{number}.safetensors")
        command = runtime.command(file.absolute(), folder)
        failure = _run(command, runtime.folder, patience)
        found = _outputs(folder, outputs)
        version = folder / "version.txt"
        stated = version.read_text().strip() if version.is_file() else ""
    if failure is None and len(found) < len(cases):
        failure = "it ended without an error before all cases were run"
    failed_case = None
    if failure is not None and stated and len(found) < len(cases):
        failed_case = cases[len(found)].name
    result = JobResult(found, failure=failure, failed_case=failed_case)
    return Elsewhere(result, stated, failure is not None and _IMPATIENT in failure)


def _run(command: Sequence[str], folder: Path | None, patience: float) -> str | None:
    """Run a command to its end.

    Returns:
        Why it failed: the last line that it printed; None: it didn't.
    """
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{_IMPATIENT} {patience:g} seconds"
    if done.returncode == 0:
        return None
    return f"it ended with {done.returncode}: {_cause(done.stderr)}"


def _cause(printed: str) -> str:
    """The line of what a failed process printed that names the error."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    for line in lines:
        # as Node prints errors, before its stack; Python's come last
        if line.startswith("Error:") or line.partition(": ")[0].endswith("Error"):
            return printable(line, _LONGEST)
    return printable(lines[-1], _LONGEST) if lines else "it printed nothing"


def _outputs(folder: Path, names: Sequence[str]) -> list[Arrays]:
    """What was computed, by case, until the first that is missing."""
    found: list[Arrays] = []
    while (path := folder / f"outputs-{len(found)}.safetensors").is_file():
        arrays = load_file(path)
        found.append({name: arrays[name] for name in names})
    return found
