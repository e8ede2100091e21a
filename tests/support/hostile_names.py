"""Names of code, and arguments, that a file of somebody else's may state."""

from __future__ import annotations

from typing import Any

OWN = "checkpoint_release.models.stick_figure"
CANARY = "canary:build"
MARK = "{MARK}"  # in the arguments below: the file to leave
MODULES = "{MODULES}"  # the folder that holds the module `canary`

# factory → its keyword arguments, with which it leaves the mark
FACTORIES: dict[str, dict[str, Any]] = {
    CANARY: {},
    "canary.deeper:build": {},
    "canary:Deeper": {"anything": 1},
    "canary:no_such_name": {},
    "subprocess:run": {"args": ["touch", MARK]},
    "subprocess:getoutput": {"cmd": f"touch {MARK}"},
    "subprocess:check_output": {"args": f"touch {MARK}", "shell": True},
    "os:system": {"command": f"touch {MARK}"},
    "os:mkdir": {"path": MARK},
    "os:open": {"path": MARK, "flags": 65},
    "posix:mkdir": {"path": MARK},
    "os:symlink": {"src": "/", "dst": MARK},
    "io:open": {"file": MARK, "mode": "w"},
    "_io:FileIO": {"file": MARK, "mode": "w"},
    "builtins:open": {"file": MARK, "mode": "w"},
    "codecs:open": {"filename": MARK, "mode": "w"},
    "logging:FileHandler": {"filename": MARK},
    "sqlite3:connect": {"database": MARK},
    "zipfile:ZipFile": {"file": MARK, "mode": "w"},
    "tarfile:open": {"name": MARK, "mode": "w"},
    "shutil:copyfile": {"src": "/etc/hostname", "dst": MARK},
    "urllib.request:urlretrieve": {
        "url": "file:///etc/hostname",
        "filename": MARK,
    },
    "timeit:timeit": {"stmt": f"open({MARK!r}, 'w')", "number": 1},
    "cProfile:run": {"statement": f"open({MARK!r}, 'w')"},
    "importlib:import_module": {"name": "canary"},
    "importlib:__import__": {"name": "canary"},
    "pydoc:locate": {"path": "canary"},
    "pkgutil:resolve_name": {"name": CANARY},
    "runpy:run_module": {"mod_name": "canary"},
    "runpy:run_path": {"path_name": f"{MODULES}/canary"},
    "torch:save": {"obj": 1, "f": MARK},
    "torch.hub:load": {
        "repo_or_dir": f"{MODULES}/canary",
        "model": "build",
        "source": "local",
    },
    "numpy:savetxt": {"fname": MARK, "X": [1]},
    "safetensors.numpy:save_file": {"tensor_dict": {}, "filename": MARK},
}

# what looks like one of the library's own, or like nothing at all
ODD_NAMES = (
    "checkpoint_release.core.files:write_json",
    "checkpoint_release.core.architecture:importlib.import_module",
    f"{OWN}:annotations",
    f"{OWN}:huggingface_files",
    f"{OWN}:build.__globals__",
    f"{OWN}:build.__call__",
    f"{OWN}.model:torch.save",
    f"{OWN}.graph:build",
    f"{OWN}/../../canary:build",
    f"{OWN}:build\n",
    f"{OWN}:build\0",
    f" {OWN}:build",
    f"{OWN} :build",
    f"{OWN}:build:canary",
    f"{OWN}\uff1abuild",
    f"{OWN.upper()}:build",
    "\uff43heckpoint_release.models.stick_figure:build",
    "checkpoint_release.models..canary:build",
    "checkpoint_release.models.:build",
    "checkpoint_release.models:build",
    "checkpoint_release.models.stick_figure:",
    ".canary:build",
    "..canary:build",
    "canary",
    "canary:",
    ":build",
    ":",
    "",
    "../modules/canary:build",
    "file:///canary.py:build",
    "__main__:main",
)

# Arguments of the library's own model that its weights don't have
IMPOSSIBLE_ARGUMENTS: tuple[dict[str, Any], ...] = (
    {"num_layers": 200_000},
    {"num_layers": 1 << 40},
    {"num_layers": -1},
    {"num_layers": "2"},
    {"num_layers": True},
    {"num_layers": 1e308},
    {"d_model": 1 << 40},
    {"nhead": 0},
    {"input_dim": 1 << 60},
    {"input_dim": 1 << 3000},
    {"num_actions": 10**12},
    {"dropout": "os.system"},
    {"image_encoder_arch": "os.system"},
    {"__class__": 1},
)
