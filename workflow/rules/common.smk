"""The checked configuration and what its jobs ask for; the only logic of the workflow.

Paths, inputs and settings of every job are those of `geomem.dag`, which verification reads too.
"""

import re
import sys
from importlib import import_module
from pathlib import Path
from shutil import which

from snakemake.exceptions import WorkflowError

from geomem import slurm
from geomem.commands.tracking import store_uri
from geomem.commands.verification import restore
from geomem.config import REQUESTED, configured_scale, launcher, load_cluster, load_config
from geomem.dag import Dag
from geomem.errors import InputError
from geomem.formats import read_json
from geomem.formats.cache_kinds import CacheKind

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
GRAPH = Dag(CONFIG)
LAYOUT, JOBS = GRAPH.layout, GRAPH.settings
RUNS = CONFIG.runs()  # variant -> protocols it generates
SCORES = CONFIG.scores()  # variant and protocol -> families of metrics
DOWNLOADS = GRAPH.downloads()  # published weights by their path
DOWNLOADED = [name for name, dataset in CONFIG.datasets.items() if hasattr(dataset, "archive")]
PICKED = [name for name, variant in CONFIG.variants.items() if variant.best_of]
IMPORTED = [name for name, variant in CONFIG.variants.items() if variant.checkpoint]
BASIS_PLAN = SETTINGS.features.basis_plan
TRAINED = [name for name, variant in CONFIG.variants.items() if variant.trained]
MIRROR = f"logs/mirror_runs/{SCALE}{'-main' if MAIN_JOB else ''}.json"
STORE = store_uri(CONFIG)
JOB = f"--scale {SCALE}"
ENVIRONMENT = str(Path(workflow.basedir) / "environment.yml")
PACKAGE = Path(workflow.basedir) / "src/geomem"

# Nodes that compute have no way to the hub. With a trap, bash waits for the command that was told
# to stop; without, it would end at once and Slurm kill the command while it saves its state.
shell.prefix("set -euo pipefail; trap : TERM; export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1; ")


def one_of(names):
    """Wildcard constraint for some names; matches nothing where there are none."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    variant=one_of(CONFIG.variants),
    protocol=one_of(SETTINGS.rollouts.protocols),
    split=one_of(SETTINGS.splits),
    plan=one_of(SETTINGS.plans),
    table=one_of(CONFIG.tables),
    figure=one_of(CONFIG.figures),
    video=one_of(CONFIG.videos),
    family=r"\w+",
    kind=r"\w+",
    seed=r"\d+",
    number=r"\d+",


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


def names(given):
    """Paths as Snakemake takes them: a name, a list of names, or a dictionary of both."""
    if isinstance(given, dict):
        return {name: names(paths) for name, paths in given.items()}
    return str(given) if isinstance(given, Path) else [str(path) for path in given]


def job_inputs(job):
    """A rule's inputs: those of the job that `job` makes of the wildcards, by name."""
    return lambda wildcards: names(job(wildcards).inputs)


def job_options(job):
    """The options that name a job's inputs."""
    return lambda wildcards: job(wildcards).command_line()


def job_settings(job):
    """The digest of what a job may read of the configuration."""
    return lambda wildcards: job(wildcards).settings.digest


def clips_job(wildcards):
    """The job that makes a shard."""
    return GRAPH.clips(wildcards.split, int(wildcards.number))


def archive_of(wildcards):
    """The unpacked archive that a split comes from; none where it is rendered."""
    downloads = CONFIG.source_of(wildcards.split).downloads
    return str(LAYOUT.unpacked(GRAPH.dataset(wildcards.split))) if downloads else []


def plan_job(wildcards):
    """The job that draws a plan."""
    return GRAPH.plan(wildcards.plan)


def cache_job(wildcards):
    """The job that makes a part of a cache."""
    kind = CacheKind.parse(wildcards.kind)
    return GRAPH.cache_part(wildcards.plan, kind, int(wildcards.number))


def checkpoint_job(wildcards):
    """The job that makes a checkpoint."""
    return GRAPH.checkpoint(wildcards.variant, int(wildcards.seed))


def pick_job(wildcards):
    """The job that picks a variant."""
    return GRAPH.pick(wildcards.variant)


def rollout_job(wildcards):
    """The job that generates videos."""
    return GRAPH.rollout(wildcards.variant, int(wildcards.seed), wildcards.protocol)


def scores_job(wildcards):
    """The job that scores them by a family of metrics."""
    run = wildcards.variant, int(wildcards.seed), wildcards.protocol
    return GRAPH.scores(*run, wildcards.family)


def analysis_job(wildcards):
    """The job that analyses features: the teacher's where no variant is named."""
    variant = getattr(wildcards, "variant", None)
    return GRAPH.analysis(variant, int(getattr(wildcards, "seed", 0)))


def download_options(source):
    """The options that name a file of a hub."""
    [(file, sha256)] = source.files.items()
    pinned = f" --sha256 {sha256}" if sha256 else ""
    return f"--repository {source.repository} --file {file} --revision {source.revision}{pinned}"


def recipe_name(wildcards):
    """The recipe that a variant is trained with."""
    return CONFIG.recipe_of(wildcards.variant)[0]


def training_asks(wildcards):
    """What training a variant asks for."""
    return asks("training", recipe_name(wildcards))


def videos_shown(shown):
    """The videos (first seed) and clips that a figure or an MP4 file shows, by name."""
    folders = GRAPH.shown_rollouts(shown)
    split = SETTINGS.rollouts.protocols[shown.protocol].split
    return {
        "clips": names(GRAPH.shards(split)),
        "records": [f"{folder}/rollout.json" for folder in folders],
        "rgb": [f"{folder}/rgb.npy" for folder in folders],
    }


def video_options(shown):
    """The options that name those videos and clips."""
    split = SETTINGS.rollouts.protocols[shown.protocol].split
    folders = " ".join(names(GRAPH.shown_rollouts(shown)))
    return f"--clips {GRAPH.folder(split)} --rollouts {folders}"


def figure_inputs(wildcards):
    """Everything that a figure reads, by name."""
    figure = CONFIG.figures[wildcards.figure]
    if figure.kind in ("probes", "clouds"):
        return {"analyses": names(GRAPH.figure_analyses(figure))}
    if figure.kind == "curves":
        variants = [row.variant for row in figure.rows]
        return {
            "scores": names(GRAPH.figure_scores(figure)),
            "checkpoints": names(GRAPH.checkpoints(variants)),
        }
    return videos_shown(figure)


def figure_options(wildcards, input):
    """The options that name those inputs."""
    figure = CONFIG.figures[wildcards.figure]
    if hasattr(input, "analyses"):
        return f"--analyses {input.analyses}"
    if figure.kind == "curves":
        return f"--scores {input.scores} --checkpoints {input.checkpoints}"
    return video_options(figure)


def shown_in_paper(kind, suffix):
    """Tables or figures of this run, and those of the study that an earlier run has left."""
    asked, all_of_them = getattr(CONFIG, kind), getattr(STUDY, kind)
    place = {"tables": LAYOUT.table, "figures": LAYOUT.figure}[kind]
    paths = {name: str(place(name, suffix)) for name in all_of_them}
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
    made = [f"{LAYOUT.results}/tables/{name}" for name in tables]
    made += [f"{LAYOUT.results}/{name}" for name in figures + papers]
    made += [str(LAYOUT.video(video)) for video in CONFIG.videos]
    published = [f"results/{name}" for name in tables + figures] + papers
    return made + (published if SCALE == TRACKED else [])


def published(product):
    """Where a product of this run's scale lies that is copied to the tracked ones."""

    def source(wildcards):
        made = f"{LAYOUT.results}/{product.format(**wildcards)}"
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

# Jobs that a killed run has left in Slurm end before the GRAPH is built, which then has their results.
if workflow.is_main_process and which("sbatch"):
    starts = workflow.resource_settings.nodes is not None
    slurm.prepare(Path("."), starts=starts and not PLANS_ONLY)
