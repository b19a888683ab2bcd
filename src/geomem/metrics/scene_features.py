"""What the frozen VGGT makes of a few frames: evidence that they show one scene.

Two views of its depth are taken: through its own cameras, which tell whether the frames fit each
other, and through the given ones, which tell whether they also fit where the camera is said to
stand. The first alone would be content with one frame repeated.

Legend: K frames, the first of which is given; N pixels of a frame; H, W pixels.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from geomem.geometry.cameras import compose_poses, invert_poses, split_cameras
from geomem.geometry.points import project, unproject
from geomem.geometry.scale import consistent_scale
from geomem.memory.reconstruction import teacher_images
from geomem.networks.vggt.evaluation import rotation_angle
from geomem.networks.vggt.model import VGGT, pose_encoding_to_cameras

# The score needs a given frame, one that is judged and one to compare it with.
FEWEST_FRAMES = 3
_OF_PARTNER = ("in_view", "inliers", "agreement", "colours")
FEATURES = (
    *(
        f"{cameras}_{name}"
        for cameras in ("given", "own")
        for name in (
            *(f"{of}_{partner}" for partner in ("first", "rest") for of in _OF_PARTNER),
            "best_inliers",
            "alike_first",
            "chain",
            "alike_chain",
        )
    ),
    "confidence",
    "confidence_over_first",
    "rotation",
    "scale",
)
ALIKE = 0.1  # difference in colour at which inliers count e times less
WIDEST_TURN = 90.0  # degrees; farther off is as wrong as can be


@torch.no_grad()
def scene_features(
    teacher: VGGT,
    images: Tensor,
    cameras: Tensor,
    *,
    scale_prior: float,
    prior_weight: float,
    tolerance: float,
) -> Tensor:
    """Return the features of every frame but the first, (K - 1, len(FEATURES)) float64.

    Of a pair of frames, both directions counted: `in_view`, the share of pixels whose point lies in
    the other's view; `inliers`, those of them whose depth agrees with the other's; `agreement`,
    the second over the first; `colours`, the mean absolute difference of the inliers' colours, in
    [0, 1]. Each is taken to the first frame and, pixels pooled, to the rest, by the given cameras
    and by the teacher's own; `best_inliers` is to whichever fits best. `alike` are inliers that
    count less the more their colours differ; a `chain` leads from the first frame through others,
    and is as strong as its weakest pair's inliers (or `alike`) are many: so is a frame known that
    shares no view with the first. `confidence` is the mean logarithm of the depth's confidence,
    `rotation` the root of the angle (degrees) between the given and the teacher's turn since the
    first frame, `scale` the logarithm of the depth's scale over its prior.

    Args:
        teacher: The frozen model.
        images: (K, 3, S, S) in [0, 1]; K at least 3.
        cameras: Given cameras (K, 16).
        scale_prior: Units of the given cameras per unit of the teacher, where frames do not tell.
        prior_weight: Of it, as `consistent_scale` has it.
        tolerance: Relative difference in depth up to which two frames agree.

    Raises:
        ValueError: If there are fewer than three frames.
    """
    if len(images) < FEWEST_FRAMES:
        raise ValueError(f"{FEWEST_FRAMES} frames are needed, got {len(images)}")
    cameras = cameras.to(images)
    # all pairs are compared at the teacher's own size
    shown = teacher_images(images[None], teacher)
    output = teacher(shown)
    scale = consistent_scale(
        output.depth, shown, cameras[None], prior=scale_prior, prior_weight=prior_weight
    )
    own = pose_encoding_to_cameras(output.pose_enc[-1][0], height=1, width=1)
    columns = [
        *_pair_features(output.depth[0] * scale, shown[0], cameras, tolerance),
        *_pair_features(output.depth[0], shown[0], own, tolerance),
    ]
    confidence = output.depth_conf[0].log().mean((1, 2))
    angle = rotation_angle(_turns(own) @ _turns(cameras).mT)
    columns += [
        confidence,
        confidence - confidence[0],
        angle.clamp(max=WIDEST_TURN).sqrt(),
        (scale / scale_prior).log().expand(len(images)),
    ]
    return torch.stack(columns, dim=1)[1:].double()


def _turns(cameras: Tensor) -> Tensor:
    """Return the rotations (K, 3, 3) of cameras (K, 16) since the first."""
    poses = split_cameras(cameras)[1]
    return compose_poses(poses, invert_poses(poses[:1]))[..., :3]


def _pair_features(
    depth: Tensor, images: Tensor, cameras: Tensor, tolerance: float
) -> list[Tensor]:
    """Return twelve features (K,) of every frame; those of the first mean nothing.

    Args:
        depth: Planar depth (K, H, W) in the cameras' unit.
        images: (K, 3, H, W).
        cameras: (K, 16).
        tolerance: Relative difference in depth.
    """
    frames = len(depth)
    in_view, inliers, colours = agreement(depth, images, cameras, tolerance)
    other = 1 - torch.eye(frames, device=depth.device)
    rest = other.clone()
    rest[0] = rest[:, 0] = 0
    found = []
    for view, fitting, off in (
        (in_view[0], inliers[0], colours[0]),
        tuple((pairs * rest).sum(1) / (frames - 2) for pairs in (in_view, inliers, colours)),
    ):
        found += [view, fitting, _over(fitting, view), _over(off, fitting)]
    alike = inliers * (-_over(colours, inliers) / ALIKE).exp()
    chains = (strongest_chains(links * other) for links in (inliers, alike))
    return [*found, (inliers * other).amax(1), alike[0], *chains]


def strongest_chains(links: Tensor) -> Tensor:
    """Return for links (K, K), symmetric, how strong the weakest of the best chain from the first
    to each is, (K,): Floyd's and Warshall's algorithm, of which the first entry means nothing."""
    for middle in range(len(links)):
        links = torch.maximum(links, torch.minimum(links[:, middle, None], links[None, middle]))
    return links[0]


def _over(part: Tensor, whole: Tensor) -> Tensor:
    """Return the quotient; 0 where there is nothing to share."""
    return torch.where(whole > 0, part / whole.clamp(min=1e-6), 0.0)


def agreement(
    depth: Tensor, images: Tensor, cameras: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return three symmetric tables (K, K), means over all pixels of the two frames of a pair:
    whether a pixel's point is in the other's view; whether the other's depth agrees as well; the
    difference in colour of those that agree."""
    points = rearrange(unproject(depth, cameras), "i h w xyz -> i 1 (h w) xyz")
    uv, z = project(points, cameras)
    # frames i are looked up in frames j; inverse depth is affine over the image of a plane
    grid = rearrange(2 * uv - 1, "i j n xy -> j i n xy")
    looked_up = torch.cat([images, 1 / depth[:, None]], dim=1)
    seen = F.grid_sample(looked_up, grid, align_corners=False, padding_mode="border")
    seen = rearrange(seen, "j c i n -> c i j n")
    inside = ((uv > 0) & (uv < 1)).all(-1) & (z > 0)
    fitting = inside & ((seen[-1] * z - 1).abs() <= tolerance)
    own = rearrange(images, "i c h w -> c i 1 (h w)")
    off = (seen[:-1] - own).abs().mean(0).where(fitting, 0.0)
    tables = (inside.float().mean(-1), fitting.float().mean(-1), off.mean(-1))
    in_view, inliers, colours = ((table + table.mT) / 2 for table in tables)
    return in_view, inliers, colours
