"""What a rollout remembers: made of finished frames alone, of one size however many there are."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from geomem.diffusion.guidance import history_guidance
from geomem.diffusion.plans import plan_rollout
from geomem.diffusion.schedule import CosineSchedule
from geomem.formats.teachers import teacher_config
from geomem.geometry.rays import RAY_CHANNELS
from geomem.memory.implicit import encode_history, history_channels
from geomem.memory.reconstruction import FeatureBasis, compressed_features, fit_basis
from geomem.models.control import MemoryControl
from geomem.models.implicit import ImplicitControl, ImplicitMemory
from geomem.models.uvit import UViT3DPose
from geomem.models.vggt import VGGT
from geomem.rollouts.generate import Clips, MemoryReader, generate

SIZE, FRAMES, CHANNELS, QUERIES, WIDTH = 16, 12, 3, 5, 8
TEACHER: dict[str, Any] = {
    "image_size": SIZE, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2,
    "patch_embed_depth": 1, "patch_embed_heads": 2, "dpt_features": 8,
    "dpt_channels": [8, 8, 8, 8], "dpt_layers": [0, 0, 1, 1], "camera_trunk_depth": 1,
    "camera_heads": 2, "layer_scale": 1.0,
}  # fmt: skip
SETTINGS = {
    "frames": 4, "geometry": "teacher", "selection": "time", "overlap_near": 0.5,
    "overlap_far": 8.0, "implicit": {}, "guidance": 1.0,
}  # fmt: skip


HOW: dict[str, Any] = {
    "schedule": CosineSchedule(shift=1.0),
    "keyframe_guidance": history_guidance("conditional"),
    "interpolation_guidance": history_guidance("vanilla", guidance_scale=1.5),
    "steps": 2, "seed": 0, "progress": lambda stages, **_: stages,
}  # fmt: skip


def small_base() -> UViT3DPose:
    """A backbone without zeros, as a trained one."""
    torch.manual_seed(2)
    base = UViT3DPose(
        (8, 16), emb_channels=8, num_updown_blocks=(1,), num_mid_blocks=1, num_heads=2,
        block_types=("ResBlock", "TransformerBlock"), block_dropouts=(0.0, 0.0),
    ).eval()  # fmt: skip
    for parameter in base.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return base


@pytest.fixture(scope="module")
def reader() -> MemoryReader:
    torch.manual_seed(0)
    teacher = VGGT(teacher_config(TEACHER)).eval().requires_grad_(False)
    mean, components = fit_basis(torch.randn(200, 32), CHANNELS)
    implicit = ImplicitMemory(
        history_channels(CHANNELS), queries=QUERIES, width=WIDTH, heads=2, layers=1
    )
    basis = FeatureBasis(layer=1, mean=mean, components=components, unit=1.0, scale_prior=1.0)
    return MemoryReader(teacher=teacher, basis=basis, settings=SETTINGS, implicit=implicit.eval())


def cameras() -> Tensor:
    camera = torch.zeros(FRAMES, 16)
    camera[:, :4] = torch.tensor([0.8, 0.8, 0.5, 0.5])
    camera[:, [4, 9, 14]] = 1
    camera[:, 7] = -0.1 * torch.arange(FRAMES)
    return camera


def video(known: list[int]) -> Tensor:
    """Frames of which only the known are not NaN."""
    torch.manual_seed(1)
    frames = torch.rand(FRAMES, 3, SIZE, SIZE) * 2 - 1
    frames[[i for i in range(FRAMES) if i not in known]] = torch.nan
    return frames


@torch.no_grad()
def test_an_implicit_memory_has_one_size_and_is_refreshed(reader: MemoryReader) -> None:
    histories = [[0], [0, 1], [0, 1, 2, 3, 4, 5, 6, 7]]
    made = [reader.compress(video(k), cameras(), k, range(8, 12)) for k in histories]
    assert [tuple(m.shape) for m in made] == [(QUERIES, WIDTH)] * 3
    assert all(m.isfinite().all() for m in made)
    assert (made[0] - made[1]).abs().max() > 1e-3
    assert (made[1] - made[2]).abs().max() > 1e-3


@torch.no_grad()
def test_a_rollout_lays_its_history_out_as_training_does(reader: MemoryReader) -> None:
    known, targets = [0, 1, 2, 5, 6, 7], [3, 4]
    frames, chosen = video(known), [0, 2, 5, 7]
    assert reader.choose(known, targets, cameras()) == chosen
    features = compressed_features(
        reader.teacher, (frames[chosen][None] + 1) / 2, basis=reader.basis
    )[0]
    # training pads histories to the memory's number of frames; here there may be room to spare
    history = encode_history(features, cameras()[chosen], cameras()[3], frames=6)
    assert history.shape[1] == CHANNELS + RAY_CHANNELS + 1
    assert reader.implicit is not None
    expected = reader.implicit(history[None])[0]
    torch.testing.assert_close(reader.compress(frames, cameras(), known, targets), expected)


@torch.no_grad()
def test_coverage_is_the_share_of_target_pixels_that_the_map_covers(reader: MemoryReader) -> None:
    base = small_base()
    of_points = {
        **SETTINGS, "frames": 1, "geometry": "truth", "voxel_size": 1e-3, "budget": 4096,
        "scale_from": "cameras", "scale_prior_weight": 0.01, "confidence_quantile": 0.0,
    }  # fmt: skip
    explicit = MemoryReader(teacher=reader.teacher, basis=reader.basis, settings=of_points)
    depth = torch.full((1, FRAMES, SIZE, SIZE), torch.inf)
    depth[:, :, :, SIZE // 2 :] = 2.0  # the given frame knows its right half alone
    clips = Clips(
        ids=["a"], video=video([0])[None], cameras=cameras()[:1].expand(1, FRAMES, 16), depth=depth
    )
    branch = MemoryControl.from_base(base, 3 + CHANNELS + 2).eval()
    generate(
        clips, plan_rollout(FRAMES, window=4, keyframe_density=0.5, context=1), backbone=base,
        control=branch, memory=explicit, **HOW,
    )  # fmt: skip
    # every view is that of the given frame: half of its pixels, whatever was made since
    assert clips.coverage[0, 0].isnan()
    assert clips.coverage[0, 1:].tolist() == [0.5] * (FRAMES - 1)


@torch.no_grad()
def test_rollouts_read_the_implicit_memory_and_know_no_coverage(reader: MemoryReader) -> None:
    base = small_base()
    branch = ImplicitControl.from_base(base, WIDTH).eval()

    def made(memory: MemoryReader | None) -> Clips:
        clips = Clips(ids=["a", "b"], video=torch.stack([video([0])] * 2),
                      cameras=torch.stack([cameras()] * 2), depth=None)  # fmt: skip
        generate(
            clips, plan_rollout(FRAMES, window=4, keyframe_density=0.5, context=1), backbone=base,
            control=None if memory is None else branch, memory=memory, **HOW,
        )  # fmt: skip
        return clips

    alone, untrained = made(None), made(reader)
    assert torch.equal(alone.video, untrained.video), "zero-initialised, it changed something"
    assert untrained.coverage.isnan().all()
    for parameter in branch.zero_initialised_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    steered = made(reader)
    assert steered.video.isfinite().all()
    assert (steered.video[:, 1:] - alone.video[:, 1:]).abs().max() > 1e-2


def trained_memory(reader: MemoryReader, kind: str, scale: float) -> MemoryReader:
    """The memory of a kind with its own scale of guidance."""
    of_points = {
        "frames": 2, "voxel_size": 0.05, "budget": 256, "confidence_quantile": 0.1,
        "scale_from": "cameras", "scale_prior_weight": 0.01,
    }  # fmt: skip
    settings = {**SETTINGS, **(of_points if kind == "explicit" else {}), "guidance": scale}
    implicit = reader.implicit if kind == "implicit" else None
    return replace(reader, settings=settings, implicit=implicit)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["explicit", "implicit"])
def test_guidance_on_the_memory_has_its_own_scale(reader: MemoryReader, kind: str) -> None:
    base = small_base()
    branch: MemoryControl = (
        MemoryControl.from_base(base, 3 + CHANNELS + 2)
        if kind == "explicit"
        else ImplicitControl.from_base(base, WIDTH)
    ).eval()
    torch.manual_seed(3)
    for parameter in branch.zero_initialised_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rows = {"base": 0, "branch": 0}

    def counting(name: str) -> Callable[..., None]:
        def count(_: Any, inputs: tuple[Tensor, ...]) -> None:
            rows[name] += len(inputs[0])

        return count

    base.register_forward_pre_hook(counting("base"))
    branch.register_forward_pre_hook(counting("branch"))

    def made(memory: MemoryReader | None) -> tuple[Tensor, int, int]:
        rows.update(base=0, branch=0)
        clips = Clips(ids=["a"], video=video([0])[None], cameras=cameras()[None], depth=None)
        generate(
            clips, plan_rollout(FRAMES, window=4, keyframe_density=0.5, context=1), backbone=base,
            control=None if memory is None else branch, memory=memory, **HOW,
        )  # fmt: skip
        return clips.video, rows["base"], rows["branch"]

    alone, once, none = made(None)
    results = {scale: made(trained_memory(reader, kind, scale)) for scale in (0.0, 1.0, 2.0)}
    assert once > 0 and none == 0
    assert [r[1:] for r in results.values()] == [(once, 0), (once, once), (2 * once, once)]
    assert torch.equal(results[0.0][0], alone), "scale 0 is the network without memory"
    assert results[2.0][0].isfinite().all()
    for one, other in ((0.0, 1.0), (1.0, 2.0)):
        assert (results[one][0] - results[other][0])[:, 1:].abs().max() > 1e-3
