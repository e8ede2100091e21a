"""dvc.yaml and the code agree: what a stage imports is within what DVC watches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import grimp
import pytest
from ruamel.yaml import YAML

from tests.support.project import ROOT

STAGES: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
MODULES = {name: name.replace("-", "_") for name in STAGES}
TORCH_FREE = ["load", "export-safetensors", "model-card", "publish"]


# What a stage watches and does not import: it watches whole rooms, so that a change of
# one of these modules reruns it needlessly. Names are relative to checkpoint_release.
EXCESS = {
    "load": """
        core.artifacts.attestation core.artifacts.benchmark
        core.artifacts.config core.artifacts.error_tables
        core.artifacts.further_files core.artifacts.receipt
        core.artifacts.released_files core.dvc_files core.ecdsa core.extras
        core.file_sharing core.fixed_sizes core.inherited_environment
        core.key_uri core.large core.run_record core.signing_keys
        core.token_keys core.training state_dict.advice state_dict.fitting
        state_dict.inspection state_dict.inspection_report tensors.views
    """,
    "export-safetensors": """
        core.artifacts.attestation core.artifacts.benchmark
        core.artifacts.error_tables core.artifacts.further_files
        core.artifacts.receipt core.artifacts.released_files core.dvc_files
        core.ecdsa core.extras core.fixed_sizes core.inherited_environment
        core.key_uri core.large core.parity_sizes core.run_record core.selection
        core.signing_keys core.token_keys core.training
        exporting.export_dimensions exporting.export_failure
        exporting.path_leaks exporting.shape_check exporting.torch_archive
        exporting.torch_export exporting.torchscript
        exporting.torchscript_classes exporting.tracing
        exporting.transformers_code.configuration_release
        exporting.transformers_code.modeling_release tensors.blocks
        tensors.joined tensors.statistics tensors.views
    """,
    "export-onnx": """
        core.artifacts.attestation core.artifacts.benchmark
        core.artifacts.error_tables core.artifacts.further_files
        core.artifacts.receipt core.artifacts.released_files core.dvc_files
        core.ecdsa core.extras core.file_sharing core.inherited_environment
        core.key_uri core.parity_sizes core.run_record core.signing_keys
        core.token_keys core.training exporting.model_code
        exporting.torch_archive exporting.torch_export exporting.torchscript
        exporting.torchscript_classes
        exporting.transformers_code.configuration_release
        exporting.transformers_code.modeling_release exporting.weights
        runtimes.archive_trust runtimes.computing_operators runtimes.description
        runtimes.detect runtimes.eager_runtime runtimes.hub_snapshot
        runtimes.loader runtimes.model_config runtimes.onnx_runtime
        runtimes.open runtimes.pth_model runtimes.runtime runtimes.torch_archive
        runtimes.torch_export_check runtimes.torch_export_expressions
        runtimes.torch_export_program runtimes.torch_files
        runtimes.torch_runtime runtimes.torchscript_check
        runtimes.torchscript_words runtimes.training_nodes tensors.blocks
        tensors.joined tensors.statistics tensors.wrappers
    """,
    "export-torchscript": """
        core.artifacts.attestation core.artifacts.benchmark
        core.artifacts.error_tables core.artifacts.further_files
        core.artifacts.receipt core.artifacts.released_files core.dvc_files
        core.ecdsa core.extras core.fixed_sizes core.inherited_environment
        core.key_uri core.parity_sizes core.run_record core.signing_keys
        core.token_keys core.training exporting.model_code
        exporting.transformers_code.configuration_release
        exporting.transformers_code.modeling_release exporting.weights
        runtimes.archive_trust runtimes.computing_operators runtimes.description
        runtimes.detect runtimes.eager_runtime runtimes.hub_snapshot
        runtimes.loader runtimes.model_config runtimes.onnx_graph
        runtimes.onnx_library runtimes.onnx_runtime runtimes.onnx_session
        runtimes.onnx_skeleton runtimes.open runtimes.pth_model runtimes.runtime
        runtimes.torch_archive runtimes.torch_export_check
        runtimes.torch_export_expressions runtimes.torch_export_program
        runtimes.torch_files runtimes.torch_runtime runtimes.torchscript_check
        runtimes.torchscript_words runtimes.training_nodes tensors.blocks
        tensors.joined tensors.statistics tensors.views tensors.wrappers
    """,
    "parity-check": """
        core.artifacts.attestation core.artifacts.benchmark
        core.artifacts.receipt core.artifacts.released_files core.dvc_files
        core.ecdsa core.file_sharing core.key_uri core.run_record
        core.signing_keys core.token_keys core.training parity.adapters.harness
        parity.adapters.openvino parity.adapters.tract parity.compare
        parity.preload pth.arrays pth.builders pth.distributed pth.facts
        pth.json_values pth.nesting pth.rank_files pth.reader pth.storages
        pth.tensor_builders pth.values pth.zero pth.zero_parts
        runtimes.description runtimes.detect runtimes.hub_snapshot
        runtimes.loader runtimes.pth_model tensors.blocks tensors.joined
        tensors.statistics tensors.wrappers
    """,
    "benchmark": """
        core.artifacts.attestation core.artifacts.error_tables
        core.artifacts.receipt core.artifacts.released_files core.dvc_files
        core.ecdsa core.file_sharing core.key_uri core.run_record
        core.signing_keys core.token_keys core.training parity.adapters.harness
        parity.adapters.openvino parity.adapters.tract parity.check
        parity.compare parity.computed_tables parity.costly_kernel
        parity.divergence parity.eager_values parity.error_stats parity.evidence
        parity.example parity.failure parity.finite parity.graph_job
        parity.graph_proof parity.judge parity.kernel_cost parity.machine
        parity.model_first parity.onnx_in_double parity.other_runtimes
        parity.plots parity.preload parity.reference parity.report parity.rules
        parity.sample parity.search pth.arrays pth.builders pth.distributed
        pth.facts pth.json_values pth.nesting pth.rank_files pth.reader
        pth.storages pth.tensor_builders pth.values pth.zero pth.zero_parts
        runtimes.description runtimes.detect runtimes.hub_snapshot
        runtimes.loader runtimes.model_alone runtimes.model_check
        runtimes.model_diagnosis runtimes.model_repeats runtimes.model_watch
        runtimes.pth_model runtimes.size_diagnosis tensors.blocks tensors.joined
        tensors.statistics tensors.wrappers
    """,
    "model-card": """
        core.artifacts.attestation core.artifacts.error_tables
        core.artifacts.receipt core.dvc_files core.extras core.file_sharing
        core.fixed_sizes core.inherited_environment core.large core.parity_sizes
        core.run_record core.selection tensors.blocks tensors.joined
        tensors.statistics tensors.views tensors.wrappers
    """,
    "publish": """
        core.artifacts.benchmark core.artifacts.error_tables core.extras
        core.fixed_sizes core.inherited_environment core.large core.parity_sizes
        core.selection page.npm release.attested release.checks release.complete
        release.differences release.examples release.fetched release.policy
        release.verify tensors.blocks tensors.joined tensors.statistics
        tensors.views tensors.wrappers
    """,
}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Every import of the stages and the library, those inside functions too."""
    return grimp.build_graph("pipeline", "checkpoint_release")


def modules_watched(stage: str) -> set[str]:
    """The modules below the paths that dvc.yaml names as the stage's code."""
    found: set[str] = set()
    for dep in STAGES[stage]["deps"]:
        if not dep.startswith(("pipeline/", "checkpoint_release/")):
            continue
        path = ROOT / dep
        files = path.rglob("*.py") if path.is_dir() else [path]
        found |= {module_of(file) for file in files}
    return found


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_watches_what_it_imports_and_a_known_excess(
    stage: str, imports: grimp.ImportGraph
) -> None:
    stage_module = f"pipeline.{MODULES[stage]}"
    needed = {stage_module, *imports.find_upstream_modules(stage_module)}
    watched = modules_watched(stage)
    assert needed - watched == set()
    excess = {module for module in watched - needed if not is_package(module)}
    expected = {f"checkpoint_release.{name}" for name in EXCESS[stage].split()}
    assert excess == expected


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).is_dir()


@pytest.mark.parametrize("stage", TORCH_FREE)
def test_a_stage_without_tensors_to_compute_does_not_import_torch(stage: str) -> None:
    code = f"import sys, pipeline.{MODULES[stage]}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
