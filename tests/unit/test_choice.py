"""Picking the best of several variants, and adopting its checkpoint."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from conftest import edit_yaml, told
from geomem.config import JobSettings, load_config
from geomem.formats import (
    load_module,
    read_checkpoint,
    read_json,
    sha256_file,
    write_checkpoint,
    write_json,
)
from geomem.formats.records import recipe_of
from geomem.picks import __main__ as stage
from geomem.picks.choice import adopt, choose, pick
from geomem.picks.version import VERSION
from geomem.settings.jobs import PickCriterion, PickJob
from geomem.statistics import mean_interval

DISTANCE = PickCriterion(metric="perceptual", better="lower")
PSNR = PickCriterion(metric="psnr", better="higher")
RULE = PickJob(among=("base", "repa"), protocol="validation", criteria=(DISTANCE, PSNR))
# Clips differ far more than candidates do: only pairs tell those apart.
CLIPS = np.linspace(1, 9, 12)
WAVE = np.tile([0.5, -0.5, 0.25, -0.25], 3)


class Point(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A model of one number."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(
    ("distance", "psnr", "picked", "reason"),
    [
        # better on every clip by little: apart, whatever the clips do
        (CLIPS - 0.1 + 0.1 * WAVE, CLIPS, "repa", "best perceptual"),
        (CLIPS + 0.1 + 0.1 * WAVE, CLIPS, "base", "best perceptual"),
        # a better mean that the clips do not agree on: the next criterion, then the first listed
        (CLIPS - 0.1 + WAVE, CLIPS + 1, "repa", "best psnr, and apart from all others left"),
        (CLIPS - 0.1 + WAVE, CLIPS - 1, "base", "best psnr, and apart from all others left"),
        (CLIPS - 0.1 + WAVE, CLIPS + 0.1 + WAVE, "base", "first of base, repa, which no criterion"),
        (CLIPS, CLIPS, "base", "first of base, repa, which no criterion"),
    ],
)
def test_the_best_wins_if_pairs_tell_it_from_what_is_listed_before(
    distance: np.ndarray, psnr: np.ndarray, picked: str, reason: str
) -> None:
    values = {
        "base": {"perceptual": CLIPS[None], "psnr": CLIPS[None]},
        "repa": {"perceptual": distance[None], "psnr": psnr[None]},
    }
    made = pick(values, [DISTANCE, PSNR])
    assert made["picked"] == picked
    assert made["reason"].startswith(reason)


def test_what_is_apart_from_the_best_stays_out_however_early_it_is_listed() -> None:
    values = {
        name: {"perceptual": (CLIPS + offset + 0.1 * WAVE * sign)[None]}
        for name, offset, sign in (("worst", 2.0, 1), ("tied", 0.01, -1), ("best", 0.0, 1))
    }
    made = pick(values, [DISTANCE])
    assert made["picked"] == "tied"
    assert made["reason"] == "first of tied, best, which no criterion tells from the best"
    [compared] = made["comparisons"]
    assert (compared["metric"], compared["best"]) == ("perceptual", "best")
    found = compared["differences"]
    assert found["worst"]["low"] > 0 and found["tied"]["low"] < 0 < found["tied"]["high"]
    expected = mean_interval(0.01 - 0.2 * WAVE, seed=0)
    assert found["tied"]["value"] == pytest.approx(expected.value, rel=1e-5)
    assert found["tied"]["high"] == pytest.approx(expected.high, rel=1e-5)


def test_one_clip_tells_nobody_apart() -> None:
    values = {"a": {"psnr": np.array([[1.0]])}, "b": {"psnr": np.array([[9.0]])}}
    made = pick(values, [PSNR])
    assert made["picked"] == "a"
    assert made["comparisons"][0]["differences"]["a"] == {"value": -8.0, "low": None, "high": None}


def score_files(
    folder: Path, variant: str, seed: int, distance: list[Any], clips: str = "abc"
) -> list[Path]:
    """Write what two families say of a variant."""
    found = {
        "frames": {"psnr": [20.0, 21.0, 22.0]},
        "perceptual": {"perceptual": distance},
    }
    paths = []
    for family, values in found.items():
        path = folder / f"scores/{variant}/seed{seed}/validation/{family}.json"
        content = {"variant": variant, "seed": seed, "family": family, "clips": list(clips)}
        write_json(path, {**content, "per_clip": values})
        paths.append(path)
    return paths


def test_seeds_are_paired_and_every_value_is_written_down(tmp_path: Path) -> None:
    paths = [
        *score_files(tmp_path, "base", 0, [1.0, 2.0, 3.0]),
        *score_files(tmp_path, "repa", 1, [1.4, 2.4, 3.41]),
        *score_files(tmp_path, "base", 1, [1.5, 2.5, 3.5]),
        *score_files(tmp_path, "repa", 0, [0.9, 1.91, 2.9]),
    ]
    made = choose(paths, RULE)
    # by clip and seed -0.1, -0.1, -0.09 or so, in spite of seeds half a unit apart
    assert (made["picked"], made["reason"]) == (
        "repa",
        "best perceptual, and apart from all others",
    )
    found = made["candidates"]
    assert {name: v["perceptual"] for name, v in found.items()} == pytest.approx(
        {"base": 2.25, "repa": 2.153333}
    )
    assert found["base"]["psnr"] == 21
    difference = made["comparisons"][0]["differences"]["base"]
    assert difference["value"] == pytest.approx(0.0966667)
    assert 0 < difference["low"] < difference["value"] < difference["high"]


def test_the_command_records_every_score_file_that_it_read(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_yaml(project / "config/scales/smoke.yaml", candidates={"best": ["base", "tuned"]})
    settings = JobSettings(load_config(project)).pick("best")
    paths = [
        *score_files(tmp_path, "base", 0, [1.0, 2.0, 3.0]),
        *score_files(tmp_path, "tuned", 0, [0.9, 1.91, 2.9]),
    ]
    output = tmp_path / "choices/best.json"
    command = ["picks", "choose", str(output), "--root", str(project), "--variant", "best"]
    monkeypatch.setattr(sys, "argv", [*command, "--scores", *map(str, paths)])
    stage.main()
    made = read_json(output)
    assert (made["variant"], made["picked"]) == ("best", "tuned")
    told_by = dict(made["provenance"])
    assert told_by.pop("recipes").keys() == told_by["inputs"].keys()
    assert told_by == {
        "stage": "picks",
        "version": VERSION,
        "settings": settings.recorded(),
        "inputs": {
            f"{variant}-seed0-{family}": sha256_file(
                tmp_path / f"scores/{variant}/seed0/validation/{family}.json"
            )
            for variant in ("base", "tuned")
            for family in ("frames", "perceptual")
        },
    }


def test_what_is_missing_or_does_not_pair_is_told(tmp_path: Path) -> None:
    base = score_files(tmp_path, "base", 0, [1.0, 2.0, 3.0])
    told(lambda: choose(base, RULE), "repa", "validation")
    repa = score_files(tmp_path, "repa", 0, [1.0, None, 3.0])
    told(lambda: choose([*base, *repa], RULE), str(repa[1]), "perceptual")
    told(lambda: choose([*base, repa[0]], RULE), "repa", "knows perceptual")
    for seed, clips in ((0, "abx"), (1, "abc")):
        odd = score_files(tmp_path, "repa", seed, [1.0, 2.0, 3.0], clips)
        told(
            lambda paths=odd: choose([*base, *paths], RULE),
            "repa",
            "other seeds or clips than base",
        )


def test_one_candidate_needs_no_scores() -> None:
    made = choose([], RULE.model_copy(update={"among": ("base",)}))
    assert (made["picked"], "only candidate" in made["reason"]) == ("base", True)


def test_an_adopted_checkpoint_is_the_picked_one_under_another_name(tmp_path: Path) -> None:
    for number, name in enumerate(("base", "repa")):
        model = Point()
        nn.init.constant_(model.value, number)
        made_by = {"stage": "training", "version": 1, "settings": {}, "inputs": {}}
        identity, log = {"variant": name, "seed": 0}, [{"step": 0.0, "loss": 1.0}]
        write_checkpoint(tmp_path / name, {"backbone": model}, made_by, identity, log)
    write_json(tmp_path / "choice.json", {"picked": "repa"})
    candidates = [tmp_path / "base", tmp_path / "repa"]
    options: dict[str, Any] = {"settings": RULE, "seed": 0, "variant": "best", "version": 3}
    adopt(tmp_path / "best", tmp_path / "choice.json", candidates, **options)
    made, picked = read_checkpoint(tmp_path / "best"), read_checkpoint(tmp_path / "repa")
    assert (made["variant"], made["seed"], made["adopted"]) == ("best", 0, "repa")
    assert made["weights"] == picked["weights"] and made["parameters"] == picked["parameters"]
    assert load_module(Point, tmp_path / "best", "backbone").value.item() == 1
    told_by = dict(made["provenance"])
    assert told_by.pop("recipes")["adopted"] == recipe_of(tmp_path / "repa")
    assert told_by == {
        "stage": "picks",
        "version": 3,
        "settings": RULE.recorded(),
        "inputs": {
            "choice": sha256_file(tmp_path / "choice.json"),
            "adopted": sha256_file(tmp_path / "repa/checkpoint.json"),
        },
    }
    told(
        lambda: adopt(tmp_path / "b", tmp_path / "choice.json", candidates[:1], **options),
        "repa",
        "not given",
    )
