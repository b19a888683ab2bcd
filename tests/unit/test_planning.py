"""What `geomem plan` says: FLOPs and bytes against real tensors, hours against measured jobs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from geomem.commands.main import main
from geomem.commands.planning import jobs_to_run, memory_lines, table
from geomem.config import Cluster, load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.planning.estimate import Estimate, Line
from geomem.planning.networks import Counter, Flops, windows_of
from geomem.planning.rates import (
    Rate,
    Rates,
    benchmark_of,
    calibrate,
    configured_rates,
    fitted,
    rates_here,
    read_benchmark,
    seconds_of,
    write_calibration,
)
from geomem.planning.work import Peak, Work, Workload, peak_of
from geomem.training.checkpointing import checkpoint_blocks

ROOT = Path(__file__).parents[2]
MEASURED = json.loads((ROOT / "tests/fixtures/benchmarks.json").read_text())
# of the trainings those whose networks are few: counting them takes seconds
LEFT_OUT = ("worldmem", "recurrent", "memory_", "maskflow", "raw_1", "raw_4", "repa", "forcing/")


def workload(scale: str) -> Workload:
    config = load_config(ROOT, scale=scale)
    return Workload(Dag(config), Counter(config.settings))


def measured_work(scale: str) -> list[tuple[Work, float]]:
    made, known = workload(scale), MEASURED[scale]
    found = []
    for job in (job for group in made.dag.stages() for job in group):
        name = benchmark_of(job, scale)
        trains = name and name.startswith(("train_variant", "generate_videos"))
        if name in known and not (trains and any(part in name for part in LEFT_OUT)):
            found.append((made.of(job), known[name]))
    return found


@pytest.fixture(scope="module")
def works() -> dict[str, list[tuple[Work, float]]]:
    return {scale: measured_work(scale) for scale in ("smoke", "tiny")}


@pytest.mark.long
@pytest.mark.parametrize(("at", "of"), [("smoke", "tiny"), ("tiny", "smoke")])
def test_a_scale_is_foreseen_from_the_other(works: Any, at: str, of: str) -> None:
    # what was configured when they were measured
    known = Rates(cpu={k: Rate(**v) for k, v in MEASURED["rates"].items()}, gpu={})
    rates = calibrate(works[at], known, at).over(known)
    foreseen = sum(seconds_of(work, rates) or 0 for work, _ in works[of])
    taken = sum(seconds for _, seconds in works[of])
    assert 1 / 1.5 < foreseen / taken < 1.5
    trained = [(seconds_of(w, rates) or 0, s) for w, s in works[of] if w.kind == "training"]
    assert len(trained) > 1
    for each, seconds in trained:  # each of them, not their sum alone
        assert 1 / 1.5 < each / seconds < 1.5


def test_flops_are_two_a_multiply_add_attention_among_them() -> None:
    x = torch.randn(2, 4, 16, 8, requires_grad=True)
    with Flops() as counter:
        nn.Linear(8, 32, bias=False)(x)
    assert counter.total == 2 * x.numel() * 32
    with Flops() as counter:
        nn.functional.scaled_dot_product_attention(x, x, x)
    assert counter.total == 2 * 2 * (2 * 4) * 16 * 16 * 8


def real_pass(made: Workload, variant: str, *, checkpointing: bool) -> tuple[int, list[Any]]:
    """Bytes that autograd keeps of a real pass over one window, and the gradients."""
    settings = made.dag.settings.training(variant, 0)
    torch.manual_seed(0)
    model = settings.method.shell(settings.memory, made.config.settings.methods).train()
    if checkpointing:
        checkpoint_blocks(model)
    frames, side = settings.plan.frames, settings.resolution
    batch = windows_of(frames, side, settings.memory, made.counter.grid)
    lens, pose = torch.tensor([1, 1, 0.5, 0.5]), torch.eye(3, 4).flatten()
    batch["cameras"] = torch.cat([lens, pose]).expand(1, frames, 16).contiguous()
    batch |= model.draw(
        tuple(batch["frames"].shape),
        noise=settings.noise,
        history=0.0,
        memory_dropout=settings.memory_dropout,
        device=torch.device("cpu"),
    )
    there = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *batch.values()]}
    kept: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.loss(batch).value
    loss.backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return sum(storage.nbytes() for storage in kept.values()), grads


@pytest.mark.parametrize("variant", ["base", "memory"])
def test_memory_is_what_a_real_pass_keeps(variant: str) -> None:
    made = workload("smoke")
    counted = made.counter.training(made.dag.settings.training(variant, 0))
    real, grads = real_pass(made, variant, checkpointing=False)
    assert 1 / 1.1 < counted.kept / real < 1.1
    assert counted.trained == sum(grad.numel() for grad in grads)
    # the gradients are there at the end of it
    assert counted.peak >= max(counted.kept, 4 * counted.trained)
    assert counted.peak < counted.kept + 3 * 4 * counted.trained + counted.kept


def test_checkpointing_keeps_less_and_learns_the_same() -> None:
    made = workload("smoke")
    real, grads = real_pass(made, "base", checkpointing=False)
    less, same = real_pass(made, "base", checkpointing=True)
    assert less < 0.7 * real
    for one, other in zip(grads, same, strict=True):
        torch.testing.assert_close(one, other)
    settings = made.dag.settings.training("base", 0)
    recipe = settings.recipe.model_copy(update={"checkpointing": True})
    saved = made.counter.training(settings.model_copy(update={"recipe": recipe}))
    plain = made.counter.training(settings)
    assert 1 / 1.1 < saved.kept / less < 1.1
    # blocks are computed again, what is between them is not
    assert 0.3 * plain.forward < saved.backward - plain.backward < plain.forward
    assert recipe.digest == settings.recipe.digest  # nothing is trained again for it


def test_micro_batches_and_shares_make_less_memory_necessary() -> None:
    made = workload("smoke")
    settings = made.dag.settings.training("base", 0)
    counted, alone = made.counter.training(settings), made.asks("training")
    whole = peak_of(counted, settings, alone)
    recipe = settings.recipe.model_copy(update={"accumulation": 2})
    halves = peak_of(counted, settings.model_copy(update={"recipe": recipe}), alone)
    assert halves.activations * 2 == whole.activations and halves.weights == whole.weights
    pair = alone.model_copy(update={"processes": 2})
    assert peak_of(counted, settings, pair).gradients == 2 * whole.gradients


def test_rates_come_from_long_jobs_and_starts_from_short_ones() -> None:
    known = Rate(start=5, rate=10)
    assert fitted([(0, 7), (2000, 107)], known) == Rate(start=7, rate=2000 / 102, jobs=2)
    assert fitted([(10, 6.0)], known) == Rate(start=5, rate=10, jobs=1)
    assert fitted([(0, 2), (0, 4)], Rate(start=0)) == Rate(start=3, jobs=2)


def test_what_nobody_knows_is_not_taken_for_nothing() -> None:
    asked = workload("smoke").asks("scores")
    rates = Rates(cpu={"scores": Rate(start=1)}, gpu={})
    assert seconds_of(Work(kind="scores.frames", amount=5, asked=asked), rates) is None
    assert seconds_of(Work(kind="other", asked=asked), rates) is None
    assert seconds_of(Work(kind="scores.frames", asked=asked), rates) == 1


def test_benchmarks_are_found_under_the_names_of_the_rules(tmp_path: Path) -> None:
    dag = Dag(load_config(ROOT, scale="smoke"))
    names = {benchmark_of(job, "smoke") for group in dag.stages() for job in group}
    assert set(MEASURED["smoke"]) - names == set()
    path = tmp_path / "job.tsv"
    path.write_text("s\tcpu_time\n12.5\t5.0\n")
    assert (read_benchmark(path, "cpu"), read_benchmark(path, "gpu")) == (5.0, 12.5)
    path.write_text("s\tcpu_time\n12.5\tNA\n")
    assert read_benchmark(path, "cpu") is None


def test_only_what_is_missing_would_run(tmp_path: Path) -> None:
    dag = Dag(load_config(ROOT, scale="smoke"))
    jobs, there = jobs_to_run(dag, tmp_path)
    everything = [job for group in dag.stages() for job in group]
    assert there == [] and 0.9 * len(everything) < len(jobs) <= len(everything)


def test_the_table_has_eighty_columns_and_says_what_it_does_not_know() -> None:
    made = Estimate(
        lines={"training": Line(jobs=1203, there=7, gpu_hours=123456.7, disk=2.5e12, unknown=2)},
        downloads={"owner/name, file": None, "other": 5e9},
    )
    cluster = Cluster(price_per_gpu_hour=2.5, currency="EUR")
    lines = table(made, cluster)
    assert max(map(len, lines)) <= 80
    assert "308,641.75 EUR" in lines[-3] and "5.0 GB+?" in lines[-3]
    assert lines[-2] == "download of unknown size: owner/name, file"
    assert lines[-1].startswith("2 jobs have no rate")
    assert table(Estimate(), Cluster())[-1].split() == ["total", "0", "0", *"-----"]


def test_memory_is_told_of_the_training_that_needs_most() -> None:
    sizes = dict.fromkeys(("weights", "gradients", "averages", "casts", "step"), 10**9)
    small = Peak(windows=1, optimizer=2 * 10**9, activations=10**9, **sizes)
    large = Peak(windows=2, optimizer=2 * 10**9, activations=5 * 10**9, **sizes)
    assert (small.total, large.total) == (7 * 10**9, 11 * 10**9)
    told = memory_lines({"small": small, "large": large})
    assert told[0].startswith("peak memory of a training: 11.0 GB (large, 2 windows")
    assert max(map(len, told)) <= 120 and memory_lines({}) == []


def test_the_command_says_that_it_needs_benchmarks(project: Path) -> None:
    with pytest.raises(SystemExit, match="benchmarks/jobs has no jobs of smoke; run some"):
        main(["plan", "--calibrate", "--root", str(project)])


def test_a_calibration_is_kept_and_used_by_this_machine(project: Path) -> None:
    known = configured_rates(project)
    path = write_calibration(project, Rates(cpu={"picks": Rate(start=9)}, gpu={}, scale="tiny"))
    assert path == project / "benchmarks/calibration.json"
    found = rates_here(project)
    assert found.scale == "tiny" and found.cpu == known.cpu | {"picks": Rate(start=9)}
    path.write_text("{}")
    with pytest.raises(InputError, match="is no calibration; delete it"):
        rates_here(project)


@pytest.mark.long
@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_every_job_of_a_scale_is_counted(scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--scale", scale])
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    config = load_config(ROOT, scale=scale)
    trained = [name for name in config.runs() if config.variants[name].trained]
    assert int(rows["training"][1]) >= len(trained) * len(config.settings.seeds)
    assert float(rows["total"][4].replace(",", "")) > 0
