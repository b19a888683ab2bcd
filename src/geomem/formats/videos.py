"""Generated videos: lossless frames of one variant, seed and protocol.

Shape suffixes: N clips, T frames, H rows, W columns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.formats.files import atomic_path, check_sha256, read_record, sha256_file
from geomem.formats.records import write_record


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, atomically."""
    # a file rather than its name, to which numpy would append a suffix of its own
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def load_array(path: Path) -> np.ndarray:
    """Map an array of a .npy file into memory.

    Raises:
        InputError: If the file is missing, truncated or no array.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run the workflow to make it") from None
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{path} is truncated or no array ({error}); delete it, run again"
        ) from None


def write_videos(
    folder: Path, rgb: np.ndarray, made_by: Mapping[str, Any], content: Mapping[str, Any]
) -> None:
    """Write `rgb.npy` uint8 (N, T, H, W, 3), then `rollout.json` with its checksum."""
    save_array(folder / "rgb.npy", rgb)
    sha256 = sha256_file(folder / "rgb.npy")
    write_record(folder / "rollout.json", made_by, {**content, "sha256": sha256})


def read_videos(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the frames uint8 (N, T, H, W, 3) and the record, after comparing the checksum."""
    record = read_record(folder / "rollout.json", "sha256", "provenance")
    check_sha256(folder / "rgb.npy", record["sha256"])
    return load_array(folder / "rgb.npy"), record
