"""Where every file of a study lies; said once, for the rules, for verification and for tracking.

Paths are relative to the project's root. Names may be the workflow's wildcards: `{variant}`.
"""

from dataclasses import dataclass
from pathlib import Path

Name = str | int


@dataclass(frozen=True)
class Layout:
    """Paths of one scale."""

    scale: str

    @property
    def data(self) -> Path:
        """What can be made again, outside DVC."""
        return Path("data") / self.scale

    @property
    def results(self) -> Path:
        """What a study is about."""
        return Path("results") / self.scale

    # clips and plans

    def archive(self, dataset: Name) -> Path:
        """Return the folder of a downloaded archive's parts."""
        return Path(f"data/archives/{dataset}/parts")

    def unpacked(self, dataset: Name) -> Path:
        """Return the folder of an unpacked archive."""
        return Path(f"data/archives/{dataset}/unpacked")

    def clips(self, dataset: Name, split: Name) -> Path:
        """Return the folder of a split's shards."""
        return self.data / f"clips/{dataset}/{split}"

    def shard(self, dataset: Name, split: Name, number: Name) -> Path:
        """Return the folder of a shard."""
        shown = number if isinstance(number, str) else f"{number:03d}"
        return self.clips(dataset, split) / f"shard-{shown}"

    def chosen_clips(self, split: Name) -> Path:
        """Return which clips of an archive a split has."""
        return self.data / f"plans/clips/{split}.json"

    def plan(self, plan: Name) -> Path:
        """Return a clip plan."""
        return self.data / f"plans/{plan}.json"

    @property
    def costs(self) -> Path:
        """Return what training took on the machine that made the results."""
        return self.results / "costs.json"

    @property
    def content_bias(self) -> Path:
        """Return which networks' distances of videos see time."""
        return self.results / "content_bias.json"

    @property
    def consistency(self) -> Path:
        """Return what metrics of 3D consistency make of rooms spoiled by known amounts."""
        return self.results / "consistency.json"

    @property
    def cache_fidelity(self) -> Path:
        """Return what settings of the feature cache take and lose."""
        return self.results / "cache_fidelity.json"

    @property
    def calibration(self) -> Path:
        """Return the calibration of the VGGT score that the scale makes of its teacher."""
        return self.results / "calibration.json"

    def sanity(self, family: str) -> Path:
        """Return what a family of metrics says of truth, shuffled truth and noise."""
        return self.results / f"sanity/{family}.json"

    # teacher and features

    @property
    def trained_teacher(self) -> Path:
        """The small teacher, where it is trained anew."""
        return self.data / "teacher/model.safetensors"

    @property
    def teacher_metrics(self) -> Path:
        """What the teacher was measured at."""
        return self.results / "teacher.json"

    def features(self, teacher: Name) -> Path:
        """Return the folder of a teacher's features."""
        return self.data / f"features/{teacher}"

    def basis(self, teacher: Name) -> Path:
        """Return the basis of a teacher's features."""
        return self.features(teacher) / "basis.safetensors"

    def basis_record(self, teacher: Name) -> Path:
        """Return the record beside it."""
        return self.basis(teacher).with_suffix(".json")

    def cache(self, teacher: Name, plan: Name, kind: Name) -> Path:
        """Return the folder of a cache."""
        return self.features(teacher) / f"{plan}/{kind}"

    def cache_part(self, teacher: Name, plan: Name, kind: Name, number: Name) -> Path:
        """Return the index of a part of a cache."""
        shown = number if isinstance(number, str) else f"{number:03d}"
        return self.cache(teacher, plan, kind) / f"part-{shown}.json"

    # variants

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.results / "checkpoints"

    @property
    def rollouts(self) -> Path:
        """The folder of all generated videos."""
        return self.results / "rollouts"

    @property
    def large(self) -> tuple[Path, Path]:
        """Folders of results that are too large for git."""
        return self.checkpoints, self.rollouts

    def state(self, variant: Name, seed: Name) -> Path:
        """Return the folder of resumable states of a training."""
        return self.data / f"training_state/{variant}/seed{seed}"

    def checkpoint(self, variant: Name, seed: Name) -> Path:
        """Return the folder of a checkpoint."""
        return self.checkpoints / f"{variant}/seed{seed}"

    def checkpoint_record(self, variant: Name, seed: Name) -> Path:
        """Return the record of a checkpoint."""
        return self.checkpoint(variant, seed) / "checkpoint.json"

    def pick(self, variant: Name) -> Path:
        """Return the record of a pick."""
        return self.results / f"choices/{variant}.json"

    def rollout(self, variant: Name, seed: Name, protocol: Name) -> Path:
        """Return the folder of generated videos."""
        return self.rollouts / f"{variant}/seed{seed}/{protocol}"

    def rollout_record(self, variant: Name, seed: Name, protocol: Name) -> Path:
        """Return the record of generated videos."""
        return self.rollout(variant, seed, protocol) / "rollout.json"

    def scores(self, variant: Name, seed: Name, protocol: Name, family: Name) -> Path:
        """Return the scores of generated videos by a family of metrics."""
        return self.results / f"scores/{variant}/seed{seed}/{protocol}/{family}.json"

    def analysis(self, variant: Name | None, seed: Name) -> Path:
        """Return the record of what features know: a variant's, or with None the teacher's."""
        place = "teacher" if variant is None else f"{variant}/seed{seed}"
        return self.results / f"analysis/{place}.json"

    def clouds(self, variant: Name | None, seed: Name) -> Path:
        """Return the point clouds beside it."""
        return self.analysis(variant, seed).with_suffix(".safetensors")

    # what is shown

    def table(self, table: Name, suffix: str) -> Path:
        """Return a table as csv or tex."""
        return self.results / f"tables/{table}.{suffix}"

    def metrics(self, table: Name) -> Path:
        """Return a table's values alone, for DVC."""
        return self.results / f"metrics/{table}.json"

    def figure(self, figure: Name, suffix: str) -> Path:
        """Return a figure as pdf or png."""
        return self.results / f"figures/{figure}.{suffix}"

    def video(self, video: Name) -> Path:
        """Return a video for people."""
        return self.results / f"videos/{video}.mp4"

    def provenance(self, name: Name) -> Path:
        """Return where a table, figure or video comes from."""
        return self.results / f"provenance/{name}.json"

    @property
    def facts(self) -> Path:
        """What the paper's text says of the scale."""
        return self.results / "tables/facts.tex"

    @property
    def setup(self) -> Path:
        """The table of what is trained at the scale; it comes with the facts."""
        return self.results / "tables/setup.tex"

    @property
    def paper(self) -> Path:
        """The PDF."""
        return self.results / "paper/main.pdf"
