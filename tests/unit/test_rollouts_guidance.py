"""Every history-guidance scheme that the configuration takes, through a whole small rollout."""

import inspect
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from test_rollouts_memory import small_base

from conftest import write_fake_clips
from geomem.config.evaluation import Guidance
from geomem.diffusion.guidance import SCHEMES
from geomem.diffusion.plans import plan_rollout
from geomem.rollouts.protocols import LoadedVariant, run_protocol

FRAMES, WINDOW, DENSITY, SIZE = 12, 4, 0.5, 16
PLAIN = {"scheme": "conditional"}
# One of each, and `temporal` with positions that the first window's single frame does not have.
CASES: list[dict[str, Any]] = [
    PLAIN,
    {"scheme": "vanilla", "guidance_scale": 3.0},
    {"scheme": "stabilized_vanilla", "guidance_scale": 3.0, "stabilization_level": 0.3},
    {"scheme": "fractional", "guidance_scale": 3.0, "freq_scale": 0.4},
    {
        "scheme": "stabilized_fractional",
        "guidance_scale": 3.0,
        "freq_scale": 0.4,
        "stabilization_level": 0.3,
    },
    {"scheme": "temporal", "hist_subsequences": [[0], [-1]], "hist_weights": [2.0, 1.0]},
    {"scheme": "temporal", "hist_subsequences": [[1], [-2, 7]], "hist_weights": [2.0, 1.0]},
]
MODELS = {
    get_args(model.model_fields["scheme"].annotation)[0]: model
    for model in get_args(get_args(Guidance)[0])
}
PLAN = plan_rollout(FRAMES, window=WINDOW, keyframe_density=DENSITY, context=1)
KEYFRAMES = sorted(frame for window in PLAN.keyframe_windows for frame in window.generated)
BETWEEN = sorted(set(range(1, FRAMES)) - set(KEYFRAMES))


def test_the_configuration_knows_every_scheme_by_its_arguments() -> None:
    assert set(MODELS) == set(SCHEMES) == {case["scheme"] for case in CASES}
    for scheme, model in MODELS.items():
        arguments = inspect.signature(SCHEMES[scheme]).parameters
        assert model.model_fields.keys() == {"scheme", *arguments}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_clips(tmp_path_factory.mktemp("clips"), clips=2, frames=FRAMES, size=SIZE)


@pytest.fixture(scope="module")
def variant() -> LoadedVariant:
    return LoadedVariant(
        device=torch.device("cpu"), backbone=small_base(), control=None, memory=None, key="small"
    )


def rollout(
    variant: LoadedVariant, clips: Path, parts: Path, keyframes: Any, interpolation: Any
) -> np.ndarray:
    """Frames (N, T, S, S, 3) with these schemes, which go through the configuration."""
    checked = TypeAdapter(Guidance)
    settings = {
        "floor": None,
        "rollouts": {
            "context": 1,
            "precision": "fp32",
            "sampling_steps": 2,
            "seed": 0,
            "keyframes": checked.validate_python(keyframes).model_dump(mode="json"),
            "interpolation": checked.validate_python(interpolation).model_dump(mode="json"),
        },
        "keyframe_density": DENSITY,
        "split": {"resolution": SIZE},
        "window": WINDOW,
        "frames": FRAMES,
        "memory": None,
    }
    frames, _ = run_protocol(
        variant, clips, settings, batch=2, parts=parts, progress=lambda stages, **_: stages
    )
    return frames.astype(int)


@pytest.fixture(scope="module")
def plain(
    variant: LoadedVariant, clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> np.ndarray:
    return rollout(variant, clips, tmp_path_factory.mktemp("plain"), PLAIN, PLAIN)


def difference(one: np.ndarray, other: np.ndarray, frames: list[int]) -> int:
    return int(np.abs(one[:, frames] - other[:, frames]).max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_scheme_makes_the_keyframes(
    case: dict[str, Any], variant: LoadedVariant, clips: Path, plain: np.ndarray, tmp_path: Path
) -> None:
    made = rollout(variant, clips, tmp_path, case, PLAIN)
    assert difference(made, plain, [0]) == 0
    assert (difference(made, plain, KEYFRAMES) > 1) == (case != PLAIN)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_scheme_makes_the_frames_between_and_leaves_the_keyframes(
    case: dict[str, Any], variant: LoadedVariant, clips: Path, plain: np.ndarray, tmp_path: Path
) -> None:
    made = rollout(variant, clips, tmp_path, PLAIN, case)
    assert difference(made, plain, [0, *KEYFRAMES]) == 0
    assert (difference(made, plain, BETWEEN) > 1) == (case != PLAIN)


def test_schemes_differ_from_each_other(
    variant: LoadedVariant, clips: Path, tmp_path: Path
) -> None:
    made = [rollout(variant, clips, tmp_path / str(i), c, PLAIN) for i, c in enumerate(CASES)]
    for i, one in enumerate(made):
        for other in made[:i]:
            assert difference(one, other, KEYFRAMES) > 1
