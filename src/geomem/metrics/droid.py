"""Reprojection error by an installed DROID-SLAM, in a process of its own interpreter.

DROID-SLAM needs CUDA extensions that this project does not install; and it is not deterministic
(0.216 to 0.345 on one video), so that it is run several times.
Legend: T frames, H, W pixels.
"""

import json
import math
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from geomem.metrics import droid_worker

TOLD = 200  # characters of a failed run's last line


@dataclass(frozen=True, kw_only=True)
class DroidInstallation:
    """Where DROID-SLAM is.

    Attributes:
        python: Interpreter of its environment.
        repository: Folder of its source, which has `droid_slam/droid.py`.
        weights: Its `droid.pth`.
    """

    python: str
    repository: str
    weights: str

    def missing(self) -> str:
        """Return in words what is not there, or nothing."""
        needed = {
            "python": Path(self.python),
            "repository": Path(self.repository) / "droid_slam" / "droid.py",
            "weights": Path(self.weights),
        }
        return ", ".join(f"{name}: no {path}" for name, path in needed.items() if not path.exists())


@dataclass(frozen=True, kw_only=True)
class DroidErrors:
    """What repeated runs found.

    Attributes:
        errors: Of the runs that were solved, in cells.
        failures: Why the others were not, one line each.
    """

    errors: tuple[float, ...]
    failures: tuple[str, ...]

    def values(self) -> dict[str, float | None]:
        """Return median, ends of the interval of all runs, and share of runs that failed."""
        total = len(self.errors) + len(self.failures)
        found = self.errors
        return {
            "droid_error": median(found) if found else None,
            "droid_low": min(found, default=None),
            "droid_high": max(found, default=None),
            "droid_failures": len(self.failures) / total,
        }


def droid_errors(
    frames: Tensor,
    intrinsics: Tensor,
    installation: DroidInstallation,
    *,
    repeats: int,
    timeout: float,
) -> DroidErrors:
    """Run DROID-SLAM on a clip several times.

    Args:
        frames: (T, 3, H, W) in [0, 1], given as 8 bits without loss.
        intrinsics: The true ones (4,), normalised fx fy cx cy.
        installation: Where it is.
        repeats: Runs.
        timeout: Seconds after which a run is ended and counts as failed.
    """
    errors, failures = [], []
    height, width = frames.shape[-2:]
    pixels = intrinsics.double().cpu() * torch.tensor([width, height] * 2, dtype=torch.float64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rgb = (frames.clamp(0, 1) * 255).round().byte().movedim(1, -1).cpu().numpy()
        np.save(folder / "frames.npy", rgb)
        np.save(folder / "intrinsics.npy", pixels.numpy())
        for _ in range(repeats):
            try:
                errors.append(_run(folder, installation, timeout))
            except _RunError as error:
                failures.append(str(error))
    return DroidErrors(errors=tuple(errors), failures=tuple(failures))


class _RunError(Exception):
    """A run without a result."""


def _run(folder: Path, installation: DroidInstallation, timeout: float) -> float:
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    command = [installation.python, droid_worker.__file__, installation.repository]
    command += [installation.weights, str(folder)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise _RunError(f"no result after {timeout:g} s") from None
    if run.returncode or not result.exists():
        told = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
        raise _RunError(told[-1][:TOLD])
    error = json.loads(result.read_text())["error"]
    if not math.isfinite(error):
        raise _RunError("no correspondence was left")
    return float(error)
