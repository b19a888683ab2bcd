"""Checkpoints: a diffusers folder a module below `model/`, beside a record of their making."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geomem.errors import InputError
from geomem.formats.files import (
    atomic_directory,
    atomic_path,
    check_sha256,
    read_record,
    sha256_file,
)
from geomem.formats.records import write_record

WEIGHTS = "diffusion_pytorch_model.safetensors"


def write_checkpoint(
    folder: Path,
    modules: Mapping[str, Any],
    made_by: Mapping[str, Any],
    identity: Mapping[str, Any],
    log: list[dict[str, float]],
) -> None:
    """Write `model/<name>/`, `curves.csv` and last `checkpoint.json` below `folder`.

    Args:
        folder: `results/<scale>/checkpoints/<variant>/seed<k>`.
        modules: diffusers models by name.
        made_by: Provenance.
        identity: `variant` and `seed`.
        log: One entry a step.
    """
    with atomic_directory(folder / "model") as temporary:
        for name, module in modules.items():
            module.save_pretrained(temporary / name)
            drop_path(temporary / name / "config.json")
    weights = {name: sha256_file(folder / "model" / name / WEIGHTS) for name in modules}
    columns = ["step", *sorted({name for entry in log for name in entry} - {"step"})]
    with atomic_path(folder / "curves.csv") as temporary:
        rows = (
            ",".join(f"{entry[name]:.6g}" if name in entry else "" for name in columns)
            for entry in log
        )
        temporary.write_text("\n".join([",".join(columns), *rows]) + "\n", encoding="utf-8")
    parameters = {name: sum(p.numel() for p in m.parameters()) for name, m in modules.items()}
    content = {**identity, "weights": weights, "parameters": parameters}
    write_record(folder / "checkpoint.json", made_by, content)


def _remedy(folder: Path) -> str:
    return f"delete the folder {folder} and run the workflow again"


def drop_path(config: Path) -> None:
    """Take out of a diffusers configuration file where its model lay."""
    # diffusers records where a model was loaded from, which differs from machine to machine
    content = json.loads(config.read_text(encoding="utf-8"))
    content.pop("_name_or_path", None)
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Return the record of a checkpoint after comparing its weights' checksums.

    Raises:
        InputError: If the record or a weight file is missing or damaged.
    """
    record = read_record(folder / "checkpoint.json", "weights", "provenance")
    for name, expected in record["weights"].items():
        check_sha256(folder / "model" / name / WEIGHTS, expected, _remedy(folder))
    return record


def load_module(cls: Any, folder: Path, name: str) -> Any:
    """Load one module of a checkpoint, refusing any missing, unexpected or reshaped weight.

    Args:
        cls: The diffusers model class.
        folder: The checkpoint.
        name: Module name below `model/`.

    Raises:
        InputError: If the folder is missing or keys do not fit.
    """
    path = folder / "model" / name
    for file in (path / WEIGHTS, path / "config.json"):
        if not file.is_file():
            raise InputError(f"{file} is missing; {_remedy(folder)}")
    try:
        model = cls.from_config(cls.load_config(path))
    except (OSError, TypeError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise InputError(
            f"{path / 'config.json'} does not describe a network ({told}); {_remedy(folder)}"
        ) from None
    check_keys(path / WEIGHTS, model)
    return cls.from_pretrained(path, low_cpu_mem_usage=False)


def check_keys(path: Path, model: Any) -> None:
    """Raise InputError unless the file holds exactly the model's tensors, in name and shape."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is truncated ({error}); train it again") from None
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = sorted({name for name, _ in expected.items() ^ found.items()})
    if wrong:
        shown = ", ".join(wrong[:3])
        raise InputError(
            f"{path}: {len(wrong)} missing, extra or reshaped weights ({shown}, ...); it was made "
            "for another model configuration: train it again or restore that configuration"
        )
