"""AR-Diffusion: noise that never falls along time, and frames that never see the future."""

from itertools import pairwise
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from test_rollouts_memory import small_base
from torch import Tensor

from conftest import ROOT, write_fake_clips
from geomem.config import JobSettings, load_config
from geomem.diffusion.autoregressive import (
    draw_non_decreasing,
    sample_trailing,
    sequence_counts,
    trailing_schedule,
)
from geomem.diffusion.rollout_plans import plan_rollout
from geomem.diffusion.schedule import CosineSchedule
from geomem.formats.checkpoints import write_checkpoint
from geomem.methods.ar_diffusion.method import ARModel, ARSampler, build
from geomem.networks.uvit.layers import TransformerBlock
from geomem.networks.uvit.model import UViT3DPose
from geomem.rollouts.protocols import LoadedVariant, run_protocol

CPU = torch.device("cpu")
CLEAN = CosineSchedule(shift=1.0).sampling_noise_levels(torch.tensor(0))


def causal_base() -> UViT3DPose:
    """The same weights, with attention to the past alone."""
    causal = small_base()
    for module in causal.modules():
        if isinstance(module, TransformerBlock):
            module.frame_causal = True
    return causal


def test_sequences_are_counted_as_binomials() -> None:
    counts = sequence_counts(8, 20)
    assert counts.tolist() == [[comb(t + n, n) for t in range(20)] for n in range(9)]


def test_levels_never_fall_and_have_the_means_of_their_places() -> None:
    torch.manual_seed(0)
    levels = draw_non_decreasing((40_000, 8), CPU, levels=1000)
    assert (levels.diff(dim=1) >= 0).all() and levels.min() >= 0 and levels.max() <= 999
    # u uniform; earlier frames sorted uniforms below it, later ones above it, its place uniform
    expected = [0.170, 0.284, 0.376, 0.459, 0.539, 0.621, 0.714, 0.830]
    means = (levels.double() / 999).mean(0)
    assert means.tolist() == pytest.approx(expected, abs=0.006)


def test_with_few_levels_all_sequences_between_are_equally_likely() -> None:
    torch.manual_seed(0)
    levels = draw_non_decreasing((60_000, 3), CPU, levels=3)
    sequences, found = levels.unique(dim=0, return_counts=True)
    assert len(sequences) == comb(5, 3)

    def share(sequence: list[int]) -> float:
        """Its place and its level are uniform; of the rest all sequences are alike."""
        total = 0.0
        for place, level in enumerate(sequence):
            before, after = place, len(sequence) - 1 - place
            alike = comb(level + before, before) * comb(2 - level + after, after)
            total += 1 / (9 * alike)
        return total

    expected = [share(sequence) for sequence in sequences.tolist()]
    assert sum(expected) == pytest.approx(1)
    assert (found / len(levels)).tolist() == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("lag", [0, 1, 2, 5])
def test_frames_trail_each_other(lag: int) -> None:
    visited = trailing_schedule(4, 5, lag)
    assert len(visited) - 1 == 5 + 3 * lag
    assert visited[0] == (0, 0, 0, 0) and visited[-1] == (5, 5, 5, 5)
    for before, after in pairwise(visited):
        assert all(0 <= b - a <= 1 for a, b in zip(before, after, strict=True))
        assert list(after) == sorted(after, reverse=True)  # noise never falls along time
        gaps = [a - b for a, b in pairwise(after)]
        assert all(gap <= lag for gap in gaps)


def test_a_lag_beyond_the_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lag must be in \[0, 5\].*got 6"):
        trailing_schedule(4, 5, 6)


def test_a_frame_does_not_know_later_ones() -> None:
    network, plain = causal_base(), small_base().eval()
    torch.manual_seed(0)
    for parameter in [*network.parameters(), *plain.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    size = 16
    x, levels, rays = (
        torch.randn(1, 4, 3, size, size),
        torch.zeros(1, 4),
        torch.randn(1, 4, 180, size, size),
    )
    changed = x.clone()
    changed[:, 2:] += 1
    with torch.no_grad():
        before, after = network(x, levels, rays), network(changed, levels, rays)
        assert before[:, :2].equal(after[:, :2]) and not before[:, 2:].equal(after[:, 2:])
        assert not plain(x, levels, rays)[:, :2].equal(plain(changed, levels, rays)[:, :2])


def test_finished_frames_stay_and_noise_never_falls_while_sampling() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def predict_v(x: Tensor, levels: Tensor, unconditional: Tensor, clip: Tensor) -> Tensor:
        seen.append((x.clone(), levels))
        return 0.3 * x

    context = torch.rand(2, 6, 3, 4, 4)
    mask = torch.tensor([[1, 2, 0, 0, 0, 0]]).expand(2, -1)
    made = sample_trailing(
        predict_v, context, mask, schedule=CosineSchedule(shift=1.0), steps=3, lag=3,
        generators=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
    )  # fmt: skip
    assert len(seen) == 3 + 3 * 3 and made[:, :2].equal(context[:, :2])
    for x, levels in seen:
        assert (levels.diff(dim=1) <= 0).all()  # log-SNR
        finished = (levels == CLEAN).all(0)
        assert x[:, finished].equal(made[:, finished])


def test_a_given_frame_among_those_to_make_is_refused() -> None:
    with pytest.raises(ValueError, match="follow a history"):
        sample_trailing(
            lambda *_: torch.empty(0), torch.zeros(1, 3, 3, 4, 4), torch.tensor([[1, 0, 1]]),
            schedule=CosineSchedule(shift=1.0), steps=2, lag=1, generators=[torch.Generator()],
        )  # fmt: skip


def test_it_draws_such_times_and_starts_from_a_base_that_sees_everything(tmp_path: Path) -> None:
    base = small_base()
    made_by = {"stage": "training", "version": 1, "settings": {}, "inputs": {}}
    write_checkpoint(tmp_path, {"backbone": base}, made_by, {"variant": "base", "seed": 0}, [])
    settings = load_config(ROOT, scale="smoke").method_settings("ar_diffusion")
    model = build(settings, initial=tmp_path)
    blocks = [m for m in model.backbone.modules() if isinstance(m, TransformerBlock)]
    assert isinstance(model, ARModel) and blocks and all(block.frame_causal for block in blocks)
    assert all(
        a.equal(b) for a, b in zip(model.backbone.parameters(), base.parameters(), strict=True)
    )
    drawn = model.draw(
        (50, 8, 3, 4, 4), noise="per_frame", history=0.5, memory_dropout=None, device=CPU
    )
    assert (drawn["times"].diff(dim=1) >= 0).all() and "given" not in drawn
    assert drawn["times"].min() >= 0 and drawn["times"].max() <= 1


def test_a_rollout_fills_every_frame_in_its_order(tmp_path: Path) -> None:
    clips = write_fake_clips(tmp_path / "clips", clips=2, frames=12, size=16)
    settings = JobSettings(load_config(ROOT, scale="smoke")).rollout("ar_diffusion", "spin")
    assert settings.sampling is not None and settings.sampling.keyframe_density == 1
    sampling = settings.sampling.model_copy(update={"window": 4, "steps": 2})
    clip = settings.clips.model_copy(update={"resolution": 16})
    job = settings.model_copy(update={"frames": 12, "sampling": sampling, "clips": clip})
    method = ARSampler(backbone=causal_base(), lag=1)
    variant = LoadedVariant(device=CPU, method=method, memory=None, key="small")
    rgb, _ = run_protocol(
        variant, clips, job, batch=2, parts=tmp_path, progress=lambda items, total: items
    )
    assert rgb.shape == (2, 12, 16, 16, 3)
    assert all(rgb[:, frame].std() > 0 for frame in range(12))
    assert not np.array_equal(rgb[:, 1], rgb[:, 2])
    windows = plan_rollout(12, window=4, keyframe_density=1.0, context=1).keyframe_windows
    made = [frame for window in windows for frame in sorted(window.generated)]
    assert made == list(range(1, 12))
