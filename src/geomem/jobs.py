"""What all commands share: arguments, device, checked settings, one-line errors, progress."""

import argparse
import difflib
import errno
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

from geomem.config import Config, JobSettings, load_config
from geomem.errors import InputError
from geomem.metrics.registry import FAMILIES
from geomem.registry.strict import Strict

Command = Callable[[argparse.Namespace], None]
S = TypeVar("S", bound=Strict)


def job_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the arguments of every workflow job."""
    parser.add_argument("--root", default=".", help="root of the project (default: here)")
    parser.add_argument("--scale", help="scale (default: the one config/config.yaml names)")
    parser.add_argument(
        "--expect", help="digest of the settings the workflow planned this job with"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    return parser


def device_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the arguments of a workflow job that runs networks."""
    job_parser(parser).add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)"
    )
    return parser


def job_device(args: argparse.Namespace) -> Any:
    """Return the torch device that all models and tensors of a job live on.

    Raises:
        InputError: If it is unknown or not there.
    """
    import torch

    if args.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=args.device).device
    except (RuntimeError, AssertionError) as error:
        told = str(error).splitlines()[0]
        raise InputError(f"--device {args.device} cannot be used here: {told}") from None


def job_config(args: argparse.Namespace) -> Config:
    """Load the configuration of a job and limit its threads, before torch is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    # Threads that spin while they wait for each other take the cores from whoever shares them:
    # five times slower beside another job (docs/workflow.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    config = load_config(args.root, scale=args.scale, main_job=getattr(args, "main_job", False))
    _check_names(args, config)
    return config


def _check_names(args: argparse.Namespace, config: Config) -> None:
    """Raise InputError where an option names what the configuration has not."""
    scale = config.settings
    known: dict[str, Collection[str]] = {
        "variant": config.variants,
        "split": scale.splits,
        "plan": scale.plans,
        "protocol": scale.rollouts.protocols,
        "family": FAMILIES.names(),
        "table": config.tables,
        "figure": config.figures,
        "video": config.videos,
    }
    for option, names in known.items():
        value = getattr(args, option, None)  # a path where a file is asked for
        if isinstance(value, str) and value not in names:
            near = difflib.get_close_matches(value, [*names], 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"--{option} {value}: scale {config.scale} has none{meant}")


def job_settings(args: argparse.Namespace) -> JobSettings:
    """Return the settings of jobs, as `job_config` has loaded the configuration."""
    return JobSettings(job_config(args))


def checked(settings: S, args: argparse.Namespace) -> S:
    """Return `settings` if they are those the workflow planned the job with.

    Raises:
        InputError: If the configuration was edited after the workflow had started.
    """
    if args.expect and settings.digest != args.expect:
        raise InputError(
            "the configuration changed while the workflow was running; start the workflow again"
        )
    return settings


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> None:
    """Parse `argv`, run the chosen command and end faults of the user's making in one line."""
    args = parser.parse_args(argv)
    try:
        args.command(args)
    except InputError as error:
        raise SystemExit(f"{parser.prog}: error: {error}") from None
    except BrokenPipeError:  # of `geomem list variants | head`, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is not flushed
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise SystemExit(
                f"{parser.prog}: error: {error.filename or '.'} cannot be written or read: "
                f"{error.strerror}"
            ) from None
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SystemExit(
            f"{parser.prog}: error: no space left on the disk that holds {error.filename or '.'}; "
            "free some and run again: finished files are kept"
        ) from None


def progress(
    items: Iterable[Any], *, label: str, total: int | None = None, initial: int = 0
) -> Any:
    """Iterate with a progress bar on a terminal, silently elsewhere."""
    from tqdm import tqdm

    return tqdm(
        items,
        desc=label,
        total=total,
        initial=initial,
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
        leave=False,
    )
