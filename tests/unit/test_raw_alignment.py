"""Alignment with raw tokens of a chosen layer, of whole windows or of the aligned frames alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import EXPERIMENTS, ROOT, Edit, edit_yaml, run_stage, write_fake_clips
from geomem.config import JobSettings, load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.formats.teachers import load_teacher
from geomem.memory.reconstruction import raw_features
from geomem.training.build import RawTeacher, online_teacher
from geomem.training.data import open_dataset
from training_cases import learn, objective_of

WEIGHTS = ROOT / "weights/vggt_tiny/model.safetensors"


@pytest.mark.parametrize("sees", ["window", "aligned"])
def test_raw_tokens_of_the_layer_guide_without_basis_or_cache(project: Path, sees: str) -> None:
    alignment = {"level": 2, "depth": 0.5, "frames": 2, "teacher_sees": sees}
    variant = {"plan": "train", "recipe": "base", "alignment": alignment}
    edit_yaml(project / EXPERIMENTS, variants__tuned_seen_2=variant)
    write_fake_clips(project / "clips", clips=6, frames=24, size=32)
    run_stage(project, "clips", "plan", "train.json", "--plan", "train", "--clips", "clips")
    config = load_config(project)
    settings = JobSettings(config).training("tuned_seen_2", 0)
    assert settings.features is None and config.caches_of("tuned_seen_2") == {}
    assert "basis" not in Dag(config).checkpoint("tuned_seen_2", 0).inputs
    with pytest.raises(InputError, match="needs --weights"):
        online_teacher(settings, None, None)
    teacher = online_teacher(settings, WEIGHTS, None)
    assert isinstance(teacher, RawTeacher) and teacher.layer == 1  # of four
    dataset = open_dataset(project / "clips", project / "train.json", settings)
    frames = dataset[0]["frames"][None]
    seen = frames if sees == "window" else frames[:, [0, 3]]
    assert settings.alignment is not None and settings.alignment.online is not None
    vggt = load_teacher(WEIGHTS, **settings.alignment.online.model_dump())
    expected = vggt.aggregate((seen + 1) / 2, last_layer=1)[1][:, :, 5:]  # after special tokens
    torch.testing.assert_close(teacher.tokens(frames).flatten(-2).mT, expected)
    torch.manual_seed(0)
    model = objective_of(settings)
    assert model.projector.config["teacher_channels"] == expected.shape[-1]
    before = {name: p.detach().clone() for name, p in model.projector.named_parameters()}
    log = learn(model, dataset, settings, project / "state", teacher=teacher)
    assert {n for n in log[-1] if n.startswith("align_")} == {"align_angular", "align_scale"}
    assert not all(torch.equal(p, before[n]) for n, p in model.projector.named_parameters())


def test_what_the_teacher_sees_changes_what_it_says_of_a_frame() -> None:
    sizes = JobSettings(load_config(ROOT, scale="smoke")).teacher_model()
    vggt = load_teacher(WEIGHTS, **sizes.model_dump())
    images = torch.rand(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole, alone = (raw_features(vggt, shown, layer=3) for shown in (images, images[:, [0, 3]]))
    assert whole.shape[1:3] == (4, 192) and alone.shape[1] == 2
    assert not torch.allclose(whole[:, [0, 3]], alone, atol=1e-2)


@pytest.mark.parametrize(
    ("alignment", "told"),
    [
        ({"level": 2, "depth": 0.5, "teacher": "2d", "objective": "repa"}, "of the 3D teacher"),
        ({"level": 2, "teacher_sees": "aligned"}, "cached features are of whole windows"),
        ({"level": 2, "depth": 1.5}, "less than or equal to 1"),
    ],
)
def test_what_raw_tokens_cannot_be_is_told(
    edit: Edit, alignment: dict[str, Any], told: str
) -> None:
    root = edit(EXPERIMENTS, "variants.tuned_seen_2.alignment", alignment)
    with pytest.raises(InputError, match=told):
        load_config(root, scale="smoke")


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_rows_say_which_layer_and_whether_tokens_were_compressed(scale: str) -> None:
    config = load_config(ROOT, scale=scale)
    rows = {r.variant: r.label for r in config.tables["alignment_layers_table"].rows}
    depth, kept = config.settings.teacher.depth, config.settings.features
    assert rows["tuned_raw"] == f"state 2, layer {depth - 1}, raw tokens"
    assert rows["tuned_raw_half"] == f"state 2, layer {depth // 2 - 1}, raw tokens"
    compressed = f"state 2, layer {kept.layer}, compressed to {kept.channels} numbers"
    assert rows["tuned_repa"] == compressed
