"""What is shown of a protocol: one clip in truth and as all variants continue it.

Legend: T frames, H, W pixels. Frames are uint8 (T, H, W, 3), as stored; cameras (T, 16) as in
`geomem.geometry.cameras`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geomem.config import Config
from geomem.errors import InputError
from geomem.formats import ClipStore, read_record, sha256_file
from geomem.layout import Layout
from geomem.metrics.registry import metric_of
from geomem.metrics.revisits import revisit_pairs
from geomem.paper.drawings import videos_of_rows
from geomem.settings.evaluation import FigureRow, MedianGain, RevisitFigure, Video, VideoFigure

Frames = NDArray[np.uint8]
VISITS = (0.1, 0.35)  # shares of the clip at which a place is first seen, without such a figure
SHOWN_FIRST = 8  # variants that are visible without asking; each costs a decoded sprite


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One variant's video, or the truth's.

    Attributes:
        variant: Its name; empty for the truth.
        label: As in tables.
        frames: Its frames.
        curves: Metric -> value of each frame, None where it has none.
        first: Whether it is visible without asking.
    """

    variant: str
    label: str
    frames: Frames
    curves: dict[str, list[float | None]]
    first: bool = True


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A clip of a protocol.

    Attributes:
        rule: How it was chosen, a sentence.
        context: Number of given frames, the first ones.
        videos: The truth, then the variants.
        pairs: Frames that see a place again: first visit, revisit.
        depth: True depth (T, H, W), metres; None where the data set has none.
        unscored: Labels whose score files are missing or of other videos.
        axes: Metric -> name of its axis, by the network that was used if there is one.
    """

    protocol: str
    clip_id: str
    rule: str
    context: int
    videos: tuple[Shown, ...]
    cameras: NDArray[np.float32]
    pairs: tuple[tuple[int, int], ...]
    depth: NDArray[np.float32] | None
    unscored: tuple[str, ...]
    axes: dict[str, str]


def protocols_with_videos(config: Config, root: Path) -> dict[str, list[str]]:
    """Return protocol -> variants whose videos (first seed) are here, in the order of tables."""
    layout = Layout(config.scale)
    found = {}
    for protocol in config.settings.rollouts.protocols:
        here = [
            name
            for name in labels_of(config)
            if (root / layout.rollout_record(name, config.seeds_of(name)[0], protocol)).is_file()
        ]
        if here:
            found[protocol] = here
    return found


def labels_of(config: Config) -> dict[str, str]:
    """Return variant -> label, of all variants: as the first table has it, else as a figure has."""
    rows: list[Any] = [row for table in config.tables.values() for row in table.rows]
    rows += [row for figure in config.figures.values() for row in figure.rows]
    labels: dict[str, str] = {}
    for row in rows:
        if row.variant in config.variants:
            labels.setdefault(row.variant, row.label)
    return labels | {name: name for name in config.variants if name not in labels}


def read_scene(config: Config, root: Path, protocol: str, variants: list[str]) -> Scene:
    """Return the clip that the rule of the figures chooses, as all variants made it.

    Args:
        config: Of the scale.
        root: Of the project.
        protocol: Which videos.
        variants: Whose videos are here.

    Raises:
        InputError: If clips or videos are missing, damaged or not of each other.
    """
    layout = Layout(config.scale)
    split = config.settings.rollouts.protocols[protocol].split
    clips = root / layout.clips(config.settings.splits[split].dataset, split)
    store = ClipStore(clips)
    labels = _told_apart({name: labels_of(config)[name] for name in variants})
    seed = config.settings.seeds[0]
    folders = {name: root / layout.rollout(name, seed, protocol) for name in variants}
    context = _context(folders[variants[0]] / "rollout.json")
    rule, told = _rule(config, protocol, labels)
    shown = Video(
        protocol=protocol,
        clips=1,
        rows=tuple(FigureRow(variant=name, label=label) for name, label in labels.items()),
    )
    rows, record = videos_of_rows(shown, seed, folders.values(), clips, clip=rule, context=context)
    index = [info.clip_id for info in store.clips].index(record["clip"])
    length = min(len(frames) for frames in rows.values())
    visible = _shown_first(config, labels)
    videos = [Shown(variant="", label="truth", frames=rows["truth"][:length], curves={})]
    unscored: list[str] = []
    axes: dict[str, str] = {}
    for name, label in labels.items():
        curves, named = _curves(root, config, name, protocol, clip=index, length=length)
        axes |= named
        unscored += [] if curves else [label]
        videos.append(
            Shown(
                variant=name,
                label=label,
                frames=rows[label][:length],
                curves=curves,
                first=name in visible,
            )
        )
    cameras = store.cameras(index)[:length]
    return Scene(
        protocol=protocol,
        clip_id=record["clip"],
        rule=told,
        context=context,
        videos=tuple(videos),
        cameras=cameras,
        pairs=_pairs(config, protocol, cameras, context=context),
        depth=store.depth(index)[:length] if store.has_depth else None,
        unscored=tuple(unscored),
        axes=axes,
    )


def _context(path: Path) -> int:
    context = read_record(path, "provenance")["provenance"]["settings"].get("context")
    if not isinstance(context, int):
        raise InputError(f"{path} does not tell how many frames were given; run the workflow again")
    return context


def _told_apart(labels: dict[str, str]) -> dict[str, str]:
    """Return labels of which no two are equal, and none is `truth`."""
    used = ["truth", *labels.values()]
    return {
        name: label if used.count(label) == 1 else f"{label} ({name})"
        for name, label in labels.items()
    }


def _figures(config: Config, protocol: str) -> Iterator[VideoFigure]:
    """Yield the figures of videos, those of the protocol first."""
    found = [one for one in config.figures.values() if isinstance(one, VideoFigure)]
    yield from sorted(found, key=lambda one: one.protocol != protocol)


def _rule(config: Config, protocol: str, labels: dict[str, str]) -> tuple[int | MedianGain, str]:
    """Return the clip, or the rule that chooses it, and the same in a sentence."""
    for figure in _figures(config, protocol):
        rule = figure.clip
        if isinstance(rule, MedianGain) and {rule.gain_of, rule.over} <= labels.keys():
            return rule, (
                f"Of all clips it is the one in which the gain in PSNR of {labels[rule.gain_of]!r} "
                f"over {labels[rule.over]!r} is the median."
            )
    return 0, "It is the first clip of the split."


def _shown_first(config: Config, labels: dict[str, str]) -> set[str]:
    """Return the variants that are visible without asking: those of figures, then the others."""
    in_figures = {row.variant for one in config.figures.values() for row in one.rows}
    order = sorted(labels, key=lambda name: name not in in_figures)
    return set(order[:SHOWN_FIRST])


def _curves(
    root: Path, config: Config, variant: str, protocol: str, *, clip: int, length: int
) -> tuple[dict[str, list[float | None]], dict[str, str]]:
    """Return metric -> value by frame of a clip, and metric -> name of its axis.

    Score files that are not of the videos which are here are passed over.
    """
    layout, seed = Layout(config.scale), config.settings.seeds[0]
    videos = sha256_file(root / layout.rollout_record(variant, seed, protocol))
    folder = (root / layout.scores(variant, seed, protocol, "any")).parent
    curves: dict[str, list[float | None]] = {}
    axes: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        scores = read_record(path, "per_frame", "names", "context", "provenance")
        if scores["provenance"]["inputs"].get("rollout") != videos:
            continue
        for metric, by_clip in sorted(scores["per_frame"].items()):
            values = [None] * scores["context"] + by_clip[clip]
            curves[metric] = values[:length]
            known_as = metric_of(metric)
            unit = f" [{known_as.unit}]" if known_as.unit else ""
            network = scores["names"].get(metric)
            axes[metric] = network["axis"] if network else f"{known_as.label or metric}{unit}"
    return curves, axes


def _pairs(
    config: Config, protocol: str, cameras: NDArray[np.float32], *, context: int
) -> tuple[tuple[int, int], ...]:
    """Return pairs of frames that see a place again, the second a generated one."""
    gap = config.settings.scores.revisit_gap
    found = revisit_pairs(torch.from_numpy(np.array(cameras)), minimum_gap=gap).tolist()
    pairs = [(first, later) for first, later in found if later >= context]
    if not pairs:
        return ()
    shares = next(
        (one.visits for one in _figures(config, protocol) if isinstance(one, RevisitFigure)), VISITS
    )
    wanted = [share * (len(cameras) - 1) for share in shares]
    chosen = [min(pairs, key=lambda pair: abs(pair[0] - at)) for at in wanted]
    return tuple(dict.fromkeys(chosen))
