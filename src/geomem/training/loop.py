"""The one training loop; variants only configure it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from geomem.errors import InputError
from geomem.formats.states import Log, States
from geomem.settings.jobs import TrainingJob
from geomem.settings.training import Optimization
from geomem.training.build import OnlineImageTeacher, OnlineTeacher, RawTeacher
from geomem.training.data import WindowDataset
from geomem.training.objective import Objective
from geomem.training.parallel import Team
from geomem.training.stopping import StoppedError, ignore_sigterm
from geomem.training.trainer import MicroBatch, Trainer

CPU = torch.device("cpu")


def train(
    model: Objective,
    dataset: WindowDataset,
    settings: TrainingJob,
    *,
    inputs: dict[str, str],
    device: torch.device = CPU,
    teacher: OnlineTeacher | RawTeacher | OnlineImageTeacher | None = None,
    state_folder: Path,
    progress: Callable[..., Any],
    spool: Callable[[dict[str, float]], None] | None = None,
    told_to_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> Log:
    """Train `model` in place and leave the averaged weights in it; resume where a run had stopped.

    Args:
        model: Modules on the CPU; those trained are found by `trained_modules`.
        dataset: Windows in plan order; step i takes the i-th batch, again and again.
        settings: Of the job.
        inputs: Checksums of what the run is made from (initial checkpoint, plan, clips, caches): a
            state that was made from others is not its own.
        device: What the job computes on; several processes take a GPU each.
        teacher: Gives the windows' features where they are aligned and not cached.
        state_folder: Where resumable states are kept.
        progress: Wraps the iteration over steps; called with `total` and `initial`.
        spool: Told every step's entry as it is made, in the process that is given it.
        told_to_stop: Asked after each step; the run then saves its state and ends.
        say: Told of damaged states and of a lack of memory, in one line each.

    Returns:
        One entry per step: step, learning rate, loss and its parts, gradient norm; of the global
        batch, whatever the number of processes.

    Raises:
        InputError: If the loss is not finite or the batch does not divide among the processes.
        StoppedError: If it ended early; the next run goes on from the newest state.
    """
    recipe, steps = settings.recipe, settings.recipe.steps
    team = Team(
        device=device,
        precision=recipe.precision,
        parallel=recipe.parallel,
        unused_parameters=settings.alignment is not None,
    )
    share = _share(recipe, team)
    micro = MicroBatch(state_folder, share // recipe.accumulation, alone=team.size == 1, say=say)
    trainer = Trainer(model, settings, team=team, teacher=teacher, micro=micro)
    made_from = {**settings.recorded(), "inputs": inputs}
    states = States(state_folder, made_from=made_from, kept=recipe.states, say=say)
    done = team.from_main(states.newest() if team.is_main else None) or 0
    if done:
        trainer.resume(*states.read(done))
    shares = _shares(dataset, recipe, team, first=done)
    remaining = range(done, steps)
    for step in progress(remaining, total=steps, initial=done) if team.is_main else remaining:
        trainer.step(step, next(shares))
        if spool:
            spool(trainer.log[-1])
        stop = team.any(told_to_stop())
        if step + 1 < steps and (stop or (step + 1) % recipe.checkpoint_steps == 0):
            _save(trainer, states, step + 1)
            if stop:
                states.wait()
                raise StoppedError(
                    f"stopped by SIGTERM after step {step + 1} of {steps}; run again to go on "
                    "from there"
                )
    states.wait()
    trainer.finish(model)
    return trainer.log


def _save(trainer: Trainer, states: States, step: int) -> None:
    tensors, content = trainer.state(step)
    if trainer.team.is_main:
        states.save(step, tensors, content)


def _share(recipe: Optimization, team: Team) -> int:
    """Return how many windows of a step are this process's."""
    if recipe.batch % (team.size * recipe.accumulation):
        raise InputError(
            f"recipe.batch {recipe.batch} does not divide among {team.size} "
            f"processes x {recipe.accumulation} accumulation steps"
        )
    return int(recipe.batch // team.size)


def _shares(
    dataset: WindowDataset, recipe: Optimization, team: Team, *, first: int
) -> Iterator[dict[str, Tensor]]:
    """Yield this process's share of every global batch from step `first` on, in plan order.

    A plan that ends begins anew; what is drawn for a window is then another.
    """
    share = _share(recipe, team)
    positions = range(first * recipe.batch, recipe.steps * recipe.batch)
    mine = [
        position % len(dataset)
        for position in positions
        if position % recipe.batch // share == team.number
    ]
    # Its own generator: a loader otherwise draws from the global one when it starts, which a
    # resumed run does at another step than an undisturbed one.
    loader: DataLoader[dict[str, Tensor]] = DataLoader(
        Subset(dataset, mine),
        batch_size=share,
        num_workers=recipe.workers,
        generator=torch.Generator(),
        worker_init_fn=ignore_sigterm,
        pin_memory=team.device.type == "cuda",
    )
    yield from loader
