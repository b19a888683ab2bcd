"""The table of what is trained at a scale, on which data, and how long videos are sampled."""

from geomem.formats.teacher_sizes import teacher_config
from geomem.networks.unread import unread_tensors
from geomem.networks.vggt.model import VGGT
from geomem.paper.results import sentences
from geomem.paper.tables import Cell, Column, Latex, Row, Table, escape_latex
from geomem.settings.evaluation import Guidance
from geomem.settings.setup import FactsJob, SetupRow

NAMED = 2  # variants that a row names before it counts them
COLUMNS = (
    Column(key="parameters", label="parameters", unit="M"),
    Column(key="frames", label=Latex(r"\shortstack{frames of\\a window}"), precision=0),
    Column(key="windows", label="windows", precision=0),
    Column(key="steps", label="steps", precision=0),
    Column(key="batch", label="batch", precision=0),
    Column(key="rate", label=Latex(r"\shortstack{rate,\\$10^{-4}$}"), precision=1),
    Column(key="warmup", label=Latex(r"\shortstack{warm-up\\steps}"), precision=0),
    Column(key="ema", label="EMA", precision=4),
)


def setup_table(settings: FactsJob) -> Table:
    """Return the table: a row for each recipe and the teacher; data and sampling are its notes.

    Args:
        settings: Of the job.
    """
    with unread_tensors():
        teacher = VGGT(teacher_config(settings.architecture))
        rows = [_row(row, settings) for row in settings.rows]
    size = Cell(value=sum(p.numel() for p in teacher.parameters()) / 1e6)
    frozen = Row(
        label=f"{settings.teacher} (frozen teacher)",
        cells={"parameters": size},
        rule_above=bool(rows),
    )
    return Table(
        label="setup",
        caption=sentences(
            f"What is trained at scale {settings.scale}: recipes, and the variants of each."
        ),
        columns=COLUMNS,
        rows=[*rows, frozen],
        notes=[
            sentences(
                "Parameters are of the first variant that is named; windows are those of its plan."
            ),
            _data(settings),
            _sampling(settings),
        ],
        corner="Recipe",
        wide=True,
    )


def _row(row: SetupRow, settings: FactsJob) -> Row:
    recipe = row.optimization
    model = row.method.shell(row.memory, settings.methods)
    values = {
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "frames": row.frames,
        "windows": row.windows,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "rate": recipe.learning_rate * 1e4,
        "warmup": recipe.warmup_steps,
        "ema": recipe.ema_decay,
    }
    named = ", ".join(row.variants[:NAMED])
    more = len(row.variants) - NAMED
    label = f"{row.recipe}: {named}" + (f" and {more} more" if more > 0 else "")
    return Row(label=label, cells={key: Cell(value=value) for key, value in values.items()})


def _data(settings: FactsJob) -> Latex:
    """Say which clips there are, equal splits together."""
    alike: dict[tuple[str, int, int, str], list[str]] = {}
    for name, split in settings.splits.items():
        key = (split.dataset, split.clips, split.frames, split.role)
        alike.setdefault(key, []).append(name.replace("_", " "))
    roles = {split.role for split in settings.splits.values()}
    parts = [
        f"{', '.join(names)}{' each' * (len(names) > 1)} {clips} clips of {frames} frames "
        f"({dataset.replace('_', ' ')}, {role} scenes)"
        for (dataset, clips, frames, role), names in alike.items()
    ]
    shown = f"{settings.resolution}x{settings.resolution} pixels"
    apart = " Scenes are disjoint by role." * (len(roles) > 1)
    return sentences(f"Data, {shown}: {'; '.join(parts)}.{apart}")


def _sampling(settings: FactsJob) -> Latex:
    """Say how long videos are sampled."""
    text = (
        f"Sampling: {settings.sampling_steps} steps a frame; {settings.context} given; "
        f"{settings.keyframe_density:g} of the frames are keyframes, by "
        f"{_words(settings.keyframes)}, and the frames between them by "
        f"{_words(settings.interpolation)}."
    )
    kept = settings.features
    place = "in training" if kept.online else "before training, into a cache"
    target = (
        f"Alignment: with the teacher's tokens compressed to {kept.aligned_channels} principal "
        f"components (layer {kept.layer}), which are computed {place}; rows that say raw tokens "
        "see them whole, in training."
    )
    return Latex(f"{escape_latex(text)} {escape_latex(target)}")


def _words(guidance: Guidance) -> str:
    """Return a scheme of guidance in words."""
    scale = getattr(guidance, "guidance_scale", None)
    strength = "" if scale is None else f" of scale {scale:g}"
    return f"{guidance.scheme.replace('_', ' ')} guidance{strength}"
