"""What a training step draws of noise and histories."""

import torch

from geomem.methods.dfot.method import VideoModel
from geomem.networks.uvit.model import UViT3DPose

SHAPE = (400, 8, 3, 2, 2)


def drawn(history: float) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    backbone = UViT3DPose(
        (8, 8), emb_channels=8, num_updown_blocks=(1,), num_mid_blocks=1, num_heads=2,
        block_types=("ResBlock", "TransformerBlock"), block_dropouts=(0.0, 0.0),
    )  # fmt: skip
    torch.manual_seed(1)
    return VideoModel(backbone).draw(
        SHAPE, noise="per_frame", history=history, memory_dropout=None, device=torch.device("cpu")
    )


def test_histories_are_clean_and_what_follows_shares_its_noise() -> None:
    plain, mixed = drawn(0.0), drawn(0.5)
    clean, times = mixed["clean"], mixed["times"]
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
    assert mixed["noise"].equal(plain["noise"]) and "clean" not in plain


def test_what_is_given_costs_nothing() -> None:
    torch.manual_seed(0)
    backbone = UViT3DPose(
        (8, 8), emb_channels=8, num_updown_blocks=(1,), num_mid_blocks=1, num_heads=2,
        block_types=("ResBlock", "TransformerBlock"), block_dropouts=(0.0, 0.0),
    )  # fmt: skip
    model, shape = VideoModel(backbone), (2, 4, 3, 8, 8)
    windows = model.draw(
        shape, noise="per_frame", history=1.0, memory_dropout=None, device=torch.device("cpu")
    )
    cameras = torch.zeros(2, 4, 16)
    cameras[..., [0, 1, 4, 9, 14]] = 1
    windows |= {"frames": torch.rand(shape), "cameras": cameras}
    # untrained v is 0, so that the loss is that of the frames that are to be made
    clean = windows["clean"][..., None, None, None]
    value = model.loss(windows).value
    other = {**windows, "noise": torch.where(clean, windows["noise"] + 1, windows["noise"])}
    assert torch.equal(model.loss(other).value, value)
    assert float(value.detach()) > 0
