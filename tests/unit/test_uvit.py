"""U-ViT 3D against the reference's outputs, names and shapes, and against naive twins."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from geomem.geometry.cameras import join_cameras
from geomem.geometry.rays import RAY_CHANNELS, encode_cameras, encode_cameras_apart
from geomem.networks.uvit.layers import (
    NORM_EPS,
    TransformerBlock,
    apply_rope,
    group_norm,
    rope_table,
)
from geomem.networks.uvit.model import UVIT_RE10K, ControlResiduals, UViT3DPose

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL: dict[str, Any] = {
    "channels": (24, 32),
    "emb_channels": 16,
    "num_updown_blocks": (1,),
    "num_mid_blocks": 1,
    "num_heads": 2,
    "block_types": ("ResBlock", "TransformerBlock"),
    "block_dropouts": (0.0, 0.0),
    "camera_channels": 12,
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(FIXTURES / "uvit3d_pose_tiny.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def golden_model(golden: dict[str, Tensor]) -> UViT3DPose:
    with safe_open(FIXTURES / "uvit3d_pose_tiny.safetensors", "pt") as file:
        published = json.loads(file.metadata()["config"])
    names = set(UVIT_RE10K) & set(published)
    model = UViT3DPose(**{name: published[name] for name in names})
    weights = {k.removeprefix("weights/"): v for k, v in golden.items() if k.startswith("weights/")}
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def small_model(seed: int = 0, **changes: Any) -> UViT3DPose:
    """A model whose zero-initialised ends are random, so that every part reaches the output."""
    torch.manual_seed(seed)
    model = UViT3DPose(**{**SMALL, **changes})
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def small_batch(clips: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return (
        torch.randn(clips, 3, 3, 8, 8),
        torch.randn(clips, 3),
        torch.randn(clips, 3, 12, 8, 8),
    )


def test_matches_the_reference(golden: dict[str, Tensor], golden_model: UViT3DPose) -> None:
    inputs = [golden[f"input/{name}"] for name in ("x", "noise_levels", "external_cond")]
    v, states = golden_model(*inputs, return_states=True)
    masked = golden_model(*inputs, golden["input/external_cond_mask"])

    torch.testing.assert_close(v, golden["output/y"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(masked, golden["output/y_masked"], rtol=1e-4, atol=1e-4)
    expected = [golden[f"output/latents.{i}"] for i in range(7)]
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-4)


def test_re10k_names_shapes_and_order_are_the_published_ones() -> None:
    published = json.loads((FIXTURES / "dfot_re10k_state_dict_keys.json").read_text())
    with torch.device("meta"):
        model = UViT3DPose(**UVIT_RE10K)
    # The order matters: the public EMA weights are a list without names.
    own = [(name, list(value.shape)) for name, value in model.state_dict().items()]
    assert own == list(published["keys"].items())
    assert sum(p.numel() for p in model.parameters()) == published["num_params"]


@pytest.mark.parametrize("head_dim", [8, 10, 12])  # pairs left over after sharing: 1, 2, 0
def test_rope_equals_rotating_pair_by_pair(head_dim: int) -> None:
    grid = (2, 3, 4)
    table = rope_table(grid, head_dim, device=torch.device("cpu"))
    x = torch.randn(1, 1, math.prod(grid), head_dim)
    shares = {8: (2, 1, 1), 10: (1, 2, 2), 12: (2, 2, 2)}[head_dim]
    expected = x.clone()
    for token, position in enumerate(
        (t, r, c) for t in range(2) for r in range(3) for c in range(4)
    ):
        pair = 0
        for share, place in zip(shares, position, strict=True):
            for i in range(share):
                angle = place / 10_000 ** (i / share)
                a, b = x[0, 0, token, 2 * pair].item(), x[0, 0, token, 2 * pair + 1].item()
                expected[0, 0, token, 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
                expected[0, 0, token, 2 * pair + 1] = a * math.sin(angle) + b * math.cos(angle)
                pair += 1
    torch.testing.assert_close(apply_rope(x, table), expected)


def test_transformer_block_equals_a_naive_one() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(16, 8, heads=2, dropout=0.0)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, emb = torch.randn(2 * 3, 16, 2, 2), torch.randn(2 * 3, 8, 2, 2)
    rope = rope_table((3, 2, 2), 8, device=torch.device("cpu"))

    def rms(u: Tensor, weight: Tensor) -> Tensor:
        return u / (u.square().mean(-1, keepdim=True) + NORM_EPS).sqrt() * weight

    y = block(x, emb, rope)
    for clip in range(2):
        tokens = x[3 * clip : 3 * clip + 3].permute(0, 2, 3, 1).reshape(12, 16)
        film = block.norm.emb_layer(emb[3 * clip : 3 * clip + 3].permute(0, 2, 3, 1).reshape(12, 8))
        h = rms(tokens, block.norm.norm.weight) * (1 + film[:, :16]) + film[:, 16:]
        fused = block.fused_attn_mlp_proj(h)
        heads = []
        for head in range(2):
            q, k, v = (fused[:, 16 * i + 8 * head : 16 * i + 8 * head + 8] for i in range(3))
            q = apply_rope(rms(q, block.q_norm.weight)[None, None], rope)[0, 0]
            k = apply_rope(rms(k, block.k_norm.weight)[None, None], rope)[0, 0]
            heads.append((q @ k.T / 8**0.5).softmax(-1) @ v)
        out = tokens + block.attn_out(torch.cat(heads, -1)) + block.mlp_out(fused[:, 48:])
        expected = out.reshape(3, 2, 2, 16).permute(0, 3, 1, 2)
        torch.testing.assert_close(y[3 * clip : 3 * clip + 3], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "groups"), [(576, 32), (48, 16), (24, 8), (32, 32)])
def test_groups_divide_small_widths(width: int, groups: int) -> None:
    assert group_norm(width).num_groups == groups


def test_untrained_model_predicts_zero_and_returns_one_state_per_level() -> None:
    model = UViT3DPose(**SMALL)
    v, states = model(*small_batch(), return_states=True)
    assert torch.equal(v, torch.zeros(2, 3, 3, 8, 8))
    shapes = [tuple(state.shape) for state in states]
    assert shapes == [(2, 3, 24, 4, 4), (2, 3, 32, 2, 2), (2, 3, 24, 4, 4)]


def test_clips_do_not_see_each_other_and_frames_of_a_clip_do() -> None:
    model = small_model().eval()
    x, noise, rays = small_batch()
    changed = x.clone()
    changed[0, 2] += 1.0
    before, after = model(x, noise, rays), model(changed, noise, rays)
    torch.testing.assert_close(before[1], after[1])
    assert (before[0, 0] - after[0, 0]).abs().max() > 1e-5


def test_rays_whose_constant_half_comes_apart_are_embedded_alike() -> None:
    model = UViT3DPose(**{**SMALL, "camera_channels": RAY_CHANNELS})
    generator = torch.Generator().manual_seed(0)
    turns = torch.linalg.qr(torch.randn(2, 3, 3, 3, generator=generator)).Q
    moves = torch.randn(2, 3, 3, 1, generator=generator)
    intrinsics = torch.tensor([0.7, 0.7, 0.5, 0.5]).expand(2, 3, 4)
    cameras = join_cameras(intrinsics, torch.cat([turns, moves], dim=-1))
    expected = model.camera_embedding(encode_cameras(cameras, 8))
    made = model.embed_cameras(*encode_cameras_apart(cameras, 8))
    # sums of 180 * patch^2 products of size one, taken in another order
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-5)
    assert expected.std() > 0.1


def test_given_camera_embedding_replaces_the_rays() -> None:
    model = small_model().eval()
    x, noise, rays = small_batch()
    mask = torch.tensor([False, True])
    emb = model.camera_embedding(rays)
    expected = model(x, noise, rays, mask)
    assert torch.equal(model(x, noise, None, mask, camera_embedding=emb), expected)
    with pytest.raises(ValueError, match="exactly one"):
        model(x, noise)
    with pytest.raises(ValueError, match="exactly one"):
        model(x, noise, rays, camera_embedding=emb)


def test_cameras_are_dropped_in_training_only_and_at_the_asked_rate() -> None:
    x, noise, rays = small_batch(clips=400)
    model = small_model(camera_dropout=0.25)
    everyone = torch.ones(400, dtype=torch.bool)
    with torch.no_grad():
        alone, kept = model(x, noise, rays, everyone), model(x, noise, rays, ~everyone)
        drawn = model(x, noise, rays)
        in_eval = model.eval()(x, noise, rays)
    per_clip = [torch.isclose(drawn, ref, atol=1e-6).flatten(1).all(dim=1) for ref in (alone, kept)]
    assert torch.equal(per_clip[0], ~per_clip[1])
    assert 0.15 < per_clip[0].float().mean() < 0.35  # 4.6 standard deviations
    torch.testing.assert_close(in_eval, kept)


def test_checkpointing_keeps_the_gradients() -> None:
    grads = []
    for checkpointing in (False, True):
        model = small_model(camera_dropout=0.0)
        calls = []
        model.down_blocks[0][0].register_forward_pre_hook(lambda *_, seen=calls: seen.append(1))
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(*small_batch()).square().mean().backward()
        assert len(calls) == 1 + checkpointing  # recomputed once
        grads.append({name: p.grad for name, p in model.named_parameters()})
    assert grads[0].keys() == grads[1].keys()
    torch.testing.assert_close(grads[0], grads[1])


def test_control_residuals_enter_the_skips_and_the_middle() -> None:
    model = small_model().eval()
    x, noise, rays = small_batch()
    _, plain = model(x, noise, rays, return_states=True)
    residuals = ControlResiduals(
        down=(torch.randn(2, 3, 24, 4, 4),), mid=torch.randn(2, 3, 32, 2, 2)
    )
    _, steered = model(x, noise, rays, control=residuals, return_states=True)
    assert torch.equal(steered[0], plain[0])  # the way down is the base's alone
    torch.testing.assert_close(steered[1], plain[1] + residuals.mid)
    upsample, block = model.up_blocks[0].children()
    h_after = model.down_blocks[0][1](plain[0].flatten(0, 1))
    skip = (plain[0] + residuals.down[0]).flatten(0, 1)
    h = upsample(steered[1].flatten(0, 1) - h_after) + skip
    emb = model.camera_embedding(rays).flatten(0, 1)
    emb = emb + model.noise_level_pos_embedding(noise.flatten())[:, :, None, None]
    torch.testing.assert_close(steered[2].flatten(0, 1), block(h, emb))


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    model = small_model().eval()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").is_file()
    loaded = UViT3DPose.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    # Not bit for bit: kernels may differ by how the file's memory happens to be aligned.
    torch.testing.assert_close(loaded(*small_batch()), model(*small_batch()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_updown_blocks": (1, 1)}, "num_updown_blocks"),
        ({"block_types": ("ResBlock", "Mamba")}, "Mamba"),
        ({"block_dropouts": (0.1, 0.0)}, "no dropout"),
        ({"num_heads": 5}, "5 heads"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UViT3DPose(**{**SMALL, **changes})


def test_frames_that_do_not_divide_are_refused() -> None:
    x, noise, rays = small_batch()
    with pytest.raises(ValueError, match=r"\(8, 6\)"):
        small_model()(x[..., :6], noise, rays[..., :6])
