"""One job of a study."""

from dataclasses import dataclass, field
from pathlib import Path

from geomem.registry.strict import Strict

Files = Path | list[Path]


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
