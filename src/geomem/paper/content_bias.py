"""The table of the content-bias test: which networks' distances of videos see time."""

from collections.abc import Mapping
from typing import Any

from geomem.metrics.damages import BROKEN, CLEAN, FROZEN, KEPT, SHUFFLED, of_strength
from geomem.paper.results import sentences
from geomem.paper.tables import Cell, Column, Row, Table
from geomem.settings.jobs import ContentBiasTableJob

# Kernel distances of features that differ little begin there.
PRECISION = 4


def content_bias_table(settings: ContentBiasTableJob, measured: Mapping[str, Any]) -> Table:
    """Return the table of the content-bias test.

    Args:
        settings: Of the job.
        measured: Record of the test.
    """
    chosen, networks = settings.content_bias, measured["networks"]
    warps = [
        Column(
            key=of_strength(way, strength),
            label=f"time {way}",
            precision=PRECISION,
            group=f"warps of {100 * strength:.3g} % of the height",
        )
        for strength in chosen.strengths
        for way in (KEPT, BROKEN)
    ]
    columns = [
        Column(key=CLEAN, label="clean", precision=PRECISION),
        *warps,
        Column(key=SHUFFLED, label="shuffled", precision=PRECISION),
        Column(key=FROZEN, label="frozen", precision=PRECISION),
    ]
    rows = [
        Row(label=name, cells={key: Cell(**one) for key, one in found["distances"].items()})
        for name, found in networks.items()
    ]
    passing = [name for name, found in networks.items() if found["passes"]]
    failing = [name for name in networks if name not in passing]
    notes = [
        "Damage per frame is equal: one warp for a whole clip keeps time, another for every frame "
        "breaks it. Clean: the two halves of the undamaged clips. A network passes if the distance "
        "grows where time breaks, at every strength and beyond a 95 % interval over clips."
    ]
    if passing:
        notes.append(f"Pass: {', '.join(passing)}.")
    if failing:
        notes.append(
            f"Fail, and so are not to be read as distances of videos: {', '.join(failing)}."
        )
    return Table(
        label="content_bias",
        caption=sentences(
            "The content-bias test: kernel distances of damaged clips to the same clips undamaged.",
            f"Scale {settings.scale}: {len(measured['clips'])} clips of {chosen.frames} frames.",
        ),
        columns=columns,
        rows=rows,
        notes=[sentences(note) for note in notes],
        corner="Features",
        wide=True,
    )
