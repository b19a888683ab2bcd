"""VideoMAE features for content-debiased FVD: files, network, family."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conftest import edit_yaml, told
from geomem.config import JobSettings, load_config
from geomem.metrics import video_networks
from geomem.metrics.distances import frechet_distance, kernel_distance
from geomem.metrics.families.videomae import VideoMaeSettings
from geomem.metrics.registry import FAMILIES, WeightFile
from geomem.metrics.video_networks import VideoMaeFeatures, available_video_networks
from geomem.networks.videomae import VideoMae, VideoMaeSizes, load_videomae, sinusoids

SMALL = VideoMaeSizes(dim=24, hidden=40, depth=2, heads=2, side=28, patch=14, frames=4)


def published(path: Path, **changes: Tensor) -> dict[str, Tensor]:
    """Write the file as it is published, tensors at random, and return them."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in VideoMae(SMALL).state_dict().items():
        if name.endswith("qkv.bias"):
            owner = name.removesuffix("qkv.bias")
            for part in ("q_bias", "v_bias"):
                state[owner + part] = 0.2 * torch.randn(24, generator=generator)
        else:
            state[name] = 0.2 * torch.randn(tensor.shape, generator=generator)
    state |= {"head.weight": torch.zeros(174, 24), "head.bias": torch.zeros(174), **changes}
    torch.save({"module": state}, path)
    return state


def test_features_are_the_formula_written_out(tmp_path: Path) -> None:
    w = published(tmp_path / "g.pth")
    network = load_videomae(tmp_path / "g.pth", SMALL)
    video = torch.rand(1, 4, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    kernel = w["patch_embed.proj.weight"].flatten(1)
    tubes = [
        kernel @ video[0, t : t + 2, :, i : i + 14, j : j + 14].transpose(0, 1).flatten()
        for t in (0, 2)
        for i in (0, 14)
        for j in (0, 14)
    ]
    place = np.array([[n / 10000 ** (2 * (d // 2) / 24) for d in range(24)] for n in range(8)])
    place[:, 0::2], place[:, 1::2] = np.sin(place[:, 0::2]), np.cos(place[:, 1::2])
    torch.testing.assert_close(sinusoids(8, 24), torch.tensor(place).float())
    x = torch.stack(tubes) + w["patch_embed.proj.bias"] + torch.tensor(place).float()

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (24,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    for b in ("blocks.0", "blocks.1"):
        q, k, v = (norm(x, f"{b}.norm1") @ w[f"{b}.attn.qkv.weight"].T).chunk(3, 1)
        q, v = q + w[f"{b}.attn.q_bias"], v + w[f"{b}.attn.v_bias"]
        heads = zip(*(part.chunk(2, 1) for part in (q, k, v)), strict=True)
        y = torch.cat([(one @ two.T / 12**0.5).softmax(1) @ three for one, two, three in heads], 1)
        x = x + y @ w[f"{b}.attn.proj.weight"].T + w[f"{b}.attn.proj.bias"]
        y = F.gelu(norm(x, f"{b}.norm2") @ w[f"{b}.mlp.fc1.weight"].T + w[f"{b}.mlp.fc1.bias"])
        x = x + y @ w[f"{b}.mlp.fc2.weight"].T + w[f"{b}.mlp.fc2.bias"]
    with torch.no_grad():
        expected = norm(x.mean(0), "fc_norm")
        torch.testing.assert_close(network(video)[0], expected, atol=1e-4, rtol=1e-4)


def test_a_file_is_taken_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.pth"
    state = published(path, pos_embed=torch.zeros(1))
    with pytest.raises(ValueError, match=r"VideoMAE V2 ViT-g/14: tensors 1 unexpected \(pos_emb"):
        load_videomae(path, SMALL)
    del state["pos_embed"], state["blocks.1.attn.v_bias"]
    torch.save({"model": state}, path)
    pattern = r"1 missing \(blocks.1.attn.qkv.bias\), 1 unexpected \(blocks.1.attn.q_bias\)"
    with pytest.raises(ValueError, match=pattern):
        load_videomae(path, SMALL)
    with torch.device("meta"):
        count = sum(p.numel() for p in VideoMae(VideoMaeSizes()).parameters())
    assert count / 1e6 == pytest.approx(1011, abs=1)


def test_the_family_needs_its_file_and_gives_both_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_networks, "load_videomae", lambda path: load_videomae(path, SMALL))
    path, family, cpu = tmp_path / "g.pth", FAMILIES["videomae"], torch.device("cpu")
    settings = VideoMaeSettings(weights=WeightFile(path=str(path)))
    told(lambda: family.open(settings, cpu), f"no {path}", "fetch: true")
    assert set(family.left_out(settings)) == {"videomae_frechet", "videomae_kernel"}
    assert "VideoMAE" not in available_video_networks(tmp_path / "i3d.pt", None, path)
    published(path)
    assert "VideoMAE" in available_video_networks(tmp_path / "i3d.pt", None, path)
    videos = torch.rand(1, 9, 3, 20, 20, generator=torch.Generator().manual_seed(2))
    assert VideoMaeFeatures(path).features(videos).shape == (1, 2, 24)
    scorer = family.open(settings, cpu)
    real, generated = np.random.default_rng(0).standard_normal((2, 40, 1, 6))
    found = scorer.sets(real, generated)
    assert found["videomae_frechet"]["value"] == frechet_distance(real, generated)
    assert found["videomae_kernel"]["value"] == kernel_distance(real, generated)
    assert scorer.sets(real[:39], generated[:39])["videomae_frechet"] is None


def test_it_enters_the_content_bias_test_where_the_scale_names_it(project: Path) -> None:
    before = JobSettings(load_config(project)).content_bias()
    assert "videomae_weights" not in before.recorded()
    edit_yaml(project / "config/scales/smoke.yaml", scores__families={"videomae": {"stride": 2}})
    after = JobSettings(load_config(project)).content_bias()
    assert after.videomae_weights == VideoMaeSettings().weights.path
