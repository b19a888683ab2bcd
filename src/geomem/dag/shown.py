"""Jobs that make what people look at."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from geomem.dag.job import Files, Job
from geomem.dag.runs import RunJobs
from geomem.metrics.registry import family_of, metric_of
from geomem.registry.strict import Strict
from geomem.settings.analysis import AnalysisFigure
from geomem.settings.evaluation import (
    Figure,
    ReliabilityFigure,
    ScoresFigure,
    TrainingFigure,
    Video,
)

PUBLISHED = Path("config/published_numbers.csv")
TEMPLATE = Path("src/geomem/paper/templates/table.tex.j2")
PAPER = Path("paper")  # where its text lies
COSTS_TABLE = "costs_table"
CONTENT_BIAS = "content_bias"
CONSISTENCY = "consistency"
CACHE_FIDELITY = "cache_fidelity"
PREFERENCE = "preference_table"
ANALYSIS_TABLES = ("feature_analysis", "feature_decoding")


class ShownJobs(RunJobs):
    """The jobs of the paper stage."""

    def table_scores(self, table: str) -> list[Path]:
        """Return the score files that a table shows."""
        shown = self.config.tables[table]
        protocols = dict.fromkeys(column.protocol for column in shown.columns)
        families = {p: self.config.families_of(shown, p) for p in protocols}
        runs = {(row.variant, p): asked for row in shown.rows for p, asked in families.items()}
        return self.scores_of(runs)

    def figure_scores(self, figure: ScoresFigure) -> list[Path]:
        """Return the score files that a figure shows."""
        return self.scores_of(self.config.families_of_figure(figure))

    def analyses(self, variants: Iterable[str], seeds: Iterable[int]) -> list[Path]:
        """Return the records of the teacher's analysis and of variants' with some seeds."""
        chosen = list(seeds)
        made = [self.layout.analysis(name, seed) for name in variants for seed in chosen]
        return [self.layout.analysis(None, 0), *made]

    def figure_analyses(self, figure: AnalysisFigure) -> list[Path]:
        """Return the records that a figure of the analysis shows."""
        seeds = self.config.settings.seeds
        shown = seeds if figure.kind == "probes" else seeds[:1]
        return self.analyses((row.variant for row in figure.rows), shown)

    def shown_rollouts(self, shown: Figure | Video) -> list[Path]:
        """Return the folders of the videos (first seed) that a figure or video shows."""
        seed = self.config.settings.seeds[0]
        [protocol] = shown.shown_protocols
        return [self.layout.rollout(row.variant, seed, protocol) for row in shown.rows]

    def _shows(self, name: str, settings: Strict, *outputs: Path, **inputs: Files) -> Job:
        """Return a job of the paper stage; its record is the provenance of what it makes."""
        record = self.layout.provenance(name)
        return Job(
            stage="paper",
            settings=settings,
            record=record,
            outputs=(*outputs, record),
            inputs=inputs,
            options={key: paths for key, paths in inputs.items() if key != "template"},
        )

    def _table_files(self, table: str) -> list[Path]:
        return [self.layout.table(table, kind) for kind in ("csv", "tex")]

    def table(self, table: str) -> Job:
        """Return the job that renders a table of scores, if its metrics are sane."""
        shown = [column.metric for column in self.config.tables[table].columns]
        judged = dict[str, Files]()
        if self.config.sanity:
            families = sorted({family_of(metric) for metric in shown})
            judged["sanity"] = [self.layout.sanity(family) for family in families]
        if self.config.content_bias and any(metric_of(metric).of_videos for metric in shown):
            judged["content_bias"] = self.layout.content_bias
        return self._shows(
            table,
            self.settings.table(table),
            *self._table_files(table),
            self.layout.metrics(table),
            scores=self.table_scores(table),
            **judged,
            published=PUBLISHED,
            template=TEMPLATE,
        )

    def teacher_table(self) -> Job:
        """Return the job that renders the table of the teacher's errors."""
        return self._shows(
            "teacher_table",
            self.settings.teacher_table(),
            *self._table_files("teacher_table"),
            self.layout.metrics("teacher_table"),
            metrics=self.layout.teacher_metrics,
            template=TEMPLATE,
        )

    def measured(self) -> Job:
        """Return the job that collects what training took, where it has just been done."""
        seed = self.config.settings.seeds[0]
        names = self.config.costing()
        checkpoints = [self.layout.checkpoint_record(name, seed) for name in names]
        return Job(
            stage="paper",
            settings=self.settings.measured(),
            record=self.layout.costs,
            outputs=(self.layout.costs,),
            inputs={"checkpoints": checkpoints},
            options={"checkpoints": checkpoints},
        )

    def costs_table(self) -> Job:
        """Return the job that renders what the rows of a table cost."""
        return self._shows(
            COSTS_TABLE,
            self.settings.costs(),
            *self._table_files(COSTS_TABLE),
            self.layout.metrics(COSTS_TABLE),
            measured=self.layout.costs,
            template=TEMPLATE,
        )

    def content_bias_table(self) -> Job:
        """Return the job that renders what that test has found."""
        return self._shows(
            CONTENT_BIAS,
            self.settings.content_bias_table(),
            *self._table_files(CONTENT_BIAS),
            self.layout.metrics(CONTENT_BIAS),
            measured=self.layout.content_bias,
            template=TEMPLATE,
        )

    def consistency_table(self) -> Job:
        """Return the job that renders what that has found, as a table and a figure."""
        return self._shows(
            CONSISTENCY,
            self.settings.consistency_table(),
            *self._table_files(CONSISTENCY),
            self.layout.metrics(CONSISTENCY),
            *self._drawn(CONSISTENCY),
            measured=self.layout.consistency,
            template=TEMPLATE,
        )

    def cache_fidelity_table(self) -> Job:
        """Return the job that renders what those settings take and lose."""
        return self._shows(
            CACHE_FIDELITY,
            self.settings.cache_fidelity_table(),
            *self._table_files(CACHE_FIDELITY),
            self.layout.metrics(CACHE_FIDELITY),
            measured=self.layout.cache_fidelity,
            template=TEMPLATE,
        )

    def preference_table(self, root: Path = Path()) -> Job:
        """Return the job that renders what raters prefer; below `root` there may be no votes."""
        settings, inputs = self.settings.preference_table(), dict[str, Files]()
        votes = Path(self.config.preference_votes or "")
        if (root / votes).is_file():
            inputs["votes"] = votes
        made = [*self._table_files(PREFERENCE), self.layout.metrics(PREFERENCE)]
        return self._shows(PREFERENCE, settings, *made, **inputs, template=TEMPLATE)

    def analysis_tables(self) -> Job:
        """Return the job that renders the tables of what features know."""
        shown, first = self.config.analysis, ANALYSIS_TABLES[0]
        assert shown is not None
        rows = [row.variant for row in shown.rows]
        return self._shows(
            first,
            self.settings.analysis_table(),
            *(path for name in ANALYSIS_TABLES for path in self._table_files(name)),
            self.layout.metrics(first),
            analyses=self.analyses(rows, self.config.settings.seeds),
            template=TEMPLATE,
        )

    def figure(self, name: str) -> Job:
        """Return the job that draws a figure."""
        figure = self.config.figures[name]
        inputs: dict[str, Files]
        if isinstance(figure, AnalysisFigure):
            inputs = {"analyses": self.figure_analyses(figure)}
        elif isinstance(figure, ScoresFigure):
            inputs = {"scores": self.figure_scores(figure)}
        elif isinstance(figure, ReliabilityFigure):
            inputs = {"calibration": self._calibration_shown()}
        elif isinstance(figure, TrainingFigure):
            return self._shows_trainings(name, figure)
        else:
            return self._shows_videos(name, figure, self.settings.figure(name), self._drawn(name))
        return self._shows(name, self.settings.figure(name), *self._drawn(name), **inputs)

    def _shows_trainings(self, name: str, figure: TrainingFigure) -> Job:
        """Return a job that is told of checkpoints, and reads the histories beside them."""
        seeds = self.config.settings.seeds
        runs = [(row.variant, seed) for row in figure.rows for seed in seeds]
        records: dict[str, Files] = {
            "checkpoints": [self.layout.checkpoint_record(*run) for run in runs]
        }
        job = self._shows(name, self.settings.figure(name), *self._drawn(name), **records)
        curves = [self.layout.checkpoint(*run) / "curves.csv" for run in runs]
        return replace(job, beside={"curves": curves})

    def _drawn(self, figure: str) -> list[Path]:
        return [self.layout.figure(figure, kind) for kind in ("pdf", "png")]

    def video(self, name: str) -> Job:
        """Return the job that writes a video for people."""
        chosen = self.config.videos[name]
        made = [self.layout.video(name)]
        return self._shows_videos(name, chosen, self.settings.video(name), made)

    def _shows_videos(
        self, name: str, shown: Figure | Video, settings: Strict, outputs: list[Path]
    ) -> Job:
        """Return a job that shows videos; it is told of their folders, and reads their frames."""
        [protocol] = shown.shown_protocols
        split = self.config.settings.rollouts.protocols[protocol].split
        folders = self.shown_rollouts(shown)
        records: dict[str, Files] = {
            "clips": self.shards(split),
            "rollouts": [folder / "rollout.json" for folder in folders],
        }
        job = self._shows(name, settings, *outputs, **records)
        return replace(
            job,
            beside={"rgb": [folder / "rgb.npy" for folder in folders]},
            options={"clips": self.folder(split), "rollouts": folders},
        )

    def facts(self) -> Job:
        """Return the job that states what the paper's text says of the scale."""
        files = (self.layout.facts, self.layout.setup)
        return self._shows("facts", self.settings.facts(), *files, template=TEMPLATE)

    def paper(self, root: Path = Path()) -> Job:
        """Return the job that compiles the paper from this run's tables and figures, and from those
        of the study that an earlier run has left below `root`."""
        # neither videos nor what tables are made of, as what training took
        told = self.layout.provenance("*").parent
        asked = [
            job
            for job in self.shown()
            if job.record.parent == told and job.record.stem not in self.config.videos
        ]
        shown = [self.layout.table("*", "tex"), self.layout.figure("*", "pdf")]
        names = {path.stem for pattern in shown for path in root.glob(str(pattern))}
        names -= {CACHE_FIDELITY, PREFERENCE}  # the text has no part of them
        records = {self.layout.provenance(name) for name in names}
        text = {
            path.relative_to(root)
            for pattern in ("**/*.tex", "*.bib")
            for path in root.glob(str(PAPER / pattern))
        }
        records = {path for path in records if (root / path).exists()}
        files = sorted(records | text | {job.record for job in asked})
        job = self._shows("paper", self.settings.paper(), self.layout.paper, files=files)
        # LaTeX reads the files that those records tell of
        read = [path for made in asked for path in made.outputs if path.suffix in (".tex", ".pdf")]
        return replace(job, beside={"shown": read})

    def copies(self) -> dict[Path, Path]:
        """Return what is copied from this scale's results to the tracked ones, by the copy."""
        names = [*self.config.tables, "teacher_table"]
        names += ANALYSIS_TABLES if self.config.analysis else []
        names += [COSTS_TABLE] if self.config.costs else []
        names += [CONTENT_BIAS] if self.config.content_bias else []
        names += [CONSISTENCY] if self.config.consistency else []
        names += [CACHE_FIDELITY] if self.config.settings.cache_fidelity else []
        names += [PREFERENCE] if self.config.preference_votes else []
        made = [path for name in names for path in self._table_files(name)]
        found = {Path("results") / path.name: path for path in made}
        figures = [*self.config.figures, *([CONSISTENCY] if self.config.consistency else [])]
        drawn = [path for name in figures for path in self._drawn(name)]
        found |= {Path("results/figures") / path.name: path for path in drawn}
        return {**found, PAPER / "main.pdf": self.layout.paper}

    def shown(self) -> list[Job]:
        """Return the jobs that make what people look at, but for the PDF."""
        config = self.config
        return [
            *(self.table(name) for name in config.tables),
            self.teacher_table(),
            *([self.analysis_tables()] if config.analysis else []),
            *([self.measured(), self.costs_table()] if config.costs else []),
            *([self.content_bias_table()] if config.content_bias else []),
            *([self.consistency_table()] if config.consistency else []),
            *(self.figure(name) for name in config.figures),
            *(self.video(name) for name in config.videos),
            self.facts(),
        ]
