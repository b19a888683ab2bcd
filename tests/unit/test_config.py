"""The configuration: what is refused, what each scale is, and which settings reach which job."""

import json
import shutil
from typing import Any

import jsonschema
import pytest
import torch
import yaml

from conftest import EXPERIMENTS, GONE, ROOT, SMOKE, Edit
from geomem.commands.housekeeping import SCHEMA
from geomem.config import Config, JobSettings, load_config
from geomem.config.load import BASE, merged
from geomem.diffusion.rollout_plans import plan_rollout
from geomem.errors import InputError
from geomem.formats import sha256_file
from geomem.formats.teacher_sizes import teacher_config
from geomem.networks.uvit.model import UVIT_RE10K, UViT3DPose
from geomem.networks.vggt.model import VGGT
from geomem.versions import STAGES

SCALES = sorted(path.stem for path in (ROOT / "config" / "scales").glob("*.yaml"))

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
        (SMOKE, "methods.dfot.block_dropouts", [0.0], ["methods.dfot", "need 3 entries"]),
        (SMOKE, "methods.dfott", {}, ["methods.dfott", "method is none of", "dfot"]),
        (SMOKE, "methods.dfot.channel", 3, ["methods.dfot.channel = 3", "not permitted"]),
        (SMOKE, "resolution", 36, ["methods.", "resolution 36 is no multiple of 8"]),
        (SMOKE, "memory.kinds.explicit.budget", 0, ["kinds.explicit.budget = 0", "than 0"]),
        (SMOKE, "scores.families.frame", {}, ["families.frame", "none of", "frames"]),
        (SMOKE, "splits.spin.options.trajectories", {"spn": 1}, ["options.trajectories", "spn"]),
        (SMOKE, "splits.spin.options.moving", True, ["spin.options.moving = True", "permitted"]),
        (
            SMOKE,
            "rollouts.protocols.spin.split",
            "spins",
            ["protocols.spin.split", "'spins'", "spin"],
        ),
        (SMOKE, "rollouts.context", 16, ["rollouts.protocols", "above the 16 context frames"]),
        (SMOKE, "rollouts.protocols.spin.replay", 1, ["protocols.spin.replay", "less than 1"]),
        (SMOKE, "rollouts.protocols.spin.replay", 0.99, ["protocols.spin", "above the 16 context"]),
        (SMOKE, "rollouts.level_power", 0.0, ["rollouts.level_power", "greater than 0"]),
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
        (EXPERIMENTS, "variants.splat.method", "flat", ["splat.method = 'flat'", "'splat'"]),
        (EXPERIMENTS, "variants.splat.plan", "memory", ["method: splat", "alone"]),
        (EXPERIMENTS, "variants.splat.memory", GONE, ["method: splat", "alone"]),
        (EXPERIMENTS, "variants.splat.memory.frames", 0, ["splat", "at least one frame"]),
        (EXPERIMENTS, "tables.main_table.reference", "splat", ["main_table", "splat is a floor"]),
        (EXPERIMENTS, "variants.base.plan", "trains", ["variants.base.plan", "'trains'", "train"]),
        (EXPERIMENTS, "variants.memory.initial", GONE, [EXPERIMENTS, "memory", "initial"]),
        (EXPERIMENTS, "variants.memory.plan", "train", ["memory", "train has no memory"]),
        (EXPERIMENTS, "variants.memory_empty.initial", "memory", ["memory has a memory branch"]),
        (EXPERIMENTS, "variants.raw_4.memory.backbone", "frozen", ["raw_4", "has no branch"]),
        (EXPERIMENTS, "variants.raw_4.memory.guidance", 1.5, ["raw_4", "leave out `guidance`"]),
        (EXPERIMENTS, "variants.raw_4.memory.selection", "worldmem", ["not for", "kind raw"]),
        (EXPERIMENTS, "variants.worldmem.memory.backbone", "frozen", ["worldmem", "has no branch"]),
        (EXPERIMENTS, "variants.worldmem.memory.frames", 0, ["worldmem", "at least 1"]),
        (EXPERIMENTS, "variants.worldmem.memory", GONE, ["method: worldmem", "needs a `memory`"]),
        (EXPERIMENTS, "variants.worldmem.method", "dfot", ["dfot cannot read the bank"]),
        (EXPERIMENTS, "variants.raw_4.method", "worldmem", ["cannot read the frames"]),
        (EXPERIMENTS, "figures.qualitative.given", 9, ["given: 9", "9 frames to show"]),
        (EXPERIMENTS, "figures.qualitative.clip.over", "base", ["clip", "'base'", "of the rows"]),
        (EXPERIMENTS, "variants.base.recipe", GONE, ["variants.base", "needs `plan` and `recipe`"]),
        (EXPERIMENTS, "variants.best.plan", "train", ["variants.best", "leave out all other keys"]),
        (EXPERIMENTS, "variants.best.best_of.among", ["memory"], ["memory is not a trained"]),
        (EXPERIMENTS, "variants.best.best_of.protocol", "walks", ["best.protocol", "'walks'"]),
        (
            EXPERIMENTS,
            "variants.best.best_of.criteria",
            [{"metric": "kernel_distance"}],
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
        (SMOKE, "features.layer", 4, [f"{SMOKE}: features.layer: 4", "layers 0 to 3"]),
        ("config/base.yaml", "features.layer", 4, ["config/base.yaml: features.layer: 4"]),
        (SMOKE, "features.shards", 9, [SMOKE, "features.shards: 9", "8 windows of plan"]),
        (SMOKE, "resources.scores", GONE, [SMOKE, "resources: ['scores'] are missing"]),
        (SMOKE, "recipes.base.learning_rate", float("inf"), [SMOKE, "learning_rate = inf"]),
        (SMOKE, "teacher.architecture.embed_dimm", 4, ["teacher.architecture", "'embed_dimm'"]),
        (
            SMOKE,
            "teacher.architecture.embed_dim",
            97,
            ["architecture", "97 is not a multiple of the 4 heads"],
        ),
        (SMOKE, "teacher.architecture.num_heads", 0, ["architecture", "num_heads 0 is no size"]),
        (SMOKE, "teacher.architecture.depth", "many", ["architecture", "'many' is no size"]),
        (SMOKE, "teacher.architecture.dpt_layers", [0, 1, 2, 4], ["dpt_layers", "outside 0..3"]),
        (SMOKE, "methods.dfot.num_heads", 3, ["methods.dfot", "into 3 even heads"]),
        (SMOKE, "seeds", [0, 0], [SMOKE, "seeds", "none of them twice"]),
        (SMOKE, "seeds", [-1], [SMOKE, "seeds", "from 0 on"]),
        (SMOKE, "splits.a/b", {"dataset": "rooms", "clips": 2, "frames": 9}, ["splits.a/b"]),
        (EXPERIMENTS, "variants.a b; c", {"method": "repeat"}, [EXPERIMENTS, "a name is a"]),
        (EXPERIMENTS, "variants.repa.alignment.level", 99, [EXPERIMENTS, "level: 99", "shows 5"]),
        (EXPERIMENTS, "tables.main_table.caption", "Gr\xf6\xdfe", [EXPERIMENTS, "is not ASCII"]),
        (EXPERIMENTS, "figures.coverage.rows.0.label", "\u2192", ["coverage.rows.label", "ASCII"]),
        (EXPERIMENTS, "variants.base.initial", "tuned", [EXPERIMENTS, "in a circle"]),
        ("config/config.yaml", "trackers", {}, ["config/config.yaml", "trackers", "not permitted"]),
        ("config/datasets/rooms.yaml", "horizontal_fov", 300, ["rooms.horizontal_fov", "300"]),
        ("config/datasets/realestate10k.yaml", "archive", "", ["realestate10k", "archive"]),
        ("config/datasets/rooms.yaml", "source", "room", ["rooms.source = 'room'", "rooms_ood"]),
        ("config/datasets/rooms.yaml", "source", GONE, ["rooms", "required", "source"]),
        ("config/config.yaml", "plugins", ["no_such"], ["plugins: no_such", "PYTHONPATH"]),
        (EXPERIMENTS, "variants.memory_4.memory.kind", "map", ["memory.kind = 'map'", "explicit"]),
        (
            EXPERIMENTS,
            "variants.memory_4.memory.frames",
            [4, 2],
            ["(4, 2)", "smaller"],
        ),
        (EXPERIMENTS, "variants.splat.memory.kind", "implicit", ["splat cannot read the tokens"]),
        (EXPERIMENTS, "variants.repa.alignment.level", 9, ["level: 9", "shows 5 hidden states"]),
        (EXPERIMENTS, "variants.base.initial", "tuned", ["in a circle", "base"]),
        (EXPERIMENTS, "figures.coverage.metrics", ["contrast"], ["not known of every frame"]),
        (EXPERIMENTS, "tables.main_table.columns.0.metric", "pnsr", ["metric = 'pnsr'", "psnr"]),
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
        (SMOKE, "rollouts.memory_guidance", "memory_1"),
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


def test_the_dropout_that_counts_is_that_of_the_variant_that_was_trained(edit: Edit) -> None:
    edit(SMOKE, "rollouts.memory_guidance", 2.0)
    root = edit(EXPERIMENTS, "variants.memory.memory.dropout", 0.0)
    content = yaml.safe_load((ROOT / SMOKE).read_text())
    content["rollouts"]["memory_guidance"] = 2.0
    (root / SMOKE).write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"variants\.memory\w*: guidance 2\.0"):
        load_config(root, scale="smoke")
    root = edit(EXPERIMENTS, "variants.memory_4.memory.dropout", 0.5)
    with pytest.raises(InputError, match=r"memory_4: memory\.dropout is said where the branch"):
        load_config(root, scale="smoke")


def test_without_guidance_on_it_the_memory_is_always_there_in_training(edit: Edit) -> None:
    config = load_config(edit(SMOKE, "memory.dropout", 0.0), scale="smoke")
    sampling = JobSettings(config).rollout("memory_1", "spin").sampling
    assert sampling is not None and sampling.memory_guidance == 1.0


def test_a_variant_overrides_the_guidance_on_its_memory(edit: Edit) -> None:
    root = edit(EXPERIMENTS, "variants.memory_1.memory.guidance", 0.5)
    content = yaml.safe_load((root / SMOKE).read_text())
    content["rollouts"]["memory_guidance"] = 2.0
    (root / SMOKE).write_text(yaml.safe_dump(content))
    jobs = JobSettings(load_config(root, scale="smoke"))
    made = {name: jobs.rollout(name, "spin") for name in ("memory_1", "memory_2", "base")}
    scales = {name: job.sampling and job.sampling.memory_guidance for name, job in made.items()}
    assert scales == {"memory_1": 0.5, "memory_2": 2.0, "base": None}
    assert made["base"].memory is None


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
    root = edit(EXPERIMENTS, "variants.memory.memory.geometry", "truth")
    with pytest.raises(InputError, match=r"memory: realestate10k has no true depth"):
        load_config(root, scale="paper")


def test_left_out_variants_are_gone_from_tables_and_figures(edit: Edit) -> None:
    left_out = yaml.safe_load((ROOT / SMOKE).read_text())["leave_out"]
    whole, root = (
        load_config(ROOT, scale="smoke"),
        edit(SMOKE, "leave_out", [*left_out, "memory_8"]),
    )
    config = load_config(root, scale="smoke")
    gone = set(whole.variants) - set(config.variants)
    assert gone == {"memory_8"}
    for before, after in (
        (whole.tables["ablation_table2_frames"], config.tables["ablation_table2_frames"]),
        (whole.figures["coverage"], config.figures["coverage"]),
    ):
        assert [r for r in before.rows if r.variant not in gone] == list(after.rows)
        assert len(after.rows) < len(before.rows)


# --- the scales -------------------------------------------------------------------------------


def test_the_scales_that_the_project_promises_are_there() -> None:
    assert {"smoke", "tiny", "small", "single", "paper"} <= set(SCALES)


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_fits_together(scale: str) -> None:
    config = load_config(ROOT, scale=scale)
    settings = config.settings
    for name, protocols in config.runs().items():
        for protocol in protocols if name not in config.floors else ():
            plan_rollout(config.frames_of(protocol), **config.windows_of(name, protocol))
    shown = {column.protocol for table in config.tables.values() for column in table.columns}
    for protocol in shown:
        assert settings.splits[settings.rollouts.protocols[protocol].split].role == "test"
    deciding = config.variants["best"].best_of
    assert deciding is not None
    chosen_on = settings.rollouts.protocols[deciding.protocol].split
    assert settings.splits[chosen_on].role == "validation"
    assert set(STAGES) <= settings.resources.keys()
    assert settings.splits[settings.teacher.validation_split].dataset.startswith("rooms")
    assert settings.features.layer < teacher_config(settings.teacher.architecture).depth


def test_a_pick_is_made_from_what_the_scale_leaves() -> None:
    tiny, small = (load_config(ROOT, scale=scale) for scale in ("tiny", "small"))
    assert tiny.candidates_of("best") == tiny.starts_of("best") == ("uvit_tiny",)
    assert small.candidates_of("best") == ("base", "repa", "tuned", "tuned_repa")
    assert "validation" in small.runs()["repa"] and "validation" not in tiny.runs()["uvit_tiny"]
    assert small.window_of("memory_1") == small.settings.plans["train"].frames


def test_the_main_job_is_a_part_of_the_study() -> None:
    study, main = load_config(ROOT, scale="tiny"), load_config(ROOT, scale="tiny", main_job=True)
    assert set(main.runs()) < set(study.runs())
    assert {"ablation_table2", "base_table"} < set(main.tables) < set(study.tables)
    for name, protocols in main.runs().items():
        assert set(protocols) <= set(study.runs()[name])


def test_videos_that_fit_a_window_are_made_at_once(edit: Edit) -> None:
    root = edit(SMOKE, "rollouts.protocols.spin.frames", 4)
    content = yaml.safe_load((root / EXPERIMENTS).read_text())
    content["figures"] = {}
    content["main"] = []
    (root / EXPERIMENTS).write_text(yaml.safe_dump(content))
    jobs = JobSettings(load_config(root, scale="smoke"))
    short, long = jobs.rollout("base", "spin"), jobs.rollout("base", "out_and_back")
    assert short.sampling is not None and long.sampling is not None
    assert (short.frames, short.sampling.window, short.sampling.keyframe_density) == (4, 4, 1.0)
    assert long.sampling.keyframe_density == 0.25


@pytest.mark.parametrize("scale", SCALES)
def test_the_files_fit_the_published_schema_and_a_typo_does_not(scale: str) -> None:
    schema = json.loads((ROOT / SCHEMA).read_text())
    config = ROOT / "config"
    content = {
        **yaml.safe_load((config / "config.yaml").read_text()),
        **yaml.safe_load((config / "experiments.yaml").read_text()),
        "scale": scale,
        "settings": merged(
            yaml.safe_load((config / BASE).read_text()),
            yaml.safe_load((config / "scales" / f"{scale}.yaml").read_text()),
        ),
        "datasets": {
            path.stem: yaml.safe_load(path.read_text())
            for path in (config / "datasets").glob("*.yaml")
        },
    }
    jsonschema.validate(content, schema)
    content["settings"]["rollouts"]["sampling_step"] = 3
    with pytest.raises(jsonschema.ValidationError, match="sampling_step"):
        jsonschema.validate(content, schema)


def test_a_scale_s_file_beats_the_base_key_by_key() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2], "f": {"g": 3}}
    own = {"a": {"c": {"d": 4}}, "e": [5], "f": {}, "h": 6}
    expected = {"a": {"b": 1, "c": {"d": 4}}, "e": [5], "f": {}, "h": 6}
    assert merged(base, own) == expected


def test_small_models_have_tracked_teachers_of_one_size() -> None:
    tiny, *others = (
        load_config(ROOT, scale=scale).settings.teacher for scale in ("tiny", "smoke", "small")
    )
    for teacher in (tiny, *others):
        assert teacher.architecture == tiny.architecture
        assert sha256_file(ROOT / teacher.weights) == teacher.sha256
    assert len({(teacher.name, teacher.weights) for teacher in others}) == 1


def test_a_replay_is_given_a_share_of_the_frames() -> None:
    config = load_config(ROOT, scale="tiny")
    assert config.context_of("spin") == config.settings.rollouts.context == 1
    assert config.context_of("spin_replay") == 0.75 * config.frames_of("spin_replay")
    jobs = JobSettings(config)
    assert jobs.rollout("memory_4", "spin_replay").context == 24
    assert jobs.scores("spin_replay", "frames").context == 24
    assert jobs.figure("per_frame_psnr").contexts["orbit"] == 1
    assert jobs.figure("qualitative").contexts == {"spin_replay": 24}


# --- the paper's sizes ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper() -> Config:
    return load_config(ROOT, scale="paper")


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_paper_model_is_the_published_one_and_runs(paper: Config) -> None:
    sizes = paper.method_settings("dfot").model_dump()
    assert {name: sizes[name] for name in UVIT_RE10K} == UVIT_RE10K
    with torch.device("meta"):
        model = UViT3DPose(**sizes).eval()
        x = torch.empty(1, paper.window_of("base"), 3, 256, 256)
        rays = torch.empty(1, x.shape[1], 180, 256, 256)
        v, states = model(x, torch.empty(x.shape[:2]), rays, return_states=True)
    assert parameters(model) == 458_818_051
    assert v.shape == x.shape
    # the state that 3D-REPA aligns
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


@pytest.mark.parametrize("name", ["teacher_table", "facts", "paper", "qualitative"])
def test_a_table_cannot_have_the_name_of_another_product(edit: Edit, name: str) -> None:
    rows = [{"variant": "base", "label": "base"}]
    columns = [{"protocol": "spin", "metric": "psnr"}]
    table = {"caption": "A.", "reference": "base", "rows": rows, "columns": columns}
    root = edit(EXPERIMENTS, f"tables.{name}", table)
    with pytest.raises(InputError, match=f"{name}: {name} is taken"):
        load_config(root)
