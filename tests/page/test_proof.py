"""The page in a real browser proves right models, and shows wrong ones as wrong."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import numpy_helper
from playwright.sync_api import Browser, Playwright, Route
from safetensors.numpy import load_file, save_file

from checkpoint_release.core.artifacts.parity import read_report, upper_bound
from checkpoint_release.core.artifacts.release import digest_of, read_release
from checkpoint_release.core.files import FileEntry, read_json, write_json
from checkpoint_release.page.files import page_files
from checkpoint_release.page.space import write_space
from tests.support.browser import (
    WEBGPU_IN_SOFTWARE,
    Visit,
    chromium,
    runtime_folder,
    served,
)
from tests.support.hostile_releases import as_it_is, seal

pytestmark = pytest.mark.slow
SECONDS_OF_A_PROOF = 3
CDN = "https://cdn.jsdelivr.net/npm/onnxruntime-web@"


def copy(release: Path, folder: Path) -> Path:
    return Path(shutil.copytree(release, folder / "release"))


def change_weight(
    release: Path, change: Callable[[float], float], file: str = "onnx/model.onnx"
) -> None:
    """Change one number of the largest weight matrix; release.json lists the result."""
    path = release / file
    model = onnx.load(path)
    weights = [each for each in model.graph.initializer if len(each.dims) > 1]
    weight = max(weights, key=lambda each: math.prod(each.dims))
    values = numpy_helper.to_array(weight).copy()
    place = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[place] = change(float(values[place]))
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    as_it_is(release)


@pytest.mark.parametrize("name", ["demo", "images", "choices"])
def test_a_right_model_is_proven_and_nothing_is_asked_of_another_host(
    name: str, request: pytest.FixtureRequest, visit: Visit
) -> None:
    with served(request.getfixturevalue(name)) as url:
        visit.open(url)
        assert visit.state == "passed", visit.verdict
        assert visit.foreign(url) == []
        assert visit.errors == []
        rows = visit.page.locator("#figures tbody tr")
        assert rows.count() >= 1
        assert all("passed" in row for row in rows.all_inner_texts())


def test_the_demo_is_proven_soon_after_its_files_are_there(
    demo: Path, visit: Visit
) -> None:
    """At one of three visits: what else the machine does may delay the others."""
    took = []
    with served(demo) as url:
        for _ in range(3):
            visit.open(url)
            measured = visit.page.evaluate(
                "() => performance.measure('proof', 'files', 'verdict').duration"
            )
            took.append(measured / 1000)
            if took[-1] < SECONDS_OF_A_PROOF:
                return
    pytest.fail(f"it took {took} s, and {SECONDS_OF_A_PROOF} s are allowed")


def test_figure_and_table_show_every_output_and_the_limit(
    demo: Path, visit: Visit
) -> None:
    outputs = {spec["name"] for spec in signature_of(demo)["outputs"]}
    with served(demo) as url:
        visit.open(url)
        label = visit.page.get_attribute("#chart svg", "aria-label") or ""
        drawn = visit.page.inner_text("#chart")
        table = visit.page.inner_text("#figures")
    assert "limit is 3" in label
    assert "limit 3×" in drawn
    for output in outputs:
        assert output in label
        assert output in drawn
        assert output in table


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda weight: weight + 1, id="far off"),
        pytest.param(lambda weight: weight * 1.01, id="by a hundredth"),
        pytest.param(lambda weight: np.nan, id="not a number"),
    ],
)
def test_one_wrong_weight_is_shown_as_wrong_though_all_hashes_are_right(
    change: Callable[[float], float], images: Path, tmp_path: Path, visit: Visit
) -> None:
    release = copy(images, tmp_path)
    change_weight(release, change)
    with served(release) as url:
        visit.open(url)
        assert visit.state == "wrong"
        assert "WRONG" in visit.verdict
        assert "WRONG" in visit.page.inner_text("#figures")
        assert visit.page.is_hidden("#use")


def test_one_wrong_weight_of_the_demo_is_shown_as_wrong(
    demo: Path, tmp_path: Path, visit: Visit
) -> None:
    release = copy(demo, tmp_path)
    change_weight(release, lambda weight: weight + 0.1)
    with served(release) as url:
        visit.open(url)
        assert visit.state == "wrong", visit.verdict


@pytest.mark.parametrize(
    ("share", "state"), [(0.5, "passed"), (1.7, "wrong"), (-1.7, "wrong")]
)
@pytest.mark.parametrize("spread", [1, 400], ids=["one value", "many values"])
def test_the_limit_is_that_of_the_parity_check(
    share: float, state: str, spread: int, demo: Path, tmp_path: Path, visit: Visit
) -> None:
    release = copy(demo, tmp_path)
    path = release / "sample/outputs.safetensors"
    outputs = load_file(path)
    pose = outputs["pose"]
    report = read_report(release / "parity.json")
    floor = report.sample_floor["pose"]
    typical, worst = upper_bound(floor.typical), upper_bound(floor.worst)
    # of an error of 1 in so many values
    multiple = max(np.sqrt(spread / pose.size) / typical, 1 / worst)
    pose.flat[:spread] += share * report.rule.noise_multiple / multiple
    save_file(outputs, path)
    as_it_is(release)
    with served(release) as url:
        visit.open(url)
        assert visit.state == state, visit.verdict


def test_a_release_that_does_not_state_its_floor_in_the_sample_is_proven(
    demo: Path, tmp_path: Path, visit: Visit
) -> None:
    release = copy(demo, tmp_path)
    report = read_json(release / "parity.json")
    assert report.pop("sample_floor")
    write_json(release / "parity.json", report)
    list_evidence_anew(release)
    with served(release) as url:
        visit.open(url)
        assert visit.state == "passed", visit.verdict
    change_weight(release, lambda weight: weight + 0.1)
    with served(release) as url:
        visit.open(url)
        assert visit.state == "wrong", visit.verdict


def list_evidence_anew(release: Path) -> None:
    """Have release.json list the files that hold figures as they are."""
    listed = read_release(release)
    files = {name: FileEntry.of(release / name) for name in listed.evidence.files}
    evidence = replace(listed.evidence, sha256=digest_of(files), files=files)
    seal(release, replace(listed, evidence=evidence))


@pytest.mark.parametrize(
    "name", ["onnx/model.onnx", "sample/outputs.safetensors", "parity.json"]
)
def test_a_changed_byte_is_refused_and_nothing_is_run(
    name: str, demo: Path, tmp_path: Path, visit: Visit
) -> None:
    release = copy(demo, tmp_path)
    change_a_digit(release / name)
    with served(release) as url:
        visit.open(url)
        assert visit.state == "refused", visit.verdict
        assert name in visit.verdict
        assert not [each for each in visit.addresses if "ort" in each]
        assert visit.page.is_hidden("#use")


def change_a_digit(path: Path, *, any_byte: bool = False) -> None:
    """Make 5 of a 4, say, so that JSON stays JSON; or change the middle byte."""
    content = bytearray(path.read_bytes())
    place = len(content) // 2
    while not any_byte and not chr(content[place]).isdigit():
        place += 1
    content[place] ^= 1
    path.write_bytes(content)


def test_a_list_of_files_that_was_changed_is_refused(
    choices: Path, tmp_path: Path, visit: Visit
) -> None:
    release = copy(choices, tmp_path)
    with served(release) as url:  # the server itself serves no such list
        text = (release / "release.json").read_text()
        listed = read_release(release).files["README.md"].sha256
        (release / "release.json").write_text(text.replace(listed, "0" * 64))
        visit.open(url)
        assert visit.state == "refused"


def test_a_release_whose_own_check_failed_is_refused(
    choices: Path, tmp_path: Path, visit: Visit
) -> None:
    release = copy(choices, tmp_path)
    report = release / "parity.json"
    report.write_text(report.read_text().replace('"passed": true', '"passed": false'))
    with served(release) as url:
        visit.open(url)
        assert visit.state == "refused"


def signature_of(release: Path) -> dict[str, list[dict[str, str]]]:
    own, shared = release / "onnx/config.json", release / "config.json"
    return read_json(own if own.exists() else shared)["signature"]


# Other files than one model.onnx


def test_models_in_reduced_precision_are_held_to_what_they_were_allowed(
    images: Path, tmp_path: Path, visit: Visit
) -> None:
    release = copy(images, tmp_path)
    formats = read_release(release).formats
    file = formats["onnx float16"].path
    change_weight(release, lambda weight: weight + 100, file)
    choice = visit.page.get_by_label("Model", exact=True)
    with served(release) as url:
        visit.open(url)
        for name in formats:
            choice.select_option(name)
            verdict = "wrong" if name == "onnx float16" else "passed"
            visit.page.locator(f"#verdict[data-state={verdict}]").wait_for()
            is_reduced = "of what is allowed" in visit.verdict
            assert is_reduced == (name != "onnx")


def test_weights_in_a_file_beside_the_model_are_checked_and_used(
    choices: Path, tmp_path: Path, visit: Visit
) -> None:
    release = copy(choices, tmp_path)
    path = release / "onnx/model.onnx"
    onnx.save(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    seal(release, read_release(release), more=("onnx/model.onnx_data",))
    with served(release) as url:
        visit.open(url)
        assert visit.state == "passed", visit.verdict
        change_a_digit(release / "onnx/model.onnx_data", any_byte=True)
        visit.open(url)
        assert visit.state == "refused"
        assert "model.onnx_data" in visit.verdict


# On a graphics processor


@pytest.mark.parametrize("name", ["demo", "images"])
def test_the_model_is_proven_on_webgpu_as_well(
    name: str, request: pytest.FixtureRequest, playwright: Playwright
) -> None:
    graphics = chromium(playwright, *WEBGPU_IN_SOFTWARE)
    with graphics as browser, served(request.getfixturevalue(name)) as url:
        visit = Visit(browser.new_context())
        visit.open(url)
        assert visit.state == "passed", visit.verdict
        assert "On WebAssembly and WebGPU" in visit.verdict
        assert "WebGPU" in visit.page.inner_text("#legend")
        visit.page.get_by_label("on", exact=True).select_option("webgpu")
        visit.page.get_by_text("Computed on WebGPU").wait_for()


def test_rotary_angles_by_the_processors_own_sine_would_be_wrong_on_webgpu(
    demo: Path, tmp_path: Path, playwright: Playwright
) -> None:
    """So the test above can fail: WebGPU's sine is poor, and the page shows it."""
    release = copy(demo, tmp_path)
    path = release / "onnx/model.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        scope, _, function = node.name.rpartition("/")
        if scope.endswith("rope") and function in ("cos", "sin"):
            node.op_type = function.capitalize()
            node.input[:] = [f"{scope}/angles"]
    onnx.save(model, path)
    as_it_is(release)
    graphics = chromium(playwright, *WEBGPU_IN_SOFTWARE)
    with graphics as browser, served(release) as url:
        visit = Visit(browser.new_context())
        visit.open(url)
        assert visit.state == "wrong", visit.verdict
        rows = visit.page.locator("#figures tbody tr").all_inner_texts()
    wrong = [row for row in rows if "WRONG" in row]
    assert wrong
    assert all("WebGPU" in row for row in wrong)


# From another web server, with the runtime from a CDN


def on_the_web(
    visit: Visit, space: Path, change: bytes = b"", scheme: str = "https"
) -> str:
    """Have the visitor's browser find a Space on a web server, and the CDN's files.

    Args:
        space: its folder.
        change: appended to every file of the CDN.
        scheme: of the web server's address.
    """
    runtime = runtime_folder()

    def answer(route: Route) -> None:
        path = route.request.url.partition("?")[0].partition(".example/")[2]
        file = space / (path or "index.html")
        if file.is_file():
            route.fulfill(path=file, content_type=KINDS.get(file.suffix))
        else:
            route.fulfill(status=404)

    def deliver(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        content = (runtime / name).read_bytes() + change
        headers = {"Access-Control-Allow-Origin": "*"}
        route.fulfill(body=content, headers=headers, content_type="text/plain")

    visit.page.context.route(f"{scheme}://space.example/**", answer)
    visit.page.context.route(f"{CDN}**", deliver)
    return f"{scheme}://space.example/"


@pytest.fixture(scope="module")
def space(choices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static Space of a release; not to be changed."""
    folder = tmp_path_factory.mktemp("space") / "space"
    write_space(choices, folder)
    return folder


KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def test_in_a_space_the_runtime_comes_from_the_cdn_at_its_pinned_version(
    space: Path, visit: Visit
) -> None:
    url = on_the_web(visit, space)
    visit.open(url)
    assert visit.state == "passed", visit.verdict
    version = read_json(page_files()["runtime.json"])["package"]["version"]
    assert visit.foreign(url)
    assert all(each.startswith(f"{CDN}{version}/") for each in visit.foreign(url))


def test_a_runtime_that_is_not_the_pinned_one_is_not_run(
    space: Path, visit: Visit
) -> None:
    visit.open(on_the_web(visit, space, change=b"\n"))
    assert visit.state == "failed"
    assert "is not the file that is pinned" in visit.verdict


def test_on_the_web_webgpu_is_proven_when_asked_for(
    space: Path, playwright: Playwright
) -> None:
    with chromium(playwright, *WEBGPU_IN_SOFTWARE) as browser:
        visit = Visit(browser.new_context())
        visit.open(on_the_web(visit, space))
        assert "WebGPU" not in visit.page.inner_text("#legend")
        visit.page.get_by_role("button", name="Prove it on WebGPU too").click()
        visit.page.locator("#legend").get_by_text("WebGPU").wait_for()
        assert visit.state == "passed", visit.verdict


def test_where_browsers_compute_no_digests_nothing_is_proven(
    space: Path, visit: Visit
) -> None:
    visit.open(on_the_web(visit, space, scheme="http"))
    assert visit.state == "failed"
    assert "https" in visit.verdict


def test_a_large_model_is_fetched_when_it_is_asked_for(
    choices: Path, visit: Visit
) -> None:
    script = page_files()["main.js"].read_text()
    assert "const LARGE = 100e6;" in script
    small = script.replace("const LARGE = 100e6;", "const LARGE = 1;")
    visit.page.route(
        "**/main.js",
        lambda route: route.fulfill(body=small, content_type="text/javascript"),
    )
    with served(choices) as url:
        visit.open(url)
        assert visit.state == "checking"
        assert not [each for each in visit.addresses if each.endswith(".onnx")]
        visit.page.get_by_role("button", name="Fetch and check it").click()
        visit.page.locator("#verdict[data-state=passed]").wait_for()


def test_names_of_a_release_stay_text(
    choices: Path, tmp_path: Path, visit: Visit
) -> None:
    release = copy(choices, tmp_path)
    name = "<img src=x onerror=document.title=1><b>bold</b>"
    (release / "README.md").write_text(f"# {name}\n")
    list_evidence_anew(release)
    with served(release) as url:
        visit.open(url)
        assert visit.page.inner_text("h1") == name
        assert visit.page.locator("h1 *").count() == 0


def test_without_scripts_the_page_states_how_to_open_it(browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(page_files()["index.html"].as_uri())
    assert "checkpoint-release page" in page.inner_text("#verdict")
    context.close()
