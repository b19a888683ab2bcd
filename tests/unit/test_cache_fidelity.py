"""The feature cache: what settings of it take and lose, several layers, and jobs side by side."""

import json
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import ROOT, edit_yaml, run_stage, told, write_fake_clips
from geomem.commands.verification import verify
from geomem.config import JobSettings, load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.formats import dequantise, quantise, read_tensors, write_feature_part
from geomem.formats import features as features_format
from geomem.formats.features import bytes_per_frame, raw_bytes_per_frame
from geomem.formats.teachers import read_basis
from geomem.memory.reconstruction import FeatureBasis, on_grid, restored_layers
from geomem.paper.cache_fidelity import cache_fidelity_table
from geomem.paper.tables import table_latex, table_values
from geomem.scores.cache_fidelity import basis_of, compressed, fidelity
from geomem.settings.fidelity import CacheSetting
from geomem.training.build import online_teacher
from geomem.training.data import open_dataset
from training_cases import learn, objective_of

WIDTH, RANK = 24, 6
SMOKE = "config/scales/smoke.yaml"


def tokens(windows: int, seed: int) -> Tensor:
    """Smooth tokens (W, 2, 8, 8, D) that vary in a few directions, falling, and a little in all."""
    mixing = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.manual_seed(7)))[0]
    spread = 2.0 ** -torch.arange(RANK)
    drawn = torch.Generator().manual_seed(seed)
    coarse = torch.randn(windows, 2 * RANK, 4, 4, generator=drawn)
    fine = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
    places = fine.unflatten(1, (2, RANK)).movedim(2, -1) * spread
    noise = 0.01 * torch.randn(windows, 2, 8, 8, WIDTH, generator=drawn)
    return places @ mixing[:RANK] + noise + 0.3


RAW = {0: tokens(12, 0), 1: 5 * tokens(12, 1).flip(-1)}
HELD = {0: tokens(4, 2), 1: 5 * tokens(4, 3).flip(-1)}


def weighed(**setting: Any) -> dict[str, Any]:
    row = CacheSetting(**{"layers": (0,), "channels": 4, **setting})
    return fidelity([HELD[layer] for layer in row.layers], basis_of(RAW, row), row.stored)


# --- what is lost ---------------------------------------------------------------------------------


def test_more_channels_never_lose_more_and_all_of_them_nothing() -> None:
    centred = [
        float(weighed(channels=n, stored="bf16")["centred"].mean()) for n in (1, 2, 4, 6, 12, 24)
    ]
    assert centred == sorted(centred)
    assert centred[0] < 0.95 < 0.99 < centred[3]
    assert centred[-1] == pytest.approx(1, abs=1e-4)


def test_a_random_basis_is_caught() -> None:
    true = basis_of(RAW, CacheSetting(layers=(0,), channels=4))
    drawn = torch.randn(WIDTH, 4, generator=torch.manual_seed(1))
    random = FeatureBasis(
        layer=0, mean=true.mean, components=torch.linalg.qr(drawn)[0], unit=1.0, scale_prior=1.0
    )
    found, fake = (fidelity([HELD[0]], one, "bf16") for one in (true, random))
    assert found["centred"].min() > 0.98
    assert fake["centred"].max() < 0.7
    assert fake["cosine"].max() < found["cosine"].min()


def test_bf16_is_nearer_than_int8_and_takes_twice_as_much() -> None:
    coarse, fine = weighed(channels=RANK), weighed(channels=RANK, stored="bf16")
    assert fine["centred"].mean() > coarse["centred"].mean() > 0.98
    # a step of a float32 a window and channel
    assert coarse["bytes"] == RANK * (64 + 4 / 2) and fine["bytes"] == RANK * 64 * 2


def test_a_grid_costs_nothing_on_itself_and_shows_on_the_teachers() -> None:
    own, small = weighed(channels=WIDTH), weighed(channels=WIDTH, grid=2)
    assert small["cosine"].min() > 0.999 < own["own_grid"].min()
    assert small["own_grid"].max() < 0.99
    assert small["bytes"] == WIDTH * (4 + 4 / 2)


def test_layers_weigh_alike_whatever_their_scale() -> None:
    both = CacheSetting(layers=(0, 1), channels=3)
    basis = basis_of(RAW, both)
    made = compressed([HELD[0], HELD[1]], basis)
    assert made.shape == (4, 2, 6, 8, 8)
    sizes = made.unflatten(2, (2, 3)).square().mean((0, 1, 3, 4, 5)).sqrt()
    assert torch.allclose(sizes, torch.ones(2), atol=0.3)
    one, two = (weighed(layers=(layer,), channels=3)["cosine"] for layer in (0, 1))
    together = fidelity([HELD[0], HELD[1]], basis, "int8")
    assert torch.allclose(together["cosine"], (one + two) / 2, atol=1e-6)
    for layer, back in zip((0, 1), restored_layers(made, basis), strict=True):
        assert (back - HELD[layer]).abs().mean() < 0.3 * HELD[layer].abs().mean()


def test_resampling_may_come_before_the_projection_or_after() -> None:
    basis = basis_of(RAW, CacheSetting(layers=(0,), channels=4, grid=2))
    after = compressed([HELD[0]], basis)
    before = basis.compress(on_grid(HELD[0].movedim(-1, 2), 2).movedim(2, -1)).movedim(-1, 2)
    assert after.shape == (4, 2, 4, 2, 2)
    assert torch.allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("stored", ["int8", "bf16"])
@pytest.mark.parametrize(("side", "channels", "frames"), [(8, 5, 3), (4, 7, 1)])
def test_bytes_are_those_that_are_written(
    stored: str, side: int, channels: int, frames: int
) -> None:
    made = quantise(torch.randn(2, frames, channels, side, side), stored)
    size = sum(tensor.nbytes for tensor in made.values()) / (2 * frames)
    told = bytes_per_frame(side * side, channels, stored=stored, frames=frames)
    assert size == pytest.approx(told, rel=1e-12)


def test_shares_of_the_published_teacher() -> None:
    raw = raw_bytes_per_frame(24, 1374, 2048)
    assert raw == 135_069_696
    features = load_config(ROOT, scale="paper").settings.features
    kept = bytes_per_frame(37 * 37, features.aligned_channels, stored=features.stored, frames=16)
    assert kept == 64 * (1369 + 4 / 16) == 87_632
    assert kept / raw == pytest.approx(0.000649, abs=1e-6)


# --- settings -------------------------------------------------------------------------------------


def test_settings_that_are_not_named_leave_digests_as_they_were(project: Path) -> None:
    before = JobSettings(load_config(project)).features("memory")
    assert not {"more_layers", "grid", "stored"} & set(before.recorded()["features"])
    edit_yaml(
        project / SMOKE, features__more_layers=[], features__grid=None, features__stored="int8"
    )
    after = JobSettings(load_config(project)).features("memory")
    assert after.digest == before.digest
    edit_yaml(project / SMOKE, features__stored="bf16")
    assert JobSettings(load_config(project)).features("memory").digest != before.digest


@pytest.mark.parametrize(
    ("edited", "message"),
    [
        ({"features__more_layers": [4]}, "features.more_layers: 4, the teacher has layers 0 to 3"),
        ({"features__more_layers": [3]}, r"\[3\] repeat a layer, or name `layer` again"),
        ({"features__more_layers": [1, 1]}, r"\[1, 1\] repeat a layer"),
        ({"features__channels": 193}, "features.channels: 193, the teacher's tokens have 192"),
        ({"features__grid": 9}, "features.grid: 9 is finer than the teacher's 8"),
        ({"features__stored": "fp8"}, "features.stored = 'fp8'"),
        ({"cache_fidelity__test_split": "train"}, "cache_fidelity.test_split: train is what bases"),
        ({"cache_fidelity__test_windows": 3}, "validation has 2 clips of 16 frames, needed are 3"),
        ({"cache_fidelity__stride": 6}, "train has 6 clips of 16 frames, needed are 4 of 19"),
        ({"cache_fidelity__variant": "base"}, "base is not aligned with the 3D teacher"),
        ({"cache_fidelity__rows": [{"layers": [4], "channels": 4}]}, r"rows.0.layers: 4, the teac"),
        ({"cache_fidelity__rows": []}, "cache_fidelity.rows"),
        (
            {"cache_fidelity__rows": [{"layers": [3], "channels": 4}] * 2},
            "rows name layer 3, 4 channels, int8 twice",
        ),
    ],
)
def test_what_cannot_be_kept_is_told_in_one_line(
    project: Path, edited: dict[str, Any], message: str
) -> None:
    edit_yaml(project / SMOKE, **edited)
    with pytest.raises(InputError, match=message) as caught:
        JobSettings(load_config(project)).cache_fidelity()
    assert "\n" not in str(caught.value)


# --- the stages -----------------------------------------------------------------------------------


@pytest.fixture
def made(project: Path) -> tuple[Path, list[str], list[str]]:
    """A project with clips and a plan, options of the features' commands, and of a part's."""
    (project / "weights").symlink_to(ROOT / "weights")
    edit_yaml(project / SMOKE, features__shards=1)
    write_fake_clips(project / "clips", clips=6, frames=24, size=32)
    run_stage(project, "clips", "plan", "train.json", "--plan", "train", "--clips", "clips")
    weights = ["--weights", "weights/vggt_tiny/model.safetensors"]
    windows = ["--plan", "train.json", "--clips", "clips", *weights]
    part = ["--number", "0", "--kind", "window", "--basis", "basis.safetensors"]
    return project, windows, part


def test_several_layers_on_a_grid_are_cached_aligned_and_the_same_online(
    made: tuple[Path, list[str], list[str]],
) -> None:
    project, windows, part = made
    kept = {"more_layers": [1], "grid": 4, "stored": "bf16", "online": True}
    edit_yaml(project / SMOKE, **{f"features__{key}": value for key, value in kept.items()})
    run_stage(project, "features", "fit-basis", "basis.safetensors", *windows)
    run_stage(project, "features", "cache", "window/part-000.json", *part, *windows)
    [shard] = (project / "window").glob("shard-*")
    stored = read_tensors(shard)[0]
    assert stored["features"].dtype == torch.bfloat16 and "features_step" not in stored
    assert stored["fidelity"].min() > 0.999
    settings = JobSettings(load_config(project)).training("repa", 0)
    dataset = open_dataset(
        project / "clips", project / "train.json", settings, window_cache=project / "window"
    )
    item = dataset[0]
    assert item["tokens"].shape == (4, 8, 4, 4)  # frames, 2 layers of 4 channels, the grid
    teacher = online_teacher(
        settings, project / "weights/vggt_tiny/model.safetensors", project / "basis.safetensors"
    )
    assert teacher is not None
    there = teacher.tokens(item["frames"][None])[0]
    assert (there - item["tokens"]).abs().max() <= there.abs().max() / 256
    # each layer has its own unit, and neither is the other
    sizes = there.unflatten(1, (2, 4)).square().mean((0, 2, 3, 4)).sqrt()
    assert ((sizes > 0.3) & (sizes < 3)).all()
    assert not torch.allclose(there[:, :4], there[:, 4:], atol=0.1)
    cached = settings.model_copy(
        update={"alignment": settings.alignment.model_copy(update={"online": None})}
    )
    torch.manual_seed(0)
    model = objective_of(cached)
    assert model.projector is not None and model.projector.project.out_features == 8
    log = learn(model, dataset, cached, project / "state")
    assert log[0]["align_angular"] > log[-1]["align_angular"] - 0.5
    assert all(-1 <= entry["cosine"] <= 1 for entry in log)


def test_memories_have_the_grid_and_the_first_layer_alone(
    made: tuple[Path, list[str], list[str]],
) -> None:
    project, windows, _ = made
    run_stage(project, "clips", "plan", "memory.json", "--plan", "memory", "--clips", "clips")
    edit_yaml(project / SMOKE, features__more_layers=[1], features__grid=4)
    words = ["--plan", "memory.json", *windows[2:]]
    run_stage(project, "features", "fit-basis", "basis.safetensors", *words)
    part = ["--number", "0", "--kind", "memory4", "--basis", "basis.safetensors"]
    run_stage(project, "features", "cache", "memory4/part-000.json", *part, *words)
    settings = JobSettings(load_config(project)).training("memory_4_implicit", 0)
    plan, cache = project / "memory.json", project / "memory4"
    dataset = open_dataset(project / "clips", plan, settings, memory_cache=cache)
    stored = read_tensors(next(cache.glob("shard-*")))[0]
    assert stored["features"].shape[1:] == (4, 4, 4, 4) and stored["fidelity"].min() > 0.99
    window = max(range(8), key=lambda i: dataset.plan.windows[i].history)
    item = dataset[window]
    assert item["memory.features"].shape == (4, 4, 4, 4)
    log = learn(objective_of(settings), dataset, settings, project / "state")
    assert len(log) == settings.recipe.steps


def test_a_basis_for_other_settings_is_refused(
    made: tuple[Path, list[str], list[str]],
) -> None:
    project, windows, part = made
    run_stage(project, "features", "fit-basis", "basis.safetensors", *windows)
    features = load_config(project).settings.features
    assert read_basis(project / "basis.safetensors", kept=features.kept).more == ()
    edit_yaml(project / SMOKE, features__grid=4)
    with pytest.raises(SystemExit, match=r"is a basis for .*, `features` asks for .*'grid': 4"):
        run_stage(project, "features", "cache", "window/part-000.json", *part, *windows)


def test_record_and_table_are_made_by_the_stages_and_by_name_alone(project: Path) -> None:
    (project / "weights").symlink_to(ROOT / "weights")
    for split, clips in (("train", 6), ("validation", 2)):
        write_fake_clips(project / split, clips=clips, frames=16, size=32, seed=clips, prefix=split)
    record, root = project / "cache_fidelity.json", ("--root", str(project))
    options = ["--fit-clips", "train", "--test-clips", "validation"]
    weights = ["--weights", "weights/vggt_tiny/model.safetensors"]
    run_stage(project, "scores", "cache-fidelity", str(record), *options, *weights, *root)
    content = json.loads(record.read_text())
    assert content["raw"] == {"bytes_per_frame": 4 * 69 * 192 * 2, "layers": 4, "tokens": 69}
    assert content["windows"] == ["validation-0", "validation-1"]
    assert [run["setting"] for run in content["aligned"]] == [
        None,
        None,
        "layer 3, 4 channels, int8",
    ]
    raw, again, cached = (run["cosine"] for run in content["aligned"])
    assert raw != again and raw != cached and len(raw) == 2
    assert all(-1 <= value <= 1 for value in raw + again + cached)
    assert content["rows"][0]["bytes_per_frame"] == 4 * (64 + 4 / 4)
    assert content["rows"][2]["bytes_per_frame"] == 2 * 8 * (16 + 4 / 4)
    outputs = {key: project / f"table.{key}" for key in ("csv", "tex", "values", "provenance")}
    words = [word for key, path in outputs.items() for word in (f"--{key}", str(path))]
    run_stage(project, "paper", "cache-fidelity", "--measured", str(record), *words, *root)
    values = json.loads(outputs["values"].read_text())
    row = values["layer 3, 4 channels, int8"]
    assert row["share"] == pytest.approx(100 * 260 / 105_984, rel=1e-3)
    assert row["worst"] <= row["cosine"] and row["aligned"] == pytest.approx(sum(cached) / 2)
    difference = sum(cached) / 2 - sum(raw) / 2
    assert row["difference"] == pytest.approx(difference, abs=1e-6)
    assert "another seed" in outputs["tex"].read_text()


def test_nothing_of_the_study_depends_on_it(project: Path) -> None:
    config = load_config(project)
    graph = Dag(config)
    record, shown = graph.layout.cache_fidelity, graph.layout.provenance("cache_fidelity")
    assert [job.record for job in graph.by_name()][:2] == [record, shown]
    made = {job.record for jobs in graph.stages() for job in jobs}
    assert not {record, shown} & made
    assert Path("results/cache_fidelity.tex") in graph.copies()
    faults = verify(config, project)
    assert faults and not [fault for fault in faults if "cache_fidelity" in fault]
    for path in graph.cache_fidelity_table().outputs:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text("{}")
    # what is there is looked at, and the paper has no part of it
    assert [fault for fault in verify(config, project) if "cache_fidelity" in fault]
    assert shown not in graph.paper(project).inputs["files"]
    assert Dag(load_config(project, main_job=True)).by_name() == []
    edit_yaml(project / SMOKE, cache_fidelity=None)
    without = JobSettings(load_config(project))
    told(without.cache_fidelity, "smoke.yaml has no `cache_fidelity`")


def test_the_table_tells_differences_to_raw_features_of_the_same_layers(project: Path) -> None:
    settings = JobSettings(load_config(project)).cache_fidelity_table()
    cosines = {"cosine": [0.5, 0.75], "centred": [0.25, 0.5], "own_grid": [0.5, 0.5]}
    rows = [{**row.recorded(), "bytes_per_frame": 1000.0, **cosines}
            for row in settings.cache_fidelity.rows]  # fmt: skip
    label = settings.cache_fidelity.rows[0].label
    aligned = [
        {"layers": [3], "setting": None, "seed": 0, "cosine": [0.5, 0.25]},
        {"layers": [3], "setting": None, "seed": 1, "cosine": [0.75, 0.25]},
        {"layers": [3], "setting": label, "seed": 0, "cosine": [0.25, 0.25]},
    ]
    raw = {"bytes_per_frame": 100_000, "layers": 4, "tokens": 69}
    measured = {"raw": raw, "windows": ["a", "b"], "rows": rows, "aligned": aligned}
    table = cache_fidelity_table(settings, measured)
    values = table_values(table)
    assert values[label]["difference"] == -0.125 and values[label]["share"] == 1
    assert (values[label]["cosine"], values[label]["worst"]) == (0.625, 0.5)
    assert values["raw, layer 3, another seed"]["difference"] == 0.125
    assert values["raw, layer 3"] == {
        **{"bytes": 100_000, "share": 100, "cosine": 1, "worst": 1, "centred": 1, "own_grid": 1},
        "aligned": 0.375,
    }
    assert "69 tokens of 4 layers in fp16" in table_latex(table)


# --- many jobs on one plan ------------------------------------------------------------------------


def rows_of(rows: range) -> dict[str, Tensor]:
    values = torch.arange(rows.start, rows.stop).float()[:, None, None, None, None]
    return quantise(values.expand(-1, 2, 3, 2, 2) + 1)


def make_part(folder: Path, number: int, windows: range, key: dict[str, Any]) -> list[int]:
    """Make a part, slowly; returns where the shards began that this job has computed."""
    made: list[int] = []

    def compute(rows: range) -> dict[str, Tensor]:
        made.append(rows.start)
        with (folder / "computed.txt").open("a") as log:
            log.write(f"{rows.start}\n")
        time.sleep(0.05)
        return rows_of(rows)

    part = folder / f"part-{number:03d}.json"
    write_feature_part(part, windows, key, compute, progress=lambda shards: shards)
    return made


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_jobs_that_make_one_part_at_once_write_each_shard_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setattr(features_format, "SHARD_WINDOWS", 2)
    options = {"mp_context": get_context("fork")} if kind is ProcessPoolExecutor else {}
    with kind(4, **options) as pool:
        jobs = [pool.submit(make_part, tmp_path, 0, range(9), {"layer": 3}) for _ in range(4)]
        made = [job.result() for job in jobs]
    assert sorted(start for one in made for start in one) == [0, 2, 4, 6, 8]
    assert sorted(map(int, (tmp_path / "computed.txt").read_text().split())) == [0, 2, 4, 6, 8]
    index = json.loads((tmp_path / "part-000.json").read_text())
    for shard in index["shards"]:
        path = tmp_path / shard["file"]
        assert features_format.sha256_file(path) == shard["sha256"]
        rows = range(shard["start"], shard["stop"])
        held = dequantise(read_tensors(path)[0])
        assert torch.allclose(held, dequantise(rows_of(rows)))
    assert not list(tmp_path.glob(".shard-*"))  # no half-written ones


def test_parts_of_one_plan_share_no_shard_whatever_their_number(project: Path) -> None:
    windows = 1000
    for parts in (1, 2, 3, 7, 16):
        made = [range(windows * n // parts, windows * (n + 1) // parts) for n in range(parts)]
        assert [row for part in made for row in part] == list(range(windows))


def test_parts_that_overlap_are_told_and_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_format, "SHARD_WINDOWS", 4)
    make_part(tmp_path, 0, range(6), {"layer": 3})
    before = {path.name: path.read_bytes() for path in tmp_path.glob("shard-*")}
    told(
        lambda: make_part(tmp_path, 1, range(4, 12), {"layer": 3}),
        "shard-0000004.safetensors holds windows 4 to 6",
        "4 to 8",
        "parts overlap; delete",
    )
    assert {path.name: path.read_bytes() for path in tmp_path.glob("shard-*")} == before
    # one that was made with other settings is outdated, and is made again
    assert make_part(tmp_path, 1, range(4, 12), {"layer": 4}) == [4, 8]
