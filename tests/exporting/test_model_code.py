"""A release carries the model's own modules, and transformers builds it from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from checkpoint_release.__main__ import main
from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.signature import Signature, TensorSpec
from checkpoint_release.exporting.model_code import code_files
from tests.support.documents import Document

SIGNATURE = Signature((), (TensorSpec("logits"),), {})
PACKAGE = {
    "house/__init__.py": "CLASSES = 5\n",
    "house/net.py": """\
import torch
from torch import nn

from .parts.layers import (
    COUNT as CLASSES,  # how many
    Mix,
)


class Net(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.embed = nn.Embedding(100, hidden)
        self.mix = Mix(hidden)
        ramp = torch.linspace(0, 1, hidden)
        self.register_buffer("ramp", ramp, persistent=False)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, tokens):
        from ._tools import act; hidden = self.embed(tokens)
        return {"logits": self.head(act(self.mix(hidden) + self.ramp))}


def build(hidden):
    return Net(hidden)
""",
    "house/_tools.py": """\
from . import CLASSES


def act(x):
    return x.tanh()  # ä
""",
    "house/parts/__init__.py": "",
    "house/parts/layers.py": """\
from house import CLASSES as COUNT
from torch.nn import Linear as Mix_


class Mix(Mix_):
    def __init__(self, hidden):
        super().__init__(hidden, hidden)
""",
}


def write(root: Path, **changes: str) -> Path:
    """The package below a folder, with other text for some of its files."""
    for name, text in {**PACKAGE, **changes}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def carried(root: Path, signature: Signature = SIGNATURE) -> dict[str, str]:
    return code_files("house.net:build", signature, [root])


def test_a_package_becomes_a_row_of_modules_that_import_each_other(
    tmp_path: Path,
) -> None:
    files = carried(write(tmp_path))
    assert sorted(files) == [
        "configuration_release.py",
        "house.py",
        "house__tools.py",
        "house_net.py",
        "house_parts_layers.py",
        "model_code.py",
        "modeling_release.py",
    ]
    net = files["house_net.py"]
    assert "from .house_parts_layers import COUNT as CLASSES, Mix\n" in net
    assert "        from .house__tools import act; hidden = " in net
    assert "from .house import CLASSES as COUNT\n" in files["house_parts_layers.py"]
    assert "from .house import CLASSES\n" in files["house__tools.py"]
    assert "# ä" in files["house__tools.py"]
    assert "from .house_net import build as build_model" in files["model_code.py"]
    for name, text in files.items():
        compile(text, name, "exec")
    # what isn't an import of its own is as it was written
    untouched = "".join(PACKAGE["house/net.py"].partition("class Net")[1:])
    assert untouched.replace("._tools", ".house__tools") in net


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("house/_tools.py", "print(__file__)\n", r"house\._tools reads files beside"),
        (
            "house/_tools.py",
            "import house.net\n",
            r"imports the module house\.net as a",
        ),
        (
            "house/_tools.py",
            "from . import net\n",
            r"imports the module house\.net as a",
        ),
        ("house/_tools.py", "from .none import x\n", r"imports house\.none \(line 1\)"),
    ],
)
def test_code_that_cannot_be_carried_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    root = write(tmp_path, **{name: text})
    with pytest.raises(ExportError, match=problem) as caught:
        carried(root)
    assert "safetensors.code" in caught.value.remedy


def test_names_that_a_release_cannot_have_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    odd = Signature((), (TensorSpec("a b"),), {})
    with pytest.raises(ExportError, match="'a b'"):
        carried(root, odd)
    (root / "model_code.py").write_text("def build(): ...\n")
    with pytest.raises(ExportError, match="model_code is the name of a file"):
        code_files("model_code:build", SIGNATURE, [root])
    with pytest.raises(ExportError, match="elsewhere doesn't lie where"):
        code_files("elsewhere:build", SIGNATURE, [root])


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("code")
    write(root / "src")
    torch.manual_seed(0)
    weights = {
        "embed.weight": torch.randn(100, 8),
        "mix.weight": torch.randn(8, 8),
        "mix.bias": torch.randn(8),
        "head.weight": torch.randn(5, 8),
        "head.bias": torch.randn(5),
    }
    torch.save(weights, root / "best.pth")
    tokens = "{name: tokens, dtype: int64, shape: [batch, sequence], low: 0, high: 100}"
    signature = f"inputs: [{tokens}]\noutputs: [logits]\n"
    (root / "signature.yaml").write_text(signature)
    command = ["convert", str(root / "best.pth"), "-o", str(root / "release")]
    command += ["--factory", "house.net:build", "--source", str(root / "src/house")]
    command += ["--signature", str(root / "signature.yaml")]
    command += ["--set", "model.kwargs={hidden: 8}", "--set", "safetensors.code=true"]
    assert main([*command, "--formats", "safetensors"]) == 0
    return root / "release"


@pytest.mark.slow
def test_a_stranger_gets_the_same_numbers_from_transformers(released: Path) -> None:
    """The card's own snippet, where nothing of the model is importable."""
    sections = Document("README.md", (released / "README.md").read_text()).sections
    texts = [block.text for section in sections for block in section.blocks]
    (snippet,) = (text for text in texts if "AutoModel" in text)
    environment = {"HF_HOME": str(released.parent / "home"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=released,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    name, *_, error = done.stdout.split()
    assert name == "logits" and float(error) < 1e-5


@pytest.mark.slow
def test_transformers_asks_before_it_runs_the_code(released: Path) -> None:
    import transformers

    with pytest.raises(ValueError, match="trust_remote_code"):
        transformers.AutoModel.from_pretrained(released, trust_remote_code=False)
    config = json.loads((released / "config.json").read_text())
    assert config["model_type"] == "house.net.build"
    assert str(released.parent) not in (released / "config.json").read_text()
