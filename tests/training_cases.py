"""Trainings that `test_parallel_training.py` runs in one process and, through torchrun, in two.

python tests/training_cases.py PROJECT OUTPUT CASE...
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from conftest import edit_yaml
from geomem.config import JobSettings, load_config
from geomem.formats import write_json
from geomem.formats.states import Log
from geomem.settings.jobs import TrainingJob
from geomem.training.build import build_model, build_projector
from geomem.training.data import WindowDataset, open_dataset
from geomem.training.loop import train
from geomem.training.objective import Objective
from geomem.training.parallel import leave_team

STEPS = {"base": 10, "memory": 6, "aligned": 6, "released": 6, "tokenizer": 6}
BATCH, DROPOUT = 4, 0.1
VARIANTS = {
    "base": "base",
    "memory": "memory_4",
    "aligned": "repa",
    "released": "repa",
    "tokenizer": "maskflow_tokenizer",
}
OBJECTIVES = {"aligned": "angular", "released": "as_released"}


def train_for_one_size(project: Path, *frames: int, **memory: Any) -> None:
    """Make `memory_<frames>` variants that are trained for that number alone, on a frozen base."""
    starts = {"initial": "best", "plan": "memory", "recipe": "memory"}
    made = {f"variants__memory_{n}": {**starts, "memory": {"frames": n, **memory}} for n in frames}
    edit_yaml(project / "config/experiments.yaml", **made)


def configure(project: Path) -> None:
    """Give the scale `smoke` enough steps, windows and dropout for a comparison of curves."""
    train_for_one_size(project, 4)
    most = max(STEPS.values())
    recipe = {"steps": most, "batch": BATCH, "checkpoint_steps": 4}
    recipes = ("base", "memory", "maskflow_tokenizer")
    edit_yaml(
        project / "config/scales/smoke.yaml",
        methods__dfot__block_dropouts=[0.0, DROPOUT, DROPOUT],
        **{f"recipes__{name}__{k}": v for name in recipes for k, v in recipe.items()},
        plans__train__windows=most * BATCH,
        plans__memory__windows=most * BATCH,
    )


def objective_of(settings: TrainingJob, *, initial: Path | None = None) -> Objective:
    """The untrained model of a job with its loss, as the command builds it."""
    return Objective(
        build_model(settings, initial=initial),
        alignment=settings.alignment,
        projector=build_projector(settings),
        batch=settings.recipe.batch,
    )


def learn(
    model: Objective,
    dataset: WindowDataset,
    settings: TrainingJob,
    state_folder: Path,
    **options: Any,
) -> Log:
    """Train without a progress bar; made from nothing that has a checksum unless `inputs` says."""
    options = {"inputs": {}, "progress": lambda steps, **_: steps} | options
    return train(model, dataset, settings, state_folder=state_folder, **options)


def settings_of(project: Path, kind: str, parallel: str, accumulation: int) -> TrainingJob:
    """Settings of a kind of run, with another number of micro-batches."""
    settings = JobSettings(load_config(project)).training(VARIANTS[kind], 0)
    recipe = {"accumulation": accumulation, "steps": STEPS[kind], "parallel": parallel}
    changes: dict[str, Any] = {"recipe": settings.recipe.model_copy(update=recipe)}
    if kind in OBJECTIVES:
        assert settings.alignment is not None
        alignment = {"level": 1, "frames": 2, "objective": OBJECTIVES[kind]}
        changes["alignment"] = settings.alignment.model_copy(update=alignment)
    return settings.model_copy(update=changes)


def dataset_of(project: Path, kind: str, settings: TrainingJob) -> WindowDataset:
    return open_dataset(
        project / "clips",
        project / ("memory.json" if settings.memory else "train.json"),
        settings,
        memory_cache=project / "memory4" if settings.memory else None,
        window_cache=project / "window" if kind in OBJECTIVES else None,
    )


def run_case(project: Path, case: str, output: Path) -> None:
    """Train one case, `<kind>-<ddp or fsdp2>-<accumulation>`, and write its curve and weights."""
    kind, parallel, accumulation = case.split("-")
    settings = settings_of(project, kind, parallel, int(accumulation))
    dataset = dataset_of(project, kind, settings)
    torch.manual_seed(0)
    model = objective_of(settings, initial=project / "initial" if kind == "memory" else None)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    log = learn(model, dataset, settings, output / f"state-{case}")
    if os.environ.get("RANK", "0") == "0":
        write_json(output / f"{case}.json", log)
        changes = {k: v - before[k] for k, v in model.state_dict().items()}
        save_file(changes, output / f"{case}.safetensors")


if __name__ == "__main__":
    folder, outputs, *cases = sys.argv[1:]
    Path(outputs).mkdir(exist_ok=True)
    for name in cases:
        run_case(Path(folder), name, Path(outputs))
    leave_team()
