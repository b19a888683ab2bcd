"""Downloads from a real server on this machine, with what goes wrong on real ones."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT, edit_yaml, told
from geomem.commands.main import main
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.formats import read_json, write_json
from geomem.formats.addresses import TRIES, fetch_address

CONTENT = np.random.default_rng(0).bytes(3 << 20)
KNOWN = hashlib.sha256(CONTENT).hexdigest()
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers from a list, one after another, then as a good server does."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers))
        answer = self.server.answers.pop(0) if self.server.answers else self.server.always
        answer(self)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass

    def head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


class Server(ThreadingHTTPServer):
    """The server, with what it will answer and what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.asked: list[dict[str, str]] = []
        self.always: Answer = good
        self.content, self.tag = CONTENT, '"one"'
        self.url = f"http://127.0.0.1:{self.server_port}/weights.bin"

    def handle_error(self, *_: Any) -> None:  # clients that have gone
        pass


def good(handler: Handler, *, until: int | None = None) -> None:
    """Send the file, or what a range asks of it; up to a byte, then cut the connection."""
    server, first, status = handler.server, 0, 200
    if handler.headers.get("If-Range") == server.tag and "Range" in handler.headers:
        first, status = int(handler.headers["Range"][len("bytes=") : -1]), 206
    rest = server.content[first:]
    span = f"bytes {first}-{len(server.content) - 1}/{len(server.content)}"
    ranged = {"Content_Range": span} if status == 206 else {}
    handler.head(status, len(rest), ETag=server.tag, **ranged)
    handler.wfile.write(rest[: until and until - first])
    if until:
        handler.close_connection = True


def cut_at(byte: int) -> Answer:
    return lambda handler: good(handler, until=byte)


def refuse(status: int, **headers: str) -> Answer:
    return lambda handler: handler.head(status, 0, **headers)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights/file.bin"


class Clock:
    """Notes how long was waited instead of waiting."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


def left_beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if not p.name.startswith(".lock"))


def test_a_file_arrives_whole(server: Server, path: Path) -> None:
    fetch_address(path, server.url, sha256=KNOWN[:8])
    assert path.read_bytes() == CONTENT and left_beside(path) == ["file.bin"]


def test_as_a_user_types_it(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["geomem", "download", str(path), "--url", server.url, "--sha256", KNOWN[:8]]
    monkeypatch.setattr("sys.argv", typed)
    main()
    assert path.read_bytes() == CONTENT


def test_what_nobody_knows_is_held_to_what_came_first(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ["download", "data/a.pth", "--url", server.url]
    main(typed)
    assert read_json("weights/downloads.json") == {server.url: KNOWN}
    write_json("weights/downloads.json", {server.url: "0" * 64, "elsewhere": "1" * 64})
    with pytest.raises(SystemExit, match="is not the pinned file"):
        main(typed)
    assert read_json("weights/downloads.json")[server.url] == "0" * 64
    main([*typed, "--sha256", KNOWN])  # who knows better says so
    assert Path("data/a.pth").read_bytes() == CONTENT


def test_terms_are_accepted_before_anything_is_asked_for(
    server: Server, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    typed = ["download", "data/a.pth", "--url", server.url, "--terms", "A is not free"]
    with pytest.raises(SystemExit, match="If you accept that") as stopped:
        main(typed)
    said = str(stopped.value)
    assert "A is not free. If" in said and "accepted_terms: [data/a.pth]" in said
    assert server.asked == []
    edit_yaml(project / "config/config.yaml", accepted_terms=["data/a.pth"])
    main(typed)
    assert (project / "data/a.pth").read_bytes() == CONTENT


def test_what_the_published_study_needs_is_fetched_by_rule() -> None:
    found = Dag(load_config(ROOT, scale="paper")).downloads()
    names = {Path(path).name: source for path, source in found.items()}
    assert names.keys() == {
        "model.safetensors",
        "dinov2_vitl14_reg4_pretrain.pth",
        "alexnet-owt-7be5be79.pth",
        "i3d_torchscript.pt",
        "DFoT_RE10K.ckpt",
    }
    assert {name for name, source in names.items() if source.terms} == {"model.safetensors"}


def test_cut_connections_go_on_from_where_they_were(server: Server, path: Path) -> None:
    server.answers, clock = [cut_at(1_000_000), cut_at(1_000_001), cut_at(2_500_000)], Clock()
    fetch_address(path, server.url, sha256=KNOWN, sleep=clock)
    assert path.read_bytes() == CONTENT
    ranges = [asked.get("Range") for asked in server.asked]
    assert ranges == [None, "bytes=1000000-", "bytes=1000001-", "bytes=2500000-"]
    # each brought something, so that patience begins anew
    assert clock.waits == [1.0] * 3


def test_the_next_run_goes_on_and_another_file_begins_anew(server: Server, path: Path) -> None:
    server.answers = [cut_at(2_000_000), *[refuse(503)] * TRIES]
    told(
        lambda: fetch_address(path, server.url, sha256=KNOWN, sleep=Clock()),
        server.url, "HTTP 503", "2000000 bytes are kept, run again", str(path),
    )  # fmt: skip
    assert left_beside(path) == ["file.bin.part", "file.bin.part.tag"]
    server.asked.clear()
    fetch_address(path, server.url, sha256=KNOWN, sleep=Clock())
    assert path.read_bytes() == CONTENT and server.asked[0]["Range"] == "bytes=2000000-"

    path.unlink()
    server.answers = [cut_at(2_000_000), *[refuse(503)] * TRIES]
    told(lambda: fetch_address(path, server.url, sha256="", sleep=Clock()), "503")
    server.content, server.tag = CONTENT[::-1], '"two"'  # replaced in the meantime
    fetch_address(path, server.url, sha256="", sleep=Clock())
    assert path.read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_or_tags_is_asked_for_all(server: Server, path: Path) -> None:
    def whole(handler: Handler) -> None:
        handler.head(200, len(CONTENT))
        handler.wfile.write(CONTENT)

    def half(handler: Handler) -> None:
        handler.head(200, len(CONTENT))
        handler.wfile.write(CONTENT[:500_000])
        handler.close_connection = True

    server.answers = [half, whole]
    fetch_address(path, server.url, sha256=KNOWN, sleep=Clock())
    assert path.read_bytes() == CONTENT
    assert all("Range" not in asked for asked in server.asked)


def test_a_wrong_range_is_not_glued_on(server: Server, path: Path) -> None:
    def shifted(handler: Handler) -> None:
        handler.head(206, 10, ETag=server.tag, Content_Range=f"bytes 7-16/{len(CONTENT)}")
        handler.wfile.write(CONTENT[7:17])

    server.answers = [cut_at(1_000_000), shifted]
    told(lambda: fetch_address(path, server.url, sha256=KNOWN, sleep=Clock()), "not the pinned")
    fetch_address(path, server.url, sha256=KNOWN, sleep=Clock())
    assert path.read_bytes() == CONTENT


def test_a_wrong_file_is_told_and_not_kept(server: Server, path: Path) -> None:
    told(
        lambda: fetch_address(path, server.url, sha256="0" * 64),
        server.url, "not the pinned file", KNOWN[:12],
    )  # fmt: skip
    assert left_beside(path) == []


def test_what_is_not_there_is_not_asked_for_again(server: Server, path: Path) -> None:
    for status in (404, 403):
        server.answers, server.asked = [refuse(status)], []
        told(lambda: fetch_address(path, server.url, sha256=KNOWN, sleep=Clock()), f"HTTP {status}")
        assert len(server.asked) == 1


def test_a_busy_server_gets_the_time_that_it_asks_for(server: Server, path: Path) -> None:
    soon = formatdate(usegmt=True)
    server.answers = [
        refuse(429, Retry_After="17"),
        refuse(429, Retry_After="86400"),
        refuse(503, Retry_After=soon),
        refuse(429, Retry_After="in a while"),
    ]
    clock = Clock()
    fetch_address(path, server.url, sha256=KNOWN, sleep=clock)
    assert clock.waits[:2] == [17, 300] and clock.waits[2] < 2 and clock.waits[3] == 8
    server.answers, clock = [refuse(429)] * TRIES, Clock()
    told(lambda: fetch_address(path, server.url, sha256=KNOWN, sleep=clock), "HTTP 429")
    assert clock.waits == [1, 2, 4, 8]


def test_a_silent_server_is_given_up(server: Server, path: Path) -> None:
    gone = threading.Event()

    def silent(handler: Handler) -> None:
        handler.head(200, len(CONTENT), ETag=server.tag)
        handler.wfile.write(CONTENT[:1000])
        handler.wfile.flush()
        gone.wait(5)
        handler.close_connection = True

    server.answers = [silent]
    fetch_address(path, server.url, sha256=KNOWN, patience=0.3, sleep=Clock())
    gone.set()
    assert path.read_bytes() == CONTENT


def test_nobody_there_is_one_line(path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as unused:
        url = f"http://127.0.0.1:{unused.server_port}/x"
    told(lambda: fetch_address(path, url, sha256="", sleep=Clock()), url, "refused", str(path))


def test_only_this_machine_may_be_asked_without_encryption(path: Path) -> None:
    for url in ("http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd"):
        told(lambda url=url: fetch_address(path, url, sha256=""), url, "no https address")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_keeps_what_has_arrived(server: Server, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        path = small / "file.bin"
        told(
            lambda: fetch_address(path, server.url, sha256=KNOWN, sleep=Clock()),
            "No space left on device", "bytes", "run again",
        )  # fmt: skip
        kept = (small / "file.bin.part").stat().st_size
        assert kept >= 1 << 20
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        fetch_address(path, server.url, sha256=KNOWN, sleep=Clock())
        assert path.read_bytes() == CONTENT and "Range" in server.asked[-1]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_two_runs_do_not_write_one_file(server: Server, path: Path) -> None:
    started, go = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        started.set()
        go.wait(5)
        good(handler)

    server.answers = [slow]
    first = threading.Thread(
        target=fetch_address, args=(path, server.url), kwargs={"sha256": KNOWN}
    )
    first.start()
    assert started.wait(5)
    told(lambda: fetch_address(path, server.url, sha256=KNOWN), "in use by another run")
    go.set()
    first.join()
    assert path.read_bytes() == CONTENT


# --- the hub ------------------------------------------------------------------------------------

REVISION = "ab" * 20
PARTS = {
    "set/data.tar.gz.part-aa": CONTENT[:2_000_000],
    "set/data.tar.gz.part-ab": CONTENT[2_000_000:],
}
DOWNLOAD = """
import sys
from pathlib import Path
from geomem.clips.archives import download_parts
from geomem.errors import InputError
try:
    files = dict.fromkeys(sys.argv[3:], "")
    download_parts("owner/name", files, Path(sys.argv[1]), revision=sys.argv[2])
except InputError as error:
    sys.exit(f"told: {error}")
"""


def hub(faults: dict[str, list[Answer]]) -> Answer:
    """Answer as the hub does: what a file is, and its bytes, or a range of them."""

    def answer(handler: Handler) -> None:
        prefix = f"/owner/name/resolve/{REVISION}/"
        name = handler.path.removeprefix(prefix)
        if name not in PARTS or not handler.path.startswith(prefix):
            handler.head(404, 0, X_Error_Code="EntryNotFound", X_Repo_Commit=REVISION)
            return
        content, waiting = PARTS[name], faults.get(name, [])
        if handler.command != "HEAD" and waiting:
            waiting.pop(0)(handler)
            return
        first = int(handler.headers.get("Range", "bytes=0-")[len("bytes=") :].partition("-")[0])
        told = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X_Repo_Commit": REVISION}
        told |= (
            {"Content_Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
        )
        handler.head(206 if first else 200, len(content) - first, Accept_Ranges="bytes", **told)
        if handler.command != "HEAD":
            handler.wfile.write(content[first:])

    return answer


def from_hub(server: Server, folder: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """Download from it as the first stage does, in a process of its own."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url.rpartition("/")[0],
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(folder.parent / "home"),
    }
    command = [sys.executable, "-c", DOWNLOAD, str(folder), REVISION, *files]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_parts_of_an_archive_come_from_the_hub(server: Server, tmp_path: Path) -> None:
    def half(handler: Handler) -> None:
        handler.head(200, 2_000_000, Accept_Ranges="bytes")
        handler.wfile.write(CONTENT[:700_000])
        handler.close_connection = True

    server.always = hub({"set/data.tar.gz.part-aa": [half]})
    done = from_hub(server, tmp_path / "archive", *PARTS)
    assert done.returncode == 0, done.stderr
    for name, content in PARTS.items():
        assert (tmp_path / "archive" / name).read_bytes() == content
    record = read_json(tmp_path / "archive/archive.json")
    assert record["revision"] == REVISION
    assert record["files"] == {n: hashlib.sha256(c).hexdigest() for n, c in PARTS.items()}


def test_a_part_that_the_hub_does_not_have_is_one_line(server: Server, tmp_path: Path) -> None:
    server.always = hub({})
    done = from_hub(server, tmp_path / "archive", "set/data.tar.gz.part-ac")
    [line] = done.stderr.splitlines()[-1:]
    assert done.returncode == 1 and line.startswith("told: set/data.tar.gz.part-ac of owner/name")
    assert "run again" in line
