"""Make the folder of a preference study from generated videos.

Legend: N clips, T frames, H, W pixels. Frames are uint8 (..., H, W, 3).
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geomem.canonical import canonical_json
from geomem.errors import InputError
from geomem.formats.files import atomic_directory
from geomem.formats.mp4 import enlarged, write_mp4
from geomem.study.camera_path import describe_path, draw_path
from geomem.study.plan import MEDIA, STUDY, TRUTH, Comparison, Shown, Study

Frames = NDArray[np.uint8]
SPOILED = ("noise", "repeated_input")  # what truth is compared with in checks, in turn


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip, and what methods made of it.

    Attributes:
        clip_id: Its name.
        cameras: float32 (T, 16).
        truth: (T, H, W, 3).
        videos: Method to (T, H, W, 3); the first `context` frames are given.
        context: Number of given frames.
    """

    clip_id: str
    cameras: NDArray[np.float32]
    truth: Frames
    videos: Mapping[str, Frames]
    context: int


def build_study(
    folder: Path,
    clips: Sequence[Clip],
    *,
    title: str,
    rate: int,
    checks: int,
    repeats: int,
    made_of: Mapping[str, str | int | dict[str, str]],
) -> Study:
    """Write media and `study.json`: every pair of methods on every clip, checks and repeats.

    Args:
        folder: To be made; one that is there is left alone, for it may hold votes.
        clips: What is compared, at least one; all with the same methods.
        title: Heading of the pages.
        rate: Frames per second.
        checks: Attention checks: the truth against what is plainly spoiled.
        repeats: Pairs that are shown again with sides swapped.
        made_of: What is recorded of the sources.

    Raises:
        InputError: If the folder is there, or there are more checks than clips can give, or more
            repeats than pairs.
    """
    if folder.exists():
        raise InputError(f"{folder} exists and may hold votes; name another folder")
    pairs = list(combinations(clips[0].videos, 2))
    for word, asked, most in (
        ("checks", checks, len(clips) * len(SPOILED)),
        ("repeats", repeats, len(clips) * len(pairs)),
    ):
        if not 0 <= asked <= most:
            raise InputError(f"--{word} {asked}: this study can have 0 to {most}")
    with atomic_directory(folder) as partial:
        media = _Media(partial / MEDIA, rate)
        shown = [media.of_clip(clip) for clip in clips]
        compared = [
            _comparison(_name("pair", n, m), clip, parts, pair)
            for n, (clip, parts) in enumerate(zip(clips, shown, strict=True))
            for m, pair in enumerate(pairs)
        ]
        # spread over clips and pairs
        chosen = np.linspace(0, len(compared) - 1, repeats).round().astype(int).tolist()
        compared += [
            compared[number].model_copy(
                update={"name": _name("repeat", number), "repeats": compared[number].name}
            )
            for number in chosen
        ]
        for number in range(checks):
            # in turn, and none twice
            row = number % len(clips)
            spoiled = SPOILED[(number + number // len(clips) * (1 - len(clips) % 2)) % 2]
            parts = {**shown[row], **media.of_check(clips[row], spoiled)}
            pair = (TRUTH, spoiled)
            compared.append(
                _comparison(_name("check", number), clips[row], parts, pair, check=True)
            )
        study = Study(title=title, comparisons=tuple(compared), made_of=dict(made_of))
        text = canonical_json(study.recorded())
        (partial / STUDY).write_text(text, encoding="utf-8")
    return study


def _name(*key: str | int) -> str:
    """Return a name that says nothing of the comparison, since the page has it."""
    return hashlib.sha256(repr(key).encode()).hexdigest()[:10]


def _comparison(
    name: str, clip: Clip, parts: Mapping[str, str], pair: Sequence[str], *, check: bool = False
) -> Comparison:
    first, second = (Shown(method=method, video=parts[method]) for method in pair)
    return Comparison(
        name=name,
        clip=clip.clip_id,
        pair=(first, second),
        frame=parts[".png"],
        path=parts[".svg"],
        path_text=describe_path(clip.cameras),
        check=check,
    )


class _Media:
    """Writes files under names that say nothing of what is in them."""

    def __init__(self, folder: Path, rate: int) -> None:
        folder.mkdir()
        self.folder, self.rate = folder, rate

    def of_clip(self, clip: Clip) -> dict[str, str]:
        """Return names by method, of the given frame as `.png` and of the path as `.svg`."""
        names = {method: self._mp4(frames) for method, frames in clip.videos.items()}
        picture = io.BytesIO()
        Image.fromarray(enlarged(clip.truth[clip.context - 1][None])[0]).save(picture, "PNG")
        names[".png"] = self._bytes(picture.getvalue(), "png")
        path = draw_path(clip.cameras, context=clip.context)
        return names | {".svg": self._bytes(path.encode(), "svg")}

    def of_check(self, clip: Clip, spoiled: str) -> dict[str, str]:
        """Return the names of the truth and of the spoiled video."""
        bad = np.array(clip.truth)
        if spoiled == "noise":
            generator = np.random.default_rng(0)
            bad[clip.context :] = generator.integers(0, 256, bad[clip.context :].shape, np.uint8)
        else:
            bad[clip.context :] = bad[clip.context - 1]
        return {TRUTH: self._mp4(clip.truth), spoiled: self._mp4(bad)}

    def _mp4(self, frames: Frames) -> str:
        partial = self.folder / "video.mp4"
        write_mp4(partial, enlarged(np.asarray(frames)), rate=self.rate)
        name = self._name(partial.read_bytes(), "mp4")
        partial.replace(self.folder / name)
        return name

    def _bytes(self, content: bytes, suffix: str) -> str:
        name = self._name(content, suffix)
        (self.folder / name).write_bytes(content)
        return name

    @staticmethod
    def _name(content: bytes, suffix: str) -> str:
        return f"{hashlib.sha256(content).hexdigest()[:24]}.{suffix}"
