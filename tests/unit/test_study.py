"""The preference study: its folder, its order, its pages, its votes and what refuses what."""

import asyncio
import base64
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient

from conftest import told, truncate
from geomem.study.ballots import COLUMNS, read_ballots, write_ballots
from geomem.study.camera_path import describe_path, draw_path, top_view
from geomem.study.guards import BODY, TRIES, WINDOW, Password, small_form
from geomem.study.invitations import SECRET, InvitationError, Invitations, study_secret
from geomem.study.plan import GAP, MEDIA, QUESTIONS, TRUTH, Study, order_of, read_study, sides
from geomem.study.server import make_app
from geomem.study.votes import Votes, ballots_of
from rated import FRAMES, METHODS, clip, make_study

PASSWORD = "correct horse"
ANSWERS = {"camera": "left", "objects": "tie", "scene": "right", "overall": "left"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    folder = tmp_path_factory.mktemp("study") / "study"
    return folder, make_study(folder)


class Server:
    """The pages of a study with a database of its own."""

    def __init__(self, folder: Path, study: Study, database: Path) -> None:
        self.folder, self.study, self.database = folder, study, database
        self.invitations = Invitations("a secret of tests", study.digest)
        self.start()

    def start(self) -> None:
        self.votes = Votes(f"sqlite:///{self.database}", self.study.digest)
        app = make_app(self.folder, self.study, self.votes, self.invitations, admin=PASSWORD)
        self.client = TestClient(app, follow_redirects=False)

    def shown(self, token: str) -> str:
        """The name of the comparison that a rater's page asks about."""
        found = re.search(r'name="comparison" value="([0-9a-f]+)"', self.page(token))
        assert found
        return found[1]

    def page(self, token: str) -> str:
        response = self.client.get(f"/s/{token}")
        assert response.status_code == 200
        return response.text


@pytest.fixture
def server(built: tuple[Path, Study], tmp_path: Path) -> Iterator[Server]:
    server = Server(*built, tmp_path / "votes.sqlite")
    yield server
    server.votes.close()


# the folder


def test_a_study_has_every_pair_on_every_clip_checks_and_repeats(
    built: tuple[Path, Study],
) -> None:
    folder, study = built
    assert read_study(folder) == study
    plain = [each for each in study.comparisons if not each.check and each.repeats is None]
    pairs = {(each.clip, frozenset(shown.method for shown in each.pair)) for each in plain}
    assert len(pairs) == len(plain) == 2 * 3
    [repeat] = [each for each in study.comparisons if each.repeats]
    assert study.comparison(str(repeat.repeats)).pair == repeat.pair  # type: ignore[union-attr]
    checks = [each for each in study.comparisons if each.check]
    assert {each.pair[1].method for each in checks} == {"noise", "repeated_input"}
    assert {path.name for path in (folder / MEDIA).iterdir()} == study.media


def test_names_of_files_and_comparisons_say_nothing(built: tuple[Path, Study]) -> None:
    _, study = built
    names = [*study.media, *(each.name for each in study.comparisons)]
    words = (*METHODS, TRUTH, "noise", "check", "repeat", "pair", "clip")
    assert [name for name in names if any(word in name for word in words)] == []


def test_videos_show_what_methods_made(built: tuple[Path, Study]) -> None:
    folder, study = built
    of_clip = next(each for each in study.comparisons if each.check)
    frames = {}
    for shown in of_clip.pair:
        with av.open(str(folder / MEDIA / shown.video)) as container:
            frames[shown.method] = [
                frame.to_ndarray(format="rgb24").astype(float)
                for frame in container.decode(video=0)
            ]
    truth = frames.pop(TRUTH)
    [spoiled] = frames.values()
    assert len(truth) == len(spoiled) == FRAMES
    apart = [np.abs(a - b).mean() for a, b in zip(truth, spoiled, strict=True)]
    assert max(apart[:2]) < 3 < min(apart[3:])


def test_a_folder_that_may_hold_votes_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    told(lambda: make_study(tmp_path / "study"), "may hold votes", "another folder")


def test_more_repeats_than_pairs_are_refused(tmp_path: Path) -> None:
    told(lambda: make_study(tmp_path / "study", repeats=7), "--repeats 7", "0 to 6")
    assert not (tmp_path / "study").exists()


def test_damaged_studies_are_told_in_one_line(tmp_path: Path) -> None:
    told(lambda: read_study(tmp_path), "study.json is missing", "geomem study build")
    study = make_study(tmp_path / "a")
    lost = sorted(study.media)[0]
    (tmp_path / "a" / MEDIA / lost).unlink()
    told(lambda: read_study(tmp_path / "a"), lost, "build the study again")
    truncate(tmp_path / "a/study.json")
    told(lambda: read_study(tmp_path / "a"), "study.json", "not readable")


def test_a_path_is_drawn_as_it_is_from_above() -> None:
    cameras = clip(0).cameras
    places, looks = top_view(cameras)
    np.testing.assert_allclose(places[-1], [0.1 * (FRAMES - 1), 0.3 * (FRAMES - 1)], atol=1e-5)
    np.testing.assert_allclose(looks, [[0, 1]] * FRAMES, atol=1e-6)
    assert "2.1 forward and 0.7 to the right" in describe_path(cameras)
    drawing = draw_path(cameras, context=2)
    assert drawing.startswith("<svg") and "script" not in drawing and "style" not in drawing
    still = np.repeat(cameras[:1], FRAMES, axis=0)
    assert describe_path(still) == "It stays in its place; it looks the same way."


def test_a_turn_to_the_right_is_called_so() -> None:
    # world-to-camera of a camera that has turned right by 90 degrees: it looks along +x
    cameras = clip(0).cameras[:2].copy()
    cameras[:, [7, 11, 15]] = 0
    cameras[1, 4:16] = [0, 0, -1, 0, 0, 1, 0, 0, 1, 0, 0, 0]
    assert "turns 90 degrees to the right" in describe_path(cameras)


# order and sides


def test_orders_and_sides_are_a_rater_s_own_and_reproducible(built: tuple[Path, Study]) -> None:
    _, study = built
    orders = {rater: order_of(study, rater) for rater in ("a", "b", "c")}
    assert orders["a"] == order_of(study, "a")
    assert len({tuple(each.name for each in order) for order in orders.values()}) == 3
    assert all(sorted(o, key=lambda c: c.name) == sorted(study.comparisons, key=lambda c: c.name)
               for o in orders.values())  # fmt: skip
    first = study.comparisons[0]
    left = [sides(first, f"rater-{n}")[0] == first.pair[0] for n in range(400)]
    assert 150 < sum(left) < 250


def test_a_repeated_pair_comes_later_with_its_sides_swapped(built: tuple[Path, Study]) -> None:
    _, study = built
    [repeat] = [each for each in study.comparisons if each.repeats]
    original = study.comparison(str(repeat.repeats))
    assert original
    for number in range(50):
        order = order_of(study, f"rater-{number}")
        assert order.index(repeat) - order.index(original) > GAP
        assert sides(repeat, f"rater-{number}") == sides(original, f"rater-{number}")[::-1]


# voting


def test_a_rater_goes_through_all_comparisons_once(server: Server) -> None:
    rater, token = server.invitations.make()
    asked = []
    for _ in server.study.comparisons:
        asked.append(server.shown(token))
        response = server.client.post(f"/s/{token}", data={"comparison": asked[-1], **ANSWERS})
        assert (response.status_code, response.headers["location"]) == (303, f"/s/{token}")
    assert asked == [each.name for each in order_of(server.study, rater)]
    assert "Thank you" in server.page(token)
    assert [vote.answers for vote in server.votes.all()] == [ANSWERS] * len(asked)


def test_a_vote_that_comes_again_is_counted_once_and_stays_as_it_was(server: Server) -> None:
    _, token = server.invitations.make()
    data = {"comparison": server.shown(token), **ANSWERS}
    later = {**data, "overall": "right"}
    answers = [server.client.post(f"/s/{token}", data=each) for each in (data, data, later)]
    assert [answer.status_code for answer in answers] == [303] * 3
    [vote] = server.votes.all()
    assert vote.answers == ANSWERS


def test_many_equal_votes_at_once_are_one(server: Server) -> None:
    rater, _ = server.invitations.make()
    added, methods = [], ("alpha", "beta")
    vote = lambda: added.append(server.votes.add(rater, "one", methods, ANSWERS))  # noqa: E731
    threads = [threading.Thread(target=vote) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == [False] * 15 + [True]
    assert len(server.votes.all()) == 1


def test_a_restart_keeps_the_place(server: Server) -> None:
    _, token = server.invitations.make()
    server.client.post(f"/s/{token}", data={"comparison": server.shown(token), **ANSWERS})
    coming = server.shown(token)
    server.votes.close()
    server.start()
    assert server.shown(token) == coming
    assert "comparison 2 of" in server.page(token)


def test_votes_of_two_raters_do_not_meet(server: Server) -> None:
    (one, first), (two, second) = server.invitations.make(), server.invitations.make()
    server.client.post(f"/s/{first}", data={"comparison": server.shown(first), **ANSWERS})
    assert "comparison 1 of" in server.page(second)
    assert [len(server.votes.done(rater)) for rater in (one, two)] == [1, 0]


def test_methods_are_recorded_as_they_were_shown(server: Server) -> None:
    rater, token = server.invitations.make()
    page, name = server.page(token), server.shown(token)
    server.client.post(f"/s/{token}", data={"comparison": name, **ANSWERS})
    videos = re.findall(r'<video id="(left|right)" src="/media/([^"]+)"', page)
    comparison = server.study.comparison(name)
    assert comparison
    maker = {shown.video: shown.method for shown in comparison.pair}
    [vote] = server.votes.all()
    assert [(side, maker[video]) for side, video in videos] == [
        ("left", vote.left_method),
        ("right", vote.right_method),
    ]


@pytest.mark.parametrize("missing", [key for key, _ in QUESTIONS])
def test_a_vote_without_an_answer_is_refused(server: Server, missing: str) -> None:
    _, token = server.invitations.make()
    answers = {key: value for key, value in ANSWERS.items() if key != missing}
    for more in ({}, {missing: "up"}):
        data = {"comparison": server.shown(token), **answers, **more}
        response = server.client.post(f"/s/{token}", data=data)
        assert response.status_code == 422 and "all four" in response.text
    assert server.votes.all() == []


def test_a_vote_out_of_turn_or_on_nothing_is_refused(server: Server) -> None:
    rater, token = server.invitations.make()
    last = order_of(server.study, rater)[-1].name
    for name, status in ((last, 409), ("nothing", 422)):
        data = {"comparison": name, **ANSWERS}
        assert server.client.post(f"/s/{token}", data=data).status_code == status
    assert server.votes.all() == []


def test_votes_on_another_study_are_not_mixed_in(server: Server) -> None:
    address = f"sqlite:///{server.database}"
    told(lambda: Votes(address, "0" * 12), "another study", "another database")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", ("no address",)),
        ("mysql://user:hidden@host/name", ("only SQLite and PostgreSQL",)),
        ("postgresql://user:hidden@127.0.0.1:9/name", ("cannot be opened",)),
        ("sqlite:////nowhere/at/all.sqlite", ("cannot be opened",)),
    ],
)
def test_databases_that_cannot_be_used_are_told(address: str, words: tuple[str, ...]) -> None:
    told(lambda: Votes(address, "study"), "--database", *words)
    with pytest.raises(ValueError) as caught:
        Votes(address, "study")
    assert "hidden" not in str(caught.value)


def test_sqlite_syncs_every_commit(server: Server) -> None:
    with server.votes._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


# what is refused


def test_forged_changed_foreign_and_old_tokens_are_refused(server: Server) -> None:
    _, token = server.invitations.make()
    forged = Invitations("another secret!!", server.study.digest).make()[1]
    foreign = Invitations("a secret of tests", "another study").make()[1]
    changed = token.replace(token[2], "B" if token[2] == "A" else "A", 1)
    for bad in (forged, foreign, changed, "x", "..", "%00"):
        for answer in (server.client.get(f"/s/{bad}"), server.client.post(f"/s/{bad}", data={})):
            assert answer.status_code in (403, 404), bad
    assert server.client.get(f"/s/{forged}").status_code == 403
    old = Invitations("a secret of tests", server.study.digest, days=-1)
    with pytest.raises(InvitationError, match="expired"):
        old.rater(token)
    assert server.votes.all() == []


def test_only_media_of_the_study_are_served(server: Server, tmp_path: Path) -> None:
    other = server.folder / MEDIA / f"{'0' * 24}.mp4"
    other.write_bytes(b"not of the study")
    names = [other.name, "../study.json", "..%2fstudy.json", "%2e%2e/study.json", "/etc/passwd"]
    names += ["..\\study.json", "%2fetc%2fpasswd", "....//study.json", "%2500"]
    for place in ("media", "static"):
        for name in names:
            assert server.client.get(f"/{place}/{name}").status_code == 404, name
    other.unlink()
    assert server.client.get("/study.json").status_code == 404
    assert server.client.get("/docs").status_code == 404


def test_media_are_served_in_parts(server: Server) -> None:
    name = next(name for name in server.study.media if name.endswith(".mp4"))
    content = (server.folder / MEDIA / name).read_bytes()
    whole = server.client.get(f"/media/{name}")
    part = server.client.get(f"/media/{name}", headers={"Range": "bytes=10-19"})
    beyond = server.client.get(f"/media/{name}", headers={"Range": f"bytes={len(content)}-"})
    assert (whole.status_code, whole.content) == (200, content)
    assert (part.status_code, part.content) == (206, content[10:20])
    assert beyond.status_code == 416
    assert whole.headers["content-type"] == "video/mp4"


def test_large_bodies_are_refused_before_they_are_read(server: Server) -> None:
    _, token = server.invitations.make()
    answer = server.client.post(f"/s/{token}", content=b"x" * (BODY + 1))
    assert answer.status_code == 413
    for told_length in ("-1", "many", "99999999999"):
        headers = {"Content-Length": told_length}
        answer = server.client.post(f"/s/{token}", content=b"a=b", headers=headers)
        assert answer.status_code == 413
    for body in (b"", b"nonsense", b"a=\xff", b"&".join(b"a=b" for _ in range(30))):
        assert server.client.post(f"/s/{token}", content=body).status_code in (400, 422)
    assert server.votes.all() == []


def test_a_body_of_untold_length_is_read_no_further_than_allowed() -> None:
    parts = []

    async def receive() -> dict[str, Any]:
        parts.append(1)
        return {"type": "http.request", "body": b"x" * 1000, "more_body": len(parts) < 1000}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    with pytest.raises(HTTPException) as caught:
        asyncio.run(small_form(Request(scope, receive)))
    assert caught.value.status_code == 413
    assert len(parts) == BODY // 1000 + 1


def test_scripts_in_names_are_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    study = make_study(tmp_path / "study", title=evil)
    bad = study.model_copy(
        update={
            "comparisons": tuple(
                each.model_copy(update={"path_text": f'"{evil}', "clip": evil})
                for each in study.comparisons
            )
        }
    )
    server = Server(tmp_path / "study", bad, tmp_path / "votes.sqlite")
    token = server.invitations.make()[1]
    server.votes.add(evil, bad.comparisons[0].name, (evil, evil), ANSWERS)
    pages = [server.page(token), server.client.get(f"/s/{evil}").text]
    pages += [server.client.get("/admin", auth=("", PASSWORD)).text]
    for page in pages:
        assert evil not in page and "&lt;script&gt;" in page
    server.votes.close()


def test_every_answer_has_the_safe_headers_and_no_page_has_inline_code(server: Server) -> None:
    _, token = server.invitations.make()
    for place in (f"/s/{token}", "/s/bad", "/media/bad", "/static/study.js", "/admin", "/none"):
        headers = server.client.get(place).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "cache-control" in headers
    page = server.page(token)
    assert re.findall(r"<script(?![^>]* src=)|style=|\son\w+=|https?://", page) == []
    assert [method for method in (*METHODS, TRUTH, "noise") if method in page] == []


def test_pages_have_what_screen_readers_and_keyboards_need(server: Server) -> None:
    page = server.page(server.invitations.make()[1])
    assert page.count("<fieldset") == page.count("<legend>") == 4
    assert page.count('type="radio"') == 12
    assert 'lang="en"' in page and "width=device-width" in page
    assert all(" alt=" in image for image in re.findall("<img[^>]*>", page))
    videos = re.findall("<video[^>]*>", page)
    assert len(videos) == 2
    for video in videos:
        assert "controls" in video and "autoplay" not in video and "aria-labelledby" in video


# the progress page


def test_the_progress_page_counts_votes_and_failed_checks(server: Server) -> None:
    rater, token = server.invitations.make()
    for comparison in order_of(server.study, rater):
        data = {"comparison": comparison.name, **ANSWERS, "overall": "tie"}
        server.client.post(f"/s/{token}", data=data)
    page = server.client.get("/admin", auth=("any", PASSWORD)).text
    row = re.search(rf"{rater}</th><td>(\d+)</td><td>(\d+)</td><td>(\d+)</td>", page)
    assert row and row.groups() == ("9", "2", "2")
    assert sum(map(int, re.findall(r" / \w+</th><td>(\d+)</td>", page))) == 7
    assert "1 raters have voted, 1 of them on all" in page


def test_the_progress_page_needs_the_password_and_limits_tries(server: Server) -> None:
    assert server.client.get("/admin").status_code == 401
    assert server.client.get("/admin", headers={"Authorization": "Basic ?"}).status_code == 401
    for _ in range(TRIES - 1):
        assert server.client.get("/admin", auth=("a", "wrong")).status_code == 401
    limited = server.client.get("/admin", auth=("a", PASSWORD))
    assert limited.status_code == 429 and int(limited.headers["retry-after"]) > 0


def test_tries_are_forgotten_after_a_while_and_counted_by_address() -> None:
    now = [0.0]
    password = Password("right", clock=lambda: now[0])

    def status(given: str | None, address: str) -> int:
        try:
            password.check(given, address)
        except Exception as error:
            return error.status_code  # type: ignore[attr-defined,no-any-return]
        return 200

    assert [status("wrong", "a") for _ in range(TRIES + 1)] == [401] * TRIES + [429]
    assert status("right", "a") == 429 and status("right", "b") == 200
    now[0] = WINDOW + 1
    assert status("right", "a") == 200
    assert [status(None, "c") for _ in range(2 * TRIES)] == [401] * 2 * TRIES


def test_without_a_password_the_progress_page_is_off(server: Server) -> None:
    app = make_app(server.folder, server.study, server.votes, server.invitations, admin=None)
    header = {"Authorization": "Basic " + base64.b64encode(b":").decode()}
    answer = TestClient(app).get("/admin", headers=header)
    assert answer.status_code == 404 and "GEOMEM_STUDY_ADMIN" in answer.text


# the secret


def test_the_secret_is_made_once_and_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    first = study_secret(tmp_path)
    assert study_secret(tmp_path) == first and len(first) > 30
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    (tmp_path / "secret").chmod(0o644)
    told(lambda: study_secret(tmp_path), "others can read", "delete it")
    monkeypatch.setenv(SECRET, "given by the environment")
    assert study_secret(tmp_path) == "given by the environment"
    monkeypatch.setenv(SECRET, "short")
    told(lambda: study_secret(tmp_path), SECRET, "at least 16")


# the table


def test_votes_become_a_table_and_are_read_again(server: Server, tmp_path: Path) -> None:
    _, token = server.invitations.make()
    for _ in server.study.comparisons:
        server.client.post(f"/s/{token}", data={"comparison": server.shown(token), **ANSWERS})
    ballots = ballots_of(server.study, server.votes.all())
    assert len(ballots) == 4 * len(server.study.comparisons)
    assert sum(each.is_check for each in ballots) == 8
    assert sum(each.is_repeat for each in ballots) == 4
    chosen = {
        each.answer: each.chosen for each in ballots if each.comparison == ballots[0].comparison
    }
    assert chosen == {
        "left": ballots[0].method_left,
        "tie": "tie",
        "right": ballots[0].method_right,
    }
    path = tmp_path / "votes.csv"
    write_ballots(path, ballots)
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert read_ballots(path) == ballots
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))
    told(lambda: read_ballots(path), f"line {len(lines) + 1}", "twice")
    path.write_text(lines[0] + lines[1].replace(",left,", ",up,"))
    told(lambda: read_ballots(path), "line 2", "damaged")
    path.write_text("a,b\n1,2\n")
    told(lambda: read_ballots(path), "no table of votes")
    path.write_text(lines[0] + lines[1].replace(ballots[0].chosen + ",", "other,", 1))
    told(lambda: read_ballots(path), "line 2", "not what was chosen")
    path.write_bytes(b"\xff\xfe")
    told(lambda: read_ballots(path), "no table of votes")
