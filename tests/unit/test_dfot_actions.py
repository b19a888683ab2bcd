"""DFoT told actions: from the clip store to a loss and a rollout that heed them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_minecraft import with_minecraft
from torch import Tensor

from conftest import ROOT, edit_yaml
from geomem.config import JobSettings, load_config
from geomem.errors import InputError
from geomem.formats import ClipInfo, ClipStore, Plan, Window, read_frames, write_clip_shard
from geomem.formats.checkpoints import write_checkpoint
from geomem.formats.clips import ACTIONS
from geomem.methods.dfot_actions.method import ActionModel, ActionSampler, action_maps
from geomem.methods.dfot_frames.method import FrameModel
from geomem.methods.registry import METHODS, Weights
from geomem.networks.uvit.model import UViT3DPose
from geomem.rollouts.protocols import LoadedVariant, run_protocol
from geomem.training.data import WindowDataset

CPU = torch.device("cpu")
SIZE, FRAMES = 16, 12


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Clips whose frames have the grey of their action, bright on the left half."""
    actions = np.random.default_rng(0).integers(1, 4, (6, FRAMES)).astype(np.uint8)
    rgb = np.repeat((60 * actions)[..., None, None, None], SIZE, 2).repeat(SIZE, 3).repeat(3, 4)
    rgb[:, :, :, : SIZE // 2] += 40
    cam = np.zeros((6, FRAMES, 16), np.float32)
    cam[..., :4], cam[..., [4, 9, 14]] = 0.6, 1
    info = [ClipInfo(clip_id=f"c-{i}", scene=f"c-{i}", trajectory="walk") for i in range(6)]
    how = {"depth": None, "clips": info, "provenance": {}}
    write_clip_shard(tmp_path / "clips/shard-000", rgb=rgb, cam=cam, actions=actions, **how)
    return tmp_path / "clips"


def small() -> UViT3DPose:
    torch.manual_seed(2)
    return UViT3DPose(
        (8, 16), emb_channels=16, num_updown_blocks=(1,), num_mid_blocks=1, num_heads=2,
        block_types=("ResBlock", "TransformerBlock"), block_dropouts=(0.0, 0.0),
        camera_channels=len(ACTIONS),
    )  # fmt: skip


def batch(clips: Path) -> dict[str, Tensor]:
    store = ClipStore(clips)
    windows = tuple(Window(clip=i, frames=tuple(range(2, 8))) for i in range(len(store)))
    plan = Plan(split="x", clip_ids=tuple(c.clip_id for c in store.clips), windows=windows)
    items = [WindowDataset(store, plan)[i] for i in range(len(windows))]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def loss_of(model: ActionModel, given: dict[str, Tensor], seed: int, **others: Any) -> Tensor:
    torch.manual_seed(seed)
    shape = tuple(given["frames"].shape)
    how: dict[str, Any] = {"noise": "per_frame", "history": 0.0, "memory_dropout": None}
    drawn = model.draw(shape, device=CPU, **how)
    return model.loss({**given, **drawn, **others}).value


def test_windows_hold_the_actions_of_their_frames_and_mirrors_swap_left_and_right(
    clips: Path,
) -> None:
    store, given = ClipStore(clips), batch(clips)
    assert given["actions"].dtype == torch.int64
    assert torch.equal(given["actions"][3], torch.from_numpy(store.actions(3)[2:8]).long())
    plain, mirrored = (read_frames(store, 1, (4, 5, 6, 7), flip=f) for f in (False, True))
    assert plain.actions is not None and mirrored.actions is not None
    swapped = {1: 1, 2: 3, 3: 2}
    assert [swapped[a] for a in plain.actions.tolist()] == mirrored.actions.tolist()
    assert not np.array_equal(plain.actions, mirrored.actions)


def test_maps_are_one_hot() -> None:
    maps = action_maps(torch.tensor([[0, 3, 2]]), 4, len(ACTIONS))
    assert maps.shape == (1, 3, 4, 4, 4)
    assert torch.equal(maps.argmax(2)[..., 0, 0], torch.tensor([[0, 3, 2]]))
    assert (maps.sum(2) == 1).all()


def test_training_learns_what_an_action_does(clips: Path) -> None:
    given = batch(clips)
    model = ActionModel(small().train())
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(150):
        optimizer.zero_grad()
        loss_of(model, given, step).backward()
        optimizer.step()
    model.eval()
    told = torch.zeros(len(given["actions"]), dtype=torch.bool)
    wrong = {**given, "actions": given["actions"] % 3 + 1}

    def mean(windows: dict[str, Tensor], mask: Tensor) -> float:
        with torch.no_grad():
            how = {"camera_mask": mask, "times": torch.full((len(mask), 6), 0.8)}  # little shows
            losses = [loss_of(model, windows, 1000 + s, **how) for s in range(8)]
        return float(torch.stack(losses).mean())

    right, untold, misled = mean(given, told), mean(given, ~told), mean(wrong, told)
    # measured: 0.018, 0.022, 0.051
    assert right < 0.95 * untold and right < 0.6 * misled
    assert mean(wrong, ~told) == untold  # dropped is dropped


def test_a_rollout_heeds_the_actions_and_fills_every_frame_in_order(
    clips: Path, tmp_path: Path
) -> None:
    paper = load_config(ROOT, scale="smoke")
    job = JobSettings(paper).rollout("ar_diffusion", "spin")  # in its order as well
    assert job.sampling is not None and job.sampling.keyframe_density == 1
    changes = {"window": 4, "steps": 2}
    job = job.model_copy(
        update={
            "frames": FRAMES,
            "sampling": job.sampling.model_copy(update=changes),
            "clips": job.clips.model_copy(update={"resolution": SIZE}),
            "method": job.method.model_copy(update={"name": "dfot_actions"}),
        }
    )
    base = small().eval()
    for parameter in base.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    write_checkpoint(tmp_path / "weights", {"backbone": base}, {}, {}, [])
    weights = Weights(checkpoint=tmp_path / "weights", backbone=tmp_path / "weights")
    settings = paper.method_settings("dfot")
    method = METHODS["dfot_actions"].load(settings, weights, memory=None, device=CPU)
    assert isinstance(method, ActionSampler)
    variant = LoadedVariant(device=CPU, method=method, memory=None, key="small")

    def roll(name: str) -> np.ndarray:
        how = {"batch": 3, "parts": tmp_path / name}
        return run_protocol(variant, clips, job, progress=lambda items, total: items, **how)[0]

    first, again = roll("a"), roll("b")
    assert first.shape == (6, FRAMES, SIZE, SIZE, 3) and np.array_equal(first, again)
    path = clips / "shard-000"
    store = ClipStore(clips)
    rgb, cam, actions = (
        np.stack([read(i) for i in range(6)]) for read in (store.rgb, store.cameras, store.actions)
    )
    changed = actions.copy()
    changed[:, -1] = changed[:, -1] % 3 + 1
    info = store.clips
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    write_clip_shard(path, rgb=rgb, cam=cam, depth=None, actions=changed, clips=info, provenance={})
    other = roll("c")
    # the last window sees the last action; the windows before it do not
    assert np.array_equal(first[:, :8], other[:, :8])
    assert not np.array_equal(first[:, -1], other[:, -1])


def test_it_is_built_of_the_settings_of_dfot_and_starts_from_itself(tmp_path: Path) -> None:
    settings = load_config(ROOT, scale="smoke").method_settings("dfot")
    made = ActionModel.build(settings, initial=None)
    assert made.backbone.config["camera_channels"] == len(ACTIONS)
    write_checkpoint(tmp_path / "weights", made.trained_modules(), {}, {}, [])
    again = ActionModel.build(settings, initial=tmp_path / "weights")
    for ours, theirs in zip(made.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def with_actions(project: Path, strides: list[int]) -> Path:
    """A variant on clips of Minecraft that come with actions, and the others on rooms."""
    with_minecraft(project, "actions")
    scale = project / "config/scales/smoke.yaml"
    for split in ("train", "walk"):
        name, role = f"game_{split}", {"train": "train", "walk": "test"}[split]
        asked = {"dataset": "minecraft", "clips": 2, "frames": 16, "role": role, "options": {}}
        rooms = {"dataset": "rooms", "options": {"trajectories": {"walk": 1, "spin": 1}}}
        values = {f"splits__{name}": asked}
        values |= {f"splits__{split}__{key}": value for key, value in rooms.items()}
        edit_yaml(scale, **values)
    plan = {"split": "game_train", "windows": 8, "frames": 4, "strides": strides}
    plan |= {"flip": 0.5, "reverse": 0.0, "memory": False}
    sizes = load_config(ROOT, scale="smoke").method_settings("dfot").model_dump(mode="json")
    edit_yaml(scale, plans__game=plan, methods__dfot_actions=sizes)
    variant = {"method": "dfot_actions", "plan": "game", "recipe": "base"}
    edit_yaml(project / "config/experiments.yaml", variants__game=variant)
    return project


def test_a_variant_is_told_actions_of_neighbouring_frames_alone(project: Path) -> None:
    config = load_config(with_actions(project, [1]))
    assert config.conditions_of("game_train") == {"actions"}
    assert config.method_of("game") == "dfot_actions"
    with_actions(project, [1, 2])
    with pytest.raises(
        InputError, match=r"variants\.game: .*dfot_actions.* needs `strides: \[1\]`"
    ):
        load_config(project)


def test_what_is_told_nothing_learns_from_frames_alone(clips: Path) -> None:
    settings = load_config(ROOT, scale="smoke").method_settings("dfot")
    spec = METHODS["dfot_frames"]
    assert spec.conditions == set() and spec.reads == set() and spec.interpolates
    model = spec.build(settings, memory=None, initial=None)
    assert isinstance(model, FrameModel) and model.backbone.config["camera_channels"] == 1
    given = batch(clips)
    loss = loss_of(model, given, 0)
    del given["actions"]
    other = {**given, "cameras": torch.randn_like(given["cameras"])}
    assert loss_of(model, other, 0) == loss  # neither is looked at
    loss.backward()
    assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0
