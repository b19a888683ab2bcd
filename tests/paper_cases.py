"""Small score files of five variants and two seeds, for tables and figures."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from geomem.formats import write_json
from geomem.metrics.families import perceptual, sets
from geomem.settings.evaluation import TableSettings
from geomem.settings.jobs import TableJob

CLIPS, SEEDS = 8, (0, 1)
METRICS = ("psnr", "perceptual", "frechet", "kernel_distance", "forgetting")
VARIANTS = {"still": 15.0, "base": 20.0, "memory": 22.0, "weak": 20.01, "bound": 30.0}
ROWS: list[dict[str, Any]] = [
    {"variant": "still", "label": "still"},
    {"variant": "base", "label": "without"},
    {"variant": "memory", "label": "with"},
    {"variant": "weak", "label": "hardly"},
    {"variant": "bound", "label": "oracle", "bound": True},
]
NAMES: dict[str, dict[str, Any]] = {
    "frames": {},
    "perceptual": {"perceptual": asdict(perceptual.NAMES["efficientnet_lite0_distance"])},
    "sets": {
        "frechet": asdict(sets.NAMES["frechet_efficientnet_lite0"]),
        "kernel_distance": asdict(sets.NAMES["kernel_efficientnet_lite0"]),
    },
}


def column_of(metric: str, **changes: Any) -> dict[str, Any]:
    return {"metric": metric, "protocol": "spin", "precision": 2, **changes}


def settings(**table: Any) -> TableJob:
    shown = {
        "caption": "Some caption.",
        "reference": "base",
        "rows": ROWS,
        "columns": [column_of(metric) for metric in METRICS],
        **table,
    }
    return TableJob(
        table=TableSettings.model_validate(shown),
        floors=("still",),
        scale="tiny",
        seeds=SEEDS,
        stands_in="this stands in for that",
        teacher="vggt_small",
        bootstrap=200,
    )


def psnr_of(variant: str, seed: int) -> np.ndarray:
    if variant == "still":
        return np.full(CLIPS, 15.0)
    noise = np.random.default_rng([list(VARIANTS).index(variant) - 1, seed]).normal(0, 0.2, CLIPS)
    return np.round(VARIANTS[variant] + noise, 4)


def run_of(variant: str, seed: int) -> dict[str, Any]:
    """Return what videos tell of the run behind them."""
    return {
        "tag": f"tiny/{variant}/seed{seed}/abc",
        "checkpoint": {"path": f"checkpoints/{variant}/seed{seed}/checkpoint.json", "sha256": "ff"},
        "weights": {"control": "dd"},
        "inputs": {"plan": "ee"},
        "settings": "1234",
        "version": 2,
    }


def score_records(variant: str, seed: int) -> dict[str, dict[str, Any]]:
    """Return the score files of a run by family."""
    values = psnr_of(variant, seed)
    pseudo = np.linspace(8, 10, CLIPS) + seed + 90 * (variant == "still")
    kernel = {"value": float(pseudo.mean()), "clips": CLIPS, "pseudovalues": pseudo.tolist()}
    found: dict[str, dict[str, Any]] = {
        "frames": {
            "per_clip": {"psnr": values.tolist(), "forgetting": [None] * CLIPS},
            "per_frame": {
                "psnr": [[v, v - 1, v - 2, v - 3] for v in values.tolist()],
                "coverage": [[None if variant == "base" else 0.5] * 4] * CLIPS,
            },
        },
        "perceptual": {"per_clip": {"perceptual": (1 / values).tolist()}},
        "sets": {"sets": {"frechet": None, "kernel_distance": kernel, "frechet_infinite": None}},
    }
    return {
        family: {
            "variant": variant,
            "seed": seed,
            "protocol": "spin",
            "clips": [f"c{i}" for i in range(CLIPS)],
            "family": family,
            "names": NAMES[family],
            "networks": {},
            "frames": 5,
            "context": 1,
            "per_clip": {},
            "per_frame": {},
            "sets": {},
            **content,
            "rollout": {"version": 3, "settings": "bb", "run": run_of(variant, seed)},
            "provenance": {
                "stage": "scores",
                "version": 4,
                "settings": {"family": family},
                "inputs": {"rollout": "aa", "clips": "cc"},
            },
        }
        for family, content in found.items()
    }


def write_scores(folder: Path) -> list[Path]:
    """Write all of them; return their paths."""
    paths = []
    for variant in VARIANTS:
        for seed in SEEDS:
            for family, content in score_records(variant, seed).items():
                paths.append(folder / f"scores/{variant}{seed}/{family}.json")
                write_json(paths[-1], content)
    return paths
