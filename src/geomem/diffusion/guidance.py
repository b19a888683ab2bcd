"""History guidance: one network evaluation per version of the history, composed by weights.

The composed score is s(no history) + sum_i w_i (s(history version i) - s(no history)) (DFoT,
history guidance). A version of the history is the history with noise: a frame at noise 1 is
forgotten, a frame between 0 and 1 keeps its low frequencies.

A scheme is a function of this module with the scheme's published name and arguments. The models in
`geomem.config` have the same names and arguments.

Shape legend: B clips, R branches, N = B R rows with the branches of a clip adjacent, T frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum, rearrange, repeat
from torch import Tensor

from geomem.diffusion.rollout_plans import FrameState
from geomem.diffusion.schedule import CLEAN_LEVEL, noise_to_levels

NEGLIGIBLE_WEIGHT = 1e-9  # what rounding leaves of weights that should cancel


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One version of the history.

    Attributes:
        weight: Weight of the branch's output in the composition.
        given_noise: Noise on given history frames as a fraction of all levels, 0 clean to
            1 forgotten.
        generated_noise: The same for history frames that the model generated itself.
        kept: Positions within the history (negative: from its end) that this branch sees; all
            others are forgotten. None keeps all. Positions that a short history does not have are
            left out.
        as_generated: Whether history frames have the noise of those to be generated instead.
        unconditional: Whether the branch runs without conditions (of DFoT: the cameras). A branch
            of whose `kept` nothing is left does so too, and its term of the sum vanishes.
    """

    weight: float
    given_noise: float = 0.0
    generated_noise: float = 0.0
    kept: tuple[int, ...] | None = None
    as_generated: bool = False
    unconditional: bool = False

    def __post_init__(self) -> None:
        for noise in (self.given_noise, self.generated_noise):
            if not 0 <= noise <= 1:
                raise ValueError(f"noise on the history must be in [0, 1], got {noise}")

    def levels(self, levels_BT: Tensor, context_mask_BT: Tensor, num_levels: int) -> Tensor:
        """Noise levels (B,T) of this branch: its own on history frames, `levels_BT` elsewhere."""
        given, generated = (
            round(noise * num_levels) - 1 for noise in (self.given_noise, self.generated_noise)
        )
        is_history = context_mask_BT >= FrameState.GIVEN
        own = torch.full_like(levels_BT, given)
        own[context_mask_BT == FrameState.GENERATED] = generated
        if self.kept is not None:
            own[~_at_positions(is_history, self.kept)] = num_levels - 1
        if self.as_generated:
            made = levels_BT.masked_fill(context_mask_BT != FrameState.TO_GENERATE, CLEAN_LEVEL)
            own = made.amax(1, keepdim=True).expand_as(levels_BT)
        return torch.where(is_history, own, levels_BT)

    def without_conditions(self, context_mask_BT: Tensor) -> Tensor:
        """Bool (B,): clips in which this branch runs without conditions."""
        dropped = torch.full_like(context_mask_BT[:, 0], self.unconditional, dtype=torch.bool)
        if self.kept is not None:
            dropped |= ~_at_positions(context_mask_BT >= FrameState.GIVEN, self.kept).any(1)
        return dropped


def _at_positions(is_history_BT: Tensor, positions: Sequence[int]) -> Tensor:
    """Mark the history frames at those of the positions that each clip's history has."""
    rank_BT = is_history_BT.long().cumsum(1) - 1
    length_B1 = is_history_BT.sum(1, keepdim=True)
    marked = torch.zeros_like(is_history_BT)
    for position in positions:
        marked |= rank_BT == (position if position >= 0 else length_B1 + position)
    return marked & is_history_BT


@dataclass(frozen=True)
class HistoryGuidance:
    """A scheme: branches whose weights sum to 1.

    Every branch shares the frames to be generated, and a DDIM step is affine in the network output,
    so composing outputs and composing stepped frames are the same.
    """

    branches: tuple[Branch, ...]

    @property
    def evaluations(self) -> int:
        """Network rows per clip and step (NFE)."""
        return len(self.branches)

    @property
    def renoises(self) -> bool:
        """Whether any branch may put noise on the history, so that noise must be drawn."""
        return any(
            b.given_noise or b.generated_noise or b.as_generated or b.kept is not None
            for b in self.branches
        )

    def levels(self, levels_BT: Tensor, context_mask_BT: Tensor, num_levels: int) -> Tensor:
        """Noise levels of all rows, (N,T)."""
        rows = [b.levels(levels_BT, context_mask_BT, num_levels) for b in self.branches]
        return rearrange(rows, "r b t -> (b r) t")

    def unconditional(self, context_mask_BT: Tensor) -> Tensor:
        """Bool (N,): rows that run without conditions."""
        rows = [b.without_conditions(context_mask_BT) for b in self.branches]
        return rearrange(rows, "r b -> (b r)")

    def expand(
        self,
        x_BTCHW: Tensor,
        levels_BT: Tensor,
        context_mask_BT: Tensor,
        *,
        noise_NTCHW: Tensor | None,
        alphas_cumprod: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Repeat clips once per branch and put each branch's noise on the history.

        Args:
            x_BTCHW: Clips; history frames are clean.
            levels_BT: Integer noise levels, -1 on the history.
            context_mask_BT: `FrameState` values; they may differ between clips.
            noise_NTCHW: Standard normal noise for history frames; None if `renoises` is False.
            alphas_cumprod: (num_levels,) signal power per level.

        Returns:
            Rows (N,T,C,H,W) and their noise levels (N,T).
        """
        levels_NT = self.levels(levels_BT, context_mask_BT, len(alphas_cumprod))
        x_NTCHW = repeat(x_BTCHW, "b ... -> (b r) ...", r=self.evaluations)
        if noise_NTCHW is None:
            assert not self.renoises, "a scheme that re-noises the history needs noise"
            return x_NTCHW, levels_NT
        mask_NT = repeat(context_mask_BT, "b t -> (b r) t", r=self.evaluations)
        # Frames to be generated carry their noise already: level -1 leaves them alone.
        history_levels_NT = torch.where(mask_NT >= FrameState.GIVEN, levels_NT, -1)
        noisy = noise_to_levels(
            x_NTCHW, noise_NTCHW, history_levels_NT, alphas_cumprod=alphas_cumprod
        )
        return noisy, levels_NT

    def compose(self, outputs_NTCHW: Tensor) -> Tensor:
        """Weighted sum of the rows of each clip, (B,T,C,H,W)."""
        weights = outputs_NTCHW.new_tensor([b.weight for b in self.branches])
        rows = rearrange(outputs_NTCHW, "(b r) ... -> b r ...", r=self.evaluations)
        return einsum(rows, weights, "b r ..., r -> b ...")


def _against_no_history(*branches: Branch) -> HistoryGuidance:
    """Scheme of these branches and the unconditional one, which takes the rest of the weight."""
    unconditional = Branch(
        weight=1 - sum(b.weight for b in branches),
        given_noise=1.0,
        generated_noise=1.0,
        unconditional=True,
    )
    kept = [b for b in (unconditional, *branches) if abs(b.weight) > NEGLIGIBLE_WEIGHT]
    return HistoryGuidance(tuple(kept))


def conditional() -> HistoryGuidance:
    """The history as it is, no guidance."""
    return _against_no_history(Branch(weight=1.0))


def replacement() -> HistoryGuidance:
    """The history at the noise of the frames to be generated, drawn anew at every step: how a model
    with one noise level for all frames is given one (full-sequence diffusion)."""
    return HistoryGuidance((Branch(weight=1.0, as_generated=True),))


def vanilla(guidance_scale: float) -> HistoryGuidance:
    """w cond - (w - 1) uncond, the history clean in cond (DFoT, HG-v)."""
    return _against_no_history(Branch(weight=guidance_scale))


def stabilized_vanilla(guidance_scale: float, stabilization_level: float) -> HistoryGuidance:
    """HG-v that sees generated history at a little noise (a fraction of all levels, 0.02)."""
    branch = Branch(weight=guidance_scale, generated_noise=stabilization_level)
    return _against_no_history(branch)


def fractional(guidance_scale: float, freq_scale: float) -> HistoryGuidance:
    """cond + (w - 1) (cond on the history at noise `freq_scale` - uncond) (DFoT, HG-f)."""
    partial = Branch(weight=guidance_scale - 1, given_noise=freq_scale, generated_noise=freq_scale)
    return _against_no_history(Branch(weight=1.0), partial)


def stabilized_fractional(
    guidance_scale: float, freq_scale: float, stabilization_level: float
) -> HistoryGuidance:
    """HG-f whose branch on the whole history sees generated frames at a little noise.

    The partial branch has all of the history at noise `freq_scale`, as without stabilization.
    """
    whole = Branch(weight=1.0, generated_noise=stabilization_level)
    partial = Branch(weight=guidance_scale - 1, given_noise=freq_scale, generated_noise=freq_scale)
    return _against_no_history(whole, partial)


def temporal(
    hist_subsequences: Sequence[Sequence[int]], hist_weights: Sequence[float]
) -> HistoryGuidance:
    """uncond + sum_i w_i (cond on subsequence i of the history - uncond) (DFoT, HG-t).

    Args:
        hist_subsequences: Positions within the history, negative ones from its end. Those that a
            history does not have are left out; a subsequence of which nothing is left adds nothing.
        hist_weights: A weight per subsequence.

    Raises:
        ValueError: If the lengths differ.
    """
    if len(hist_subsequences) != len(hist_weights):
        raise ValueError(
            f"{len(hist_subsequences)} history subsequences but {len(hist_weights)} weights"
        )
    pairs = zip(hist_subsequences, hist_weights, strict=True)
    return _against_no_history(*(Branch(weight=w, kept=tuple(kept)) for kept, w in pairs))


SCHEMES: dict[str, Callable[..., HistoryGuidance]] = {
    scheme.__name__: scheme
    for scheme in (
        conditional,
        replacement,
        vanilla,
        stabilized_vanilla,
        fractional,
        stabilized_fractional,
        temporal,
    )
}


def history_guidance(scheme: str, **arguments: Any) -> HistoryGuidance:
    """Scheme by its published name.

    Args:
        scheme: A key of `SCHEMES`.
        arguments: Those of that function.

    Raises:
        ValueError: If the name is unknown.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"history guidance {scheme!r} is not one of {sorted(SCHEMES)}")
    return SCHEMES[scheme](**arguments)
