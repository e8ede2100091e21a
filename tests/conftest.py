"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import Project


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout in which `dvc repro` has run once; tests take copies of it."""
    project = Project.checkout(tmp_path_factory.mktemp("built") / "project")
    project.dvc("repro")
    project.commit("Built")
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A checkout of the test's own, already built."""
    return built.copy(tmp_path / "project")
