"""Every stage that runs networks gives on a GPU what it gives on the CPU, within stated tolerances.

    pytest -m gpu

Kernels that round otherwise are the only difference: TF32 is off, random numbers are drawn on the
CPU; in training they are drawn on the GPU, so there a batch's gradients are compared. With
GEOMEM_GPU_TESTS=cpu the commands run on the CPU twice, which tests the tests.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from conftest import ROOT, edit_yaml, write_fake_clips
from geomem.config import load_config
from geomem.config.jobs import JobSettings
from geomem.formats import FeatureCache, read_tensors
from geomem.methods.training import pixels_last
from geomem.metrics.registry import FAMILIES
from geomem.training.data import open_dataset
from geomem.training.draws import draw_step
from training_cases import objective_of, train_for_one_size

DEVICE = os.environ.get("GEOMEM_GPU_TESTS", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]
ENVIRONMENT = {**os.environ, "NVIDIA_TF32_OVERRIDE": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
WEIGHTS = ("--weights", "weights/vggt_tiny/model.safetensors")
DEVICES = ("cpu", DEVICE)


def run(project: Path, stage: str, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"geomem.{stage}", *words],
        cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def on_both(project: Path, stage: str, command: str, name: str, *words: str) -> list[Path]:
    """Run a command into <folder of the device>/<name> on both devices; `{at}` is the folder."""
    made = []
    for place, device in zip(("one", "two"), DEVICES, strict=True):
        given = [word.replace("{at}", place) for word in words]
        run(project, stage, command, f"{place}/{name}", *given, "--device", device)
        made.append(project / place / name)
    return made


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project at scale `smoke` with clips and plans, and what the CPU makes of each stage."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "config", folder / "config")
    edit_yaml(folder / "config/config.yaml", scale="smoke")
    # the search for a scale among candidates may tip either way by rounding
    edit_yaml(
        folder / "config/scales/smoke.yaml",
        memory__geometry={"scale_from": "cameras"},
        features__shards=1,
        rollouts__sampling_steps=4,
    )
    train_for_one_size(folder, 4, backbone="trained", gate=True)
    (folder / "weights").symlink_to(ROOT / "weights")
    write_fake_clips(folder / "clips", clips=6, frames=24, size=32)
    for name in ("train", "memory"):
        run(folder, "clips", "plan", f"{name}.json", "--plan", name, "--clips", "clips")
    memory = ("--plan", "memory.json", "--clips", "clips", *WEIGHTS)
    run(folder, "features", "fit-basis", "basis.safetensors", *memory, "--device", "cpu")
    run(
        folder, "features", "cache", "memory4/part-000.json", "--number", "0", "--kind", "memory4",
        "--basis", "basis.safetensors", *memory, "--device", "cpu",
    )  # fmt: skip
    run(folder, "training", "train", "base", *training("base"), "--state", "state")
    branch = training("memory_4")
    run(folder, "training", "train", "memory_4", *branch, "--state", "state", "--device", "cpu")
    return folder


def training(variant: str) -> tuple[str, ...]:
    common = ("--variant", variant, "--seed", "0", "--clips", "clips")
    if variant == "base":
        return (*common, "--plan", "train.json")
    return (
        *common, "--plan", "memory.json", "--initial", "base", "--memory-features", "memory4",
    )  # fmt: skip


def test_features(project: Path) -> None:
    windows = ("--plan", "memory.json", "--clips", "clips", *WEIGHTS)
    one, two = on_both(project, "features", "fit-basis", "basis.safetensors", *windows)
    first, second = (read_tensors(path)[0] for path in (one, two))
    torch.testing.assert_close(second["unit"], first["unit"], rtol=1e-3, atol=0)
    torch.testing.assert_close(second["scale_prior"], first["scale_prior"], rtol=1e-3, atol=0)
    # components of almost equal variance may turn into each other: the planes they span agree
    planes = [x["components"] @ x["components"].T for x in (first, second)]
    torch.testing.assert_close(planes[1], planes[0], rtol=0, atol=2e-2)
    cached = ("--number", "0", "--basis", "basis.safetensors", *windows)
    for kind in ("memory4", "window"):
        parts = on_both(
            project, "features", "cache", f"{kind}/part-000.json", "--kind", kind, *cached
        )
        caches = [FeatureCache(p.parent, plan_path=project / "memory.json") for p in parts]
        for row in range(4):
            a, b = (cache.row(row) for cache in caches)
            assert a["frames"].equal(b["frames"])
            step = a["features"].abs().max() / 127
            assert (a["features"] - b["features"]).abs().max() <= 2 * step
            if kind == "memory4":
                torch.testing.assert_close(b["depth"], a["depth"], rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("variant", ["base", "memory_4"])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients(project: Path, variant: str, compiled: bool) -> None:
    """A batch's loss and gradients; what is drawn is the CPU's (a GPU draws other numbers)."""
    settings = JobSettings(load_config(project)).training(variant, 0)
    memory = project / "memory4" if settings.memory else None
    plan = project / ("memory.json" if settings.memory else "train.json")
    dataset = open_dataset(project / "clips", plan, settings, memory_cache=memory)
    windows = default_collate([dataset[row] for row in range(settings.recipe.batch)])
    windows["frames"] = pixels_last(windows["frames"])
    model = objective_of(settings, initial=project / variant)
    windows |= draw_step(
        model.method, tuple(windows["frames"].shape), seed=0, step=0, noise=settings.noise,
        history=settings.recipe.history, memory_dropout=settings.memory_dropout,
        device=torch.device("cpu"),
    )  # fmt: skip
    found = []
    with torch.backends.cudnn.flags(allow_tf32=False):
        for device in DEVICES:
            there = copy.deepcopy(model).to(device)
            if compiled and device == "cuda":
                for block in there.method.blocks():
                    block.compile(dynamic=False)
            loss, _ = there({name: tensor.to(device) for name, tensor in windows.items()})
            loss.backward()
            given = [p.grad.flatten().cpu() for p in there.parameters() if p.grad is not None]
            found.append((loss.item(), torch.cat(given)))
    (loss, gradient), (other, on_gpu) = found
    assert other == pytest.approx(loss, rel=1e-4)
    assert (on_gpu - gradient).norm() < 2e-3 * gradient.norm()


@pytest.mark.parametrize("variant", ["base", "memory_4"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training(project: Path, variant: str, precision: str) -> None:
    recipe = "base" if variant == "base" else "memory"
    faster = {f"recipes__{recipe}__precision": precision, f"recipes__{recipe}__compile": True}
    edit_yaml(project / "config/scales/smoke.yaml", **faster)
    output = f"{variant}-{precision}"
    words = (*training(variant), "--state", f"state-{output}", "--device", DEVICE)
    run(project, "training", "train", output, *words)
    log, known = (
        np.genfromtxt(project / name / "curves.csv", delimiter=",", names=True)
        for name in (output, variant)
    )
    np.testing.assert_allclose(log["learning_rate"], known["learning_rate"])
    # drawn on the GPU: other noise, so near the CPU's losses, not equal to them
    np.testing.assert_allclose(log["loss"], known["loss"], rtol=0.5)


@pytest.mark.parametrize("variant", ["base", "memory_4", "splat"])
def test_rollouts(project: Path, variant: str) -> None:
    words = ["--variant", variant, "--seed", "0", "--protocol", "spin", "--clips", "clips"]
    if variant != "splat":
        words += ["--checkpoint", variant, "--base", variant]
    if variant != "base":
        words += [*WEIGHTS, "--basis", "basis.safetensors"]
    one, two = on_both(project, "rollouts", "generate", f"videos/{variant}", *words)
    first, second = (np.load(folder / "rgb.npy").astype(int) for folder in (one, two))
    apart = np.abs(first - second)
    assert apart.mean() < 0.5, "mean difference in levels of 256"
    assert (apart <= 3).mean() > 0.99
    coverage = [
        json.loads((folder / "rollout.json").read_text())["coverage"] for folder in (one, two)
    ]
    np.testing.assert_allclose(*(np.array(c, float) for c in coverage), atol=0.02)


def test_bf16_rollouts_stay_near(project: Path) -> None:
    scale = project / "config/scales/smoke.yaml"
    words = ("--variant", "memory_4", "--seed", "0", "--protocol", "spin", "--clips", "clips")
    words += (
        "--checkpoint",
        "memory_4",
        "--base",
        "memory_4",
        *WEIGHTS,
        "--basis",
        "basis.safetensors",
    )
    made = []
    for precision in ("fp32", "bf16"):
        edit_yaml(scale, rollouts__precision=precision, features__precision=precision)
        run(project, "rollouts", "generate", precision, *words, "--device", DEVICE)
        made.append(np.load(project / precision / "rgb.npy").astype(float))
    edit_yaml(scale, rollouts__precision="fp32", features__precision="fp32")
    assert 0 < np.abs(made[0] - made[1]).mean() < 4, "mean difference in levels of 256"


@pytest.mark.parametrize("variant", [None, "base"])
def test_analysis(project: Path, variant: str | None) -> None:
    edit_yaml(project / "config/scales/smoke.yaml", analysis__fit_windows=4, splits__train__clips=6)
    write_fake_clips(project / "held-out", clips=2, frames=24, size=32, seed=1, prefix="held")
    words = ["--fit-clips", "clips", "--test-clips", "held-out", *WEIGHTS]
    words += ["--basis", "basis.safetensors", "--clouds", "{at}/clouds.safetensors"]
    if variant:
        words += ["--variant", variant, "--checkpoint", variant]
    one, two = on_both(project, "scores", "analyse", f"{variant}.json", *words)
    first, second = (json.loads(path.read_text()) for path in (one, two))
    for part in ("probes", "decoding"):
        assert first[part].keys() == second[part].keys()
        for name, made in first[part].items():
            for metric, values in made["values"].items():
                found = second[part][name]["values"][metric]
                a, b = (np.array([np.nan if x is None else x for x in v]) for v in (values, found))
                np.testing.assert_allclose(b, a, rtol=0.05, atol=0.05, err_msg=f"{name} {metric}")


def test_scores(project: Path) -> None:
    words = ("--variant", "base", "--seed", "0", "--protocol", "spin", "--clips", "clips")
    run(
        project, "rollouts", "generate", "scored", *words, "--checkpoint", "base", "--base", "base",
        "--device", "cpu",
    )  # fmt: skip
    for family in FAMILIES.names():
        files = on_both(
            project, "scores", "score", f"spin/{family}.json", "--protocol", "spin",
            "--family", family, "--rollout", "scored", "--clips", "clips",
        )  # fmt: skip
        one, two = (json.loads(path.read_text()) for path in files)
        assert one["per_clip"].keys() == two["per_clip"].keys()
        for name, values in one["per_clip"].items():
            np.testing.assert_allclose(
                np.array(two["per_clip"][name], float), np.array(values, float),
                rtol=1e-3, atol=1e-3, err_msg=name,
            )  # fmt: skip
        kernel = [content["sets"].get("kernel_distance") for content in (one, two)]
        assert (kernel[0] is not None) == (family == "sets")
        if kernel[0]:
            assert kernel[1]["value"] == pytest.approx(kernel[0]["value"], rel=1e-2, abs=1e-3)
