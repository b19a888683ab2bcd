"""All jobs of a study, in the order of their stages."""

from collections.abc import Iterator
from pathlib import Path

from geomem.dag.job import Job
from geomem.dag.shown import ShownJobs
from geomem.errors import InputError
from geomem.metrics.registry import family_of


class Dag(ShownJobs):
    """The jobs of a configuration."""

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

    def by_name(self, root: Path = Path()) -> list[Job]:
        """Return the jobs that are done when they are asked for by name alone, in order.

        What does not fit together is none of them; it is told where it is asked for.

        Args:
            root: Of the project, where there may be votes of raters.
        """
        jobs = [self.preference_table(root)] if self.config.preference_votes else []
        try:
            return [self.cache_fidelity(), self.cache_fidelity_table(), *jobs]
        except InputError:
            return jobs

    def below(self, folder: Path) -> list[Job]:
        """Return the jobs that leave their record in a folder."""
        return [job for jobs in self.stages() for job in jobs if job.record.is_relative_to(folder)]

    def _generations(self, variants: list[str]) -> Iterator[list[str]]:
        """Yield variants in groups; what a checkpoint is made from comes before it."""
        made: set[str] = set()
        left = list(variants)
        while left:
            ready = [name for name in left if made.issuperset(self.config.starts_of(name))]
            yield ready
            made |= set(ready)
            left = [name for name in left if name not in ready]
