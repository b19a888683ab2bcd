"""An MLflow server on loopback with its own PostgreSQL in a folder, for many writers.

PostgreSQL comes from the distribution, listens on a socket in a private folder alone, and runs as
its own user where this process is root, which it refuses to be. Whatever of the two dies is started
again; both end with this process, however it ends.
"""

import argparse
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geomem.errors import InputError

FOLDER = Path("data/tracking")
PORT = 5000
INSTALLED = Path("/usr/lib/postgresql")  # where Debian keeps its versions
ACCOUNT = "postgres"  # whom the distribution's package makes
READY = 90  # seconds either may take to answer
HEALTHY = 10  # seconds after which a death is an accident
ATTEMPTS = 4  # deaths before that, one after the other, which are a fault in the set-up
Start = Callable[[], subprocess.Popen[bytes]]


def find_program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs; Debian keeps them out of PATH."""
    if found := shutil.which(name):
        return found
    installed = sorted(INSTALLED.glob(f"*/bin/{name}"), key=lambda p: float(p.parts[-3]))
    if not installed:
        raise InputError("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    return str(installed[-1])


def as_account() -> list[str]:
    """Return the words before a command of PostgreSQL: it must not run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--init-groups"]


def own(folder: Path) -> Path:
    """Make a private folder that PostgreSQL's user owns and can reach; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        account = pwd.getpwnam(ACCOUNT)
        os.chown(folder, account.pw_uid, account.pw_gid)
        reach = [*as_account(), "test", "-w", str(folder)]
        if subprocess.run(reach, check=False).returncode:
            raise InputError(
                f"{folder} cannot be reached by the user {ACCOUNT}, as whom PostgreSQL runs where "
                "you are root; choose another with --folder, or start the server as another user"
            )
    return folder


def create_cluster(data: Path) -> None:
    """Make PostgreSQL's data folder, as a whole or not at all."""
    if (data / "PG_VERSION").exists():
        return
    fresh = own(data.with_name(data.name + ".new"))
    for path in fresh.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    initdb = [*as_account(), find_program("initdb"), "-D", str(fresh), "-U", "geomem"]
    _call([*initdb, "-E", "UTF8", "--locale=C", "--auth=trust"])
    fresh.replace(data)


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise InputError(f"{Path(command[-1]).name}: {lines[-1]} (command: {' '.join(command)})")


def _spawn(command: list[str], log: Path, *, account: bool, end: str) -> subprocess.Popen[bytes]:
    """Start a child that gets the signal `end` when this process ends, however that is."""
    words = (as_account() if account else []) or ["setpriv"]
    words = [*words, f"--pdeathsig={end}", *command]
    # MLflow would otherwise start seven workers for jobs that nobody sends
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("ab") as output:
        return subprocess.Popen(
            words, stdout=output, stderr=output, start_new_session=True, env=environment
        )


class Service:
    """A child that is started again when it dies.

    Attributes:
        process: The present one.
    """

    def __init__(self, name: str, start: Start, *, log: Path, stop: signal.Signals) -> None:
        """Start it."""
        self.name, self._start, self._log, self._stop = name, start, log, stop
        self.process = start()
        self._since = time.monotonic()
        self._failed = 0

    def look_after(self) -> None:
        """Start it again if it has died; InputError if it never comes up."""
        if self.process.poll() is None:
            return
        early = time.monotonic() - self._since < HEALTHY
        self._failed = self._failed + 1 if early else 0
        if self._failed == ATTEMPTS:
            raise InputError(f"{self.name} ends as soon as it is started; see {self._log}")
        print(f"{self.name} has died and is started again", flush=True)
        # what it has left behind holds its port or its memory
        self._signal(signal.SIGKILL)
        time.sleep(1)
        self.process, self._since = self._start(), time.monotonic()

    def end(self) -> None:
        """Stop it and its children."""
        self._signal(self._stop)
        try:
            self.process.wait(READY)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def _await(ready: Callable[[], bool], service: Service, stopped: list[int]) -> None:
    deadline = time.monotonic() + READY
    while not ready() and not stopped:
        service.look_after()
        if time.monotonic() > deadline:
            raise InputError(f"{service.name} does not answer after {READY} s")
        time.sleep(0.2)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def serve(folder: Path, port: int) -> None:
    """Run both until SIGINT or SIGTERM."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{port}"
    if _healthy(address):
        raise InputError(f"something answers at {address} already; choose another --port")
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, frame: stopped.append(got))
    data = folder / "postgres"
    create_cluster(data)
    # its own short path: a socket's must stay below 108 bytes
    socket = own(Path(tempfile.mkdtemp(prefix="geomem-postgres-")))
    services: list[Service] = []
    try:
        services.append(_database(folder, data, socket))
        probe = [find_program("pg_isready"), "-q", "-h", str(socket)]
        _await(lambda: subprocess.run(probe, check=False).returncode == 0, services[0], stopped)
        uri = f"postgresql+psycopg2://geomem@/postgres?host={socket}"
        # once, before several workers find an empty database
        _call([sys.executable, "-m", "mlflow", "db", "upgrade", uri])
        services.append(_mlflow(folder, uri, port))
        _await(lambda: _healthy(address), services[1], stopped)
        print(f"tracking server at {address}, data in {folder}; Ctrl-C stops it", flush=True)
        while not stopped:
            for service in services:
                service.look_after()
            time.sleep(0.5)
    finally:
        for service in reversed(services):
            service.end()
        shutil.rmtree(socket, ignore_errors=True)


def _database(folder: Path, data: Path, socket: Path) -> Service:
    command = [find_program("postgres"), "-D", str(data), "-k", str(socket)]
    command += ["-c", "listen_addresses="]
    log = folder / "postgres.log"
    # SIGINT is PostgreSQL's fast shutdown
    return Service(
        "PostgreSQL",
        lambda: _spawn(command, log, account=True, end="INT"),
        log=log,
        stop=signal.SIGINT,
    )


def _mlflow(folder: Path, uri: str, port: int) -> Service:
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    log = folder / "mlflow.log"
    return Service(
        "MLflow",
        lambda: _spawn(command, log, account=False, end="TERM"),
        log=log,
        stop=signal.SIGTERM,
    )


def server(args: argparse.Namespace) -> None:
    """Run an MLflow server on loopback with its own PostgreSQL until stopped."""
    serve(args.folder, args.port)


def add_commands(commands: Any) -> None:
    """Add `server` to `geomem track`."""
    command = commands.add_parser("server", help=server.__doc__)
    command.add_argument("--folder", type=Path, default=FOLDER, help=f"its data ({FOLDER})")
    command.add_argument("--port", type=int, default=PORT, help=f"on loopback ({PORT})")
    command.set_defaults(command=server)
