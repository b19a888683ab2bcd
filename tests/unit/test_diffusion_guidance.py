"""History guidance against the reference's golden steps and the paper's formulas."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from geomem.diffusion.guidance import (
    HistoryGuidance,
    conditional,
    fractional,
    history_guidance,
    stabilized_fractional,
    stabilized_vanilla,
    temporal,
    vanilla,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"
SCHEMES = ["conditional", "vanilla", "stabilized_vanilla", "fractional"]


def load_golden(scheme: str) -> tuple[HistoryGuidance, dict[str, Tensor], int]:
    with safe_open(FIXTURES / f"history_guidance_{scheme}.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    guidance = history_guidance(metadata["scheme"], **json.loads(metadata["args"]))
    return guidance, tensors, int(metadata["nfe"])


def golden_noise(golden: dict[str, Tensor], rows: int) -> Tensor | None:
    """Noise per row; the reference's vanilla scheme draws it for the unconditional rows alone."""
    noise = golden.get("input/replacement_noise.0")
    if noise is None or len(noise) == rows:
        return noise
    per_row = torch.full((rows, *noise.shape[1:]), torch.nan)
    per_row[golden["output/external_cond_mask"]] = noise
    return per_row


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scheme_matches_golden(scheme: str) -> None:
    guidance, golden, nfe = load_golden(scheme)
    assert guidance.evaluations == nfe
    x, mask = golden["input/x"], golden["input/context_mask"]
    rows, levels = guidance.expand(
        x,
        golden["input/from_noise_levels"],
        mask,
        noise_NTCHW=golden_noise(golden, nfe * len(x)),
        alphas_cumprod=golden["input/alphas_cumprod"],
    )
    torch.testing.assert_close(rows, golden["output/x"], rtol=1e-4, atol=1e-5)
    assert torch.equal(levels, golden["output/from_noise_levels"])
    to_levels = guidance.levels(golden["input/to_noise_levels"], mask, 1000)
    assert torch.equal(to_levels, golden["output/to_noise_levels"])
    composed = guidance.compose(golden["input/model_output"])
    torch.testing.assert_close(composed, golden["output/composed"], rtol=1e-4, atol=1e-5)
    expected_mask = golden.get("output/external_cond_mask", torch.zeros(len(x), dtype=torch.bool))
    assert torch.equal(guidance.unconditional(mask), expected_mask)


# --- schemes without a golden of the reference: the definition, term by term -------------------

Version = tuple[tuple[float, ...], bool]  # noise on every history frame, whether cameras are on


def defined_terms(
    scheme: str, arguments: dict[str, Any], generated: list[bool]
) -> Iterator[tuple[float, Version]]:
    """Weights w_i and history versions of s(none) + sum_i w_i (s(version i) - s(none)) (DFoT).

    Args:
        scheme: The scheme.
        arguments: Its arguments.
        generated: Whether the model made each frame of the history itself.
    """
    if scheme == "stabilized_fractional":
        level = arguments["stabilization_level"]
        yield 1.0, (tuple(level if made else 0.0 for made in generated), True)
        yield (
            arguments["guidance_scale"] - 1,
            (tuple(arguments["freq_scale"] for _ in generated), True),
        )
        return
    assert scheme == "temporal"
    for part, weight in zip(arguments["hist_subsequences"], arguments["hist_weights"], strict=True):
        there = range(len(generated))
        seen = {there[i] for i in part if -len(generated) <= i < len(generated)}
        yield weight, (tuple(0.0 if i in seen else 1.0 for i in there), bool(seen))


def defined_step(
    scheme: str, arguments: dict[str, Any], golden: dict[str, Tensor]
) -> dict[str, list[Any]]:
    """One step by plain loops: levels and camera masks of the rows, and the composed outputs."""
    levels, masked, composed = [], [], []
    outputs = iter(golden["input/model_output"].tolist())
    frame_levels = golden["input/from_noise_levels"].tolist()
    for states, own in zip(golden["input/context_mask"].tolist(), frame_levels, strict=True):
        history = [t for t, state in enumerate(states) if state >= 1]
        terms = list(defined_terms(scheme, arguments, [states[t] == 2 for t in history]))
        nothing: Version = ((1.0,) * len(history), False)
        versions = [(1 - sum(weight for weight, _ in terms), nothing), *terms]
        total = 0.0
        for weight, (noise, cameras) in versions:
            row = list(own)
            for t, share in zip(history, noise, strict=True):
                row[t] = int(round(share * 1000, 6)) - 1
            levels.append(row)
            masked.append(not cameras)
            total = total + weight * torch.tensor(next(outputs), dtype=torch.float64)
        composed.append(total.flatten(1).mean(1).tolist())
    return {"levels": levels, "camera_mask": masked, "frame_means": composed}


DEFINED = json.loads((FIXTURES / "history_guidance_defined.json").read_text())


@pytest.mark.parametrize("case", DEFINED, ids=lambda case: case["name"])
def test_scheme_without_a_golden_matches_its_definition(case: dict[str, Any]) -> None:
    """On the golden inputs of the fractional scheme, which has three rows a clip too."""
    _, golden, nfe = load_golden("fractional")
    golden["input/context_mask"] = mask = torch.tensor(case["context_mask"])
    oracle = defined_step(case["scheme"], case["arguments"], golden)
    assert oracle["levels"] == case["levels"] and oracle["camera_mask"] == case["camera_mask"]
    torch.testing.assert_close(oracle["frame_means"], case["frame_means"], rtol=1e-4, atol=1e-5)

    guidance = history_guidance(case["scheme"], **case["arguments"])
    assert guidance.evaluations == nfe
    alphas, noise = golden["input/alphas_cumprod"], golden["input/replacement_noise.0"]
    rows, levels = guidance.expand(
        golden["input/x"],
        golden["input/from_noise_levels"],
        mask,
        noise_NTCHW=noise,
        alphas_cumprod=alphas,
    )
    assert levels.tolist() == case["levels"]
    assert guidance.unconditional(mask).tolist() == case["camera_mask"]
    means = guidance.compose(golden["input/model_output"]).flatten(2).mean(2)
    torch.testing.assert_close(means, torch.tensor(case["frame_means"]), rtol=1e-4, atol=1e-5)
    for n, row in enumerate(case["levels"]):
        for t, level in enumerate(row):
            expected = golden["input/x"][n // nfe, t]
            if mask[n // nfe, t] >= 1 and level >= 0:
                kept = alphas[level]
                expected = kept.sqrt() * expected + (1 - kept).sqrt() * noise[n, t]
            torch.testing.assert_close(rows[n, t], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "guidance",
    [
        conditional(),
        vanilla(1.5),
        stabilized_vanilla(4.0, 0.02),
        fractional(2.0, 0.4),
        stabilized_fractional(2.0, 0.4, 0.02),
        temporal([[0], [-1, -2]], [0.7, 0.9]),
    ],
)
def test_weights_sum_to_one(guidance: HistoryGuidance) -> None:
    outputs = torch.ones(3 * guidance.evaluations, 2, 1, 1, 1)
    torch.testing.assert_close(guidance.compose(outputs), torch.ones(3, 2, 1, 1, 1))


def test_scale_one_is_conditional() -> None:
    assert vanilla(1.0) == conditional() == fractional(1.0, 0.3)
    assert stabilized_vanilla(1.0, 0.02).evaluations == 1
    assert stabilized_fractional(1.0, 0.3, 0.02) == stabilized_vanilla(1.0, 0.02)


def test_stabilization_level_zero_is_none() -> None:
    assert stabilized_fractional(2.0, 0.4, 0.0) == fractional(2.0, 0.4)
    assert stabilized_vanilla(2.0, 0.0) == vanilla(2.0)


def test_temporal_levels_by_hand() -> None:
    """Each branch forgets the history outside its subsequence; masks differ between clips."""
    mask = torch.tensor([[1, 2, 1, 0, -1], [0, 1, 0, 2, 2]])
    levels = torch.tensor([[-1, -1, -1, 600, 999], [600, -1, 600, -1, -1]])
    guidance = temporal([[0], [1, -1]], [1.0, 0.5])
    f = 999
    expected = [
        [f, f, f, 600, 999],  # no history
        [-1, f, f, 600, 999],
        [f, -1, -1, 600, 999],
        [600, f, 600, f, f],
        [600, -1, 600, f, f],
        [600, f, 600, -1, -1],
    ]
    assert guidance.levels(levels, mask, 1000).tolist() == expected
    assert guidance.unconditional(mask).tolist() == [True, False, False] * 2
    outputs = torch.tensor([1.0, 10, 100, 2, 20, 200]).reshape(6, 1, 1, 1, 1)
    composed = guidance.compose(outputs).flatten().tolist()
    assert composed == [-0.5 * u + c + 0.5 * d for u, c, d in ((1, 10, 100), (2, 20, 200))]


def test_temporal_with_all_history_is_vanilla() -> None:
    mask = torch.tensor([[1, 2, 0]])
    levels = torch.tensor([[-1, -1, 500]])
    ours, reference = temporal([[0, 1]], [1.5]), vanilla(1.5)
    assert torch.equal(ours.levels(levels, mask, 1000), reference.levels(levels, mask, 1000))


def test_positions_outside_a_short_history_are_left_out() -> None:
    """A subsequence of which nothing is left is the unconditional branch, clip by clip."""
    mask = torch.tensor([[1, 2, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    levels = torch.where(mask == 0, 600, -1)
    guidance = temporal([[1], [-3, 0]], [0.5, 1.0])
    f = 999
    nothing = [f, 600, 600, 600]
    expected = [
        [f, f, f, 600],
        [f, -1, f, 600],
        [-1, f, f, 600],
        nothing,
        nothing,
        [-1, 600, 600, 600],
        *[[600] * 4] * 3,
    ]
    assert guidance.levels(levels, mask, 1000).tolist() == expected
    dropped = [True, False, False, True, True, False, True, True, True]
    assert guidance.unconditional(mask).tolist() == dropped
    # the term of the subsequence that is not there vanishes: w_1 u - w_1 u
    outputs = torch.tensor([7.0, 7, 10, 7, 7, 10, 7, 7, 7]).reshape(9, 1, 1, 1, 1)
    assert guidance.compose(outputs).flatten().tolist()[1:] == [10.0, 7.0]


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="'vanila'"):
        history_guidance("vanila")
    with pytest.raises(ValueError, match=r"1\.2"):
        stabilized_vanilla(2.0, 1.2)
    with pytest.raises(ValueError, match="1 history subsequences but 2"):
        temporal([[0]], [1.0, 2.0])
