"""Small alignment runs, equal but for the features that they are aligned with.

Shape suffixes: W, B windows, T frames, S pixels, h, w cells of a grid, D width of the teacher's
tokens, C channels of compressed features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import cosine_similarity

from geomem.alignment.projection import align
from geomem.formats import ClipStore, read_frames
from geomem.memory.reconstruction import FeatureBasis, on_grid, restored_layers
from geomem.methods.training import TrainedMethod, pixels_last
from geomem.networks.projectors import AlignmentProjector
from geomem.scores.windows import draw_windows
from geomem.settings.jobs import CacheFidelityJob

CLIP_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of clips.

    Attributes:
        names: Clip of each.
        images: (W, T, 3, S, S) in [0, 1].
        cameras: (W, T, 16).
    """

    names: list[str]
    images: Tensor
    cameras: Tensor


def read_windows(store: ClipStore, count: int, *, frames: int, stride: int, seed: int) -> Windows:
    """Read windows, one of each clip in turn until there are `count`."""
    clips, drawn = len(store.clips), list[tuple[int, list[int]]]()
    for turn in range(-(-count // clips)):
        rest = min(clips, count - len(drawn))
        drawn += draw_windows(store, rest, frames=frames, stride=stride, seed=seed + turn)
    read = [read_frames(store, clip, tuple(chosen), flip=False) for clip, chosen in drawn]
    rgb = torch.from_numpy(np.stack([one.rgb for one in read]))
    return Windows(
        names=[store.clips[clip].clip_id for clip, _ in drawn],
        images=rearrange(rgb, "w t h x c -> w t c h x").float() / 255,
        cameras=torch.from_numpy(np.stack([one.cameras for one in read])),
    )


class AlignmentRuns:
    """Trainings of one method on the same windows with the same draws, and what they come to."""

    def __init__(
        self,
        settings: CacheFidelityJob,
        pool: Windows,
        held: Windows,
        held_raw: dict[int, Tensor],
        device: torch.device,
    ) -> None:
        """Bind what all runs share.

        Args:
            settings: Of the job.
            pool: Windows that they are trained on.
            held: Held-out windows.
            held_raw: Raw features (W, T, h, w, D) of those, by layer.
            device: Where they are trained.
        """
        self.settings, self.chosen = settings, settings.cache_fidelity
        self.pool, self.held, self.held_raw, self.device = pool, held, held_raw, device

    def run(self, targets: Tensor, basis: FeatureBasis, *, seed: int) -> Tensor:
        """Train a method that is aligned with `targets`, and compare its projections with raw ones.

        Args:
            targets: Features (W, T, C, h, w) of the pool, as a cache gives them.
            basis: What they are made with.
            seed: Of weights and draws.

        Returns:
            Cosines (W,) of held-out windows: of what is projected, in the teacher's own width, with
            the raw features on the student's grid; both without the basis' mean, whose scale the
            projector does not know. The mean over cells, frames and layers.
        """
        spec, alignment = self.settings.method.spec, self.settings.alignment
        states = spec.hidden_states(self.settings.method.settings, self.settings.resolution)
        torch.manual_seed(seed)
        method = spec.build(self.settings.method.settings, memory=None, initial=None)
        projector = AlignmentProjector(states[alignment.level].width, targets.shape[2])
        method, projector = method.to(self.device).train(), projector.to(self.device)
        groups: list[Any] = method.parameter_groups(self.chosen.learning_rate, zero_init_rate=1.0)
        parameters = [p for group in groups for p in group["params"]] + [*projector.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=self.chosen.learning_rate)
        weights = {"scale": alignment.scale_weight}
        for step in range(self.chosen.steps):
            places = torch.arange(step * self.chosen.batch, (step + 1) * self.chosen.batch)
            rows = places % len(self.pool.names)
            method.begin_step()
            windows = self._drawn(method, self.pool, rows, seed=(seed * 1_000_003 + step) * 1_009)
            made = method.loss(windows)
            tokens = targets[rows].to(self.device)
            terms = align(
                projector,
                made.states[alignment.level].float(),
                rearrange(tokens, "b t c h w -> b t (h w) c"),
                grid=tokens.shape[-2:],
                objective=alignment.objective,
            )
            loss = made.value
            for name, term in terms.losses.items():
                loss = loss + weights.get(name, alignment.weight) * term
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            optimizer.step()
            method.end_step()
        return self._held_cosines(method.eval(), projector.eval(), basis)

    def _drawn(
        self, method: TrainedMethod, windows: Windows, rows: Tensor, *, seed: int
    ) -> dict[str, Tensor]:
        """Return windows as a method takes them, with what is drawn for them."""
        frames = pixels_last(windows.images[rows].to(self.device) * 2 - 1)
        torch.manual_seed(seed)
        drawn = method.draw(
            tuple(frames.shape),
            noise=self.settings.noise,
            history=0.0,
            memory_dropout=None,
            device=self.device,
        )
        return {"frames": frames, "cameras": windows.cameras[rows].to(self.device), **drawn}

    @torch.no_grad()
    def _held_cosines(
        self, method: TrainedMethod, projector: AlignmentProjector, basis: FeatureBasis
    ) -> Tensor:
        found, level = [], self.settings.alignment.level
        for rows in torch.arange(len(self.held.names)).split(self.chosen.batch):
            windows = self._drawn(method, self.held, rows, seed=int(rows[0]))
            state = method.loss(windows).states[level].float()
            side = state.shape[-1]
            flat = rearrange(projector(state)[0], "b t (h w) c -> b t c h w", h=side).cpu()
            cosines = []
            for one, back in zip(basis.layers, restored_layers(flat, basis), strict=True):
                raw = self.held_raw[one.layer][rows].float().movedim(-1, 2)
                truth = on_grid(raw, side).movedim(2, -1)
                cosine = cosine_similarity(back - one.mean, truth - one.mean, dim=-1)
                cosines.append(cosine.flatten(1).mean(1))
            found.append(torch.stack(cosines).mean(0))
        return torch.cat(found)
