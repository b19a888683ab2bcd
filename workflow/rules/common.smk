"""The checked configuration, paths, and what each job asks for; the only logic of the workflow."""

import sys
from importlib import import_module
from pathlib import Path
from shutil import which

from snakemake.exceptions import WorkflowError

from geomem import slurm
from geomem.config import REQUESTED, configured_scale, launcher, load_cluster, load_config
from geomem.formats import InputError, digest, read_json
from geomem.tracking import store_uri
from geomem.verification import restore

try:
    if config.get("only", "main") != "main":
        raise InputError(f"only={config['only']}: expected `only=main`, or leave it out for all")
    STUDY = load_config(scale=config.get("scale"))
    MAIN_JOB = "only" in config
    CONFIG = load_config(scale=config.get("scale"), main_job=True) if MAIN_JOB else STUDY
    CLUSTER = load_cluster()
    if workflow.is_main_process:  # a job's own process submits nothing
        CLUSTER = CLUSTER.on(slurm.partitions())
except InputError as error:
    raise WorkflowError(str(error)) from None

SCALE = CONFIG.scale
TRACKED = configured_scale()  # whose tables, figures and PDF lie in results/ and paper/ as well
SETTINGS = CONFIG.settings
DATA, RESULTS = f"data/{SCALE}", f"results/{SCALE}"
EMBEDDED = [name for name, dataset in CONFIG.datasets.items() if not dataset.archive]
DOWNLOADED = [name for name, dataset in CONFIG.datasets.items() if dataset.archive]
PROTOCOLS = SETTINGS.rollouts.protocols
RUNS = CONFIG.runs()  # variant -> protocols it is scored on
PICKED = [name for name, variant in CONFIG.variants.items() if variant.best_of]
TRAINED = [name for name, variant in CONFIG.variants.items() if variant.trained]
TEACHER = f"{DATA}/features/{SETTINGS.teacher.name}"
WEIGHTS = SETTINGS.teacher.weights.format(scale=SCALE)
MIRROR = f"logs/mirror_runs/{SCALE}{'-main' if MAIN_JOB else ''}.json"
STORE = store_uri(CONFIG)
JOB = f"--scale {SCALE}"
ENVIRONMENT = str(Path(workflow.basedir) / "environment.yml")
PACKAGE = Path(workflow.basedir) / "src/geomem"

# Nodes that compute have no way to the hub. With a trap, bash waits for the command that was told
# to stop; without, it would end at once and Slurm kill the command while it saves its state.
shell.prefix("set -euo pipefail; trap : TERM; export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1; ")


wildcard_constraints:
    variant="|".join(CONFIG.variants),
    protocol="|".join(PROTOCOLS),
    split="|".join(SETTINGS.splits),
    plan="|".join(SETTINGS.plans),
    table="|".join(CONFIG.tables),
    figure="|".join(CONFIG.figures),
    video="|".join(CONFIG.videos) or "(?!)",
    kind=r"window|memory\d+(_overlap)?",
    seed=r"\d+",
    number=r"\d+",


def one_of(names):
    """Wildcard constraint for some names; matches nothing where there are none."""
    return "|".join(names) or "(?!)"


def asks(stage, detail=""):
    """What a job of a stage asks for; `stage.detail` in the configuration beats `stage`."""
    resources = SETTINGS.resources
    return resources.get(f"{stage}.{detail}", resources[stage])


def request(stage, detail=""):
    """The same for Slurm: a rule's resources; `detail` may be a function of the wildcards."""

    def resource(name):
        def asked(wildcards, attempt):
            job = asks(stage, detail(wildcards) if callable(detail) else detail)
            return CLUSTER.request(job, attempt=attempt).get(name)

        return asked

    return {name: resource(name) for name in REQUESTED}


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


def training_inputs(wildcards):
    """Everything that a variant's training reads, by name."""
    variant = CONFIG.variants[wildcards.variant]
    _, plan = CONFIG.recipe_of(wildcards.variant)
    inputs = {
        "plan": f"{DATA}/plans/{plan}.json",
        "clips": clips(SETTINGS.plans[plan].split),
    }
    if variant.initial:
        folder = checkpoint_folder(variant.initial, wildcards.seed)
        inputs["initial"] = f"{folder}/checkpoint.json"
    for name, kind in CONFIG.caches_of(wildcards.variant).items():
        inputs[name] = features(plan, kind)
    if online := CONFIG.online_weights_of(wildcards.variant):
        inputs["weights"] = online
        if variant.alignment.teacher == "3d":
            inputs["basis"] = f"{TEACHER}/basis.safetensors"
    return inputs


def training_flags(wildcards, input):
    """The options that name those inputs; folders, since stages open whole folders."""
    flags = f"--clips {split_folder(input.clips)} --plan {input.plan}"
    for name in ("initial", "memory_features", "window_features"):
        if hasattr(input, name):
            first = input[name] if isinstance(input[name], str) else input[name][0]
            flags += f" --{name.replace('_', '-')} {Path(first).parent}"
    for name in ("weights", "basis"):
        if hasattr(input, name):
            flags += f" --{name} {input[name]}"
    return flags


def recipe_name(wildcards):
    """The recipe that a variant is trained with."""
    return CONFIG.recipe_of(wildcards.variant)[0]


def training_asks(wildcards):
    """What training a variant asks for."""
    return asks("training", recipe_name(wildcards))


def choice_scores(wildcards):
    """The scores that a pick is made by; none where there is nothing to choose."""
    among = CONFIG.candidates_of(wildcards.variant)
    protocol = CONFIG.variants[wildcards.variant].best_of.protocol
    return scores_of({name: [protocol] for name in among}) if len(among) > 1 else []


def candidate_folders(wildcards):
    """The checkpoints among which a pick is made, of one seed."""
    among = CONFIG.candidates_of(wildcards.variant)
    return [checkpoint_folder(name, wildcards.seed) for name in among]


def rollout_inputs(wildcards):
    """Everything that a rollout reads, by name."""
    inputs = {"clips": clips(PROTOCOLS[wildcards.protocol].split)}
    if wildcards.variant not in CONFIG.floors:
        folder = checkpoint_folder(wildcards.variant, wildcards.seed)
        base = checkpoint_folder(CONFIG.backbone_of(wildcards.variant), wildcards.seed)
        inputs |= {"checkpoint": f"{folder}/checkpoint.json", "base": f"{base}/checkpoint.json"}
    if CONFIG.variants[wildcards.variant].memory:
        inputs |= {"weights": WEIGHTS, "basis": f"{TEACHER}/basis.safetensors"}
    return inputs


def rollout_flags(wildcards, input):
    """The options that name those inputs."""
    flags = f"--clips {split_folder(input.clips)}"
    if hasattr(input, "checkpoint"):
        flags += f" --checkpoint {Path(input.checkpoint).parent} --base {Path(input.base).parent}"
    if hasattr(input, "weights"):
        flags += f" --weights {input.weights} --basis {input.basis}"
    return flags


def records_of(variants):
    """Checkpoint records of variants and of their backbones, with every seed."""
    models = (name for name in variants if name not in CONFIG.floors)
    wanted = dict.fromkeys(v for name in models for v in (CONFIG.backbone_of(name), name))
    return [
        f"{checkpoint_folder(v, seed)}/checkpoint.json" for v in wanted for seed in SETTINGS.seeds
    ]


def scores_of(runs):
    """Score files of variants on their protocols, with every seed."""
    return [
        f"{RESULTS}/scores/{variant}/seed{seed}/{protocol}.json"
        for variant, protocols in runs.items()
        for seed in CONFIG.seeds_of(variant)
        for protocol in protocols
    ]


def table_scores(wildcards):
    """The scores that a table shows."""
    table = CONFIG.tables[wildcards.table]
    protocols = dict.fromkeys(column.protocol for column in table.columns)
    return scores_of({row.variant: protocols for row in table.rows})


def analyses(variants, seeds):
    """Records of the analysis of the teacher's features, and of variants with some seeds."""
    folder = f"{RESULTS}/analysis"
    made = [f"{folder}/{variant}/seed{seed}.json" for variant in variants for seed in seeds]
    return [f"{folder}/teacher.json", *made]


def analysis_table_inputs(wildcards):
    """The records that the tables of the analysis show."""
    return analyses([row.variant for row in CONFIG.analysis.rows], SETTINGS.seeds)


def figure_inputs(wildcards):
    """Everything that a figure reads, by name."""
    figure = CONFIG.figures[wildcards.figure]
    variants = [row.variant for row in figure.rows]
    if figure.kind in ("probes", "clouds"):
        seeds = SETTINGS.seeds if figure.kind == "probes" else SETTINGS.seeds[:1]
        return {"analyses": analyses(variants, seeds)}
    if figure.kind == "curves":
        shown = {variant: figure.protocols for variant in variants}
        return {"scores": scores_of(shown), "checkpoints": records_of(variants)}
    return videos_shown(figure)


def videos_shown(shown):
    """The videos (first seed) and clips that a figure or an MP4 file shows, by name."""
    folders = [
        f"{RESULTS}/rollouts/{row.variant}/seed{SETTINGS.seeds[0]}/{shown.protocol}"
        for row in shown.rows
    ]
    return {
        "clips": clips(PROTOCOLS[shown.protocol].split),
        "records": [f"{folder}/rollout.json" for folder in folders],
        "rgb": [f"{folder}/rgb.npy" for folder in folders],
    }


def figure_flags(wildcards, input):
    """The options that name those inputs."""
    figure = CONFIG.figures[wildcards.figure]
    if hasattr(input, "analyses"):
        return f"--analyses {input.analyses}"
    if figure.kind == "curves":
        return f"--scores {input.scores} --checkpoints {input.checkpoints}"
    return video_flags(wildcards, input)


def video_flags(wildcards, input):
    """The options that name shown videos and their clips."""
    folders = " ".join(str(Path(path).parent) for path in input.records)
    return f"--clips {split_folder(input.clips)} --rollouts {folders}"


def shown_in_paper(kind, suffix):
    """Tables or figures of this run, and those of the study that an earlier run has left."""
    asked, all_of_them = getattr(CONFIG, kind), getattr(STUDY, kind)
    paths = {name: f"{RESULTS}/{kind}/{name}.{suffix}" for name in all_of_them}
    return [path for name, path in paths.items() if name in asked or Path(path).exists()]


def analysis_tables():
    """Names of the tables of the analysis; none where this run does not ask for it."""
    return ["feature_analysis", "feature_decoding"] if CONFIG.analysis else []


def paper_products():
    """Tables, figures, videos and, where LaTeX is installed, the PDF; published where tracked."""
    tables = [
        f"{table}.{kind}"
        for table in [*CONFIG.tables, "teacher_table", *analysis_tables()]
        for kind in ("csv", "tex")
    ]
    figures = [f"figures/{figure}.{kind}" for figure in CONFIG.figures for kind in ("pdf", "png")]
    papers = ["paper/main.pdf"] if which("latexmk") else []
    videos = [f"{RESULTS}/videos/{video}.mp4" for video in CONFIG.videos]
    made = [f"{RESULTS}/tables/{name}" for name in tables]
    made += [f"{RESULTS}/{name}" for name in figures + papers]
    published = [f"results/{name}" for name in tables + figures] + papers
    return made + videos + (published if SCALE == TRACKED else [])


def published(product):
    """Where a product of this run's scale lies that is copied to the tracked ones."""

    def source(wildcards):
        made = f"{RESULTS}/{product.format(**wildcards)}"
        if SCALE != TRACKED:
            raise WorkflowError(
                f"tables, figures and paper outside results/<scale> are those of {TRACKED} "
                f"(config/config.yaml); at {SCALE} ask for {made}"
            )
        return made

    return source


# A fresh clone's time stamps say nothing; what the results record about themselves does.
PLANS_ONLY = workflow.output_settings.dryrun or "--lint" in sys.argv
if workflow.is_main_process and not PLANS_ONLY and not Path(".snakemake/metadata").exists():
    restore(CONFIG, Path("."))

# Jobs that a killed run has left in Slurm end before the DAG is built, which then has their results.
if workflow.is_main_process and which("sbatch"):
    starts = workflow.resource_settings.nodes is not None
    slurm.prepare(Path("."), starts=starts and not PLANS_ONLY)
