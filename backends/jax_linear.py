"""The primitives as plain lax code, continued: indexing and contractions.

Promises: those of jax_elementwise; besides, products of float32 are never rounded to TF32 or bfloat16 on the way, and duplicates of a "set" have
one winner, the last, on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

from minidl.backends.jax_helpers import I64, const, is_half, kernel, shape_to, spread, to

HIGHEST = lax.Precision.HIGHEST


# ---- indexing -------------------------------------------------------------------------------------------------------------------------
def _index(indices: Sequence[Any]) -> Any:
    indices = spread(*indices)
    return lax.concatenate([lax.reshape(to(i, I64), (*i.shape, 1)) for i in indices], len(indices[0].shape))


@kernel
def gather(x: Any, *indices: Any) -> Any:
    k, places = len(indices), _index(indices)
    lead = places.shape[:-1]
    if 0 in x.shape or 0 in lead:
        return lax.full(lead + x.shape[k:], 0, x.dtype)
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(range(len(lead), len(lead) + len(x.shape) - k)), collapsed_slice_dims=tuple(range(k)), start_index_map=tuple(range(k))
    )
    return lax.gather(x, places, numbers, (1,) * k + x.shape[k:], mode=lax.GatherScatterMode.CLIP)


_SCATTER = {"set": lax.scatter, "add": lax.scatter_add, "mul": lax.scatter_mul, "min": lax.scatter_min, "max": lax.scatter_max}


def _scatter(x: Any, u: Any, places: Any, numbers: lax.ScatterDimensionNumbers, board: tuple[tuple[int, ...], Any], mode: str) -> Any:
    """board: (shape, numbers) of the array of positions in which duplicates of "set" compete: XLA leaves their order open."""
    if mode in ("add", "mul") and is_half(x):
        return to(_scatter(to(x, np.float32), to(u, np.float32), places, numbers, board, mode), x.dtype)
    drop = lax.GatherScatterMode.FILL_OR_DROP
    if mode == "set" and math.prod(places.shape[:-1]) > 1:
        shape, board_numbers = board
        lead = places.shape[:-1]
        turn = lax.reshape(lax.iota(I64, math.prod(lead)), lead)
        winner = lax.scatter_max(lax.full(shape, -1, I64), places, turn, board_numbers, mode=drop)
        dims = lax.GatherDimensionNumbers(
            (), board_numbers.inserted_window_dims, board_numbers.scatter_dims_to_operand_dims,
            board_numbers.operand_batching_dims, board_numbers.scatter_indices_batching_dims,
        )  # fmt: skip
        last = lax.eq(lax.gather(winner, places, dims, (1,) * len(shape), mode=lax.GatherScatterMode.CLIP), turn)
        places = lax.select(shape_to(lax.reshape(last, (*lead, 1)), places.shape), places, const(-1, places))
    if x.dtype.kind == "b":
        mode = {"add": "max", "mul": "min"}.get(mode, mode)
    return _SCATTER[mode](x, places, u, numbers, mode=drop)


@kernel
def scatter(x: Any, u: Any, *indices: Any, mode: str) -> Any:
    if 0 in u.shape or 0 in x.shape:
        return x
    k, places = len(indices), _index(indices)
    lead, axes = len(places.shape) - 1, tuple(range(k))
    numbers = lax.ScatterDimensionNumbers(tuple(range(lead, len(u.shape))), axes, axes)
    return _scatter(x, u, places, numbers, (x.shape[:k], lax.ScatterDimensionNumbers((), axes, axes)), mode)


@kernel
def take_along(x: Any, i: Any, *, axis: int) -> Any:
    if 0 in i.shape or 0 in x.shape:
        return lax.full(i.shape, 0, x.dtype)
    rest = tuple(a for a in range(len(x.shape)) if a != axis)
    numbers = lax.GatherDimensionNumbers((), (axis,), (axis,), rest, rest)
    return lax.gather(x, _index((i,)), numbers, (1,) * len(x.shape), mode=lax.GatherScatterMode.CLIP)


@kernel
def put_along(x: Any, i: Any, u: Any, *, axis: int, mode: str) -> Any:
    if 0 in i.shape or 0 in x.shape:
        return x
    if i.shape[axis] == 1:  # one place a row: a comparison, which fuses, where a scatter would not
        hit = lax.eq(lax.broadcasted_iota(i.dtype, x.shape, axis), shape_to(i, x.shape))
        u = shape_to(u, x.shape)
        return lax.select(hit, u if mode == "set" else lax.add(x, u), x)
    rest = tuple(a for a in range(len(x.shape)) if a != axis)
    numbers = lax.ScatterDimensionNumbers((), (axis,), (axis,), rest, rest)
    return _scatter(x, u, _index((i,)), numbers, (x.shape, numbers), mode)


# ---- contractions ---------------------------------------------------------------------------------------------------------------------
def accumulator(x: Any) -> Any:
    """What a sum of products of this dtype is made in."""
    return np.dtype(np.float32) if is_half(x) else x.dtype


@kernel
def dot_general(x: Any, y: Any, *, contract: Any, batch: Any) -> Any:
    out = lax.dot_general(x, y, (contract, batch), precision=HIGHEST, preferred_element_type=accumulator(x))
    return to(out, x.dtype)
