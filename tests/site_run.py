"""A small run with clips, videos, scores and tables, for tests of the results site."""

import shutil
from pathlib import Path

import numpy as np

from conftest import ROOT, edit_yaml, write_fake_clips
from geomem.config import load_config
from geomem.formats import ClipStore, sha256_file, write_json, write_tensors, write_videos
from geomem.layout import Layout

LAYOUT = Layout("tiny")
PROTOCOL, CLIPS, FRAMES, SIDE, CONTEXT = "spin_replay", 3, 8, 16, 2
SHADES = {"repeated_frame": 1, "memory_empty": 4, "memory_4": 2}
MEDIAN = 1  # the clip in which memory_4 gains the median


def make_run(root: Path) -> Path:
    """Write the tracked tables and figures, and videos of three variants on one protocol."""
    shutil.copytree(ROOT / "config", root / "config")
    edit_yaml(root / "config/config.yaml", scale="tiny")
    for name in ("tables", "provenance", "figures", "paper"):
        shutil.copytree(ROOT / LAYOUT.results / name, root / LAYOUT.results / name)
    config = load_config(root)
    split = config.settings.rollouts.protocols[PROTOCOL].split
    clips = root / LAYOUT.clips(config.settings.splits[split].dataset, split)
    store = ClipStore(write_fake_clips(clips, clips=CLIPS, frames=FRAMES, size=SIDE))
    truth = np.stack([store.rgb(clip) for clip in range(CLIPS)])
    for variant, shade in SHADES.items():
        rgb = truth.copy()
        rgb[:, CONTEXT:] //= shade
        if variant == "memory_4":  # by how much it gains differs from clip to clip
            rgb[0, CONTEXT:] = truth[0, CONTEXT:]
            rgb[2, CONTEXT:] //= 2
        _write(root, variant, rgb, store)
    return root


def _write(root: Path, variant: str, rgb: np.ndarray, store: ClipStore) -> None:
    names = [clip.clip_id for clip in store.clips]
    identity = {"variant": variant, "seed": 0, "protocol": PROTOCOL, "clips": names}
    made_by = {"stage": "rollouts", "version": 1, "settings": {"context": CONTEXT}, "inputs": {}}
    folder = root / LAYOUT.rollout(variant, 0, PROTOCOL)
    write_videos(folder, rgb, made_by, identity)
    values = [[20.0 + clip + frame for frame in range(FRAMES - CONTEXT)] for clip in range(CLIPS)]
    scores = {
        **identity,
        "family": "frames",
        "context": CONTEXT,
        "names": {},
        "per_frame": {"psnr": values},
        "provenance": {"inputs": {"rollout": sha256_file(folder / "rollout.json")}},
    }
    write_json(root / LAYOUT.scores(variant, 0, PROTOCOL, "frames"), scores)


def write_clouds(root: Path) -> None:
    """Write a point cloud as the feature analysis does."""
    import torch

    points = {"truth.points": torch.rand(9, 3), "truth.colours": torch.zeros(9, 3).byte()}
    write_tensors(root / LAYOUT.clouds(None, 0), points, {})
