"""Splits of imported data sets, and their import by the functions of a source."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from geomem.formats import ClipStore
from geomem.formats.records import write_record
from geomem.sources.registry import SOURCES, ClipsOfSplit, Shard


def split_of(
    name: str, content: dict[str, Any], *, clips: int, frames: int, size: int, role: Any = "test"
) -> ClipsOfSplit:
    """A split of one shard, of a data set of a source whose file has that content beside it."""
    source = SOURCES[name]
    return ClipsOfSplit(
        name="real",
        role=role,
        clips=clips,
        frames=frames,
        shards=1,
        resolution=size,
        supersample=1,
        settings=source.Settings.model_validate({"source": name, **content}),
        options=source.Options(),
        version=source.version,
    )


def plain(items: Any) -> Iterator[Any]:
    """No progress bar."""
    return iter(items)


def chosen_shard(source: ModuleType, root: Path, folder: Path, split: ClipsOfSplit) -> Shard:
    """The first shard of a split whose clips are chosen first, from the data set at `root`."""
    choice = folder / "choice.json"
    write_record(choice, {}, source.choose_clips(root, split))
    return Shard(
        folder=folder / "clips/shard-000", number=0, record={}, archive=root, choice=choice
    )


def import_clips(source: ModuleType, root: Path, folder: Path, split: ClipsOfSplit) -> ClipStore:
    """Choose and import the clips of a split."""
    source.import_shard(split, chosen_shard(source, root, folder, split), progress=plain)
    return ClipStore(folder / "clips")
