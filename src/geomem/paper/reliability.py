"""The reliability diagram of the VGGT score: what was predicted, and what was there."""

import seaborn as sns
from matplotlib.figure import Figure

from geomem.metrics.scene_calibration import SceneCalibration
from geomem.paper.figures import COLUMN_WIDTH, paper_style


def reliability_figure(calibration: SceneCalibration) -> Figure:
    """Return the share of frames of one scene over their probability, on held-out scenes.

    Beside it stands the mean score of clips by the number of frames of another scene, and what it
    would be if it told every frame.
    """
    bins, frames = calibration.bins, sum(part.count for part in calibration.bins)
    with paper_style():
        figure = Figure(figsize=(2 * COLUMN_WIDTH, 2.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color="0.6", linestyle=":")
        left.plot([b.predicted for b in bins], [b.observed for b in bins], marker="o")
        left.set(xlabel="probability", ylabel="of the given scene", xlim=(0, 1), ylim=(0, 1))
        left.set_title(f"calibration error {calibration.error:.3f} ({frames:,} frames)")
        judged = len(calibration.spliced) - 1
        numbers = list(range(judged + 1))
        told = [1 - number / judged for number in numbers]
        right.plot(numbers, told, color="0.6", linestyle=":")
        right.plot(numbers, calibration.spliced, marker="o")
        right.set(xlabel=f"of {judged} frames, of another scene", ylabel="VGGT score", ylim=(0, 1))
        right.set_title(f"{calibration.test_clips} held-out clips")
        for axis in (left, right):
            sns.despine(ax=axis)
    return figure
