"""Jobs that train, generate and score."""

from collections.abc import Mapping
from pathlib import Path

from geomem.config.study import VGGT_SCORE
from geomem.dag.data import DataJobs
from geomem.dag.job import Files, Job
from geomem.metrics.registry import FAMILIES, WeightFile, family_of
from geomem.sources.registry import Download


class RunJobs(DataJobs):
    """The jobs of variants, and those that try metrics and the cache."""

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
            if config.compressed(variant):
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
