"""What sources share whose files the user has: lists of what has which role, and clips as chosen.

A list is a text file with a name a line.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from geomem.errors import InputError
from geomem.formats import read_json
from geomem.sources.registry import ClipsOfSplit, Shard


def read_list(root: Path, file: str) -> list[str]:
    """Return the names in a list, in its order; empty lines and those with # do not count.

    Args:
        root: Folder of the data set, from which the path is taken unless it is an absolute one.
        file: Path of the list.

    Raises:
        InputError: If it is missing, empty, or names something twice.
    """
    path = root / Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"{path} is missing; write one name a line into it (data/README.md)")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    counts = Counter(line for line in lines if line and not line.startswith("#"))
    twice = [name for name, count in counts.items() if count > 1]
    if twice or not counts:
        raise InputError(f"{path} names {f'{twice[0]} twice' if twice else 'nothing'}; mend it")
    return list(counts)


def check_disjoint(names: Mapping[str, Collection[str]], what: str) -> None:
    """Refuse lists (by role) that share a name: what is tested on must not be trained on.

    Raises:
        InputError: If two do.
    """
    for (first, some), (second, others) in combinations(sorted(names.items()), 2):
        if shared := sorted(set(some) & set(others)):
            raise InputError(
                f"the lists of {first} and {second} share {len(shared)} {what}s, {shared[0]} for "
                "one; take them out of one list"
            )


def span_of(split: ClipsOfSplit) -> int:
    """Return how many frames of the source a clip spans at the data set's `stride`."""
    return int((split.frames - 1) * split.settings.stride + 1)


def request_of(split: ClipsOfSplit) -> dict[str, Any]:
    """Return what a choice is made for."""
    return {
        "role": split.role,
        "frames": split.frames,
        "seed": split.settings.choice_seed,
        "span": span_of(split),
    }


def chosen_clips(split: ClipsOfSplit, shard: Shard) -> tuple[Path, list[dict[str, Any]]]:
    """Return the data set's folder and the clips of a shard, as chosen for this very split.

    Raises:
        InputError: If the choice is for other settings, or none is given.
    """
    if shard.archive is None or shard.choice is None:
        raise InputError(f"clips of {split.settings.source} need a folder and --choice")
    content = read_json(shard.choice)
    clips: list[dict[str, Any]] = content["clips"]
    if content["request"] != request_of(split) or len(clips) != split.clips:
        raise InputError(
            f"{shard.choice} holds {len(clips)} clips for {content['request']}, the split asks for "
            f"{split.clips} for {request_of(split)}; delete it, choose again"
        )
    return shard.archive, [clips[position] for position in split.rows(shard.number)]
