"""JEDi: its kernel with and without diagonals, V-JEPA's files and features, its family."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conftest import edit_yaml, told
from geomem.config import JobSettings, load_config
from geomem.metrics import video_networks
from geomem.metrics.distances import jedi, jedi_u, kernel_distance
from geomem.metrics.families.jedi import JediScorer, JediSettings
from geomem.metrics.registry import FAMILIES, WeightFile
from geomem.metrics.video_networks import VJepaFeatures, available_video_networks
from geomem.networks.vjepa import VJepa, VJepaSizes, load_vjepa

SMALL = VJepaSizes(dim=24, depth=2, heads=2, pool_heads=3, side=32, patch=16, frames=4)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_jedi_has_its_released_value() -> None:
    real = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    generated = np.array([[7, 6, 5], [4, 3, 2], [1, 1, 8], [0, 2, 5]])
    assert jedi(real, generated) == pytest.approx(27072.22, abs=0.005)


@pytest.mark.parametrize(("clips", "expected"), [(40, 5.0), (100, 2.0), (400, 0.5), (1000, 0.2)])
def test_kept_diagonals_are_the_bias_that_dropping_them_takes_away(
    clips: int, expected: float
) -> None:
    first, second = drawn(clips, 1280, seed=1), drawn(clips, 1280, seed=2)
    assert jedi(first, second) == pytest.approx(expected, rel=0.02)
    assert abs(jedi_u(first, second)) < 0.02


def test_both_are_the_sums_of_loops() -> None:
    real, generated = drawn(5, 2, 3), drawn(5, 2, 3, seed=1) + 0.5

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / 3) ** 2

    def mean(first: np.ndarray, second: np.ndarray) -> float:
        rows, columns = first.reshape(-1, 3), second.reshape(-1, 3)
        return float(np.mean([kernel(x, y) for x in rows for y in columns]))

    biased = mean(real, real) + mean(generated, generated) - 2 * mean(real, generated)
    assert jedi(real, generated) == pytest.approx(100 * biased)
    terms = [
        mean(real[[i]], real[[j]])
        + mean(generated[[i]], generated[[j]])
        - mean(real[[i]], generated[[j]])
        - mean(real[[j]], generated[[i]])
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    assert jedi_u(real, generated) == pytest.approx(100 * np.mean(terms))
    assert kernel_distance(real, generated) != pytest.approx(np.mean(terms))
    with pytest.raises(ValueError, match="widths differ"):
        jedi(real, generated[..., :2])
    assert jedi(real, real) == pytest.approx(0) and jedi_u(real, real) == pytest.approx(0)


def published(folder: Path, sizes: VJepaSizes, **changes: Any) -> tuple[Path, Path]:
    """Both files as they are published, tensors at random."""
    network = VJepa(sizes)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: 0.2 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in network.state_dict().items()
    }
    encoder = {
        name.replace("encoder.", "module.backbone.", 1): tensor
        for name, tensor in state.items()
        if name.startswith("encoder.")
    }
    probe = {f"module.{name}": x for name, x in state.items() if name.startswith("pooler.")}
    probe |= {
        "module.linear.weight": torch.zeros(174, sizes.dim),
        "module.linear.bias": torch.ones(174),
    }
    paths = folder / "vith16.pth.tar", folder / "ssv2-probe.pth.tar"
    torch.save({"target_encoder": encoder | changes, "encoder": {}, "epoch": 300}, paths[0])
    torch.save({"classifier": probe, "epoch": 20, "batch_size": 8}, paths[1])
    return paths


def test_features_are_the_formula_written_out(tmp_path: Path) -> None:
    paths = published(tmp_path, SMALL)
    network = load_vjepa(*paths, SMALL)
    w = network.state_dict()
    video = torch.rand(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    shown = (video[0] - mean[:, None, None]) / std[:, None, None]
    kernel = w["encoder.patch_embed.proj.weight"].flatten(1)
    tubes = [
        kernel @ shown[t : t + 2, :, i : i + 16, j : j + 16].transpose(0, 1).flatten()
        for t in (0, 2)
        for i in (0, 16)
        for j in (0, 16)
    ]
    x = torch.stack(tubes) + w["encoder.patch_embed.proj.bias"] + w["encoder.pos_embed"][0]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        return F.layer_norm(x, (24,), w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def attended(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        parts = zip(*(part.chunk(heads, 1) for part in (q, k, v)), strict=True)
        return torch.cat([(a @ b.T / (24 / heads) ** 0.5).softmax(1) @ c for a, b, c in parts], 1)

    for block in ("encoder.blocks.0", "encoder.blocks.1"):
        q, k, v = linear(norm(x, f"{block}.norm1", 1e-6), f"{block}.attn.qkv").chunk(3, 1)
        x = x + linear(attended(q, k, v, 2), f"{block}.attn.proj")
        y = F.gelu(linear(norm(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1"))
        x = x + linear(y, f"{block}.mlp.fc2")
    pool, query = "pooler.cross_attention_block", w["pooler.query_tokens"][0]
    seen = norm(norm(x, "encoder.norm", 1e-6), f"{pool}.norm1", 1e-5)
    k, v = linear(seen, f"{pool}.xattn.kv").chunk(2, 1)
    made = linear(attended(linear(query, f"{pool}.xattn.q"), k, v, 3), f"{pool}.xattn.proj")
    query = query + made
    y = F.gelu(linear(norm(query, f"{pool}.norm2", 1e-5), f"{pool}.mlp.fc1"))
    query = query + linear(y, f"{pool}.mlp.fc2")
    with torch.no_grad():
        torch.testing.assert_close(network(video), query, atol=1e-4, rtol=1e-4)


def test_files_are_taken_whole_or_refused(tmp_path: Path) -> None:
    encoder, probe = published(tmp_path, SMALL, **{"module.backbone.more": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"V-JEPA's encoder: tensors 1 unexpected \(more\)"):
        load_vjepa(encoder, probe, SMALL)
    with pytest.raises(ValueError, match="has no `target_encoder`"):
        load_vjepa(probe, probe, SMALL)
    encoder, probe = published(tmp_path, SMALL)
    content = torch.load(probe, weights_only=True)
    del content["classifier"]["module.pooler.query_tokens"]
    torch.save(content, probe)
    with pytest.raises(ValueError, match=r"probe: tensors 1 missing \(query_tokens\)"):
        load_vjepa(encoder, probe, SMALL)
    with torch.device("meta"):
        whole = VJepa(VJepaSizes())
    # ViT-H/16 has 630 million parameters, positions included; the pooler a block of 20
    assert sum(p.numel() for p in whole.encoder.parameters()) / 1e6 == pytest.approx(633.7, abs=0.2)
    assert whole.encoder.pos_embed.shape == (1, 1568, 1280)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Files of a small V-JEPA, where the large one is loaded."""
    load = video_networks.load_vjepa
    monkeypatch.setattr(video_networks, "load_vjepa", lambda one, other: load(one, other, SMALL))
    return published(tmp_path, SMALL)


def test_every_16_frames_are_a_sample(small: tuple[Path, Path]) -> None:
    network = VJepaFeatures(*small)  # of 4 frames here
    videos = torch.rand(2, 10, 3, 20, 24, generator=torch.Generator().manual_seed(2))
    found = network.features(videos)
    assert found.shape == (2, 2, 24)
    torch.testing.assert_close(network.features(videos[1:, 4:8]), found[1:, 1:])
    backwards = videos[:, :4].flip(1)
    assert not torch.allclose(network.features(backwards), found[:, :1], atol=1e-3)
    with pytest.raises(ValueError, match=r"needs \(B, T >= 4"):
        network.features(videos[:, :3])
    known = hashlib.sha256(small[0].read_bytes()).hexdigest()
    assert network.details["vith16.pth.tar"] == known


def test_the_family_needs_its_files(small: tuple[Path, Path], tmp_path: Path) -> None:
    family, cpu = FAMILIES["jedi"], torch.device("cpu")
    encoder, probe = (WeightFile(path=str(path)) for path in small)
    absent = WeightFile(path=str(tmp_path / "absent"))
    missing = JediSettings(encoder=absent, probe=probe)
    assert family.left_out(missing) == dict.fromkeys(("jedi", "jedi_u"), f"no {absent.path}")
    told(lambda: family.open(missing, cpu), f"no {absent.path}", "fetch: true")
    wrong = JediSettings(encoder=WeightFile(path=encoder.path, sha256="0" * 8), probe=probe)
    told(lambda: family.open(wrong, cpu), "fails its checksum")
    scorer = family.open(JediSettings(encoder=encoder, probe=probe, stride=2), cpu)
    assert isinstance(scorer, JediScorer) and set(scorer.networks["jedi"]) == {
        "network",
        *(path.name for path in small),
    }
    real, generated = drawn(6, 1, 8), drawn(6, 1, 8, seed=1)
    found = scorer.sets(real, generated)
    assert found["jedi"] == {"value": jedi(real, generated), "clips": 6}
    assert found["jedi_u"]["value"] == jedi_u(real, generated)
    assert len(found["jedi_u"]["pseudovalues"]) == 6
    assert scorer.sets(real[:1], generated[:1]) == {"jedi": None, "jedi_u": None}
    assert len(family.weights(JediSettings(fetch=True))) == 2
    assert JediSettings(fetch=True).digest == JediSettings().digest


def test_it_enters_the_content_bias_test_where_the_scale_names_it(
    project: Path, small: tuple[Path, Path], tmp_path: Path
) -> None:
    assert "V-JEPA" not in available_video_networks(tmp_path / "i3d.pt")
    assert "V-JEPA" not in available_video_networks(tmp_path / "i3d.pt", (small[0], tmp_path / "x"))
    load = available_video_networks(tmp_path / "i3d.pt", small)["V-JEPA"]
    assert load().features(torch.rand(1, 4, 3, 16, 16)).shape == (1, 1, 24)
    before = JobSettings(load_config(project)).content_bias()
    assert "vjepa_weights" not in before.recorded()
    paths = {name: {"path": str(p)} for name, p in zip(("encoder", "probe"), small, strict=True)}
    edit_yaml(project / "config/scales/smoke.yaml", scores__families={"jedi": paths})
    after = JobSettings(load_config(project)).content_bias()
    assert after.vjepa_weights == (str(small[0]), str(small[1]))
