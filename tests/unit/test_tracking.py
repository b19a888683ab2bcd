"""Many jobs spool, one process mirrors: nothing is lost, doubled, or stopped by a broken store."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import edit_yaml, told
from geomem.commands.main import main
from geomem.commands.tracking_store import LIVE, TAG, Store
from geomem.formats.spools import Spool, read_spool, spool_header
from tracked import (
    METRICS,
    assert_complete,
    entry_of,
    finish,
    fork,
    header_of,
    histories,
    identity_of,
    join,
    made_by,
    mirrored,
    score,
    spool_of,
    spool_steps,
)

RUNS, STEPS, WRITERS = 64, 5, 4
GEOMEM = str(Path(sys.executable).with_name("geomem"))


def upload(project: Path) -> None:
    main(["track", "upload", "--root", str(project)])


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that MLflow has made, which takes it seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    Store(f"sqlite:///{path}", "geomem")
    return path


@pytest.fixture
def sqlite(project: Path, empty_store: Path) -> str:
    """The address of an empty store, which the project's configuration names."""
    shutil.copy2(empty_store, project / "mlflow.db")
    uri = f"sqlite:///{project / 'mlflow.db'}"
    edit_yaml(project / "config/config.yaml", tracking__uri=uri)
    return uri


def nobody_listens() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.long
def test_64_runs_lose_no_metric_and_a_second_upload_doubles_none(
    project: Path, sqlite: str
) -> None:
    command = [GEOMEM, "track", "follow", "--interval", "0.2"]
    follower = subprocess.Popen([*command, "--root", str(project)], stderr=subprocess.PIPE)

    def write(worker: int) -> None:
        for step in range(STEPS):
            for number in range(worker, RUNS, WRITERS):
                spool_steps(project, number, range(step, step + 1))
            time.sleep(0.3)

    join(fork(WRITERS, write))
    end = time.monotonic() + 120
    while not histories(sqlite, LIVE):  # a busy machine may not have started it yet
        assert time.monotonic() < end
        time.sleep(0.2)
    follower.send_signal(signal.SIGTERM)
    _, errors = follower.communicate(timeout=120)
    assert follower.returncode == 0 and b"warning" not in errors
    assert_complete(histories(sqlite, LIVE), RUNS, STEPS)
    upload(project)
    assert_complete(histories(sqlite, LIVE), RUNS, STEPS)


def test_a_finished_run_takes_the_place_of_its_spool_and_grows_with_its_scores(
    project: Path, sqlite: str
) -> None:
    spool_steps(project, 0, range(2))
    upload(project)
    assert next(iter(histories(sqlite, LIVE).values()))["loss"] == [(0, 0.0), (1, 0.01)]
    finish(project, 0, STEPS)
    upload(project)
    assert histories(sqlite, LIVE) == {}
    assert_complete(histories(sqlite, TAG), 1, STEPS)
    score(project, 0, "spin", 20.0)
    upload(project)
    upload(project)
    logged = next(iter(histories(sqlite, TAG).values()))
    assert logged["spin.psnr"] == [(0, 21.0)]
    assert logged["spin.kernel_distance"] == [(0, 200.0)] and "spin.frechet" not in logged
    assert_complete(histories(sqlite, TAG), 1, STEPS)
    score(project, 0, "spin", 30.0)  # scored anew: the old value must not stay beside it
    upload(project)
    assert next(iter(histories(sqlite, TAG).values()))["spin.psnr"] == [(0, 31.0)]
    assert_complete(histories(sqlite, TAG), 1, STEPS)


def test_an_upload_cut_short_is_made_whole_by_the_next(
    project: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    checkpoint = finish(project, 0, STEPS)
    log_batch = MlflowClient.log_batch

    def cut(self: MlflowClient, run_id: str, metrics: object = (), **others: object) -> None:
        log_batch(self, run_id, metrics=list(metrics)[:7], **others)
        if metrics:
            raise ConnectionError("the wire was cut")

    output = project / "mirror.json"
    command = ["mirror", str(output), "--root", str(project)]
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", cut)
        main(command)
    assert mirrored(output)["pending"] == [str(checkpoint)]
    main(command)
    assert mirrored(output)["pending"] == [] and len(mirrored(output)["runs"]) == 1
    assert_complete(histories(sqlite, TAG), 1, STEPS)


def test_without_a_server_the_workflow_goes_on_and_a_later_upload_brings_all(
    project: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody_listens())
    checkpoint = finish(project, 0, STEPS)
    output = project / "mirror.json"
    main(["mirror", str(output), "--root", str(project)])
    assert mirrored(output)["pending"] == [str(checkpoint)]
    assert "1 runs are not in http://127.0.0.1" in capfd.readouterr().err
    with pytest.raises(SystemExit, match="geomem track upload"):
        upload(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # the configuration names a store that is there
    upload(project)
    assert_complete(histories(sqlite, TAG), 1, STEPS)


def test_a_damaged_store_stops_nothing(project: Path, sqlite: str) -> None:
    (project / "mlflow.db").write_bytes(b"no database" * 100)
    checkpoint, output = finish(project, 0, STEPS), project / "mirror.json"
    main(["mirror", str(output), "--root", str(project)])
    assert mirrored(output)["pending"] == [str(checkpoint)]


def test_a_resumed_job_goes_on_with_its_spool_and_another_begins_anew(tmp_path: Path) -> None:
    spool_steps(tmp_path, 0, range(3))
    path = spool_of(tmp_path, 0)
    with path.open("a") as file:
        file.write('{"step": 3.0, "lo')  # killed while it wrote
    spool_steps(tmp_path, 0, range(2, 4))
    header, entries, _ = read_spool(path)
    assert header["variant"] == "v0"
    assert [entry["step"] for entry in entries] == [0, 1, 2, 2, 3]
    other = spool_header(identity_of(0), {**made_by(0), "settings": {"job": "other"}})
    Spool(path, other).write(entry_of(0, 0))
    header, entries, _ = read_spool(path)
    assert header["settings"] == {"job": "other"} and len(entries) == 1


def test_a_spool_is_read_on_from_where_the_reader_was_and_by_whole_lines(tmp_path: Path) -> None:
    spool_steps(tmp_path, 0, range(2))
    path = spool_of(tmp_path, 0)
    _, entries, offset = read_spool(path)
    assert len(entries) == 2
    with path.open("a") as file:
        file.write('{"step": 2.0, ')
    assert read_spool(path, offset)[1:] == ([], offset)
    with path.open("a") as file:
        file.write('"loss": 1.0}\n')
    assert read_spool(path, offset)[1] == [{"step": 2.0, "loss": 1.0}]
    assert read_spool(tmp_path / "none") == ({}, [], 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has /dev/full")
def test_a_full_disk_ends_the_spool_and_not_the_job(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "metrics.jsonl", header_of(0))
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    spool.write(entry_of(0, 0))
    spool.write(entry_of(0, 1))
    Spool(Path("/proc/none/metrics.jsonl"), header_of(0)).write(entry_of(0, 0))
    assert set(entry_of(0, 0)) == {"step", *METRICS}


def test_a_follower_ends_with_the_process_that_started_it_after_a_last_look(
    project: Path, sqlite: str
) -> None:
    spool_steps(project, 0, range(STEPS))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [GEOMEM, "track", "follow", "--parent", str(gone.pid), "--root", str(project)]
    subprocess.run(command, check=True, timeout=120)
    assert_complete(histories(sqlite, LIVE), 1, STEPS)


def test_a_missing_postgresql_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from geomem.commands import tracking_server

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(tracking_server, "INSTALLED", Path("/nowhere"))
    told(lambda: tracking_server.find_program("postgres"), "apt-get install postgresql")
