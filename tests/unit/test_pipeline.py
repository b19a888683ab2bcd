"""The diffusers pipeline: the rollouts' videos bit for bit, through a folder and back."""

import re
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from test_rollouts_memory import CHANNELS, SETTINGS, SIZE, branch_on, cameras, small_base
from test_rollouts_memory import TEACHER as TINY
from torch import Tensor

from conftest import ROOT, edit_yaml, run_stage, told
from geomem.commands.main import main
from geomem.config import JobSettings, load_config
from geomem.errors import InputError
from geomem.formats import ClipStore, digest, read_json, read_videos
from geomem.formats.records import read_provenance
from geomem.formats.teacher_sizes import teacher_config
from geomem.formats.teachers import load_teacher, read_basis
from geomem.memory.reconstruction import FeatureBasis, fit_basis
from geomem.networks.vggt.model import VGGT
from geomem.pipelines.components import FrozenTeacher, TeacherBasis
from geomem.pipelines.example import example_clip
from geomem.pipelines.export import from_checkpoint
from geomem.pipelines.memory_video import MemoryVideoPipeline

VARIANT, PROTOCOL, FRAMES = "pretraining_memory", "out_and_back_replay", 12
MODEL = "weights/uvit_tiny/model.safetensors"
BASIS, TEACHER = "weights/uvit_tiny/basis.safetensors", "weights/vggt_plain/model.safetensors"
CHECKPOINT = "results/tiny/checkpoints/uvit_tiny/seed0"
SPLIT = "data/tiny/clips/rooms_plain/out_and_back"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project at scale `tiny` with the tracked weights, a checkpoint of them, two rendered clips
    and what the stage `rollouts` makes of it."""
    root = tmp_path_factory.mktemp("study")
    (root / "weights").symlink_to(ROOT / "weights")
    shutil.copytree(ROOT / "config", root / "config")
    edit_yaml(
        root / "config/scales/tiny.yaml",
        splits__out_and_back={
            "dataset": "rooms_plain", "clips": 2, "frames": FRAMES, "options": {"stride": 2}
        },
    )  # fmt: skip
    run_stage(
        root, "clips", "make", f"{SPLIT}/shard-000", "--split", "out_and_back", "--number", "0"
    )
    run_stage(root, "training", "import", CHECKPOINT, "--variant", "uvit_tiny", "--seed", "0",
              "--weights", MODEL)  # fmt: skip
    run_stage(root, "rollouts", "generate", "videos", "--variant", VARIANT, "--seed", "0",
              "--protocol", PROTOCOL, "--clips", SPLIT, "--checkpoint", CHECKPOINT,
              "--base", CHECKPOINT, "--weights", TEACHER, "--basis", BASIS,
              "--device", "cpu")  # fmt: skip
    with chdir(root):
        main(["export", "pipeline", "pipeline", "tracked"])
    return root


@pytest.fixture(scope="module")
def pipeline(study: Path) -> MemoryVideoPipeline:
    loaded = MemoryVideoPipeline.from_pretrained(study / "pipeline", local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def clip(study: Path) -> tuple[Tensor, Tensor, str]:
    """Given frames in [0, 1], all cameras, and the id of the second rendered clip."""
    store, context = ClipStore(study / SPLIT), FRAMES // 2
    rgb = torch.from_numpy(np.array(store.rgb(1, range(context))))
    cameras = torch.from_numpy(np.array(store.cameras(1, range(FRAMES))))
    return rgb.permute(0, 3, 1, 2).float() / 255, cameras, store.clips[1].clip_id


def as_bytes(video: Tensor) -> np.ndarray:
    return (video * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def test_it_makes_what_the_rollouts_make_bit_for_bit(
    study: Path, pipeline: MemoryVideoPipeline, clip: tuple[Tensor, Tensor, str]
) -> None:
    frames, cameras, clip_id = clip
    made = pipeline(frames, cameras, clip_id=clip_id)
    rgb, record = read_videos(study / "videos")
    assert np.array_equal(as_bytes(made.video), rgb[1])
    assert torch.equal(made.video[: len(frames)], frames)
    coverage = [None if x.isnan() else round(float(x), 4) for x in made.coverage]
    assert coverage == record["coverage"][1]
    other = pipeline(frames, cameras, clip_id=clip_id, seed=1)
    assert not np.array_equal(as_bytes(other.video), rgb[1])


def test_a_checkpoint_of_a_run_gives_the_same_pipeline(
    study: Path, pipeline: MemoryVideoPipeline
) -> None:
    job = JobSettings(load_config(study, scale="tiny")).rollout(VARIANT, PROTOCOL)
    made = from_checkpoint(
        job, keyframe_density=0.25, checkpoint=study / CHECKPOINT, base=study / CHECKPOINT,
        weights=study / TEACHER, basis=study / BASIS,
    )  # fmt: skip
    assert made.settings == pipeline.settings
    for name, component in made.components.items():
        own = getattr(pipeline, name)
        assert (component is None) == (own is None), name
        if component is not None:
            theirs = own.state_dict()
            assert {n: torch.equal(x, theirs[n]) for n, x in component.state_dict().items()} == (
                dict.fromkeys(theirs, True)
            )


def test_the_folder_is_whole_and_holds_nothing_but_weights_and_words(
    study: Path, pipeline: MemoryVideoPipeline, tmp_path: Path
) -> None:
    names = {path.relative_to(study / "pipeline").as_posix() for path in files(study / "pipeline")}
    parts = ("backbone", "control", "gate", "teacher", "basis")
    whole = {f"{p}/{f}" for p in parts for f in ("config.json", WEIGHTS)}
    assert names == {"README.md", "model_index.json"} | whole
    pipeline.save_pretrained(tmp_path)
    assert {p.suffix for p in files(tmp_path)} == {".json", ".safetensors"}
    for part in parts:
        saved, exported = tmp_path / part / WEIGHTS, study / "pipeline" / part / WEIGHTS
        assert saved.read_bytes() == exported.read_bytes()
    index = read_json(study / "pipeline/model_index.json")
    assert index["settings"] == pipeline.settings.recorded()
    assert not [key for p in files(study / "pipeline") if p.suffix == ".json"
                for key in read_json(p) if key == "_name_or_path"]  # fmt: skip


WEIGHTS = "diffusion_pytorch_model.safetensors"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_teacher_and_its_basis_come_back_as_the_tracked_files_have_them(
    pipeline: MemoryVideoPipeline,
) -> None:
    sizes: Any = load_config(ROOT, scale="tiny").settings.teacher.architecture
    tracked = load_teacher(ROOT / TEACHER, sizes)
    assert pipeline.teacher.vggt.config == tracked.config
    theirs = pipeline.teacher.vggt.state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in tracked.state_dict().items())
    basis, own = read_basis(ROOT / BASIS), pipeline.basis.basis
    assert (own.layer, own.unit, own.scale_prior, own.grid) == (
        basis.layer, basis.unit, basis.scale_prior, basis.grid
    )  # fmt: skip
    assert torch.equal(own.mean, basis.mean) and torch.equal(own.components, basis.components)


def test_the_memory_is_read_and_more_of_its_frames_change_the_video(
    pipeline: MemoryVideoPipeline, clip: tuple[Tensor, Tensor, str]
) -> None:
    frames, cameras, _ = clip
    made = {n: pipeline(frames, cameras, steps=1, memory_frames=n) for n in (0, 1, 4)}
    means = [made[n].coverage[len(frames) :].mean() for n in (0, 1, 4)]
    assert means[0] == 0 < means[1] < means[2]
    without = pipeline(frames, cameras, steps=1, memory_guidance=0.0, memory_frames=4)
    assert not torch.equal(made[4].video, without.video)


def test_what_does_not_fit_is_told_in_a_line(
    study: Path, pipeline: MemoryVideoPipeline, clip: tuple[Tensor, Tensor, str]
) -> None:
    frames, cameras, _ = clip
    told(lambda: pipeline(frames[:, :, :16], cameras), "(T0, 3, 32, 32)", "(6, 3, 16, 32)")
    told(lambda: pipeline(frames * 255, cameras), "[0, 1]", "255")
    told(lambda: pipeline(frames, cameras[:6]), "above the 6 given frames")
    told(lambda: pipeline(frames, cameras * 2), "rotation")
    told(lambda: pipeline(frames, cameras, steps=0), "steps = 0")
    told(lambda: pipeline(frames, cameras, guidance={"scheme": "none"}), "keyframes")
    told(lambda: pipeline(frames, cameras, memory_frames=-1), "memory_frames = -1")
    told(lambda: pipeline(frames, cameras, keyframe_density=0.01), "at least 2 are needed")
    plain = MemoryVideoPipeline(
        pipeline.backbone, settings=pipeline.settings.recorded() | {"memory": None}
    )
    told(lambda: plain(frames, cameras, memory_frames=4), "has no memory")
    told(lambda: MemoryVideoPipeline(pipeline.backbone), "`settings`", "resolution")
    for words, *arguments in (
        ("either `tracked` or --variant", "new"),
        ("either `tracked` or --variant", "new", "tracked", "--variant", "memory"),
        ("has no model_index.json", "config", "tracked"),
        ("--replace it", "pipeline", "tracked"),
        ("is a floor", "new", "--variant", "splat"),
        ("is not there; make it: snakemake", "new", "--variant", "memory_4"),
        ("has no tracked weights", "new", "tracked", "--scale", "smoke"),
    ):
        with chdir(study), pytest.raises(SystemExit, match=words):
            main(["export", "pipeline", *arguments])
    assert not (study / "new").exists()


def test_the_readme_s_five_lines_run_as_they_stand(study: Path) -> None:
    section = (ROOT / "README.md").read_text().split("## Use a model\n")[1].split("\n## ")[0]
    assert len(section.splitlines()) <= 12
    [command] = re.findall(r"`geomem (export [^`]+)`", section)
    [code] = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 5
    names: dict[str, Any] = {}
    with chdir(study):
        main(command.split())
        exec(code, names)
    video, truth = names["video"], example_clip("out_and_back")[0]
    assert video.shape == truth.shape and torch.equal(video[:16], truth[:16])
    errors = [((guess - truth[16:]) ** 2).mean() for guess in (video[16:], truth[15:16])]
    assert errors[0] < errors[1] / 4


def test_a_method_without_a_pipeline_is_refused(study: Path) -> None:
    job = JobSettings(load_config(study, scale="tiny")).rollout("worldmem", PROTOCOL)
    with pytest.raises(InputError, match="method worldmem has no pipeline"):
        from_checkpoint(
            job, keyframe_density=1, checkpoint=study, base=study, weights=None, basis=None
        )


@pytest.mark.parametrize("name", ["uvit_tiny", "vggt_plain", "vggt_tiny"])
def test_the_lines_on_a_card_of_tracked_weights_run_as_they_stand(study: Path, name: str) -> None:
    card = (ROOT / f"weights/{name}/README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    names: dict[str, Any] = {}
    with chdir(study):
        for command in re.findall(r"`geomem (export [^`]+)`", card):
            main([*command.split(), "--replace"])
        exec(code, names)
    if name == "uvit_tiny":
        assert names["video"].shape == names["frames"].shape
    else:
        depth = names["told"].depth
        assert depth.shape == (1, 4, 32, 32) and depth.min() > 0


def test_a_run_s_checkpoint_is_exported_with_what_its_videos_scored(
    study: Path, pipeline: MemoryVideoPipeline, clip: tuple[Tensor, Tensor, str]
) -> None:
    run, scores = "results/tiny/checkpoints/memory/seed0", "results/tiny/scores/memory_4/seed0"
    shutil.copytree(study / CHECKPOINT, study / run)
    shutil.copytree(ROOT / scores, study / scores)
    with chdir(study):
        main(["export", "pipeline", "run", "--variant", "memory_4"])
    own = MemoryVideoPipeline.from_pretrained(study / "run", local_files_only=True)
    assert own.settings.memory and own.settings.memory.most == 4
    frames, cameras, _ = clip
    made = [
        model(frames, cameras, steps=1, memory_frames=asked).video
        for model, asked in ((own, None), (pipeline, 4))
    ]
    assert torch.equal(*made)
    card = (study / "run/README.md").read_text()
    _, matter, _ = card.split("---\n", 2)
    [entry] = yaml.safe_load(matter)["model-index"]
    [replay] = [r for r in entry["results"] if r["dataset"]["name"] == "rooms_plain, spin_replay"]
    told = {metric["type"]: metric["value"] for metric in replay["metrics"]}
    psnr = read_json(study / scores / "spin_replay/frames.json")["per_clip"]["psnr"]
    assert told["psnr"] == round(fmean(psnr), 4)
    assert set(told) == {"psnr", "ssim", "efficientnet_lite0_distance"}
    made_by = read_provenance(study / run / "checkpoint.json")
    assert f"| settings | `{digest(made_by['settings'])}` |" in card
    assert "up to 4 finished frames" in card and "## Training data\n`rooms_plain`" in card


@pytest.mark.parametrize("kind", ["implicit", "raw", None])
def test_other_memories_and_none_come_back_from_a_folder(kind: str | None, tmp_path: Path) -> None:
    base = small_base()
    with_teacher = kind == "implicit"
    torch.manual_seed(0)
    teacher = VGGT(teacher_config(TINY)).eval()
    mean, components, _ = fit_basis(torch.randn(200, 32), CHANNELS)
    basis = FeatureBasis(layer=1, mean=mean, components=components, unit=1.3, scale_prior=0.7)
    branch = branch_on(base, kind) if with_teacher else {"control": None, "memory": None}
    if with_teacher:
        for parameter in branch["control"].zero_initialised_parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    memory = kind and {
        "kind": kind, "version": 1, "settings": SETTINGS[kind], "fewest": 1, "most": 2,
        "geometry": "teacher", "selection": "time", "overlap": {}, "channels": CHANNELS,
    }  # fmt: skip
    plain = {"scheme": "conditional"}
    sampling = {
        "window": 4, "keyframe_density": 0.5, "steps": 2, "level_power": 1.0, "keyframes": plain,
        "interpolation": plain, "memory_guidance": 1.0, "precision": "fp32", "seed": 0,
    }  # fmt: skip
    made = MemoryVideoPipeline(
        base,
        control=branch["control"],
        compress=branch["memory"],
        teacher=FrozenTeacher.of(teacher) if with_teacher else None,
        basis=TeacherBasis.of(basis) if with_teacher else None,
        settings={"resolution": SIZE, "sampling": sampling, "memory": memory},
    )
    made.save_pretrained(tmp_path)
    back = MemoryVideoPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert back.settings == made.settings
    given = torch.rand(2, 3, SIZE, SIZE)
    videos = [model(given, cameras()).video for model in (made, back)]
    assert torch.equal(*videos) and videos[0].isfinite().all()
    other = back(given, cameras(), seed=1).video
    assert not torch.equal(other, videos[0])
    if kind == "implicit":
        assert not torch.equal(back(given, cameras(), memory_guidance=0.0).video, videos[0])
