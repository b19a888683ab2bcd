"""Picking the best of several variants, and adopting its checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from conftest import told
from geomem.formats import (
    load_module,
    read_checkpoint,
    read_json,
    sha256_file,
    write_checkpoint,
    write_json,
)
from geomem.training.choice import adopt, choose, pick

FRECHET = {"metric": "frechet", "better": "lower", "tie": 0.01}
PSNR = {"metric": "psnr", "better": "higher", "tie": 0.0}
RULE = {
    "best_of": {"among": ["base", "repa"], "protocol": "validation", "criteria": [FRECHET, PSNR]}
}


class Point(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A model of one number."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize(
    ("means", "picked", "reason"),
    [
        ({"base": [10, 20], "repa": [9, 10]}, "repa", "best frechet"),
        ({"base": [10, 20], "repa": [9.95, 21]}, "repa", "best psnr among those tied before it"),
        ({"base": [10, 20], "repa": [9.95, 19]}, "base", "best psnr among those tied before it"),
        ({"base": [10, 20], "repa": [10, 20]}, "base", "first of base, repa, which are tied"),
        ({"base": [-5, 1], "repa": [-6, 1]}, "repa", "best frechet"),
    ],
)
def test_ties_are_broken_in_order(means: dict[str, list[float]], picked: str, reason: str) -> None:
    found, why = pick(means, [FRECHET, PSNR])
    assert found == picked
    assert why.startswith(reason)


def score_file(folder: Path, variant: str, seed: int, frechet: float, psnr: list[Any]) -> Path:
    path = folder / f"{variant}-{seed}.json"
    content = {
        "variant": variant,
        "seed": seed,
        "sets": {"frechet": {"value": frechet}, "kernel_distance": None},
        "per_clip": {"psnr": psnr},
    }
    write_json(path, content)
    return path


def test_seeds_are_averaged_and_every_value_is_written_down(tmp_path: Path) -> None:
    paths = [
        score_file(tmp_path, "base", 0, 10, [20.0, 22.0]),
        score_file(tmp_path, "base", 1, 20, [20.0, 22.0]),
        score_file(tmp_path, "repa", 0, 12, [18.0, 20.0]),
        score_file(tmp_path, "repa", 1, 14, [18.0, 20.0]),
    ]
    made = choose(paths, RULE)
    assert made["picked"] == "repa"
    assert made["candidates"] == {
        "base": {"frechet": 15, "psnr": 21},
        "repa": {"frechet": 13, "psnr": 19},
    }
    assert made["inputs"] == {path.stem.replace("-", "-seed"): sha256_file(path) for path in paths}


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    base = score_file(tmp_path, "base", 0, 10, [20.0])
    told(lambda: choose([base], RULE), "repa", "validation")
    repa = score_file(tmp_path, "repa", 0, 10, [None])
    told(lambda: choose([base, repa], RULE), str(repa), "psnr")


def test_one_candidate_needs_no_scores() -> None:
    made = choose([], {"best_of": {**RULE["best_of"], "among": ["base"]}})
    assert (made["picked"], "only candidate" in made["reason"]) == ("base", True)


def test_an_adopted_checkpoint_is_the_picked_one_under_another_name(tmp_path: Path) -> None:
    for number, name in enumerate(("base", "repa")):
        model = Point()
        nn.init.constant_(model.value, number)
        record = {"variant": name, "seed": 0, "parameters": {"backbone": 1}}
        write_checkpoint(tmp_path / name, {"backbone": model}, record, [{"step": 0.0, "loss": 1.0}])
    write_json(tmp_path / "choice.json", {"picked": "repa"})
    candidates = [tmp_path / "base", tmp_path / "repa"]
    record = {"variant": "best", "seed": 0, "settings": {}, "version": 1}
    adopt(tmp_path / "best", tmp_path / "choice.json", candidates, record=record)
    made = read_checkpoint(tmp_path / "best")
    assert (made["variant"], made["adopted"]) == ("best", "repa")
    assert made["weights"] == read_json(tmp_path / "repa" / "checkpoint.json")["weights"]
    assert load_module(Point, tmp_path / "best", "backbone").value.item() == 1
    told(
        lambda: adopt(tmp_path / "b", tmp_path / "choice.json", candidates[:1], record=record),
        "repa",
        "not given",
    )
