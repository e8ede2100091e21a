"""What a real browser shows without the network: the report, and `dvc plots show`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.report.screenshot import take
from tests.support.browser import axe_script
from tests.support.pipeline_folder import PipelineFolder
from tests.support.project import Project

pytestmark = pytest.mark.slow
MISSING = "#library-missing"


@contextmanager
def opened(browser: Browser, file: Path, **options: Any) -> Iterator[Page]:
    """A file as the browser shows it, once its scripts ran; it may ask for nothing
    beside files.
    """
    context = browser.new_context(**options)
    page = context.new_page()
    page.goto(file.as_uri())
    page.wait_for_load_state("networkidle")
    yield page
    context.close()


def origins(page: Page) -> dict[str, str]:
    """Stage → where the report says its outputs are from."""
    rows = page.locator("#pipeline + .scroll tbody tr")
    names = rows.locator("th code").all_inner_texts()
    return dict(zip(names, rows.locator(".chip").all_inner_texts(), strict=True))


def test_plots_are_drawn_offline_with_their_limit_once_the_report_was_written(
    project: Project, browser: Browser
) -> None:
    file = project.path / "dvc_plots/index.html"
    project.dvc("plots", "show")
    with opened(browser, file) as page:
        assert page.locator(MISSING).is_visible()
        assert page.locator("svg.marks").count() == 0

    project.run("checkpoint-release", "report")
    project.dvc("plots", "show")
    with opened(browser, file) as page:
        page.wait_for_selector("svg.marks")
        assert not page.locator(MISSING).is_visible()
        assert page.locator("svg.marks").count() == 2
        bars = page.locator('[aria-roledescription="bar"]').count()
        assert bars == 3 * 6  # formats and outputs
        assert page.locator('line[stroke="#c2410c"]').count() == 1
        texts = page.locator("svg.marks text").all_text_contents()
    assert {"pose", "environment", "onnx", "100%"} <= set(texts)
    # one title where each panel had one, one over the other
    assert texts.count("typical error, as a share of the output") == 1
    assert project.git("status", "--porcelain") == ""


def bars(page: Page) -> list[float]:
    """What the bars show, as shares of the limit, in the order of the panels."""
    found = []
    for bar in page.locator('[aria-roledescription="bar"]').all():
        label = str(bar.get_attribute("aria-label"))
        parts = dict(part.split(": ", 1) for part in label.split("; "))
        found.append(float(parts["share of what is allowed"].rstrip("%")) / 100)
    return found


def test_plots_of_an_older_commit_stand_beside_those_of_now_offline(
    project: Project, browser: Browser
) -> None:
    project.commit("Nothing new")
    project.set(parity__noise_multiple=12.0)  # a quarter of each share
    project.dvc("repro", "parity-check")
    project.run("checkpoint-release", "report")
    project.dvc("plots", "diff", "HEAD~1")
    with opened(browser, project.path / "dvc_plots/index.html") as page:
        page.wait_for_selector("svg.marks")
        assert page.locator('line[stroke="#c2410c"]').count() == 2
        texts = page.locator("svg.marks text").all_text_contents()
        assert texts.count("HEAD~1") == texts.count("workspace") == 2
        first = next(text for text in texts if text in ("HEAD~1", "workspace"))
        shares = bars(page)
    half = len(shares) // 2
    assert half == 3 * 6 and first == "HEAD~1"
    assert max(shares[:half]) > 3 * max(shares[half:]) > 0
    assert "dvc_plots" not in project.git("status", "--porcelain")


def test_the_report_tells_what_ran_from_what_dvc_had_cached(
    project: Project, browser: Browser
) -> None:
    file = project.path / "artifacts/report.html"
    project.set(onnx__opset=18)
    project.dvc("repro")
    project.run("checkpoint-release", "report")
    with opened(browser, file) as page:
        assert set(origins(page).values()) == {"ran here"}
        assert "onnx.opset: 17 → 18" in page.inner_text("main")
    project.set(onnx__opset=17)
    project.dvc("repro")
    project.run("checkpoint-release", "report")
    with opened(browser, file) as page:
        assert origins(page)["load"] == "ran here"
        assert origins(page)["export-onnx"] == "from DVC's cache"
        assert page.locator("img").count() == 7
        assert all(page.locator("img").evaluate_all("all => all.map(i => i.width)"))


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser) -> Path:
    """The report of a small pipeline with everything that a report can show."""
    from checkpoint_release.__main__ import main

    monkeypatch.chdir(tmp_path)
    folder = PipelineFolder(tmp_path)
    folder.write(training={"history": {"train_loss": [3.0, 2.0, 1.5]}, "epoch": 3})
    folder.write_statement({"onnx/model.onnx": b"older"})
    folder.write_nodes()
    folder.write_benchmark()
    folder.write_pipeline({"onnx": {"opset": 17}})
    folder.commit("First release")
    folder.write_pipeline({"onnx": {"opset": 18}})
    folder.write_statement({"onnx/model.onnx": b"graph"})
    (failed := tmp_path / "scratch/parity/onnx").mkdir(parents=True)
    (failed / "reproduce.py").write_text("")
    assert main(["report"]) == 0
    return tmp_path / "artifacts/report.html"


def test_a_figure_of_the_heat_map_leads_to_its_row(
    report: Path, browser: Browser
) -> None:
    with opened(browser, report) as page:
        cell = page.locator("td.worst a").last
        row = page.locator(str(cell.get_attribute("href")))
        assert not row.is_visible()  # its table is folded
        cell.click()
        row.wait_for(state="visible")
        assert "[1,1,7]" in row.inner_text()


def faults(page: Page) -> list[str]:
    """What axe finds, with the elements that it finds it in."""
    found = page.evaluate("axe.run()")
    return [
        f"{fault['id']}: {[node['html'] for node in fault['nodes'][:3]]}"
        for fault in found["violations"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_has_no_fault_of_accessibility(
    report: Path, browser: Browser, scheme: str
) -> None:
    phone = {"width": 375, "height": 800}  # where parts of it must be scrolled
    options = {"color_scheme": scheme, "bypass_csp": True, "viewport": phone}
    with opened(browser, report, **options) as page:
        page.locator("details").evaluate_all("all => all.forEach(d => d.open = true)")
        page.evaluate(axe_script())
        assert faults(page) == []
        page.locator("img").first.evaluate("image => image.removeAttribute('alt')")
        assert "image-alt" in faults(page)[0]


def test_the_report_fits_a_phone(report: Path, browser: Browser) -> None:
    size = {"width": 375, "height": 800}
    with opened(browser, report, viewport=size) as page:
        parts = page.locator("nav a").all_inner_texts()
        assert {"Graph", "Speed"} <= set(parts)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 375


def test_the_picture_for_the_readme_is_taken_by_its_script(
    report: Path, tmp_path: Path, browser: Browser
) -> None:
    take(browser, report, tmp_path / "report.png", "dark")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
