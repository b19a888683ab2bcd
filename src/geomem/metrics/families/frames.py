"""What is measured on pixels alone: PSNR and SSIM of frames, and of places seen again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from geomem.metrics.registry import (
    FAMILIES,
    PSNR_CAP,
    ClipScores,
    ClipVideos,
    Metric,
    MetricFamily,
    Scorer,
)
from geomem.registry.strict import Strict

if TYPE_CHECKING:
    from torch import device


class FrameSettings(Strict):
    """What a grid of patches is looked for with."""

    patch: int = Field(default=2, ge=2, description="side of the networks' patches, pixels")


class FrameScorer(Scorer):
    """PSNR, SSIM, revisits, sharpness, and the memory's coverage."""

    def __init__(self, patch: int) -> None:
        self.patch = patch

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Score one clip."""
        import torch

        from geomem.metrics.frames import (
            gradient_magnitude,
            patch_energy,
            psnr_per_frame,
            psnr_pooled,
            ssim_per_frame,
        )
        from geomem.metrics.revisits import revisit_psnr

        context, truth, generated = videos.context, videos.truth, videos.generated
        made, true = generated[context:], truth[context:]
        scored = torch.arange(len(truth), device=truth.device) >= context
        psnr, ssim = psnr_per_frame(made, true), ssim_per_frame(made, true)
        known = [share for share in videos.coverage if share is not None]
        values = {
            "psnr": float(psnr_pooled(generated, truth, scored)),
            "psnr_frame_mean": float(psnr.mean()),
            "ssim": float(ssim.mean()),
            "coverage": sum(known) / len(known) if known else None,
            "sharpness": float(gradient_magnitude(made).mean() / gradient_magnitude(true).mean()),
            "patch_grid": float(
                patch_energy(made, self.patch).mean() / patch_energy(true, self.patch).mean()
            ),
        }
        if len(videos.revisits):
            values |= revisit_psnr(generated, truth, videos.revisits, context=context)
            values["truth_ssim"] = float(ssim[videos.revisits[:, 1] - context].mean())
        if videos.partial:
            partial = torch.zeros_like(scored)
            partial[videos.partial] = True
            values["partial_psnr"] = float(psnr_pooled(generated, truth, partial))
            values["partial_ssim"] = float(ssim[partial[context:]].mean())
        shares = [float("nan") if share is None else share for share in videos.coverage]
        covered = torch.tensor(shares, dtype=torch.float64)
        return ClipScores(values=values, curves={"psnr": psnr, "ssim": ssim, "coverage": covered})


class Frames(MetricFamily):
    """The family of what pixels say."""

    name = "frames"
    summary = "PSNR and SSIM of frames, of places seen again or in part, sharpness, coverage"
    version = 2
    metrics = (
        Metric(name="psnr", level="frame", label="PSNR", unit="dB", better="higher", cap=PSNR_CAP),
        Metric(
            name="psnr_frame_mean",
            level="clip",
            label="PSNR, mean of frames",
            unit="dB",
            better="higher",
            cap=PSNR_CAP,
        ),
        Metric(
            name="ssim", level="frame", label="SSIM", better="higher", precision=3, least=-1, most=1
        ),
        Metric(
            name="truth_psnr",
            level="clip",
            label="revisit PSNR",
            unit="dB",
            better="higher",
            cap=PSNR_CAP,
        ),
        Metric(
            name="truth_ssim",
            level="clip",
            label="revisit SSIM",
            better="higher",
            precision=3,
            least=-1,
            most=1,
        ),
        Metric(
            name="partial_psnr",
            level="clip",
            label="partial PSNR",
            unit="dB",
            better="higher",
            cap=PSNR_CAP,
        ),
        Metric(
            name="partial_ssim",
            level="clip",
            label="partial SSIM",
            better="higher",
            precision=3,
            least=-1,
            most=1,
        ),
        Metric(
            name="sharpness", level="clip", label="sharpness to truth", better="neither", least=0
        ),
        Metric(
            name="patch_grid", level="clip", label="patch grid to truth", better="neither", least=0
        ),
        Metric(
            name="contrast",
            level="clip",
            label="contrast",
            unit="dB",
            better="higher",
            sanity="truth first",  # of places that are never the same, none is nearer to 0
        ),
        Metric(name="self_psnr", level="clip", label="self PSNR", unit="dB", better="higher"),
        Metric(
            name="forgetting",
            level="clip",
            label="forgetting",
            unit="dB",
            better="lower",
            sanity="none",  # what was bad from the start has nothing to forget
        ),
        Metric(name="closing_psnr", level="clip", label="closing PSNR", unit="dB", better="higher"),
        Metric(
            name="late_psnr",
            level="clip",
            label="late PSNR",
            unit="dB",
            better="higher",
            cap=PSNR_CAP,
        ),
        Metric(
            name="coverage",
            level="frame",
            label="memory coverage",
            better="neither",
            least=0,
            most=1,
        ),
    )

    Settings = FrameSettings

    def open(self, settings: FrameSettings, device: device) -> Scorer:
        """Return the scorer; it has no network."""
        return FrameScorer(settings.patch)


FAMILIES.add(Frames())
