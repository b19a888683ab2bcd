"""WorldMem: what the network reads of a bank is what it says, and the method behind the seam."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import run_stage, write_fake_clips
from geomem.config import JobSettings, load_config
from geomem.diffusion.guidance import history_guidance
from geomem.diffusion.rollout_plans import plan_rollout
from geomem.diffusion.schedule import CosineSchedule
from geomem.errors import InputError
from geomem.formats import write_checkpoint
from geomem.formats.checkpoints import load_module
from geomem.geometry.rays import encode_cameras_apart
from geomem.memory.bank import elapsed
from geomem.memory.live import LiveMemory
from geomem.memory.registry import KINDS
from geomem.memory.retrieval import (
    draw_in_range,
)
from geomem.methods.clips import Clips, Sampling, WindowSampling
from geomem.methods.registry import METHODS
from geomem.methods.training import MEMORY
from geomem.methods.worldmem.method import WorldMemModel, WorldMemSampler
from geomem.methods.worldmem.settings import WorldMemSettings
from geomem.networks.uvit.model import UViT3DPose
from geomem.networks.uvit.worldmem import UViTWorldMem
from geomem.rollouts.protocols import load_variant, run_protocol
from geomem.training.data import open_dataset
from training_cases import learn, objective_of

SIZE, SMALL, LEVEL, RADIUS = 16, 8, 0.02, 8.0
NET: dict[str, Any] = {
    "channels": (8, 16), "emb_channels": 16, "num_updown_blocks": (1,), "num_mid_blocks": 2,
    "num_heads": 2, "block_types": ("ResBlock", "TransformerBlock"), "block_dropouts": (0.0, 0.0),
}  # fmt: skip


def turned(degrees: float, x: float = 0.0, focal: float = 0.5) -> Tensor:
    """Camera at (x, 0, 0), turned right by the angle."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    pose = torch.tensor([[c, 0, -s, -c * x], [0, 1, 0, 0], [s, 0, c, -s * x]])
    return torch.cat([torch.tensor([focal, focal, 0.5, 0.5]), pose.flatten()])


# --- network ------------------------------------------------------------------------------------


def base() -> UViT3DPose:
    """A backbone without zeros, as a trained one."""
    torch.manual_seed(2)
    made = UViT3DPose(**NET).eval()
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def model_of(network: UViTWorldMem) -> WorldMemModel:
    return WorldMemModel(network, level=LEVEL).eval()


def model(*, gates: float = 0.0) -> WorldMemModel:
    network = UViTWorldMem.from_base(base(), pose_channels=16)
    for parameter in network.zero_initialised_parameters():
        torch.nn.init.normal_(parameter, std=gates) if gates else None
    return model_of(network)


def case(clips: int = 2, frames: int = 3, kept: int = 3) -> dict[str, Tensor]:
    """Windows with a bank each, as the loader gives them."""
    torch.manual_seed(5)
    cameras = torch.stack([turned(12 * i, x=0.1 * i) for i in range(frames)])
    remembered = torch.stack([turned(-9 * i, x=0.2 * i) for i in range(kept)])
    since = elapsed([*range(kept)], [*range(10, 10 + frames)], cameras)
    told = {
        "images": torch.rand(clips, kept, 3, SIZE, SIZE) * 2 - 1,
        "cameras": remembered.expand(clips, -1, -1),
        "elapsed": since.expand(clips, -1, -1),
        "present": torch.ones(clips, kept),
    }
    return {
        "frames": torch.rand(clips, frames, 3, SIZE, SIZE) * 2 - 1,
        "cameras": cameras.expand(clips, -1, -1),
        **{MEMORY + name: x for name, x in told.items()},
    }


def drawn(
    made: WorldMemModel, windows: dict[str, Tensor], history: float = 0.0
) -> dict[str, Tensor]:
    torch.manual_seed(8)
    return made.draw(
        windows["frames"].shape, noise="per_frame", history=history, memory_dropout=None,
        device=torch.device("cpu"),
    ) | {"camera_mask": torch.zeros(len(windows["frames"]), dtype=torch.bool)}  # fmt: skip


def predicted(made: WorldMemModel, windows: dict[str, Tensor], *, dropped: bool = False) -> Tensor:
    clips, frames = windows["frames"].shape[:2]
    levels = torch.linspace(-1, 1, frames).expand(clips, -1)
    windows = windows | {"dropout_seeds": torch.arange(clips)}
    mask = torch.full((clips,), dropped)
    with torch.no_grad():
        v, _ = made.predict(
            windows["frames"], levels, windows["cameras"], mask, made.remembered(windows), None
        )
    return v


def told(windows: dict[str, Tensor], **changes: Tensor) -> dict[str, Tensor]:
    return windows | {MEMORY + name: x for name, x in changes.items()}


def test_closed_gates_are_the_base_bit_for_bit() -> None:
    made, windows = model(), case()
    levels = torch.linspace(-1, 1, 3).expand(2, -1)
    rays = encode_cameras_apart(windows["cameras"], SIZE)
    plain = base()
    mask = torch.zeros(2, dtype=torch.bool)
    with torch.no_grad():
        expected = plain(
            windows["frames"], levels, None, mask, camera_embedding=plain.embed_cameras(*rays)
        )
    assert predicted(made, windows).equal(expected)
    assert not predicted(model(gates=0.3), windows).equal(expected)


def test_readers_start_with_the_attention_of_the_block_before_them() -> None:
    made = model().backbone
    blocks = made.attending()
    assert len(blocks) == len(made.places) == NET["num_mid_blocks"]
    for place, block in zip(made.places, blocks, strict=True):
        x = torch.randn(3, block.attn_out.in_features)
        fused = block.fused_attn_mlp_proj(x).split(block.split, dim=-1)
        for layer, expected in zip((place.to_q, place.to_k, place.to_v), fused, strict=False):
            torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(place.out(x), block.attn_out(x))
        for own, theirs in ((place.q_norm, block.q_norm), (place.memory_norm, block.norm.norm)):
            assert torch.equal(own.weight, theirs.weight)
    # copies: training one leaves the other as it is
    with torch.no_grad():
        made.places[0].to_q.weight.add_(1)
    assert not torch.equal(made.places[0].to_q.weight, blocks[0].fused_attn_mlp_proj.weight[:16])


def test_blocks_are_named_in_the_order_of_a_pass() -> None:
    made, seen = model().backbone, []
    for block in made.attending():
        block.register_forward_hook(lambda module, *_: seen.append(module))
    predicted(model_of(made), case())
    assert seen[len(seen) // 2 :] == made.attending()


def test_the_order_of_the_bank_is_irrelevant_and_its_content_is_not() -> None:
    made, windows = model(gates=0.3), case()
    given = predicted(made, windows)
    order = torch.tensor([2, 0, 1])
    names = ("images", "cameras", "elapsed", "present")
    bank = {name: windows[MEMORY + name] for name in names}
    turned_round = {name: x[:, order] for name, x in bank.items()}
    torch.testing.assert_close(predicted(made, told(windows, **turned_round)), given)
    for name in names[:3]:  # which frame has which image, camera and time matters
        other = predicted(made, told(windows, **{name: bank[name][:, order]}))
        assert (other - given).abs().max() > 1e-5, name
    # a clip's bank is its own
    swapped = bank["images"].clone()
    swapped[1] = -swapped[1]
    other = predicted(made, told(windows, images=swapped))
    assert other[0].equal(given[0]) and not other[1].equal(given[1])


def test_absent_frames_have_no_influence() -> None:
    made, windows = model(gates=0.3), case()
    present = torch.ones(2, 3)
    present[0, 2] = 0
    given = predicted(made, told(windows, present=present))
    images = windows[MEMORY + "images"].clone()
    images[0, 2] = 1.0
    assert predicted(made, told(windows, present=present, images=images)).equal(given)
    fewer = {
        name: windows[MEMORY + name][:1, :2] for name in ("images", "cameras", "elapsed", "present")
    }
    first = {name: windows[name][:1] for name in ("frames", "cameras")}
    torch.testing.assert_close(predicted(made, told(first, **fewer)), given[:1])
    # an empty bank is the base alone
    none = predicted(made, told(windows, present=torch.zeros(2, 3)))
    assert none.equal(predicted(model(), windows))


def test_without_cameras_no_pose_reaches_the_readers() -> None:
    made, windows = model(gates=0.3), case()
    cameras = windows[MEMORY + "cameras"]
    moved = cameras.clone()
    moved[..., 4:] = turned(50, x=2.0)[4:]
    given, other = (
        predicted(made, told(windows, cameras=c), dropped=True) for c in (cameras, moved)
    )
    torch.testing.assert_close(given, other)
    assert not predicted(made, windows).allclose(predicted(made, told(windows, cameras=moved)))


def test_remembered_frames_see_themselves_alone() -> None:
    made, windows = model(gates=0.3), case()
    schedule = CosineSchedule(shift=2.0)
    level = schedule.training_noise_levels(torch.tensor(LEVEL))
    images, cameras = windows[MEMORY + "images"], windows[MEMORY + "cameras"]
    changed = images.clone()
    changed[0, 1] = -changed[0, 1]
    with torch.no_grad():
        one = made.backbone.remember(images, cameras, level)
        other = made.backbone.remember(changed, cameras, level)
    assert len(one) == len(made.backbone.places) == 2
    for a, b in zip(one, other, strict=True):
        same = (a == b).flatten(2).all(2)
        assert same.sum() == same.numel() - 1 and not same[0, 1]


def test_places_are_relative_to_each_noisy_frame() -> None:
    network, windows = model().backbone, case(frames=3, kept=2)
    window, cameras = windows["cameras"], windows[MEMORY + "cameras"]
    since, present = windows[MEMORY + "elapsed"], torch.ones(2, 2, dtype=torch.bool)
    with torch.no_grad():
        whole = network.locate((), cameras, window, since, present, SIZE)
        for i in range(3):  # as if the frame were the only one
            part = window[:, [i]], since[:, :, [i]]
            alone = network.locate((), cameras, *part, present, SIZE)
            torch.testing.assert_close(alone.poses[0][:, 0], whole.poses[0][:, i])
            torch.testing.assert_close(alone.times[0][:, 0], whole.times[0][:, i])
            # its own pose is the identity and its own time 0, wherever and whenever it is
            torch.testing.assert_close(whole.own[0][:, i], whole.own[0][:, 0])
            torch.testing.assert_close(whole.own_time[0][:, i], whole.own_time[0][:, 0])
        # the frame itself, remembered
        again = network.locate(
            (), window[:, [1]], window[:, [1]], 0 * since[:, :1, :1], present, SIZE
        )
    torch.testing.assert_close(again.poses[0][:, :, 0], again.own[0])
    torch.testing.assert_close(again.times[0][:, :, 0], again.own_time[0])


def test_gradients_reach_the_readers_after_a_step_of_the_gates() -> None:
    made, windows = model().train(), case()
    windows |= drawn(made, windows, history=0.5)
    readers = dict(made.backbone.places.named_parameters())
    poses = dict(made.backbone.pose_embeddings.named_parameters())

    def moved() -> set[str]:
        made.zero_grad()
        made.loss(windows).value.backward()
        named = {**readers, **{f"E.{name}": p for name, p in poses.items()}}
        return {name for name, p in named.items() if p.grad is not None and p.grad.any()}

    assert moved() == {name for name in readers if "gates" in name}
    groups = made.parameter_groups(0.1, zero_init_rate=5.0)
    assert [group["rate"] for group in groups] == [0.1, 0.5]
    assert {id(p) for p in groups[1]["params"]} == {
        id(p) for name, p in readers.items() if "gates" in name
    }
    with torch.no_grad():
        for group in groups[1:]:
            for parameter in group["params"]:
                parameter -= 0.1 * parameter.grad
    everything = {*readers, *(f"E.{name}" for name in poses)}
    # of equal keys a common shift changes no softmax
    assert everything - moved() <= {name for name in readers if name.endswith("to_k.bias")}


def views(clips: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Clips of two views in opposite directions and of one colour each: the window shows one of
    them again, the bank has both, in any order."""
    colours = torch.rand(clips, 2, 3, 1, 1, generator=generator) * 1.6 - 0.8
    images = colours.expand(-1, -1, -1, SMALL, SMALL)
    cameras = torch.stack([turned(0), turned(180)]).expand(clips, -1, -1)
    shown = torch.randint(2, (clips,), generator=generator)
    order = torch.randint(2, (clips,), generator=generator)
    rows = torch.arange(clips)[:, None]
    places = torch.stack([order, 1 - order], dim=1)
    return {
        "frames": images[rows, shown[:, None]],
        "cameras": cameras[rows, shown[:, None]],
        MEMORY + "images": images[rows, places],
        MEMORY + "cameras": cameras[rows, places],
        MEMORY + "elapsed": torch.tensor([[-20.0], [-10.0]]).expand(clips, -1, -1),
        MEMORY + "present": torch.ones(clips, 2),
    }


def trained_on_views(steps: int) -> WorldMemModel:
    """A network that saw `steps` batches of clips like `views`, each once, at much noise."""
    made, generator = model().train(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(made.parameters(), lr=5e-3)
    for _ in range(steps):
        windows = views(16, generator)
        noisy = drawn(made, windows)
        noisy["times"] = 0.5 + torch.rand(16, 1, generator=generator) / 2
        noisy["noise"].normal_(generator=generator)
        loss = made.loss(windows | noisy).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made.eval()


@pytest.mark.long
def test_the_view_that_is_seen_again_is_taken_from_the_bank_and_no_other() -> None:
    made, windows = trained_on_views(180), views(64, torch.Generator().manual_seed(9))
    noisy = drawn(made, windows) | {"times": torch.full((64, 1), 0.8)}

    def loss(**changes: Tensor) -> float:
        with torch.no_grad():
            return made.loss(told(windows, **changes) | noisy).value.item()

    images, right = windows[MEMORY + "images"], loss()
    assert right < 0.65 * loss(images=images.roll(1, dims=0)), "the bank of another clip"
    assert right < 0.65 * loss(images=images.flip(1)), "the other view's image"
    assert right < 0.8 * loss(present=torch.zeros(64, 2)), "no bank"


# --- the seam -----------------------------------------------------------------------------------


def test_a_rollout_evaluates_each_bank_once_a_window() -> None:
    frames, steps, kept = 12, 3, 3
    made = model(gates=0.3).backbone.eval()
    passes: list[tuple[int, int]] = []
    forward = made.run_through

    def counted(reading: Any, x: Tensor, *given: Any, **named: Any) -> Any:
        passes.append(tuple(x.shape[:2]))  # type: ignore[arg-type]
        return forward(reading, x, *given, **named)

    made.run_through = counted  # type: ignore[method-assign]
    video = torch.rand(2, frames, 3, SIZE, SIZE) * 2 - 1
    video[:, 1:] = torch.nan
    cameras = torch.stack([torch.stack([turned(a * i) for i in range(frames)]) for a in (4, 30)])
    memory = LiveMemory(
        kind=KINDS["bank"], settings=KINDS["bank"].Settings(), frames=kept, channels=4,
        selection="worldmem", near=0.5, far=RADIUS,
    )  # fmt: skip
    how = WindowSampling(
        plan=plan_rollout(frames, window=4, keyframe_density=0.5, context=1),
        schedule=CosineSchedule(shift=2.0), keyframes=history_guidance("conditional"),
        interpolation=history_guidance("conditional"), steps=steps, seed=0,
    )  # fmt: skip

    def filled(memory: LiveMemory | None, how: WindowSampling = how) -> Tensor:
        clips = Clips(ids=["a", "b"], video=video.clone(), cameras=cameras, memory=memory)
        sampler = WorldMemSampler(backbone=made, level=LEVEL)
        sampler.generate(
            clips, Sampling(context=1, windows=how), progress=lambda stages, **_: stages
        )
        return clips.video

    given = filled(memory)
    assert given.isfinite().all()
    windows = [p for p in passes if p[1] == 4]
    banks = [p for p in passes if p[1] == 1]
    assert set(windows) == {(2, 4)} and set(banks) == {(2 * kept, 1)}
    known, outside = {0}, []
    for window in [*how.plan.keyframe_windows, *itertools.chain(*how.plan.interpolation)]:
        outside.append(bool(known - set(window.frames)))
        known |= set(window.generated)
    assert len(windows) == steps * len(outside) and len(banks) == sum(outside)
    assert not outside[0] and all(outside[1:])
    assert not filled(None).equal(given)
    rounded = filled(memory, replace(how, precision="bf16"))
    assert rounded.isfinite().all() and 0 < (rounded - given).abs().mean() < 0.1
    # a clip does not depend on its batch, though it has fewer frames to retrieve
    for row in (0, 1):
        clips = Clips(ids=["ab"[row]], video=video[[row]].clone(), cameras=cameras[[row]])
        clips.memory = memory
        WorldMemSampler(backbone=made, level=LEVEL).generate(
            clips, Sampling(context=1, windows=how), progress=lambda stages, **_: stages
        )
        torch.testing.assert_close(clips.video[0], given[row], atol=2e-4, rtol=1e-3)


@pytest.fixture
def prepared(project: Path) -> Path:
    """A project with clips, a plan with histories, and an untrained base."""
    write_fake_clips(project / "clips", clips=6, frames=24, size=32)
    run_stage(project, "clips", "plan", "memory.json", "--plan", "memory", "--clips", "clips")
    torch.manual_seed(0)
    modules = objective_of(JobSettings(load_config(project)).training("base", 0)).trained_modules()
    write_checkpoint(project / "base", modules, {}, {}, [])
    return project


def test_a_variant_is_trained_saved_and_generates(prepared: Path) -> None:
    config = load_config(prepared)
    settings = JobSettings(config).training("worldmem", 0)
    assert settings.memory_dropout is None and not config.needs_of("worldmem")
    assert config.backbone_of("worldmem") == "worldmem"
    dataset = open_dataset(prepared / "clips", prepared / "memory.json", settings)
    for i, window in enumerate(dataset.plan.windows):
        item, history = dataset[i], range(window.history)
        present = item[MEMORY + "present"] > 0
        times = item[MEMORY + "elapsed"] + torch.tensor(window.frames).float()
        assert (times == times[:, :1]).all() and item[MEMORY + "images"].shape == (4, 3, 32, 32)
        assert 1 <= present.sum() <= min(4, len(history))
        chosen = times[present, 0].int().tolist()
        clip = torch.from_numpy(dataset.store.cameras(window.clip).copy())
        past, wanted = clip[list(history)], clip[list(window.frames)]
        assert chosen == draw_in_range(past, wanted, 4, number=i)
        assert dataset[i][MEMORY + "images"].equal(item[MEMORY + "images"])
    made = objective_of(settings, initial=prepared / "base")
    before = {name: p.clone() for name, p in made.named_parameters()}
    log = learn(made, dataset, settings, prepared / "state")
    assert all(math.isfinite(entry["loss"]) for entry in log)
    moved = {name for name, p in made.named_parameters() if not p.equal(before[name])}
    assert any("gates" in name for name in moved) and any("down_blocks" in name for name in moved)

    write_checkpoint(prepared / "trained", made.trained_modules(), {}, {}, log)
    loaded = load_module(UViTWorldMem, prepared / "trained", "backbone")
    assert all(
        p.equal(q)
        for p, q in zip(loaded.parameters(), made.method.backbone.parameters(), strict=True)
    )
    rollout = JobSettings(config).rollout("worldmem", "spin")
    variant = load_variant(
        rollout, checkpoint=prepared / "trained", base=prepared / "trained", weights=None,
        basis=None, device=torch.device("cpu"),
    )  # fmt: skip
    rgb, _ = run_protocol(
        variant, prepared / "clips", rollout, batch=6, parts=prepared / "parts",
        progress=lambda stages, **_: stages,
    )  # fmt: skip
    assert rgb.shape == (6, 16, 32, 32, 3)


def test_it_starts_from_a_checkpoint_and_reads_a_bank_alone() -> None:
    spec = METHODS["worldmem"]
    with pytest.raises(InputError, match="name `initial`"):
        spec.build(WorldMemSettings(), memory=None, initial=None)
    with pytest.raises(ValueError, match="no place for readers"):
        UViTWorldMem(**NET | {"block_types": ("ResBlock", "ResBlock")})


def test_dropout_of_the_bank_goes_by_clip() -> None:
    network = UViT3DPose(**NET | {"block_dropouts": (0.0, 0.5)})
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    made = WorldMemModel(UViTWorldMem.from_base(network, pose_channels=16), level=LEVEL).train()
    windows = case()
    windows |= drawn(made, windows)
    with torch.no_grad():
        together = made.loss(windows).value
        apart = [made.loss({name: x[[i]] for name, x in windows.items()}).value for i in (0, 1)]
        torch.testing.assert_close(together, torch.stack(apart).mean())
