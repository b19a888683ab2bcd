"""The 2D teacher: official DINOv2 files, the encoder that stands in, and the training it guides."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from conftest import ROOT, edit_yaml, run_stage, told, write_fake_clips
from geomem.config import JobSettings, load_config
from geomem.formats import InputError
from geomem.formats.teachers import load_image_teacher, load_teacher
from geomem.networks.dinov2 import image_tokens, load_dinov2
from geomem.networks.vggt.layers import IMAGENET_MEAN, IMAGENET_STD, PatchEmbedder
from geomem.settings.jobs import ImageTeacherModel, TrainingJob
from geomem.training.build import OnlineImageTeacher, online_teacher
from geomem.training.data import WindowDataset, open_dataset
from geomem.training.objective import Objective
from training_cases import learn, objective_of

SIZES = {"embed_dim": 16, "depth": 2, "num_heads": 2, "image_size": 28, "patch_size": 14}
WEIGHTS = ROOT / "weights/vggt_tiny/model.safetensors"


def official() -> dict[str, Tensor]:
    """Tensors by the names and in the shapes that DINOv2 publishes, in small."""
    torch.manual_seed(0)
    dim, state = SIZES["embed_dim"], {}
    state["cls_token"] = torch.randn(1, 1, dim)
    state["pos_embed"] = torch.randn(1, 1 + 2 * 2, dim)
    state["register_tokens"] = torch.randn(1, 4, dim)
    state["mask_token"] = torch.zeros(1, dim)
    state["patch_embed.proj.weight"] = torch.randn(dim, 3, 14, 14) / 20
    state["patch_embed.proj.bias"] = torch.randn(dim)
    for i in range(SIZES["depth"]):
        for name, rows, columns in (
            ("attn.qkv", 3 * dim, dim),
            ("attn.proj", dim, dim),
            ("mlp.fc1", 4 * dim, dim),
            ("mlp.fc2", dim, 4 * dim),
        ):
            state[f"blocks.{i}.{name}.weight"] = torch.randn(rows, columns) / 4
            state[f"blocks.{i}.{name}.bias"] = torch.randn(rows)
        for name in ("norm1.weight", "norm1.bias", "ls1.gamma"):
            state[f"blocks.{i}.{name}"] = torch.rand(dim)
            state[f"blocks.{i}.{name.replace('1', '2')}"] = torch.rand(dim)
    state["norm.weight"], state["norm.bias"] = torch.rand(dim), torch.rand(dim)
    return state


def write(folder: Path, state: dict[str, Tensor], suffix: str) -> Path:
    path = folder / f"dinov2{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    return path


def test_names_are_those_that_vggt_has_its_dinov2_under() -> None:
    golden = json.loads((ROOT / "tests/fixtures/vggt_1b_state_dict_keys.json").read_text())["keys"]
    prefix = "aggregator.patch_embed."
    published = {
        name.removeprefix(prefix): shape
        for name, shape in golden.items()
        if name.startswith(prefix)
    }
    with torch.device("meta"):
        large = PatchEmbedder(1024, depth=24, num_heads=16, image_size=518, patch_size=14)
    assert {name: list(x.shape) for name, x in large.state_dict().items()} == published
    blocks = {name for name in published if not name.startswith("blocks.")}
    assert blocks | {n for n in published if n.startswith(("blocks.0.", "blocks.1."))} == set(
        official()
    )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_tensor_of_an_official_file_arrives_frozen(tmp_path: Path, suffix: str) -> None:
    state = official()
    model = load_dinov2(write(tmp_path, state, suffix), **SIZES)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[name], x) for name, x in state.items())


def test_a_file_without_registers_or_of_other_sizes_is_refused(tmp_path: Path) -> None:
    plain = {name: x for name, x in official().items() if name != "register_tokens"}
    with pytest.raises(
        ValueError, match=r"with registers: 1 missing.*register_tokens \(1, 4, 16\)"
    ):
        load_dinov2(write(tmp_path, plain, ".pth"), **SIZES)
    path = write(tmp_path, official(), ".pth")
    with pytest.raises(ValueError, match=r"reshaped tensors"):
        load_dinov2(path, **SIZES | {"embed_dim": 32})
    told(lambda: load_image_teacher(path, sha256="0" * 64, **SIZES), "dinov2.pth")


def test_missing_damaged_and_unsafe_files_are_told_in_one_line(tmp_path: Path) -> None:
    def load(path: Path) -> PatchEmbedder:
        return load_image_teacher(path, sha256="", **SIZES)

    told(lambda: load(tmp_path / "none.pth"), "none.pth", "bring it again")
    for suffix in (".pth", ".safetensors"):
        path = write(tmp_path, official(), suffix)
        path.write_bytes(path.read_bytes()[:500])
        told(partial(load, path), path.name, "bring it again")
    torch.save({"cls_token": Path("/")}, tmp_path / "unsafe.pth")
    told(lambda: load(tmp_path / "unsafe.pth"), "unsafe.pth", "cannot be")


def test_tokens_are_those_of_normalised_images_each_by_itself(tmp_path: Path) -> None:
    model = load_dinov2(write(tmp_path, official(), ".pth"), **SIZES)
    images = torch.rand(2, 3, 3, 28, 28)
    tokens = image_tokens(model, images, size=28)
    assert tokens.shape == (2, 3, 16, 2, 2)
    mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    alone = model((images[1, 2] - mean)[None] / std)[0]
    torch.testing.assert_close(tokens[1, 2].flatten(1).T, alone)
    # twice the pixels, and position embeddings resized: a finer grid of like tokens
    assert image_tokens(model, images, size=56).shape == (2, 3, 16, 4, 4)


@pytest.fixture
def aligned(project: Path) -> Path:
    """A project with clips and a plan in which `repa` is aligned with the 2D teacher."""
    alignment = {"level": 1, "objective": "repa", "teacher": "2d"}
    edit_yaml(project / "config/experiments.yaml", variants__repa__alignment=alignment)
    write_fake_clips(project / "clips", clips=6, frames=24, size=32)
    run_stage(project, "clips", "plan", "train.json", "--plan", "train", "--clips", "clips")
    return project


def prepare(project: Path) -> tuple[TrainingJob, WindowDataset, Objective]:
    settings = JobSettings(load_config(project)).training("repa", 0)
    dataset = open_dataset(project / "clips", project / "train.json", settings)
    torch.manual_seed(0)
    return settings, dataset, objective_of(settings)


def image_teacher_of(settings: TrainingJob) -> ImageTeacherModel:
    assert settings.alignment is not None and settings.alignment.image_teacher is not None
    return settings.alignment.image_teacher


def test_without_dinov2_the_encoder_of_the_3d_teacher_stands_in_and_guides(aligned: Path) -> None:
    settings, dataset, model = prepare(aligned)
    stand_in = image_teacher_of(settings).encoder_of
    assert image_teacher_of(settings).dinov2 is None and stand_in is not None
    assert load_config(aligned).caches_of("repa") == {}
    with pytest.raises(InputError, match="2D teacher needs --weights"):
        online_teacher(settings, None, None)
    teacher = online_teacher(settings, WEIGHTS, None)
    assert isinstance(teacher, OnlineImageTeacher)
    vggt = load_teacher(WEIGHTS, **stand_in.model_dump())
    frames = dataset[0]["frames"][None]
    # what VGGT itself goes on with, after its special tokens
    inside = vggt.aggregator.embed((frames + 1) / 2)[:, :, 5:]
    torch.testing.assert_close(teacher.tokens(frames).flatten(-2).mT, inside)
    before = {name: p.detach().clone() for name, p in model.projector.named_parameters()}
    log = learn(model, dataset, settings, aligned / "state", teacher=teacher)
    assert {name for name in log[-1] if name.startswith("align_")} == {"align_repa"}
    assert all(-1 <= entry["cosine"] <= 1 for entry in log)
    assert not any(torch.equal(p, before[n]) for n, p in model.projector.named_parameters())


def test_with_a_dinov2_file_that_is_the_teacher(aligned: Path) -> None:
    path = write(aligned, official(), ".pth")
    scale = aligned / "config/scales/smoke.yaml"
    edit_yaml(scale, image_teacher={**SIZES, "weights": "dinov2.pth"})
    config = load_config(aligned)
    assert config.online_weights_of("repa") == "dinov2.pth"
    settings, dataset, model = prepare(aligned)
    assert image_teacher_of(settings).encoder_of is None
    teacher = online_teacher(settings, path, None)
    assert isinstance(teacher, OnlineImageTeacher)
    frames = dataset[0]["frames"][None]
    expected = image_tokens(load_dinov2(path, **SIZES), (frames + 1) / 2, size=28)
    assert torch.equal(teacher.tokens(frames), expected)
    assert model.projector.config["teacher_channels"] == SIZES["embed_dim"]


def test_captions_tell_what_stands_in_for_dinov2(aligned: Path) -> None:
    def stands_in(table: str) -> str:
        return JobSettings(load_config(aligned)).table(table).stands_in

    assert stands_in("ablation_table1").endswith(
        "; the image encoder of vggt_tiny for DINOv2, the 2D teacher"
    )
    assert "DINOv2" in stands_in("main_table")
    assert "DINOv2" not in stands_in("base_table")
    edit_yaml(aligned / "config/scales/smoke.yaml", image_teacher={"weights": "dinov2.pth"})
    assert "DINOv2" not in stands_in("ablation_table1")
