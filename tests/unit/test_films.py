"""Videos for people show the stored frames, under the right labels, close to losslessly."""

from pathlib import Path

import av
import numpy as np
import pytest

from conftest import told, write_fake_clips
from geomem.formats import ClipStore, write_videos
from geomem.formats.mp4 import CELL, write_mp4
from geomem.paper.films import GAP, HEADER, film, sheet
from geomem.settings.evaluation import FigureRow, Video
from geomem.settings.jobs import VideoJob

SIDE, FRAMES, CLIPS = 48, 6, 2
FACTOR = CELL // SIDE
STEP = CELL + GAP
STATED_PSNR = 40.0  # dB, of every decoded frame against the stored one


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.square(a.astype(float) - b.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def cell(frames: np.ndarray, row: int, column: int) -> np.ndarray:
    """The frames that a cell shows, at their own size."""
    top, left = HEADER + row * STEP, column * STEP
    enlarged = frames[:, top : top + CELL, left : left + CELL].astype(float)
    return enlarged.reshape(len(frames), SIDE, FACTOR, SIDE, FACTOR, 3).mean((2, 4))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, list[Path]]:
    """Clips of a split, and the videos of two variants for them: darker, and upside down."""
    clips = write_fake_clips(tmp_path / "clips", clips=3, frames=FRAMES, size=SIDE)
    store = ClipStore(clips)
    truth = np.stack([store.rgb(i) for i in range(3)])
    made = {"dark": truth // 2, "turned": truth[:, :, ::-1]}
    for variant, rgb in made.items():
        names = [clip.clip_id for clip in store.clips]
        record = {"variant": variant, "seed": 0, "protocol": "spin", "clips": names}
        write_videos(tmp_path / variant, np.ascontiguousarray(rgb), {}, record)
    return clips, [tmp_path / variant for variant in made]


def settings(protocol: str = "spin") -> VideoJob:
    rows = FigureRow(variant="turned", label="b"), FigureRow(variant="dark", label="a")
    video = Video(protocol=protocol, clips=CLIPS, rate=8, rows=rows)
    return VideoJob(video=video, seeds=(0,), context=1)


def test_a_decoded_video_shows_the_stored_frames_of_every_clip_and_row(
    folders: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    clips, rollouts = folders
    frames, record = film(settings(), rollouts, clips)
    write_mp4(tmp_path / "film.mp4", frames, rate=8)
    decoded = decode(tmp_path / "film.mp4")
    assert decoded.shape == frames.shape
    assert frames.shape[1:3] == (HEADER + CLIPS * STEP - GAP, 3 * STEP - GAP)
    store = ClipStore(clips)
    assert record["clip"] == [clip.clip_id for clip in store.clips[:CLIPS]]
    for row in range(CLIPS):
        truth = store.rgb(row)
        for column, expected in enumerate((truth, truth[:, ::-1], truth // 2)):
            shown = cell(decoded, row, column)
            assert min(map(psnr, shown, expected)) > STATED_PSNR
    # the measure can tell: neighbouring frames, and clips, are further apart than that
    assert psnr(store.rgb(0)[0], store.rgb(0)[1]) < STATED_PSNR
    assert psnr(store.rgb(0), store.rgb(1)) < STATED_PSNR


def test_sharp_colours_survive_because_pixels_are_enlarged(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (FRAMES, 8, 8, 3), dtype=np.uint8)
    sharp = blocks.repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    write_mp4(tmp_path / "film.mp4", sheet([{"truth": sharp}], context=0), rate=8)
    enlarged = psnr(cell(decode(tmp_path / "film.mp4"), 0, 0), sharp)
    # saturated random colours are the worst case; at their own size they are lost to 4:2:0
    inner = sharp[:, 1:-1, 1:-1]
    write_mp4(tmp_path / "small.mp4", inner, rate=8)
    assert enlarged > 35
    assert enlarged > psnr(decode(tmp_path / "small.mp4"), inner) + 5


def test_labels_stand_above_their_columns_and_the_bar_tells_given_frames() -> None:
    black = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    frames = sheet([{"truth": black, "": black}], context=2)
    bar = frames[:, :HEADER]
    assert (bar[2:, :, :CELL] < 128).any() and (bar[2:, :, STEP:] == 255).all()
    assert not (bar[:2, 0, 0] == 255).all() and (bar[2:, 0, 0] == 255).all()


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for name in ("a.mp4", "b.mp4"):
        write_mp4(tmp_path / name, frames, rate=8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".mp4"] == []


def test_rows_without_videos_are_told(folders: tuple[Path, list[Path]]) -> None:
    clips, rollouts = folders
    told(lambda: film(settings(protocol="orbit"), rollouts, clips), "no videos of", "orbit")
