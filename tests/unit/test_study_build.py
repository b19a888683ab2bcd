"""`geomem study build`: from rollouts of a project to the folder of a study."""

from pathlib import Path

import numpy as np
import pytest

from conftest import write_fake_clips
from geomem.commands.main import main
from geomem.config import load_config
from geomem.formats import ClipStore, write_videos
from geomem.layout import Layout
from geomem.study.plan import TRUTH, read_study

PROTOCOL, SPLIT = "loop_replay", "loop"
VARIANTS = ("repeated_frame", "mean_colour")
CLIPS, FRAMES, SIZE, CONTEXT = 3, 8, 16, 2


def store_clips(project: Path) -> ClipStore:
    dataset = load_config(project).settings.splits[SPLIT].dataset
    folder = project / Layout("smoke").clips(dataset, SPLIT)
    return ClipStore(write_fake_clips(folder, clips=CLIPS, frames=FRAMES, size=SIZE))


def store_videos(project: Path, variant: str, store: ClipStore) -> None:
    rgb = np.stack([store.rgb(row) for row in range(CLIPS)]) // 2
    settings = {"context": CONTEXT}
    made_by = {"stage": "rollouts", "version": 1, "settings": settings, "inputs": {}}
    record = {"clips": [clip.clip_id for clip in store.clips]}
    write_videos(project / Layout("smoke").rollout(variant, 0, PROTOCOL), rgb, made_by, record)


def run(project: Path, folder: Path, *more: str, variants: tuple[str, ...] = VARIANTS) -> None:
    options = ["--root", str(project), "--scale", "smoke", "--protocol", PROTOCOL]
    main(["study", "build", str(folder), *options, "--variants", *variants, *more])


def test_rollouts_become_a_study(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_clips(project)
    for variant in VARIANTS:
        store_videos(project, variant, store)
    run(project, tmp_path / "out", "--clips", "2", "--checks", "2", "--repeats", "1")
    assert "5 comparisons of 2 variants on 2 clips" in capsys.readouterr().out
    study = read_study(tmp_path / "out")
    assert {each.clip for each in study.comparisons} == {"fake-0", "fake-2"}
    pairs = {tuple(sorted(shown.method for shown in each.pair)) for each in study.comparisons}
    assert pairs == {("mean_colour", "repeated_frame"), ("noise", TRUTH), ("repeated_input", TRUTH)}
    # the camera of these clips moves sideways by 5 cm a frame
    assert "0.3 to the right" in study.comparisons[0].path_text
    assert set(study.made_of["rollouts"]) == set(VARIANTS)  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match="may hold votes"):
        run(project, tmp_path / "out", "--clips", "2")


def test_equal_rollouts_make_equal_studies(project: Path, tmp_path: Path) -> None:
    store = store_clips(project)
    for variant in VARIANTS:
        store_videos(project, variant, store)
    for name in ("one", "two"):
        run(project, tmp_path / name, "--clips", "1", "--checks", "1", "--repeats", "0")
    assert read_study(tmp_path / "one").digest == read_study(tmp_path / "two").digest


def test_all_missing_rollouts_are_named(project: Path, tmp_path: Path) -> None:
    store_videos(project, VARIANTS[0], store_clips(project))
    with pytest.raises(SystemExit) as caught:
        run(project, tmp_path / "out", variants=(*VARIANTS, "base"))
    message = str(caught.value)
    assert "2 of 3 rollouts are missing" in message
    for variant in ("mean_colour", "base"):
        assert f"results/smoke/rollouts/{variant}/seed0/{PROTOCOL}/rollout.json" in message
    assert VARIANTS[0] not in message and "\n" not in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("variants", "more", "words"),
    [
        (("mean_colour",), (), "at least two"),
        (("mean_colour", "mean_colour"), (), "each once"),
        (("mean_colour", "nobody"), (), "--variants nobody"),
        (VARIANTS, ("--clips", "4"), "--clips 4"),
        (VARIANTS, ("--clips", "1", "--checks", "3"), "--checks 3"),
    ],
)
def test_wrong_options_are_told(
    project: Path, tmp_path: Path, variants: tuple[str, ...], more: tuple[str, ...], words: str
) -> None:
    store = store_clips(project)
    for variant in VARIANTS:
        store_videos(project, variant, store)
    with pytest.raises(SystemExit, match=words):
        run(project, tmp_path / "out", *more, variants=variants)
    assert not (tmp_path / "out").exists()
