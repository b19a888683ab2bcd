"""Noise schedule of the study: continuous cosine log-SNR for training, 1000 levels for sampling.

Shape legend: B clips, T frames, C channels, H rows, W columns. A variance-preserving process,
x_t = alpha x + sigma noise with alpha^2 = sigmoid(logsnr) and sigma^2 = sigmoid(-logsnr). Every
frame has a noise level of its own (diffusion forcing). Level -1 means a clean frame.
"""

import math

import torch
from torch import Tensor

CLEAN_LEVEL = -1
MAX_LOGSNR = 15.0  # of the unshifted curve; the shift moves the range as a whole


def per_frame(values_BT: Tensor, like: Tensor) -> Tensor:
    """Append unit axes to per-frame values (B,T) so that they broadcast over `like` (B,T,...)."""
    return values_BT.reshape(values_BT.shape + (1,) * (like.ndim - values_BT.ndim))


def _alpha_sigma(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    return logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt()


def noise_to_levels(
    x_BTCHW: Tensor, noise_BTCHW: Tensor, levels_BT: Tensor, *, alphas_cumprod: Tensor
) -> Tensor:
    """Bring clean frames to integer noise levels: sqrt(a) x + sqrt(1 - a) noise.

    Args:
        x_BTCHW: Clean frames.
        noise_BTCHW: Standard normal noise.
        levels_BT: Integers in [-1, len(alphas_cumprod) - 1]; -1 leaves the frame as it is.
        alphas_cumprod: (L,) signal power `a` of each level.

    Returns:
        Frames at their levels, shape of `x_BTCHW`.
    """
    table = alphas_cumprod.to(x_BTCHW.device)
    signal = per_frame(table[levels_BT.clamp(min=0)], x_BTCHW)
    noisy = signal.sqrt() * x_BTCHW + (1 - signal).sqrt() * noise_BTCHW
    return torch.where(per_frame(levels_BT, x_BTCHW) == CLEAN_LEVEL, x_BTCHW, noisy)


class CosineSchedule:
    """Shifted cosine schedule with v-prediction and sigmoid loss weighting (DFoT).

    Args:
        shift: Resolution shift, 32 / resolution in the study; above 0. Adds 2 log(shift) to logsnr.
        num_levels: Integer levels of the sampler; level i lies at time i / (num_levels - 1).
        precond_scale: Factor between logsnr and the number that the network is given.
        clip_noise: Bound on the absolute value of noise.
        sigmoid_bias: The loss weight is sigmoid(sigmoid_bias - logsnr).

    Attributes:
        logsnr: (num_levels,) float32, falling.
        alphas_cumprod: (num_levels,) float32 signal power sigmoid(logsnr).

    Raises:
        ValueError: If `shift` is not above 0 or `num_levels` is below 2.
    """

    def __init__(
        self,
        *,
        shift: float,
        num_levels: int = 1000,
        precond_scale: float = 0.125,
        clip_noise: float = 20.0,
        sigmoid_bias: float = -1.0,
    ) -> None:
        if shift <= 0:
            raise ValueError(f"shift must be above 0, got {shift}")
        if num_levels < 2:
            raise ValueError(f"num_levels must be at least 2, got {num_levels}")
        self.shift = shift
        self.num_levels = num_levels
        self.precond_scale = precond_scale
        self.clip_noise = clip_noise
        self.sigmoid_bias = sigmoid_bias
        # In double: near t = 1 the tangent amplifies the rounding of single-precision times.
        logsnr = self.training_logsnr(torch.linspace(0, 1, num_levels, dtype=torch.float64))
        self.logsnr = logsnr.float()
        self.alphas_cumprod = logsnr.sigmoid().float()

    def training_logsnr(self, t: Tensor) -> Tensor:
        """Log signal-to-noise ratio at continuous times.

        logsnr(t) = -2 log tan(t_min + t (t_max - t_min)) + 2 log(shift), with t_min and t_max such
        that the unshifted curve falls from 15 to -15 (simple diffusion: shifted cosine).

        Args:
            t: Times in [0, 1], any shape; 0 is nearly clean.
        """
        t_min = math.atan(math.exp(-MAX_LOGSNR / 2))
        t_max = math.atan(math.exp(MAX_LOGSNR / 2))
        angle = t_min + t * (t_max - t_min)
        return -2 * angle.tan().log() + 2 * math.log(self.shift)

    def training_noise_levels(self, t_BT: Tensor) -> Tensor:
        """What the network is told about times `t_BT`: precond_scale * logsnr, (B,T)."""
        return self.precond_scale * self.training_logsnr(t_BT)

    def sampling_noise_levels(self, levels_BT: Tensor) -> Tensor:
        """What the network is told about integer levels (B,T); clean frames count as level 0."""
        return self.precond_scale * self.logsnr.to(levels_BT.device)[levels_BT.clamp(min=0)]

    def clip(self, noise: Tensor) -> Tensor:
        """Clamp noise to +-clip_noise."""
        return noise.clamp(-self.clip_noise, self.clip_noise)

    def add_noise(self, x_BTCHW: Tensor, t_BT: Tensor, noise_BTCHW: Tensor) -> Tensor:
        """Diffuse clean frames to times `t_BT` in [0, 1]: alpha x + sigma clip(noise)."""
        alpha, sigma = _alpha_sigma(per_frame(self.training_logsnr(t_BT), x_BTCHW))
        return alpha * x_BTCHW + sigma * self.clip(noise_BTCHW)

    def loss(self, v_BTCHW: Tensor, x_t_BTCHW: Tensor, noise_BTCHW: Tensor, t_BT: Tensor) -> Tensor:
        """Weighted squared error on the noise, element by element (mean not yet taken).

        eps_hat = alpha v + sigma x_t; weight sigmoid(sigmoid_bias - logsnr) (METHOD: noise).

        Args:
            v_BTCHW: Output of the network for `x_t_BTCHW`.
            x_t_BTCHW: Noisy frames from `add_noise`.
            noise_BTCHW: The noise given to `add_noise`.
            t_BT: Times in [0, 1].

        Returns:
            float32 (B,T,C,H,W), not negative.
        """
        logsnr = per_frame(self.training_logsnr(t_BT), x_t_BTCHW)
        alpha, sigma = _alpha_sigma(logsnr)
        predicted_noise = alpha * v_BTCHW.float() + sigma * x_t_BTCHW
        weight = (self.sigmoid_bias - logsnr).sigmoid()
        return weight * (predicted_noise - self.clip(noise_BTCHW)) ** 2

    def ddim_levels(self, steps: int, *, power: float = 1.0) -> Tensor:
        """Levels visited by a sampler of `steps` steps.

        Args:
            steps: Evaluations of the network.
            power: 1: evenly spaced, as published. Below, they crowd at high noise and the last
                step to the clean frame is long: the network's last estimate is then less sharp and
                has less of the noise that a small network leaves in.

        Returns:
            int64 (steps + 1,), falling from num_levels - 1 (nearly pure noise) to -1 (clean).

        Raises:
            ValueError: If `steps` is not in [1, num_levels], `power` is not positive, or levels
                coincide.
        """
        if not 1 <= steps <= self.num_levels:
            raise ValueError(f"steps must be in [1, {self.num_levels}], got {steps}")
        if power != 1:
            return self._warped_levels(steps, power)
        # Integer form of truncating linspace(-1, num_levels - 1): no rounding on any device.
        return torch.tensor([i * self.num_levels // steps - 1 for i in range(steps, -1, -1)])

    def _warped_levels(self, steps: int, power: float) -> Tensor:
        if power <= 0:
            raise ValueError(f"power must be positive, got {power}")
        shares = [((steps - i) / steps) ** power for i in range(steps)]
        levels = [round(share * self.num_levels) - 1 for share in shares]
        if len(set(levels)) < steps or levels[-1] < 0:
            raise ValueError(f"{steps} steps at power {power} visit a level twice")
        return torch.tensor([*levels, CLEAN_LEVEL])

    def ddim_step(
        self, x_BTCHW: Tensor, v_BTCHW: Tensor, current_BT: Tensor, following_BT: Tensor
    ) -> Tensor:
        """One deterministic DDIM step (eta 0), each frame between its own two levels.

        Args:
            x_BTCHW: Frames at their current levels.
            v_BTCHW: Network output for them.
            current_BT: Integer levels in [-1, num_levels - 1].
            following_BT: Integer levels; frames where both agree come back untouched.

        Returns:
            Frames at the following levels, (B,T,C,H,W).
        """
        table = self.alphas_cumprod.to(x_BTCHW.device)
        signal = per_frame(table[current_BT.clamp(min=0)], x_BTCHW)
        alpha, sigma = signal.sqrt(), (1 - signal).sqrt()
        clean = alpha * x_BTCHW - sigma * v_BTCHW.float()
        noise = alpha * v_BTCHW.float() + sigma * x_BTCHW
        moved = noise_to_levels(clean, noise, following_BT, alphas_cumprod=table)
        return torch.where(per_frame(current_BT == following_BT, x_BTCHW), x_BTCHW, moved)
