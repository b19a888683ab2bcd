"""The one training loop; variants only configure it."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from geomem.diffusion.schedule import CosineSchedule
from geomem.formats import InputError
from geomem.formats.states import load_state, save_state
from geomem.training.build import OnlineTeacher
from geomem.training.data import WindowDataset
from geomem.training.network import VideoModel, training_loss

Log = list[dict[str, float]]


def learning_rate_factor(step: int, recipe: dict[str, Any]) -> float:
    """Return the factor on the learning rate at a step (0-based): warm-up, then the decay."""
    if step < recipe["warmup_steps"]:
        return (step + 1) / recipe["warmup_steps"]
    if recipe["decay"] == "constant":
        return 1.0
    rest = max(1, recipe["steps"] - recipe["warmup_steps"])
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - recipe["warmup_steps"]) / rest)))


def train(
    model: VideoModel,
    dataset: WindowDataset,
    settings: dict[str, Any],
    *,
    teacher: OnlineTeacher | None = None,
    state_folder: Path,
    checkpoint_steps: int,
    workers: int,
    progress: Callable[..., Any],
) -> Log:
    """Train `model` in place and leave the averaged weights in it; resume where a run had stopped.

    Args:
        model: Modules on the CPU; those trained are found by `trained_modules`.
        dataset: Windows in plan order; step i takes the i-th batch.
        settings: `Config.training_settings`.
        teacher: Gives the windows' features where they are aligned and not cached.
        state_folder: Where resumable states are kept.
        checkpoint_steps: Steps between them.
        workers: Loader processes.
        progress: Wraps the iteration over steps; called with `total` and `initial`.

    Returns:
        One entry per step: step, learning rate, loss and its parts, gradient norm.

    Raises:
        InputError: If the loss is not finite.
    """
    recipe, variant, seed = settings["recipe"], settings["variant"], settings["seed"]
    accelerator = Accelerator(
        mixed_precision=recipe["precision"], gradient_accumulation_steps=recipe["accumulation"]
    )
    model.to(accelerator.device)
    online = teacher and teacher.to(accelerator.device)
    trained = model.trained_modules()
    groups = model.parameter_groups(
        recipe["learning_rate"], zero_init_rate=recipe["zero_init_rate"]
    )
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(
        groups,
        lr=recipe["learning_rate"],
        betas=tuple(recipe["betas"]),
        weight_decay=recipe["weight_decay"],
    )
    ema = EMAModel(parameters, decay=recipe["ema_decay"])
    done, log = load_state(
        state_folder,
        modules=trained,
        optimizer=optimizer,
        averages=ema.shadow_params,
        key=settings,
    )
    ema.optimization_step = done
    wrapped, prepared = accelerator.prepare(model, optimizer)
    schedule = CosineSchedule(shift=32 / settings["resolution"])
    batches = _batches(dataset, recipe, accelerator, first=done, workers=workers)
    for step in progress(range(done, recipe["steps"]), total=recipe["steps"], initial=done):
        torch.manual_seed((seed * 1_000_003 + step) * 1_009 + accelerator.process_index)
        factor = learning_rate_factor(step, recipe)
        for group in prepared.param_groups:
            group["lr"] = group["rate"] * factor
        losses = []
        for _ in range(recipe["accumulation"]):
            batch = next(batches)
            if online is not None:
                batch["tokens"] = online.tokens(batch["frames"])
            with accelerator.accumulate(wrapped), accelerator.autocast():
                loss, parts = training_loss(
                    wrapped,
                    batch,
                    schedule,
                    noise=variant["noise"],
                    memory_dropout=settings.get("memory", {}).get("dropout", 0.0),
                    alignment=variant["alignment"],
                    projector=model.projector,
                )
                accelerator.backward(loss)
                norm = accelerator.clip_grad_norm_(parameters, recipe["clip_norm"])
                prepared.step()
                prepared.zero_grad()
            losses.append({"loss": loss.detach(), **parts})
        ema.step(parameters)
        log.append(_log_entry(step, losses, norm, recipe["learning_rate"] * factor))
        if (step + 1) % checkpoint_steps == 0 and step + 1 < recipe["steps"]:
            save_state(
                state_folder,
                step + 1,
                modules=trained,
                optimizer=optimizer,
                averages=ema.shadow_params,
                log=log,
                key=settings,
            )
    ema.copy_to(parameters)
    model.to("cpu")
    return log


def _batches(
    dataset: WindowDataset,
    recipe: dict[str, Any],
    accelerator: Accelerator,
    *,
    first: int,
    workers: int,
) -> Iterator[dict[str, Tensor]]:
    """Yield this process's share of every micro-batch from step `first` on, in plan order."""
    share = accelerator.num_processes * recipe["accumulation"]
    if recipe["batch"] % share:
        raise InputError(
            f"recipe.batch {recipe['batch']} does not divide among {accelerator.num_processes} "
            f"processes x {recipe['accumulation']} accumulation steps"
        )
    micro = recipe["batch"] // share
    positions = range(first * recipe["batch"], recipe["steps"] * recipe["batch"])
    mine = [
        position
        for number, position in enumerate(positions)
        if number // micro % accelerator.num_processes == accelerator.process_index
    ]
    # Its own generator: a loader otherwise draws from the global one when it starts, which a
    # resumed run does at another step than an undisturbed one.
    loader: DataLoader[dict[str, Tensor]] = DataLoader(
        Subset(dataset, mine), batch_size=micro, num_workers=workers, generator=torch.Generator()
    )
    for batch in loader:
        yield {name: tensor.to(accelerator.device) for name, tensor in batch.items()}


def _log_entry(
    step: int, losses: list[dict[str, Tensor]], norm: Any, learning_rate: float
) -> dict[str, float]:
    means = {k: float(torch.stack([part[k] for part in losses]).mean()) for k in losses[0]}
    if not math.isfinite(means["loss"]):
        raise InputError(
            f"the loss is {means['loss']} at step {step}: the clips or features hold NaN, or the "
            "learning rate is too high; earlier states are kept"
        )
    entry = {"step": float(step), "learning_rate": learning_rate, **means}
    return entry if norm is None else entry | {"gradient_norm": float(norm)}
