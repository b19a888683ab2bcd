"""The results site in a real browser, from the disk: sorting, sources, one slider for all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import LONG, NEEDS_CHROMIUM, started

from conftest import wait_for
from geomem.commands.main import main
from site_run import CONTEXT, FRAMES, PROTOCOL, SHADES, make_run

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_run(tmp_path_factory.mktemp("run"))
    main(["site", "--root", str(root), "--output", str(root / "site")])
    return root / "site"


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page as wide as a phone, whose faults and requests are collected."""
    with started() as browser:
        page = browser.new_page(viewport={"width": 400, "height": 800})
        page.set_default_timeout(LONG)
        page.faults, page.asked = [], []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        yield page


def column(page: Any, number: int) -> list[str]:
    """The unrounded values of a column, from top to bottom."""
    cells = f"[...table.tBodies[0].rows].map(row => row.children[{number}].dataset.value)"
    found: list[str] = page.evaluate(cells)
    return found


def pictures(page: Any) -> list[bytes]:
    """What all videos show."""
    return [video.screenshot() for video in page.locator("canvas.moving").all()]


def clean(page: Any) -> bool:
    """Whether nothing failed, nothing is wider than the screen, and the disk alone was read."""
    outside = [url for url in page.asked if not url.startswith(("file:", "data:"))]
    wide = page.evaluate("document.documentElement.scrollWidth")
    return page.faults == [] and outside == [] and wide <= 400


def test_a_table_sorts_by_keyboard_and_a_cell_tells_where_it_comes_from(
    page: Any, site: Path
) -> None:
    page.goto((site / "table-ablation_table2_replay.html").as_uri())
    in_paper = column(page, 1)
    page.locator("th button[data-sort='1']").focus()
    for direction in ("ascending", "descending"):
        page.keyboard.press("Enter")
        values = sorted(map(float, in_paper), reverse=direction == "descending")
        assert [float(value) for value in column(page, 1)] == values
        assert page.locator(f"th[aria-sort={direction}]").count() == 1
    page.keyboard.press("Enter")
    assert column(page, 1) == in_paper and page.locator("th[aria-sort]").count() == 0

    page.locator("tr", has_text="3D memory of 4 frames").locator("button.cell").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    told = dialog.inner_text()
    assert "3D memory of 4 frames: spin replay: PSNR" in told
    for wanted in ("results/tiny/scores/memory_4/seed0/spin_replay/frames.json", "made of: plan"):
        assert wanted in told
    assert "snakemake results/ablation_table2_replay.tex" in told
    page.keyboard.press("Escape")
    wait_for(lambda: not dialog.is_visible(), "the dialog to close", seconds=LONG / 1000)
    assert clean(page)


def test_one_slider_moves_all_videos_the_curves_mark_and_the_camera(page: Any, site: Path) -> None:
    page.goto((site / f"videos-{PROTOCOL}.html").as_uri())
    page.wait_for_load_state("load")
    given = pictures(page)
    slider = page.get_by_role("slider", name="Frame")
    slider.focus()
    shown = []
    # two generated frames, whose borders are alike
    for frame in range(1, CONTEXT + 2):
        page.keyboard.press("ArrowRight")
        kind = "given" if frame < CONTEXT else "generated"
        assert page.locator("#told").inner_text() == f"{frame} of {FRAMES - 1}, {kind}"
        shown.append(pictures(page))
    assert len(given) == 1 + len(SHADES)
    assert not any(before == after for before, after in zip(*shown[-2:], strict=True))
    mark, ring = page.locator("line.now").first, page.locator("circle.here")
    before = mark.get_attribute("x1"), ring.get_attribute("cx")
    page.keyboard.press("End")
    after = mark.get_attribute("x1"), ring.get_attribute("cx")
    assert all(float(a) < float(b) for a, b in zip(before, after, strict=True))
    page.keyboard.press("Home")
    assert pictures(page) == given

    page.locator("summary", has_text="Choose what is shown").click()
    page.locator("label", has_text="truth").locator("input").uncheck()
    assert page.locator("canvas.moving").first.is_hidden()
    page.get_by_role("button", name="Play").click()
    wait_for(lambda: slider.input_value() != "0", "videos to run", seconds=LONG / 1000)
    page.get_by_role("button", name="Pause").click()
    assert clean(page)


def test_the_room_turns_by_keyboard(page: Any, site: Path) -> None:
    page.goto((site / f"videos-{PROTOCOL}.html").as_uri())
    room = page.locator("#cloud-canvas")
    room.scroll_into_view_if_needed()
    wait_for(
        lambda: "points" in page.locator("#cloud-told").inner_text(),
        "the cloud",
        seconds=LONG / 1000,
    )
    before = room.screenshot()
    room.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert room.screenshot() != before
    assert clean(page)
