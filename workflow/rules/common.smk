"""The checked configuration and what its jobs ask for; the only logic of the workflow.

Paths, inputs and settings of every job are those of `geomem.dag`, which verification reads too.
"""

import atexit
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from shlex import quote
from shutil import which
from tempfile import mkstemp

from snakemake.exceptions import WorkflowError

from geomem import forkserver, slurm
from geomem.commands.tracking import scores_there, store_uri
from geomem.commands.verification import State
from geomem.config import REQUESTED, Config, configured_scale, launcher, load_cluster, load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.formats import read_json
from geomem.formats.cache_kinds import CacheKind

try:
    asked = {"scale", "only"} | Config.model_fields.keys()
    if unknown := sorted(config.keys() - asked):
        raise InputError(f"--config {unknown[0]}=...: expected `scale=...` or `only=main`")
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
SCORES = CONFIG.scores()  # variant and protocol -> families of metrics
DOWNLOADS = GRAPH.downloads()  # published weights by their path
DOWNLOADED = [name for name, dataset in CONFIG.datasets.items() if hasattr(dataset, "archive")]
PICKED = [name for name, variant in CONFIG.variants.items() if variant.best_of]
IMPORTED = [name for name, variant in CONFIG.variants.items() if variant.checkpoint]
TRAINED = [name for name, variant in CONFIG.variants.items() if variant.trained]
MIRROR = f"logs/mirror_runs/{SCALE}{'-main' if MAIN_JOB else ''}.json"
STORE = store_uri(CONFIG)
JOB = f"--scale {SCALE}"
ENVIRONMENT = str(Path(workflow.basedir) / "environment.yml")
PACKAGE = Path(workflow.basedir) / "src/geomem"

RUNS_HERE = workflow.is_main_process and workflow.resource_settings.nodes is None
READ_HERE = ("mem_mb", "devices")  # which `--resources` may limit
PLANS_ONLY = workflow.output_settings.dryrun or "--lint" in sys.argv
STATE, LOOKED_AT = State(GRAPH), {}
if workflow.is_main_process:
    if PLANS_ONLY:
        atexit.register(lambda: tell_reasons())
    handle, OUTDATED = mkstemp(prefix="geomem-", suffix="-outdated")  # newer than what lies here
    os.write(handle, os.urandom(8))  # Snakemake takes equal bytes for the same file
    os.close(handle)
    atexit.register(Path(OUTDATED).unlink, missing_ok=True)

# Nodes that compute have no way to the hub. With a trap, bash waits for the command that was told
# to stop; without, it would end at once and Slurm kill the command while it saves its state.
shell.prefix(f"set -euo pipefail; trap : TERM; export {forkserver.OFFLINE}; ")


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
    """The same as a rule's resources; `detail` may be a function of the wildcards.

    Where jobs run on this machine, what is for Slurm alone is left out: to ask for all of it job by
    job takes a good part of the time that a run is planned in.
    """

    def resource(name):
        def asked(wildcards, attempt):
            job = asks(stage, detail(wildcards) if callable(detail) else detail)
            return CLUSTER.request(job, attempt=attempt).get(name)

        return asked

    asked = READ_HERE if RUNS_HERE else REQUESTED
    return {name: resource(name) for name in asked}


def stage_version(stage):
    """A stage's version: edits in imported code are invisible to Snakemake, this number is not."""
    return import_module(f"geomem.{stage}.version").VERSION


def names(given):
    """Paths as Snakemake takes them: a name, a list of names, or a dictionary of both."""
    if isinstance(given, dict):
        return {name: names(paths) for name, paths in given.items()}
    return str(given) if isinstance(given, Path) else [str(path) for path in given]


def asks_state():
    """Whether what is good is left alone: where a run plans, and forces no jobs; a report shows all."""
    chosen = workflow.dag_settings
    forced = chosen.forceall or chosen.forcerun or chosen.forcetargets
    reports = any(word.startswith("--report") for word in sys.argv)
    return workflow.is_main_process and not (forced or reports)


def job_inputs(job):
    """A rule's inputs: those of the job that `job` makes of the wildcards, by name.

    None for a result that is good, so that nothing before it counts: neither its time stamps, nor
    what is cleaned and made again for others. For one that is there but outdated, a file that is
    newer than everything beside them.
    """

    def inputs(wildcards):
        made = job(wildcards)
        given = names({**made.inputs, **made.beside})
        if not asks_state():
            return given
        LOOKED_AT[made.record] = made
        if not STATE.begun(made):
            return given
        return {**given, "outdated": OUTDATED} if STATE.fault(made) else {}

    return inputs


def outdated(state):
    """What is wrong with results of this run's graph that are there, a line each."""
    jobs = [job for job in LOOKED_AT.values() if state.begun(job)]
    return [fault for job in jobs if (fault := state.fault(job))]


def tell_reasons():
    """At the end of a dry run: why results that are there would be made again."""
    for line in outdated(STATE):
        print(f"outdated: {line}", file=sys.stderr)


def job_options(job):
    """The options that name a job's inputs."""
    return lambda wildcards: job(wildcards).command_line()


def job_settings(job):
    """The digest of what a job may read of the configuration."""
    return lambda wildcards: job(wildcards).settings.digest


def clips_job(wildcards):
    """The job that makes a shard."""
    return GRAPH.clips(wildcards.split, int(wildcards.number))


def choice_job(wildcards):
    """The job that chooses the clips of a split of an imported data set."""
    return GRAPH.choice(wildcards.split)


def plan_job(wildcards):
    """The job that draws a plan."""
    return GRAPH.plan(wildcards.plan)


def basis_job(wildcards):
    """The job that fits the basis of the teacher's features."""
    return GRAPH.fitted_basis()


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
    """The options that name a file of a hub, or at an address."""
    terms = f" --terms {quote(source.terms)}" if source.terms else ""
    if hasattr(source, "url"):
        return f"--url {quote(source.url)} --sha256 '{source.sha256}'{terms}"
    [(file, sha256)] = source.files.items()
    pinned = f" --sha256 {sha256}" if sha256 else ""
    place = f"--repository {source.repository} --file {file} --revision {source.revision}"
    return f"{place}{pinned}{terms}"


def recipe_name(wildcards):
    """The recipe that a variant is trained with."""
    return CONFIG.recipe_of(wildcards.variant)[0]


def training_asks(wildcards):
    """What training a variant asks for."""
    return asks("training", recipe_name(wildcards))


def teacher_job(wildcards):
    """The job that measures the teacher."""
    return GRAPH.teacher_metrics()


def teacher_table_job(wildcards):
    """The job that renders the table of the teacher's errors."""
    return GRAPH.teacher_table()


def facts_job(wildcards):
    """The job that states what the paper's text says of this scale."""
    return GRAPH.facts()


def paper_job(wildcards):
    """The job that compiles the paper."""
    return GRAPH.paper()


def table_job(wildcards):
    """The job that renders a table of scores."""
    return GRAPH.table(wildcards.table)


def measured_job(wildcards):
    """The job that collects what training took."""
    return GRAPH.measured()


def costs_table_job(wildcards):
    """The job that renders what the rows of a table cost."""
    return GRAPH.costs_table()


def sanity_job(wildcards):
    """The job that asks whether a family's metrics tell truth from noise."""
    return GRAPH.sanity(wildcards.family)


def calibration_job(wildcards):
    """The job that calibrates the VGGT score of the scale's teacher."""
    return GRAPH.calibration()


def content_bias_job(wildcards):
    """The job that tests which video features see time."""
    return GRAPH.content_bias()


def content_bias_table_job(wildcards):
    """The job that renders what that test has found."""
    return GRAPH.content_bias_table()


def consistency_job(wildcards):
    """The job that scores rooms spoiled by known amounts."""
    return GRAPH.consistency()


def consistency_table_job(wildcards):
    """The job that renders what that has found."""
    return GRAPH.consistency_table()


def cache_fidelity_job(wildcards):
    """The job that weighs settings of the feature cache."""
    return GRAPH.cache_fidelity()


def cache_fidelity_table_job(wildcards):
    """The job that renders what they take and lose."""
    return GRAPH.cache_fidelity_table()


def preference_table_job(wildcards):
    """The job that renders what raters prefer."""
    return GRAPH.preference_table()


def analysis_tables_job(wildcards):
    """The job that renders the tables of the analysis."""
    return GRAPH.analysis_tables()


def figure_job(wildcards):
    """The job that draws a figure."""
    return GRAPH.figure(wildcards.figure)


def video_job(wildcards):
    """The job that writes a video for people."""
    return GRAPH.video(wildcards.video)


def paper_products():
    """Tables, figures, videos and, where LaTeX is installed, the PDF; published where tracked."""
    made = [path for job in GRAPH.shown() for path in job.outputs]
    papers = [LAYOUT.paper] if which("latexmk") else []
    copies = GRAPH.copies() if SCALE == TRACKED else {}
    copied = [copy for copy, source in copies.items() if source in made + papers]
    return names(made + papers + copied)


def originals(*products):
    """What lies in results/<scale> and is copied to the tracked results."""

    def sources(wildcards):
        made = [f"{LAYOUT.results}/{product.format(**wildcards)}" for product in products]
        if SCALE != TRACKED:
            raise WorkflowError(
                f"tables, figures and paper outside results/<scale> are those of {TRACKED} "
                f"(config/config.yaml); at {SCALE} ask for {made[0]}"
            )
        return made

    return sources


def to_copy(*products):
    """What a job that copies them reads, as `job_inputs` says."""

    def sources(wildcards):
        made = originals(*products)(wildcards)
        copies = [copy for copy, origin in GRAPH.copies().items() if str(origin) in made]
        if not asks_state() or not all(map(Path.exists, copies)):
            return made
        return [*made, OUTDATED] if any(map(STATE.copied, copies)) else []

    return sources


def to_mirror(wildcards):
    """The scores that are mirrored into MLflow; none where those that are there are in it already."""
    scores, mirror = GRAPH.scores_of(SCORES), Path(MIRROR)
    good = mirror.exists() and asks_state() and all(map(STATE.good, scores))
    if good and read_json(mirror).get("scores") == scores_there(CONFIG, Path()):
        return []
    return names(scores)


# Jobs that a killed run has left in Slurm end before the GRAPH is built, which then has their results.
if workflow.is_main_process and which("sbatch"):
    starts = workflow.resource_settings.nodes is not None
    slurm.prepare(Path("."), starts=starts and not PLANS_ONLY)


def part_of_study(wildcards):
    """The report's section of a table or figure that is named by a wildcard."""
    [name] = wildcards
    return "Main job" if name in STUDY.main else "The rest of the study"


# One label each: of several, the report takes those with two values for a switch between views.
def table_labels(wildcards):
    """How the report lists a table."""
    return {"table": f"{wildcards.table}: {CONFIG.tables[wildcards.table].caption}"}


def figure_labels(wildcards):
    """How the report lists a figure."""
    return {"figure": f"{wildcards.figure} ({CONFIG.figures[wildcards.figure].kind})"}


def video_labels(wildcards):
    """How the report lists a video."""
    shown = ", ".join(row.label for row in CONFIG.videos[wildcards.video].rows)
    return {"video": f"{wildcards.video}: truth, {shown}"}
