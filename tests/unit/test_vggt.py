"""VGGT against its golden pair, the published names and naive re-statements of its parts."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from geomem.networks.vggt.config import VGGT_1B, VGGTConfig
from geomem.networks.vggt.dpt import position_map
from geomem.networks.vggt.layers import apply_rope, patch_positions, rope_table
from geomem.networks.vggt.model import (
    NUM_SPECIAL,
    VGGT,
    cameras_to_pose_encoding,
    pose_encoding_to_cameras,
    rotation_to_quaternion,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL = VGGTConfig(
    image_size=32,
    patch_size=4,
    embed_dim=16,
    depth=4,
    num_heads=2,
    patch_embed_depth=1,
    patch_embed_heads=2,
    dpt_features=8,
    dpt_channels=(4, 4, 8, 8),
    dpt_layers=(0, 1, 2, 3),
    camera_trunk_depth=1,
    camera_heads=2,
    layer_scale=0.5,
)


def small_vggt(seed: int = 0) -> VGGT:
    """A small model whose special tokens are large enough to matter."""
    torch.manual_seed(seed)
    model = VGGT(SMALL).eval()
    torch.nn.init.normal_(model.aggregator.camera_token)
    torch.nn.init.normal_(model.aggregator.register_token)
    return model


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(FIXTURES / "vggt_tiny.safetensors")


@pytest.fixture(scope="module")
def golden_model(golden: dict[str, Tensor]) -> VGGT:
    with safe_open(FIXTURES / "vggt_tiny.safetensors", "pt") as file:
        sizes = json.loads(file.metadata()["config"])
    config = VGGTConfig(
        image_size=sizes["img"],
        patch_size=sizes["patch"],
        embed_dim=sizes["C"],
        depth=sizes["depth"],
        num_heads=sizes["heads"],
        patch_embed_depth=sizes["dino_depth"],
        patch_embed_heads=sizes["dino_heads"],
        dpt_features=sizes["features"],
        dpt_channels=tuple(sizes["outc"]),
        dpt_layers=tuple(sizes["layers"]),
        # Not in the header: read off the weights' names and the pose outputs.
        camera_trunk_depth=2,
        camera_heads=4,
    )
    model = VGGT(config).eval()
    weights = {k.removeprefix("weights/"): v for k, v in golden.items() if k.startswith("weights/")}
    model.load_state_dict(weights, strict=True)
    return model


def test_golden_outputs(golden: dict[str, Tensor], golden_model: VGGT) -> None:
    with torch.no_grad():
        output = golden_model(golden["input/images"])
    for i, tokens in enumerate(output.tokens):
        torch.testing.assert_close(
            tokens, golden[f"output/aggregated_tokens.{i}"], rtol=1e-4, atol=1e-4
        )
    for i, pose in enumerate(output.pose_enc):
        torch.testing.assert_close(pose, golden[f"output/pose_enc.{i}"], rtol=1e-4, atol=1e-4)
    assert (len(output.tokens), len(output.pose_enc)) == (4, 4)
    dense = {
        "depth": output.depth[..., None],
        "depth_conf": output.depth_conf,
        "world_points": output.world_points,
        "world_points_conf": output.world_points_conf,
    }
    for name, value in dense.items():
        torch.testing.assert_close(value, golden[f"output/{name}"], rtol=1e-3, atol=1e-4)


def test_golden_dense_maps_in_their_own_spread(
    golden: dict[str, Tensor], golden_model: VGGT
) -> None:
    # The golden maps hardly vary, so their absolute tolerance alone would pass a wrong head.
    with torch.no_grad():
        output = golden_model(golden["input/images"])
    for name in ("depth", "depth_conf", "world_points", "world_points_conf"):
        value = getattr(output, name)
        expected = golden[f"output/{name}"].reshape(value.shape)
        error = (value - expected).abs().max()
        assert error < 1e-3 * expected.std(), name


def test_1b_has_the_published_names_and_shapes() -> None:
    published = json.loads((FIXTURES / "vggt_1b_state_dict_keys.json").read_text())
    with torch.device("meta"):
        model = VGGT(VGGT_1B)
    own = {name: list(x.shape) for name, x in model.state_dict().items()}
    wanted = {k: v for k, v in published["keys"].items() if not k.startswith("track_head.")}
    assert own == wanted
    tracker = sum(math.prod(v) for k, v in published["keys"].items() if k.startswith("track_head."))
    assert sum(p.numel() for p in model.parameters()) + tracker == published["num_params"]


def test_aggregate_stops_after_the_layer_asked_for() -> None:
    model, images = small_vggt(), torch.rand(1, 2, 3, 32, 32)
    ran: list[int] = []
    for i, block in enumerate(model.aggregator.global_blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    with torch.no_grad():
        some = model.aggregate(images, last_layer=1)
        assert ran == [0, 1]
        for short, full in zip(some, model.aggregate(images), strict=False):
            assert torch.equal(short, full)
    assert len(some) == 2


@pytest.mark.parametrize("last_layer", [-1, 4])
def test_aggregate_refuses_layers_that_do_not_exist(last_layer: int) -> None:
    with pytest.raises(ValueError, match=f"got {last_layer}"):
        small_vggt().aggregate(torch.rand(1, 1, 3, 32, 32), last_layer=last_layer)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 2, 3, 30, 32), (1, 2, 4, 32, 32)])
def test_images_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        small_vggt().aggregate(torch.rand(shape))


def test_clips_are_independent_and_later_frames_exchangeable() -> None:
    model, images = small_vggt(), torch.rand(2, 4, 3, 32, 32)
    with torch.no_grad():
        output = model(images)
        alone = model(images[1:])
        swapped = model(images[:, [0, 3, 2, 1]])
        moved_first = model(images[:, [1, 0, 2, 3]])
    torch.testing.assert_close(output.depth[1:], alone.depth)
    torch.testing.assert_close(output.pose_enc[-1][1:], alone.pose_enc[-1])
    torch.testing.assert_close(output.pose_enc[-1][:, [0, 3, 2, 1]], swapped.pose_enc[-1])
    # The first frame is special: exchanging it must change what is said of the others.
    difference = (output.tokens[-1][:, 2] - moved_first.tokens[-1][:, 2]).abs().max()
    assert difference > 1e-4


def test_chunks_of_frames_change_nothing() -> None:
    model, images = small_vggt(), torch.rand(1, 11, 3, 32, 32)
    whole = model(images)
    with torch.no_grad():
        chunked = model(images)
    torch.testing.assert_close(whole.depth, chunked.depth)
    torch.testing.assert_close(whole.world_points_conf, chunked.world_points_conf)


@pytest.mark.parametrize("size", [(32, 32), (16, 32), (40, 24)])
def test_small_patches_give_maps_of_image_size(size: tuple[int, int]) -> None:
    output = small_vggt()(torch.rand(1, 2, 3, *size))
    assert output.depth.shape == output.depth_conf.shape == (1, 2, *size)
    assert output.world_points.shape == (1, 2, *size, 3)
    assert output.tokens[0].shape == (1, 2, NUM_SPECIAL + size[0] * size[1] // 16, 32)
    assert (output.depth > 0).all() and (output.depth_conf > 1).all()


def test_every_parameter_but_the_mask_token_gets_a_gradient() -> None:
    model = small_vggt()
    output = model(torch.rand(1, 2, 3, 32, 32))
    maps = (output.depth, output.depth_conf, output.world_points, output.world_points_conf)
    (sum(x.mean() for x in maps) + torch.stack(output.pose_enc).square().sum()).backward()
    silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {"aggregator.patch_embed.mask_token"}


@pytest.mark.parametrize("seed", range(3))
def test_training_starts_near_the_identity_with_live_fields_of_view(seed: int) -> None:
    encodings = small_vggt(seed)(torch.rand(1, 2, 3, 32, 32)).pose_enc
    expected = torch.tensor([0, 0, 0, 0, 0, 0, 1.0, 1, 1]).expand(1, 2, 9)
    torch.testing.assert_close(encodings[-1], expected, rtol=0, atol=0.3)
    assert all((encoding[..., 7:] > 0).all() for encoding in encodings)


def test_position_embedding_resizes_smoothly_and_keeps_its_own_grid() -> None:
    embedder = small_vggt().aggregator.patch_embed
    ramp = torch.linspace(0, 1, 8)[:, None].expand(8, 8).reshape(1, 64, 1).expand(-1, -1, 16)
    with torch.no_grad():
        embedder.pos_embed[:, 1:] = ramp
    assert torch.equal(embedder.position_embedding(8, 8), ramp)
    rows = embedder.position_embedding(4, 6)[0, :, 0].reshape(4, 6)
    torch.testing.assert_close(rows, rows[:, :1].expand(4, 6))
    assert (rows[:, 0].diff() > 0).all()


def naive_rope(x: list[float], row: int, column: int) -> list[float]:
    """Rotate one head's vector pair by pair."""
    half, out = len(x) // 2, list(x)
    for axis, position in enumerate((row, column)):
        for i in range(half // 2):
            angle = position / 100 ** (2 * i / half)
            a, b = axis * half + i, axis * half + half // 2 + i
            out[a] = x[a] * math.cos(angle) - x[b] * math.sin(angle)
            out[b] = x[b] * math.cos(angle) + x[a] * math.sin(angle)
    return out


def test_rope_against_pairs_turned_one_by_one() -> None:
    positions = patch_positions(2, 3, special=2, device=torch.device("cpu"))
    assert positions.tolist() == [[0, 0], [0, 0], *([r, c] for r in (1, 2) for c in (1, 2, 3))]
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    turned = apply_rope(x, rope_table(positions, 12, dtype=torch.float32))
    naive = [naive_rope(v.tolist(), *p.tolist()) for v, p in zip(x, positions, strict=True)]
    torch.testing.assert_close(turned, torch.tensor(naive))


def test_rope_refuses_odd_head_widths() -> None:
    with pytest.raises(ValueError, match="got 6"):
        rope_table(torch.zeros(1, 2), 6, dtype=torch.float32)


def test_position_map_against_single_pixels() -> None:
    channels, height, width, aspect = 8, 3, 5, 5 / 3
    grid = position_map(channels, height, width, aspect=aspect, device=torch.device("cpu"))
    diagonal = math.hypot(aspect, 1)
    for i, j in ((0, 0), (2, 1), (1, 4)):
        x = aspect / diagonal * (2 * j + 1 - width) / width
        y = 1 / diagonal * (2 * i + 1 - height) / height
        omega = [1.0, 0.1]
        naive = [f(o * v) for v in (x, y) for f in (math.sin, math.cos) for o in omega]
        torch.testing.assert_close(grid[:, i, j], torch.tensor(naive), rtol=1e-5, atol=1e-6)


def rotation(axis: list[float], angle: float) -> Tensor:
    unit = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    # Row i of this cross product is e_i x unit, so its columns map v to v x unit = -(unit x v).
    against = torch.linalg.cross(torch.eye(3, dtype=torch.float64), unit.expand(3, 3)).mT
    return torch.linalg.matrix_exp(-angle * against).float()


@settings(max_examples=30, deadline=None)
@given(
    axis=st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda a: math.hypot(*a) > 0.1),
    angle=st.floats(0, math.pi),
    focal=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
)
def test_pose_encoding_round_trip(
    axis: list[float], angle: float, focal: tuple[float, float]
) -> None:
    w2c = torch.cat([rotation(axis, angle), torch.tensor([[0.3], [-2.0], [1.5]])], dim=1)
    camera = torch.cat([torch.tensor([*focal, 0.5, 0.5]), w2c.flatten()])
    encoding = cameras_to_pose_encoding(camera)
    assert encoding[6] >= 0
    assert encoding[3:7].norm().item() == pytest.approx(1, abs=1e-5)
    back = pose_encoding_to_cameras(encoding, height=30, width=50)
    torch.testing.assert_close(back, camera, rtol=1e-4, atol=1e-4)
    longer = torch.cat([encoding[:3], -3 * encoding[3:7], encoding[7:]])
    torch.testing.assert_close(
        pose_encoding_to_cameras(longer, height=30, width=50), camera, rtol=1e-4, atol=1e-4
    )


def test_pose_encoding_in_known_cases() -> None:
    quarter_turn_about_y = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    half = math.sqrt(0.5)
    torch.testing.assert_close(
        rotation_to_quaternion(quarter_turn_about_y), torch.tensor([0, half, 0, half])
    )
    # fx and fy differ on purpose: the vertical field comes first.
    camera = torch.cat([torch.tensor([0.5, 1.0, 0.5, 0.5]), torch.eye(3, 4).flatten()])
    fields = cameras_to_pose_encoding(camera)[7:]
    torch.testing.assert_close(fields, torch.tensor([2 * math.atan(0.5), math.pi / 2]))


def test_zero_field_of_view_gives_finite_cameras() -> None:
    encoding = torch.tensor([0, 0, 0, 0, 0, 0, 1.0, 0, 0])
    assert pose_encoding_to_cameras(encoding, height=32, width=32).isfinite().all()


def test_impossible_configurations_are_refused() -> None:
    sizes = vars(SMALL)
    with pytest.raises(ValueError, match="image_size 30"):
        VGGTConfig(**{**sizes, "image_size": 30})
    with pytest.raises(ValueError, match=r"dpt_layers \[4\]"):
        VGGTConfig(**{**sizes, "dpt_layers": (0, 1, 2, 4)})
    with pytest.raises(ValueError, match="3 heads"):
        VGGT(VGGTConfig(**{**sizes, "num_heads": 3}))
