"""What starts jobs: by themselves and by the fork server they do the same, and end the same way."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from geomem import forkserver, launch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")

ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key != launch.SOCKET},
    **dict(given.split("=") for given in forkserver.OFFLINE.split()),
    **dict.fromkeys(launch.THREADS, "1"),
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}
# A stage's command of the tests' own; `picks` has the fewest libraries.
STAGE = """
import atexit, json, os, signal, sys, time
from pathlib import Path

atexit.register(lambda: print("at exit", flush=True))
print("out of", __name__, sys.argv[1:], flush=True)
print("to the other stream", file=sys.stderr, flush=True)
if sys.argv[1] == "tell":
    told = {"folder": os.getcwd(), "own": os.environ.get("OWN"), "path": sys.path[0],
            "loaded": "yaml" in sys.modules, "open": len(os.listdir("/proc/self/fd"))}
    Path("told.json").write_text(json.dumps(told))
elif sys.argv[1] == "work":
    block = bytearray(64 << 20)
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
elif sys.argv[1] == "fail":
    raise ValueError("a fault")
elif sys.argv[1] == "exit":
    raise SystemExit(75)
elif sys.argv[1] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
elif sys.argv[1] == "save":
    told = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    Path("ready").write_text(str(os.getpid()))
    while not told:
        time.sleep(0.01)
    print("saved", flush=True)
    raise SystemExit(75)
elif sys.argv[1] == "wait":
    Path("ready").write_text(str(os.getpid()))
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose stage of picks is that of the tests."""
    package = tmp_path / "geomem/picks"
    package.mkdir(parents=True)
    for name in ("launch.py", "forkserver.py"):
        (package.parent / name).write_bytes((Path(forkserver.__file__).parent / name).read_bytes())
    for path in (package.parent, package):
        (path / "__init__.py").touch()
    (package / "__main__.py").write_text(textwrap.dedent(STAGE))
    return tmp_path


def serve(folder: Path, address: Path) -> "subprocess.Popen[bytes]":
    with forkserver.listen(address) as listener:
        return subprocess.Popen(
            [sys.executable, "-m", "geomem.forkserver", str(address), str(listener.fileno())],
            cwd=folder, env=ENVIRONMENT, stdin=subprocess.PIPE, pass_fds=[listener.fileno()],
        )  # fmt: skip


@pytest.fixture
def server(folder: Path) -> Iterator[Path]:
    """A fork server in that folder, by the address where it listens."""
    address = folder / "sockets/jobs"
    address.parent.mkdir()
    with serve(folder, address) as process:
        yield address
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
    assert not address.parent.exists()


def until(done: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def begin(
    folder: Path, *command: str, server: Path | None = None, **variables: str
) -> "subprocess.Popen[bytes]":
    given = {launch.SOCKET: str(server)} if server else {}
    return subprocess.Popen(
        [sys.executable, "-m", "geomem.launch", "logs/job/1.log", *command],
        cwd=folder,
        env={**ENVIRONMENT, **given, **variables},
    )


def job(*arguments: str) -> tuple[str, ...]:
    return ("python", "-m", "geomem.picks", *arguments)


def log(folder: Path) -> str:
    return (folder / "logs/job/1.log").read_text()


def taken(folder: Path) -> dict[str, float]:
    [row] = csv.DictReader((folder / "benchmarks/jobs/job/1.tsv").open(), delimiter="\t")
    return {key: float(value) for key, value in row.items()}


@pytest.mark.parametrize("forked", [False, True])
class TestJobs:
    """By themselves, and by a server."""

    @pytest.fixture
    def place(self, forked: bool, request: pytest.FixtureRequest) -> Path | None:
        place: Path | None = request.getfixturevalue("server") if forked else None
        return place

    def test_a_job_has_its_streams_folder_environment_and_end(
        self, folder: Path, place: Path | None, forked: bool
    ) -> None:
        for _ in range(2):
            assert begin(folder, *job("tell", "a b"), server=place, OWN="é\n").wait() == 0
            said = log(folder).splitlines()
            assert said == ["out of __main__ ['tell', 'a b']", "to the other stream", "at exit"]
            told = json.loads((folder / "told.json").read_text())
            assert told["folder"] == told["path"] == str(folder) and told["own"] == "é\n"
            assert told["loaded"] == forked
            assert told["open"] <= 5  # streams, and the listing itself: nothing of the server's

    def test_what_it_took_is_written_where_it_has_ended_well(
        self, folder: Path, place: Path | None, forked: bool
    ) -> None:
        assert begin(folder, *job("work"), server=place).wait() == 0
        found = taken(folder)
        assert found.keys() == {"s", "cpu_time", "max_rss"}
        assert 0.5 <= found["cpu_time"] < 5 and found["s"] >= found["cpu_time"] * 0.9
        assert 64 < found["max_rss"] < 600

    @pytest.mark.parametrize(
        ("what", "code", "said"),
        [("fail", 1, "ValueError: a fault"), ("exit", 75, "at exit"), ("die", 137, "out of")],
    )
    def test_its_exit_code_is_passed_on(
        self, folder: Path, place: Path | None, forked: bool, what: str, code: int, said: str
    ) -> None:
        assert begin(folder, *job(what), server=place).wait() == code
        assert said in log(folder)
        assert not (folder / "benchmarks").exists()

    def test_it_may_save_before_it_stops(
        self, folder: Path, place: Path | None, forked: bool
    ) -> None:
        process = begin(folder, *job("save"), server=place)
        until((folder / "ready").exists)
        process.terminate()
        assert process.wait() == 75 and "saved" in log(folder)


def test_a_job_dies_with_whoever_waits_for_it(folder: Path, server: Path) -> None:
    process = begin(folder, *job("wait"), server=server)
    until(lambda: (folder / "ready").exists() and (folder / "ready").read_text())
    number = int((folder / "ready").read_text())
    assert Path(f"/proc/{number}/comm").read_text().strip() == "geomem.picks"
    process.kill()
    until(lambda: not psutil.pid_exists(number))


def test_jobs_die_with_the_server_and_those_after_it_start_by_themselves(folder: Path) -> None:
    address = folder / "jobs"
    with serve(folder, address) as process:
        waiting = begin(folder, *job("wait"), server=address)
        until(lambda: (folder / "ready").exists() and (folder / "ready").read_text())
        for ignored in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(ignored)
        assert process.poll() is None
        process.kill()
        assert waiting.wait() == 1
        assert "error: the fork server that had started this job was killed" in log(folder)
        number = int((folder / "ready").read_text())
        until(lambda: not psutil.pid_exists(number))
    assert begin(folder, *job("tell"), server=address).wait() == 0
    assert not json.loads((folder / "told.json").read_text())["loaded"]


@pytest.mark.parametrize(
    "variables", [{"HF_HUB_OFFLINE": "0"}, {"PYTHONHASHSEED": "3"}, {"OMP_NUM_THREADS": "2"}]
)
def test_a_job_with_what_an_interpreter_starts_with_is_not_the_servers(
    folder: Path, server: Path, variables: dict[str, str]
) -> None:
    assert begin(folder, *job("tell"), server=server, **variables).wait() == 0
    assert not json.loads((folder / "told.json").read_text())["loaded"]


def test_a_library_that_is_missing_stops_no_other_job(folder: Path) -> None:
    path = folder / "geomem/forkserver.py"
    libraries = path.read_text().replace(
        '"geomem.clips": (', '"geomem.clips": ("no_such_library", '
    )
    path.write_text(libraries)
    shutil.copytree(folder / "geomem/picks", folder / "geomem/clips")
    address = folder / "jobs"
    with serve(folder, address) as process:
        waiting = begin(folder, *job("save"), server=address)
        until((folder / "ready").exists)
        lacking = begin(folder, "python", "-m", "geomem.clips", "tell", server=address)
        assert lacking.wait() == 0 and not json.loads((folder / "told.json").read_text())["loaded"]
        waiting.terminate()
        assert waiting.wait() == 75
        process.kill()


def test_other_commands_are_run_too_and_one_that_is_not_there_is_told(
    folder: Path, server: Path
) -> None:
    assert begin(folder, "echo", "hello", server=server).wait() == 0
    assert log(folder) == "hello\n"
    assert begin(folder, "no-such-command", server=server).wait() == 127
    assert log(folder) == "error: no-such-command: No such file or directory\n"


def test_jobs_do_not_wait_for_each_other(folder: Path, server: Path) -> None:
    waiting = begin(folder, *job("wait"), server=server)
    until((folder / "ready").exists)
    assert begin(folder, *job("tell"), server=server).wait() == 0
    waiting.kill()


def test_libraries_are_of_stages_that_are_there_and_none_is_the_projects_own() -> None:
    package = Path(forkserver.__file__).parent
    for stage, libraries in forkserver.LIBRARIES.items():
        assert (package / stage.removeprefix("geomem.") / "__main__.py").is_file()
        assert not any(name.startswith("geomem") for name in libraries)
