"""The cache of the teacher's features: checksummed shards of windows, behind one index a part.

A cache is a directory of `part-*.json` and `shard-*.safetensors`. Shards appear atomically and
carry the digest of everything they depend on (plan, teacher, layer, transform); an interrupted job
finds those already there and goes on behind them.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from geomem.canonical import digest
from geomem.errors import InputError
from geomem.formats.files import (
    check_sha256,
    exclusive,
    read_record,
    read_tensors,
    sha256_file,
    write_tensors,
)
from geomem.formats.records import write_record

SHARD_WINDOWS = 128


def quantise(features: Any, stored: str = "int8") -> dict[str, Any]:
    """Return what is stored of features (W, ..., C, h, w).

    Args:
        features: float32, a row a window.
        stored: `int8` with the `features_step` per window and channel beside it, or `bf16`.
    """
    if stored == "bf16":
        return {"features": features.bfloat16()}
    peak = features.abs().amax(dim=(*range(1, features.ndim - 3), -2, -1), keepdim=True)
    step = (peak / 127).clamp_min(1e-8)
    return {"features": (features / step).round().char(), "features_step": step}


def dequantise(stored: dict[str, Any]) -> Any:
    """Return the features, float32, of what `quantise` gives."""
    return stored["features"].float() * stored.get("features_step", 1.0)


def bytes_per_frame(cells: int, channels: int, *, stored: str, frames: int) -> float:
    """Return what `quantise` leaves of a frame, bytes.

    Args:
        cells: Of the grid of a frame.
        channels: Of a cell, over all layers.
        stored: `int8` or `bf16`.
        frames: Of a window, which share the steps of int8: a float32 a channel.
    """
    return cells * channels * 2 if stored == "bf16" else channels * (cells + 4 / frames)


def raw_bytes_per_frame(layers: int, tokens: int, width: int) -> int:
    """Return what the raw cache takes of a frame, bytes: every token of every layer in fp16."""
    return layers * tokens * width * 2


def write_feature_part(
    part: Path,
    windows: range,
    key: Mapping[str, Any],
    compute: Callable[[range], Mapping[str, Any]],
    *,
    progress: Callable[[list[range]], Any],
) -> None:
    """Compute and write the shards of one part; those already there with the same key are kept.

    Of jobs that make the same shard at once one writes it, and the others wait for that.

    Args:
        part: The part's index, `.../part-000.json`, written last.
        windows: Plan positions of this part.
        key: Provenance: all that the content depends on.
        compute: Returns tensors with one row per window of a range.
        progress: Wraps the iteration over shards.

    Raises:
        InputError: If a part of the same cache has made a shard of other windows there.
    """
    starts = range(windows.start, windows.stop, SHARD_WINDOWS)
    ranges = [range(start, min(start + SHARD_WINDOWS, windows.stop)) for start in starts]
    shards = []
    for rows in progress(ranges):
        path = part.with_name(f"shard-{rows.start:07d}.safetensors")
        wanted = {"key": digest(dict(key)), "start": rows.start, "stop": rows.stop}
        # whoever comes second waits, and finds it complete
        with exclusive(path.parent, part=path.stem, wait=True):
            if not _is_complete(path, wanted):
                write_tensors(path, compute(rows), wanted)
        shards.append({"file": path.name, "sha256": sha256_file(path), **wanted})
    with exclusive(part.parent, part=f"{part.stem}-index", wait=True):  # a job holds the part's
        write_record(part, key, {"shards": shards})


def _remedy(part: Path) -> str:
    # the part is what the workflow looks at; it makes the shards that are gone or damaged
    return f"delete {part} and run the workflow again"


def _is_complete(path: Path, wanted: dict[str, Any]) -> bool:
    if not path.is_file():
        return False
    try:
        found = read_tensors(path)[1]
    except InputError:
        return False
    if found != wanted and found.get("key") == wanted["key"]:
        raise InputError(
            f"{path} holds windows {found['start']} to {found['stop']} of the same cache, this "
            f"part has {wanted['start']} to {wanted['stop']} there: parts overlap; delete "
            f"{path.parent} and run the workflow again"
        )
    return bool(found == wanted)


class FeatureCache:
    """Read access to a cache by plan position."""

    def __init__(self, directory: Path | str, *, plan_path: Path | str) -> None:
        """Open all parts and check that they were computed for this plan.

        Raises:
            InputError: If a part or shard is missing, fails its checksum or is for another plan.
        """
        self.directory = Path(directory)
        parts = sorted(self.directory.glob("part-*.json"))
        if not parts:
            raise InputError(f"{self.directory} holds no features; run the features stage first")
        plan_digest = sha256_file(plan_path)
        self._shards: list[tuple[int, int, Path]] = []
        for part in parts:
            index = read_record(part, "shards", "provenance")
            if index["provenance"]["inputs"]["plan"] != plan_digest:
                raise InputError(f"{part} is for another plan than {plan_path}; {_remedy(part)}")
            for shard in index["shards"]:
                path = self.directory / shard["file"]
                if not path.exists():
                    raise InputError(f"{path} is missing; {_remedy(part)}")
                check_sha256(path, shard["sha256"], _remedy(part))
                self._shards.append((shard["start"], shard["stop"], path))
        self._load = lru_cache(maxsize=4)(lambda path: read_tensors(path)[0])

    def row(self, position: int) -> dict[str, Any]:
        """Return the tensors of one window, features dequantised to float32.

        Raises:
            InputError: If no shard covers the position.
        """
        for start, stop, path in self._shards:
            if start <= position < stop:
                row = {name: t[position - start] for name, t in self._load(path).items()}
                row["features"] = dequantise(row)
                row.pop("features_step", None)
                return {k: v.float() if v.is_floating_point() else v for k, v in row.items()}
        raise InputError(
            f"{self.directory} has no features of window {position}; run its job again"
        )
