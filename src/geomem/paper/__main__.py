"""Commands of the paper stage."""

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

from geomem.canonical import digest
from geomem.errors import InputError
from geomem.formats import atomic_path, read_json, sha256_file, write_json
from geomem.formats.records import provenance, read_provenance, write_record
from geomem.jobs import checked, job_parser, job_settings, run_command
from geomem.paper.version import VERSION


def table(args: argparse.Namespace) -> None:
    """Render a table of scores as CSV and LaTeX, with the provenance of every cell."""
    jobs = job_settings(args)
    _choose("tables", args.name, jobs.config.tables)
    settings = checked(jobs.table(args.name), args)
    from geomem.paper.collect import Scores, blind_networks, check_sanity
    from geomem.paper.results import score_table
    from geomem.paper.statements import table_statements
    from geomem.paper.tables import TEMPLATE

    check_sanity(args.sanity, [column.metric for column in settings.table.columns])
    with args.published.open(encoding="utf-8", newline="") as file:
        published = list(csv.DictReader(file))
    blind = blind_networks(args.content_bias) if args.content_bias else ()
    scores = Scores(args.scores)
    made, origin = score_table(args.name, settings, scores, published=published, blind=blind)
    if settings.table.statements:
        said, origin["statements"] = table_statements(settings, scores)
        made = replace(made, statements=said)
    inputs = {"scores": args.scores, "published": args.published, "template": TEMPLATE}
    judged = {"sanity": args.sanity, "content_bias": args.content_bias}
    inputs |= {name: given for name, given in judged.items() if given}
    _write_table(args, made, origin, provenance("paper", VERSION, settings, inputs))


def teacher_table(args: argparse.Namespace) -> None:
    """Render the table of the teacher's errors as CSV and LaTeX."""
    settings = checked(job_settings(args).teacher_table(), args)
    from geomem.paper.results import teacher_table as build
    from geomem.paper.tables import TEMPLATE

    made_by = read_provenance(args.metrics)
    source = {
        "path": args.metrics.as_posix(),
        "sha256": sha256_file(args.metrics),
        "weights": made_by["inputs"]["weights"],
        "settings": digest(made_by["settings"]),
        "version": made_by["version"],
    }
    inputs = {"metrics": args.metrics, "template": TEMPLATE}
    made = build(settings, read_json(args.metrics))
    _write_table(args, made, {"metrics": source}, provenance("paper", VERSION, settings, inputs))


def measure(args: argparse.Namespace) -> None:
    """Collect what training took: parameters of checkpoints, and of jobs what was written."""
    settings = checked(job_settings(args).measured(), args)
    from geomem.paper.costs import measured_costs

    content = measured_costs(settings, args.checkpoints, args.benchmarks)
    made_by = provenance("paper", VERSION, settings, {"checkpoints": args.checkpoints})
    write_record(args.output, made_by, content)


def costs(args: argparse.Namespace) -> None:
    """Render what the rows of a table cost, as CSV and LaTeX."""
    jobs = job_settings(args)
    if jobs.config.costs is None:
        raise InputError("config/experiments.yaml has no `costs`")
    settings = checked(jobs.costs(), args)
    from geomem.paper.costs import costs_table
    from geomem.paper.tables import TEMPLATE

    inputs = {"measured": args.measured, "template": TEMPLATE}
    made = costs_table(settings, read_json(args.measured))
    _write_table(args, made, {}, provenance("paper", VERSION, settings, inputs))


def content_bias(args: argparse.Namespace) -> None:
    """Render which networks' distances of videos see time, as CSV and LaTeX."""
    jobs = job_settings(args)
    if jobs.config.content_bias is None:
        raise InputError("config/experiments.yaml has no `content_bias`")
    settings = checked(jobs.content_bias_table(), args)
    from geomem.paper.content_bias import content_bias_table
    from geomem.paper.tables import TEMPLATE

    inputs = {"measured": args.measured, "template": TEMPLATE}
    made = content_bias_table(settings, read_json(args.measured))
    _write_table(args, made, {}, provenance("paper", VERSION, settings, inputs))


def consistency(args: argparse.Namespace) -> None:
    """Render what metrics make of spoiled rooms, as CSV, LaTeX and a figure."""
    jobs = job_settings(args)
    if jobs.config.consistency is None:
        raise InputError("config/experiments.yaml has no `consistency`")
    settings = checked(jobs.consistency_table(), args)
    from geomem.paper.consistency import consistency_figure, consistency_table
    from geomem.paper.figures import save_figure
    from geomem.paper.tables import TEMPLATE

    inputs, measured = {"measured": args.measured, "template": TEMPLATE}, read_json(args.measured)
    drawn = consistency_figure(settings, measured)
    for path in (args.pdf, args.png):
        save_figure(drawn, path)
    made = consistency_table(settings, measured)
    _write_table(args, made, {}, provenance("paper", VERSION, settings, inputs))


def cache_fidelity(args: argparse.Namespace) -> None:
    """Render what settings of the feature cache take and lose, as CSV and LaTeX."""
    settings = checked(job_settings(args).cache_fidelity_table(), args)
    from geomem.paper.cache_fidelity import cache_fidelity_table
    from geomem.paper.tables import TEMPLATE

    inputs = {"measured": args.measured, "template": TEMPLATE}
    made = cache_fidelity_table(settings, read_json(args.measured))
    _write_table(args, made, {}, provenance("paper", VERSION, settings, inputs))


def preference(args: argparse.Namespace) -> None:
    """Render what raters of a preference study prefer, as CSV and LaTeX."""
    settings = checked(job_settings(args).preference_table(), args)
    from geomem.paper.preference import preference_table
    from geomem.paper.tables import TEMPLATE
    from geomem.study.ballots import read_ballots

    inputs = {"template": TEMPLATE} | ({"votes": args.votes} if args.votes else {})
    made = preference_table(settings, read_ballots(args.votes) if args.votes else [])
    _write_table(args, made, {}, provenance("paper", VERSION, settings, inputs))


def analysis_tables(args: argparse.Namespace) -> None:
    """Render the tables of what features know, as CSV and LaTeX."""
    jobs = job_settings(args)
    if jobs.config.analysis is None:
        raise InputError("config/experiments.yaml has no `analysis`")
    settings = checked(jobs.analysis_table(), args)
    from geomem.paper.analysis import Analyses
    from geomem.paper.analysis import analysis_tables as build
    from geomem.paper.tables import TEMPLATE

    (probes, decoded), origin = build(settings, Analyses(args.analyses))
    _write_texts(decoded, args.decoding_csv, args.decoding_tex)
    inputs = {"analyses": args.analyses, "template": TEMPLATE}
    _write_table(args, probes, origin, provenance("paper", VERSION, settings, inputs))


def figure(args: argparse.Namespace) -> None:
    """Draw a figure as PDF and PNG."""
    jobs = job_settings(args)
    _choose("figures", args.name, jobs.config.figures)
    settings = checked(jobs.figure(args.name), args)
    from geomem.paper.collect import Scores
    from geomem.paper.drawings import frame_curves, revisits, strip
    from geomem.paper.figures import save_figure

    kind = settings.figure.kind
    if kind in ("probes", "clouds"):
        if not args.analyses:
            raise InputError(f"{args.name} shows an analysis: give --analyses")
        from geomem.paper.analysis import Analyses
        from geomem.paper.analysis_figures import clouds, probe_curves

        show = {"probes": probe_curves, "clouds": clouds}[kind]
        drawn, origin = show(settings, Analyses(args.analyses))
        inputs = {"analyses": args.analyses}
    elif kind == "reliability":
        if not args.calibration:
            raise InputError(f"{args.name} shows a calibration: give --calibration")
        from geomem.metrics.scene_calibration import read_calibration
        from geomem.paper.reliability import reliability_figure

        calibration = read_calibration(args.calibration)
        drawn, origin = reliability_figure(calibration), {"error": calibration.error}
        inputs = {"calibration": args.calibration}
    elif kind == "training":
        if not args.checkpoints:
            raise InputError(f"{args.name} shows trainings: give --checkpoints")
        from geomem.paper.training_curves import training_curves

        drawn, origin = training_curves(settings, args.checkpoints)
        inputs = {"checkpoints": args.checkpoints}
    elif kind in ("strip", "revisits"):
        if not (args.rollouts and args.clips):
            raise InputError(f"{args.name} shows videos: give --rollouts and --clips")
        draw = {"strip": strip, "revisits": revisits}[kind]
        drawn, origin = draw(settings, args.rollouts, args.clips)
        inputs = _of_videos(args)
    else:
        if not args.scores:
            raise InputError(f"{args.name} shows scores: give --scores")
        from geomem.paper.gains import gain_figure

        show_scores = {"curves": frame_curves, "gain": gain_figure}[kind]
        drawn, origin = show_scores(settings, Scores(args.scores))
        inputs = {"scores": args.scores}
    save_figure(drawn, args.pdf)
    save_figure(drawn, args.png)
    write_record(args.provenance, provenance("paper", VERSION, settings, inputs), origin)


def video(args: argparse.Namespace) -> None:
    """Write videos of several variants side by side as one MP4 file."""
    jobs = job_settings(args)
    _choose("videos", args.name, jobs.config.videos)
    settings = checked(jobs.video(args.name), args)
    from geomem.formats.mp4 import write_mp4
    from geomem.paper.films import film

    frames, origin = film(settings, args.rollouts, args.clips)
    write_mp4(args.mp4, frames, rate=settings.video.rate)
    made_by = provenance("paper", VERSION, settings, _of_videos(args))
    write_record(args.provenance, made_by, origin)


def _of_videos(args: argparse.Namespace) -> dict[str, Any]:
    """Return what stands for the videos that a job shows."""
    return {"clips": args.clips, "rollouts": [path / "rollout.json" for path in args.rollouts]}


def pdf(args: argparse.Namespace) -> None:
    """Compile the paper."""
    settings = checked(job_settings(args).paper(), args)
    from geomem.paper.latex import compile_paper

    made_by = provenance("paper", VERSION, settings, {"files": args.files})
    compile_paper(args.source, args.output, results=args.results)
    write_record(args.provenance, made_by, {})


def facts(args: argparse.Namespace) -> None:
    """Write what the paper's text says of this scale, and the table of its setup, as LaTeX."""
    settings = checked(job_settings(args).facts(), args)
    from geomem.paper.facts import facts_latex
    from geomem.paper.setup import setup_table
    from geomem.paper.tables import TEMPLATE, table_latex

    setup = table_latex(setup_table(settings))
    for path, text in ((args.output, facts_latex(settings)), (args.setup, setup)):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    made_by = provenance("paper", VERSION, settings, {"template": TEMPLATE})
    write_record(args.provenance, made_by, {})


def _choose(group: str, name: str, choices: dict[str, Any]) -> None:
    if name not in choices:
        raise InputError(f"{name!r} is none of the {group} {sorted(choices)}")


def _write_texts(made: Any, csv_path: Path, tex_path: Path) -> None:
    from geomem.paper.tables import table_csv, table_latex

    for path, text in ((csv_path, table_csv(made)), (tex_path, table_latex(made))):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _write_table(
    args: argparse.Namespace, made: Any, origin: dict[str, Any], made_by: dict[str, Any]
) -> None:
    from geomem.paper.tables import table_values

    _write_texts(made, args.csv, args.tex)
    write_json(args.values, table_values(made))
    write_record(args.provenance, made_by, origin)


def main() -> None:
    """Run a command of the stage."""
    parser = argparse.ArgumentParser(prog="python -m geomem.paper", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = job_parser(commands.add_parser("table", help=table.__doc__))
    command.add_argument("name", help="a table of config/experiments.yaml")
    command.add_argument("--scores", type=Path, nargs="+", required=True, help="score files")
    command.add_argument("--published", type=Path, required=True, help="published numbers, CSV")
    command.add_argument(
        "--sanity", type=Path, nargs="*", default=[], help="what metrics say of truth and noise"
    )
    command.add_argument("--content-bias", type=Path, help="which networks see time")
    _table_outputs(command)
    command.set_defaults(command=table)

    command = job_parser(commands.add_parser("teacher-table", help=teacher_table.__doc__))
    command.add_argument("--metrics", type=Path, required=True, help="of the teacher")
    _table_outputs(command)
    command.set_defaults(command=teacher_table)

    command = job_parser(commands.add_parser("measure", help=measure.__doc__))
    command.add_argument("output", type=Path, help="record to write")
    command.add_argument("--checkpoints", type=Path, nargs="+", required=True, help="records")
    command.add_argument(
        "--benchmarks", type=Path, default=Path("benchmarks/jobs"), help="what jobs took"
    )
    command.set_defaults(command=measure)

    command = job_parser(commands.add_parser("costs", help=costs.__doc__))
    command.add_argument("--measured", type=Path, required=True, help="record of `measure`")
    _table_outputs(command)
    command.set_defaults(command=costs)

    command = job_parser(commands.add_parser("content-bias", help=content_bias.__doc__))
    command.add_argument("--measured", type=Path, required=True, help="record of the test")
    _table_outputs(command)
    command.set_defaults(command=content_bias)

    command = job_parser(commands.add_parser("consistency", help=consistency.__doc__))
    command.add_argument("--measured", type=Path, required=True, help="record of the scores")
    _table_outputs(command)
    command.add_argument("--pdf", type=Path, required=True)
    command.add_argument("--png", type=Path, required=True)
    command.set_defaults(command=consistency)

    command = job_parser(commands.add_parser("cache-fidelity", help=cache_fidelity.__doc__))
    command.add_argument("--measured", type=Path, required=True, help="record of the scores")
    _table_outputs(command)
    command.set_defaults(command=cache_fidelity)

    command = job_parser(commands.add_parser("preference", help=preference.__doc__))
    command.add_argument("--votes", type=Path, help="of raters, CSV; none where there are none")
    _table_outputs(command)
    command.set_defaults(command=preference)

    command = job_parser(commands.add_parser("analysis-tables", help=analysis_tables.__doc__))
    command.add_argument("--analyses", type=Path, nargs="+", required=True, help="records")
    _table_outputs(command)
    command.add_argument("--decoding-csv", type=Path, required=True)
    command.add_argument("--decoding-tex", type=Path, required=True)
    command.set_defaults(command=analysis_tables)

    command = job_parser(commands.add_parser("figure", help=figure.__doc__))
    command.add_argument("name", help="a figure of config/experiments.yaml")
    command.add_argument("--scores", type=Path, nargs="+", help="score files")
    command.add_argument("--rollouts", type=Path, nargs="+", help="folders of the shown videos")
    command.add_argument("--clips", type=Path, help="directory of their split")
    command.add_argument("--analyses", type=Path, nargs="+", help="records of the analysis")
    command.add_argument("--calibration", type=Path, help="of the VGGT score")
    command.add_argument("--checkpoints", type=Path, nargs="+", help="records of trainings")
    command.add_argument("--pdf", type=Path, required=True)
    command.add_argument("--png", type=Path, required=True)
    command.add_argument("--provenance", type=Path, required=True)
    command.set_defaults(command=figure)

    command = job_parser(commands.add_parser("video", help=video.__doc__))
    command.add_argument("name", help="a video of config/experiments.yaml")
    command.add_argument(
        "--rollouts", type=Path, nargs="+", required=True, help="folders of the shown videos"
    )
    command.add_argument("--clips", type=Path, required=True, help="directory of their split")
    command.add_argument("--mp4", type=Path, required=True)
    command.add_argument("--provenance", type=Path, required=True)
    command.set_defaults(command=video)

    command = job_parser(commands.add_parser("facts", help=facts.__doc__))
    command.add_argument("output", type=Path, help="LaTeX file to write")
    command.add_argument(
        "--setup", type=Path, required=True, help="LaTeX of the table of the setup"
    )
    command.add_argument("--provenance", type=Path, required=True)
    command.set_defaults(command=facts)

    command = job_parser(commands.add_parser("pdf", help=pdf.__doc__))
    command.add_argument("output", type=Path, help="PDF to write")
    command.add_argument(
        "--files", type=Path, nargs="+", required=True, help="all files that it is made of"
    )
    command.add_argument("--provenance", type=Path, required=True)
    command.add_argument("--source", type=Path, default=Path("paper/main.tex"))
    command.add_argument("--results", type=Path, required=True, help="results/<scale>")
    command.set_defaults(command=pdf)
    run_command(parser)


def _table_outputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--csv", type=Path, required=True)
    command.add_argument("--tex", type=Path, required=True)
    command.add_argument("--values", type=Path, required=True, help="values alone, JSON")
    command.add_argument("--provenance", type=Path, required=True)


if __name__ == "__main__":
    main()
