"""VBench's quality dimensions, which know no truth; each where its weights are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geomem.metrics.registry import (
    FAMILIES,
    ClipScores,
    ClipVideos,
    Metric,
    MetricFamily,
    NetworkName,
    Scorer,
    WeightFile,
)
from geomem.registry.strict import Positive, Strict

if TYPE_CHECKING:
    from torch import device

    from geomem.metrics.vbench_networks import Dimension

FOLDER = "data/weights/vbench"
QUALITY = "vbench_quality"
HUB = "https://openaipublic.azureedge.net/clip/models"
CLIP_B32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
CLIP_L14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
# By dimension, the files of `VBenchWeights` and the packages that it needs.
NEEDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "subject_consistency": (("dino",), ()),
    "background_consistency": (("clip_b32",), ()),
    "temporal_flickering": ((), ()),
    "motion_smoothness": (("amt",), ()),
    "dynamic_degree": (("raft",), ("torchvision",)),
    "aesthetic_quality": (("clip_l14", "aesthetic"), ()),
    "imaging_quality": (("musiq",), ()),
}
EXTRA = "vbench"
# Means over frames, the same in any order of them.
OF_FRAMES = ("aesthetic_quality", "imaging_quality")


class VBenchWeights(Strict):
    """Files of published weights, as they are published.

    A checksum of 8 digits is what the authors' file name carries.
    """

    dino: WeightFile = WeightFile(
        path=f"{FOLDER}/dino_vitbase16_pretrain.pth",
        url="https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/"
        "dino_vitbase16_pretrain.pth",
    )
    clip_b32: WeightFile = WeightFile(
        path=f"{FOLDER}/ViT-B-32.pt", sha256=CLIP_B32, url=f"{HUB}/{CLIP_B32}/ViT-B-32.pt"
    )
    clip_l14: WeightFile = WeightFile(
        path=f"{FOLDER}/ViT-L-14.pt", sha256=CLIP_L14, url=f"{HUB}/{CLIP_L14}/ViT-L-14.pt"
    )
    aesthetic: WeightFile = WeightFile(
        path=f"{FOLDER}/sa_0_4_vit_l_14_linear.pth",
        url="https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
    )
    musiq: WeightFile = WeightFile(
        path=f"{FOLDER}/musiq_spaq_ckpt-358bb6af.pth",
        sha256="358bb6af",
        url="https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/"
        "musiq_spaq_ckpt-358bb6af.pth",
    )
    amt: WeightFile = WeightFile(
        path=f"{FOLDER}/amt-s.pth",
        url="https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth",
        terms="AMT is under CC BY-NC 4.0: not for commercial use",
    )
    raft: WeightFile = WeightFile(
        path=f"{FOLDER}/raft_large_C_T_V1-22a6c225.pth",
        sha256="22a6c225",
        url="https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth",
    )


class VBenchSettings(Strict):
    """How fast videos are, and where the weights lie."""

    fps: Positive = Field(
        default=8,
        description="frames a second at which the clips are meant to be seen; a video of 5 s or "
        "more is scored by VBench-Long",
    )
    weights: VBenchWeights = VBenchWeights()
    fetch: bool = Field(
        default=False,
        exclude=True,
        description="weights are downloaded by the workflow; else a dimension whose files are not "
        "there is left out",
    )


class VBenchScorer(Scorer):
    """The dimensions that can be computed here, of the whole video, given frames as the truth."""

    def __init__(
        self,
        dimensions: Mapping[str, Dimension],
        settings: VBenchSettings,
        *,
        details: Mapping[str, Mapping[str, str]],
        left_out: Mapping[str, str],
    ) -> None:
        """Remember the dimensions.

        Args:
            dimensions: By name.
            settings: How fast videos are.
            details: The files of each, for the record.
            left_out: Why others are not among them.
        """
        self.dimensions, self.fps = dimensions, settings.fps
        self.left_out = left_out
        self._known = {**details, "left out": left_out}

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Score one clip."""
        from geomem.metrics import vbench

        frames = videos.generated
        variant = vbench.LONG if vbench.is_long(len(frames), self.fps) else vbench.SHORT
        self._tell(variant)
        values = {name: self._mean(score, frames) for name, score in self.dimensions.items()}
        found = {name: value for name, value in values.items() if value is not None}
        if set(found) == set(NEEDS):
            values[QUALITY] = vbench.quality(found)
        return ClipScores(values=values)

    def _mean(self, score: Dimension, frames: Any) -> float | None:
        """Return the mean over the spans that are scored together; None if one has no value."""
        from geomem.metrics.vbench import spans

        found = [
            score(frames[span.start : span.stop], self.fps) for span in spans(len(frames), self.fps)
        ]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if len(known) == len(found) else None

    def _tell(self, variant: str) -> None:
        """Name the columns by the variant that the length of the videos asks for."""
        self.names = {
            metric.name: NetworkName(
                key=f"{variant.lower().replace('-', '_')}_{metric.name.removeprefix('vbench_')}",
                heading=(variant, metric.label),
                axis=f"{variant} {metric.label}",
            )
            for metric in VBench.metrics
        }
        self.networks = {"vbench": {"variant": variant, "fps": str(self.fps)}, **self._known}


class VBench(MetricFamily):
    """The family of VBench's quality dimensions."""

    name = "vbench"
    summary = "quality dimensions of VBench, or of VBench-Long from 5 s on; they know no truth"
    metrics = (
        *(
            Metric(
                name=dimension,
                level="clip",
                label=dimension.replace("_", " "),
                better="neither" if dimension == "dynamic_degree" else "higher",
                precision=4,
                least=0,
                most=1,
                sanity="none" if dimension in OF_FRAMES else "ordered",
            )
            for dimension in NEEDS
        ),
        Metric(
            name=QUALITY,
            level="clip",
            label="quality",
            better="higher",
            precision=4,
            sanity="truth first",
        ),
    )
    Settings = VBenchSettings

    def weights(self, settings: VBenchSettings) -> Mapping[str, WeightFile]:
        """Return by path where the files come from, if they are to be downloaded."""
        files = dict(settings.weights).values() if settings.fetch else ()
        return {file.path: file for file in files if file.url}

    def left_out(self, settings: VBenchSettings) -> dict[str, str]:
        """Return by metric why it cannot be computed here."""
        from geomem.metrics.networks import installed

        found: dict[str, str] = {}
        for dimension, (files, packages) in NEEDS.items():
            paths = [getattr(settings.weights, name).path for name in files]
            missing = [f"no {path}" for path in paths if not Path(path).is_file()]
            missing += [
                f"no package {package} (pip install -e '.[{EXTRA}]')"
                for package in packages
                if not installed(package)
            ]
            if missing:
                found[dimension] = ", ".join(missing)
        if found:
            found[QUALITY] = f"without {', '.join(found)}"
        return found

    def open(self, settings: VBenchSettings, device: device) -> Scorer:
        """Load the networks whose files are there.

        Raises:
            InputError: If a file is not the one that the settings name, or cannot be read.
        """
        from geomem.errors import InputError
        from geomem.metrics.networks import version
        from geomem.metrics.vbench_networks import DIMENSIONS

        left_out = self.left_out(settings)
        dimensions, details = {}, {}
        for dimension, (names, packages) in NEEDS.items():
            if dimension in left_out:
                continue
            files = {name: getattr(settings.weights, name) for name in names}
            try:
                sums = {file.path: file.checked() for file in files.values()}
                paths = {name: Path(file.path) for name, file in files.items()}
                dimensions[dimension] = DIMENSIONS[dimension](paths, device)
            except ValueError as error:
                raise InputError(f"{dimension}: {error}") from None
            details[dimension] = {Path(path).name: found for path, found in sums.items()}
            details[dimension] |= {package: version(package) for package in packages}
        return VBenchScorer(dimensions, settings, details=details, left_out=left_out)


FAMILIES.add(VBench())
