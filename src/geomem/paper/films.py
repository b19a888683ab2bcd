"""Videos for people: truth and variants side by side as MP4. Scores read the lossless frames.

Legend: T frames, H, W pixels. Frames are uint8 (T, H, W, 3), as stored.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geomem.formats.mp4 import CELL
from geomem.paper.drawings import videos_of_rows
from geomem.paper.figures import CONTEXT_COLOUR, Frames
from geomem.settings.jobs import VideoJob

GAP = 4
HEADER = 20
FONT_SIZE = 13


def film(
    settings: VideoJob, rollouts: Sequence[Path], clips: Path
) -> tuple[Frames, dict[str, Any]]:
    """Return the frames of a video file, and what was read.

    Args:
        settings: Of the job.
        rollouts: Folders of the videos of its rows.
        clips: Directory of the protocol's split.

    Raises:
        InputError: If the videos of a row are missing or of other clips.
    """
    shown, records = [], []
    for clip in range(settings.video.clips):
        seed = settings.seeds[0]
        rows, record = videos_of_rows(
            settings.video, seed, rollouts, clips, clip=clip, context=settings.context
        )
        shown.append(rows)
        records.append(record)
    named = [record["clip"] for record in records]
    made_of = {**records[0], "clip": named}
    return sheet(shown, context=settings.context), made_of


def sheet(clips: Sequence[Mapping[str, Frames]], *, context: int) -> Frames:
    """Lay out clips below each other, what each shows beside each other, under their labels.

    Args:
        clips: For each clip, label to (T, H, W, 3); labels and sizes agree.
        context: Given frames at the start; meanwhile the labels' bar is coloured.

    Returns:
        (T, H', W', 3) with even sides, as encoders want them.
    """
    length, side = next(iter(clips[0].values())).shape[:2]
    factor = -(-CELL // side)
    step = side * factor + GAP
    labels = list(clips[0])
    height = HEADER + step * len(clips) - GAP
    width = step * len(labels) - GAP
    canvas = np.full((length, height + height % 2, width + width % 2, 3), 255, np.uint8)
    for row, clip in enumerate(clips):
        for column, label in enumerate(labels):
            cell = clip[label].repeat(factor, axis=1).repeat(factor, axis=2)
            top, left = HEADER + row * step, column * step
            canvas[:, top : top + step - GAP, left : left + step - GAP] = cell
    canvas[:context, :HEADER] = _bar(labels, step, canvas.shape[2], given=True)
    canvas[context:, :HEADER] = _bar(labels, step, canvas.shape[2], given=False)
    return canvas


def _bar(labels: Iterable[str], step: int, width: int, *, given: bool) -> Frames:
    """Return the bar (HEADER, width, 3) of labels, in the colour of given frames or not."""
    image = Image.new("RGB", (width, HEADER), CONTEXT_COLOUR if given else "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE)
    for column, label in enumerate(labels):
        place = (column * step + step // 2, HEADER // 2)
        draw.text(place, label, fill="black", font=font, anchor="mm")
    return np.asarray(image)
