"""What ends a run early: SIGTERM, after which it goes on later, and a lack of memory."""

import signal
from collections.abc import Callable

from geomem.errors import InputError

# EX_TEMPFAIL of sysexits.h: "the user is invited to try again"
EXIT_RESUMABLE = 75


class StoppedError(InputError):
    """The run has ended before its last step; the next one goes on from the newest state."""


def listen_for_sigterm() -> Callable[[], bool]:
    """Catch SIGTERM from now on; return whether it has come.

    Slurm sends it some seconds before a time limit (`--signal`), and before preemption.
    """
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    return lambda: bool(received)


def ignore_sigterm(worker: int) -> None:
    """Leave SIGTERM to the trainer: a loader's worker that dies of it would stop the last step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
