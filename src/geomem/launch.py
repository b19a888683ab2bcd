"""`python -m geomem.launch LOG COMMAND...`: run a job of the workflow and write down what it took.

What a job says is in `logs/<job>.log`, what it took in `benchmarks/jobs/<job>.tsv`: seconds (`s`),
CPU seconds of all its processes (`cpu_time`) and the peak memory of the largest one in MiB
(`max_rss`). Snakemake's own `benchmark` looks at the processes below the one that it starts, every
so often, so it misses what `geomem.forkserver` starts, and short jobs.

A command `python -m geomem.<stage> ...` is started by the fork server where one is there; nothing
but its start differs. Signals are passed on, and a job's exit status is this process's own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

# Nothing heavy may be imported here: this is what each job of a run with the fork server costs.

SOCKET = "GEOMEM_FORKSERVER"  # environment variable: where the fork server listens
PASSED_ON = (signal.SIGTERM, signal.SIGINT)
# What the server inherited when it was started, so that jobs with other values cannot be its own.
# Snakemake sets the threads of libraries, here those of a job with one thread.
AT_START = ("PYTHON", "LD_", "MPLBACKEND", "HF_", "TRANSFORMERS_", "TORCH_")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Usage = tuple[float, float]  # CPU seconds, peak MiB


def main() -> None:
    """Run the command of the arguments."""
    if len(sys.argv) < 3:
        raise SystemExit("usage: python -m geomem.launch LOG COMMAND...")
    log, command = Path(sys.argv[1]), sys.argv[2:]
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with log.open("wb") as output:
        done = _by_server(command, output.fileno()) or _by_itself(command, output.fileno())
    status, (cpu, memory) = done
    if status == 0:
        _write(benchmark_of(log), time.monotonic() - begun, cpu, memory)
    raise SystemExit(status)


def benchmark_of(log: Path) -> Path:
    """Return where what a job took is written, by its log."""
    below = log.relative_to("logs") if log.parts[0] == "logs" else Path(log.name)
    return Path("benchmarks/jobs") / below.with_suffix(".tsv")


def inherited(environment: dict[str, str]) -> dict[str, str]:
    """Return the variables that count when an interpreter starts and libraries are loaded."""
    return {
        key: value
        for key, value in environment.items()
        if key.startswith(AT_START) or key in THREADS
    }


def exit_code(status: int) -> int:
    """Return the exit code of a status of `wait`, as a shell tells it."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _by_itself(command: Sequence[str], output: int) -> tuple[int, Usage]:
    """Run a command as a process of its own; return its exit code and what it used."""
    try:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    except OSError as error:
        os.write(output, f"error: {command[0]}: {error.strerror}\n".encode())
        return 127, (0.0, 0.0)
    _pass_on(process.send_signal)
    _, status, used = os.wait4(process.pid, 0)
    return exit_code(status), (used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _by_server(command: Sequence[str], output: int) -> tuple[int, Usage] | None:
    """Run a stage's command by the fork server; None where there is none that can."""
    address = os.environ.get(SOCKET)
    if not address or command[:2] != ["python", "-m"]:
        return None
    request = {
        "executable": sys.executable,
        "inherited": inherited(dict(os.environ)),
        "module": command[2],
        "arguments": command[3:],
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
    }
    words = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
            socket.send_fds(server, [len(words).to_bytes(8, "big")], [0, output, output])
            server.sendall(words)
            replies = server.makefile("rb")
            started = replies.readline()  # after the libraries are loaded
        except OSError:
            return None
        if not started:  # a server with other libraries or another environment
            return None
        job = int(started)

        def tell(number: int) -> None:
            with suppress(ProcessLookupError):
                os.kill(job, number)

        _pass_on(tell)
        ended = replies.readline()
    if not ended:
        os.write(output, b"error: the fork server that had started this job was killed\n")
        return 1, (0.0, 0.0)
    told = json.loads(ended)
    return exit_code(told["status"]), (told["cpu"], told["memory"])


def _pass_on(send: Callable[[int], None]) -> None:
    """Let the job decide what signals mean: it may save its state first."""

    def handler(number: int, frame: FrameType | None) -> None:
        send(number)

    for number in PASSED_ON:
        signal.signal(number, handler)


def _write(path: Path, seconds: float, cpu: float, memory: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\tcpu_time\tmax_rss\n{seconds:.4f}\t{cpu:.2f}\t{memory:.1f}\n")


if __name__ == "__main__":
    main()
