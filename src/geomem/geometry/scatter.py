"""Deterministic sums of rows by index, on every device."""

from torch import Tensor


def sum_rows(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """Sum rows (M, C) that share an index (M,) in [0, count) into (count, C).

    `index_add_` is sequential on the CPU but races on CUDA, where accumulating `index_put_` sorts.
    """
    sums = rows.new_zeros(count, rows.shape[1])
    if sums.is_cuda:
        return sums.index_put_((index,), rows, accumulate=True)
    return sums.index_add_(0, index, rows)
