"""A real MLflow server with a real PostgreSQL, many writers, and both killed in the middle."""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import wait_for
from geomem.commands.tracking import finished_runs, spools, upload
from geomem.commands.tracking_store import LIVE, TAG, Store
from geomem.config import load_config
from tracked import assert_complete, finish, fork, histories, join, spool_steps

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("impatient")]
RUNS, STEPS, PART, WRITERS = 64, 400, 25, 4
GEOMEM = str(Path(sys.executable).with_name("geomem"))


class Server:
    """`geomem track server` in a folder that PostgreSQL's user can reach."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [GEOMEM, "track", "server", "--folder", self.folder, "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith(f"tracking server at {self.uri}"), line

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def children(self) -> list[int]:
        """Return the processes of both services, those of their children among them."""
        listed = subprocess.run(
            ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
        )
        ours = (str(self.folder), f"--port {self.port}")
        lines = [line.split(maxsplit=1) for line in listed.stdout.splitlines()[1:]]
        return [
            int(pid)
            for pid, words in lines
            if any(word in words for word in ours) and int(pid) != self.process.pid
        ]

    def kill(self, program: str) -> None:
        """Kill one service, as the kernel does when memory runs out."""
        log = self.folder / "postgres/postmaster.pid"
        if program == "postgres":
            os.kill(int(log.read_text().split()[0]), signal.SIGKILL)
            return
        for pid in self.children():
            if "mlflow" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    assert shutil.which("setpriv"), "util-linux is missing"
    # pytest's own folders are closed to PostgreSQL's user where root runs the tests
    folder = Path(tempfile.mkdtemp(prefix="geomem-tracking-"))
    folder.chmod(0o755)
    made = Server(folder / "server")
    yield made
    made.stop()
    assert made.children() == []
    shutil.rmtree(folder)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client does not try for minutes."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


def bring(root: Path) -> str:
    """Upload a project's runs once; return why it failed."""
    config = load_config(root)
    return upload(
        config, root, finished=finished_runs(root, "smoke"), live=spools(root, "smoke")
    ).reason


def clean(uri: str) -> None:
    """Take away what an earlier test has logged."""
    from mlflow import MlflowClient

    Store(uri, "geomem")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("geomem")
    assert experiment is not None
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        client.delete_run(run.info.run_id)


def test_64_runs_lose_no_metric_while_both_services_are_killed(
    server: Server, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    clean(server.uri)
    command = [GEOMEM, "track", "follow", "--root", project, "--parent", str(os.getpid())]
    follower = subprocess.Popen([*command, "--interval", "1"])
    written = multiprocessing.Value("i")

    def write(runs: range) -> None:
        """Write the spools of some runs together, a part of each at a time."""
        for first in range(0, STEPS, PART):
            for number in runs:
                spool_steps(project, number, range(first, first + PART))
                with written:
                    written.value += 1
            time.sleep(1)

    writers = fork(WRITERS, lambda worker: write(range(worker, RUNS, WRITERS)))
    for program, share in (("postgres", 0.25), ("mlflow", 0.6)):
        enough = RUNS * STEPS // PART * share
        wait_for(
            lambda enough=enough: written.value > enough,
            f"{share} of all to be written",
            seconds=120,
        )
        server.kill(program)
    join(writers)
    follower.send_signal(signal.SIGTERM)
    follower.wait(300)
    wait_for(lambda: bring(project) == "", "both services", seconds=300, pause=1)
    assert_complete(histories(server.uri, LIVE), RUNS, STEPS)


def test_runs_of_a_time_without_a_server_come_later_and_once(
    server: Server, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    clean(server.uri)
    server.stop()
    assert server.children() == []
    for number in range(4):
        finish(project, number, STEPS)
    assert bring(project) != ""
    server.start()  # on the same data
    for _ in range(2):
        assert bring(project) == ""
    assert_complete(histories(server.uri, TAG), 4, STEPS)


def test_nothing_of_a_killed_server_is_left_but_its_data(
    server: Server, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    clean(server.uri)
    finish(project, 0, STEPS)
    assert bring(project) == ""
    server.process.kill()
    server.process.wait()
    deadline = time.monotonic() + 60
    while server.children():
        assert time.monotonic() < deadline, server.children()
        time.sleep(0.2)
    server.start()
    assert_complete(histories(server.uri, TAG), 1, STEPS)
