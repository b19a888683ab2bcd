"""Resumable training states in safetensors: no pickle is written or read.

A state is a file of tensors and a record with its checksum, which is written last: without it, the
tensors are those of a write that was cut off. Tensors that are sharded over processes are stored
whole, so a run may go on with another number of processes.
"""

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.canonical import digest
from geomem.errors import InputError
from geomem.formats.files import check_sha256, read_json, read_tensors, write_json, write_tensors

KEPT = 2
Log = list[dict[str, float]]


class States:
    """The states of one run in a folder: written in the background, the newest few kept."""

    def __init__(
        self,
        folder: Path,
        *,
        made_from: Mapping[str, Any],
        kept: int = KEPT,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Bind a folder; nothing is read or written yet.

        Args:
            folder: Where the states are.
            made_from: Settings and checksums that the run is made from; states made from others
                are not its own.
            kept: How many of the newest states are kept.
            say: Told in one line of each damaged state.
        """
        self.folder, self.key, self.kept, self.say = folder, digest(dict(made_from)), kept, say
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="states")
        self._writing: Future[None] | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
        """Start to write the state after `step` steps; an earlier write is waited for.

        Args:
            step: Steps done.
            tensors: Copies that nobody changes while they are written.
            content: Plain JSON values beside them.

        Raises:
            OSError: If the write before this one has failed.
        """
        self.wait()
        self._writing = self._writer.submit(self._write, step, dict(tensors), dict(content))

    def wait(self) -> None:
        """Return when nothing is being written any more.

        Raises:
            OSError: If the write has failed.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def newest(self) -> int | None:
        """Return the step of the newest undamaged state of this run, None without one.

        What writes that were cut off have left is removed.
        """
        self._clean()
        for record in sorted(self.folder.glob("step-*.json"), reverse=True):
            try:
                content = read_json(record)
                if content["key"] != self.key:
                    continue
                check_sha256(_tensors(record), content["sha256"])
            except (InputError, KeyError, TypeError):
                self.say(f"{_tensors(record)} is damaged; going on from the state before it")
                continue
            return _step(record)
        return None

    def read(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and the content of the state after `step` steps."""
        return read_tensors(_tensors(self._record(step)))

    def _write(self, step: int, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
        record = self._record(step)
        sha256 = write_tensors(_tensors(record), tensors, content)
        write_json(record, {"key": self.key, "sha256": sha256})
        for outdated in self._outdated(step):
            outdated.unlink()
            _tensors(outdated).unlink(missing_ok=True)

    def _outdated(self, step: int) -> list[Path]:
        """Return the records of all states but the newest few of this run, as it is at `step`."""
        own = [
            record
            for record in sorted(self.folder.glob("step-*.json"))
            if _step(record) <= step and self._is_own(record)
        ]
        return sorted(set(self.folder.glob("step-*.json")) - set(own[-self.kept :]))

    def _is_own(self, record: Path) -> bool:
        with contextlib.suppress(InputError, KeyError, TypeError):
            return bool(read_json(record)["key"] == self.key)
        return False

    def _clean(self) -> None:
        unfinished = [
            path
            for path in self.folder.glob("step-*.safetensors")
            if not path.with_suffix(".json").exists()
        ]
        for path in [*self.folder.glob(".step-*"), *unfinished]:
            path.unlink()

    def _record(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.json"


def _tensors(record: Path) -> Path:
    return record.with_suffix(".safetensors")


def _step(record: Path) -> int:
    return int(record.stem.removeprefix("step-"))


def whole(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU; a sharded tensor is gathered, which all processes must ask for."""
    tensor = tensor.detach()
    gathered = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered.to("cpu", copy=True)


def like(stored: Tensor, present: Tensor) -> Tensor:
    """Return a whole tensor sharded as `present` is, or as it is where `present` is not."""
    if not hasattr(present, "full_tensor") or stored.shape != present.shape:
        return stored
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(present, DTensor)
    return distribute_tensor(
        stored.to(present.device), present.device_mesh, present.placements, src_data_rank=None
    )


def state_tensors(
    modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, averages: list[Tensor]
) -> dict[str, Tensor]:
    """Return copies of all tensors of a run, whole and on the CPU, by their name in a state."""
    tensors = {
        f"module.{name}.{entry}": tensor
        for name, module in modules.items()
        for entry, tensor in module.state_dict().items()
    }
    tensors |= {f"average.{i:06d}": tensor for i, tensor in enumerate(averages)}
    for i, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i:06d}.{name}": value for name, value in entries.items()}
    return {name: whole(tensor) for name, tensor in tensors.items()}


@torch.no_grad()
def restore_tensors(
    tensors: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor],
) -> None:
    """Put the tensors of a state back where `state_tensors` had them from."""
    for name, module in modules.items():
        present, stored = module.state_dict(), _below(tensors, f"module.{name}.")
        module.load_state_dict({k: like(v, present.get(k, v)) for k, v in stored.items()})
    for average, saved in zip(averages, _below(tensors, "average.").values(), strict=True):
        average.copy_(like(saved, average))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer.").items():
        number, entry = name.split(".")
        state.setdefault(int(number), {})[entry] = like(tensor, parameters[int(number)])
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    names = sorted(name for name in tensors if name.startswith(prefix))
    return {name.removeprefix(prefix): tensors[name] for name in names}


def save_state(
    folder: Path,
    step: int,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor],
    log: Log,
    key: Mapping[str, Any],
) -> None:
    """Write the state of a run of one process and wait until it is there."""
    states = States(folder, made_from=key)
    states.save(step, state_tensors(modules, optimizer, averages), {"log": log})
    states.wait()


def load_state(
    folder: Path,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor],
    key: Mapping[str, Any],
) -> tuple[int, Log]:
    """Load the newest undamaged state; return its step and log, (0, []) where there is none."""
    states = States(folder, made_from=key)
    step = states.newest()
    if step is None:
        return 0, []
    tensors, content = states.read(step)
    restore_tensors(tensors, modules, optimizer, averages)
    return step, content["log"]
