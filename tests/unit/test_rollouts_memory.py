"""What a rollout remembers: made of finished frames alone, of one size however many there are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from geomem.diffusion.guidance import history_guidance
from geomem.diffusion.rollout_plans import plan_rollout
from geomem.diffusion.schedule import CosineSchedule
from geomem.formats.teacher_sizes import teacher_config
from geomem.memory.live import LiveMemory, Reconstructor
from geomem.memory.reconstruction import FeatureBasis, compressed_features, fit_basis
from geomem.memory.registry import KINDS, Seen
from geomem.methods.clips import Clips, Sampling, WindowSampling
from geomem.methods.dfot.method import Sampler
from geomem.networks.uvit.control import MemoryControl
from geomem.networks.uvit.implicit import ImplicitControl, ImplicitMemory
from geomem.networks.uvit.model import UViT3DPose
from geomem.networks.vggt.model import VGGT

SIZE, FRAMES, CHANNELS, QUERIES, WIDTH = 16, 12, 3, 5, 8
TEACHER: dict[str, Any] = {
    "image_size": SIZE, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2,
    "patch_embed_depth": 1, "patch_embed_heads": 2, "dpt_features": 8,
    "dpt_channels": [8, 8, 8, 8], "dpt_layers": [0, 0, 1, 1], "camera_trunk_depth": 1,
    "camera_heads": 2, "layer_scale": 1.0,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "explicit": {"voxel_size": 0.05, "budget": 256, "confidence_quantile": 0.1},
    "implicit": {"queries": QUERIES, "width": WIDTH, "heads": 2, "layers": 1},
    "raw": {},
}


def sampling(memory_guidance: float = 1.0) -> Sampling:
    windows = WindowSampling(
        plan=plan_rollout(FRAMES, window=4, keyframe_density=0.5, context=1),
        schedule=CosineSchedule(shift=1.0),
        keyframes=history_guidance("conditional"),
        interpolation=history_guidance("vanilla", guidance_scale=1.5),
        steps=2,
        seed=0,
        memory_guidance=memory_guidance,
    )
    return Sampling(context=1, windows=windows)


def fill(sampler: Sampler, clips: Clips, memory_guidance: float = 1.0) -> Clips:
    sampler.generate(clips, sampling(memory_guidance), progress=lambda stages, **_: stages)
    return clips


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
def reconstructor() -> Reconstructor:
    torch.manual_seed(0)
    teacher = VGGT(teacher_config(TEACHER)).eval().requires_grad_(False)
    mean, components, _ = fit_basis(torch.randn(200, 32), CHANNELS)
    basis = FeatureBasis(layer=1, mean=mean, components=components, unit=1.0, scale_prior=1.0)
    return Reconstructor(
        teacher=teacher, basis=basis, scale_from="cameras", scale_prior_weight=0.01
    )


def live(
    reconstructor: Reconstructor | None, kind: str, *, frames: int = 4, truth: bool = False,
    **changes: Any,
) -> LiveMemory:  # fmt: skip
    """The memory of a kind while it generates."""
    return LiveMemory(
        kind=KINDS[kind], settings=KINDS[kind].Settings(**SETTINGS[kind] | changes), frames=frames,
        channels=CHANNELS, selection="time", near=0.5, far=8.0, truth=truth,
        reconstructor=reconstructor,
    )  # fmt: skip


def compressor() -> ImplicitMemory:
    """What compresses the implicit memory for the branch."""
    torch.manual_seed(6)
    width = sum(KINDS["implicit"].channels(CHANNELS).values())
    sizes: dict[str, int] = SETTINGS["implicit"]
    return ImplicitMemory(width, **sizes).eval()


def branch_on(base: UViT3DPose, kind: str) -> dict[str, Any]:
    """The branch on a base as a `Sampler` has it."""
    channels = KINDS[kind].channels(CHANNELS)
    if kind == "explicit":
        control, memory = MemoryControl.from_base(base, sum(channels.values())), None
    else:
        control, memory = ImplicitControl.from_base(base, WIDTH), compressor()
    return {"control": control.eval(), "memory": memory, "names": tuple(channels)}


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
def test_an_implicit_memory_has_one_size_and_is_refreshed(reconstructor: Reconstructor) -> None:
    histories = [[0], [0, 1], [0, 1, 2, 3, 4, 5, 6, 7]]
    memory, compress = live(reconstructor, "implicit"), compressor()
    made = []
    for known in histories:
        read = memory.read(video(known), cameras(), known, range(8, 12), None)
        assert list(read) == list(memory.kind.channels(memory.channels))
        made.append(compress(torch.cat(list(read.values()), dim=1)[None])[0])
    assert [tuple(m.shape) for m in made] == [(QUERIES, WIDTH)] * 3
    assert all(m.isfinite().all() for m in made)
    assert (made[0] - made[1]).abs().max() > 1e-3
    assert (made[1] - made[2]).abs().max() > 1e-3


@torch.no_grad()
def test_a_rollout_lays_its_history_out_as_training_does(reconstructor: Reconstructor) -> None:
    known, targets = [0, 1, 2, 5, 6, 7], [3, 4]
    frames, chosen = video(known), [0, 2, 5, 7]
    memory, compress = live(reconstructor, "implicit"), compressor()
    assert memory.choose(known, targets, cameras()) == chosen
    features = compressed_features(
        reconstructor.teacher, (frames[chosen][None] + 1) / 2, basis=reconstructor.basis
    )[0]
    seen = Seen(frames=(frames[chosen] + 1) / 2, cameras=cameras()[chosen], features=features)
    expected = memory.kind.build(seen, memory.settings).read(cameras()[targets], SIZE)
    read = memory.read(frames, cameras(), known, targets, None)
    assert read.keys() == expected.keys()
    for name, tokens in expected.items():
        torch.testing.assert_close(read[name], tokens)
    # training pads histories to the memory's number of frames; here there may be room to spare
    told = torch.cat(list(read.values()), dim=1)
    padded = pad(told, (*(0, 0) * 3, 0, 6 - len(chosen)))
    torch.testing.assert_close(compress(padded[None]), compress(told[None]))


@torch.no_grad()
def test_coverage_is_the_share_of_target_pixels_that_the_map_covers(
    reconstructor: Reconstructor,
) -> None:
    base = small_base()
    explicit = live(
        reconstructor, "explicit", frames=1, truth=True,
        voxel_size=1e-3, budget=4096, confidence_quantile=0.0,
    )  # fmt: skip
    depth = torch.full((1, FRAMES, SIZE, SIZE), torch.inf)
    depth[:, :, :, SIZE // 2 :] = 2.0  # the given frame knows its right half alone
    clips = Clips(
        ids=["a"], video=video([0])[None], cameras=cameras()[:1].expand(1, FRAMES, 16),
        memory=explicit, depth=depth,
    )  # fmt: skip
    fill(Sampler(backbone=base, **branch_on(base, "explicit")), clips)
    # every view is that of the given frame: half of its pixels, whatever was made since
    assert clips.coverage[0, 0].isnan()
    assert clips.coverage[0, 1:].tolist() == [0.5] * (FRAMES - 1)


@torch.no_grad()
def test_rollouts_read_the_implicit_memory_and_know_no_coverage(
    reconstructor: Reconstructor,
) -> None:
    base = small_base()
    branch = branch_on(base, "implicit")

    def made(memory: LiveMemory | None) -> Clips:
        clips = Clips(
            ids=["a", "b"], video=torch.stack([video([0])] * 2),
            cameras=torch.stack([cameras()] * 2), memory=memory,
        )  # fmt: skip
        return fill(Sampler(backbone=base, **({} if memory is None else branch)), clips)

    alone, untrained = made(None), made(live(reconstructor, "implicit"))
    assert torch.equal(alone.video, untrained.video), "zero-initialised, it changed something"
    assert untrained.coverage.isnan().all()
    for parameter in branch["control"].zero_initialised_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    steered = made(live(reconstructor, "implicit"))
    assert steered.video.isfinite().all()
    assert (steered.video[:, 1:] - alone.video[:, 1:]).abs().max() > 1e-2


def trained_branch(base: UViT3DPose, kind: str) -> dict[str, Any]:
    """A branch without zeros."""
    branch = branch_on(base, kind)
    torch.manual_seed(3)
    for parameter in branch["control"].zero_initialised_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return branch


@torch.no_grad()
@pytest.mark.parametrize("kind", ["explicit", "implicit"])
def test_guidance_on_the_memory_has_its_own_scale(reconstructor: Reconstructor, kind: str) -> None:
    base = small_base()
    branch = trained_branch(base, kind)
    rows = {"base": 0, "branch": 0}

    def counting(name: str) -> Callable[..., None]:
        def count(_: Any, inputs: tuple[Tensor, ...]) -> None:
            rows[name] += len(inputs[0])

        return count

    base.register_forward_pre_hook(counting("base"))
    branch["control"].register_forward_pre_hook(counting("branch"))

    def made(memory: LiveMemory | None, scale: float = 1.0) -> tuple[Tensor, int, int]:
        rows.update(base=0, branch=0)
        clips = Clips(ids=["a"], video=video([0])[None], cameras=cameras()[None], memory=memory)
        fill(Sampler(backbone=base, **({} if memory is None else branch)), clips, scale)
        return clips.video, rows["base"], rows["branch"]

    alone, once, none = made(None)
    memory = live(reconstructor, kind, frames=2 if kind == "explicit" else 4)
    results = {scale: made(memory, scale) for scale in (0.0, 1.0, 2.0)}
    assert once > 0 and none == 0
    assert [r[1:] for r in results.values()] == [(once, 0), (once, once), (2 * once, once)]
    assert torch.equal(results[0.0][0], alone), "scale 0 is the network without memory"
    assert results[2.0][0].isfinite().all()
    for one, other in ((0.0, 1.0), (1.0, 2.0)):
        assert (results[one][0] - results[other][0])[:, 1:].abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", ["explicit", "implicit"])
def test_guidance_on_the_memory_goes_on_from_the_network_without_it(
    reconstructor: Reconstructor, kind: str
) -> None:
    base, known, targets = small_base(), [0, 1, 2], [3, 4, 5]
    sampler = Sampler(backbone=base, **trained_branch(base, kind))
    read = live(reconstructor, kind).read(video(known), cameras(), known, targets, None)
    told = {name: tensor[None] for name, tensor in read.items()}
    x, levels = torch.randn(2, 3, 3, SIZE, SIZE), torch.randn(2, 3)
    unconditional, clip = torch.tensor([True, False]), torch.tensor([0, 0])
    seen: list[Tensor] = []
    base.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    def predicted(scale: float, memory: dict[str, Tensor]) -> Tensor:
        windows = sampling(scale).windows
        assert windows is not None
        predict_v = sampler.bind(cameras()[None, targets], SIZE, memory, windows)
        return predict_v(x, levels, unconditional, clip)

    without, whole = predicted(1.0, {}), predicted(1.0, told)
    assert torch.equal(predicted(0.0, told), without)
    for scale in (0.5, 2.5):
        expected = without + scale * (whole - without)
        torch.testing.assert_close(predicted(scale, told), expected)
    assert (whole - without).abs().max() > 1e-3
    assert all(torch.equal(rows, x) for rows in seen), "the memory alone may differ"


def test_raw_context_stands_clean_beside_the_window_and_is_not_made() -> None:
    base = small_base()
    seen: list[tuple[int, Tensor, Tensor]] = []

    def record(module: UViT3DPose, arguments: tuple[Tensor, ...]) -> None:
        x, levels = arguments[:2]
        seen.append((x.shape[1], x[:, -1:], levels[:, -1:]))

    base.register_forward_pre_hook(record)
    frames = torch.rand(2, FRAMES, 3, SIZE, SIZE) * 2 - 1
    frames[:, 1:] = torch.nan
    clips = Clips(
        ids=["a", "b"], video=frames.clone(), cameras=cameras().expand(2, -1, -1),
        memory=live(None, "raw", frames=3),
    )  # fmt: skip
    fill(Sampler(backbone=base), clips)
    assert clips.video.isfinite().all() and clips.coverage.isnan().all()
    schedule = CosineSchedule(shift=1.0)
    clean = schedule.sampling_noise_levels(torch.zeros(1, dtype=torch.long))
    length, remembered, levels = seen[0]
    assert length == 4 + 1, "the context alone is known at first"
    assert remembered[:, 0].equal(frames[:, 0])
    assert max(length for length, *_ in seen) == 4 + 3
    assert all((levels == clean).all() for *_, levels in seen)
    without = Clips(ids=["a", "b"], video=frames.clone(), cameras=clips.cameras)
    fill(Sampler(backbone=base), without)
    assert not without.video.equal(clips.video)
