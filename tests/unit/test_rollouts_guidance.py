"""Every history-guidance scheme that the configuration takes, through a whole small rollout."""

import inspect
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from test_rollouts_memory import small_base

from conftest import ROOT, write_fake_clips
from geomem.config import JobSettings, load_config
from geomem.diffusion.guidance import SCHEMES, history_guidance
from geomem.diffusion.rollout_plans import plan_rollout
from geomem.methods.dfot.method import Sampler
from geomem.rollouts.protocols import LoadedVariant, run_protocol
from geomem.settings.evaluation import Guidance
from geomem.settings.jobs import RolloutJob

FRAMES, WINDOW, DENSITY, SIZE = 12, 4, 0.5, 16
PLAIN = {"scheme": "conditional"}
# One of each, and `temporal` with positions that the first window's single frame does not have.
CASES: list[dict[str, Any]] = [
    PLAIN,
    {"scheme": "replacement"},
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


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_the_configuration_knows_how_often_a_scheme_runs_the_network(scale: float) -> None:
    for case in CASES:
        scaled = {**case, "guidance_scale": scale} if "guidance_scale" in case else case
        model: Any = TypeAdapter(Guidance).validate_python(scaled)
        assert model.branches == history_guidance(**scaled).evaluations, scaled


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_clips(tmp_path_factory.mktemp("clips"), clips=2, frames=FRAMES, size=SIZE)


@pytest.fixture(scope="module")
def variant() -> LoadedVariant:
    return LoadedVariant(
        device=torch.device("cpu"), method=Sampler(backbone=small_base()), memory=None, key="small"
    )


@pytest.fixture(scope="module")
def job() -> RolloutJob:
    """What the configuration makes of a rollout of `base`, shortened."""
    settings = JobSettings(load_config(ROOT, scale="smoke")).rollout("base", "spin")
    assert settings.sampling is not None
    sampling = {"window": WINDOW, "keyframe_density": DENSITY, "steps": 2}
    return settings.model_copy(
        update={
            "frames": FRAMES,
            "clips": settings.clips.model_copy(update={"resolution": SIZE}),
            "sampling": settings.sampling.model_copy(update=sampling),
        }
    )


def rollout(
    variant: LoadedVariant,
    clips: Path,
    parts: Path,
    job: RolloutJob,
    keyframes: dict[str, Any],
    interpolation: dict[str, Any],
) -> np.ndarray:
    """Frames (N, T, S, S, 3) with these schemes, which go through the configuration."""
    checked = TypeAdapter[Guidance](Guidance)
    guidance = {
        "keyframes": checked.validate_python(keyframes),
        "interpolation": checked.validate_python(interpolation),
    }
    assert job.sampling is not None
    settings = job.model_copy(update={"sampling": job.sampling.model_copy(update=guidance)})
    frames, _ = run_protocol(
        variant, clips, settings, batch=2, parts=parts, progress=lambda stages, **_: stages
    )
    return frames.astype(int)


@pytest.fixture(scope="module")
def plain(
    variant: LoadedVariant, clips: Path, job: RolloutJob, tmp_path_factory: pytest.TempPathFactory
) -> np.ndarray:
    return rollout(variant, clips, tmp_path_factory.mktemp("plain"), job, PLAIN, PLAIN)


def difference(one: np.ndarray, other: np.ndarray, frames: list[int]) -> int:
    return int(np.abs(one[:, frames] - other[:, frames]).max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_scheme_makes_the_keyframes(
    case: dict[str, Any],
    variant: LoadedVariant,
    clips: Path,
    job: RolloutJob,
    plain: np.ndarray,
    tmp_path: Path,
) -> None:
    made = rollout(variant, clips, tmp_path, job, case, PLAIN)
    assert difference(made, plain, [0]) == 0
    assert (difference(made, plain, KEYFRAMES) > 1) == (case != PLAIN)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_scheme_makes_the_frames_between_and_leaves_the_keyframes(
    case: dict[str, Any],
    variant: LoadedVariant,
    clips: Path,
    job: RolloutJob,
    plain: np.ndarray,
    tmp_path: Path,
) -> None:
    made = rollout(variant, clips, tmp_path, job, PLAIN, case)
    assert difference(made, plain, [0, *KEYFRAMES]) == 0
    assert (difference(made, plain, BETWEEN) > 1) == (case != PLAIN)


def test_schemes_differ_from_each_other(
    variant: LoadedVariant, clips: Path, job: RolloutJob, tmp_path: Path
) -> None:
    made = [rollout(variant, clips, tmp_path / str(i), job, c, PLAIN) for i, c in enumerate(CASES)]
    for i, one in enumerate(made):
        for other in made[:i]:
            assert difference(one, other, KEYFRAMES) > 1
