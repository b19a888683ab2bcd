"""Every job of a study: what it makes, of what, with which settings.

Said once: the rules take their inputs, options and parameters from here, and verification compares
every record on disk with it. Paths are relative to the project's root.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from geomem.config import Config, JobSettings
from geomem.config.study import VGGT_SCORE
from geomem.errors import InputError
from geomem.formats.cache_kinds import CacheKind
from geomem.layout import Layout
from geomem.metrics.registry import FAMILIES, WeightFile, family_of, metric_of
from geomem.registry.strict import Strict
from geomem.settings.analysis import AnalysisFigure
from geomem.settings.evaluation import CurvesFigure, Figure, ReliabilityFigure, Video
from geomem.sources.registry import Download

Files = Path | list[Path]
PUBLISHED = Path("config/published_numbers.csv")
TEMPLATE = Path("src/geomem/paper/templates/table.tex.j2")
PAPER = Path("paper")  # where its text lies
COSTS_TABLE = "costs_table"
CONTENT_BIAS = "content_bias"
CONSISTENCY = "consistency"
CACHE_FIDELITY = "cache_fidelity"
ANALYSIS_TABLES = ("feature_analysis", "feature_decoding")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job.

    Attributes:
        stage: Whose package makes it, and whose version its record carries.
        settings: What it may read of the configuration.
        record: The JSON file that says how it was made.
        outputs: All its files, the record among them.
        inputs: What it reads, by name; their checksums are in the record.
        beside: What it reads too, and the records among the inputs stand for.
        options: How its command is told of them: option -> file, or folder of the files.
        sums: Outputs whose checksums stand in the record, by their key there.
        choice: The record of the pick that it adopts. A pick that is made again with the same
            outcome changes nothing after it, so the outcome is compared, not the record.
        candidates: The records of the checkpoints that it may adopt, by variant.
    """

    stage: str
    settings: Strict
    record: Path
    outputs: tuple[Path, ...]
    inputs: dict[str, Files] = field(default_factory=dict)
    beside: dict[str, Files] = field(default_factory=dict)
    options: dict[str, Files] = field(default_factory=dict)
    sums: dict[str, Path] = field(default_factory=dict)
    choice: Path | None = None
    candidates: dict[str, Path] = field(default_factory=dict)

    def command_line(self) -> str:
        """Return the options that name the inputs."""
        words = []
        for name, given in self.options.items():
            paths = [given] if isinstance(given, Path) else given
            words += [f"--{name.replace('_', '-')}", *map(str, paths)]
        return " ".join(words)


@dataclass(frozen=True)
class Dag:
    """The jobs of a configuration."""

    config: Config

    @cached_property
    def layout(self) -> Layout:
        """Where their files lie."""
        return Layout(self.config.scale)

    @cached_property
    def settings(self) -> JobSettings:
        """What they may read."""
        return JobSettings(self.config)

    @property
    def teacher(self) -> str:
        """Name of the teacher."""
        return self.config.settings.teacher.name

    @property
    def weights(self) -> Path:
        """The teacher's weights."""
        return Path(self.config.settings.teacher.weights.format(scale=self.config.scale))

    def pinned(self) -> dict[Path, str | None]:
        """Return the checksums of weights that the configuration knows, by their path."""
        teacher = self.config.settings.teacher
        found: dict[Path, str | None] = {self.weights: teacher.sha256} if teacher.sha256 else {}
        for variant in self.config.variants.values():
            if variant.checkpoint and variant.checkpoint.sha256:
                path = Path(variant.checkpoint.weights.format(scale=self.config.scale))
                found[path] = variant.checkpoint.sha256
        return found

    @property
    def basis(self) -> Path:
        """The basis of the teacher's features: the tracked one, or that which is fitted."""
        tracked = self.config.settings.features.basis.format(scale=self.config.scale)
        return Path(tracked) if tracked else self.layout.basis(self.teacher)

    # --- clips, plans, teacher, features ----------------------------------------------------------

    def dataset(self, split: str) -> str:
        """Return the data set of a split."""
        return self.config.settings.splits[split].dataset

    def folder(self, split: str) -> Path:
        """Return the folder of a split's shards."""
        return self.layout.clips(self.dataset(split), split)

    def shards(self, split: str) -> list[Path]:
        """Return the indices of all shards of a split."""
        numbers = range(self.config.settings.splits[split].shards)
        dataset = self.dataset(split)
        return [self.layout.shard(dataset, split, n) / "index.json" for n in numbers]

    def choice(self, split: str) -> Job:
        """Return the job that chooses the clips of a split of an imported data set."""
        path, archive = self.layout.chosen_clips(split), self._archive(split)
        return Job(
            stage="clips",
            settings=self.settings.clips(split),
            record=path,
            outputs=(path,),
            beside=archive,
            options=archive,
        )

    def _archive(self, split: str) -> dict[str, Files]:
        """Return the unpacked archive of a split; a folder that the user has is a setting."""
        downloads = self.config.source_of(split).downloads
        return {"archive": self.layout.unpacked(self.dataset(split))} if downloads else {}

    def clips(self, split: str, number: int) -> Job:
        """Return the job that makes a shard."""
        folder = self.layout.shard(self.dataset(split), split, number)
        source, inputs = self.config.source_of(split), dict[str, Files]()
        if source.imports:
            inputs["choice"] = self.layout.chosen_clips(split)
        given = self.config.conditions_of(split)
        stored = [array for array in ("depth", "actions") if array in given]
        archive = self._archive(split)
        return Job(
            stage="clips",
            settings=self.settings.clips(split),
            record=folder / "index.json",
            outputs=(
                *(folder / f"{array}.npy" for array in ("rgb", "cam", *stored, "crc32")),
                folder / "index.json",
            ),
            inputs=inputs,
            beside=archive,
            options={**archive, **inputs},
        )

    def plan(self, plan: str) -> Job:
        """Return the job that draws a plan."""
        split, path = self.config.settings.plans[plan].split, self.layout.plan(plan)
        return Job(
            stage="clips",
            settings=self.settings.plan(plan),
            record=path,
            outputs=(path,),
            inputs={"clips": self.shards(split)},
            options={"clips": self.folder(split)},
        )

    def teacher_metrics(self) -> Job:
        """Return the job that measures the teacher."""
        split, path = self.config.settings.teacher.validation_split, self.layout.teacher_metrics
        return Job(
            stage="teacher",
            settings=self.settings.teacher(),
            record=path,
            outputs=(path,),
            inputs={"clips": self.shards(split), "weights": self.weights},
            options={"clips": self.folder(split), "weights": self.weights},
        )

    def fitted_basis(self) -> Job:
        """Return the job that fits the basis."""
        plan = self.config.settings.features.basis_plan
        split = self.config.settings.plans[plan].split
        basis, record = self.layout.basis(self.teacher), self.layout.basis_record(self.teacher)
        own: dict[str, Files] = {"plan": self.layout.plan(plan), "weights": self.weights}
        return Job(
            stage="features",
            settings=self.settings.features(plan),
            record=record,
            outputs=(basis, record),
            inputs={"clips": self.shards(split), **own},
            options={"clips": self.folder(split), **own},
            sums={"sha256": basis},
        )

    def cache_part(self, plan: str, kind: CacheKind, number: int) -> Job:
        """Return the job that makes a part of a cache."""
        part = self.layout.cache_part(self.teacher, plan, kind.name, number)
        split = self.config.settings.plans[plan].split
        own: dict[str, Files] = {
            "plan": self.layout.plan(plan),
            "weights": self.weights,
            "basis": self.basis,
        }
        return Job(
            stage="features",
            settings=self.settings.features(plan),
            record=part,
            outputs=(part,),
            inputs={"clips": self.shards(split), **own},
            options={"clips": self.folder(split), **own},
        )

    def cache(self, plan: str, kind: CacheKind) -> list[Path]:
        """Return the indices of all parts of a cache."""
        parts = range(self.config.settings.features.shards)
        return [self.layout.cache_part(self.teacher, plan, kind.name, n) for n in parts]

    # --- variants ---------------------------------------------------------------------------------

    def checkpoint(self, variant: str, seed: int) -> Job:
        """Return the job that makes a checkpoint: a training, an import, or an adoption."""
        chosen = self.config.variants[variant]
        if chosen.best_of:
            return self._adopted(variant, seed)
        return self._imported(variant, seed) if chosen.checkpoint else self._trained(variant, seed)

    def _checkpoint_files(self, variant: str, seed: int) -> tuple[Path, ...]:
        folder = self.layout.checkpoint(variant, seed)
        return (folder / "model", folder / "curves.csv", folder / "checkpoint.json")

    def _trained(self, variant: str, seed: int) -> Job:
        config, chosen = self.config, self.config.variants[variant]
        _, plan = config.recipe_of(variant)
        split = config.settings.plans[plan].split
        inputs: dict[str, Files] = {"plan": self.layout.plan(plan), "clips": self.shards(split)}
        options: dict[str, Files] = {"plan": inputs["plan"], "clips": self.folder(split)}
        if chosen.initial:
            inputs["initial"] = self.layout.checkpoint_record(chosen.initial, seed)
            options["initial"] = self.layout.checkpoint(chosen.initial, seed)
        for name, kind in config.caches_of(variant).items():
            inputs[name] = self.cache(plan, kind)
            options[name] = self.layout.cache(self.teacher, plan, kind.name)
        if online := config.online_weights_of(variant):
            inputs["weights"] = options["weights"] = Path(online)
            if config.aligned_in_3d(variant):
                inputs["basis"] = options["basis"] = self.basis
        return Job(
            stage="training",
            settings=self.settings.training(variant, seed),
            record=self.layout.checkpoint_record(variant, seed),
            outputs=self._checkpoint_files(variant, seed),
            inputs=inputs,
            options=options,
        )

    def _imported(self, variant: str, seed: int) -> Job:
        checkpoint = self.config.variants[variant].checkpoint
        assert checkpoint is not None
        weights: dict[str, Files] = {
            "weights": Path(checkpoint.weights.format(scale=self.config.scale))
        }
        return Job(
            stage="training",
            settings=self.settings.imported(variant),
            record=self.layout.checkpoint_record(variant, seed),
            outputs=self._checkpoint_files(variant, seed),
            inputs=weights,
            options=weights,
        )

    def _adopted(self, variant: str, seed: int) -> Job:
        candidates = self.config.candidates_of(variant)
        choice = self.layout.pick(variant)
        records = {name: self.layout.checkpoint_record(name, seed) for name in candidates}
        return Job(
            stage="picks",
            settings=self.settings.pick(variant),
            record=self.layout.checkpoint_record(variant, seed),
            outputs=self._checkpoint_files(variant, seed),
            options={
                "choice": choice,
                "candidates": [self.layout.checkpoint(name, seed) for name in candidates],
            },
            beside={"choice": choice, "candidates": list(records.values())},
            choice=choice,
            candidates=records,
        )

    def pick(self, variant: str) -> Job:
        """Return the job that picks a variant; it reads no scores where one candidate is left."""
        record, scores = self.layout.pick(variant), self._deciding_scores(variant)
        inputs: dict[str, Files] = {
            f"{path.parts[-4]}-{path.parts[-3]}-{path.stem}": path for path in scores
        }
        return Job(
            stage="picks",
            settings=self.settings.pick(variant),
            record=record,
            outputs=(record,),
            inputs=inputs,
            options={"scores": scores} if scores else {},
        )

    def _deciding_scores(self, variant: str) -> list[Path]:
        rule = self.config.variants[variant].best_of
        assert rule is not None
        families = sorted({family_of(criterion.metric) for criterion in rule.criteria})
        return self.scores_of(dict.fromkeys(self.config.deciding(variant), families))

    def rollout(self, variant: str, seed: int, protocol: str) -> Job:
        """Return the job that generates the videos of a variant on a protocol."""
        config, folder = self.config, self.layout.rollout(variant, seed, protocol)
        split = config.settings.rollouts.protocols[protocol].split
        inputs: dict[str, Files] = {"clips": self.shards(split)}
        options: dict[str, Files] = {"clips": self.folder(split)}
        if variant not in config.floors:
            made = {"checkpoint": config.weights_of(variant), "base": config.backbone_of(variant)}
            inputs |= {k: self.layout.checkpoint_record(v, seed) for k, v in made.items()}
            options |= {k: self.layout.checkpoint(v, seed) for k, v in made.items()}
        if config.needs_of(variant):
            teacher: dict[str, Files] = {"weights": self.weights, "basis": self.basis}
            inputs, options = inputs | teacher, options | teacher
        return Job(
            stage="rollouts",
            settings=self.settings.rollout(variant, protocol),
            record=folder / "rollout.json",
            outputs=(folder / "rgb.npy", folder / "rollout.json"),
            inputs=inputs,
            options=options,
        )

    def scores(self, variant: str, seed: int, protocol: str, family: str) -> Job:
        """Return the job that scores those videos by a family of metrics."""
        record = self.layout.scores(variant, seed, protocol, family)
        split = self.config.settings.rollouts.protocols[protocol].split
        rollout = self.layout.rollout(variant, seed, protocol)
        return Job(
            stage="scores",
            settings=self.settings.scores(protocol, family),
            record=record,
            outputs=(record,),
            inputs={
                "clips": self.shards(split),
                "rollout": rollout / "rollout.json",
                **self._calibration_of(family),
            },
            beside={"rgb": rollout / "rgb.npy", **self._weights_of(family)},
            options={
                "clips": self.folder(split),
                "rollout": rollout,
                **self._calibration_of(family),
            },
        )

    def calibration(self) -> Job:
        """Return the job that calibrates the VGGT score of the scale's teacher."""
        chosen, record = self.config.settings.scores.calibration, self.layout.calibration
        inputs: dict[str, Files] = {"weights": self.weights}
        options = dict(inputs)
        for name, split in (("fit_clips", chosen.fit_split), ("test_clips", chosen.test_split)):
            inputs[name], options[name] = self.shards(split), self.folder(split)
        return Job(
            stage="scores",
            settings=self.settings.calibration(),
            record=record,
            outputs=(record,),
            inputs=inputs,
            options=options,
        )

    def _calibration_of(self, family: str) -> dict[str, Files]:
        """Return what a job of a family reads where the scale's own calibration is for it."""
        if not self.config.calibrates(family):
            return {}
        return {"calibration": self.layout.calibration, "weights": self.weights}

    def _calibration_shown(self) -> Path:
        """Return the calibration of the VGGT score: the tracked one, or the scale's own."""
        tracked = self.config.family_settings(VGGT_SCORE).calibration
        return Path(tracked) if tracked else self.layout.calibration

    def _fetched(self, family: str) -> Mapping[str, WeightFile]:
        """Return by path the weights that are downloaded for a family of metrics."""
        settings = self.config.settings.scores.families.get(family)
        return FAMILIES[family].weights(settings) if settings else {}

    def _weights_of(self, family: str) -> dict[str, Files]:
        """Return those that a job of the family waits for."""
        files = [Path(path) for path in self._fetched(family)]
        return {"weights": files} if files else {}

    def scores_of(self, runs: dict[tuple[str, str], list[str]]) -> list[Path]:
        """Return the score files of variants on protocols by families, with every seed."""
        return [
            self.layout.scores(variant, seed, protocol, family)
            for (variant, protocol), families in runs.items()
            for seed in self.config.seeds_of(variant)
            for family in families
        ]

    def analysis(self, variant: str | None, seed: int) -> Job:
        """Return the job that analyses what features know: a variant's, or the teacher's."""
        chosen, record = self.config.settings.analysis, self.layout.analysis(variant, seed)
        inputs: dict[str, Files] = {"weights": self.weights, "basis": self.basis}
        options = dict(inputs)
        for name, split in (("fit_clips", chosen.fit_split), ("test_clips", chosen.test_split)):
            inputs[name], options[name] = self.shards(split), self.folder(split)
        if variant is not None:
            inputs["checkpoint"] = self.layout.checkpoint_record(variant, seed)
            options["checkpoint"] = self.layout.checkpoint(variant, seed)
        return Job(
            stage="scores",
            settings=self.settings.analysis(variant),
            record=record,
            outputs=(self.layout.clouds(variant, seed), record),
            inputs=inputs,
            options=options,
            sums={"clouds": self.layout.clouds(variant, seed)},
        )

    def content_bias(self) -> Job:
        """Return the job that tests which video features see time."""
        chosen, record = self.config.content_bias, self.layout.content_bias
        assert chosen is not None
        return Job(
            stage="scores",
            settings=self.settings.content_bias(),
            record=record,
            outputs=(record,),
            inputs={"clips": self.shards(chosen.split)},
            options={"clips": self.folder(chosen.split)},
        )

    def consistency(self) -> Job:
        """Return the job that scores rooms spoiled by known amounts."""
        settings, record = self.settings.consistency(), self.layout.consistency
        weights = Path(settings.reprojection.teacher.weights)
        return Job(
            stage="scores",
            settings=settings,
            record=record,
            outputs=(record,),
            inputs={"weights": weights},
            options={"weights": weights},
        )

    def cache_fidelity(self) -> Job:
        """Return the job that weighs settings of the feature cache."""
        settings, record = self.settings.cache_fidelity(), self.layout.cache_fidelity
        chosen = settings.cache_fidelity
        inputs: dict[str, Files] = {"weights": self.weights}
        options = dict(inputs)
        for name, split in (("fit_clips", chosen.fit_split), ("test_clips", chosen.test_split)):
            inputs[name], options[name] = self.shards(split), self.folder(split)
        return Job(
            stage="scores",
            settings=settings,
            record=record,
            outputs=(record,),
            inputs=inputs,
            options=options,
        )

    def sanity(self, family: str) -> Job:
        """Return the job that asks whether a family's metrics tell truth from noise."""
        chosen, record = self.config.sanity, self.layout.sanity(family)
        assert chosen is not None
        split = self.config.settings.rollouts.protocols[chosen.protocol].split
        return Job(
            stage="scores",
            settings=self.settings.sanity(family),
            record=record,
            outputs=(record,),
            inputs={"clips": self.shards(split), **self._calibration_of(family)},
            beside=self._weights_of(family),
            options={"clips": self.folder(split), **self._calibration_of(family)},
        )

    def downloads(self) -> dict[str, Download | WeightFile]:
        """Return by path the published weights that are fetched, from a hub or an address."""
        teacher, found = self.config.settings.teacher, dict[str, Download | WeightFile]()
        for family in self.config.settings.scores.families:
            found |= self._fetched(family)
        if teacher.download:
            found[str(self.weights)] = Download(
                repository=teacher.download,
                revision=teacher.revision,
                files={"model.safetensors": teacher.sha256},
                terms=teacher.terms,
            )
        image = self.config.settings.image_teacher
        if image.weights and image.fetch:
            found[image.weights] = WeightFile(
                path=image.weights, sha256=image.sha256, url=image.url
            )
        for variant in self.config.variants.values():
            if variant.checkpoint and variant.checkpoint.repository:
                chosen = variant.checkpoint
                found[chosen.weights.format(scale=self.config.scale)] = Download(
                    repository=chosen.repository,
                    revision=chosen.revision,
                    files={chosen.file: chosen.sha256},
                )
        return found

    # --- what is shown ----------------------------------------------------------------------------

    def table_scores(self, table: str) -> list[Path]:
        """Return the score files that a table shows."""
        shown = self.config.tables[table]
        protocols = dict.fromkeys(column.protocol for column in shown.columns)
        families = {p: self.config.families_of(shown, p) for p in protocols}
        runs = {(row.variant, p): asked for row in shown.rows for p, asked in families.items()}
        return self.scores_of(runs)

    def figure_scores(self, figure: CurvesFigure) -> list[Path]:
        """Return the score files that curves show."""
        families = self.config.families_of_curves(figure)
        runs = {(row.variant, p): families for row in figure.rows for p in figure.protocols}
        return self.scores_of(runs)

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
        elif isinstance(figure, CurvesFigure):
            inputs = {"scores": self.figure_scores(figure)}
        elif isinstance(figure, ReliabilityFigure):
            inputs = {"calibration": self._calibration_shown()}
        else:
            return self._shows_videos(name, figure, self.settings.figure(name), self._drawn(name))
        return self._shows(name, self.settings.figure(name), *self._drawn(name), **inputs)

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
        return self._shows("facts", self.settings.facts(), self.layout.facts)

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
        names.discard(CACHE_FIDELITY)  # the text has no part of it
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
        made = [path for name in names for path in self._table_files(name)]
        found = {Path("results") / path.name: path for path in made}
        figures = [*self.config.figures, *([CONSISTENCY] if self.config.consistency else [])]
        drawn = [path for name in figures for path in self._drawn(name)]
        found |= {Path("results/figures") / path.name: path for path in drawn}
        return {**found, PAPER / "main.pdf": self.layout.paper}

    # --- all of them ------------------------------------------------------------------------------

    def stages(self) -> Iterator[list[Job]]:
        """Yield all jobs that leave a record, in groups; a group comes after what it is made of."""
        scale = self.config.settings
        yield [self.choice(n) for n in scale.splits if self.config.source_of(n).imports]
        yield [
            self.clips(name, number)
            for name, split in scale.splits.items()
            for number in range(split.shards)
        ]
        yield [self.plan(name) for name in scale.plans]
        yield [self.teacher_metrics()]
        runs, scores = self.config.runs(), self.config.scores()
        trained = [name for name in runs if self.config.variants[name].trained]
        kinds = dict.fromkeys(
            (self.config.recipe_of(name)[1], kind)
            for name in trained
            for kind in self.config.caches_of(name).values()
        )
        parts = range(scale.features.shards)
        yield [] if scale.features.basis else [self.fitted_basis()]
        calibrates = any(map(self.config.calibrates, self.config.asked_families()))
        yield [self.calibration()] if calibrates else []
        yield [self.cache_part(plan, kind, number) for plan, kind in kinds for number in parts]
        for group in self._generations(list(runs)):
            yield [self.pick(name) for name in group if self.config.variants[name].best_of]
            yield [
                self.checkpoint(name, seed)
                for name in group
                if name not in self.config.floors and not self.config.variants[name].checkpoint_of
                for seed in scale.seeds
            ]
            made = [
                (name, seed, protocol)
                for name in group
                for seed in self.config.seeds_of(name)
                for protocol in runs[name]
            ]
            yield [self.rollout(*run) for run in made]
            yield [
                self.scores(name, seed, protocol, family)
                for name, seed, protocol in made
                for family in scores.get((name, protocol), [])
            ]
        analysed = self.config.analysed()
        variants = [(name, seed) for name in analysed for seed in scale.seeds]
        yield [self.analysis(*run) for run in [(None, 0), *variants]] if analysed else []
        yield [self.content_bias()] if self.config.content_bias else []
        yield [self.consistency()] if self.config.consistency else []
        shown = {family_of(c.metric) for t in self.config.tables.values() for c in t.columns}
        yield [self.sanity(family) for family in sorted(shown)] if self.config.sanity else []
        yield self.shown()

    def by_name(self) -> list[Job]:
        """Return the jobs that are done when they are asked for by name alone, in order.

        What does not fit together is none of them; it is told where it is asked for.
        """
        try:
            return [self.cache_fidelity(), self.cache_fidelity_table()]
        except InputError:
            return []

    def below(self, folder: Path) -> list[Job]:
        """Return the jobs that leave their record in a folder."""
        return [job for jobs in self.stages() for job in jobs if job.record.is_relative_to(folder)]

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

    def _generations(self, variants: list[str]) -> Iterator[list[str]]:
        """Yield variants in groups; what a checkpoint is made from comes before it."""
        made: set[str] = set()
        left = list(variants)
        while left:
            ready = [name for name in left if made.issuperset(self.config.starts_of(name))]
            yield ready
            made |= set(ready)
            left = [name for name in left if name not in ready]
