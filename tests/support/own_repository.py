"""Somebody's repository: a model in a package with src layout, a run, notes of their
own, and nothing of this project.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from tests.support.project import Project

FACTORY = "tagger.net:build"
FILES = {
    "README.md": "The tagger of the house.\n",
    "src/tagger/__init__.py": "",
    "src/tagger/classes.txt": "5\n",
    "src/tagger/layers.py": """\
from pathlib import Path

from torch import nn

CLASSES = int((Path(__file__).parent / "classes.txt").read_text())


class Mix(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, x):
        return self.linear(x).tanh()
""",
    "src/tagger/net.py": """\
from torch import nn

from .layers import CLASSES, Mix


class Tagger(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.embed = nn.Embedding(100, hidden)
        self.mix = Mix(hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, tokens):
        return self.head(self.mix(self.embed(tokens)))


def build(hidden=8):
    return Tagger(hidden)
""",
    "signature.yaml": """\
inputs:
  - {name: tokens, dtype: int64, shape: [batch, sequence], low: 0, high: 100}
outputs: [logits]
dimensions:
  sequence: {minimum: 1, maximum: 64, example: 12}
""",
}
"""Relative imports, and code that reads a file beside itself."""


def tagger_weights(hidden: int = 8) -> dict[str, torch.Tensor]:
    """Weights of the tagger, always the same."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "embed.weight": draw(100, hidden),
        "mix.linear.weight": draw(hidden, hidden),
        "mix.linear.bias": draw(hidden),
        "head.weight": draw(5, hidden),
        "head.bias": draw(5),
    }


def own_repository(path: Path, *, git: bool = True) -> Project:
    """Write the repository, and commit it."""
    for name, text in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    (path / "runs").mkdir()
    torch.save(tagger_weights(), path / "runs/best.pth")
    repository = Project(path)
    if git:
        subprocess.run(["git", "init", "-q", "-b", "main", str(path)], check=True)
        repository.commit("The tagger")
    return repository


def asked_for_tagger() -> list[str]:
    """The arguments of `new` and `convert` that name the tagger."""
    return ["--factory", FACTORY, "--signature", "signature.yaml"]
