"""The tokenizer's training, and what it makes of the true frames: MaskFlow's ceiling.

Shape suffixes: B clips or windows, T frames, S pixels, N frames of all windows, h, w rows and
columns of tokens, K codes, D their width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from einops import rearrange
from torch import Tensor, nn

from geomem.formats.checkpoints import load_module
from geomem.methods.clips import Clips, Sampling
from geomem.methods.maskflow.settings import VQSettings
from geomem.methods.registry import Generator
from geomem.methods.training import Loss, TrainedMethod
from geomem.networks.maskflow.tokenizer import VQTokenizer

NAME = "tokenizer"  # of the module in a checkpoint


def psnr(made_N3SS: Tensor, true_N3SS: Tensor) -> Tensor:
    """Return the mean PSNR of frames in [-1, 1], dB."""
    error_N = (made_N3SS.float().clamp(-1, 1) - true_N3SS).square().flatten(1).mean(1)
    return (10 * (4 / error_N.clamp(min=1e-10)).log10()).mean()


class TokenizerModel(TrainedMethod):
    """The tokenizer under training.

    Attributes:
        tokenizer: Its network; the codebook follows its features by moving averages.
        decay: Of these.
        dead_share: Use of a code, as a share of equal use, below which it is put elsewhere.
        commitment: Weight of the features' distance to their codes.
    """

    def __init__(
        self, tokenizer: VQTokenizer, *, decay: float, dead_share: float, commitment: float
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.decay, self.dead_share, self.commitment = decay, dead_share, commitment
        self.begin_step()

    def trained_modules(self) -> dict[str, nn.Module]:
        """Return the tokenizer."""
        return {NAME: self.tokenizer}

    def draw(
        self,
        shape_BTCSS: tuple[int, ...],
        *,
        noise: str,
        history: float,
        memory_dropout: float | None,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Draw `spare`: which tokens of a window may become codes in the place of dead ones, enough
        of all windows together for all codes."""
        windows, frames, _, _, size = shape_BTCSS
        codes = len(self.tokenizer.codebook.codes)
        tokens = frames * (size // self.tokenizer.factor) ** 2
        return {"spare": torch.randint(tokens, (windows, -(-codes // windows)), device=device)}

    def loss(self, windows: dict[str, Tensor]) -> Loss:
        """Return the squared error of the reconstruction, with the features' distance to their
        codes."""
        frames = windows["frames"].flatten(0, 1)
        made, features, codes, tokens = self.tokenizer(frames)
        self._observe(features.detach(), tokens, windows["spare"])
        error = (made.float() - frames).square().mean()
        distance = (features - codes).square().mean()
        parts = {"reconstruction": error.detach(), "commitment": distance.detach()}
        parts |= {"reconstruction_psnr": psnr(made.detach(), frames)}
        return Loss(value=error + self.commitment * distance, parts=parts, states=[])

    def _observe(self, features_NDhw: Tensor, tokens_Nhw: Tensor, spare_BR: Tensor) -> None:
        """Keep what the codebook will learn from a pass."""
        flat = rearrange(features_NDhw, "n d h w -> (n h w) d")
        numbers = tokens_Nhw.flatten()
        self._used += torch.bincount(numbers, minlength=len(self._used)).to(self._used)
        self._sums.index_add_(0, numbers, flat)
        of_windows = flat.view(len(spare_BR), -1, flat.shape[-1])
        rows = torch.arange(len(spare_BR), device=flat.device)[:, None]
        self._spare.append(of_windows[rows, spare_BR].flatten(0, 1))

    def begin_step(self) -> None:
        """Forget what earlier passes showed the codebook."""
        codes = self.tokenizer.codebook.codes
        self._used, self._sums = codes.new_zeros(len(codes)), torch.zeros_like(codes)
        self._spare: list[Tensor] = []

    def end_step(self) -> None:
        """Move the codebook by what all windows of the step showed, in every process alike."""
        spare = torch.cat(self._spare)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(self._used)
            torch.distributed.all_reduce(self._sums)
            parts = [torch.empty_like(spare) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(parts, spare)
            spare = torch.cat(parts)
        self.tokenizer.codebook.update(
            self._used, self._sums, spare, decay=self.decay, dead_share=self.dead_share
        )


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Generator):
    """Shows the true frames as tokens tell them; no model on these tokens can come nearer."""

    tokenizer: VQTokenizer

    def generate(self, clips: Clips, sampling: Sampling, *, progress: Callable[..., Any]) -> None:
        """Encode and decode the true frames, frame by frame, in place."""
        assert clips.truth is not None
        for frame in progress(range(sampling.context, clips.video.shape[1])):
            tokens = self.tokenizer.encode(clips.truth[:, frame])
            clips.video[:, frame] = self.tokenizer.decode(tokens)


def build(settings: VQSettings, *, initial: Path | None) -> TokenizerModel:
    """Return the untrained tokenizer, or that of a checkpoint; see `Method.build`."""
    learning = settings.model_dump(include={"decay", "dead_share", "commitment"})
    if initial is None:
        sizes = settings.model_dump(exclude=set(learning))
        return TokenizerModel(VQTokenizer(**sizes), **learning)
    return TokenizerModel(load_module(VQTokenizer, initial, NAME), **learning)


def load(checkpoint: Path, *, device: torch.device) -> Reconstruction:
    """Return the trained tokenizer on a device; see `Method.load`."""
    return Reconstruction(tokenizer=load_module(VQTokenizer, checkpoint, NAME).eval().to(device))
