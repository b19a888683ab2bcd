"""MaskFlow: the cross-entropy of masked tokens, and videos unmasked window by window.

Shape suffixes: B clips or windows, T frames, S pixels, h, w rows and columns of tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.diffusion.rollout_plans import SamplerWindow
from geomem.errors import InputError
from geomem.formats.checkpoints import load_module
from geomem.geometry.rays import encode_cameras_apart
from geomem.methods.clips import Clips, Sampling, WindowSampling
from geomem.methods.dfot.draws import draw_histories, draw_times
from geomem.methods.maskflow.masking import (
    EARLIEST,
    TokenModel,
    mask_tokens,
    masked_cross_entropy,
    sample_full,
    sample_timestep_free,
)
from geomem.methods.maskflow.settings import MaskFlowSettings
from geomem.methods.maskflow.tokenizer import NAME as TOKENIZER
from geomem.methods.registry import Generator
from geomem.methods.training import Loss, TrainedMethod
from geomem.methods.windows import noise_generator
from geomem.networks.maskflow.model import MaskedUViT
from geomem.networks.maskflow.tokenizer import VQTokenizer
from geomem.networks.uvit.layers import ResBlock, TransformerBlock, seed_dropout

BACKBONE = "backbone"


class MaskFlowModel(TrainedMethod):
    """The masked video model under training, beside its frozen tokenizer.

    Attributes:
        backbone: The masked video model.
        tokenizer: Frozen; a checkpoint holds it too, so that one folder is enough to generate.
    """

    def __init__(self, backbone: MaskedUViT, tokenizer: VQTokenizer) -> None:
        super().__init__()
        self.backbone, self.tokenizer = backbone, tokenizer.requires_grad_(False)

    def trained_modules(self) -> dict[str, nn.Module]:
        """Return the video model, and the tokenizer, of which nothing is trained."""
        return {BACKBONE: self.backbone, TOKENIZER: self.tokenizer}

    def blocks(self) -> list[nn.Module]:
        """Return the blocks of all levels."""
        return [m for m in self.modules() if isinstance(m, ResBlock | TransformerBlock)]

    def draw(
        self,
        shape_BTCSS: tuple[int, ...],
        *,
        noise: str,
        history: float,
        memory_dropout: float | None,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Draw `times` (B, T), uniform in [0.001, 1], of each frame or of each clip, 1 where a
        frame is history; `uniform` (B, T, h, w), by which tokens are masked; `camera_mask` (B,),
        True where cameras are dropped; and seeds of the dropout.

        Raises:
            InputError: If the tokens of a frame cannot be halved as often as the video model does.
        """
        windows, frames, _, _, size = shape_BTCSS
        side, divisor = size // self.tokenizer.factor, self.backbone.divisor
        if side % divisor:
            raise InputError(
                f"methods.maskflow: {side} tokens along a side are no multiple of {divisor}, its "
                "patch size halved at every level"
            )
        times = EARLIEST + (1 - EARLIEST) * draw_times((windows, frames), noise, device)
        if history:
            clean = draw_histories((windows, frames), history, device)
            together = times[:, :1].expand(windows, frames)  # as a sampler goes on from a history
            times = torch.where(clean.any(1, keepdim=True), together, times)
            times = times.masked_fill(clean, 1.0)
        dropout = float(self.backbone.config["camera_dropout"])
        return {
            "times": times,
            "uniform": torch.rand((windows, frames, side, side), device=device),
            "camera_mask": torch.rand(windows, device=device) < dropout,
            "dropout_seeds": torch.randint(2**62, (windows,)),
        }

    def loss(self, windows: dict[str, Tensor]) -> Loss:
        """Return the cross-entropy of the tokens that are masked."""
        seed_dropout(self.backbone, windows["dropout_seeds"])
        true, times = self.tokenizer.encode(windows["frames"]), windows["times"]
        shown = mask_tokens(true, times, windows["uniform"], self.backbone.mask_token)
        rays = encode_cameras_apart(windows["cameras"], true.shape[-1])
        cameras = self.backbone.embed_cameras(*rays)
        logits = self.backbone(shown, times, cameras, windows["camera_mask"])
        masked = shown == self.backbone.mask_token
        value = masked_cross_entropy(logits.float(), true, masked)
        right = ((logits.argmax(-1) == true) & masked).flatten(1).sum(1)
        accuracy = (right / masked.flatten(1).sum(1).clamp(min=1)).mean()
        parts = {"cross_entropy": value.detach(), "accuracy": accuracy}
        return Loss(value=value, parts=parts, states=[])


@dataclass(kw_only=True)
class Unmasking(Generator):
    """The trained networks at work.

    Attributes:
        backbone: The masked video model.
        tokenizer: Its tokenizer.
        settings: Which sampler, and how many steps.
        evaluations: How often the video model has been run: steps for every window.
    """

    backbone: MaskedUViT
    tokenizer: VQTokenizer
    settings: MaskFlowSettings
    evaluations: int = field(default=0, init=False)

    def generate(self, clips: Clips, sampling: Sampling, *, progress: Callable[..., Any]) -> None:
        """Fill `clips.video` in place, window by window in the order of frames.

        A window's later frames are appended as masks to frames known by their tokens: the given
        ones', and those that earlier windows made. Given frames are not touched.

        Raises:
            ValueError: If the plan leaves frames to be interpolated.
        """
        how = sampling.windows
        assert how is not None
        if how.plan.interpolation:
            raise ValueError("MaskFlow makes frames in their order: plan with density 1")
        batch, length = clips.video.shape[:2]
        given = self.tokenizer.encode(clips.video[:, : sampling.context])
        mask = self.backbone.mask_token
        tokens = given.new_full((batch, length, *given.shape[2:]), mask)
        tokens[:, : sampling.context] = given
        for window in progress(how.plan.keyframe_windows, total=len(how.plan.keyframe_windows)):
            frames = list(window.frames)
            model = self._bind(clips.cameras[:, frames], given.shape[-1], how)
            generators = [noise_generator(name, window, how.seed) for name in clips.ids]
            made = self._sample(model, tokens[:, frames], generators)
            self._keep(window, made, tokens, clips)

    def _keep(self, window: SamplerWindow, made: Tensor, tokens: Tensor, clips: Clips) -> None:
        """Put a window's new frames where they belong, as tokens and as pixels."""
        frames = sorted(window.generated)
        places = [window.frames.index(frame) for frame in frames]
        tokens[:, frames] = made[:, places]
        clips.video[:, frames] = self.tokenizer.decode(made[:, places])

    def _sample(
        self, model: TokenModel, tokens: Tensor, generators: list[torch.Generator]
    ) -> Tensor:
        chosen = self.settings
        sample = sample_full
        if chosen.sampler == "timestep_free":
            sample = partial(sample_timestep_free, time=chosen.constant_time)
        return sample(
            model,
            tokens,
            mask=self.backbone.mask_token,
            steps=chosen.steps,
            generators=generators,
        )

    def _bind(self, cameras_BT16: Tensor, side: int, how: WindowSampling) -> TokenModel:
        """Return the video model with a window's cameras bound; it counts its evaluations."""
        device = cameras_BT16.device
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=how.precision == "bf16")
        with autocast:
            cameras = self.backbone.embed_cameras(*encode_cameras_apart(cameras_BT16, side))

        def model(tokens: Tensor, times: Tensor) -> Tensor:
            self.evaluations += 1
            with autocast:
                logits: Tensor = self.backbone(tokens, times, cameras)
            return logits.float()

        return model


def build(settings: MaskFlowSettings, *, initial: Path | None) -> MaskFlowModel:
    """Return the untrained video model beside the tokenizer of a checkpoint; see `Method.build`.

    Raises:
        InputError: If there is no such checkpoint.
    """
    if initial is None:
        raise InputError("method maskflow needs `initial`, the variant that trains its tokenizer")
    return _on(load_module(VQTokenizer, initial, TOKENIZER), settings)


def build_on(start: Any, settings: MaskFlowSettings) -> MaskFlowModel:
    """Return the untrained video model beside the tokenizer of an untrained `vq`."""
    return _on(start.tokenizer, settings)


def _on(tokenizer: VQTokenizer, settings: MaskFlowSettings) -> MaskFlowModel:
    sizes = settings.model_dump(exclude={"sampler", "steps", "constant_time"})
    codes = len(tokenizer.codebook.codes)
    backbone = MaskedUViT(codes=codes, **sizes)
    backbone.start_from(tokenizer.codebook.codes)
    return MaskFlowModel(backbone, tokenizer)


def load(settings: MaskFlowSettings, checkpoint: Path, *, device: torch.device) -> Unmasking:
    """Return the trained networks on a device; see `Method.load`."""
    return Unmasking(
        backbone=load_module(MaskedUViT, checkpoint, BACKBONE).eval().to(device),
        tokenizer=load_module(VQTokenizer, checkpoint, TOKENIZER).eval().to(device),
        settings=settings,
    )
