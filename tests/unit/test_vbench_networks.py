"""VBench's networks: files of the published form, and what they compute of frames."""

import importlib.util
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomem.metrics import vbench
from geomem.metrics.families.vbench import VBenchSettings, VBenchWeights
from geomem.metrics.registry import FAMILIES, WeightFile
from geomem.metrics.vbench_networks import (
    DIMENSIONS,
    RaftFlow,
    at_most,
    clip_view,
    filling,
    shorter_side,
)
from geomem.networks import amt, clip, dino, musiq
from geomem.networks.amt import Amt, Correlations, load_amt, warped
from geomem.networks.clip import VIT_B_32, VIT_L_14, ClipImageEncoder, load_clip
from geomem.networks.dino import Dino, load_dino
from geomem.networks.musiq import Musiq, hashed_positions, load_musiq, patches_of
from geomem.networks.published import file_sha256

# OpenAI's files are TorchScript archives
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
CPU = torch.device("cpu")
needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="needs the extra vbench"
)


def drawn(network: nn.Module, scale: float = 0.05) -> dict[str, Tensor]:
    """Every tensor of a network at random."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: scale * torch.randn(tensor.shape, generator=generator)
        for name, tensor in network.state_dict().items()
    }


def meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def images(count: int, height: int, width: int) -> Tensor:
    small = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    return F.interpolate(small, size=(height, width), mode="bilinear")


class BothEncoders(nn.Module):
    """The layout of OpenAI's archives: the image encoder below `visual.`, beside the text's."""

    def __init__(self, visual: dict[str, Tensor]) -> None:
        super().__init__()
        self.visual = nn.Module()
        for name, tensor in visual.items():
            owner, *rest = self.visual, *name.split(".")
            for part in rest[:-1]:
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = getattr(owner, part)
            owner.register_parameter(rest[-1], nn.Parameter(tensor.half()))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.logit_scale


def save_clip(path: Path, visual: dict[str, Tensor]) -> Path:
    torch.jit.trace(BothEncoders(visual), torch.zeros(1)).save(str(path))
    return path


FILES = {
    "dino": (lambda: Dino(), load_dino),
    "musiq": (lambda: Musiq(), load_musiq),
    "amt": (lambda: Amt(), load_amt),
    "clip": (lambda: ClipImageEncoder(VIT_B_32), lambda path: load_clip(path, VIT_B_32)),
}


def save(kind: str, path: Path, state: dict[str, Tensor]) -> Path:
    if kind == "clip":
        return save_clip(path, state)
    torch.save({"state_dict": state} if kind == "amt" else state, path)
    return path


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_taken_whole_or_refused(kind: str, tmp_path: Path) -> None:
    build, load = FILES[kind]
    state = drawn(meta(build))
    network = load(save(kind, tmp_path / "whole.pth", state))
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, state[name], atol=1e-4, rtol=1e-3)
        assert tensor.dtype == torch.float32
    assert not any(p.requires_grad for p in network.parameters()) and not network.training

    first, *_, last = state
    changed = {name: tensor for name, tensor in state.items() if name != first}
    changed |= {"of_something_else": torch.zeros(3), last: torch.zeros(7)}
    pattern = rf"1 missing \({re.escape(first)}\), 1 unexpected \(of_something_else\), 1 of another"
    with pytest.raises(ValueError, match=pattern):
        load(save(kind, tmp_path / "changed.pth", changed))
    with pytest.raises(ValueError, match="missing or damaged"):
        load(tmp_path / "none.pth")
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match="missing or damaged"):
        load(tmp_path / "damaged.pth")


def test_sizes_are_the_published_ones() -> None:
    def millions(build: Callable[[], nn.Module]) -> float:
        return sum(p.numel() for p in meta(build).parameters()) / 1e6

    assert millions(Dino) == pytest.approx(85.80, abs=0.01)
    assert millions(lambda: ClipImageEncoder(VIT_B_32)) == pytest.approx(87.85, abs=0.01)
    assert millions(lambda: ClipImageEncoder(VIT_L_14)) == pytest.approx(303.97, abs=0.01)
    assert millions(Amt) == pytest.approx(2.99, abs=0.01)
    assert millions(Musiq) == pytest.approx(27.13, abs=0.05)


def attention(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
    """Self-attention of tokens (N, D), a head at a time, before the output layer."""
    q, k, v = (x @ weight.T + bias).chunk(3, dim=1)
    parts = []
    for head in range(heads):
        own = slice(head * q.shape[1] // heads, (head + 1) * q.shape[1] // heads)
        scores = q[:, own] @ k[:, own].T / math.sqrt(q[:, own].shape[1])
        parts.append(scores.softmax(1) @ v[:, own])
    return torch.cat(parts, dim=1)


def test_dino_is_the_formula_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Dino(dim=32, depth=2, num_heads=4, image_size=32, patch_size=16).eval()
    w = drawn(network, 0.3)
    network.load_state_dict(w)
    [image] = given = images(1, 32, 32)
    mean, std = (torch.tensor(x)[:, None, None] for x in (dino.IMAGENET_MEAN, dino.IMAGENET_STD))
    shown = (image - mean) / std
    kernel = w["patch_embed.proj.weight"].flatten(1)
    patches = [
        kernel @ shown[:, i : i + 16, j : j + 16].flatten() + w["patch_embed.proj.bias"]
        for i in (0, 16)
        for j in (0, 16)
    ]
    x = torch.stack([w["cls_token"][0, 0], *patches]) + w["pos_embed"][0]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (32,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    for block in ("blocks.0", "blocks.1"):
        y = norm(x, f"{block}.norm1")
        y = attention(y, w[f"{block}.attn.qkv.weight"], w[f"{block}.attn.qkv.bias"], 4)
        x = x + y @ w[f"{block}.attn.proj.weight"].T + w[f"{block}.attn.proj.bias"]
        y = norm(x, f"{block}.norm2") @ w[f"{block}.mlp.fc1.weight"].T + w[f"{block}.mlp.fc1.bias"]
        x = x + F.gelu(y) @ w[f"{block}.mlp.fc2.weight"].T + w[f"{block}.mlp.fc2.bias"]
    with torch.no_grad():
        torch.testing.assert_close(network(given)[0], norm(x, "norm")[0], atol=1e-5, rtol=1e-4)
        # a wide picture has its positions enlarged, and is not a square one's
        assert network(images(1, 32, 64)).shape == (1, 32)


def test_clip_is_the_formula_written_out() -> None:
    sizes = clip.ClipSizes(name="tiny", dim=128, depth=2, patch_size=16, out=8)
    network = ClipImageEncoder(sizes, side=32).eval()
    w = drawn(network, 0.2)
    network.load_state_dict(w)
    [image] = given = images(1, 32, 32)
    mean, std = (torch.tensor(x)[:, None, None] for x in (clip.MEAN, clip.STD))
    shown, kernel = (image - mean) / std, w["conv1.weight"].flatten(1)
    patches = [
        kernel @ shown[:, i : i + 16, j : j + 16].flatten() for i in (0, 16) for j in (0, 16)
    ]
    x = torch.stack([w["class_embedding"], *patches]) + w["positional_embedding"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (128,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    x = norm(x, "ln_pre")
    for i in range(2):
        p = f"transformer.resblocks.{i}"
        y = attention(
            norm(x, f"{p}.ln_1"), w[f"{p}.attn.in_proj_weight"], w[f"{p}.attn.in_proj_bias"], 2
        )
        x = x + y @ w[f"{p}.attn.out_proj.weight"].T + w[f"{p}.attn.out_proj.bias"]
        y = norm(x, f"{p}.ln_2") @ w[f"{p}.mlp.c_fc.weight"].T + w[f"{p}.mlp.c_fc.bias"]
        y = y / (1 + torch.exp(-1.702 * y))
        x = x + y @ w[f"{p}.mlp.c_proj.weight"].T + w[f"{p}.mlp.c_proj.bias"]
    expected = norm(x, "ln_post")[0] @ w["proj"]
    with torch.no_grad():
        torch.testing.assert_close(network(given)[0], expected, atol=1e-4, rtol=1e-4)


def test_musiq_cuts_pads_and_hashes_patches_as_published() -> None:
    image = images(1, 40, 70)
    cut = patches_of(image)
    assert cut.shape == (1, 2 * 3, 3, 32, 32)
    whole = F.pad(image, (13, 13, 12, 12))  # 26 columns and 24 rows are missing
    for n, (i, j) in enumerate((i, j) for i in (0, 32) for j in (0, 32, 64)):
        torch.testing.assert_close(cut[0, n], whole[0, :, i : i + 32, j : j + 32])
    for rows, columns in ((7, 7), (12, 5), (3, 16)):
        expected = [
            (i * 10 // rows) * 10 + j * 10 // columns for i in range(rows) for j in range(columns)
        ]
        assert hashed_positions(rows, columns).tolist() == expected


def test_musiq_stands_on_its_own_sizes_and_kernels_without_scale() -> None:
    network = Musiq().eval()
    network.load_state_dict(drawn(network, 0.2))
    picture = images(2, 48, 80)
    with torch.no_grad():
        scores = network(picture)
        assert scores.shape == (2,) and abs(float(scores[0] - scores[1])) > 1e-4
        torch.testing.assert_close(network(picture[1:]), scores[1:], atol=1e-4, rtol=1e-4)
        # kernels are standardised: their scale and offset say nothing
        network.conv_root.weight.copy_(3 * network.conv_root.weight + 1)
        torch.testing.assert_close(network(picture), scores, atol=2e-3, rtol=1e-3)
        # and a patch's own size tells it from another's
        network.transformer_encoder.scaleembed_input.scale_emb[2] *= -9
        assert not torch.allclose(network(picture), scores, atol=2e-3)


def test_amt_correlations_are_those_of_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(1, 6, 16, 20, generator=generator) for _ in range(2))
    flows = tuple(2 * torch.randn(1, 2, 16, 20, generator=generator) for _ in range(2))
    found = Correlations(first, second).around(flows)
    assert found.shape == (1, 2 * 4 * 49, 16, 20)

    def value(grid: Tensor, x: float, y: float) -> float:
        """Bilinear, nothing outside."""
        total, left, top = 0.0, math.floor(x), math.floor(y)
        for column in (left, left + 1):
            for row in (top, top + 1):
                if 0 <= column < grid.shape[1] and 0 <= row < grid.shape[0]:
                    weight = (1 - abs(x - column)) * (1 - abs(y - row))
                    total += weight * float(grid[row, column])
        return total

    for way, (own, other) in enumerate(((first, second), (second, first))):
        for level in range(4):
            for i, j, row, column in ((0, 0, 3, 5), (6, 2, 9, 1), (3, 3, 15, 19), (1, 5, 8, 10)):
                products = torch.einsum("c,chw->hw", own[0, :, row, column], other[0]) / 6**0.5
                grid = F.avg_pool2d(products[None, None], 2**level)[0, 0]
                x = (column + float(flows[way][0, 0, row, column])) / 2**level + i - 3
                y = (row + float(flows[way][0, 1, row, column])) / 2**level + j - 3
                channel = (way * 4 + level) * 49 + i * 7 + j
                assert float(found[0, channel, row, column]) == pytest.approx(
                    value(grid, x, y), abs=1e-4
                )


def test_amt_warps_by_pixels_and_gives_frames_of_their_size(tmp_path: Path) -> None:
    image = images(1, 16, 24)
    flow = torch.tensor([3.0, -2.0])[None, :, None, None].expand(1, 2, 16, 24)
    torch.testing.assert_close(
        warped(image, flow)[..., 2:, :-3], image[..., :-2, 3:], atol=1e-5, rtol=0
    )
    path = save("amt", tmp_path / "amt-s.pth", drawn(meta(Amt), 0.05))
    score = DIMENSIONS["motion_smoothness"]({"amt": path}, CPU)
    given = images(3, 132, 150)
    network = load_amt(path)
    pads = filling(given, amt.MULTIPLE)
    assert pads == [5, 5, 6, 6]
    padded = F.pad(given, pads, mode="replicate")
    made = network(padded[:1], padded[2:])[0, :, 6:-6, 5:-5]
    expected = 1 - float(((255 * made).floor() / 255 - given[1]).abs().mean())
    assert score(given, 8) == pytest.approx(expected, abs=1e-6)
    assert 0 <= score(images(4, 32, 32), 8) <= 1  # small frames are enlarged first


def test_pictures_are_shown_as_vbench_shows_them() -> None:
    given = images(2, 100, 150)
    wide = shorter_side(given, 224, "bicubic")
    assert wide.shape[-2:] == (224, 336)
    expected = F.interpolate(given, size=(224, 336), mode="bicubic", antialias=False)
    torch.testing.assert_close(clip_view(given), expected[..., 56:280])
    assert clip_view(given.mT).shape[-2:] == (224, 224)
    assert at_most(images(1, 300, 1000), 512).shape[-2:] == (153, 512)
    assert at_most(given, 512) is given
    assert filling(given, 8) == [1, 1, 2, 2] and filling(images(1, 64, 63), 8) == [0, 1, 0, 0]


@pytest.mark.long
def test_dimensions_join_network_and_formula(tmp_path: Path) -> None:
    given = images(3, 40, 56)
    path = save("dino", tmp_path / "dino.pth", drawn(meta(Dino), 0.1))
    features = load_dino(path)(shorter_side(given, 224, "bilinear"))
    score = DIMENSIONS["subject_consistency"]({"dino": path}, CPU)
    assert score(given, 8) == pytest.approx(vbench.consistency(features), abs=1e-5)

    path = save("clip", tmp_path / "b32.pt", drawn(meta(lambda: ClipImageEncoder(VIT_B_32))))
    features = load_clip(path, VIT_B_32)(clip_view(given))
    score = DIMENSIONS["background_consistency"]({"clip_b32": path}, CPU)
    assert score(given, 8) == pytest.approx(vbench.consistency(features), abs=1e-5)
    assert score(given[:1].expand(3, -1, -1, -1), 8) == pytest.approx(1, abs=1e-6)

    path = save("musiq", tmp_path / "musiq.pth", drawn(meta(Musiq), 0.1))
    score = DIMENSIONS["imaging_quality"]({"musiq": path}, CPU)
    assert score(given, 8) == pytest.approx(float(load_musiq(path)(given).mean()) / 100, abs=1e-6)


def test_aesthetic_quality_is_a_tenth_of_the_linear_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of L/14's layout with one block, since 24 take a gigabyte
    small = clip.ClipSizes(name="L/14 of one block", dim=1024, depth=1, patch_size=14, out=768)
    monkeypatch.setattr("geomem.metrics.vbench_networks.VIT_L_14", small)
    encoder = save("clip", tmp_path / "l14.pt", drawn(meta(lambda: ClipImageEncoder(small))))
    head = {"weight": torch.randn(1, 768), "bias": torch.tensor([5.0])}
    torch.save(head, tmp_path / "head.pth")
    files = {"clip_l14": encoder, "aesthetic": tmp_path / "head.pth"}
    given = images(2, 32, 32)
    features = load_clip(encoder, small)(clip_view(given)).double()
    units = features / features.square().sum(1, keepdim=True).sqrt()
    expected = float((units @ head["weight"][0].double() + 5).mean()) / 10
    found = DIMENSIONS["aesthetic_quality"](files, CPU)(given, 8)
    assert found == pytest.approx(expected, abs=1e-5)
    torch.save({"weight": torch.zeros(1, 512), "scale": torch.zeros(1)}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match=r"missing \(bias\).*unexpected \(scale\).*another shape"):
        DIMENSIONS["aesthetic_quality"](files, CPU)


def test_the_family_takes_what_is_there_and_records_its_files(tmp_path: Path) -> None:
    path = save("musiq", tmp_path / "musiq.pth", drawn(meta(Musiq), 0.1))
    nowhere = {
        name: WeightFile(path=str(tmp_path / "none" / name))
        for name in VBenchWeights.model_fields
        if name != "musiq"
    }
    weights = VBenchWeights(**nowhere, musiq=WeightFile(path=str(path)))
    scorer = FAMILIES["vbench"].open(VBenchSettings(weights=weights), CPU)
    assert set(scorer.dimensions) == {"temporal_flickering", "imaging_quality"}
    assert "imaging_quality" not in scorer.left_out and "dynamic_degree" in scorer.left_out
    assert scorer.dimensions["imaging_quality"](images(2, 32, 32), 8) is not None
    assert scorer._known["imaging_quality"] == {"musiq.pth": file_sha256(path)}


@needs_torchvision
def test_raft_is_torchvisions_and_its_flow_is_in_shorter_sides(tmp_path: Path) -> None:
    from geomem.metrics.networks import import_torchvision

    import_torchvision()
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(0)
    network = raft_large(weights=None, progress=False).eval()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    given = images(2, 130, 160)
    flow = RaftFlow(tmp_path / "raft.pth", device=CPU)(*given)
    padded = 2 * F.pad(given, (0, 0, 3, 3), mode="replicate") - 1
    with torch.no_grad():
        expected = network(padded[:1], padded[1:], num_flow_updates=20)[-1][0] / 130
    torch.testing.assert_close(flow, expected)
    # small frames are enlarged, and their flow stays a share of them
    assert RaftFlow(tmp_path / "raft.pth", device=CPU)(*images(2, 32, 40)).shape == (2, 128, 160)
    state = network.state_dict()
    state["module.fnet.conv1.weight"] = state.pop("feature_encoder.convnormrelu.0.weight")
    torch.save(state, tmp_path / "raft.pth")
    with pytest.raises(ValueError, match=r"missing \(feature_encoder.*unexpected \(module.fnet"):
        RaftFlow(tmp_path / "raft.pth", device=CPU)


@pytest.mark.parametrize("module", [amt, clip, dino, musiq])
def test_networks_say_which_file_they_read(module: object) -> None:
    assert re.search(r"`[\w.-]+\.(pth|pt)`", str(module.__doc__))
