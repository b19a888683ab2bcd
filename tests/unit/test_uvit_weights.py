"""Public checkpoint loader on files of the true form, made from a tiny configuration."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from conftest import edit_yaml
from geomem.config import JobSettings, load_config
from geomem.formats import read_checkpoint, sha256_file
from geomem.formats.checkpoints import load_module
from geomem.networks.uvit.control import MemoryControl
from geomem.networks.uvit.gate import CopyGate
from geomem.networks.uvit.model import UViT3DPose
from geomem.networks.uvit.weights import (
    load_modules,
    load_public_uvit,
    load_safetensors,
    save_modules,
)
from geomem.training import __main__ as stage

PREFIX = "diffusion_model.model."


def tiny() -> UViT3DPose:
    return UViT3DPose(
        (8, 16),
        emb_channels=8,
        num_updown_blocks=(1,),
        num_mid_blocks=1,
        num_heads=2,
        block_types=("ResBlock", "TransformerBlock"),
        block_dropouts=(0.0, 0.1),
        camera_channels=12,
    )


def light_checkpoint(model: UViT3DPose) -> dict[str, Any]:
    """Averaged weights in the state dict and no optimizer state."""
    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {PREFIX + name: value for name, value in model.state_dict().items()},
        "optimizer_states": [],
        "lr_schedulers": [],
        "pretrained_ema": True,
    }


def full_checkpoint(model: UViT3DPose) -> dict[str, Any]:
    """Raw weights in the state dict, averaged ones as a list in the optimizer state."""
    raw = copy.deepcopy(model)  # with its buffers, which are not averaged
    for parameter in raw.parameters():
        torch.nn.init.normal_(parameter)
    checkpoint = light_checkpoint(raw)
    del checkpoint["pretrained_ema"]
    averaged = tuple(p.detach().clone() for p in model.parameters())
    checkpoint["optimizer_states"] = [{"state": {}, "param_groups": [], "ema": averaged}]
    return checkpoint


@pytest.mark.parametrize("make", [light_checkpoint, full_checkpoint])
def test_averaged_weights_arrive(
    make: Callable[[UViT3DPose], dict[str, Any]], tmp_path: Path
) -> None:
    source, target = tiny(), tiny()
    path = tmp_path / "DFoT_RE10K.ckpt"
    torch.save(make(source), path)
    load_public_uvit(path, target)
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def drop_key(checkpoint: dict[str, Any]) -> None:
    del checkpoint["state_dict"][PREFIX + "embed_input.proj.bias"]


def add_keys(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"][PREFIX + "tracker.weight"] = torch.zeros(1)
    checkpoint["state_dict"]["data_mean"] = torch.zeros(1)


def change_shape(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"][PREFIX + "embed_input.proj.bias"] = torch.zeros(9)


def drop_state(checkpoint: dict[str, Any]) -> None:
    del checkpoint["state_dict"]


def forget_ema(checkpoint: dict[str, Any]) -> None:
    del checkpoint["optimizer_states"][0]["ema"]


def shorten_ema(checkpoint: dict[str, Any]) -> None:
    checkpoint["optimizer_states"][0]["ema"] = checkpoint["optimizer_states"][0]["ema"][1:]


def reorder_ema(checkpoint: dict[str, Any]) -> None:
    state = checkpoint["optimizer_states"][0]
    state["ema"] = state["ema"][::-1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_key, r"missing: diffusion_model\.model\.embed_input\.proj\.bias"),
        (add_keys, r"unexpected: data_mean, diffusion_model\.model\.tracker\.weight"),
        (change_shape, r"another shape: \S*embed_input\.proj\.bias \(9,\) instead of \(8,\)"),
        (drop_state, "no state_dict"),
        (forget_ema, "without averaged weights"),
        (shorten_ema, "averaged weights, expected"),
        (reorder_ema, "of another shape"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_loaded(
    spoil: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    checkpoint, model = full_checkpoint(tiny()), tiny()
    spoil(checkpoint)
    path = tmp_path / "spoiled.ckpt"
    torch.save(checkpoint, path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"spoiled\.ckpt.*{message}"):
        load_public_uvit(path, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_files_with_code_and_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "code.ckpt"
    torch.save({"state_dict": {}, "callback": Path("x")}, path)
    with pytest.raises(ValueError, match=r"code\.ckpt cannot be read"):
        load_public_uvit(path, tiny())
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"code\.ckpt cannot be read"):
        load_public_uvit(path, tiny())


def test_a_cut_or_other_safetensors_file_is_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "tracked.safetensors", tiny()
    state = tiny().state_dict()
    save_file({name: x for name, x in state.items() if name != "embed_input.proj.bias"}, path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"tracked\.safetensors.*missing: embed_input\.proj\.bias"):
        load_safetensors(path, model)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"tracked\.safetensors is truncated"):
        load_safetensors(path, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def write_published(path: Path, model: UViT3DPose) -> str:
    """Write a file of weights in the form of its suffix; return its checksum."""
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        make = full_checkpoint if path.stem.endswith("full") else light_checkpoint
        torch.save(make(model), path)
    return sha256_file(path)


def import_weights(project: Path, file: str, sha256: str) -> None:
    checkpoint = {"weights": file, "sha256": sha256, "window": 4}
    edit_yaml(project / "config/experiments.yaml", variants__published={"checkpoint": checkpoint})
    words = ["--root", str(project), "--variant", "published", "--seed", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, "argv",
            ["x", "import", str(project / "made"), *words, "--weights", str(project / file)],
        )  # fmt: skip
        stage.main()


@pytest.mark.parametrize("file", ["tracked.safetensors", "light.ckpt", "full.ckpt"])
def test_weights_that_are_there_already_become_a_checkpoint(project: Path, file: str) -> None:
    settings = load_config(project).method_settings("dfot")
    torch.manual_seed(0)
    model = UViT3DPose(**settings.model_dump())
    sha256 = write_published(project / file, model)
    import_weights(project, file, sha256)
    record = read_checkpoint(project / "made")
    assert (record["variant"], record["seed"]) == ("published", 0)
    assert record["provenance"]["inputs"] == {"weights": sha256}
    job = JobSettings(load_config(project)).imported("published")
    assert record["provenance"]["settings"] == job.recorded()
    loaded = load_module(UViT3DPose, project / "made", "backbone")
    assert list(loaded.config["block_types"]) == list(settings.block_types)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_weights_of_another_checksum_or_size_make_no_checkpoint(project: Path) -> None:
    settings = load_config(project).method_settings("dfot").model_copy(update={"num_mid_blocks": 2})
    file = "tracked.safetensors"
    sha256 = write_published(project / file, UViT3DPose(**settings.model_dump()))
    for given, words in (("0" * 64, "checksum"), (sha256, "does not fit the model")):
        with pytest.raises(SystemExit, match=rf"tracked\.safetensors.*{words}"):
            import_weights(project, file, given)
        assert not (project / "made").exists()


def test_backbone_branch_and_gate_go_through_one_file_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = tiny()
    modules: dict[str, Any] = {
        "backbone": backbone,
        "control": MemoryControl.from_base(backbone, 5),
        "gate": CopyGate(5, rgb_at=0, coverage_at=3),
    }
    save_modules(tmp_path / "model.safetensors", modules)
    found = load_modules(tmp_path / "model.safetensors")
    assert {name: type(module) for name, module in found.items()} == {
        name: type(module) for name, module in modules.items()
    }
    for name, module in modules.items():
        read = found[name].state_dict()
        for key, value in module.state_dict().items():
            assert read[key].dtype == value.dtype and read[key].equal(value.half().to(value.dtype))
    # a file with the backbone's own names is of another kind, a cut one is told
    save_file(backbone.state_dict(), tmp_path / "plain.safetensors")
    assert load_modules(tmp_path / "plain.safetensors") == {}
    cut = (tmp_path / "model.safetensors").read_bytes()[:1000]
    (tmp_path / "cut.safetensors").write_bytes(cut)
    with pytest.raises(ValueError, match=r"cut\.safetensors is truncated"):
        load_modules(tmp_path / "cut.safetensors")
