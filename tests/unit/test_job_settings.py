"""Which part of the configuration reaches which job's settings."""

from importlib import import_module
from typing import Any

import pytest

from conftest import EXPERIMENTS, ROOT, SMOKE, Edit
from geomem.config import Config, JobSettings, load_config
from geomem.metrics.registry import FAMILIES
from geomem.registry.strict import Strict


def digests(config: Config) -> dict[str, str]:
    """The digest of every job's settings, by job."""
    variants, scale, made = config.variants, config.settings, JobSettings(config)
    picked = [name for name in variants if variants[name].best_of]
    trained = [name for name in variants if variants[name].trained]
    jobs: dict[str, Strict] = {
        **{f"clips {name}": made.clips(name) for name in scale.splits},
        **{f"plan {name}": made.plan(name) for name in scale.plans},
        "teacher": made.teacher(),
        **{f"features {name}": made.features(name) for name in scale.plans},
        **{f"choice {name}": made.pick(name) for name in picked},
        **{f"training {name}": made.training(name, 0) for name in trained},
        **{
            f"rollout {name} {protocol}": made.rollout(name, protocol)
            for name in variants
            for protocol in scale.rollouts.protocols
        },
        **{
            f"scores {name} {family.name}": made.scores(name, family.name)
            for name in scale.rollouts.protocols
            for family in FAMILIES
        },
        **{f"table {name}": made.table(name) for name in config.tables},
        **{f"figure {name}": made.figure(name) for name in config.figures},
    }
    return {job: settings.digest for job, settings in jobs.items()}


@pytest.mark.parametrize(
    ("file", "keys", "value", "kinds"),
    [
        (EXPERIMENTS, "tables.ablation_table2.caption", "Another.", {"table"}),
        (SMOKE, "rollouts.sampling_steps", 3, {"rollout"}),
        (SMOKE, "scores.bootstrap", 50, {"table", "figure"}),
        (SMOKE, "recipes.base.learning_rate", 0.01, {"training base", "training repa"}),
        (
            SMOKE,
            "plans.train.seed",
            5,
            {"plan train", "features train", "training base", "training repa", "training maskflow"},
        ),
        (SMOKE, "candidates", {"best": ["base"]}, {"choice best"}),
        (SMOKE, "memory.dropout", 0.5, {"training memory"}),
        (
            SMOKE,
            "memory.kinds.explicit.budget",
            99,
            {"training memory", "rollout memory", "rollout splat"},
        ),
        (
            SMOKE,
            "memory.kinds.implicit",
            {"width": 32},
            {"training memory_4_i", "rollout memory_4_i"},
        ),
        (SMOKE, "scores.families", {"sets": {"stride": 2}}, {"scores"}),
        (SMOKE, "rollouts.memory_guidance", 2.0, {"rollout memory"}),
        (EXPERIMENTS, "variants.memory_4.memory.guidance", 2.0, {"rollout memory_4 "}),
        (SMOKE, "rollouts.keyframes.guidance_scale", 2.0, {"rollout"}),
        (SMOKE, "splits.validation.clips", 3, {"clips validation", "rollout"}),
        (SMOKE, "splits.spin.clips", 3, {"clips spin", "rollout"}),
        (SMOKE, "seeds", [0, 1], {"table", "figure"}),
        # none of these changes a result
        (SMOKE, "recipes.base.checkpoint_steps", 1, set()),
        (SMOKE, "recipes.base.workers", 3, set()),
        (SMOKE, "rollouts.batch", 1, set()),
        (SMOKE, "resources.training.mem_mb", 9999, set()),
        (SMOKE, "teacher.weights", "elsewhere.safetensors", set()),
        ("config/config.yaml", "tracking.uri", "http://tracking.example:5000", set()),
    ],
)
def test_a_change_reaches_only_the_jobs_that_read_it(
    file: str, keys: str, value: Any, kinds: set[str], edit: Edit
) -> None:
    before = digests(load_config(ROOT, scale="smoke"))
    after = digests(load_config(edit(file, keys, value), scale="smoke"))
    changed = {job for job in before if before[job] != after[job]}
    assert all(any(job.startswith(kind) for kind in kinds) for job in changed), changed
    for kind in kinds:
        assert any(job.startswith(kind) for job in changed), kind


def test_the_seed_and_the_variant_are_settings_of_a_training() -> None:
    config = load_config(ROOT, scale="smoke")
    trained = [name for name, variant in config.variants.items() if variant.trained]
    made = [JobSettings(config).training(name, seed) for name in trained for seed in (0, 1)]
    assert len({settings.digest for settings in made}) == len(made)


def test_scores_of_one_family_leave_the_others_alone() -> None:
    jobs = JobSettings(load_config(ROOT, scale="smoke"))
    assert len({jobs.scores("spin", family.name).digest for family in FAMILIES}) == len(
        FAMILIES.names()
    )


@pytest.mark.parametrize(
    ("stage", "words", "told"),
    [
        ("clips", "make x --split nope --number 000", "--split nope: scale tiny has none"),
        ("clips", "plan x --plan trian --clips y", "--plan trian: .*did you mean train?"),
        ("scores", "score x --rollout y --clips z --protocol spun --family frames", "mean spin?"),
        ("scores", "score x --rollout y --clips z --protocol spin --family none", "--family none"),
        ("features", "fit-basis x --plan none.json --clips y --weights z", "has no plan none"),
    ],
)
def test_names_that_the_scale_has_not_are_told_in_one_line(
    stage: str, words: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [stage, *words.split()])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=told):
        import_module(f"geomem.{stage}.__main__").main()
