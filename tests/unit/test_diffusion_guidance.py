"""History guidance against the reference's golden steps and the paper's formulas."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from geomem.diffusion.guidance import (
    HistoryGuidance,
    conditional,
    fractional,
    history_guidance,
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
    guidance = history_guidance(metadata["scheme"], json.loads(metadata["args"]))
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
    assert torch.equal(guidance.camera_mask(len(x)), expected_mask)


@pytest.mark.parametrize(
    "guidance",
    [
        conditional(),
        vanilla(1.5),
        stabilized_vanilla(4.0, 0.02),
        fractional(2.0, 0.4),
        temporal([[0], [-1, -2]], [0.7, 0.9]),
    ],
)
def test_weights_sum_to_one(guidance: HistoryGuidance) -> None:
    outputs = torch.ones(3 * guidance.evaluations, 2, 1, 1, 1)
    torch.testing.assert_close(guidance.compose(outputs), torch.ones(3, 2, 1, 1, 1))


def test_scale_one_is_conditional() -> None:
    assert vanilla(1.0) == conditional() == fractional(1.0, 0.3)
    assert stabilized_vanilla(1.0, 0.02).evaluations == 1


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
    assert guidance.camera_mask(2).tolist() == [True, False, False] * 2
    outputs = torch.tensor([1.0, 10, 100, 2, 20, 200]).reshape(6, 1, 1, 1, 1)
    composed = guidance.compose(outputs).flatten().tolist()
    assert composed == [-0.5 * u + c + 0.5 * d for u, c, d in ((1, 10, 100), (2, 20, 200))]


def test_temporal_with_all_history_is_vanilla() -> None:
    mask = torch.tensor([[1, 2, 0]])
    levels = torch.tensor([[-1, -1, 500]])
    ours, reference = temporal([[0, 1]], [1.5]), vanilla(1.5)
    assert torch.equal(ours.levels(levels, mask, 1000), reference.levels(levels, mask, 1000))


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="'vanila'"):
        history_guidance("vanila", {})
    with pytest.raises(ValueError, match=r"1\.2"):
        stabilized_vanilla(2.0, 1.2)
    with pytest.raises(ValueError, match="1 history subsequences but 2"):
        temporal([[0]], [1.0, 2.0])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    with pytest.raises(ValueError, match="position 1 is outside a history of 1"):
        temporal([[1]], [1.0]).levels(torch.zeros_like(mask), mask, 1000)
