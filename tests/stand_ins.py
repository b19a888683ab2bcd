"""Projects whose smoke scale is on other data sets than rooms, and their clips."""

import shutil
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, edit_yaml
from geomem.clips.__main__ import main
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.formats import ClipStore

DRIVES = {"spin": "spin", "orbit": "pan", "out_and_back": "out_and_back", "loop": "out_and_back"}
UNTOLD = ("repeated_frame", "mean_colour", "maskflow_tokenizer", "frames")


def street_project(root: Path) -> Path:
    """The smoke scale, every split of it on streets."""
    return project_on(root, "street", DRIVES)


def project_on(root: Path, dataset: str, kinds: dict[str, str]) -> Path:
    """The smoke scale, every split of it on one data set; `kinds` says the cameras' paths of
    splits, `forward` those of the others."""
    shutil.copytree(ROOT / "config", root / "config", dirs_exist_ok=True)
    path = root / "config/scales/smoke.yaml"
    scale = yaml.safe_load(path.read_text())
    for name, split in scale["splits"].items():
        trajectories = {kinds.get(name, "forward"): 1}
        split |= {"dataset": dataset, "options": {"trajectories": trajectories}}
    path.write_text(yaml.safe_dump(scale, sort_keys=False))
    # options add up over files, and `{}` clears
    base = root / "config/base.yaml"
    shared = yaml.safe_load(base.read_text())
    for split in shared["splits"].values():
        split.pop("options", None)
    base.write_text(yaml.safe_dump(shared, sort_keys=False))
    edit_yaml(root / "config/config.yaml", scale="smoke")
    return root


def untold_project(root: Path) -> Path:
    """The smoke scale on rooms without cameras, with what is told none; the teacher has its own."""
    shutil.copytree(ROOT / "config", root / "config", dirs_exist_ok=True)
    path = root / "config/scales/smoke.yaml"
    scale = yaml.safe_load(path.read_text())
    for split in scale["splits"].values():
        split["dataset"] = "rooms_without_cameras"
    rooms = {"dataset": "rooms", "clips": 6, "frames": 16, "options": {"trajectories": {"walk": 1}}}
    scale["splits"] |= {
        "rooms_train": {**rooms, "role": "train"},
        "rooms_validation": {**rooms, "role": "validation"},
    }
    scale["teacher"] |= {"train_split": "rooms_train", "validation_split": "rooms_validation"}
    scale["analysis"] |= {"fit_split": "rooms_train", "test_split": "rooms_validation"}
    scale["methods"]["dfot_frames"] = scale["methods"]["dfot"]
    scale["leave_out"] = []
    scale.pop("consistency", None)
    path.write_text(yaml.safe_dump(scale, sort_keys=False))
    study = root / "config/experiments.yaml"
    variants = yaml.safe_load(study.read_text())["variants"]
    rows = [{"variant": name, "label": name} for name in UNTOLD]
    variants["frames"] = {"method": "dfot_frames", "plan": "train", "recipe": "base"}
    columns = [{"protocol": "walk_short", "metric": "psnr"}]
    table = {"caption": "Without cameras.", "reference": "maskflow_tokenizer", "rows": rows}
    content = {
        "variants": {name: variants[name] for name in UNTOLD},
        "tables": {"untold": {**table, "columns": columns}},
    }
    study.write_text(yaml.safe_dump(content, sort_keys=False))
    edit_yaml(root / "config/config.yaml", scale="smoke")
    return root


def make_first_shard(root: Path, split: str, monkeypatch: pytest.MonkeyPatch) -> ClipStore:
    """Make a split's first shard by the command that the workflow runs; return the split."""
    dag = Dag(load_config(root, scale="smoke"))
    job = dag.clips(split, 0)
    words = ["clips", "make", str(root / job.record.parent), "--root", str(root)]
    words += ["--scale", "smoke", "--split", split, "--number", "0"]
    monkeypatch.setattr("sys.argv", [*words, "--expect", job.settings.digest])
    main()
    assert {*(root / job.record.parent).iterdir()} == {root / path for path in job.outputs}
    return ClipStore(root / dag.folder(split))
