"""What a real browser shows without the network: the report, and `dvc plots show`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.project import Project

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed"),
]
MISSING = '<p id="library-missing">'  # it is hidden while the library is there
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"


def shown(page: Path, profile: Path) -> str:
    """The page as the browser has it after its scripts ran, without the network."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            *("--no-sandbox", "--headless", "--disable-gpu"),
            *("--disable-background-networking", f"--user-data-dir={profile}"),
            *("--virtual-time-budget=10000", OFFLINE, "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        check=True,
        text=True,
        timeout=90,
    )
    return done.stdout


def origins(dom: str) -> dict[str, str]:
    """Stage → where the report says its outputs are from."""
    row = r"<code>([\w-]+)</code><br>.*?chip \w+\">([^<]+)<"
    return dict(re.findall(row, dom, re.DOTALL))


def test_plots_are_drawn_offline_with_their_limit_once_the_report_was_written(
    project: Project, tmp_path: Path
) -> None:
    page = project.path / "dvc_plots/index.html"
    project.dvc("plots", "show")
    without = shown(page, tmp_path / "profile")
    assert MISSING in without and "<svg" not in without

    project.run("checkpoint-release", "report")
    project.dvc("plots", "show")
    dom = shown(page, tmp_path / "profile")
    assert MISSING not in dom
    assert len(re.findall(r"<svg[^>]*marks", dom)) == 2
    assert dom.count('aria-roledescription="bar"') == 3 * 6  # formats and outputs
    assert len(re.findall(r'<line[^>]*stroke="#c2410c"', dom)) == 1
    written = re.findall(r"<text[^>]*>([^<]+)</text>", dom)
    assert {"pose", "environment", "onnx", "100%", "share of what is allowed"} <= set(
        written
    )
    # one title where each panel had one over the other
    assert written.count("typical error, as a share of the output") == 1
    assert project.git("status", "--porcelain") == ""


def test_the_report_of_a_real_run_is_shown_without_the_network(
    project: Project, tmp_path: Path
) -> None:
    project.set(onnx__opset=18)
    project.dvc("repro")
    project.run("checkpoint-release", "report")
    dom = shown(project.path / "artifacts/report.html", tmp_path / "profile")
    assert dom.count('src="data:image/svg+xml;base64,') == 5
    rows = dict(
        re.findall(r"<code>([\w-]+)</code><br>.*?chip \w+\">([^<]+)<", dom, re.S)
    )
    assert set(rows.values()) == {"ran here"} and rows["export-onnx"] == "ran here"
    assert "onnx.opset: 17 → 18" in dom
    project.set(onnx__opset=17)
    project.dvc("repro")
    project.run("checkpoint-release", "report")
    dom = shown(project.path / "artifacts/report.html", tmp_path / "profile")
    rows = dict(
        re.findall(r"<code>([\w-]+)</code><br>.*?chip \w+\">([^<]+)<", dom, re.S)
    )
    assert rows["load"] == "ran here" and rows["export-onnx"] == "from DVC's cache"
    assert "Curves of training: learning_rate, loss, smoothness, position." in dom
