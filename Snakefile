"""From rendered scenes to the paper's tables: see docs/workflow.md."""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


rule all:
    default_target: True
    input:
        paper_products(),
        names(GRAPH.scores_of(SCORES)),
        MIRROR,


include: "workflow/rules/clips.smk"
include: "workflow/rules/teacher.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/rollouts.smk"
include: "workflow/rules/scores.smk"
include: "workflow/rules/picks.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/tracking.smk"


# Snakemake keeps one of each alone: the last that it reads.
onstart:
    if RUNS_HERE:
        # With a limit on jobs started in a second, the scheduler looks at all that are ready again
        # every second, once for each job that has started: a third of a core at `smoke`.
        workflow.scheduler.job_rate_limiter = None
        forkserver.start(Path("logs/forkserver.log"))
    follow_runs()


onsuccess:
    tell_pending()
    # A pick may have changed in this run, which nothing could know when it was planned.
    left = outdated(State(GRAPH))
    if left:
        print(
            f"{left[0]}\n{len(left)} results are outdated by this run: start it again",
            file=sys.stderr,
        )
