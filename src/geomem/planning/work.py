"""How much work each job of a study is: FLOPs, rays or frames, and bytes that it leaves."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomem.config import Config, Resources
from geomem.dag.graph import Dag
from geomem.dag.job import Job
from geomem.diffusion.rollout_plans import plan_rollout
from geomem.formats.cache_kinds import CacheKind
from geomem.formats.features import bytes_per_frame
from geomem.metrics.registry import WeightFile
from geomem.paper.costs import evaluations
from geomem.planning.networks import Counter, Pass
from geomem.settings.jobs import (
    AnalysisJob,
    FeaturesJob,
    ImportJob,
    PickJob,
    PlanJob,
    RolloutJob,
    SanityJob,
    ScoresJob,
    TeacherJob,
    TrainingJob,
)
from geomem.sources.registry import ClipsOfSplit

FLOAT = 4  # bytes
# A frame has to be set up before its rays are cast, which takes as long as so many of them:
# docs/workflow.md has frames a second at three sizes.
RAYS_OF_A_FRAME = 4000
PLAN_WINDOW = 60  # bytes of JSON
SET_IN_SANITY = 3  # truth, shuffled truth and noise


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a job does.

    Attributes:
        kind: By which rates are known: a stage, or `stage.detail`.
        amount: FLOPs of networks (teacher, features, training, rollouts), rays (clips), or frames
            (scores, clips that are converted); 0 of what only has to start.
        disk: Bytes that it leaves.
        asked: What it asks for.
    """

    kind: str
    amount: float = 0.0
    disk: float = 0.0
    asked: Resources


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What a training needs of a device's memory at its peak, bytes.

    Attributes:
        windows: That a process takes at once.
        weights: Parameters, trained or frozen.
        gradients: Of those that are trained; twice where processes exchange them in buckets.
        optimizer: The two moments of Adam.
        averages: Of the parameters (EMA).
        activations: That autograd keeps of the windows, with what is there for a moment.
        casts: Weights in half precision.
        step: What the optimizer takes for a moment, when no activations are there.
    """

    windows: int
    weights: int
    gradients: int
    optimizer: int
    averages: int
    activations: int
    casts: int
    step: int

    @property
    def total(self) -> int:
        """All that is there at once."""
        stay = self.weights + self.gradients + self.optimizer + self.averages
        return stay + max(self.activations + self.casts, self.step)


def peak_of(made: Pass, settings: TrainingJob, asked: Resources) -> Peak:
    """Return the peak memory of a training in each of its processes.

    What the allocator cannot use and the device's own libraries take is not in it.

    Args:
        made: Of one window.
        settings: Of the job.
        asked: How many processes share its windows.
    """
    recipe, processes = settings.recipe, asked.processes * asked.nodes
    windows = max(1, recipe.batch // processes // recipe.accumulation)
    share = processes if recipe.parallel == "fsdp2" else 1
    buckets = 2 if processes > share else 1
    own = FLOAT * made.trained // share
    return Peak(
        windows=windows,
        weights=FLOAT * made.parameters // share,
        gradients=buckets * own,
        optimizer=2 * own,
        averages=own,
        activations=windows * max(made.kept, made.peak - made.casts - FLOAT * made.trained),
        casts=made.casts,
        step=own,
    )


@dataclass(frozen=True)
class Workload:
    """The work of the jobs of a configuration."""

    dag: Dag
    counter: Counter

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.dag.config

    def asks(self, stage: str, detail: str = "") -> Resources:
        """Return what a job of a stage asks for, as the workflow reads it."""
        resources = self.config.settings.resources
        return resources.get(f"{stage}.{detail}", resources[stage])

    def of(self, job: Job) -> Work:
        """Return the work of a job."""
        settings, kind = job.settings, job.stage
        amount = disk = 0.0
        detail = ""
        match settings:
            case ClipsOfSplit():
                kind, amount, disk = self._clips(job, settings)
            case PlanJob():
                kind, disk = "plans", PLAN_WINDOW * settings.plan.windows
            case TeacherJob():
                split = self.config.settings.splits[self.config.settings.teacher.validation_split]
                amount = split.clips * self._teacher(split.frames)
            case FeaturesJob():
                amount, disk = self._features(job, settings)
            case TrainingJob():
                amount, disk = self._training(settings)
                detail = self._recipe(job)
            case ImportJob():
                kind = "picks.import"
            case PickJob():
                kind = "picks"
            case RolloutJob():
                amount, disk = self._rollout(settings)
            case ScoresJob():
                kind = f"scores.{settings.family}"
                amount = settings.frames * self._split_of(settings.protocol).clips
            case SanityJob():
                kind = f"scores.{settings.scores.family}"
                clips = min(settings.clips, self._split_of(settings.scores.protocol).clips)
                amount = SET_IN_SANITY * clips * settings.scores.frames
            case AnalysisJob():
                kind = "scores.analysis"
                chosen = settings.analysis
                test = self.config.settings.splits[chosen.test_split].clips
                amount = (chosen.fit_windows + test) * self._teacher(chosen.frames)
        return Work(kind=kind, amount=amount, disk=disk, asked=self.asks(job.stage, detail))

    def kind_of(self, job: Job) -> str:
        """Return the stage in whose line a job stands, without counting anything."""
        if job.stage == "clips" and job.record.name != "index.json":
            return "plans"
        return "picks" if isinstance(job.settings, ImportJob) else job.stage

    def peaks(self, jobs: Iterable[Job]) -> dict[str, Peak]:
        """Return the peak memory of the trainings among jobs, by variant."""
        found = {}
        for job in jobs:
            if isinstance(job.settings, TrainingJob):
                asked = self.asks("training", self._recipe(job))
                made = self.counter.training(job.settings)
                found[job.record.parent.parent.name] = peak_of(made, job.settings, asked)
        return found

    def downloads(self, jobs: Iterable[Job], root: Path) -> dict[str, float | None]:
        """Return what jobs need that is fetched first, with its bytes where these are known."""
        found: dict[str, float | None] = {}
        read = set[Path]()
        for job in jobs:
            for given in (*job.inputs.values(), *job.beside.values()):
                read |= {given} if isinstance(given, Path) else {*given}
        for name, settings in self.config.datasets.items():
            archive, folder = getattr(settings, "archive", None), self.dag.layout.unpacked(name)
            if archive and folder in read and not (root / folder).exists():
                found[f"{archive.repository}, {name}"] = archive.bytes
        for path, download in self.dag.downloads().items():
            if Path(path) not in read or (root / path).exists():
                continue
            told = path if isinstance(download, WeightFile) else f"{download.repository}, {path}"
            # a file of float32 weights is as large as its parameters
            known = Path(path) == self.dag.weights
            found[told] = FLOAT * self.counter.teacher(1).parameters if known else None
        return found

    # --- by stage -----------------------------------------------------------------------------

    def _clips(self, job: Job, split: ClipsOfSplit) -> tuple[str, float, float]:
        if job.record.name != "index.json":
            return "plans", 0.0, 0.0
        frames = len(split.rows(int(job.record.parent.name.split("-")[1]))) * split.frames
        pixels = split.resolution**2
        depth = any(path.name == "depth.npy" for path in job.outputs)
        disk = frames * (pixels * (3 + 2 * depth) + 16 * FLOAT)
        if self.config.source_of(split.name).imports:
            return "clips.converted", frames, disk
        return "clips", frames * (pixels * split.supersample**2 + RAYS_OF_A_FRAME), disk

    def _features(self, job: Job, settings: FeaturesJob) -> tuple[float, float]:
        chosen = settings.features
        if not job.record.name.startswith("part-"):
            windows = min(chosen.basis_windows, settings.plan.windows)
            return windows * self._teacher(settings.plan.frames), 0.0
        kind = CacheKind.parse(job.record.parent.name)
        share = settings.plan.windows / chosen.shards
        frames = settings.plan.frames if kind.of_window else (kind.fewest + kind.most + 1) // 2
        channels = chosen.aligned_channels if kind.of_window else chosen.channels
        # of remembered frames float16 depth and confidence too
        kept = bytes_per_frame(self.counter.grid**2, channels, stored=chosen.stored, frames=frames)
        disk = share * frames * kept
        if not kind.of_window:
            disk += share * frames * 2 * 2 * settings.resolution**2
        passes = self.counter.teacher(frames, heads=not kind.of_window)
        return share * passes.forward, disk

    def _training(self, settings: TrainingJob) -> tuple[float, float]:
        made, recipe = self.counter.training(settings), settings.recipe
        windows = recipe.steps * recipe.batch
        return windows * (made.forward + made.backward), FLOAT * made.trained

    def _rollout(self, settings: RolloutJob) -> tuple[float, float]:
        clips = settings.clips.clips
        disk = clips * settings.frames * 3 * settings.clips.resolution**2
        count, how = evaluations(settings.method, settings), settings.sampling
        if how is None or count is None:
            return 0.0, disk
        one = self.counter.evaluation(settings.method, settings.memory, how.window)
        amount = count * one.forward
        if settings.teacher and settings.memory:
            windows = self._windows(settings)
            amount += windows * self._teacher(settings.memory.most)
        return clips * amount, disk

    def _windows(self, settings: RolloutJob) -> int:
        """Return how many windows a clip is made in; the memory is built anew before each."""
        how = settings.sampling
        assert how is not None
        plan = plan_rollout(
            settings.frames,
            window=how.window,
            keyframe_density=how.keyframe_density,
            context=settings.context,
            kept=how.kept,
        )
        return len(plan.keyframe_windows) + sum(map(len, plan.interpolation))

    def _teacher(self, frames: int) -> float:
        return self.counter.teacher(frames).forward

    def _split_of(self, protocol: str) -> Any:
        scale = self.config.settings
        return scale.splits[scale.rollouts.protocols[protocol].split]

    def _recipe(self, job: Job) -> str:
        variant = job.record.parent.parent.name
        return self.config.recipe_of(variant)[0]
