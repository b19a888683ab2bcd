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
    read_record,
    read_tensors,
    sha256_file,
    write_tensors,
)
from geomem.formats.records import write_record

SHARD_WINDOWS = 128


def quantise(features: Any) -> dict[str, Any]:
    """Return int8 `features` and the `features_step` per window and channel, (W, ..., C, h, w)."""
    peak = features.abs().amax(dim=(*range(1, features.ndim - 3), -2, -1), keepdim=True)
    step = (peak / 127).clamp_min(1e-8)
    return {"features": (features / step).round().char(), "features_step": step}


def write_feature_part(
    part: Path,
    windows: range,
    key: Mapping[str, Any],
    compute: Callable[[range], Mapping[str, Any]],
    *,
    progress: Callable[[list[range]], Any],
) -> None:
    """Compute and write the shards of one part; those already there with the same key are kept.

    Args:
        part: The part's index, `.../part-000.json`, written last.
        windows: Plan positions of this part.
        key: Provenance: all that the content depends on.
        compute: Returns tensors with one row per window of a range.
        progress: Wraps the iteration over shards.
    """
    starts = range(windows.start, windows.stop, SHARD_WINDOWS)
    ranges = [range(start, min(start + SHARD_WINDOWS, windows.stop)) for start in starts]
    shards = []
    for rows in progress(ranges):
        path = part.with_name(f"shard-{rows.start:07d}.safetensors")
        wanted = {"key": digest(dict(key)), "start": rows.start, "stop": rows.stop}
        if not _is_complete(path, wanted):
            write_tensors(path, compute(rows), wanted)
        shards.append({"file": path.name, "sha256": sha256_file(path), **wanted})
    write_record(part, key, {"shards": shards})


def _remedy(part: Path) -> str:
    # the part is what the workflow looks at; it makes the shards that are gone or damaged
    return f"delete {part} and run the workflow again"


def _is_complete(path: Path, wanted: dict[str, Any]) -> bool:
    if not path.is_file():
        return False
    try:
        return read_tensors(path)[1] == wanted
    except InputError:
        return False


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
                row["features"] = row["features"].float() * row.pop("features_step")
                return {k: v.float() if v.is_floating_point() else v for k, v in row.items()}
        raise InputError(
            f"{self.directory} has no features of window {position}; run its job again"
        )
