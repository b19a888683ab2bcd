"""The trainer on small files of the true formats."""

import csv
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ROOT, edit_yaml, run_stage, told, write_fake_clips
from geomem.config import JobSettings, load_config
from geomem.features.cache import cache_part, frames_of, write_basis
from geomem.formats import (
    ClipStore,
    InputError,
    Plan,
    quantise,
    read_checkpoint,
    sha256_file,
    write_checkpoint,
    write_clip_shard,
    write_feature_part,
)
from geomem.formats.cache_kinds import CacheKind
from geomem.formats.records import provenance
from geomem.formats.spools import SPOOL, read_spool
from geomem.formats.states import States
from geomem.formats.teachers import load_teacher
from geomem.memory.live import LiveMemory
from geomem.memory.selection import select_by_time
from geomem.methods.registry import Weights
from geomem.methods.training import MEMORY
from geomem.networks.uvit.control import MemoryControl
from geomem.rollouts.protocols import load_variant, run_protocol
from geomem.settings.jobs import TrainingJob
from geomem.training.build import online_teacher
from geomem.training.data import WindowDataset, open_dataset
from geomem.training.objective import aligned_frames
from geomem.training.trainer import learning_rate_factor
from training_cases import learn, objective_of, train_for_one_size

STEPS = 24
WEIGHTS = ROOT / "weights/vggt_tiny/model.safetensors"


@pytest.fixture
def prepared(project: Path) -> Path:
    """A project with clips, both plans, and a base recipe of some steps."""
    edit_yaml(
        project / "config/scales/smoke.yaml",
        recipes__base__steps=STEPS,
        recipes__base__checkpoint_steps=2,
        plans__train__windows=2 * STEPS,
    )
    train_for_one_size(project, 1, 4)
    write_fake_clips(project / "clips", clips=6, frames=24, size=32)
    for name in ("train", "memory"):
        run_stage(project, "clips", "plan", f"{name}.json", "--plan", name, "--clips", "clips")
    return project


def train_words(output: str) -> list[str]:
    return [
        *("train", output, "--variant", "base", "--seed", "0", "--clips", "clips"),
        *("--plan", "train.json", "--state", f"state-{output}"),
    ]


def train_base(project: Path, output: str) -> None:
    run_stage(project, "training", *train_words(output))


def weights_of(checkpoint: Path) -> dict[str, str]:
    return read_checkpoint(checkpoint)["weights"]


# Kills its own process before the given step, counted from where it starts.
KILLED = """
import os, signal, sys
from geomem.training.trainer import Trainer
left, step = int(sys.argv.pop(1)), Trainer.step
def counted(trainer, *arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    step(trainer, *arguments)
Trainer.step = counted
sys.argv[0] = "training"
from geomem.training.__main__ import main
main()
"""


@pytest.mark.fault  # of `make test-faults`, with its kin
def test_training_killed_at_any_moment_ends_with_the_same_weights(prepared: Path) -> None:
    train_base(prepared, "whole")
    # states are written behind the steps: after these, one is whole, cut off, or about to come
    for steps in (1, 3, 6):
        command = [sys.executable, "-c", KILLED, str(steps), *train_words("killed")]
        run = subprocess.run(command, cwd=prepared, stderr=subprocess.DEVNULL, check=False)
        assert run.returncode == -signal.SIGKILL
    _, spooled, _ = read_spool(prepared / "state-killed" / SPOOL)
    train_base(prepared, "killed")
    assert weights_of(prepared / "killed") == weights_of(prepared / "whole")
    assert sha256_file(prepared / "killed/curves.csv") == sha256_file(prepared / "whole/curves.csv")
    assert not (prepared / "state-killed").exists()
    # what the killed runs told a tracking server meanwhile is what the undisturbed run says
    with (prepared / "whole/curves.csv").open() as file:
        losses = {float(row["step"]): row["loss"] for row in csv.DictReader(file)}
    assert {entry["step"]: f"{entry['loss']:.6g}" for entry in spooled}.items() <= losses.items()
    assert len(spooled) >= 6


class Interrupted:
    """Trainings of one model and data that may end early, with the weights they end with."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.settings = JobSettings(load_config(project)).training("base", 0)
        self.dataset = open_dataset(project / "clips", project / "train.json", self.settings)

    def run(
        self, state: str, *, initial: str = "one", stop: int | None = None
    ) -> list[torch.Tensor]:
        """Train in a folder of states, from what has the checksum `initial`, up to a step."""
        torch.manual_seed(0)
        model = objective_of(self.settings)

        def interrupted(steps: range, **_: object) -> Iterator[int]:
            for step in steps:
                if step == stop:
                    raise KeyboardInterrupt
                yield step

        try:
            learn(
                model,
                self.dataset,
                self.settings,
                self.project / state,
                inputs={"initial": initial},
                progress=interrupted,
            )
        except KeyboardInterrupt:
            return []
        return [p.detach().clone() for p in model.parameters()]


def test_a_plan_is_gone_through_again_where_the_recipe_says_so(project: Path) -> None:
    scale = project / "config/scales/smoke.yaml"
    edit_yaml(scale, recipes__base__steps=6)  # of 2 windows; the plan has 8
    with pytest.raises(InputError, match=r"6 steps of 2 windows exceed 1 x the 8 windows of plan"):
        load_config(project)
    edit_yaml(scale, recipes__base__passes=2)
    write_fake_clips(project / "clips", clips=6, frames=24, size=32)
    run_stage(project, "clips", "plan", "train.json", "--plan", "train", "--clips", "clips")
    settings = JobSettings(load_config(project)).training("base", 0)
    dataset = open_dataset(project / "clips", project / "train.json", settings)
    read = list[int]()
    item = WindowDataset.__getitem__

    class Told(WindowDataset):
        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            read.append(index)
            return item(self, index)

    dataset.__class__ = Told
    log = learn(objective_of(settings), dataset, settings, project / "state")
    assert read == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    losses = [entry["loss"] for entry in log]
    assert losses[4:] != losses[:2]  # other noise on the same windows


def test_a_damaged_newest_state_gives_way_to_the_one_before(prepared: Path) -> None:
    trainings = Interrupted(prepared)
    whole = trainings.run("whole")
    trainings.run("cut", stop=7)
    newest = max((prepared / "cut").glob("step-*.safetensors"))
    assert newest.name == "step-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    resumed = trainings.run("cut")
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_state_that_was_made_from_another_base_is_not_gone_on_from(prepared: Path) -> None:
    trainings = Interrupted(prepared)
    taken: list[int] = []

    def counted(states: States, step: int) -> object:
        taken.append(step)
        return read(states, step)

    read = States.read
    trainings.run("cut", stop=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(States, "read", counted)
        trainings.run("cut", initial="another", stop=9)
        assert taken == []
        trainings.run("cut", initial="another", stop=11)
        assert taken == [8]


def test_what_a_training_reads_is_part_of_its_record(prepared: Path) -> None:
    train_base(prepared, "made")
    made_by = read_checkpoint(prepared / "made")["provenance"]
    assert made_by["stage"] == "training"
    settings = JobSettings(load_config(prepared)).training("base", 0)
    assert made_by["settings"] == settings.recorded()
    assert made_by["inputs"] == {
        "plan": sha256_file(prepared / "train.json"),
        "clips": sha256_file(prepared / "clips/shard-000/index.json"),
    }


def memory_cache(project: Path, *, frames: int) -> Path:
    """Write a cache of true depth and random features for the plan `memory.json`."""
    plan = Plan.read(project / "memory.json")
    generator = torch.Generator().manual_seed(0)

    def compute(rows: range) -> dict[str, torch.Tensor]:
        chosen = torch.full((len(rows), frames), -1)
        for i, row in enumerate(rows):
            known = select_by_time(range(plan.windows[row].history), frames)
            chosen[i, : len(known)] = torch.tensor(known)
        shape = (len(rows), frames)
        features = torch.randn(*shape, 4, 8, 8, generator=generator)
        depth = torch.full((*shape, 32, 32), 2.0)
        return {
            "frames": chosen, "depth": depth, "confidence": torch.ones_like(depth),
            **quantise(features),
        }  # fmt: skip

    part = project / f"memory{frames}" / "part-000.json"
    made_by = {"inputs": {"plan": sha256_file(project / "memory.json")}}
    write_feature_part(part, range(len(plan.windows)), made_by, compute, progress=lambda x: x)
    return part.parent


def window_cache(project: Path) -> Path:
    """Write a cache of random features of the windows of the plan `train.json`."""
    windows = len(Plan.read(project / "train.json").windows)
    features = torch.randn(windows, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    part = project / "window" / "part-000.json"
    write_feature_part(
        part, range(windows), {"inputs": {"plan": sha256_file(project / "train.json")}},
        lambda rows: quantise(features[rows.start : rows.stop]), progress=lambda x: x,
    )  # fmt: skip
    return part.parent


def open_memory(project: Path, variant: str, frames: int) -> tuple[TrainingJob, WindowDataset]:
    settings = JobSettings(load_config(project)).training(variant, 0)
    dataset = open_dataset(
        project / "clips",
        project / "memory.json",
        settings,
        memory_cache=memory_cache(project, frames=frames) if frames else None,
    )
    return settings, dataset


def maps_of(item: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a window holds of its memory, by the names of the kind's channels."""
    return {
        name.removeprefix(MEMORY): tensor
        for name, tensor in item.items()
        if name.startswith(MEMORY)
    }


def test_one_and_four_memory_frames_give_different_maps(prepared: Path) -> None:
    _, single = open_memory(prepared, "memory_1", 1)
    _, several = open_memory(prepared, "memory_4", 4)
    window = max(range(8), key=lambda i: single.plan.windows[i].history)
    one, four = maps_of(single[window]), maps_of(several[window])
    assert {name: x.shape for name, x in one.items()} == {n: x.shape for n, x in four.items()}
    assert not any(torch.equal(one[name], four[name]) for name in ("rgb", "features"))
    coverage = (one["coverage"].mean(), four["coverage"].mean())
    assert coverage[1] >= coverage[0] > 0


def test_the_cache_of_a_larger_memory_is_refused(prepared: Path) -> None:
    _, dataset = open_memory(prepared, "memory_1", 4)
    window = max(range(8), key=lambda i: dataset.plan.windows[i].history)
    told(lambda: dataset[window], "memory4 has 4 frames", "1 at most")


def test_an_empty_memory_trains_all_the_branch_has_and_knows_nothing(prepared: Path) -> None:
    settings, dataset = open_memory(prepared, "memory_empty", 0)
    _, with_frames = open_memory(prepared, "memory_4", 4)
    maps, others = maps_of(dataset[0]), maps_of(with_frames[0])
    assert {name: x.shape for name, x in maps.items()} == {n: x.shape for n, x in others.items()}
    assert list(maps) == ["rgb", "features", "coverage", "inverse_depth"]
    assert not any(x.any() for x in maps.values())
    assert dataset[5]["frames"].equal(with_frames[5]["frames"])
    train_base(prepared, "initial")
    model = objective_of(settings, initial=prepared / "initial")
    branch = model.method.control
    before = {name: p.detach().clone() for name, p in branch.named_parameters()}
    learn(model, dataset, settings, prepared / "state")
    moved = [name for name, p in branch.named_parameters() if not p.equal(before[name])]
    assert any(name.startswith("mid_blocks") for name in moved)
    assert any(name.startswith("zero_projections") for name in moved)


def test_what_starts_from_a_checkpoint_trains_with_dropout_as_from_scratch(prepared: Path) -> None:
    edit_yaml(prepared / "config/scales/smoke.yaml", methods__dfot__block_dropouts=[0.0, 0.1, 0.1])
    train_base(prepared, "initial")
    settings = JobSettings(load_config(prepared)).training("tuned", 0)
    dataset = open_dataset(prepared / "clips", prepared / "train.json", settings)
    model = objective_of(settings, initial=prepared / "initial")
    seen: list[bool] = []
    model.method.backbone.register_forward_pre_hook(
        lambda module, _: seen.append(all(part.training for part in module.modules()))
    )
    learn(model, dataset, settings, prepared / "state")
    assert seen and all(seen)


def test_memory_branch_learns_and_the_base_does_not_move(prepared: Path) -> None:
    settings, dataset = open_memory(prepared, "memory_4", 4)
    train_base(prepared, "base")
    model = objective_of(settings, initial=prepared / "base")
    before = {name: p.detach().clone() for name, p in model.method.named_parameters()}
    log = learn(model, dataset, settings, prepared / "state")
    moved = {
        name for name, p in model.method.named_parameters() if not torch.equal(p, before[name])
    }
    assert moved and all(name.startswith("control.") for name in moved)
    assert any("down_blocks" in name for name in moved)
    assert all(np.isfinite(entry["loss"]) for entry in log)
    assert isinstance(model.method.control, MemoryControl)


def test_backbone_branch_and_gate_are_trained_together_where_a_variant_says_so(
    prepared: Path,
) -> None:
    train_for_one_size(prepared, 4, backbone="trained", gate=True)
    settings, dataset = open_memory(prepared, "memory_4", 4)
    config = load_config(prepared)
    assert config.backbone_of("memory_4") == "memory_4"
    train_base(prepared, "base")
    model = objective_of(settings, initial=prepared / "base")
    before = {name: p.detach().clone() for name, p in model.method.named_parameters()}
    learn(model, dataset, settings, prepared / "state")
    moved = {n for n, p in model.method.named_parameters() if not torch.equal(p, before[n])}
    assert {name.split(".")[0] for name in moved} == {"backbone", "control", "gate"}
    assert set(model.trained_modules()) == {"backbone", "control", "gate"}
    modules = model.trained_modules()
    write_checkpoint(prepared / "made", modules, provenance("training", 1, settings, {}), {}, [])
    rollout = JobSettings(config).rollout("memory_4", "spin")
    made = Weights(checkpoint=prepared / "made", backbone=prepared / "made")
    method = rollout.method.spec.load(
        rollout.method.settings, made, memory=rollout.memory.face, device=torch.device("cpu")
    )
    assert method.gate.end.weight.equal(model.method.gate.end.weight)


def test_an_implicit_memory_learns_with_its_branch_and_reads_the_same_cache(prepared: Path) -> None:
    implicit = {"frames": 4, "kind": "implicit"}
    edit_yaml(prepared / "config/experiments.yaml", variants__memory_4_implicit__memory=implicit)
    settings, dataset = open_memory(prepared, "memory_4_implicit", 4)
    windows = range(len(dataset))
    short = min(windows, key=lambda i: dataset.plan.windows[i].history)
    present = [dataset[i]["memory.presence"].mean().item() for i in windows]
    known = [min(4, dataset.plan.windows[i].history) / 4 for i in windows]
    assert present == known
    assert present[short] < 1, "a history shorter than the memory, or the test proves little"
    train_base(prepared, "base")
    model = objective_of(settings, initial=prepared / "base")
    before = {name: p.detach().clone() for name, p in model.method.named_parameters()}
    learn(model, dataset, settings, prepared / "state")
    moved = {
        name for name, p in model.method.named_parameters() if not torch.equal(p, before[name])
    }
    assert {name.split(".")[0] for name in moved} == {"control", "memory"}
    assert {"memory.learned_queries", "control.memory_stem.ask.weight"} <= moved
    assert set(model.trained_modules()) == {"control", "memory"}


def test_raw_context_is_trained_beside_the_window(prepared: Path) -> None:
    settings, dataset = open_memory(prepared, "raw_4", 0)
    assert settings.memory_dropout is None and dataset.memory_cache is None
    windows = range(len(dataset))
    short = min(windows, key=lambda i: dataset.plan.windows[i].history)
    history = dataset.plan.windows[short].history
    assert history < 4
    frames, cameras = (dataset[short][MEMORY + name] for name in ("frames", "cameras"))
    assert frames.shape == (4, 3, 32, 32) and cameras.shape == (4, 16)
    assert all(frames[i].equal(frames[history - 1]) for i in range(history, 4))
    train_base(prepared, "base")
    model = objective_of(settings, initial=prepared / "base")
    assert set(model.trained_modules()) == {"backbone"}
    log = learn(model, dataset, settings, prepared / "state")
    assert all(np.isfinite(entry["loss"]) for entry in log)

    # what it is given matters, and no frame of it enters the loss
    batch = {name: x[None] for name, x in dataset[short].items()}
    drawn = model.method.draw(
        batch["frames"].shape, noise="per_frame", history=0.0, memory_dropout=None,
        device=torch.device("cpu"),
    )  # fmt: skip
    model.method.eval()
    given = model.method.loss(batch | drawn)
    other = model.method.loss(batch | drawn | {MEMORY + "frames": -batch[MEMORY + "frames"]})
    assert not given.value.equal(other.value)
    assert {state.shape[1] for state in given.states} == {batch["frames"].shape[1]}


def test_memory_frames_have_errors_in_training_where_the_scale_says_so(prepared: Path) -> None:
    errors = {"share": 1.0, "blur": 1.0, "noise": 0.1, "colour": 0.1, "depth": 0.1}
    _, clean = open_memory(prepared, "memory_4", 4)
    edit_yaml(prepared / "config/scales/smoke.yaml", memory__corruption=errors)
    settings, corrupted = open_memory(prepared, "memory_4", 4)
    assert settings.corruption is not None
    one, other = maps_of(clean[0]), maps_of(corrupted[0])
    assert not one["rgb"].equal(other["rgb"])
    assert not one["inverse_depth"].equal(other["inverse_depth"])
    assert all(
        x.equal(y) for x, y in zip(other.values(), maps_of(corrupted[0]).values(), strict=True)
    )
    assert clean[0]["frames"].equal(corrupted[0]["frames"])
    assert JobSettings(load_config(prepared)).training("base", 0).corruption is None


@pytest.mark.long
def test_a_branch_of_any_number_of_frames_is_trained_and_generates_with_a_fixed_one(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_yaml(
        prepared / "config/experiments.yaml",
        variants__any={
            "initial": "base", "plan": "memory", "recipe": "memory", "memory": {"frames": [1, 3]},
        },
        variants__any_at_2={"checkpoint_of": "any", "memory": {"frames": 2}},
    )  # fmt: skip
    config = load_config(prepared)
    jobs = JobSettings(config)
    assert (config.weights_of("any_at_2"), config.backbone_of("any_at_2")) == ("any", "base")
    kind = config.caches_of("any")["memory_features"]
    assert kind == CacheKind(fewest=1, most=3)
    numbers = cache_with_the_teacher(prepared, kind)
    assert set(numbers) == {1, 2, 3}, "the same number in every window, the test proves little"

    write_untrained(prepared / "base", jobs.training("base", 0))
    settings = jobs.training("any", 0)
    dataset = open_dataset(
        prepared / "clips", prepared / "memory.json", settings, memory_cache=prepared / "cache"
    )
    assert dataset.memory_cache is not None
    rows = [dataset.memory_cache.row(i) for i in range(len(dataset))]
    assert [int((row["frames"] >= 0).sum()) for row in rows] == numbers
    model = objective_of(settings, initial=prepared / "base")
    log = learn(model, dataset, settings, prepared / "state")
    assert all(np.isfinite(entry["loss"]) for entry in log)
    made_by = provenance("training", 1, settings, {})
    write_checkpoint(prepared / "any", model.trained_modules(), made_by, {}, log)

    rollout = jobs.rollout("any_at_2", "spin")
    variant = load_variant(
        rollout, checkpoint=prepared / "any", base=prepared / "base", weights=WEIGHTS,
        basis=prepared / "basis.safetensors", device=torch.device("cpu"),
    )  # fmt: skip
    chosen: list[tuple[int, int]] = []
    choose = LiveMemory.choose

    def recorded(memory: LiveMemory, known: list[int], *others: Any) -> list[int]:
        found = choose(memory, known, *others)
        chosen.append((len(known), len(found)))
        return found

    monkeypatch.setattr(LiveMemory, "choose", recorded)
    rgb, coverage = run_protocol(
        variant, prepared / "clips", rollout, batch=6, parts=prepared / "parts",
        progress=lambda stages, **_: stages,
    )  # fmt: skip
    assert rgb.shape == (6, 16, 32, 32, 3)
    assert all(found == min(2, known) for known, found in chosen) and max(chosen)[0] > 3
    assert all(share is not None for clip in coverage for share in clip[1:])


def cache_with_the_teacher(project: Path, kind: CacheKind) -> list[int]:
    """Fit a basis, fill `cache` for the plan `memory.json`, and return each window's number."""
    settings = JobSettings(load_config(project)).features("memory")
    settings = settings.model_copy(
        update={"features": settings.features.model_copy(update={"shards": 1})}
    )
    teacher = load_teacher(WEIGHTS, **settings.teacher.model_dump())
    plan_path, basis = project / "memory.json", project / "basis.safetensors"
    store, plan = ClipStore(project / "clips"), Plan.read(plan_path)
    write_basis(basis, teacher, store, plan, settings.features, made_by={})
    cache_part(
        project / "cache/part-000.json", 0, kind=kind, teacher=teacher, store=store,
        plan_path=plan_path, basis_path=basis, settings=settings, progress=lambda x: x,
        made_by=provenance("features", 1, settings, {"plan": plan_path}),
    )  # fmt: skip
    windows = enumerate(plan.windows)
    return [len(frames_of(w, kind, store, settings.overlap, row=row)) for row, w in windows]


def write_untrained(folder: Path, settings: TrainingJob) -> None:
    """Write the checkpoint of a variant before its first step."""
    torch.manual_seed(0)
    modules = objective_of(settings).trained_modules()
    write_checkpoint(folder, modules, provenance("training", 1, settings, {}), {}, [])


def test_nan_features_stop_with_one_line(prepared: Path) -> None:
    settings, dataset = open_memory(prepared, "memory_4", 4)
    train_base(prepared, "base")
    model = objective_of(settings, initial=prepared / "base")
    broken = dataset.memory_cache.row
    dataset.memory_cache.row = lambda i: {
        **broken(i),
        "features": broken(i)["features"] * torch.nan,
    }
    with pytest.raises(InputError, match=r"loss is nan at step \d+.*NaN"):
        learn(model, dataset, settings, prepared / "state")


@pytest.mark.parametrize(
    ("objective", "terms", "trained"),
    [
        ("angular+scale", {"align_angular", "align_scale"}, {"conv", "project", "scale_head"}),
        ("angular", {"align_angular"}, {"conv", "project"}),
        ("mse", {"align_mse"}, {"conv", "project"}),
        ("repa", {"align_repa"}, {"mlp"}),
        ("trd", {"align_trd"}, {"conv", "project"}),
        ("as_released", {"align_as_released"}, set()),
    ],
)
def test_alignment_trains_what_its_objective_says(
    prepared: Path, objective: str, terms: set[str], trained: set[str]
) -> None:
    edit_yaml(
        prepared / "config/experiments.yaml",
        variants__repa__alignment={"level": 1, "frames": 2, "objective": objective},
    )
    edit_yaml(prepared / "config/scales/smoke.yaml", recipes__base__steps=3)
    settings = JobSettings(load_config(prepared)).training("repa", 0)
    dataset = open_dataset(
        prepared / "clips", prepared / "train.json", settings, window_cache=window_cache(prepared),
    )  # fmt: skip
    torch.manual_seed(0)
    model = objective_of(settings)
    before = {name: p.detach().clone() for name, p in model.projector.named_parameters()}
    log = learn(model, dataset, settings, prepared / "state")
    changed = {n for n, p in model.projector.named_parameters() if not torch.equal(p, before[n])}
    assert {name.split(".")[0] for name in changed} == trained
    assert -1 <= log[-1]["cosine"] <= 1
    assert terms | {"diffusion"} <= set(log[-1])
    assert {name for name in log[-1] if name.startswith("align_")} == terms
    assert set(model.trained_modules()) == {"backbone", "projector"}


def test_aligned_frames_are_a_part_of_the_window() -> None:
    assert aligned_frames(8, None) == list(range(8))
    assert aligned_frames(8, 4) == [0, 2, 5, 7]
    assert aligned_frames(8, 1) == [0]


@pytest.mark.long
def test_the_teacher_at_work_gives_what_the_cache_holds(prepared: Path) -> None:
    edit_yaml(prepared / "config/scales/smoke.yaml", features__online=True, features__shards=1)
    (prepared / "weights").symlink_to(ROOT / "weights")
    weights = ["--weights", "weights/vggt_tiny/model.safetensors"]
    windows = ["--plan", "train.json", "--clips", "clips", *weights]
    run_stage(prepared, "features", "fit-basis", "basis.safetensors", *windows)
    part = ["window/part-000.json", "--number", "0", "--kind", "window"]
    run_stage(prepared, "features", "cache", *part, "--basis", "basis.safetensors", *windows)
    settings = JobSettings(load_config(prepared)).training("repa", 0)
    dataset = open_dataset(
        prepared / "clips", prepared / "train.json", settings, window_cache=prepared / "window",
    )  # fmt: skip
    with pytest.raises(InputError, match="needs --weights and --basis"):
        online_teacher(settings, None, None)
    teacher = online_teacher(settings, ROOT / weights[1], prepared / "basis.safetensors")
    item = dataset[0]
    made = teacher.tokens(item["frames"][None])[0]
    assert made.shape == item["tokens"].shape
    # int8 a window and channel: half a step of 1/127 of the largest value
    assert (made - item["tokens"]).abs().max() <= made.abs().max() / 127
    assert made.std() > 0.1
    log = learn(objective_of(settings), dataset, settings, prepared / "state", teacher=teacher)
    assert all(-1 <= entry["cosine"] <= 1 for entry in log)


def test_windows_longer_than_the_clips_are_refused(project: Path) -> None:
    edit_yaml(project / "config/scales/smoke.yaml", plans__train__frames=16)
    with pytest.raises(InputError, match=r"plans.train: 16 frames at stride 2 span 31 frames"):
        load_config(project)


def test_cameras_that_are_no_rotations_stop_with_clip_and_folder(prepared: Path) -> None:
    store = ClipStore(prepared / "clips")
    rgb, cameras = (
        np.stack([read(clip) for clip in range(len(store))]) for read in (store.rgb, store.cameras)
    )
    cameras[:, :, 4] = 2.0
    shard = prepared / "clips/shard-000"
    write_clip_shard(shard, rgb=rgb, cam=cameras, depth=None, clips=store.clips, provenance={})
    settings = JobSettings(load_config(prepared)).training("base", 0)
    dataset = open_dataset(prepared / "clips", prepared / "train.json", settings)
    with pytest.raises(InputError, match=r"clips, clip fake-\d: .*make it again"):
        dataset[0]


def test_learning_rate_warms_up_and_decays() -> None:
    recipe = load_config(ROOT, scale="tiny").settings.recipes["base"]
    recipe = recipe.model_copy(update={"steps": 100, "warmup_steps": 10, "decay": "cosine"})
    factors = [learning_rate_factor(step, recipe) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] < 0.01
    assert learning_rate_factor(99, recipe.model_copy(update={"decay": "constant"})) == 1.0


def test_clip_store_reads_what_was_written(prepared: Path) -> None:
    store = ClipStore(prepared / "clips")
    assert store.rgb(2, [5, 3]).shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(store.rgb(2, [5, 3])[1], store.rgb(2)[3])
