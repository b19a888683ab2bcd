"""What a branch starts from: a checkpoint's own, however its memory is read."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import ROOT
from geomem.config import JobSettings, load_config
from geomem.formats import write_checkpoint
from geomem.formats.records import provenance
from geomem.methods.dfot.method import VideoModel, build
from geomem.settings.jobs import TrainingJob

STEM = "memory_stem."


def job(variant: str) -> TrainingJob:
    return JobSettings(load_config(ROOT, scale="smoke")).training(variant, 0)


def built(variant: str, *, initial: Path | None, new: bool = False) -> VideoModel:
    settings = job(variant)
    assert settings.memory
    face = replace(settings.memory.face, new_branch=new)
    return build(settings.method.settings, memory=face, initial=initial)


def saved(model: VideoModel, folder: Path) -> Path:
    """Write a checkpoint of a model whose every weight is its own."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.02, generator=generator)
    made_by = provenance("training", 1, job("memory"), {})
    write_checkpoint(folder, model.trained_modules(), made_by, {}, [])
    return folder


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """A checkpoint whose branch reads maps."""
    return saved(built("memory", initial=None), tmp_path / "maps")


def test_a_branch_of_tokens_starts_as_one_of_maps_but_for_how_its_memory_enters(maps: Path) -> None:
    branch = built("memory", initial=maps).control
    made = built("memory_4_implicit", initial=maps).control
    assert branch and made
    own = made.state_dict()
    for name, value in branch.state_dict().items():
        if not name.startswith(STEM):
            assert own[name].equal(value), name
    # its reader ends in zeros
    assert all(not p.any() for p in made.memory_stem.get_submodule("zero_proj").parameters())


def test_a_new_branch_is_the_backbone_s_own(maps: Path) -> None:
    model = built("memory_4_implicit", initial=maps, new=True)
    assert model.control
    backbone = model.backbone.state_dict()
    for name, value in model.control.state_dict().items():
        if name in backbone:
            assert value.equal(backbone[name]), name
    assert not any(p.any() for p in model.control.zero_projections.parameters())


def test_an_implicit_memory_goes_on_from_one(tmp_path: Path) -> None:
    folder = saved(built("memory_4_implicit", initial=None), tmp_path / "tokens")
    first, again = (built("memory_4_implicit", initial=folder) for _ in range(2))
    assert first.memory and first.control
    for name, value in first.state_dict().items():
        assert value.equal(again.state_dict()[name]), name
    assert any(p.any() for p in first.control.zero_projections.parameters())


def test_what_lies_behind_a_zero_end_is_trained_where_adam_s_eps_lets_it() -> None:
    """Gradients of 1e-10 move nothing at the usual eps: its recipe has a smaller one."""
    recipes = load_config(ROOT, scale="smoke").settings.recipes
    assert recipes["branch"].eps == 1e-12 and "eps" not in recipes["memory"].model_dump()
    moved = {}
    for name in ("branch", "memory"):
        weight = nn.Parameter(torch.zeros(()))
        optimizer = torch.optim.AdamW([weight], lr=1e-3, eps=recipes[name].eps, weight_decay=0)
        for _ in range(10):
            weight.grad = torch.tensor(1e-10)
            optimizer.step()
        moved[name] = -weight.item()
    assert moved["branch"] > 0.0095 and moved["memory"] < 0.0002
