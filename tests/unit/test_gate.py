"""The copy gate: nothing at the start, a pull towards the memory's colours where they are known."""

import pytest
import torch
from torch import Tensor, nn

from geomem.networks.uvit.gate import CopyGate

CHANNELS, RGB_AT, COVERAGE_AT = 7, 1, 5


@pytest.fixture
def gate() -> CopyGate:
    torch.manual_seed(0)
    return CopyGate(CHANNELS, rgb_at=RGB_AT, coverage_at=COVERAGE_AT)


@pytest.fixture
def case() -> dict[str, Tensor]:
    torch.manual_seed(1)
    memory = torch.randn(2, 3, CHANNELS, 8, 8)
    memory[:, :, COVERAGE_AT] = (memory[:, :, COVERAGE_AT] > 0).float()
    frames = torch.randn(2, 3, 3, 8, 8)
    log_snr = torch.tensor([[-9.0, 0.0, 9.0], [2.0, -3.0, 20.0]])
    return {"v": torch.randn_like(frames), "x_t": frames, "log_snr": log_snr, "memory": memory}


def open_wide(gate: CopyGate, strength: float = 1.0) -> CopyGate:
    """The gate that pulls everywhere alike where something is known."""
    nn.init.zeros_(gate.end.weight)
    nn.init.constant_(gate.end.bias, strength)
    return gate


def clean(case: dict[str, Tensor], v: Tensor) -> Tensor:
    """The estimate of clean frames behind v."""
    log_snr = case["log_snr"][..., None, None, None]
    return log_snr.sigmoid().sqrt() * case["x_t"] - (-log_snr).sigmoid().sqrt() * v


def test_untrained_it_changes_no_bit_and_learns_at_once(
    gate: CopyGate, case: dict[str, Tensor]
) -> None:
    out = gate(**case)
    assert torch.equal(out, case["v"])
    out.square().mean().backward()
    assert gate.end.weight.grad.abs().max() > 0


def test_it_pulls_the_estimate_as_a_wiener_filter_would_where_something_is_known(
    gate: CopyGate, case: dict[str, Tensor]
) -> None:
    out = open_wide(gate, 0.7)(**case)
    known = case["memory"][:, :, COVERAGE_AT : COVERAGE_AT + 1]
    colours = case["memory"][:, :, RGB_AT : RGB_AT + 3]
    before, noise = clean(case, case["v"]), (-case["log_snr"]).sigmoid()[..., None, None, None]
    weight = noise / (noise + gate.tau**2)
    expected = before + 0.7 * known * weight * (colours - before)
    torch.testing.assert_close(clean(case, out), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(out[(known == 0).expand_as(out)], case["v"][(known == 0).expand_as(out)])
    # at nearly pure noise the estimate is nearly the memory, at none it is the network's
    seen = (known[0, 0] > 0).expand(3, -1, -1)
    left = (clean(case, open_wide(gate)(**case))[0, 0] - colours[0, 0])[seen].abs().max()
    assert left < 0.1 * (before[0, 0] - colours[0, 0])[seen].abs().max()
    assert (clean(case, out)[1, 2] - before[1, 2]).abs().max() < 1e-6


def test_a_dropped_memory_pulls_nothing(gate: CopyGate, case: dict[str, Tensor]) -> None:
    out = open_wide(gate)(**case, memory_mask=torch.tensor([True, False]))
    assert torch.equal(out[0], case["v"][0])
    assert not torch.equal(out[1], case["v"][1])
