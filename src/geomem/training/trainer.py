"""One training step over any number of processes and micro-batches, and all that it changes."""

import copy
import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from diffusers.training_utils import EMAModel
from torch import Tensor

from geomem.errors import InputError
from geomem.formats import read_json, write_json
from geomem.formats.states import Log, restore_tensors, state_tensors, whole
from geomem.methods.training import pixels_last
from geomem.settings.jobs import TrainingJob
from geomem.settings.training import Optimization
from geomem.training.build import OnlineImageTeacher, OnlineTeacher, RawTeacher
from geomem.training.checkpointing import checkpoint_blocks
from geomem.training.draws import draw_step
from geomem.training.objective import Objective
from geomem.training.parallel import Team
from geomem.training.stopping import StoppedError


def learning_rate_factor(step: int, recipe: Optimization) -> float:
    """Return the factor on the learning rate at a step (0-based): warm-up, then the decay."""
    if step < recipe.warmup_steps:
        return float((step + 1) / recipe.warmup_steps)
    if recipe.decay == "constant":
        return 1.0
    rest = max(1, recipe.steps - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - recipe.warmup_steps) / rest)))


class MicroBatch:
    """How many windows a process takes at once; halved for good when memory runs out."""

    def __init__(
        self, folder: Path, windows: int, *, alone: bool, say: Callable[[str], None]
    ) -> None:
        """Start with `windows`, or with what an earlier run in `folder` had to come down to.

        Args:
            folder: Where the number is remembered.
            windows: What the recipe asks for.
            alone: Whether this is the only process.
            say: Told of every change, in one line.
        """
        self.path, self.alone, self.say = folder / "micro-batch.json", alone, say
        self.windows = windows
        if self.path.exists():
            self.windows = min(windows, read_json(self.path)["windows"])

    def halve(self) -> None:
        """Take half as many windows from now on.

        Raises:
            InputError: If it is one window already.
            StoppedError: If there are other processes: they wait in the middle of an exchange that
                this one cannot finish, so that all have to start again.
        """
        if self.windows == 1:
            raise InputError(
                "out of memory with one window at once; use `parallel: fsdp2` with more "
                "processes, or a device with more memory"
            )
        before, self.windows = self.windows, (self.windows + 1) // 2
        write_json(self.path, {"windows": self.windows})
        told = (
            f"out of memory with {before} windows at once: {self.windows} from now on, with more "
            "accumulation; the loss curve does not change"
        )
        if not self.alone:
            raise StoppedError(f"{told}; start all processes again to go on from the newest state")
        self.say(told)


class Trainer:
    """Model, optimizer, averages and log of a run."""

    def __init__(
        self,
        model: Objective,
        settings: TrainingJob,
        *,
        team: Team,
        teacher: OnlineTeacher | RawTeacher | OnlineImageTeacher | None,
        micro: MicroBatch,
    ) -> None:
        """Spread the model over the processes and make its optimizer and averages.

        Args:
            model: On the CPU; trained itself, or a copy of it where it has to be sharded.
            settings: Of the job.
            team: The processes.
            teacher: Gives the windows' features where they are aligned and not cached.
            micro: How many windows are taken at once.
        """
        self.settings, self.recipe = settings, settings.recipe
        self.team, self.micro, self.log = team, micro, Log()
        self.teacher = teacher and teacher.to(team.device)
        self.model = copy.deepcopy(model) if team.shards else model
        for module in self.model.trained_modules().values():
            module.train()
        if self.recipe.checkpointing:
            checkpoint_blocks(self.model)
        blocks = self.model.method.blocks()
        if self.recipe.compile and team.device.type == "cuda":
            for block in blocks:  # in place; equal blocks share the code
                block.compile(dynamic=False)
        self.objective = team.spread(self.model, blocks)
        rate = self.recipe.learning_rate
        groups = self.model.parameter_groups(rate, zero_init_rate=self.recipe.zero_init_rate)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=rate,
            betas=self.recipe.betas,
            eps=self.recipe.eps,
            weight_decay=self.recipe.weight_decay,
        )
        # sharded parameters cannot be copied by one kernel for all
        many = not team.shards
        self.ema = EMAModel(self.parameters, decay=self.recipe.ema_decay, foreach=many)

    def step(self, step: int, share: dict[str, Tensor]) -> None:
        """Take one optimizer step with this process's share of the global batch."""
        windows = {**share, **self._draws(step, share)}
        factor = learning_rate_factor(step, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        parts = self._gradients(windows)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.optimizer.step()
        self.model.method.end_step()
        self.optimizer.zero_grad()
        self.ema.step(self.parameters)
        self._record(step, parts, float(whole(norm)), self.recipe.learning_rate * factor)

    def _draws(self, step: int, share: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what is drawn for this process's windows."""
        count, *shape = share["frames"].shape
        drawn = draw_step(
            self.model.method,
            (self.recipe.batch, *shape),
            seed=self.settings.seed,
            step=step,
            noise=self.settings.noise,
            history=self.recipe.history,
            memory_dropout=self.settings.memory_dropout,
            device=self.team.device,
        )
        first = self.team.number * count
        if self.team.size == 1:
            return drawn
        # copies, so that the draws for the other processes' windows are freed
        return {name: tensor[first : first + count].clone() for name, tensor in drawn.items()}

    def _gradients(self, windows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave the mean gradient of the global batch; return this process's mean of the parts."""
        while True:
            try:
                return self._accumulate(windows)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
            # not in the handler: there the traceback still holds the tensors of the failed pass
            self.micro.halve()
            self.optimizer.zero_grad()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _accumulate(self, windows: dict[str, Tensor]) -> dict[str, Tensor]:
        count, means = len(windows["frames"]), dict[str, Tensor]()
        self.model.method.begin_step()
        for start in range(0, count, self.micro.windows):
            end = min(count, start + self.micro.windows)
            batch = {
                name: tensor[start:end].to(self.team.device, non_blocking=True)
                for name, tensor in windows.items()
            }
            batch["frames"] = pixels_last(batch["frames"])
            if self.teacher is not None:
                batch["tokens"] = self.teacher.tokens(batch["frames"])
            weight = (end - start) / count
            with self.team.backward(self.objective, last=end == count):
                loss, parts = self.objective(batch)
                (weight * loss).backward()
            for name, part in {"loss": loss.detach(), **parts}.items():
                means[name] = means.get(name, 0) + weight * part
        return means

    def _record(
        self, step: int, parts: dict[str, Tensor], norm: float, learning_rate: float
    ) -> None:
        values = self.team.mean(torch.stack(list(parts.values()))).tolist()
        means = dict(zip(parts, values, strict=True))
        if not math.isfinite(means["loss"]):
            raise InputError(
                f"the loss is {means['loss']} at step {step}: the clips or features hold NaN, or "
                "the learning rate is too high; earlier states are kept"
            )
        self.log.append(
            {"step": float(step), "learning_rate": learning_rate, **means, "gradient_norm": norm}
        )

    def state(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return copies of all that a run needs to go on after `step` steps.

        All processes must ask for it. Randomness and data order are functions of the step; what
        they come from is kept too, and `resume` compares it. bf16 has no state of its own:
        parameters and optimizer are float32.
        """
        modules = self.model.trained_modules()
        tensors = state_tensors(modules, self.optimizer, self.ema.shadow_params)
        return tensors | {"rng": torch.get_rng_state()}, self._position(step) | {"log": [*self.log]}

    def resume(self, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            InputError: If it was made with other data order, schedule or precision.
        """
        position = self._position(content["step"])
        differing = [name for name, value in position.items() if content.get(name) != value]
        if differing:
            raise InputError(
                f"the state after step {content['step']} has another {', '.join(differing)}; "
                f"delete {self.micro.path.parent} to start anew"
            )
        modules = self.model.trained_modules()
        restore_tensors(tensors, modules, self.optimizer, self.ema.shadow_params)
        torch.set_rng_state(tensors["rng"])
        self.ema.optimization_step = content["averaged_steps"]
        self.log = content["log"]

    def _position(self, step: int) -> dict[str, Any]:
        return {
            "step": step,
            "next_window": step * self.recipe.batch,
            "learning_rate_factor": learning_rate_factor(step, self.recipe),
            "averaged_steps": step,
            "seed": self.settings.seed,
            "precision": self.recipe.precision,
        }

    @torch.no_grad()
    def finish(self, model: Objective) -> None:
        """Leave the averaged weights, whole and on the CPU, in `model`."""
        self.ema.copy_to(self.parameters)
        if self.team.shards:
            pairs = zip(model.parameters(), self.model.parameters(), strict=True)
            for plain, sharded in pairs:
                plain.copy_(whole(sharded))
            for buffer, learned in zip(model.buffers(), self.model.buffers(), strict=True):
                buffer.copy_(learned)
        model.to("cpu")
