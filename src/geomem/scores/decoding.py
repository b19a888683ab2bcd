"""Depth and points that the teacher's heads decode from features, against the truth.

Alignment knows one layer of the teacher, on the backbone's grid and in the basis' components. What
is decoded has gone that way: the teacher's tokens of the layer are compressed, resampled to the
backbone's grid and back, and restored; all else is completed (`geomem.probes.decoding`). Shape
suffixes: B windows, T frames, N patches, n cells of the backbone's grid, C compressed features,
S pixels of the teacher's image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from einops import rearrange
from torch import Tensor

from geomem.alignment.objectives import resample_tokens
from geomem.geometry.cameras import join_cameras, relative_to_first, split_cameras
from geomem.geometry.clouds import chamfer_distance
from geomem.geometry.points import unproject
from geomem.memory.reconstruction import FeatureBasis, teacher_images
from geomem.networks.vggt.evaluation import align_medians, depth_metrics
from geomem.networks.vggt.model import NUM_SPECIAL, VGGT, VGGTDenseOutput
from geomem.probes.decoding import Completion, decode_patches, mean_special
from geomem.probes.ridge import Moments, choose_ridge
from geomem.scores.probing import Values, digits
from geomem.scores.windows import Batch


@dataclass(frozen=True, kw_only=True)
class Path:
    """The way of features between the teacher and the backbone.

    Attributes:
        teacher: The frozen teacher.
        basis: Its aligned layer and components.
        side: Cells along a side of the backbone's grid.
    """

    teacher: VGGT
    basis: FeatureBasis
    side: int

    @property
    def teacher_side(self) -> int:
        """Patches along a side of the teacher's grid."""
        return self.teacher.config.image_size // self.teacher.config.patch_size

    def targets(self, tokens_BTND: Tensor) -> Tensor:
        """Return what alignment teaches: compressed features (B, T, n, C) of patch tokens."""
        grid, own = (self.teacher_side,) * 2, (self.side,) * 2
        return resample_tokens(self.basis.compress(tokens_BTND), grid, own)

    def restored(self, features_BTnC: Tensor) -> Tensor:
        """Return the teacher's patch tokens (B, T, N, D) that such features stand for."""
        grid, own = (self.teacher_side,) * 2, (self.side,) * 2
        return self.basis.restore(resample_tokens(features_BTnC.float(), own, grid))


@dataclass(frozen=True, kw_only=True)
class LayerSums:
    """What fitting a `Completion` needs: sums by earlier layer, and of special tokens."""

    earlier: dict[int, Moments]
    special: Tensor
    batches: int

    def __add__(self, other: "LayerSums") -> "LayerSums":
        return LayerSums(
            earlier={layer: sums + other.earlier[layer] for layer, sums in self.earlier.items()},
            special=self.special + other.special,
            batches=self.batches + other.batches,
        )


def layer_sums(layers: list[Tensor], path: Path) -> LayerSums:
    """Return the sums of one batch's true tokens (B, T, special + N, D), all layers."""
    aligned = path.basis.layer
    given = path.restored(path.targets(layers[aligned][:, :, NUM_SPECIAL:])).flatten(0, 2)
    return LayerSums(
        earlier={
            layer: Moments.of(given, layers[layer][:, :, NUM_SPECIAL:].flatten(0, 2))
            for layer in path.teacher.config.dpt_layers
            if layer < aligned
        },
        special=mean_special(layers[aligned]),
        batches=1,
    )


def fit_completion(
    fitted: LayerSums, held: LayerSums, path: Path, strengths: Sequence[float]
) -> Completion:
    """Fit what stands for the layers that alignment does not know."""
    both = fitted + held
    return Completion(
        layer=path.basis.layer,
        earlier={
            layer: choose_ridge(sums, held.earlier[layer], strengths)[0]
            for layer, sums in fitted.earlier.items()
        },
        special=both.special / both.batches,
    )


def all_layers(teacher: VGGT, batch: Batch) -> list[Tensor]:
    """Return the teacher's tokens of all layers."""
    return teacher.aggregate(teacher_images(batch.images, teacher))


def decode(features_BTnC: Tensor, path: Path, completion: Completion) -> VGGTDenseOutput:
    """Decode compressed features on the backbone's grid."""
    return decode_patches(path.teacher, path.restored(features_BTnC), completion)


def decoding_values(
    batch: Batch, depth_BTSS: Tensor, points_BTSS3: Tensor | None, *, limit: int
) -> list[Values]:
    """Compare decoded depth and points with the truth, window by window.

    Args:
        batch: The windows.
        depth_BTSS: Of the depth head, at any scale: a window's median is aligned with the truth's.
        points_BTSS3: Of the point head, in the first camera's frame; aligned by the median distance
            from that camera. None where there are none.
        limit: Largest number of points whose distances are measured.

    Returns:
        Per window `abs_rel`, `delta_125`, and in metres `chamfer_depth` (depths lifted by the given
        cameras) and `chamfer_points`.
    """
    found = []
    for row in range(len(batch.depth)):
        depth, valid, truth = depth_BTSS[row], *true_points(batch, row)
        lifted = aligned_points(batch, row, depth)
        kept = _some(valid, limit)
        values = asdict(depth_metrics(depth[None], batch.depth[row : row + 1], valid[None]))
        values["chamfer_depth"] = chamfer_distance(lifted[kept], truth[kept]).item()
        values["chamfer_points"] = float("nan")
        if points_BTSS3 is not None:
            points = points_BTSS3[row]
            scale = truth[valid].norm(dim=-1).median() / points[valid].norm(dim=-1).median()
            values["chamfer_points"] = chamfer_distance(scale * points[kept], truth[kept]).item()
        found.append({name: digits(value) for name, value in values.items()})
    return found


def true_points(batch: Batch, row: int) -> tuple[Tensor, Tensor]:
    """Return where a surface is known (T, S, S), and its points in the first camera's frame."""
    depth = batch.depth[row]
    return depth.isfinite() & (depth > 0), unproject(depth, _cameras(batch, row))


def aligned_points(batch: Batch, row: int, depth_TSS: Tensor) -> Tensor:
    """Return decoded depths, brought to the true median, as points in the first camera's frame."""
    truth = batch.depth[row : row + 1]
    scaled = align_medians(depth_TSS[None], truth, truth.isfinite() & (truth > 0))
    return unproject(scaled[0], _cameras(batch, row))


def _cameras(batch: Batch, row: int) -> Tensor:
    intrinsics, w2c = split_cameras(batch.cameras[row : row + 1])
    return join_cameras(intrinsics, relative_to_first(w2c))[0]


def _some(valid: Tensor, limit: int) -> tuple[Tensor, ...]:
    """Return at most `limit` of the valid positions, drawn always alike, as an index."""
    places = valid.nonzero()
    # even steps would draw columns of pixels
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    return places[order[:limit].sort().values].unbind(-1)


def cloud(batch: Batch, row: int, points_TSS3: Tensor, *, limit: int) -> dict[str, Tensor]:
    """Return points (n, 3) of one window and their colours, for drawing; float32 and uint8."""
    valid, _ = true_points(batch, row)
    kept = _some(valid, limit)
    size = batch.depth.shape[-1]
    images = batch.images[row]
    if images.shape[-1] != size:
        images = torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear")
    colours = rearrange(images, "t c h w -> t h w c")[kept]
    return {
        "points": points_TSS3[kept].contiguous(),
        "colours": (colours * 255).round().byte().contiguous(),
    }


def columns(rows: Iterable[Values]) -> dict[str, list[float | None]]:
    """Return values by metric from values by window."""
    listed = list(rows)
    return {name: [row[name] for row in listed] for name in listed[0]}
