"""The window sampler against a plain-loop oracle with the golden's closed-form network."""

import math
from collections.abc import Sequence
from itertools import product

import pytest
import torch
from torch import Generator, Tensor

from geomem.diffusion import guidance
from geomem.diffusion.guidance import (
    HistoryGuidance,
    conditional,
    fractional,
    replacement,
    stabilized_fractional,
    stabilized_vanilla,
    temporal,
    vanilla,
)
from geomem.diffusion.samplers import VelocityModel, sample_window
from geomem.diffusion.schedule import CosineSchedule

STEPS = 5
MASK = torch.tensor([[1, 2, 0, 0, -1], [1, 0, 0, 2, 1], [2, 2, 2, 0, 0]])
SCHEMES: dict[str, HistoryGuidance] = {
    "conditional": conditional(),
    "replacement": replacement(),
    "vanilla": vanilla(1.5),
    "stabilized_vanilla": stabilized_vanilla(4.0, 0.02),
    "fractional": fractional(2.0, 0.4),
    "stabilized_fractional": stabilized_fractional(2.0, 0.4, 0.02),
    "temporal": temporal([[0], [-1, 2], [2]], [1.0, 0.5, 0.25]),
}
# What the branches of a scheme do to a history frame, written out from the paper: per branch its
# weight, the level of a given frame, the level of a generated one, and the positions that it sees
# (all, or from either end of the history); cameras are on where it sees any.
ALL = (0, 1, 2)
BRANCHES: dict[str, list[tuple[float, int | None, int | None, tuple[int, ...]]]] = {
    "conditional": [(1.0, -1, -1, ALL)],
    "replacement": [(1.0, None, None, ALL)],  # the level of the frames that are made
    "vanilla": [(-0.5, 999, 999, ()), (1.5, -1, -1, ALL)],
    "stabilized_vanilla": [(-3.0, 999, 999, ()), (4.0, -1, 19, ALL)],
    "fractional": [(-1.0, 999, 999, ()), (1.0, -1, -1, ALL), (1.0, 399, 399, ALL)],
    "stabilized_fractional": [(-1.0, 999, 999, ()), (1.0, -1, 19, ALL), (1.0, 399, 399, ALL)],
    "temporal": [
        (-0.75, 999, 999, ()),
        (1.0, -1, -1, (0,)),
        (0.5, -1, -1, (-1, 2)),
        (0.25, -1, -1, (2,)),  # not in the first clip's history of two frames
    ],
}
CLIP_SHIFT = torch.tensor([0.3, -0.2, 0.9])  # a stand-in for each clip's cameras
MEMORY = torch.tensor([-0.4, 0.8, 0.6])  # and for each clip's memory


@pytest.fixture(scope="module")
def schedule() -> CosineSchedule:
    return CosineSchedule(shift=0.5)


def seeded(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


def context() -> Tensor:
    return torch.randn(3, 5, 3, 2, 2, generator=Generator().manual_seed(7)).clamp(-1, 1)


def network(clips: Sequence[int] = (0, 1, 2), *, memory_scale: float = 1.0) -> VelocityModel:
    """Closed form of the golden, a coupling of frames, and a shift by the clip's cameras.

    Bound to these clips. The memory works on what the row shows, so it differs between branches;
    guidance on it is v_without + s (v_with - v_without), as a method has it.
    """
    shift_B, memory_B = CLIP_SHIFT[list(clips)], MEMORY[list(clips)]

    def predict_v(x: Tensor, levels: Tensor, unconditional: Tensor, clip: Tensor) -> Tensor:
        camera = torch.where(unconditional, 0.0, shift_B[clip])
        v = torch.tanh(0.7 * x) + 0.3 * torch.sin(levels)[..., None, None, None]
        memory = memory_scale * memory_B[clip][:, None, None, None, None] * torch.cos(x)
        return v + 0.5 * x.mean(1, keepdim=True) + camera[:, None, None, None, None] + memory

    return predict_v


def oracle_clip(
    clip: int, mask: list[int], generator: Generator, scheme: str, memory_scale: float
) -> Tensor:
    """One clip (T,C,H,W) by loops: step every branch, compose the stepped frames, restore.

    The composition with memory and the one without are made apart and mixed in the end.
    """
    x_context = context()[clip]
    history = [t for t, state in enumerate(mask) if state >= 1]
    table = [
        1 / (1 + math.exp(2 * math.log(math.tan(angle)) - 2 * math.log(0.5)))
        for angle in torch.linspace(
            math.atan(math.exp(-7.5)), math.atan(math.exp(7.5)), 1000, dtype=torch.float64
        ).tolist()
    ]
    x = torch.randn((1, *x_context.shape), generator=generator)[0]
    x = torch.stack([x_context[t] if mask[t] >= 1 else x[t] for t in range(len(mask))])
    branches = BRANCHES[scheme]
    for step in range(STEPS, 0, -1):
        now, after = 1000 * step // STEPS - 1, 1000 * (step - 1) // STEPS - 1
        if len(branches) > 1 or branches[0][1] is None:
            noise = torch.randn((len(branches), *x.shape), generator=generator)
        totals = {True: torch.zeros_like(x), False: torch.zeros_like(x)}
        for r, (weight, given, generated, positions) in enumerate(branches):
            reach = range(-len(history), len(history))
            given, generated = (now if k is None else k for k in (given, generated))
            seen = {history[i] for i in positions if i in reach}
            levels = [{1: given, 2: generated, 0: now, -1: 999}[state] for state in mask]
            levels = [999 if t in history and t not in seen else k for t, k in enumerate(levels)]
            rows = x.clone()
            for t, state in enumerate(mask):
                if state >= 1 and levels[t] >= 0:
                    a = table[levels[t]]
                    rows[t] = math.sqrt(a) * x[t] + math.sqrt(1 - a) * noise[r, t]
            coupling = rows.mean(0)
            for (with_memory, total), t in product(totals.items(), range(len(mask))):
                if mask[t] != 0:
                    continue
                a, b = table[now], 1.0 if after < 0 else table[after]
                c = 0.125 * math.log(a / (1 - a))
                v = torch.tanh(0.7 * rows[t]) + 0.3 * math.sin(c) + 0.5 * coupling
                v = v + (CLIP_SHIFT[clip] if seen else 0.0)
                v = v + (MEMORY[clip] * torch.cos(rows[t]) if with_memory else 0.0)
                clean = math.sqrt(a) * rows[t] - math.sqrt(1 - a) * v
                eps = math.sqrt(a) * v + math.sqrt(1 - a) * rows[t]
                total[t] += weight * (math.sqrt(b) * clean + math.sqrt(1 - b) * eps)
        total = memory_scale * totals[True] + (1 - memory_scale) * totals[False]
        x = torch.stack([total[t] if mask[t] == 0 else x[t] for t in range(len(mask))])
    return torch.stack([x[t] if mask[t] == 0 else x_context[t] for t in range(len(mask))])


@pytest.mark.parametrize("memory_scale", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("scheme", BRANCHES)
def test_sampler_matches_plain_loops(
    scheme: str, memory_scale: float, schedule: CosineSchedule
) -> None:
    result = sample_window(
        network(memory_scale=memory_scale),
        context(),
        MASK,
        schedule=schedule,
        guidance=SCHEMES[scheme],
        steps=STEPS,
        generators=seeded(1, 2, 3),
    )
    for clip, generator in enumerate(seeded(1, 2, 3)):
        expected = oracle_clip(clip, MASK[clip].tolist(), generator, scheme, memory_scale)
        torch.testing.assert_close(result[clip], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_batching_does_not_change_a_clip(scheme: str, schedule: CosineSchedule) -> None:
    def run(clips: list[int]) -> Tensor:
        return sample_window(
            network(clips),
            context()[clips],
            MASK[clips],
            schedule=schedule,
            guidance=SCHEMES[scheme],
            steps=STEPS,
            generators=seeded(*clips),
        )

    together = run([0, 1, 2])
    assert torch.equal(run([2, 0, 1]), together[[2, 0, 1]])
    for clip in range(3):
        torch.testing.assert_close(run([clip])[0], together[clip], rtol=1e-5, atol=1e-6)
    assert not torch.equal(together[0, 2], together[1, 2])


def test_known_frames_come_back_and_the_seed_matters(schedule: CosineSchedule) -> None:
    runs = [
        sample_window(
            network(),
            context(),
            MASK,
            schedule=schedule,
            guidance=vanilla(1.5),
            steps=STEPS,
            generators=seeded(*seeds),
        )
        for seeds in ((1, 2, 3), (1, 2, 4))
    ]
    assert torch.equal(runs[0][MASK != 0], context()[MASK != 0])
    assert torch.equal(runs[0][:2], runs[1][:2])
    assert not torch.equal(runs[0][2], runs[1][2])


def test_values_under_the_mask_are_never_read(schedule: CosineSchedule) -> None:
    hidden = context()
    hidden[MASK < 1] = torch.nan
    arguments = {"schedule": schedule, "guidance": vanilla(1.5), "steps": STEPS}
    generated = [
        sample_window(network(), x, MASK, generators=seeded(1, 2, 3), **arguments)
        for x in (context(), hidden)
    ]
    assert torch.equal(generated[0][MASK == 0], generated[1][MASK == 0])


def test_every_scheme_is_sampled_here() -> None:
    assert set(SCHEMES) == set(BRANCHES) == set(guidance.SCHEMES)


def test_all_rows_are_evaluated_once_a_step(schedule: CosineSchedule) -> None:
    seen: list[tuple[list[bool], list[int], tuple[int, ...]]] = []

    def predict_v(x: Tensor, levels: Tensor, unconditional: Tensor, clip: Tensor) -> Tensor:
        seen.append((unconditional.tolist(), clip.tolist(), tuple(levels.shape)))
        return x

    sample_window(
        predict_v,
        context(),
        MASK,
        schedule=schedule,
        guidance=vanilla(1.5),
        steps=2,
        generators=seeded(1, 2, 3),
    )
    assert seen == [([True, False] * 3, [0, 0, 1, 1, 2, 2], (6, 5))] * 2


def test_misfits_are_refused(schedule: CosineSchedule) -> None:
    def run(mask: Tensor, *seeds: int) -> None:
        sample_window(
            network(),
            context(),
            mask,
            schedule=schedule,
            guidance=conditional(),
            steps=1,
            generators=seeded(*seeds),
        )

    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        run(MASK[:, :4], 1, 2, 3)
    with pytest.raises(ValueError, match="2 generators for 3 clips"):
        run(MASK, 1, 2)
    with pytest.raises(ValueError, match=r"\[5\]"):
        run(MASK.where(MASK != 2, 5), 1, 2, 3)
