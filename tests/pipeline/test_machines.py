"""What is built is the same on every processor; what is measured names the one that it
was measured on.
"""

from __future__ import annotations

import pytest

from checkpoint_release.core.artifacts.release import Release, digest_of, read_release
from tests.support.project import Project

PROCESSORS = {
    "DEFAULT": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "DNNL_MAX_CPU_ISA": "SSE41",
    },
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "DNNL_MAX_CPU_ISA": "AVX2",
    },
}
"""What torch calls a processor's instructions → the variables that hold torch and its
libraries to them.
"""


def build(project: Project, monkeypatch: pytest.MonkeyPatch, processor: str) -> Release:
    with monkeypatch.context() as patch:
        for name, value in PROCESSORS.get(processor, {}).items():
            patch.setenv(name, value)
        project.dvc("repro", "--force")
    return read_release(project.path / "artifacts/release")


@pytest.mark.slow
def test_only_evidence_differs_between_processors_and_it_names_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = build(project, monkeypatch, "this one")
    for processor in PROCESSORS:
        there = build(project, monkeypatch, processor)
        assert there.built == here.built
        assert there.evidence.machine.cpu_capability == processor
        if here.evidence.machine.cpu_capability == processor:
            assert there.evidence == here.evidence
        else:
            assert there.evidence.sha256 != here.evidence.sha256


def test_a_release_lists_each_file_as_built_or_as_evidence(built: Project) -> None:
    release = read_release(built.path / "artifacts/release")
    assert set(release.evidence.files) == {
        "README.md",
        "parity.json",
        "pictures/proof.svg",
        "pictures/sizes.svg",
        "provenance.json",
    }
    assert not set(release.built.files) & set(release.evidence.files)
    assert release.evidence.machine.libraries.keys() == {
        "numpy",
        "onnxruntime",
        "torch",
    }


def test_a_changed_file_changes_the_digest_of_all(built: Project) -> None:
    files = read_release(built.path / "artifacts/release").built.files
    name, *others = files
    assert digest_of(files) == digest_of(dict(reversed(files.items())))
    assert digest_of({other: files[other] for other in others}) != digest_of(files)
    exchanged = {**files, name: files[others[0]]}
    assert digest_of(exchanged) != digest_of(files)
