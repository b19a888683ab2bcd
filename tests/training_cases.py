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
from geomem.config import load_config
from geomem.formats import write_json
from geomem.training.build import build_model
from geomem.training.data import WindowDataset, open_dataset
from geomem.training.loop import train
from geomem.training.parallel import leave_team

STEPS = {"base": 20, "memory": 6, "aligned": 6, "released": 6}
BATCH, DROPOUT = 4, 0.1
VARIANTS = {"base": "base", "memory": "memory_4", "aligned": "repa", "released": "repa"}
OBJECTIVES = {"aligned": "angular", "released": "as_released"}


def configure(project: Path) -> None:
    """Give the scale `smoke` enough steps, windows and dropout for a comparison of curves."""
    most = max(STEPS.values())
    recipe = {"steps": most, "batch": BATCH}
    edit_yaml(
        project / "config/scales/smoke.yaml",
        model__block_dropouts=[0.0, DROPOUT, DROPOUT],
        **{f"recipes__{name}__{k}": v for name in ("base", "memory") for k, v in recipe.items()},
        plans__train__windows=most * BATCH,
        plans__memory__windows=most * BATCH,
    )


def settings_of(project: Path, kind: str, accumulation: int) -> dict[str, Any]:
    """Settings of a kind of run, with another number of micro-batches."""
    settings = load_config(project).training_settings(VARIANTS[kind], 0)
    settings["recipe"] |= {"accumulation": accumulation, "steps": STEPS[kind]}
    if kind in OBJECTIVES:
        alignment = {**settings["variant"]["alignment"], "level": 1, "frames": 2}
        settings["variant"]["alignment"] = {**alignment, "objective": OBJECTIVES[kind]}
    return settings


def dataset_of(project: Path, kind: str, settings: dict[str, Any]) -> WindowDataset:
    memory = "memory" in settings
    return open_dataset(
        project / "clips",
        project / ("memory.json" if memory else "train.json"),
        settings,
        memory_cache=project / "memory4" if memory else None,
        window_cache=project / "window" if kind in OBJECTIVES else None,
    )


def run_case(project: Path, case: str, output: Path) -> None:
    """Train one case, `<kind>-<ddp or fsdp2>-<accumulation>`, and write its curve and weights."""
    kind, parallel, accumulation = case.split("-")
    settings = settings_of(project, kind, int(accumulation))
    dataset = dataset_of(project, kind, settings)
    torch.manual_seed(0)
    initial = project / "initial" if kind == "memory" else None
    model = build_model(settings, dataset, initial=initial)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    log = train(
        model, dataset, settings, inputs={}, state_folder=output / f"state-{case}",
        checkpoint_steps=8, workers=0, progress=lambda steps, **_: steps, parallel=parallel,
    )  # fmt: skip
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
