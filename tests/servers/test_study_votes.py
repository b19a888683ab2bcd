"""Votes of a preference study in a real PostgreSQL, which is killed between them."""

import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from conftest import told, wait_for
from geomem.commands.tracking_server import as_account, create_cluster, find_program, own
from geomem.study.votes import Votes

pytestmark = pytest.mark.server
ANSWERS = {"camera": "left", "objects": "tie", "scene": "right", "overall": "left"}
METHODS = ("alpha", "beta")


class Database:
    """A cluster of PostgreSQL that listens at a socket alone."""

    def __init__(self, folder: Path) -> None:
        self.data, self.socket = folder / "data", own(Path(tempfile.mkdtemp(prefix="geomem-pg-")))
        create_cluster(self.data)
        self.address = f"postgresql+psycopg2://geomem@/postgres?host={self.socket}"
        self.start()

    def start(self) -> None:
        command = [find_program("postgres"), "-D", str(self.data), "-k", str(self.socket)]
        self.process = subprocess.Popen(
            [*as_account(), *command, "-c", "listen_addresses="], stderr=subprocess.DEVNULL
        )
        wait_for(self._ready, "PostgreSQL to start", seconds=60)

    def _ready(self) -> bool:
        asked = [find_program("pg_isready"), "-q", "-h", str(self.socket), "-U", "geomem"]
        return subprocess.run(asked).returncode == 0

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(60)


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    # pytest's own folders are closed to PostgreSQL's user where root runs the tests
    folder = Path(tempfile.mkdtemp(prefix="geomem-votes-"))
    folder.chmod(0o755)
    made = Database(folder)
    yield made
    made.end(signal.SIGINT)
    shutil.rmtree(folder)
    shutil.rmtree(made.socket)


def test_votes_are_counted_once_and_survive_a_kill(database: Database) -> None:
    votes = Votes(database.address, "study")
    added: list[bool] = []

    def vote() -> None:
        added.append(votes.add("rater", "first", METHODS, ANSWERS))

    threads = [threading.Thread(target=vote) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == [False] * 7 + [True]
    database.end(signal.SIGQUIT)  # stops at once and recovers at the next start
    with pytest.raises(SQLAlchemyError):
        votes.add("rater", "second", METHODS, ANSWERS)
    database.start()
    assert votes.add("rater", "second", METHODS, ANSWERS)
    assert votes.done("rater") == {"first", "second"}
    assert [each.answers for each in votes.all()] == [ANSWERS] * 2
    votes.close()


def test_a_database_of_another_study_is_refused(database: Database) -> None:
    Votes(database.address, "study").close()
    told(lambda: Votes(database.address, "other"), "another study")
