"""Frames of published videos as the clip store has them.

Shape suffixes: T frames, H rows, W columns.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from geomem.errors import InputError


def decode(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames uint8 (H, W, 3) of a video, or of a folder of images in order of name.

    Raises:
        InputError: If a file cannot be decoded.
    """
    import av

    names = [path] if path.is_file() else sorted(path.iterdir(), key=lambda p: (len(p.name), p))
    for name in names:
        try:
            with av.open(str(name)) as container:
                for frame in container.decode(video=0):
                    yield frame.to_ndarray(format="rgb24")
        except av.FFmpegError as error:
            raise InputError(f"{name} cannot be decoded ({error}); unpack it again") from None


def count_frames(path: Path) -> int:
    """Return the number of frames that a video's header, or a folder of images, promises."""
    import av

    if path.is_dir():
        return len(list(path.iterdir()))
    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].frames
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"{path} cannot be opened ({error}); unpack it again") from None


def read_frames(path: Path, *, start: int, frames: int) -> np.ndarray:
    """Return frames uint8 (T, H, W, 3) `start` to `start + frames - 1` of a video or a folder.

    Raises:
        InputError: If there are fewer.
    """
    found = list(islice(decode(path), start, start + frames))
    if len(found) < frames:
        raise InputError(
            f"{path} ends after {start + len(found)} frames, {start + frames} are needed; "
            "unpack it again"
        )
    return np.stack(found)


def square(rgb: np.ndarray, *, resolution: int) -> np.ndarray:
    """Return the centre crop of frames uint8 (T, H, W, 3), resized with antialiasing."""
    height, width = rgb.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cropped = rgb[:, top : top + side, left : left + side]
    if side == resolution:
        return np.ascontiguousarray(cropped)
    images = torch.from_numpy(np.ascontiguousarray(cropped)).permute(0, 3, 1, 2).float()
    resized = F.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
