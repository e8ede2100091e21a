"""The model in the page, used as people use it: with files, by pointer, by keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from safetensors.numpy import load_file, save_file

from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.runtimes.loader import load
from tests.support.browser import Visit, axe_script, served

pytestmark = pytest.mark.slow
WIDTHS = {"phone": 360, "tablet": 768, "desktop": 1280}


@pytest.fixture(scope="module")
def address(images: Path) -> Iterator[str]:
    """Of the page of a model that takes images."""
    with served(images) as url:
        yield url


@pytest.fixture(scope="module")
def demo_address(demo: Path) -> Iterator[str]:
    with served(demo) as url:
        yield url


def settled(page: Page) -> None:
    page.wait_for_function(
        "() => document.querySelector('#use [role=status]')?.textContent"
    )


def saved_outputs(page: Page, folder: Path) -> Arrays:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save outputs").click()
    path = folder / "outputs.safetensors"
    download.value.save_as(path)
    return load_file(path)


def give(page: Page, label: str, file: Path) -> str:
    """Upload a file, and return what the page says of it."""
    status = page.locator("#use [role=status]").first
    status.evaluate("(node) => (node.textContent = '')")
    page.get_by_label(label).set_input_files(file)
    status.filter(has_text=re.compile(r"\w")).wait_for()
    return status.inner_text()


def image(height: int, width: int) -> Array:
    random = np.random.Generator(np.random.PCG64(7))
    return random.standard_normal((2, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize("kind", ["npy", "safetensors", "json"])
def test_an_uploaded_file_gives_what_the_release_computes_of_it(
    kind: str, images: Path, address: str, tmp_path: Path, visit: Visit
) -> None:
    array = image(12, 17)
    file = tmp_path / f"image.{kind}"
    if kind == "npy":
        np.save(file, array.astype(np.float64))  # as numpy's own arrays are
    elif kind == "json":
        file.write_text(json.dumps({"image": array.tolist()}))
    else:
        save_file({"image": array}, file)
    visit.open(address)
    message = give(visit.page, "image from a file", file)
    assert "Computed on WebAssembly" in message
    assert visit.page.input_value("#use input[type=number] >> nth=0") != ""
    outputs = saved_outputs(visit.page, tmp_path)
    expected = load(images, format="onnx")(image=array)
    np.testing.assert_allclose(outputs["scores"], expected["scores"], atol=1e-6)


def test_sizes_that_follow_from_others_and_ranges_are_kept(
    framed: Path, tmp_path: Path, visit: Visit
) -> None:
    with served(framed) as url:
        visit.open(url)
        page = visit.page
        tokens = page.get_by_label("tokens", exact=True)
        tokens.fill("9")
        tokens.press("Tab")
        page.get_by_text("Computed on").wait_for()
        page.wait_for_timeout(200)
        assert saved_outputs(page, tmp_path)["wide"].shape[1] == 19
        assert page.get_by_label("frames", exact=True).count() == 0

        np.save(tmp_path / "frames.npy", np.zeros((3, 10, 6), "f4"))
        message = give(page, "frames from a file", tmp_path / "frames.npy")
        assert "frames has 2*tokens + 1 10" in message and "it is 19" in message
        np.save(tmp_path / "mask.npy", np.full((3, 11), 2, "f4"))
        message = give(page, "mask from a file", tmp_path / "mask.npy")
        assert "mask holds 2, and the model takes 0 to 1" in message
        np.save(tmp_path / "gain.npy", np.full((), 0.5, "f4"))
        assert "Computed on" in give(page, "gain from a file", tmp_path / "gain.npy")


def wrong_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """What is wrong → the file, and what the message must say."""
    files: dict[str, tuple[Path, str]] = {}

    def add(name: str, file: str, message: str) -> Path:
        files[name] = (folder / file, message)
        return folder / file

    np.save(add("axes", "axes.npy", "the model takes float32"), np.zeros((3, 9, 9)))
    np.save(add("size", "size.npy", "height is 2"), np.zeros((1, 3, 2, 9), "f4"))
    np.save(add("dtype", "dtype.npy", "int64"), np.zeros((1, 3, 9, 9), "i8"))
    order = np.asfortranarray(np.zeros((1, 3, 9, 9), "f4"))
    np.save(add("order", "order.npy", "Fortran"), order)
    add("json", "broken.json", "is not JSON").write_text("[1,")
    add("rows", "rows.json", "different lengths").write_text("[[1, 2], [3]]")
    add("npy", "none.npy", "is not an npy file").write_bytes(b"no array")
    add("cut", "cut.safetensors", "not a safetensors file").write_bytes(b"\xff" * 9)
    add("kind", "image.txt", "can't read").write_text("1")
    save_file({"sound": np.zeros(3)}, add("name", "name.safetensors", "no input"))
    return files


def test_a_wrong_file_is_one_clear_message_and_changes_nothing(
    address: str, tmp_path: Path, visit: Visit
) -> None:
    visit.open(address)
    before = visit.page.inner_text("#use .columns > :last-child .tensor")
    for file, expected in wrong_files(tmp_path).values():
        message = give(visit.page, "image from a file", file)
        assert expected in message, (file.name, message)
        after = visit.page.inner_text("#use .columns > :last-child .tensor")
        assert after == before


def test_random_inputs_are_the_same_for_a_seed_and_have_the_sizes_asked_for(
    address: str, tmp_path: Path, visit: Visit
) -> None:
    visit.open(address)
    page = visit.page

    def draw(seed: int) -> Array:
        page.get_by_label("seed").fill(str(seed))
        page.get_by_role("button", name="Random inputs").click()
        page.get_by_text("Computed on").wait_for()
        return saved_outputs(page, tmp_path)["scores"]

    first = draw(3)
    assert not np.array_equal(draw(4), first)
    np.testing.assert_array_equal(draw(3), first)
    batch = page.get_by_label("batch", exact=True)
    batch.fill("6")
    batch.press("Tab")
    page.get_by_text("Computed on").wait_for()
    page.wait_for_timeout(200)
    assert saved_outputs(page, tmp_path)["scores"].shape == (6, 4)
    height = page.get_by_label("height", exact=True)
    height.fill("2")
    height.press("Tab")
    page.get_by_text("allowed are 4 to any number").wait_for()


def test_an_input_can_be_drawn(address: str, tmp_path: Path, visit: Visit) -> None:
    visit.open(address)
    before = saved_outputs(visit.page, tmp_path)["scores"]
    visit.page.get_by_label("draw with").fill("9")
    canvas = visit.page.locator("#use canvas.drawable").first
    canvas.scroll_into_view_if_needed()
    scroll_by_finger(visit.page)
    unchanged = saved_outputs(visit.page, tmp_path)["scores"]
    np.testing.assert_array_equal(unchanged, before)
    box = canvas.bounding_box()
    assert box
    visit.page.mouse.move(box["x"] + 20, box["y"] + 20)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 60, box["y"] + 40, steps=5)
    visit.page.mouse.up()
    visit.page.get_by_text("changed by you").wait_for()
    visit.page.wait_for_timeout(300)
    after = saved_outputs(visit.page, tmp_path)["scores"]
    assert not np.array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1:], after[1:])  # the others of the batch


def scroll_by_finger(page: Page) -> None:
    """Touch an input and move the page: the browser takes the stroke away."""
    page.evaluate(
        """() => {
          const canvas = document.querySelector("#use canvas.drawable");
          canvas.setPointerCapture = () => {};
          const touch = { pointerId: 7, pointerType: "touch", bubbles: true };
          for (const kind of ["pointerdown", "pointermove", "pointercancel"])
            canvas.dispatchEvent(new PointerEvent(kind, touch));
        }"""
    )
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_timeout(300)


def test_values_can_be_typed_where_nobody_can_draw(
    choices: Path, tmp_path: Path, visit: Visit
) -> None:
    with served(choices) as url:
        visit.open(url)
        # examples of a batch are no sequence, so that they aren't drawn as a curve
        assert visit.page.locator("#use select").first.input_value() == "table"
        cell = visit.page.get_by_label("features at 0, 0")
        cell.fill("100")
        cell.press("Tab")
        visit.page.wait_for_timeout(300)
        typed = saved_outputs(visit.page, tmp_path)["score"]
    assert np.abs(typed[0, 0]) > np.abs(typed).max(initial=0) / 2


def test_latency_is_measured(address: str, visit: Visit) -> None:
    visit.open(address)
    visit.page.get_by_role("button", name="Measure").click()
    result = visit.page.get_by_text(re.compile(r"median [\d.]+ ms"))
    result.wait_for()


# The stick figures' view


def errors(page: Page) -> tuple[float, float]:
    """How far the figure is off, in cm: as given, and restored."""
    text = page.locator("#motion").get_by_text("Given, the figure").inner_text()
    given, restored, *_ = re.findall(r"([\d.]+) cm", text)
    return float(given), float(restored)


def test_the_figure_is_restored_and_plays(demo_address: str, visit: Visit) -> None:
    visit.open(demo_address)
    page = visit.page
    page.get_by_role("button", name="wave", exact=True).click()
    page.wait_for_timeout(500)
    given, restored = errors(page)
    assert 4 < given < 6  # noise of 5 cm
    assert restored < given / 2
    frame = page.get_by_label("frame", exact=True)
    before = frame.input_value()
    page.wait_for_timeout(500)
    assert frame.input_value() != before
    page.get_by_role("button", name="Pause").click()
    before = frame.input_value()
    page.wait_for_timeout(300)
    assert frame.input_value() == before


def test_actions_are_chosen_by_keyboard(demo_address: str, visit: Visit) -> None:
    visit.open(demo_address)
    jump = visit.page.get_by_role("button", name="jump", exact=True)
    jump.focus()
    visit.page.keyboard.press("Enter")
    assert jump.get_attribute("aria-pressed") == "true"
    walk = visit.page.get_by_role("button", name="walk", exact=True)
    assert walk.get_attribute("aria-pressed") == "false"


def test_another_model_has_no_figure(address: str, visit: Visit) -> None:
    visit.open(address)
    assert visit.page.is_hidden("#motion")


# For everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(scheme: str, demo_address: str, browser: Browser) -> None:
    faults = faults_of_page(browser, demo_address, scheme)
    assert faults == []


def test_axe_finds_a_fault_that_was_made(demo_address: str, browser: Browser) -> None:
    change = "() => document.querySelector('#motion input').previousSibling.remove()"
    assert "label" in faults_of_page(browser, demo_address, "light", change)


def faults_of_page(
    browser: Browser, address: str, scheme: str, change: str | None = None
) -> list[str]:
    """The names of the rules that axe finds broken, on a phone's width."""
    context = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": WIDTHS["phone"], "height": 800},
        bypass_csp=True,  # axe is no script of the page
    )
    visit = Visit(context)
    visit.open(address)
    visit.page.get_by_text("Given, the figure").wait_for()
    if change:
        visit.page.evaluate(change)
    visit.page.evaluate(axe_script())
    found = visit.page.evaluate("() => axe.run()")
    context.close()
    return [rule["id"] for rule in found["violations"]]


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_nothing_sticks_out_to_the_side(
    width: int, demo_address: str, browser: Browser
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    visit = Visit(context)
    visit.open(demo_address)
    wider = "() => document.documentElement.scrollWidth - window.innerWidth"
    assert visit.page.evaluate(wider) <= 0
    # the table may be scrolled, and what matters is seen without it
    table = visit.page.locator("#figures").bounding_box()
    verdict = visit.page.locator("#figures .tag").first.bounding_box()
    assert table and verdict
    assert verdict["x"] + verdict["width"] <= table["x"] + table["width"]
    context.close()
