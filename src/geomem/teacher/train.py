"""Train the small teacher."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.formats import ClipStore
from geomem.formats.clip_sets import read_sets
from geomem.formats.states import load_state, save_state
from geomem.formats.teacher_sizes import teacher_config
from geomem.networks.vggt.layers import Block
from geomem.networks.vggt.losses import (
    matching_loss,
    normalise_scene,
    patch_matches,
    vggt_loss,
)
from geomem.networks.vggt.model import NUM_SPECIAL, VGGT
from geomem.settings.jobs import TeacherJob

SAVE_EVERY = 250
MATCHING_LAYERS = (1, 2)
MAX_STRIDE = 8


def draw_sets(
    store: ClipStore, rng: np.random.Generator, *, count: int, frames: int
) -> list[tuple[int, list[int]]]:
    """Draw sets of frames for training: a clip each, frames at random in random order of time."""
    length = store.frames_per_clip
    sets = []
    for clip in rng.integers(0, len(store), count).tolist():
        stride = int(rng.integers(1, MAX_STRIDE + 1))
        reach = min(length, 1 + (frames - 1) * stride)
        start = int(rng.integers(0, length - reach + 1))
        chosen = np.linspace(start, start + reach - 1, frames).round().astype(int)
        sets.append((clip, (chosen[::-1] if rng.random() < 0.5 else chosen).tolist()))
    return sets


@torch.no_grad()
def start_as_matcher(model: VGGT, generator: torch.Generator) -> None:
    """Let a new model start where finding correspondences and reading off cameras is short work.

    Global attention starts by matching alike tokens (keys have the queries' weights), patches know
    where they are (sinusoids of random frequency and phase, nearly linear over the image), and the
    first frame's special tokens differ from the others'. From the published initialisation short
    trainings end with cameras that do not move: docs/negative-results.md.
    """
    for block in model.aggregator.global_blocks:
        assert isinstance(block, Block)
        for parameter in (block.attn.qkv.weight, block.attn.qkv.bias):
            queries, keys, _ = parameter.chunk(3)
            keys.copy_(queries)
    embedder = model.aggregator.patch_embed
    dim = embedder.pos_embed.shape[-1]
    side = torch.linspace(-1, 1, embedder.grid)
    frequency = 1.5 * torch.randn(2, dim, generator=generator)
    phase = 2 * torch.pi * torch.rand(dim, generator=generator)
    codes = (torch.cartesian_prod(side, side) @ frequency + phase).sin()
    embedder.pos_embed[:, 1:] = 0.5 * codes
    model.aggregator.camera_token.normal_(std=0.5, generator=generator)


@contextmanager
def attention_of(model: VGGT, layers: tuple[int, ...]) -> Iterator[list[Tensor]]:
    """Collect the logits (B, heads / 2, N, N) of half the heads of some global blocks."""
    logits: list[Tensor] = []

    def collect(block: Any, arguments: Any) -> None:
        kept = block.attn.num_heads // 2
        logits.append(block.attention_logits(*arguments)[:, :kept])

    blocks = [model.aggregator.global_blocks[layer] for layer in layers]
    handles = [block.register_forward_pre_hook(collect) for block in blocks]
    try:
        yield logits
    finally:
        for handle in handles:
            handle.remove()


def train_teacher(
    store: ClipStore,
    settings: TeacherJob,
    *,
    clips: str,
    device: torch.device,
    state_folder: Path,
    progress: Callable[..., Any],
) -> tuple[VGGT, list[dict[str, float]]]:
    """Train a small VGGT with true depth, points and cameras; resumes where a run had stopped.

    Args:
        store: Training clips.
        settings: Of the job; with `training`.
        clips: Checksum of the clips; a state made with others is not gone on from.
        device: Where the model is trained; it is returned on the CPU.
        state_folder: Where resumable states are kept.
        progress: Wraps the iteration over steps.
    """
    training = settings.training
    assert training is not None
    torch.manual_seed(training.seed)
    model = VGGT(teacher_config(settings.architecture))
    start_as_matcher(model, torch.Generator().manual_seed(training.seed))
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=0.05)
    averages = [p.detach().clone() for p in model.parameters()]
    modules = {"teacher": model}
    kept: dict[str, Any] = {
        "modules": modules,
        "optimizer": optimizer,
        "averages": averages,
        "key": {**settings.recorded(), "clips": clips},
    }
    done, log = load_state(state_folder, **kept)
    steps = training.steps
    for step in progress(range(done, steps), total=steps, initial=done):
        rng = np.random.default_rng([training.seed, step])
        frames = int(rng.integers(1, training.max_frames + 1))
        count = max(1, training.batch_frames // frames)
        sets = draw_sets(store, rng, count=count, frames=frames)
        images, cameras, depth = read_sets(store, sets)
        assert depth is not None
        factor = min(
            1.0,
            (step + 1) / max(1, training.warmup_steps),
            (steps - step) / max(1, training.cooldown_steps),
        )
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * factor
        images, cameras, depth = (x.to(device) for x in (images, cameras, depth))
        targets = normalise_scene(depth, cameras)
        with attention_of(model, MATCHING_LAYERS) as logits:
            losses = vggt_loss(model(images), targets)
        matches = patch_matches(targets, model.config.patch_size)
        matching = torch.stack([matching_loss(x, matches, special=NUM_SPECIAL) for x in logits])
        optimizer.zero_grad()
        (losses.total + training.matching_weight * matching.mean()).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (1 + step) / (10 + step))
        torch._foreach_lerp_(averages, [p.detach() for p in model.parameters()], 1 - decay)
        log.append(
            {
                "step": float(step),
                **{name: float(value.detach()) for name, value in vars(losses).items()},
                "matching": float(matching.mean().detach()),
                "gradient_norm": float(norm),
            }
        )
        if (step + 1) % SAVE_EVERY == 0:
            save_state(state_folder, step + 1, log=log, **kept)
    with torch.no_grad():
        for parameter, average in zip(model.parameters(), averages, strict=True):
            parameter.copy_(average)
    return model.cpu().eval(), log
