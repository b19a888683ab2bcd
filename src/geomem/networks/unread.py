"""Networks at their true sizes without memory for their weights, to be counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@contextmanager
def unread_tensors() -> Iterator[None]:
    """Make tensors that have shapes and no numbers; what asks for a number is told 0."""
    with FakeTensorMode(), Unread(), torch.device("cpu"):
        yield


class Unread(TorchDispatchMode):
    """Answers what fake tensors cannot: a number that nobody has computed is 0."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is aten._local_scalar_dense.default:
            return False if args[0].dtype == torch.bool else 0
        if func is aten.bincount.default:
            return args[0].new_zeros((kwargs or {}).get("minlength") or args[2])
        return func(*args, **(kwargs or {}))
