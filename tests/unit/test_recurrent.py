"""The recurrent state: fixed in size, written frame by frame, and really read."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_worldmem import base, drawn, told, turned, views
from torch import Tensor

from conftest import run_stage, write_fake_clips
from geomem.config import JobSettings, load_config
from geomem.errors import InputError
from geomem.formats import write_checkpoint
from geomem.formats.checkpoints import load_module
from geomem.methods.recurrent.method import RecurrentModel
from geomem.methods.recurrent.spec import RecurrentSettings
from geomem.methods.registry import METHODS
from geomem.methods.training import MEMORY
from geomem.networks.uvit.recurrent import Carried, UViTRecurrent
from geomem.rollouts.protocols import load_variant, run_protocol
from geomem.training.data import open_dataset
from training_cases import configure, learn, objective_of

SIZE, FRAMES = 16, 5
LEVEL = torch.tensor(1.0)


def network(gates: float = 0.0) -> UViTRecurrent:
    """States on that backbone, their gates drawn with a deviation."""
    made = UViTRecurrent.from_base(base(), block=2, pose_channels=8).eval()
    generator = torch.Generator().manual_seed(4)
    for parameter in made.zero_initialised_parameters():
        torch.nn.init.normal_(parameter, std=gates, generator=generator)
    for place in made.places:  # gates that forget by what they see
        torch.nn.init.normal_(place.decay.weight, std=1.0, generator=generator)
    return made


@pytest.fixture
def history() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "images": torch.rand(2, FRAMES, 3, SIZE, SIZE, generator=generator) * 2 - 1,
        "cameras": torch.stack([turned(20 * i, 0.1 * i) for i in range(FRAMES)]).expand(2, -1, -1),
        "present": torch.ones(2, FRAMES, dtype=torch.bool),
    }


@torch.no_grad()
def written(made: UViTRecurrent, history: dict[str, Tensor], *parts: slice) -> Carried:
    carried = made.begin(history["cameras"][:, 0], SIZE)
    for part in parts:
        images, cameras, present = (history[n][:, part] for n in ("images", "cameras", "present"))
        carried = made.write(carried, images, cameras, LEVEL, present)
    return carried


def close(one: Carried, other: Carried) -> bool:
    pairs = zip(one.states, other.states, strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)


def test_frame_by_frame_is_all_at_once(history: dict[str, Tensor]) -> None:
    made = network()
    whole = written(made, history, slice(None))
    assert close(whole, written(made, history, *(slice(i, i + 1) for i in range(FRAMES))))
    assert close(whole, written(made, history, slice(2), slice(2, None)))
    assert not close(whole, written(made, history, slice(2, None), slice(2))), "order counts"


def test_its_size_does_not_depend_on_how_much_was_written(history: dict[str, Tensor]) -> None:
    made = network()
    empty, one, all_of_them = (
        written(made, history, *parts) for parts in ([], [slice(1)], [slice(None)] * 3)
    )
    shapes = [[state.shape for state in carried.states] for carried in (empty, one, all_of_them)]
    assert shapes[0] == shapes[1] == shapes[2]
    # blocks of 2 x 2 tokens on the coarse grid of 4 x 4, 2 heads of width 8
    assert {tuple(shape) for shape in shapes[0]} == {(2, 4, 2, 8, 8)}
    assert all(state.isfinite().all() for state in all_of_them.states)


def test_padding_leaves_no_trace(history: dict[str, Tensor]) -> None:
    made, padded = network(), dict(history)
    padded["present"] = history["present"].clone()
    padded["present"][:, 3:] = False
    padded["images"] = history["images"].clone()
    padded["images"][:, 3:] = 0.7
    assert close(written(made, padded, slice(None)), written(made, history, slice(3)))


def predicted(made: UViTRecurrent, carried: Carried | None) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(2, 3, 3, SIZE, SIZE, generator=generator)
    cameras = torch.stack([turned(10 * i) for i in range(3)]).expand(2, -1, -1)
    rays = torch.randn(2, 3, 180, SIZE, SIZE, generator=generator)
    with torch.no_grad():
        where = None if carried is None else made.locate(carried, cameras)
        out: Tensor = made(x, torch.zeros(2, 3), rays, carried=carried, where=where)
    return out


def test_at_first_it_is_the_base_bit_for_bit(history: dict[str, Tensor]) -> None:
    made = network()
    assert predicted(made, written(made, history, slice(None))).equal(predicted(made, None))


def test_a_frame_outside_the_window_changes_what_is_made(history: dict[str, Tensor]) -> None:
    made = network(gates=0.3)
    other = {**history, "images": history["images"].clone()}
    other["images"][0, 0] *= -1  # the oldest, of one clip
    before = predicted(made, written(made, history, slice(None)))
    after = predicted(made, written(made, other, slice(None)))
    assert not torch.allclose(before[0], after[0], atol=1e-4) and before[1].equal(after[1])


@pytest.mark.long
def test_what_it_has_seen_is_found_again_by_where_it_was_seen() -> None:
    torch.manual_seed(0)
    made = RecurrentModel(UViTRecurrent.from_base(base(), block=2, pose_channels=16)).train()
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(made.parameters(), lr=5e-3)

    def noise(windows: dict[str, Tensor]) -> dict[str, Tensor]:
        noisy = drawn(made, windows)
        noisy["times"] = torch.full_like(noisy["times"], 0.8)
        noisy["noise"].normal_(generator=generator)
        return noisy

    for _ in range(300):
        windows = views(16, generator)
        loss = made.loss(windows | noise(windows)).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made.eval()
    windows = views(64, torch.Generator().manual_seed(9))
    noisy = noise(windows)

    def lost(**changes: Tensor) -> float:
        with torch.no_grad():
            return made.loss(told(windows, **changes) | noisy).value.item()

    images, right = windows[MEMORY + "images"], lost()
    assert right < 0.75 * lost(images=images.roll(1, dims=0)), "the history of another clip"
    assert right < 0.75 * lost(images=images.flip(1)), "the other view's image"


def test_a_variant_is_trained_saved_and_generates(project: Path) -> None:
    configure(project)
    write_fake_clips(project / "clips", clips=6, frames=16, size=32)
    run_stage(project, "clips", "plan", "memory.json", "--plan", "memory", "--clips", "clips")
    config = load_config(project)
    settings = JobSettings(config).training("recurrent", 0)
    sizes = config.method_settings("dfot").model_dump()
    from geomem.networks.uvit.model import UViT3DPose

    write_checkpoint(project / "base", {"backbone": UViT3DPose(**sizes)}, {}, {}, [])
    dataset = open_dataset(project / "clips", project / "memory.json", settings)
    made = objective_of(settings, initial=project / "base")
    log = learn(made, dataset, settings, project / "state")
    assert all(math.isfinite(entry["loss"]) for entry in log)
    assert any(parameter.any() for parameter in made.method.ends())
    made_by: dict[str, Any] = {"stage": "training", "version": 1, "settings": {}, "inputs": {}}
    identity = {"variant": "recurrent", "seed": 0}
    write_checkpoint(project / "trained", made.trained_modules(), made_by, identity, log)
    assert isinstance(load_module(UViTRecurrent, project / "trained", "backbone"), UViTRecurrent)
    rollout = JobSettings(config).rollout("recurrent", "spin")
    assert rollout.sampling is not None and rollout.sampling.keyframe_density == 1
    variant = load_variant(
        rollout, checkpoint=project / "trained", base=project / "trained", weights=None,
        basis=None, device=torch.device("cpu"),
    )  # fmt: skip
    passes: list[int] = []
    write = variant.method.backbone.write  # type: ignore[attr-defined]

    def counted(carried: Carried, images: Tensor, *given: Tensor) -> Carried:
        passes.append(images.shape[1])
        return write(carried, images, *given)

    variant.method.backbone.write = counted  # type: ignore[attr-defined]
    rgb, _ = run_protocol(
        variant, project / "clips", rollout, batch=6, parts=project / "parts",
        progress=lambda stages, **_: stages,
    )  # fmt: skip
    assert rgb.shape == (6, 16, 32, 32, 3)
    # every frame that a later window can read is written once
    assert passes[0] == 1 and sum(passes) < 16 and len(passes) > 1


def test_it_starts_from_a_checkpoint() -> None:
    with pytest.raises(InputError, match="name `initial`"):
        METHODS["recurrent"].build(RecurrentSettings(), memory=None, initial=None)
