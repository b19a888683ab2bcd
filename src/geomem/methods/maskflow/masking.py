"""How tokens are masked and unmasked: the schedule k(t) of MaskFlow and its two samplers.

Shape suffixes: B clips, T frames, h, w rows and columns of tokens, K codes.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EARLIEST = 1e-3  # training draws no earlier time
SHARPNESS = 6.0
_START, _END = (1 / (1 + math.exp(-x)) for x in (-SHARPNESS / 2, SHARPNESS / 2))

# Tokens and times (B, T) to logits (B, T, h, w, K).
TokenModel = Callable[[Tensor, Tensor], Tensor]


def kept_share(times: Tensor) -> Tensor:
    """Return the share of tokens that is not masked at times in [0, 1]:

    k(t) = (sigmoid(6t - 3) - sigmoid(-3)) / (sigmoid(3) - sigmoid(-3)), so k(0) = 0 and k(1) = 1.
    """
    return (torch.sigmoid(SHARPNESS * (times - 0.5)) - _START) / (_END - _START)


def unmasking_rate(time: float) -> float:
    """Return k'(t) / (1 - k(t)) at a time in [0, 1): how fast a masked token is unmasked."""
    at = 1 / (1 + math.exp(-SHARPNESS * (time - 0.5)))
    slope = SHARPNESS * at * (1 - at) / (_END - _START)
    return slope / (1 - (at - _START) / (_END - _START))


def mask_tokens(tokens_BThw: Tensor, times_BT: Tensor, uniform_BThw: Tensor, mask: int) -> Tensor:
    """Return the tokens, each masked unless its draw, uniform in [0, 1), is below k(t)."""
    return tokens_BThw.where(uniform_BThw < kept_share(times_BT)[..., None, None], mask)


def masked_cross_entropy(logits_BThwK: Tensor, target_BThw: Tensor, masked_BThw: Tensor) -> Tensor:
    """Return the mean over windows of the cross-entropy of a window's masked tokens, divided by
    their number; a window without any adds nothing.

    The number is the window's, not the batch's, so that parts of a batch have the loss of the
    whole. The paper's optional weights by fused SNR are left out.
    """
    nats = F.cross_entropy(logits_BThwK.flatten(0, 3), target_BThw.flatten(), reduction="none")
    nats_BThw = nats.view_as(target_BThw) * masked_BThw
    count = masked_BThw.flatten(1).sum(1).clamp(min=1)
    return (nats_BThw.flatten(1).sum(1) / count).mean()


def reveal_counts(tokens: int, steps: int) -> list[int]:
    """Return how many of so many masked tokens are revealed after each step: step i adds a number
    proportional to arccos(r_i), r falling evenly from 1 to 0, and at least one while some are left.
    """
    weights = torch.arccos(1 - torch.arange(1, steps + 1, dtype=torch.float64) / steps)
    shares = (weights.cumsum(0) / weights.sum() * tokens).round().long().tolist()
    least = [min(tokens, max(share, step)) for step, share in enumerate(shares, start=1)]
    return [*least[:-1], tokens]


def uniform_like(tokens_BThw: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Return draws uniform in [0, 1), each clip's from its own generator."""
    rows = [torch.rand(tokens_BThw.shape[1:], generator=one) for one in generators]
    return torch.stack(rows).to(tokens_BThw.device)


def draw_codes(probability_BThwK: Tensor, uniform_BThw: Tensor) -> Tensor:
    """Return the codes (B, T, h, w) at which the cumulated probabilities pass uniform draws."""
    total = probability_BThwK.cumsum(-1)
    passed = total <= uniform_BThw[..., None] * total[..., -1:]
    return passed.sum(-1).clamp(max=probability_BThwK.shape[-1] - 1)


def sample_full(
    model: TokenModel,
    tokens_BThw: Tensor,
    *,
    mask: int,
    steps: int,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Unmask by the discrete flow, in Euler steps of h = 1 / steps.

    A masked token's distribution at t + h is delta_mask + h k'(t) / (1 - k(t)) (p_1 - delta_mask),
    p_1 the network's; others do not change. The last step unmasks what is left.

    Args:
        model: Sees the tokens as they are after the step before, and each frame's time; a frame
            without masks is at time 1.
        tokens_BThw: Codes, and masks where they are to be made.
        mask: The masks' number.
        steps: Evaluations of the model.
        generators: One for each clip.

    Returns:
        The tokens without masks.
    """
    context = ~(tokens_BThw == mask).flatten(2).any(2)
    for step in range(steps):
        time = step / steps
        times = torch.where(context, 1.0, time)
        probability = model(tokens_BThw, times).softmax(-1)
        chosen = draw_codes(probability, uniform_like(tokens_BThw, generators))
        share = 1.0 if step + 1 == steps else unmasking_rate(time) / steps
        unmasked = (tokens_BThw == mask) & (uniform_like(tokens_BThw, generators) < share)
        tokens_BThw = torch.where(unmasked, chosen, tokens_BThw)
    return tokens_BThw


def sample_timestep_free(
    model: TokenModel,
    tokens_BThw: Tensor,
    *,
    mask: int,
    steps: int,
    time: float,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Unmask the most confident tokens first, as masked generative models do.

    Every step draws a code for all masked tokens and keeps those of the highest probability, as
    many as `reveal_counts` says of the tokens to be made; given ones do not count.

    Args:
        model: As `sample_full`'s, but told the same time at every step.
        tokens_BThw: Codes, and masks where they are to be made.
        mask: The masks' number.
        steps: Evaluations of the model.
        time: What it is told of frames that are made.
        generators: One for each clip.

    Returns:
        The tokens without masks.
    """
    masked = tokens_BThw == mask
    times = torch.where(masked.flatten(2).any(2), time, 1.0)
    # the same frames of all clips are made
    counts = reveal_counts(int(masked[0].sum()), steps)
    for before, after in zip([0, *counts], counts, strict=False):
        probability = model(tokens_BThw, times).softmax(-1)
        chosen = draw_codes(probability, uniform_like(tokens_BThw, generators))
        confidence = probability.gather(-1, chosen[..., None])[..., 0]
        confidence = confidence.masked_fill(tokens_BThw != mask, -1.0).flatten(1)
        surest = confidence.topk(after - before, dim=1).indices
        unmasked = torch.zeros_like(confidence, dtype=torch.bool).scatter(1, surest, True)
        tokens_BThw = torch.where(unmasked.view_as(tokens_BThw), chosen, tokens_BThw)
    return tokens_BThw
