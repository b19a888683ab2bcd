"""The model card of an exported pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

TEMPLATE = Path(__file__).with_name("templates") / "card.md"
TAGS = ("video-generation", "diffusion-forcing", "camera-control", "3d-memory")


@dataclass(frozen=True, kw_only=True)
class Score:
    """A mean over the clips of a protocol.

    Attributes:
        protocol: Name of the protocol.
        dataset: Of its clips.
        metric: As results call it.
        value: In the metric's unit.
        clips: How many.
    """

    protocol: str
    dataset: str
    metric: str
    value: float
    clips: int


@dataclass(frozen=True, kw_only=True)
class CardData:
    """What a card says of one model.

    Attributes:
        variant: Name of the variant.
        seed: Of its training; None for tracked weights.
        scale: Of the configuration.
        settings: Digest of what it was trained with, or of the file of weights.
        origin: One sentence on where the weights come from.
        dataset: What it was trained on.
        memory: One sentence on its memory.
        resolution: Side of the frames, pixels.
        window: Frames that it sees at once.
        parameters: Of all its networks but the teacher.
        scores: Of its videos; none where there are none.
    """

    variant: str
    seed: int | None
    scale: str
    settings: str
    origin: str
    dataset: str
    memory: str
    resolution: int
    window: int
    parameters: int
    scores: Sequence[Score] = ()

    @property
    def name(self) -> str:
        """The model's name."""
        run = "" if self.seed is None else f"-seed{self.seed}"
        return f"geomem-{self.scale}-{self.variant}{run}"


def write_card(data: CardData) -> str:
    """Return the card: the hub's front matter, then the sections of a model card."""
    words = {
        "name": data.name,
        "variant": data.variant,
        "seed": "none (tracked weights)" if data.seed is None else str(data.seed),
        "scale": data.scale,
        "settings": data.settings,
        "origin": data.origin,
        "dataset": data.dataset,
        "memory": data.memory,
        "resolution": str(data.resolution),
        "window": str(data.window),
        "parameters": f"{data.parameters / 1e6:.1f} M",
        "scores": _table(data.scores),
    }
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(words)
    return f"---\n{_front_matter(data)}---\n\n{text}"


def _front_matter(data: CardData) -> str:
    matter: dict[str, object] = {
        "license": "apache-2.0",
        "library_name": "diffusers",
        "pipeline_tag": "image-to-video",
        "tags": list(TAGS),
        "datasets": [data.dataset],
    }
    if data.scores:
        matter["metrics"] = sorted({score.metric for score in data.scores})
        matter["model-index"] = [{"name": data.name, "results": _results(data.scores)}]
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)


def _results(scores: Sequence[Score]) -> list[dict[str, object]]:
    """Return the scores as the hub's `model-index` has them, an entry a protocol."""
    results: list[dict[str, object]] = []
    for protocol in dict.fromkeys(score.protocol for score in scores):
        own = [score for score in scores if score.protocol == protocol]
        results.append(
            {
                "task": {"type": "image-to-video"},
                "dataset": {"name": f"{own[0].dataset}, {protocol}", "type": own[0].dataset},
                "metrics": [{"type": s.metric, "value": round(s.value, 4)} for s in own],
            }
        )
    return results


def _table(scores: Sequence[Score]) -> str:
    if not scores:
        return "No videos of it have been scored here."
    lines = ["| protocol | clips | metric | mean |", "| --- | ---: | --- | ---: |"]
    lines += [f"| {s.protocol} | {s.clips} | {s.metric} | {s.value:.4g} |" for s in scores]
    return "\n".join(lines)
