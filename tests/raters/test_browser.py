"""Raters in a real browser, some by keyboard alone, and a server that is killed between votes."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import LONG, NEEDS_CHROMIUM, started
from serving import Served

from conftest import wait_for
from geomem.study.plan import QUESTIONS
from rated import make_study

pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A study with two checks and a repeated pair, served."""
    make_study(tmp_path / "study")
    server = Served(tmp_path / "study")
    yield server
    server.kill()


@pytest.fixture
def browser() -> Iterator[Any]:
    with started() as browser:
        yield browser


def open_page(browser: Any, link: str, **options: Any) -> Any:
    """Return a page in a session of its own, whose faults are collected in `page.faults`."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(LONG)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on(
        "console",
        lambda line: page.faults.append(line.text) if "Content Security" in line.text else None,
    )
    page.goto(link)
    return page


def number(page: Any) -> int:
    """The number of the comparison that is shown."""
    return int(page.locator("h1").inner_text().split("comparison ")[1].split()[0])


def answer_by_keys(page: Any, *, right: int) -> None:
    """Answer all questions and send, with keys alone; `right` moves the choice from the left."""
    for question in range(1, 5):
        page.keyboard.press(str(question))
        page.keyboard.press("Space")
        for _ in range(right):
            page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")


def answer(page: Any, value: str) -> None:
    for key, _ in QUESTIONS:
        page.locator(f"input[name={key}][value={value}]").check()


def until(page: Any, holds: str) -> None:
    """Wait until JavaScript holds; the page's policy forbids playwright's own waiting."""
    wait_for(lambda: page.evaluate(holds), holds, seconds=LONG / 1000)


def wait_for_number(page: Any, wanted: int, total: int) -> None:
    told = f"comparison {wanted} of" if wanted <= total else "Thank you"
    page.locator("h1", has_text=told).wait_for()


def test_a_rater_completes_a_study_by_keyboard_alone(browser: Any, served: Served) -> None:
    [link] = served.invite()
    page = open_page(browser, link)
    total = len(served.study.comparisons)
    for place in range(1, total + 1):
        wait_for_number(page, place, total)
        answer_by_keys(page, right=place % 3)
    wait_for_number(page, total + 1, total)
    ballots = served.ballots()
    assert len(ballots) == 4 * total
    by_time = sorted(ballots, key=lambda each: each.time)
    expected = [("left", "tie", "right")[place % 3] for place in range(1, total + 1)]
    assert [each.answer for each in by_time[::4]] == expected
    assert [each.answer for each in by_time[3::4]] == expected
    assert page.faults == []


def test_videos_run_together_again_and_again(browser: Any, served: Served) -> None:
    page = open_page(browser, served.invite()[0])
    times = "[...document.querySelectorAll('video')].map(v => v.currentTime)"
    until(page, f"{times}.every(t => t > 0.3)")
    page.evaluate(
        "window.starts = 0; left.addEventListener('seeked', () => {"
        " if (left.currentTime < 0.1) { window.starts += 1; } })"
    )
    until(page, "window.starts >= 2")
    apart = [abs(a - b) for a, b in (page.evaluate(times) for _ in range(20))]
    assert sorted(apart)[len(apart) // 2] < 0.15
    page.keyboard.press("p")
    until(page, "left.paused && right.paused")
    page.keyboard.press("p")
    until(page, "!left.paused && !right.paused")
    # without shortcuts the keys do nothing
    page.locator("#shortcuts").uncheck()
    page.keyboard.press("p")
    until(page, "!left.paused")  # at its end a video stands for a moment
    assert page.faults == []


def test_nothing_moves_for_those_who_want_less_motion(browser: Any, served: Served) -> None:
    page = open_page(browser, served.invite()[0], reduced_motion="reduce")
    until(page, "left.readyState >= 2 && right.readyState >= 2")
    assert page.evaluate("left.paused && right.paused && left.controls && right.controls")
    page.get_by_role("button", name="Play both").click()
    until(page, "left.currentTime > 0 && right.currentTime > 0")


def test_the_page_fits_a_phone_and_asks_nothing_of_others(browser: Any, served: Served) -> None:
    page = open_page(browser, "about:blank", viewport={"width": 320, "height": 640})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.invite()[0])
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert [url for url in asked if not url.startswith(served.at)] == []
    groups = page.get_by_role("group")
    assert groups.count() >= 4
    for _, text in QUESTIONS:
        assert page.get_by_role("group", name=text).get_by_role("radio").count() == 3
    page.locator("input[name=camera]").first.focus()
    page.keyboard.press("ArrowDown")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"


def test_two_raters_at_once_do_not_disturb_each_other(browser: Any, served: Served) -> None:
    total = len(served.study.comparisons)
    pages = [open_page(browser, link) for link in served.invite(2)]
    for place in range(1, total + 1):
        for page, value in zip(pages, ("left", "right"), strict=True):
            wait_for_number(page, place, total)
            answer(page, value)
        for page in pages:
            page.locator("#send").click()
    for page in pages:
        wait_for_number(page, total + 1, total)
    ballots = served.ballots()
    assert len(ballots) == 2 * 4 * total
    answers: dict[str, set[str]] = {}
    for each in ballots:
        answers.setdefault(each.rater, set()).add(each.answer)
    assert sorted(map(tuple, answers.values())) == [("left",), ("right",)]


def test_a_killed_server_loses_no_vote_and_no_unsent_answer(browser: Any, served: Served) -> None:
    total = len(served.study.comparisons)
    page = open_page(browser, served.invite()[0])
    for place in range(1, total + 1):
        wait_for_number(page, place, total)
        answer(page, "right")
        if place in (1, 4):
            served.kill()
            page.locator("#send").click()
            page.locator("#state", has_text="Not saved yet").wait_for()
            served.start()  # the page sends again by itself
        elif place == 2:
            served.kill()
            served.start()
            page.reload()
            assert number(page) == 2
            kept = page.locator("input[value=right]:checked")
            assert kept.count() == 4
            page.locator("#send").click()
        else:
            page.locator("#send").dblclick()
    wait_for_number(page, total + 1, total)
    ballots = served.ballots()
    assert len(ballots) == 4 * total
    assert {each.answer for each in ballots} == {"right"}


def test_acknowledged_votes_survive_a_kill_at_any_moment(served: Served) -> None:
    import httpx2 as httpx

    links = served.invited(8)
    acknowledged: list[tuple[str, str]] = []

    def rate(rater: str, link: str) -> None:
        with httpx.Client(timeout=10) as client:
            while True:
                try:
                    page = client.get(link).text
                    if "Thank you" in page:
                        return
                    name = page.split('name="comparison" value="')[1].split('"')[0]
                    data = {"comparison": name, **{key: "tie" for key, _ in QUESTIONS}}
                    if client.post(link, data=data).status_code == 303:
                        acknowledged.append((rater, name))
                except httpx.TransportError:
                    return

    threads = [threading.Thread(target=rate, args=item) for item in links.items()]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(acknowledged) >= 10, "ten votes", seconds=60, pause=0.01)
    served.kill()
    for thread in threads:
        thread.join()
    served.start()
    saved = {(each.rater, each.comparison) for each in served.ballots()}
    assert set(acknowledged) <= saved
    # a vote may be saved whose answer did not arrive, one a rater at most
    assert len(saved) <= len(set(acknowledged)) + len(links)
