"""What functions of nn do under md.autocast besides what the table of operations says (minidl.precision)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import minidl as md

F = TypeVar("F", bound=Callable[..., md.Tensor])
_wide = md.full_precision(lambda x: x)


def own_dtype(function: F) -> F:
    """function, which under md.autocast computes in float32 and rounds once to the dtype of its input, as PyTorch's kernels of the kind do.

    >>> twice = own_dtype(lambda x: md.exp(x) * 0.0)
    >>> with md.autocast():
    ...     md.exp(md.ones(2, dtype=md.bfloat16)).dtype, twice(md.ones(2, dtype=md.bfloat16)).dtype
    (minidl.float32, minidl.bfloat16)
    """

    @functools.wraps(function)
    def run(input: md.Tensor, *args: Any, **kwargs: Any) -> md.Tensor:
        if not md.is_autocast_enabled():
            return function(input, *args, **kwargs)
        x = _wide(input)
        with md.autocast(enabled=False):
            out = function(x, *args, **kwargs)
        return out if x.dtype is input.dtype else out.to(input.dtype)

    return cast(F, run)
