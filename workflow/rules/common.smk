"""The checked configuration, paths, and what each job asks for; the only logic of the workflow."""

from importlib import import_module
from pathlib import Path
from shutil import which

from snakemake.exceptions import WorkflowError

from geomem.config import load_config
from geomem.formats import InputError, digest
from geomem.verification import restore

try:
    CONFIG = load_config(scale=config.get("scale"))
except InputError as error:
    raise WorkflowError(str(error)) from None

SCALE = CONFIG.scale
SETTINGS = CONFIG.settings
DATA, RESULTS = f"data/{SCALE}", f"results/{SCALE}"
EMBEDDED = [name for name, dataset in CONFIG.datasets.items() if not dataset.archive]
DOWNLOADED = [name for name, dataset in CONFIG.datasets.items() if dataset.archive]
PROTOCOLS = SETTINGS.rollouts.protocols  # protocol -> split
TEACHER = f"{DATA}/features/{SETTINGS.teacher.name}"
WEIGHTS = SETTINGS.teacher.weights.format(scale=SCALE)
MIRROR = f"logs/mirror_runs/{SCALE}.json"
JOB = f"--scale {SCALE}"
ENVIRONMENT = str(Path(workflow.basedir) / "environment.yml")
PACKAGE = Path(workflow.basedir) / "src/geomem"


wildcard_constraints:
    variant="|".join(CONFIG.variants),
    protocol="|".join(SETTINGS.rollouts.protocols),
    split="|".join(SETTINGS.splits),
    plan="|".join(SETTINGS.plans),
    table="|".join(CONFIG.tables),
    figure="|".join(CONFIG.figures),
    kind=r"window|memory\d+",
    seed=r"\d+",
    number=r"\d+",


def one_of(names):
    """Wildcard constraint for some names; matches nothing where there are none."""
    return "|".join(names) or "(?!)"


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


def split_folder(shards):
    """Folder of the split that shard indices belong to."""
    return str(Path(shards[0]).parents[1])


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


def records_of(variants):
    """Checkpoint records of variants and of those they start from, with every seed."""
    wanted = dict.fromkeys(v for name in variants for v in (backbone_of(name), name))
    return [
        f"{checkpoint_folder(v, seed)}/checkpoint.json" for v in wanted for seed in SETTINGS.seeds
    ]


def checkpoints():
    """Checkpoint records of everything that is shown."""
    return records_of(CONFIG.shown_variants())


def scores_of(variants):
    """Score files of variants, with every seed and protocol."""
    return [
        f"{RESULTS}/scores/{variant}/seed{seed}/{protocol}.json"
        for variant in dict.fromkeys(variants)
        for seed in SETTINGS.seeds
        for protocol in PROTOCOLS
    ]


def figure_inputs(wildcards):
    """Everything that a figure reads, by name."""
    figure = CONFIG.figures[wildcards.figure]
    variants = [row.variant for row in figure.rows]
    if figure.kind == "curves":
        return {"scores": scores_of(variants), "checkpoints": records_of(variants)}
    folders = [
        f"{RESULTS}/rollouts/{variant}/seed{SETTINGS.seeds[0]}/{figure.protocol}"
        for variant in variants
    ]
    return {
        "clips": clips(PROTOCOLS[figure.protocol]),
        "records": [f"{folder}/rollout.json" for folder in folders],
        "rgb": [f"{folder}/rgb.npy" for folder in folders],
    }


def figure_flags(wildcards, input):
    """The options that name those inputs."""
    figure = CONFIG.figures[wildcards.figure]
    if figure.kind == "curves":
        return f"--scores {input.scores} --checkpoints {input.checkpoints}"
    folders = " ".join(str(Path(path).parent) for path in input.records)
    return f"--clips {clips_folder(PROTOCOLS[figure.protocol])} --rollouts {folders}"


def paper_products():
    """Tables, figures and, where LaTeX is installed, the PDF."""
    tables = [
        f"results/{table}.{kind}"
        for table in [*CONFIG.tables, "teacher_table"]
        for kind in ("csv", "tex")
    ]
    figures = [
        f"results/figures/{figure}.{kind}" for figure in CONFIG.figures for kind in ("pdf", "png")
    ]
    return tables + figures + (["paper/main.pdf"] if which("latexmk") else [])


# A fresh clone's time stamps say nothing; what the results record about themselves does.
if workflow.is_main_process and not Path(".snakemake/metadata").exists():
    restore(CONFIG, Path("."))
