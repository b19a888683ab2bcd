"""The checked configuration, paths, and what each job asks for; the only logic of the workflow."""

from importlib import import_module
from pathlib import Path
from shutil import which

from snakemake.exceptions import WorkflowError

from geomem.config import load_config
from geomem.formats import InputError, digest

try:
    CONFIG = load_config(scale=config.get("scale"))
except InputError as error:
    raise WorkflowError(str(error)) from None

SCALE = CONFIG.scale
SETTINGS = CONFIG.settings
DATA, RESULTS = f"data/{SCALE}", f"results/{SCALE}"
PROTOCOLS = SETTINGS.rollouts.protocols  # protocol -> split
TEACHER = f"{DATA}/features/{SETTINGS.teacher.name}"
WEIGHTS = SETTINGS.teacher.weights.format(scale=SCALE)
MIRROR = f"logs/mirror_runs/{SCALE}.json"
JOB = f"--scale {SCALE}"


wildcard_constraints:
    variant="|".join(CONFIG.variants),
    protocol="|".join(SETTINGS.rollouts.protocols),
    split="|".join(SETTINGS.splits),
    plan="|".join(SETTINGS.plans),
    table="|".join(CONFIG.tables),
    kind=r"window|memory\d+",
    seed=r"\d+",
    number=r"\d+",


def asks(stage, detail=""):
    """What a job of a stage asks for; `stage.detail` in the configuration beats `stage`."""
    resources = SETTINGS.resources
    return resources.get(f"{stage}.{detail}", resources[stage])


def stage_version(stage):
    """A stage's version: edits in imported code are invisible to Snakemake, this number is not."""
    return import_module(f"geomem.{stage}.version").VERSION


def clips_folder(split):
    """Folder of a split's shards."""
    return f"{DATA}/clips/{SETTINGS.splits[split].dataset}/{split}"


def clips(split):
    """Indices of all shards of a split."""
    shards = range(SETTINGS.splits[split].shards)
    return [f"{clips_folder(split)}/shard-{shard:03d}/index.json" for shard in shards]


def checkpoint_folder(variant, seed):
    """Folder of a trained variant."""
    return f"{RESULTS}/checkpoints/{variant}/seed{seed}"


def features(plan, kind):
    """Parts of a feature cache."""
    parts = range(SETTINGS.features.shards)
    return [f"{TEACHER}/{plan}/{kind}/part-{part:03d}.json" for part in parts]


def backbone_of(variant):
    """The variant whose checkpoint holds the backbone."""
    chosen = CONFIG.variants[variant]
    return chosen.initial if chosen.memory else variant


def training_inputs(wildcards):
    """Everything that a variant's training reads, by name."""
    variant = CONFIG.variants[wildcards.variant]
    split = SETTINGS.plans[variant.plan].split
    inputs = {"plan": f"{DATA}/plans/{variant.plan}.json", "clips": clips(split)}
    if variant.initial:
        folder = checkpoint_folder(variant.initial, wildcards.seed)
        inputs["initial"] = f"{folder}/checkpoint.json"
    if variant.memory:
        inputs["memory_features"] = features(variant.plan, f"memory{variant.memory.frames}")
    if variant.alignment:
        inputs["window_features"] = features(variant.plan, "window")
    return inputs


def training_flags(wildcards, input):
    """The options that name those inputs; folders, since stages open whole folders."""
    variant = CONFIG.variants[wildcards.variant]
    flags = f"--clips {clips_folder(SETTINGS.plans[variant.plan].split)} --plan {input.plan}"
    for name in ("initial", "memory_features", "window_features"):
        if hasattr(input, name):
            first = input[name] if isinstance(input[name], str) else input[name][0]
            flags += f" --{name.replace('_', '-')} {Path(first).parent}"
    return flags


def rollout_inputs(wildcards):
    """Everything that a rollout reads, by name."""
    folder = checkpoint_folder(wildcards.variant, wildcards.seed)
    base = checkpoint_folder(backbone_of(wildcards.variant), wildcards.seed)
    inputs = {
        "clips": clips(SETTINGS.rollouts.protocols[wildcards.protocol]),
        "checkpoint": f"{folder}/checkpoint.json",
        "base": f"{base}/checkpoint.json",
    }
    if CONFIG.variants[wildcards.variant].memory:
        inputs |= {"weights": WEIGHTS, "basis": f"{TEACHER}/basis.safetensors"}
    return inputs


def rollout_flags(wildcards, input):
    """The options that name those inputs."""
    split = SETTINGS.rollouts.protocols[wildcards.protocol]
    flags = f"--clips {clips_folder(split)} --checkpoint {Path(input.checkpoint).parent}"
    flags += f" --base {Path(input.base).parent}"
    if hasattr(input, "weights"):
        flags += f" --weights {input.weights} --basis {input.basis}"
    return flags


def checkpoints():
    """Records of every variant and seed that a table shows, and of those they start from."""
    shown = {row.variant for table in CONFIG.tables.values() for row in table.rows}
    while grown := {CONFIG.variants[v].initial for v in shown} - shown - {None}:
        shown |= grown
    return [
        f"{checkpoint_folder(variant, seed)}/checkpoint.json"
        for variant in CONFIG.variants
        if variant in shown
        for seed in SETTINGS.seeds
    ]
