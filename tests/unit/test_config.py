"""The configuration: what is refused, what each scale is, and which settings reach which job."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml

from geomem.config import Config, load_config
from geomem.diffusion.plans import plan_rollout
from geomem.formats import InputError, digest
from geomem.formats.teachers import teacher_config
from geomem.housekeeping import SCHEMA
from geomem.models.uvit import UVIT_RE10K, UViT3DPose
from geomem.models.vggt import VGGT

ROOT = Path(__file__).parents[2]
SCALES = sorted(path.stem for path in (ROOT / "config" / "scales").glob("*.yaml"))
SMOKE = "config/scales/smoke.yaml"
EXPERIMENTS = "config/experiments.yaml"
GONE = object()

Edit = Callable[..., Path]


@pytest.fixture
def edit(tmp_path: Path) -> Edit:
    """Return a function that copies the configuration, sets one value and returns the root."""

    def run(file: str, keys: str, value: Any) -> Path:
        shutil.copytree(ROOT / "config", tmp_path / "config", dirs_exist_ok=True)
        content = yaml.safe_load((tmp_path / file).read_text())
        place = content
        *path, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
        for key in path:
            place = place[key]
        if value is GONE:
            del place[last]
        else:
            place[last] = value
        (tmp_path / file).write_text(yaml.safe_dump(content))
        return tmp_path

    return run


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "keys", "value", "told"),
    [
        (SMOKE, "resolutions", 64, [SMOKE, "resolutions", "64", "not permitted"]),
        (SMOKE, "resolution", 0, [SMOKE, "resolution", "0", "greater than 0"]),
        (SMOKE, "resolution", GONE, [SMOKE, "resolution", "required"]),
        (SMOKE, "splits.train.dataset", "room", ["splits.train.dataset", "'room'", "rooms"]),
        (SMOKE, "splits.train.role", "training", ["role", "'training'", "'train', 'validation'"]),
        (SMOKE, "splits.train.shards", 7, ["splits.train", "shards (7) exceed clips (6)"]),
        (SMOKE, "plans.memory.split", "tra1n", ["plans.memory.split", "'tra1n'", "train"]),
        (SMOKE, "plans.train.strides", [1, 9], ["plans.train", "stride 9", "28 frames", "16"]),
        (SMOKE, "plans.train.flip", 1.5, ["plans.train.flip", "1.5", "less than or equal to 1"]),
        (SMOKE, "recipes.base.batch", 8, ["variants.base", "4 steps of 8", "8 windows"]),
        (SMOKE, "recipes.base.accumulation", 3, ["recipes.base", "3 does not divide batch 2"]),
        (SMOKE, "recipes.base.decay", "cosin", ["recipes.base.decay", "'cosin'", "'cosine'"]),
        (SMOKE, "model.block_dropouts", [0.0], ["model", "need 3 entries"]),
        (
            SMOKE,
            "rollouts.protocols.spin.split",
            "spins",
            ["protocols.spin.split", "'spins'", "spin"],
        ),
        (SMOKE, "rollouts.context", 3, ["rollouts.protocols", "context must be in [1, 2]", "3"]),
        (SMOKE, "rollouts.keyframes.scheme", "stable", [SMOKE, "rollouts.keyframes", "'stable'"]),
        (SMOKE, "rollouts.keyframes.scheme", GONE, ["rollouts.keyframes", "'scheme'"]),
        (SMOKE, "rollouts.keyframes.guidance_scale", GONE, ["guidance_scale", "required"]),
        (SMOKE, "rollouts.keyframes.guidance_scale", -1, ["guidance_scale = -1", "equal to 0"]),
        (SMOKE, "rollouts.keyframes.stabilization_level", 2, ["stabilization_level = 2", "to 1"]),
        (SMOKE, "rollouts.keyframes.freq_scale", 0.5, ["freq_scale = 0.5", "not permitted"]),
        (SMOKE, "rollouts.interpolation.guidance_scale", 2, ["guidance_scale = 2", "permitted"]),
        (SMOKE, "rollouts.memory_guidance", -0.5, ["rollouts.memory_guidance = -0.5", "to 0"]),
        (EXPERIMENTS, "variants.memory_1.memory.guidance", -1, ["memory.guidance = -1", "to 0"]),
        (SMOKE, "teacher.train_split", "trains", ["teacher.train_split", "'trains'", "train"]),
        (SMOKE, "features.basis_plan", "mem", ["features.basis_plan", "'mem'", "memory"]),
        (SMOKE, "leave_out", ["memory_9"], ["leave_out", "'memory_9'", "memory_4"]),
        (SMOKE, "leave_out", ["base"], ["leave_out", "need ['base']"]),
        (EXPERIMENTS, "variants.splat.floor", "flat", ["variants.splat.floor = 'flat'", "'splat'"]),
        (EXPERIMENTS, "variants.splat.plan", "memory", ["floor: splat", "alone"]),
        (EXPERIMENTS, "variants.splat.memory", GONE, ["floor: splat", "alone"]),
        (EXPERIMENTS, "variants.splat.memory.frames", 0, ["splat", "at least one frame"]),
        (EXPERIMENTS, "tables.main_table.reference", "splat", ["main_table", "splat is a floor"]),
        (EXPERIMENTS, "variants.base.plan", "trains", ["variants.base.plan", "'trains'", "train"]),
        (EXPERIMENTS, "variants.memory_1.initial", GONE, [EXPERIMENTS, "memory_1", "initial"]),
        (EXPERIMENTS, "variants.memory_1.plan", "train", ["memory_1", "train has no memory"]),
        (EXPERIMENTS, "variants.memory_2.initial", "memory_1", ["memory_1 has a memory branch"]),
        (EXPERIMENTS, "variants.base.recipe", GONE, ["variants.base", "needs `plan` and `recipe`"]),
        (EXPERIMENTS, "variants.best.plan", "train", ["variants.best", "leave out all other keys"]),
        (EXPERIMENTS, "variants.best.best_of.among", ["memory_1"], ["memory_1 is not a trained"]),
        (EXPERIMENTS, "variants.best.best_of.protocol", "walks", ["best.protocol", "'walks'"]),
        (
            EXPERIMENTS,
            "variants.best.best_of.criteria",
            [{"metric": "kernel_distance", "better": "lower"}],
            ["best_of.criteria", "kernel_distance is of a set", "clip by clip"],
        ),
        (
            EXPERIMENTS,
            "variants.repa.alignment.frames",
            9,
            ["repa.alignment.frames: 9"],
        ),
        (EXPERIMENTS, "main", ["table_9"], ["main", "'table_9'", "ablation_table2"]),
        (SMOKE, "candidates", {"best": ["nobody"]}, ["best.among", "'nobody'", "base"]),
        (SMOKE, "candidates", {"bset": ["base"]}, ["candidates", "'bset'", "best"]),
        (SMOKE, "plans.tune.frames", 5, ["best.among", "windows of different lengths", "5"]),
        (SMOKE, "rollouts.protocols.spin.frames", 99, ["protocols.spin: 99 frames", "16"]),
        (
            EXPERIMENTS,
            "tables.ablation_table2.reference",
            "bas",
            ["tables.ablation_table2", "reference", "'bas'"],
        ),
        ("config/config.yaml", "trackers", {}, ["config/config.yaml", "trackers", "not permitted"]),
        ("config/datasets/rooms.yaml", "horizontal_fov", 300, ["rooms.horizontal_fov", "300"]),
        ("config/datasets/realestate10k.yaml", "archive", "", ["realestate10k", "archive"]),
    ],
)
def test_a_mistake_is_told_with_key_value_and_expectation(
    file: str, keys: str, value: Any, told: list[str], edit: Edit
) -> None:
    root = edit(file, keys, value)
    with pytest.raises(InputError) as caught:
        load_config(root, scale="smoke")
    for word in told:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "weights", "told"),
    [
        ([[0]], [1.0, 0.5], "1 hist_subsequences need as many hist_weights, not 2"),
        ([], [], "at least 1 item"),
        ([[0], []], [1.0, 0.5], "at least 1 item"),
        ([[0]], [float("nan")], "finite number"),
        ([[0.5]], [1.0], "integer"),
    ],
)
def test_temporal_guidance_needs_a_weight_for_each_part_of_the_history(
    parts: list[list[int]], weights: list[float], told: str, edit: Edit
) -> None:
    wrong = {"scheme": "temporal", "hist_subsequences": parts, "hist_weights": weights}
    with pytest.raises(InputError, match=r"rollouts\.interpolation.*" + told):
        load_config(edit(SMOKE, "rollouts.interpolation", wrong), scale="smoke")


@pytest.mark.parametrize(
    ("file", "keys", "variant"),
    [
        (SMOKE, "rollouts.memory_guidance", "memory_empty"),
        (EXPERIMENTS, "variants.memory_2.memory.guidance", "memory_2"),
    ],
)
@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_guidance_on_the_memory_needs_training_without_it(
    file: str, keys: str, variant: str, scale: float, edit: Edit
) -> None:
    root = edit(file, keys, scale)
    load_config(root, scale="smoke")
    content = yaml.safe_load((root / SMOKE).read_text())
    content["memory"]["dropout"] = 0.0
    (root / SMOKE).write_text(yaml.safe_dump(content))
    told = rf"^[^\n]*variants\.{variant}: guidance {scale} on the memory needs memory\.dropout"
    with pytest.raises(InputError, match=told):
        load_config(root, scale="smoke")


def test_without_guidance_on_it_the_memory_is_always_there_in_training(edit: Edit) -> None:
    config = load_config(edit(SMOKE, "memory.dropout", 0.0), scale="smoke")
    assert config.rollout_settings("memory_1", "spin")["memory"]["guidance"] == 1.0


def test_a_variant_overrides_the_guidance_on_its_memory(edit: Edit) -> None:
    root = edit(EXPERIMENTS, "variants.memory_1.memory.guidance", 0.5)
    content = yaml.safe_load((root / SMOKE).read_text())
    content["rollouts"]["memory_guidance"] = 2.0
    (root / SMOKE).write_text(yaml.safe_dump(content))
    config = load_config(root, scale="smoke")
    scales = [config.rollout_settings(f"memory_{k}", "spin")["memory"]["guidance"] for k in (1, 2)]
    assert scales == [0.5, 2.0]
    assert config.rollout_settings("base", "spin")["memory"] is None


def test_several_mistakes_are_told_a_line_each(edit: Edit) -> None:
    edit(SMOKE, "resolution", -1)
    root = edit(EXPERIMENTS, "variants.base.recip", "x")
    shutil.copy(ROOT / EXPERIMENTS, root / EXPERIMENTS)
    content = yaml.safe_load((root / SMOKE).read_text())
    content |= {"resolution": -1, "sedes": [1]}
    (root / SMOKE).write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as caught:
        load_config(root, scale="smoke")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "resolution = -1" in lines[0] and "sedes" in lines[1]


def test_missing_and_broken_files_are_named(edit: Edit) -> None:
    root = edit(SMOKE, "resolution", 32)
    with pytest.raises(InputError, match=r"scales/huge\.yaml is missing; .*'smoke', 'tiny'"):
        load_config(root, scale="huge")
    (root / SMOKE).write_text("a: [1,\nb: {")
    with pytest.raises(InputError, match=r"smoke\.yaml is not YAML"):
        load_config(root, scale="smoke")


def test_true_depth_needs_an_embedded_world(edit: Edit) -> None:
    root = edit("config/scales/paper.yaml", "leave_out", GONE)
    with pytest.raises(InputError, match=r"memory_4_true_depth: realestate10k has no true depth"):
        load_config(root, scale="paper")


def test_left_out_variants_are_gone_from_tables_and_figures() -> None:
    config, whole = load_config(ROOT, scale="paper"), load_config(ROOT, scale="tiny")
    gone = set(whole.variants) - set(config.variants)
    assert gone == {"memory_4_true_depth", "splat_true_depth"}
    for before, after in (
        (whole.tables["ablation_table2"], config.tables["ablation_table2"]),
        (whole.figures["qualitative"], config.figures["qualitative"]),
    ):
        assert [r for r in before.rows if r.variant not in gone] == list(after.rows)
        assert len(after.rows) < len(before.rows)


# --- the scales -------------------------------------------------------------------------------


def test_the_scales_that_the_project_promises_are_there() -> None:
    assert {"smoke", "tiny", "small", "paper"} <= set(SCALES)


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_fits_together(scale: str) -> None:
    config = load_config(ROOT, scale=scale)
    settings = config.settings
    for name, protocols in config.runs().items():
        for protocol in protocols if name not in config.floors else ():
            plan_rollout(
                config.frames_of(protocol),
                window=config.window_of(name),
                keyframe_density=config.keyframe_density_of(name, protocol),
                context=settings.rollouts.context,
            )
    shown = {column.protocol for table in config.tables.values() for column in table.columns}
    for protocol in shown:
        assert settings.splits[settings.rollouts.protocols[protocol].split].role == "test"
    deciding = config.variants["best"].best_of
    assert deciding is not None
    chosen_on = settings.rollouts.protocols[deciding.protocol].split
    assert settings.splits[chosen_on].role == "validation"
    stages = {"clips", "features", "training", "rollouts", "scores", "paper"}
    assert stages <= settings.resources.keys()
    assert settings.splits[settings.teacher.validation_split].dataset == "rooms"
    assert settings.features.layer < teacher_config(settings.teacher.architecture).depth
    divisor = settings.model.patch_size * 2 ** (len(settings.model.channels) - 1)
    assert settings.resolution % divisor == 0


def test_a_pick_is_made_from_what_the_scale_leaves() -> None:
    tiny, small = (load_config(ROOT, scale=scale) for scale in ("tiny", "small"))
    assert tiny.candidates_of("best") == tiny.starts_of("best") == ("base",)
    assert small.candidates_of("best") == ("base", "repa", "tuned", "tuned_repa")
    assert "validation" in small.runs()["repa"] and "validation" not in tiny.runs()["base"]
    assert small.window_of("memory_1") == small.settings.plans["train"].frames


def test_the_main_job_is_a_part_of_the_study() -> None:
    study, main = load_config(ROOT, scale="tiny"), load_config(ROOT, scale="tiny", main_job=True)
    assert set(main.runs()) < set(study.runs())
    assert set(main.tables) == {"ablation_table2"}
    for name, protocols in main.runs().items():
        assert set(protocols) <= set(study.runs()[name])


def test_videos_that_fit_a_window_are_made_at_once(edit: Edit) -> None:
    root = edit(SMOKE, "rollouts.protocols.spin.frames", 4)
    content = yaml.safe_load((root / EXPERIMENTS).read_text())
    content["figures"] = {}
    content["main"] = []
    (root / EXPERIMENTS).write_text(yaml.safe_dump(content))
    config = load_config(root, scale="smoke")
    settings = config.rollout_settings("base", "spin")
    assert (settings["frames"], settings["window"], settings["keyframe_density"]) == (4, 4, 1.0)
    assert config.rollout_settings("base", "out_and_back")["keyframe_density"] == 0.25


@pytest.mark.parametrize("scale", SCALES)
def test_the_files_fit_the_published_schema_and_a_typo_does_not(scale: str) -> None:
    schema = json.loads((ROOT / SCHEMA).read_text())
    config = ROOT / "config"
    content = {
        **yaml.safe_load((config / "config.yaml").read_text()),
        **yaml.safe_load((config / "experiments.yaml").read_text()),
        "scale": scale,
        "settings": yaml.safe_load((config / "scales" / f"{scale}.yaml").read_text()),
        "datasets": {
            path.stem: yaml.safe_load(path.read_text())
            for path in (config / "datasets").glob("*.yaml")
        },
    }
    jsonschema.validate(content, schema)
    content["settings"]["rollouts"]["sampling_step"] = 3
    with pytest.raises(jsonschema.ValidationError, match="sampling_step"):
        jsonschema.validate(content, schema)


def test_small_models_share_the_tracked_teacher() -> None:
    teachers = [load_config(ROOT, scale=scale).settings.teacher for scale in ("smoke", "small")]
    tracked = load_config(ROOT, scale="tiny").settings.teacher
    for teacher in teachers:
        assert teacher.architecture == tracked.architecture
        assert (teacher.name, teacher.weights) == (tracked.name, tracked.weights)
        assert teacher.sha256 == tracked.sha256


# --- the paper's sizes ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper() -> Config:
    return load_config(ROOT, scale="paper")


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_paper_model_is_the_published_one_and_runs(paper: Config) -> None:
    sizes = paper.settings.model.model_dump()
    assert {name: sizes[name] for name in UVIT_RE10K} == UVIT_RE10K
    with torch.device("meta"):
        model = UViT3DPose(**sizes).eval()
        x = torch.empty(1, paper.window_of("base"), 3, 256, 256)
        rays = torch.empty(1, x.shape[1], 180, 256, 256)
        v, states = model(x, torch.empty(x.shape[:2]), rays, return_states=True)
    assert parameters(model) == 458_818_051
    assert v.shape == x.shape
    # the state that 3D-REPA aligns (METHOD 5)
    assert states[2].shape == (1, 16, 576, 32, 32)


def test_the_paper_teacher_is_vggt_1b_without_its_tracker(paper: Config) -> None:
    published = json.loads((ROOT / "tests/fixtures/vggt_1b_state_dict_keys.json").read_text())
    tracker = sum(
        torch.Size(shape).numel()
        for name, shape in published["keys"].items()
        if name.startswith("track_head.")
    )
    with torch.device("meta"):
        teacher = VGGT(teacher_config(paper.settings.teacher.architecture))
    assert published["num_params"] == 1_256_537_516
    assert parameters(teacher) == 1_256_537_516 - tracker


def test_the_paper_rollout_is_the_published_one(paper: Config) -> None:
    rollouts, splits = paper.settings.rollouts, paper.settings.splits
    assert (splits["walk"].dataset, splits["walk"].clips) == ("realestate10k", 100)
    assert {paper.frames_of(name) for name in ("walk_long", "spin", "out_and_back")} == {256}
    plan = plan_rollout(
        256, window=paper.window_of("base"), keyframe_density=rollouts.keyframe_density, context=1
    )
    assert len(plan.keyframe_windows) == 1
    assert len(plan.keyframe_windows[0].frames) == 16
    assert rollouts.sampling_steps == 50


# --- which settings reach which job -----------------------------------------------------------


def digests(config: Config) -> dict[str, str]:
    """The digest of every job's settings, by job."""
    variants, scale = config.variants, config.settings
    picked = [name for name in variants if variants[name].best_of]
    trained = [name for name in variants if variants[name].trained]
    jobs: dict[str, Any] = {
        **{f"clips {name}": config.clips_settings(name) for name in scale.splits},
        **{f"plan {name}": config.plan_settings(name) for name in scale.plans},
        "teacher": config.teacher_settings(),
        **{f"features {name}": config.features_settings(name) for name in scale.plans},
        **{f"choice {name}": config.choice_settings(name) for name in picked},
        **{f"training {name}": config.training_settings(name, 0) for name in trained},
        **{
            f"rollout {name} {protocol}": config.rollout_settings(name, protocol)
            for name in variants
            for protocol in scale.rollouts.protocols
        },
        **{f"scores {name}": config.scores_settings(name) for name in scale.rollouts.protocols},
        **{f"table {name}": config.table_settings(name) for name in config.tables},
        **{f"figure {name}": config.figure_settings(name) for name in config.figures},
    }
    return {job: digest(settings) for job, settings in jobs.items()}


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
            {"plan train", "features train", "training base", "training repa"},
        ),
        (SMOKE, "candidates", {"best": ["base"]}, {"choice best"}),
        (SMOKE, "memory.dropout", 0.5, {"training memory"}),
        (SMOKE, "memory.budget", 99, {"training memory", "rollout memory", "rollout splat"}),
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
    made = [config.training_settings(name, seed) for name in trained for seed in (0, 1)]
    assert len({digest(settings) for settings in made}) == len(made)
