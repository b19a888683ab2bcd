"""What a training step draws of noise and histories."""

import pytest
import torch

from geomem.methods.dfot.method import VideoModel
from geomem.networks.uvit.model import UViT3DPose

SHAPE = (400, 8, 3, 2, 2)


def untrained() -> VideoModel:
    torch.manual_seed(0)
    backbone = UViT3DPose(
        (8, 8), emb_channels=8, num_updown_blocks=(1,), num_mid_blocks=1, num_heads=2,
        block_types=("ResBlock", "TransformerBlock"), block_dropouts=(0.0, 0.0),
    )  # fmt: skip
    torch.manual_seed(1)
    return VideoModel(backbone)


def drawn(
    history: float, *, noise: str = "per_frame", shape: tuple[int, ...] = SHAPE
) -> dict[str, torch.Tensor]:
    return untrained().draw(
        shape, noise=noise, history=history, memory_dropout=None, device=torch.device("cpu")
    )


def test_full_sequence_has_one_time_a_clip_and_no_conditions() -> None:
    windows = drawn(0.5, noise="per_clip")
    assert not windows["times"].var(1).any() and windows["times"][:, 0].unique().numel() == 400
    assert "given" not in windows


def test_fixed_context_knows_prefixes_alone() -> None:
    windows = drawn(0.5, noise="prefix")
    given, times = windows["given"], windows["times"]
    assert set(given.sum(1).tolist()) == {1, 4}
    assert not (given[:, 1:] & ~given[:, :-1]).any()  # nothing given after what is not
    check_conditions(given, times, windows["weights"])


def test_binary_dropout_gives_half_of_the_frames_wherever_they_are() -> None:
    windows = drawn(0.5, noise="dropout")
    given, times = windows["given"], windows["times"]
    assert 0.47 < given.float().mean() < 0.53
    assert given.float().mean(0).std() < 0.05
    check_conditions(given, times, windows["weights"])
    # with two frames every fourth window would have nothing to make
    assert not drawn(0.0, noise="dropout", shape=(400, 2, 3, 2, 2))["given"].all(1).any()


def check_conditions(given: torch.Tensor, times: torch.Tensor, weights: torch.Tensor) -> None:
    """Conditions are clean or, in a tenth of windows, all noise; the others share a time."""
    for row, here in zip(times, given, strict=True):
        assert len(row[~here].unique()) == 1
        assert not here.any() or row[here].unique().tolist() in ([0.0], [1.0])
    with_any = given.any(1)
    lost = (times.masked_fill(~given, 0) == 1).any(1)[with_any]
    assert 0.06 < lost.float().mean() < 0.14
    # the mean over all frames, weighted, is the mean over those in the loss
    assert torch.allclose(weights * (~given).float().mean(), torch.ones(len(given)))


def test_histories_are_clean_and_what_follows_shares_its_noise() -> None:
    plain, mixed = drawn(0.0), drawn(0.5)
    clean, times = mixed["given"], mixed["times"]
    with_history = clean.any(1)
    assert 0.4 < with_history.float().mean() < 0.6
    sizes = clean.sum(1)[with_history]
    assert set(sizes.tolist()) == set(range(1, 8))
    assert not times[clean].any()
    for row in with_history.nonzero()[:, 0]:
        assert len(times[row][~clean[row]].unique()) == 1
    # any place in a window, as keyframes and the frames between them have it
    assert clean[with_history].float().mean(0).std() < 0.05
    # the other windows are those of a run without histories
    assert times[~with_history].equal(plain["times"][~with_history])
    assert mixed["noise"].equal(plain["noise"]) and "given" not in plain


@pytest.mark.parametrize("noise", ["per_frame", "prefix", "dropout"])
def test_what_is_given_costs_nothing(noise: str) -> None:
    model, shape = untrained(), (2, 4, 3, 8, 8)
    windows = model.draw(
        shape, noise=noise, history=1.0, memory_dropout=None, device=torch.device("cpu")
    )
    cameras = torch.zeros(2, 4, 16)
    cameras[..., [0, 1, 4, 9, 14]] = 1
    windows |= {"frames": torch.rand(shape), "cameras": cameras}
    # untrained v is 0, so that the loss is that of the frames that are to be made
    clean = windows["given"][..., None, None, None]
    value = model.loss(windows).value
    other = {**windows, "noise": torch.where(clean, windows["noise"] + 1, windows["noise"])}
    assert torch.equal(model.loss(other).value, value)
    assert float(value.detach()) > 0
    moved = {**windows, "noise": torch.where(clean, windows["noise"], windows["noise"] + 1)}
    assert not torch.equal(model.loss(moved).value, value)
