"""The official `vggt` package and the own module, side by side on the same weights."""

import pytest
import torch

from geomem.networks.vggt.config import VGGT_1B
from geomem.networks.vggt.model import VGGT

official_vggt = pytest.importorskip(
    "vggt.models.vggt",
    reason="the official vggt is on no index: pip install --no-deps -r requirements-vggt.txt",
)


@pytest.mark.slow
def test_parity_with_the_official_package() -> None:
    torch.manual_seed(0)
    official = official_vggt.VGGT().eval()
    with torch.device("meta"):
        own = VGGT(VGGT_1B)
    weights = {k: v for k, v in official.state_dict().items() if not k.startswith("track_head.")}
    own.load_state_dict(weights, strict=True, assign=True)
    images = torch.rand(1, 3, 3, 56, 84)
    with torch.no_grad():
        theirs, ours = official(images), own(images)
    pairs = {
        "pose_enc": ours.pose_enc[-1],
        "depth": ours.depth[..., None],
        "depth_conf": ours.depth_conf,
        "world_points": ours.world_points,
        "world_points_conf": ours.world_points_conf,
    }
    for name, value in pairs.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4, msg=name)
