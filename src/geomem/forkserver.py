"""Start jobs from a process that has the large libraries loaded, on a machine without a GPU.

PyTorch and Diffusers take 6 CPU seconds to import, most jobs of the scales `smoke` and `tiny` no
more than one to work. The server imports what a stage needs when its first job comes, and forks for
every job: a child is a process as any other (its own memory, seeds, signals, exit status), with
the libraries in it and nothing of the project's own. It ends with the Snakemake that started it,
and its jobs with it.

The protocol, over a socket that only its user can reach: `geomem.launch` sends its length (8 bytes,
with the descriptors of standard input, output and error), a request (JSON); it gets the job's
process id in a line, and in another, when it has ended, its status and what it used. A request that
cannot be served as a process of its own would be is closed without a word.
"""

import atexit
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from runpy import run_module
from subprocess import PIPE, Popen
from tempfile import mkdtemp
from typing import Any

from geomem.launch import SOCKET, THREADS, inherited

# Third-party modules that the jobs of a stage import: never the project's own, whose files may
# change while a run goes on, nor what starts threads.
SETTINGS = ("numpy", "pydantic.main", "pydantic.types", "yaml", "safetensors.numpy")
NETWORKS = (*SETTINGS, "scipy.stats", "torch", "diffusers.models.modeling_utils")
LIBRARIES = {
    "geomem.clips": (*SETTINGS, "torch"),
    "geomem.features": NETWORKS,
    "geomem.paper": (*SETTINGS, "pandas", "matplotlib.figure", "seaborn", "jinja2"),
    "geomem.picks": SETTINGS,
    "geomem.rollouts": NETWORKS,
    "geomem.scores": NETWORKS,
    "geomem.teacher": NETWORKS,
    "geomem.training": (*NETWORKS, "accelerate", "diffusers.training_utils"),
}
# Nodes that compute have no way to the hub; Diffusers reads these when it is imported.
OFFLINE = "HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1"
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
PATIENCE = 10.0  # seconds that a request may take to arrive

_server: "Popen[bytes] | None" = None  # kept, as its standard input would close otherwise


@dataclass(frozen=True)
class Request:
    """A job: its module and arguments, and what surrounds it."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    descriptors: list[int]


@dataclass(frozen=True)
class Running:
    """A job that runs: its process, a descriptor that tells its end, and who waits for it."""

    process: int
    ending: int
    client: socket.socket


def start(log: Path) -> None:
    """Start a server that ends with this process, whose jobs find it by the environment; what it
    starts is in its log.

    Does nothing where it would not help: beside a GPU a job does not take seconds, and CUDA cannot
    be used in a fork of a process that has looked for it; elsewhere than on Linux there is no
    descriptor of a process.
    """
    if sys.platform != "linux" or any(Path("/dev").glob("nvidia[0-9]*")):
        return
    global _server
    address = Path(mkdtemp(prefix="geomem-jobs-")) / "socket"
    os.environ[SOCKET] = str(address)
    variables = dict(given.split("=") for given in OFFLINE.split()) | dict.fromkeys(THREADS, "1")
    variables["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")  # as jobs set it
    log.parent.mkdir(parents=True, exist_ok=True)
    # It listens from now on: jobs that come before the server runs wait for it.
    with listen(address) as listener, log.open("w", encoding="utf-8") as said:
        _server = Popen(
            [sys.executable, "-m", "geomem.forkserver", str(address), str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdin=PIPE,  # never written: it closes when this process ends
            stdout=said,
            stderr=said,
            env={**os.environ, **variables},
        )


def listen(address: Path) -> socket.socket:
    """Return a socket that listens at a path, in a folder of the user's own."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen(64)
    return listener


class Server:
    """What waits for jobs and forks for each."""

    def __init__(self, address: Path, listener: socket.socket) -> None:
        """Serve at an address by the socket that listens there."""
        self.address, self.listener = address, listener
        self.running: dict[int, Running] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(0, selectors.EVENT_READ)

    def serve(self) -> Request | None:
        """Return a request in each child, which is to run it, and None when all is over."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj == 0:
                    self._end()
                    return None
                if key.fileobj is self.listener:
                    request = self._accept()
                    if request is not None:
                        return request
                elif isinstance(key.data, Running):
                    self._finish(key.data)

    def _accept(self) -> Request | None:
        """Start a job; return its request in the child."""
        client, _ = self.listener.accept()
        client.settimeout(PATIENCE)
        try:
            request = _receive(client)
        except (OSError, ValueError):
            request = None
        if request is None:
            client.close()
            return None
        try:
            for library in LIBRARIES[request.module]:
                import_module(library)
            gc.freeze()  # a collection in the child would touch, and so copy, all of their memory
            process = os.fork()
        except (ImportError, OSError) as error:
            # other jobs go on, and this one, started by itself, says what it lacks
            print(f"no fork for {request.module}: {error}", flush=True)
            for descriptor in request.descriptors:
                os.close(descriptor)
            client.close()
            return None
        if process == 0:
            self._leave()
            client.close()
            return request
        for descriptor in request.descriptors:
            os.close(descriptor)
        running = Running(process, os.pidfd_open(process), client)
        self.running[process] = running
        # its end, and that of whoever waits for it
        self.selector.register(running.ending, selectors.EVENT_READ, running)
        self.selector.register(client, selectors.EVENT_READ, running)
        with suppress(OSError):
            client.sendall(f"{process}\n".encode())
        print(process, request.module, *request.arguments, flush=True)
        return None

    def _finish(self, job: Running) -> None:
        """Tell how a job has ended; one that nobody waits for any more is killed."""
        if job.process not in self.running:  # both of its events came at once
            return
        del self.running[job.process]
        self.selector.unregister(job.ending)
        self.selector.unregister(job.client)
        signal.pidfd_send_signal(job.ending, signal.SIGKILL)  # it may have ended
        _, status, used = os.wait4(job.process, 0)
        told = {
            "status": status,
            "cpu": used.ru_utime + used.ru_stime,
            "memory": used.ru_maxrss / 1024,
        }
        with suppress(OSError):
            job.client.sendall(json.dumps(told).encode() + b"\n")
        job.client.close()
        os.close(job.ending)

    def _leave(self) -> None:
        """Close in a child what is the server's."""
        self.selector.close()
        self.listener.close()
        for job in self.running.values():
            os.close(job.ending)
            job.client.close()

    def _end(self) -> None:
        """End the jobs of a Snakemake that was killed, and remove the socket."""
        for job in list(self.running.values()):
            self._finish(job)
        with suppress(OSError):
            self.address.unlink()
            self.address.parent.rmdir()


def _receive(client: socket.socket) -> Request | None:
    """Read a request; None if it is for another interpreter or stage."""
    head, descriptors, _, _ = socket.recv_fds(client, 8, 3)
    try:
        length = int.from_bytes(head, "big")
        words = bytearray()
        while len(words) < length:
            part = client.recv(length - len(words))
            if not part:
                raise OSError("it ended early")
            words += part
        told: dict[str, Any] = json.loads(words)
        same = told["executable"] == sys.executable
        same = same and told["inherited"] == inherited(dict(os.environ))
        if same and told["module"] in LIBRARIES and len(descriptors) == 3:
            return Request(
                told["module"],
                told["arguments"],
                told["environment"],
                told["folder"],
                descriptors,
            )
    except (OSError, ValueError, KeyError):
        pass
    for descriptor in descriptors:
        os.close(descriptor)
    return None


def _become(request: Request) -> None:
    """Run a job as its own process would: its streams, signals, environment and arguments."""
    for target, descriptor in enumerate(request.descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request.environment)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends with the server
    os.chdir(request.folder)
    sys.path[0] = request.folder  # as `python -m` has it
    with suppress(OSError):  # its name in lists of processes
        Path("/proc/self/comm").write_text(request.module)
    sys.argv[1:] = request.arguments
    code = 0
    try:
        run_module(request.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    # As `multiprocessing` ends its processes: executors are told to stop, threads are waited for.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # The interpreter would take every object of the libraries apart: as long as importing them.
    os._exit(code)


def main() -> None:
    """Serve at the address, by the descriptor of its socket, until standard input closes."""
    # those that come from a terminal or a batch system reach the jobs themselves
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    request = Server(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))).serve()
    if request is not None:
        _become(request)


if __name__ == "__main__":
    main()
