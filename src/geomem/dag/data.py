"""Jobs that make clips, plans and features, and measure the teacher."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from geomem.config import Config, JobSettings
from geomem.dag.job import Files, Job
from geomem.formats.cache_kinds import CacheKind
from geomem.layout import Layout


@dataclass(frozen=True)
class DataJobs:
    """The jobs that everything else begins with."""

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
