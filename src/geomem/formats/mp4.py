"""Videos that people watch: H.264 in MP4. Scores read the lossless frames.

Legend: T frames, H, W pixels.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomem.formats.files import atomic_path

CELL = 192  # pixels; smaller frames are enlarged by a whole factor, so that they can be looked at
# Enlarged pixels keep their colours through 4:2:0: 44 dB on rendered rooms of 32x32 pixels, against
# 35 at their own size; a better quality gains nothing.
QUALITY = {"crf": "12", "preset": "medium"}


def enlarged(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return frames (T, H, W, 3) enlarged by a whole factor to at least CELL, their sides even."""
    height, width = frames.shape[1:3]
    # twice at least: encoders want even sides and halve the resolution of colours
    factor = max(2, -(-CELL // min(height, width)))
    factor += factor * height % 2 or factor * width % 2
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def write_mp4(path: Path, frames: NDArray[np.uint8], *, rate: int) -> None:
    """Write frames uint8 (T, H, W, 3) of even sides as H.264 in MP4, whole or not at all.

    Args:
        path: File to write.
        frames: The frames.
        rate: Frames per second.
    """
    import av

    with atomic_path(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=QUALITY)
        stream.height, stream.width = frames.shape[1:3]
        # What every player can show
        stream.pix_fmt = "yuv420p"
        # Threads share out rows by their number, which would show in the bytes.
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
