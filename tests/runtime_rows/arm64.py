"""Python for a 64-bit ARM processor, which QEMU computes.

Debian's packages of QEMU and of Python are unpacked in the cache folder, and the wheels
for ARM beside them. Nothing is installed, so this takes no right of root's.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.runtime_rows.environments import (
    READY,
    EnvironmentLackingError,
    environment_folder,
    run_command,
)
from tests.support.project import ROOT

QEMU = "qemu-user-static"
PACKAGES = (QEMU, "python3:arm64", "libstdc++6:arm64")
PROGRAM = "usr/bin/qemu-aarch64-static"
PYTHON = "usr/bin/python3"
PROCESSOR = "neoverse-n1"
_VERSION = "import platform; print(platform.python_version())"
_PROGRAMS = ("apt-get", "dpkg")
_PLATFORMS = (
    "manylinux_2_28_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux2014_aarch64",
)
# QEMU 7 shows the processor of this machine in /proc/cpuinfo, where ONNX Runtime looks
# for one of ARM's, finds none and crashes. This is PROCESSOR, as Linux shows it.
_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""


@dataclass(frozen=True)
class Arm64:
    """Debian's Python for ARM with wheels of its own.

    Attributes:
        requirements: what pip installs, at fixed versions.
    """

    requirements: tuple[str, ...]

    def make(self) -> Path:
        """The interpreter: a script that starts it under QEMU.

        Raises:
            EnvironmentLackingError: apt-get or pip can't get something.
        """
        folder = environment_folder(f"{self} {PACKAGES} {PROCESSOR}")
        python = folder / "python"
        if not (folder / READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            unpack_packages(folder)
            python.write_text(starting_script(folder))
            python.chmod(0o755)
            install_wheels(folder / "site", python, self.requirements)
            (folder / READY).touch()
        return python


def unpack_packages(folder: Path) -> None:
    """Unpack QEMU into a folder's qemu, and Python with what it needs into its root.

    Raises:
        EnvironmentLackingError: the packages can't be had.
    """
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            raise EnvironmentLackingError(f"no {program} here")
    archives = download_packages(folder / "apt")
    qemu, root = folder / "qemu", folder / "root"
    for archive in archives.glob(f"{QEMU}_*.deb"):
        run_command(["dpkg", "--extract", str(archive), str(qemu)])
    for kind in ("arm64", "all"):
        for archive in archives.glob(f"*_{kind}.deb"):
            run_command(["dpkg", "--extract", str(archive), str(root)])
    shutil.rmtree(folder / "apt")
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(_CPUINFO)


def download_packages(folder: Path) -> Path:
    """Download PACKAGES and all that they need, by lists of apt's in a folder.

    Returns:
        Where the archives are.

    Raises:
        EnvironmentLackingError: apt-get failed.
    """
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    nothing_installed = folder / "status"
    nothing_installed.touch()
    command = ["apt-get", "--quiet", "--yes", "--no-install-recommends"]
    for option in (
        f"Dir::State={folder / 'state'}",
        f"Dir::State::status={nothing_installed}",
        f"Dir::Cache={folder / 'cache'}",
        "APT::Architectures::=arm64",
        "Acquire::Languages=none",
    ):
        command += ["--option", option]
    run_command([*command, "update"])
    run_command([*command, "--download-only", "install", *PACKAGES])
    return folder / "cache/archives"


def starting_script(folder: Path) -> str:
    """A shell script that starts the Python for ARM."""
    root = folder / "root"
    qemu = [str(folder / "qemu" / PROGRAM), "-cpu", PROCESSOR, "-L", str(root)]
    command = shlex.join([*qemu, str(root / PYTHON)])
    wheels = shlex.quote(str(folder / "site"))
    return f'#!/bin/sh\nPYTHONPATH={wheels} exec {command} "$@"\n'


def install_wheels(folder: Path, python: Path, requirements: tuple[str, ...]) -> None:
    """Install wheels for ARM into a folder, by this environment's pip.

    Raises:
        EnvironmentLackingError: a wheel can't be had, or QEMU can't start Python.
    """
    version = run_command([str(python), "-c", _VERSION])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    pip += ["--target", str(folder), "--python-version", version.strip()]
    for name in _PLATFORMS:
        pip += ["--platform", name]
    run_command([*pip, "--constraint", str(ROOT / "constraints.txt"), *requirements])
