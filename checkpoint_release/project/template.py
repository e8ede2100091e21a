"""What this project's files become in a project of somebody's own.

There is one truth: the files are those that run here. In another project the library is
an installed package, so its stages watch requirements.txt, which pins it, where here
they watch the library's rooms.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.core.json_text import parse_json
from checkpoint_release.core.sources import watching
from checkpoint_release.core.trust import LIBRARIES
from checkpoint_release.project.params import NEUTRAL, Settings, with_settings
from checkpoint_release.project.shipped import shipped_files

DISTRIBUTION = "checkpoint-release"
REQUIREMENTS = "requirements.txt"
WORKFLOW = ".github/workflows/release.yml"
_ROOMS = "checkpoint_release/"
_DEPENDENCY = "      - "
_INSTALLED_HERE = "  PACKAGES: -r constraints.txt -e . #"

_REQUIREMENTS_TEXT = """\
# What computes a release; every stage watches this file and constraints.txt.
# For torch's CPU build: pip install -r requirements.txt \\
#     --extra-index-url https://download.pytorch.org/whl/cpu
-c constraints.txt
{libraries}
# What the model's own code needs beside torch comes below, pinned with ==.
"""
_NOTES_TEXT = """\
<!-- What only the author knows; the headings become sections of the model card:
## Description, ## Intended use, ## Limitations, ## Training data. Beside this file,
citation.bib and metrics.json are read too. -->
"""
_OF_A_LIBRARY = (  # lines of .gitignore that a project with a pipeline alone can spare
    "*.egg-info/",
    ".hypothesis/",
    ".mypy_cache/",
    ".pytest_cache/",
    ".ruff_cache/",
    "build/",
)


def project_files(settings: Settings, folder: str = "") -> dict[str, str]:
    """The files of a new project: path relative to its folder, POSIX → text.

    dvc.yaml watches no code of a model yet. The workflow of a project within a larger
    repository lies above its folder.

    Args:
        settings: options of params.yaml.
        folder: the project's within its git repository, POSIX; empty: the repository's
            own.

    Raises:
        ParamsError: there is no such option.
        CheckpointReleaseError: this installation lacks the project's files.
    """
    root = files_root()
    files = {name: _read(root / name) for name in shipped_files(root)}
    files["dvc.yaml"] = own_dvc_yaml(files["dvc.yaml"])
    params = {**NEUTRAL, **settings}
    files["params.yaml"] = with_settings(files["params.yaml"], params)
    files[".dvc/config"] = _without_remotes(files[".dvc/config"])
    files[".gitignore"] = _own_gitignore(files[".gitignore"])
    files[REQUIREMENTS] = _requirements(settings)
    files["checkpoints/card/notes.md"] = _NOTES_TEXT
    name, text = _workflow(files.pop(WORKFLOW), folder)
    files[name] = text
    return dict(sorted(files.items()))


def files_root() -> Path:
    """Where the project's files lie: in the installed package, or in its checkout.

    Raises:
        CheckpointReleaseError: in neither.
    """
    packed = Path(__file__).parent / "files"
    checkout = Path(__file__).parents[2]
    for root in (packed, checkout):
        if (root / "dvc.yaml").is_file() and (root / "pipeline").is_dir():
            return root
    raise CheckpointReleaseError(
        "this installation of checkpoint-release lacks the pipeline's files",
        "install it from a wheel or a checkout that was built whole",
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def own_dvc_yaml(text: str) -> str:
    """This project's dvc.yaml, where the library is an installed package."""
    lines: list[str] = []
    pin = f"{_DEPENDENCY}{REQUIREMENTS}"
    for line in text.splitlines():
        if not line.startswith(f"{_DEPENDENCY}{_ROOMS}"):
            lines.append(line)
        elif lines[-1] != pin:
            lines.append(pin)
    return watching("\n".join(lines), ())


def _without_remotes(config: str) -> str:
    """A .dvc/config without the places where this project stores its artifacts."""
    parser = configparser.ConfigParser()
    parser.read_string(config)
    parser.remove_option("core", "remote")
    for section in parser.sections():
        if "remote" in section:
            parser.remove_section(section)
    target = io.StringIO()
    parser.write(target)
    return target.getvalue().strip() + "\n"


def _own_gitignore(text: str) -> str:
    lines = [line for line in text.splitlines() if line not in _OF_A_LIBRARY]
    return "\n".join(lines) + "\n"


def _requirements(settings: Settings) -> str:
    """The text of requirements.txt."""
    extras = ["pipeline"]
    lines = []
    library = LIBRARIES.get(str(settings.get("model.factory")))
    if library is not None:
        extras.append(library)
        with suppress(importlib.metadata.PackageNotFoundError):
            lines.append(f"{library}=={importlib.metadata.version(library)}")
    libraries = "\n".join([library_pin(extras), *lines])
    return _REQUIREMENTS_TEXT.format(libraries=libraries)


def library_pin(extras: Sequence[str]) -> str:
    """The requirement that installs this version of the library, from where it came.

    Args:
        extras: to install with it.

    A version out of a git repository is pinned to its commit. A path of this machine
    means nothing elsewhere, so a version out of a folder is pinned by its number.
    """
    name = f"{DISTRIBUTION}[{','.join(extras)}]"
    distribution = importlib.metadata.distribution(DISTRIBUTION)
    origin = distribution.read_text("direct_url.json")
    address = _address(parse_json(origin)) if origin else ""
    if address:
        return f"{name} @ {address}"
    return f"{name}=={distribution.version}"


def library_version() -> str:
    """The number of the installed version."""
    return importlib.metadata.version(DISTRIBUTION)


def _address(origin: Mapping[str, object]) -> str:
    """Where others get the distribution too, of its direct_url.json; or empty."""
    url, vcs = str(origin.get("url", "")), origin.get("vcs_info")
    if url.startswith("file:") or "@" in url:
        return ""  # a path of this machine, or a name with a password
    if isinstance(vcs, Mapping):
        return f"{vcs.get('vcs')}+{url}@{vcs.get('commit_id')}"
    return url if url.startswith("https:") else ""


def _workflow(text: str, folder: str) -> tuple[str, str]:
    """The workflow of a project.

    Args:
        text: this project's.
        folder: of the other one, within its repository; empty: the repository's own.

    Returns:
        Its path, relative to the project's folder, and its text.
    """
    text = text.replace(_INSTALLED_HERE, f"  PACKAGES: -r {REQUIREMENTS} #", 1)
    if not folder:
        return WORKFLOW, text
    text = text.replace("name: release\n", f"name: release ({folder})\n", 1)
    text = text.replace("  PROJECT: . #", f"  PROJECT: {folder} #", 1)
    above = "../" * len(PurePosixPath(folder).parts)
    slug = folder.replace("/", "-")
    return f"{above}.github/workflows/release-{slug}.yml", text
