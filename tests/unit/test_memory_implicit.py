"""Implicit memory: fixed size, deaf to padding, silent at initialisation, and it learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_control import Inputs, make_base
from torch import Tensor
from torch.nn.functional import pad

from geomem.geometry.rays import RAY_CHANNELS, camera_rays, encode_cameras
from geomem.memory.implicit import History
from geomem.memory.registry import KINDS
from geomem.networks.uvit.control import MemoryControl
from geomem.networks.uvit.implicit import ImplicitControl, ImplicitMemory, RayReader, sphere
from geomem.networks.uvit.model import UViT3DPose

FEATURES, GRID, WIDTH, QUERIES = 3, 4, 16, 6
CHANNELS = sum(KINDS["implicit"].channels(FEATURES).values())


def camera(x: float) -> Tensor:
    pose = torch.eye(3, 4)
    pose[0, 3] = -x
    return torch.cat([torch.tensor([0.8, 0.8, 0.5, 0.5]), pose.flatten()])


def read(known: int, *, first: float = 0.0) -> dict[str, Tensor]:
    """What a target camera at `first` reads of a history of so many frames."""
    torch.manual_seed(3)
    features = torch.randn(8, FEATURES, GRID, GRID)[:known]
    cameras = torch.stack([camera(0.1 * i) for i in range(known)])
    targets = torch.stack([camera(first), camera(9.0)])  # rays are relative to the first alone
    return History(features=features, cameras=cameras).read(targets, 32)


def history(known: int, *, frames: int | None = None, first: float = 0.0) -> Tensor:
    """The same as a network takes it, padded with zeros as the training loader does."""
    together = torch.cat(list(read(known, first=first).values()), dim=1)
    return pad(together, (*(0, 0) * 3, 0, (frames or known) - known))


@pytest.fixture
def memory() -> ImplicitMemory:
    torch.manual_seed(4)
    return ImplicitMemory(CHANNELS, queries=QUERIES, width=WIDTH, heads=2, layers=2)


@pytest.fixture
def base() -> UViT3DPose:
    return make_base()


@pytest.fixture
def branch(base: UViT3DPose) -> ImplicitControl:
    torch.manual_seed(5)
    return ImplicitControl.from_base(base, WIDTH)


@pytest.fixture
def inputs() -> Inputs:
    torch.manual_seed(1)
    return torch.randn(2, 3, 3, 8, 8), torch.randn(2, 3), torch.randn(2, 3, 12, 8, 8)


@pytest.fixture
def histories() -> Tensor:
    return torch.stack([history(4), history(4).flip(0)])


def train(
    base: UViT3DPose,
    memory: ImplicitMemory,
    branch: ImplicitControl,
    inputs: Inputs,
    histories: Tensor,
    *,
    steps: int,
) -> float:
    """Train towards frames that only the memory tells; return the last loss."""
    goal = histories[:, :3, :3].mean((-2, -1), keepdim=True)
    optimizer = torch.optim.AdamW([*memory.parameters(), *branch.parameters()], lr=1e-2)
    loss = torch.tensor(0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        v = base(*inputs, control=branch(*inputs, memory(histories)))
        loss = (v - goal).square().mean()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def test_a_history_holds_features_rays_and_presence() -> None:
    found = read(2, first=0.5)
    widths = {"features": FEATURES, "rays": RAY_CHANNELS, "presence": 1}
    assert {name: tuple(x.shape) for name, x in found.items()} == {
        name: (2, width, GRID, GRID) for name, width in widths.items()
    }
    assert list(found) == list(KINDS["implicit"].channels(FEATURES))
    assert KINDS["implicit"].channels(FEATURES) == widths
    torch.manual_seed(3)
    assert torch.equal(found["features"], torch.randn(8, FEATURES, GRID, GRID)[:2])
    assert (found["presence"] == 1).all()
    # the same rays as the window would get, were the frames its own
    window = torch.stack([camera(0.5), camera(0.0), camera(0.1)])[None]
    assert torch.equal(found["rays"], encode_cameras(window, GRID)[0, 1:])
    assert not torch.equal(found["rays"], read(2, first=0.0)["rays"])


def test_histories_that_do_not_fit_are_refused() -> None:
    features, cameras = torch.zeros(2, FEATURES, GRID, GRID), camera(0)[None]
    with pytest.raises(ValueError, match="2 frames, 1 cameras"):
        History(features=features, cameras=cameras)


@pytest.mark.parametrize("frames", [1, 2, 4, 8])
def test_size_is_fixed_whatever_the_number_of_frames(memory: ImplicitMemory, frames: int) -> None:
    assert memory(history(frames)[None]).shape == (1, QUERIES, WIDTH)


def test_one_frame_and_four_give_different_memories(memory: ImplicitMemory) -> None:
    one, four = memory(history(1)[None]), memory(history(4)[None])
    assert (one - four).abs().max() > 1e-2


def test_where_a_frame_was_seen_from_matters(memory: ImplicitMemory) -> None:
    here, there = memory(history(1)[None]), memory(history(1, first=0.3)[None])
    assert (here - there).abs().max() > 1e-2


def test_padding_has_no_influence_not_even_as_nan(memory: ImplicitMemory) -> None:
    padded = history(2, frames=4)[None]
    garbage = padded.clone()
    garbage[:, 2:, :-1] = torch.nan
    expected = memory(padded)
    assert torch.equal(memory(garbage), expected)
    torch.testing.assert_close(memory(history(2)[None]), expected)
    memory(garbage).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in memory.parameters())


def test_an_empty_history_is_finite_and_the_same_for_all(memory: ImplicitMemory) -> None:
    empty = torch.zeros(2, 4, CHANNELS, GRID, GRID)
    empty[1, :, :-1] = 7.0
    out = memory(empty)
    assert out.isfinite().all()
    assert torch.equal(out[0], out[1])


def test_output_is_the_base_bit_for_bit_at_initialisation(
    base: UViT3DPose,
    memory: ImplicitMemory,
    branch: ImplicitControl,
    inputs: Inputs,
    histories: Tensor,
) -> None:
    residuals = branch(*inputs, memory(histories))
    assert [tuple(r.shape[2:]) for r in residuals.down] == [(16, 4, 4), (24, 2, 2)]
    assert torch.equal(base(*inputs, control=residuals), base(*inputs))


def test_copied_parts_and_zero_ends_are_those_of_the_explicit_branch(
    base: UViT3DPose, branch: ImplicitControl
) -> None:
    explicit, own = MemoryControl.from_base(base, 5).state_dict(), branch.state_dict()
    names = {name for name in explicit if not name.startswith("memory_stem.")}
    assert names == {name for name in own if not name.startswith("memory_stem.")}
    assert all(torch.equal(own[name], explicit[name]) for name in names)
    listed = {id(p) for p in branch.zero_initialised_parameters()}
    ends = ("memory_stem.zero_proj", "zero_projections")
    assert listed == {id(p) for name, p in branch.named_parameters() if name.startswith(ends)}
    assert not any(p.any() for p in branch.zero_initialised_parameters())


def test_queries_layers_and_own_blocks_learn_and_the_base_does_not(
    base: UViT3DPose,
    memory: ImplicitMemory,
    branch: ImplicitControl,
    inputs: Inputs,
    histories: Tensor,
) -> None:
    before = {name: value.clone() for name, value in base.state_dict().items()}
    train(base, memory, branch, inputs, histories, steps=2)
    base(*inputs, control=branch(*inputs, memory(histories))).square().mean().backward()
    modules = (*memory.named_parameters(), *branch.named_parameters())
    assert [name for name, p in modules if p.grad is None or not p.grad.any()] == []
    assert all(p.grad is None for p in base.parameters())
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_trained_it_tells_histories_apart(
    base: UViT3DPose, memory: ImplicitMemory, branch: ImplicitControl, inputs: Inputs
) -> None:
    """Queries from random weights do not in 120 steps."""
    bright = torch.cat([torch.ones(4, FEATURES, GRID, GRID), history(4)[:, FEATURES:]], dim=1)
    dark = torch.cat([-bright[:, :FEATURES], bright[:, FEATURES:]], dim=1)
    histories = torch.stack([bright, dark])
    x, noise, rays = inputs
    alike = (x[:1].expand_as(x), noise[:1].expand_as(noise), rays[:1].expand_as(rays))
    assert train(base, memory, branch, alike, histories, steps=60) < 0.5
    with torch.no_grad():
        shown = base(*alike, control=branch(*alike, memory(histories)))
        exchanged = base(*alike, control=branch(*alike, memory(histories.flip(0))))
    torch.testing.assert_close(exchanged, shown.flip(0))
    assert (shown[0] - shown[1]).mean() > 1  # the goals are 1 and -1


def test_queries_and_patches_begin_by_looking_in_their_direction() -> None:
    torch.manual_seed(0)
    memory = ImplicitMemory(CHANNELS, queries=64, width=64, heads=4, layers=1)
    ahead = camera(0.0)[None]
    rays = encode_cameras(ahead[None], 8)[0, 0].flatten(1).T  # of one frame's patches
    tokens = torch.cat([torch.randn(len(rays), FEATURES), rays], dim=1)
    likeness = memory.learned_queries @ memory.embed(tokens).T  # (64, 64)
    directions = camera_rays(ahead[None], 8)[0, 0, ..., 3:].flatten(0, 1)
    angles = sphere(64) @ (directions / directions.norm(dim=-1, keepdim=True)).T
    near, far = likeness[angles > 0.97], likeness[angles < 0.5]
    assert near.mean() > far.mean() + 10  # half of it is that all look from one place

    torch.manual_seed(1)
    reader = RayReader(64, 8, 8, places=RAY_CHANNELS, hidden=64, heads=4)
    reader.ask_as(memory)
    asked, told = reader.ask(rays), reader.memory_in(memory.norm(memory.learned_queries))
    likeness = told @ asked.T
    near, far = likeness[angles > 0.97], likeness[angles < 0.5]
    assert near.mean() > far.mean() + (likeness.std() / 2)


def test_dropped_memory_is_the_base_for_those_clips_alone(
    base: UViT3DPose,
    memory: ImplicitMemory,
    branch: ImplicitControl,
    inputs: Inputs,
    histories: Tensor,
) -> None:
    train(base, memory, branch, inputs, histories, steps=2)
    with torch.no_grad():
        alone, tokens = base(*inputs), memory(histories)
        full = base(*inputs, control=branch(*inputs, tokens))
        residuals = branch(*inputs, tokens, memory_mask=torch.tensor([True, False]))
        mixed = base(*inputs, control=residuals)
    assert torch.equal(mixed[0], alone[0])
    assert torch.equal(mixed[1], full[1])
    assert not torch.equal(full[0], alone[0])


def test_save_and_load_round_trip(
    memory: ImplicitMemory, branch: ImplicitControl, tmp_path: Path
) -> None:
    for module, name in ((memory, "memory"), (branch, "control")):
        module.save_pretrained(tmp_path / name)
        loaded = type(module).from_pretrained(tmp_path / name)
        torch.testing.assert_close(loaded.state_dict(), module.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, QUERIES, WIDTH + 1), (1, QUERIES, WIDTH), (2, 3, 5, 8, 8)])
def test_memory_of_a_wrong_shape_is_refused(
    branch: ImplicitControl, inputs: Inputs, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="memory of shape"):
        branch(*inputs, torch.zeros(shape))


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="does not split into 3 heads"):
        ImplicitMemory(9, queries=2, width=16, heads=3, layers=1)


def test_the_branch_is_built_for_any_number_of_heads() -> None:
    sizes: dict[str, Any] = {"emb_channels": 18, "num_updown_blocks": (1,), "num_mid_blocks": 1}
    blocks = {"block_types": ("ResBlock", "TransformerBlock"), "block_dropouts": (0.0, 0.0)}
    for heads, width in ((9, 72), (6, 66), (2, 64)):  # 64 is what the stem has, at the least
        base = UViT3DPose((heads * 4, heads * 8), **sizes, **blocks, num_heads=heads)
        stem = ImplicitControl.from_base(base, WIDTH).memory_stem
        assert stem.ask.out_features == width
