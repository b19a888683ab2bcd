"""Memory branch: silent at initialisation, trainable, and silent again without memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geomem.formats import write_checkpoint
from geomem.methods.dfot.method import VideoModel, build, make_gate
from geomem.methods.dfot.settings import UViTSettings
from geomem.methods.registry import MemoryFace
from geomem.networks.uvit.control import MemoryControl
from geomem.networks.uvit.model import UViT3DPose

MEMORY_CHANNELS = 5
SIZES: dict[str, Any] = {
    "channels": (16, 24, 32), "emb_channels": 16, "num_updown_blocks": (1, 2), "num_mid_blocks": 2,
    "num_heads": 2, "block_types": ("ResBlock", "TransformerBlock", "TransformerBlock"),
    "block_dropouts": (0.0, 0.0, 0.0),
}  # fmt: skip
Inputs = tuple[Tensor, Tensor, Tensor]


def make_base() -> UViT3DPose:
    """A frozen three-level base that stands in for a trained one: no part of it is zero."""
    torch.manual_seed(0)
    base = UViT3DPose(**SIZES, camera_channels=12)
    for parameter in base.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return base.eval().requires_grad_(False)


@pytest.fixture
def base() -> UViT3DPose:
    return make_base()


@pytest.fixture
def inputs() -> Inputs:
    torch.manual_seed(1)
    return torch.randn(2, 3, 3, 8, 8), torch.randn(2, 3), torch.randn(2, 3, 12, 8, 8)


@pytest.fixture
def memory() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(2, 3, MEMORY_CHANNELS, 8, 8)


def train(
    base: UViT3DPose, branch: MemoryControl, inputs: Inputs, memory: Tensor, steps: int
) -> None:
    optimizer = torch.optim.AdamW(branch.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        v = base(*inputs, control=branch(*inputs, memory))
        (v - memory[:, :, :3]).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("options", [{}, {"copy_middle": False}, {"stem_channels": 8}])
def test_output_is_the_base_bit_for_bit_at_initialisation(
    base: UViT3DPose, inputs: Inputs, memory: Tensor, options: dict[str, Any]
) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS, **options)
    residuals = branch(*inputs, memory)
    assert [tuple(r.shape[2:]) for r in residuals.down] == [(16, 4, 4), (24, 2, 2)]
    assert tuple(residuals.mid.shape) == (2, 3, 32, 1, 1)
    assert torch.equal(base(*inputs, control=residuals), base(*inputs))


def test_copied_parts_start_as_the_base_and_share_no_memory(base: UViT3DPose) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    source, own = base.state_dict(), branch.state_dict()
    copied = {name for name in source if not name.startswith(("up_blocks", "project_output"))}
    new = own.keys() - source.keys()
    assert own.keys() & source.keys() == copied
    assert all(name.startswith(("memory_stem", "zero_projections")) for name in new)
    for name in copied:
        assert torch.equal(own[name], source[name])
        assert own[name].data_ptr() != source[name].data_ptr()


def test_without_middle_the_branch_has_none(base: UViT3DPose) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS, copy_middle=False)
    assert not [name for name, _ in branch.named_parameters() if name.startswith("mid_blocks")]


def test_own_blocks_learn_after_one_step_and_the_base_does_not(
    base: UViT3DPose, inputs: Inputs, memory: Tensor
) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    train(base, branch, inputs, memory, steps=1)
    base(*inputs, control=branch(*inputs, memory)).square().mean().backward()

    # A downsampling after the last projection feeds the middle, so every parameter has a way out.
    silent = [name for name, p in branch.named_parameters() if p.grad is None or not p.grad.any()]
    # The stem's features wait one step more: until then their own projection is zero.
    assert all(name.startswith("memory_stem.features") for name in silent), silent
    assert all(p.grad is None for p in base.parameters())
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_every_parameter_learns_after_two_steps(
    base: UViT3DPose, inputs: Inputs, memory: Tensor
) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    train(base, branch, inputs, memory, steps=2)
    base(*inputs, control=branch(*inputs, memory)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in branch.parameters())


def test_different_maps_give_different_outputs_after_two_steps(
    base: UViT3DPose, inputs: Inputs, memory: Tensor
) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    train(base, branch, inputs, memory, steps=2)
    with torch.no_grad():
        first = base(*inputs, control=branch(*inputs, memory))
        second = base(*inputs, control=branch(*inputs, memory.flip(0)))
    assert (first - second).abs().max() > 1e-4


def test_training_on_the_map_beats_the_base(
    base: UViT3DPose, inputs: Inputs, memory: Tensor
) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    train(base, branch, inputs, memory, steps=60)
    target = memory[:, :, :3]
    with torch.no_grad():
        with_memory = (base(*inputs, control=branch(*inputs, memory)) - target).square().mean()
        dropped = branch(*inputs, torch.zeros_like(memory))
        with_nothing = (base(*inputs, control=dropped) - target).square().mean()
        alone = (base(*inputs) - target).square().mean()
    assert with_memory < 0.5 * alone
    assert with_memory < 0.5 * with_nothing  # it reads the map, not only its own biases


def test_dropped_memory_is_the_base_for_those_clips_alone(
    base: UViT3DPose, inputs: Inputs, memory: Tensor
) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    train(base, branch, inputs, memory, steps=2)
    memory_mask = torch.tensor([True, False])
    with torch.no_grad():
        alone = base(*inputs)
        full = base(*inputs, control=branch(*inputs, memory))
        mixed = base(*inputs, control=branch(*inputs, memory, memory_mask=memory_mask))
    assert torch.equal(mixed[0], alone[0])
    assert torch.equal(mixed[1], full[1])
    assert not torch.equal(full[0], alone[0])


def test_camera_mask_and_given_embedding(base: UViT3DPose, inputs: Inputs, memory: Tensor) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    train(base, branch, inputs, memory, steps=2)
    x, noise, rays = inputs
    camera_mask = torch.tensor([True, False])
    emb = branch.camera_embedding(rays)
    by_mask = branch(x, noise, rays, memory, camera_mask).down[0]
    by_hand = branch(
        x, noise, None, memory, camera_embedding=emb * ~camera_mask.view(-1, 1, 1, 1, 1)
    ).down[0]
    torch.testing.assert_close(by_mask, by_hand)
    assert not torch.allclose(by_mask[0], branch(x, noise, rays, memory).down[0][0])


def test_zero_initialised_parameters_are_exactly_those(base: UViT3DPose) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    listed = {id(p) for p in branch.zero_initialised_parameters()}
    zero = {id(p) for p in branch.parameters() if not p.any()}
    assert listed == zero


def test_checkpointing_keeps_the_gradients(
    base: UViT3DPose, inputs: Inputs, memory: Tensor
) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    train(base, branch, inputs, memory, steps=2)
    grads = []
    for _ in range(2):
        branch.zero_grad()
        base(*inputs, control=branch(*inputs, memory)).square().mean().backward()
        grads.append({name: p.grad for name, p in branch.named_parameters()})
        branch.enable_gradient_checkpointing()
    torch.testing.assert_close(grads[0], grads[1])


def test_save_and_load_round_trip(
    base: UViT3DPose, inputs: Inputs, memory: Tensor, tmp_path: Path
) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    train(base, branch, inputs, memory, steps=1)
    branch.save_pretrained(tmp_path)
    loaded = MemoryControl.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.state_dict(), branch.state_dict(), rtol=0, atol=0)
    with torch.no_grad():
        expected, got = branch(*inputs, memory), loaded(*inputs, memory)
    # Not bit for bit: kernels may differ by how the file's memory happens to be aligned.
    torch.testing.assert_close([*got.down, got.mid], [*expected.down, expected.mid])


@pytest.mark.parametrize("shape", [(2, 3, 4, 8, 8), (2, 3, 5, 4, 4), (1, 3, 5, 8, 8)])
def test_map_of_a_wrong_shape_is_refused(
    base: UViT3DPose, inputs: Inputs, shape: tuple[int, ...]
) -> None:
    branch = MemoryControl.from_base(base, MEMORY_CHANNELS)
    with pytest.raises(ValueError, match="memory map of shape"):
        branch(*inputs, torch.zeros(shape))


def test_a_base_whose_frames_see_no_later_one_gets_no_branch() -> None:
    sizes = {name: x for name, x in make_base().config.items() if not name.startswith("_")}
    causal = UViT3DPose(**sizes | {"frame_causal": True})
    with pytest.raises(ValueError, match="sees all frames"):
        MemoryControl.from_base(causal, MEMORY_CHANNELS)


@pytest.mark.parametrize("new", [False, True])
def test_a_branch_goes_on_from_that_of_its_start_unless_a_new_one_is_asked_for(
    base: UViT3DPose, tmp_path: Path, new: bool
) -> None:
    face = MemoryFace(
        form="maps",
        channels={"rgb": 3, "coverage": 1},
        settings=None,
        trains_backbone=True,
        gate=True,
        new_branch=new,
    )
    started = VideoModel(base, control=MemoryControl.from_base(base, 4), gate=make_gate(face))
    for parameter in started.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    write_checkpoint(tmp_path, started.trained_modules(), {}, {}, [])
    made = build(UViTSettings(**SIZES), memory=face, initial=tmp_path)
    pairs = zip(made.backbone.parameters(), base.parameters(), strict=True)
    assert all(p.equal(q) for p, q in pairs)
    assert any(parameter.any() for parameter in made.ends()) is not new
