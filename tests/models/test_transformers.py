"""Models of transformers by their configuration alone, with random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from checkpoint_release.__main__ import main
from checkpoint_release.core.errors import (
    ArchitectureError,
    ModelError,
    ParamsError,
    UntrustedCodeError,
)
from checkpoint_release.core.trust import TRANSFORMERS_FACTORY
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.models import transformers as family
from checkpoint_release.models.transformers.files import companion_files
from checkpoint_release.runtimes.loader import load
from tests.support.checkpoint_folder import write_checkpoint
from tests.support.documents import Document

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "BertForMaskedLM": {
        "model_type": "bert",
        "vocab_size": 50,
        "max_position_embeddings": 64,
        **SMALL,
    },
    "GPT2LMHeadModel": {
        "model_type": "gpt2",
        "vocab_size": 50,
        "n_positions": 64,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "bos_token_id": 1,
        "eos_token_id": 1,
    },
    "ViTForImageClassification": {
        "model_type": "vit",
        "image_size": 32,
        "patch_size": 8,
        **SMALL,
    },
    "T5ForConditionalGeneration": {
        "model_type": "t5",
        "vocab_size": 50,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 2,
    },
    "RobertaForTokenClassification": {
        "model_type": "roberta",
        "vocab_size": 50,
        "max_position_embeddings": 66,
        "pad_token_id": 1,
        **SMALL,
    },
}
"""Class → configuration."""


def configuration(name: str) -> dict[str, Any]:
    return {"architectures": [name], **CONFIGURATIONS[name]}


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def read(folder: Path, **overrides: Any) -> dict[str, Any]:
    return family.read_architecture({}, {"config": str(folder), **overrides})


# The configuration


def test_a_configuration_is_needed() -> None:
    with pytest.raises(ParamsError, match=r"model\.kwargs has no config"):
        family.read_architecture({}, {"hidden_size": 3})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "has no model_type"),
        ("[]", "has no model_type"),
        ("no JSON", "isn't JSON|not JSON"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_error(
    tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ParamsError, match=problem):
        read(tmp_path)


def test_what_belongs_to_a_model_is_carried_and_nothing_else(tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer.json", "notes.txt", "optimizer.pt"):
        (tmp_path / name).touch()
    found = companion_files([tmp_path, tmp_path / "vocab.txt", tmp_path / "none"])
    assert sorted(found) == ["tokenizer.json", "vocab.txt"]


@pytest.mark.slow
def test_the_whole_configuration_is_kept_and_no_trace_of_the_machine(
    tmp_path: Path,
) -> None:
    config = configuration("BertForMaskedLM")
    folder = write_config(tmp_path / "bert", {**config, "_name_or_path": "/home/me"})
    kwargs = read(folder, hidden_act="relu")
    assert kwargs["architectures"] == ["BertForMaskedLM"]
    assert kwargs["layer_norm_eps"] == 1e-12  # transformers' default, stated
    assert kwargs["hidden_act"] == "relu" and kwargs["use_cache"] is not None
    assert "/home" not in json.dumps(kwargs) and str(tmp_path) not in json.dumps(kwargs)
    other = read(folder / "config.json", architecture="BertModel")
    assert other["architectures"] == ["BertModel"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model_type": "nonesuch"}, "nonesuch"),
        ({"architectures": ["Nonesuch"]}, "no model class 'Nonesuch'"),
        ({"architectures": ["pipeline"]}, "no model class 'pipeline'"),
        ({"architectures": []}, "one class is needed"),
        ({"use_pretrained_backbone": True}, "would load another model"),
    ],
)
def test_a_configuration_of_no_model_of_the_library_is_one_error(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    folder = write_config(tmp_path, {**configuration("BertForMaskedLM"), **change})
    with pytest.raises(ParamsError, match=problem) as caught:
        read(folder)
    assert "architecture" in caught.value.remedy


@pytest.mark.slow
def test_code_and_kernels_that_a_configuration_names_are_not_followed(
    tmp_path: Path,
) -> None:
    named = {
        "auto_map": {"AutoModel": "evil--evil.Evil"},
        "attn_implementation": "kernels-community/evil",
        "_attn_implementation": "kernels-community/evil",
    }
    folder = write_config(tmp_path, {**configuration("BertForMaskedLM"), **named})
    kwargs = read(folder)
    assert "evil" not in json.dumps(kwargs)
    model: Any = family.build(**{**kwargs, **named})
    assert model.config._attn_implementation == "eager"


# Inputs, outputs, names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "longest"),
    [
        (
            "BertForMaskedLM",
            ["input_ids", "attention_mask"],
            {"logits": ("batch", "sequence", 50)},
            64,
        ),
        (
            "GPT2LMHeadModel",
            ["input_ids"],
            {"logits": ("batch", "sequence", 50)},
            64,
        ),
        ("ViTForImageClassification", ["pixel_values"], {"logits": ("batch", 2)}, None),
        (
            "T5ForConditionalGeneration",
            ["input_ids", "attention_mask", "decoder_input_ids"],
            {
                "logits": ("batch", "target", 50),
                "encoder_last_hidden_state": ("batch", "sequence", 16),
            },
            None,
        ),
        (
            "RobertaForTokenClassification",
            ["input_ids", "attention_mask"],
            {"logits": ("batch", "sequence", 2)},
            64,
        ),
    ],
)
def test_a_model_describes_its_own_signature(
    tmp_path: Path, name: str, inputs: list[str], outputs: dict[str, Any], longest: Any
) -> None:
    kwargs = read(write_config(tmp_path, configuration(name)))
    signature = family.signature(kwargs, None)
    assert signature.input_names == inputs
    assert {spec.name: spec.shape for spec in signature.outputs} == outputs
    if "sequence" in signature.dimensions:
        assert signature.dimensions["sequence"].maximum == longest


@pytest.mark.slow
def test_inputs_are_chosen_and_unknown_ones_are_named(tmp_path: Path) -> None:
    kwargs = read(write_config(tmp_path, configuration("BertForMaskedLM")))
    chosen = family.signature(kwargs, ["input_ids", "token_type_ids"])
    assert chosen.input_names == ["input_ids", "token_type_ids"]
    with pytest.raises(ModelError, match="these can be described"):
        family.signature(kwargs, ["pixel_values"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_weights_as_transformers_saves_them_get_the_models_own_names(
    tmp_path: Path, name: str
) -> None:
    kwargs = read(write_config(tmp_path, configuration(name)))
    torch.manual_seed(0)
    model: Any = family.build(**kwargs)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    names = family.own_names(kwargs, list(saved))
    own = model.state_dict()
    assert names.keys() == own.keys()
    for own_name, name_there in names.items():
        assert torch.equal(own[own_name], saved[name_there]), own_name
    # a state dict is taken as it is, and what is of no model stays what it is
    assert family.own_names(kwargs, list(own)) == {key: key for key in own}
    assert family.own_names(kwargs, [*own, "strange"])["strange"] == "strange"


@pytest.mark.slow
def test_weights_that_transformers_computes_anew_are_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import core_model_loading

    kwargs = read(write_config(tmp_path, configuration("BertForMaskedLM")))

    def convert(name: str, *_: Any) -> tuple[str, str]:
        return name, "a pattern"

    monkeypatch.setattr(core_model_loading, "rename_source_key", convert)
    with pytest.raises(ArchitectureError, match="computes other weights of 1"):
        family.own_names(kwargs, ["experts.0"])


# A release


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bert out of a state dict and a folder with configuration and tokenizer."""
    root = tmp_path_factory.mktemp("released")
    folder = write_config(root / "bert", configuration("BertForMaskedLM"))
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n")
    torch.manual_seed(0)
    model = family.build(**read(folder))
    torch.save(model.state_dict(), root / "best.pth")
    arguments = ["--config", str(folder), "-o", str(root / "release")]
    arguments += ["--formats", "safetensors", "onnx"]
    assert main(["convert", str(root / "best.pth"), *arguments]) == 0
    return root / "release"


@pytest.mark.slow
def test_a_release_of_bert_is_a_bert_to_transformers(released: Path) -> None:
    import transformers

    base = transformers.AutoModel.from_pretrained(released)
    assert type(base).__name__ == "BertModel"
    model, info = transformers.BertForMaskedLM.from_pretrained(
        released, output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    inputs = load_file(released / "sample/inputs.safetensors")
    with torch.inference_mode():
        logits = model.eval()(**inputs).logits
    expected = load_file(released / "sample/outputs.safetensors")["logits"]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert (released / "vocab.txt").read_text().startswith("[PAD]")
    assert str(released.parent) not in (released / "config.json").read_text()


@pytest.mark.slow
def test_the_card_of_the_release_runs_as_printed(released: Path) -> None:
    blocks = []
    for section in Document("README.md", (released / "README.md").read_text()).sections:
        blocks += [block for block in section.blocks if block.language == "python"]
    (own,) = (block.text for block in blocks if "import BertForMaskedLM" in block.text)
    done = subprocess.run(
        [sys.executable, "-c", own], cwd=released, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    name, *_, error = done.stdout.split()
    assert name == "logits" and float(error) < 1e-4


@pytest.mark.slow
def test_the_loader_asks_for_trust_and_computes_the_same(released: Path) -> None:
    with pytest.raises(UntrustedCodeError):
        load(released, format="safetensors")
    model = load(released, format="safetensors", trust=[TRANSFORMERS_FACTORY])
    graph = load(released, format="onnx")
    inputs = {
        name: tensor.numpy()
        for name, tensor in load_file(released / "sample/inputs.safetensors").items()
    }
    np.testing.assert_allclose(
        model(**inputs)["logits"], graph(**inputs)["logits"], rtol=1e-3, atol=1e-5
    )


# Never another architecture by accident


@pytest.mark.slow
def test_a_factory_called_as_an_architecture_of_transformers_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    from checkpoint_release.core.architecture import Architecture
    from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
    from checkpoint_release.core.stated_signature import read_signature
    from checkpoint_release.core.trust import OWN_ARTIFACTS
    from tests.pipeline.test_any_model import TIED

    monkeypatch.chdir(tmp_path)
    own = Architecture("my_models:gpt2", {}, read_signature(TIED))
    write_checkpoint(Path("checkpoint"), own, {"weight": np.ones(3, np.float32)})
    config = model_config(CheckpointFolder.open(Path("checkpoint"), OWN_ARTIFACTS))
    config.write(tmp_path)
    with pytest.raises(ValueError, match=r"model.type"):
        transformers.AutoModel.from_pretrained(tmp_path)
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    dotted = [name for name in known if "." in name]
    assert "gpt2" in known
    assert not [name for name in dotted if name.replace(".", "").isidentifier()]
