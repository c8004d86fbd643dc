"""lax.gather and lax.scatter with dimension numbers: windows of an array at places that an array holds, as XLA describes them.

Both are one advanced index of the operand: for each of its axes the window's start, where the index vector says one, and the place within the window.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import minidl as md
from minidl.idioms.jax.arrays import beside


class GatherScatterMode(enum.Enum):
    """What happens beyond the ends: the window is moved inside (CLIP), its elements are filled or dropped, or nothing is promised."""

    CLIP, FILL_OR_DROP, PROMISE_IN_BOUNDS, ONE_HOT = "clip", "fill", "promise_in_bounds", "one_hot"

    @staticmethod
    def from_any(mode: Any) -> GatherScatterMode:
        """The mode of a name, "drop" among them; None is FILL_OR_DROP."""
        if isinstance(mode, GatherScatterMode):
            return mode
        return GatherScatterMode("fill" if mode in (None, "drop") else mode)


class GatherDimensionNumbers(NamedTuple):
    """offset_dims: the result's axes that are the window's; collapsed_slice_dims: the operand's of size 1 that are none of them; start_index_map: the
    operand's axes that the index vector, the last axis of the indices, has a start for; the batching axes go along with each other."""

    offset_dims: tuple[int, ...]
    collapsed_slice_dims: tuple[int, ...]
    start_index_map: tuple[int, ...]
    operand_batching_dims: tuple[int, ...] = ()
    start_indices_batching_dims: tuple[int, ...] = ()


class ScatterDimensionNumbers(NamedTuple):
    """The same from the side of the updates: update_window_dims, inserted_window_dims and scatter_dims_to_operand_dims are what offset_dims,
    collapsed_slice_dims and start_index_map are for gather."""

    update_window_dims: tuple[int, ...]
    inserted_window_dims: tuple[int, ...]
    scatter_dims_to_operand_dims: tuple[int, ...]
    operand_batching_dims: tuple[int, ...] = ()
    scatter_indices_batching_dims: tuple[int, ...] = ()


def _places(x: md.Tensor, indices: Any, numbers: Any, sizes: Sequence[int], clip: bool) -> tuple[tuple[md.Tensor, ...], Any]:
    """An index for each axis of x, of the shape (*batch, *sizes), and whether each window lies inside, of the shape (*batch, 1, ...)."""
    at = md.asarray(indices).to(md.int64)
    batch, n = at.shape[:-1], x.ndim
    here = beside(at)
    out, inside = [], md.ones((*batch, *(1,) * n), dtype=md.bool, **here)
    for axis in range(n):
        within = md.reshape(md.arange(sizes[axis], **here), (-1, *(1,) * (n - 1 - axis)))
        start: Any = 0
        if axis in numbers[2]:
            start = md.reshape(at[..., list(numbers[2]).index(axis)], (*batch, *(1,) * n))
            last = x.shape[axis] - sizes[axis]
            inside = inside & (start >= 0) & (start <= last)
            start = md.clip(start, 0, last) if clip else start
        elif axis in numbers[3]:
            along = numbers[4][list(numbers[3]).index(axis)]
            start = md.reshape(md.arange(x.shape[axis], **here), (-1, *(1,) * (len(batch) - 1 - along + n)))
        out.append(md.broadcast_to(within + start, (*batch, *sizes)))
    return tuple(out), inside


def _nothing(dtype: md.DType) -> Any:
    """What is read beyond the ends: nan, the least signed or largest unsigned integer, or True."""
    if dtype.inexact:
        return md.nan
    return True if dtype is md.bool else md.iinfo(dtype).max if dtype.kind == "uint" else md.iinfo(dtype).min


def gather(
    operand: Any, start_indices: Any, dimension_numbers: GatherDimensionNumbers, slice_sizes: Sequence[int], *, unique_indices: bool = False,
    indices_are_sorted: bool = False, mode: Any = None, fill_value: Any = None,
) -> md.Tensor:  # fmt: skip
    """Windows of slice_sizes that begin at start_indices[..., :]. mode: GatherScatterMode or its name; without one a window is moved inside. With
    "fill" one that is not all inside is fill_value, else nan or the least integer.

    >>> rows = GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,))
    >>> gather(md.tensor([[1.0, 2.0], [3.0, 4.0]]), md.tensor([[1], [0]]), rows, (1, 2)).tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    x, how = md.asarray(operand), GatherScatterMode.from_any("clip" if mode is None else mode)
    at, inside = _places(x, start_indices, dimension_numbers, slice_sizes, clip=True)
    found = x[at]
    if how is GatherScatterMode.FILL_OR_DROP:
        found = md.where(inside, found, _nothing(x.dtype) if fill_value is None else fill_value)
    n_batch = found.ndim - x.ndim
    gone = {*dimension_numbers[1], *dimension_numbers[3]}
    found = md.squeeze(found, axis=tuple(n_batch + a for a in gone)) if gone else found
    windows = range(n_batch, found.ndim)
    return md.moveaxis(found, tuple(windows), tuple(dimension_numbers[0])) if windows else found


def _scatter(name: str, method: str) -> Callable[..., md.Tensor]:
    def function(
        operand: Any, scatter_indices: Any, updates: Any, dimension_numbers: ScatterDimensionNumbers, *, indices_are_sorted: bool = False,
        unique_indices: bool = False, mode: Any = None,
    ) -> md.Tensor:  # fmt: skip
        x = md.asarray(operand)
        u, how = md.asarray(updates, dtype=x.dtype), GatherScatterMode.from_any(mode)
        window, gone = tuple(dimension_numbers[0]), {*dimension_numbers[1], *dimension_numbers[3]}
        sizes = iter([u.shape[a] for a in sorted(window)])
        sizes_all = [1 if a in gone else next(sizes) for a in range(x.ndim)]
        at, inside = _places(x, scatter_indices, dimension_numbers, sizes_all, clip=how is GatherScatterMode.CLIP)
        u = md.reshape(md.moveaxis(u, window, tuple(range(u.ndim - len(window), u.ndim))) if window else u, at[0].shape) if at else u
        if how is not GatherScatterMode.CLIP and at:
            at = (md.where(inside, at[0], x.shape[0]), *at[1:])
        return getattr(x.at[at], method)(u, mode="drop")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The operand with windows of updates at the places of scatter_indices: x.at[...].{method}; what is not all inside is dropped."
    return function


def scatter_apply(
    operand: Any, scatter_indices: Any, func: Callable[[md.Tensor], md.Tensor], dimension_numbers: ScatterDimensionNumbers, *,
    update_shape: Sequence[int] = (), indices_are_sorted: bool = False, unique_indices: bool = False, mode: Any = None,
) -> md.Tensor:  # fmt: skip
    """The operand with func of what it is in the windows, once also where windows overlap; JAX's is applied as often as they do."""
    x = md.asarray(operand)
    touched = scatter_add(md.zeros_like(x), scatter_indices, md.ones(tuple(update_shape), dtype=x.dtype), dimension_numbers, mode=mode)
    return md.where(touched != 0, func(x), x)


scatter, scatter_add, scatter_sub = _scatter("scatter", "set"), _scatter("scatter_add", "add"), _scatter("scatter_sub", "subtract")
scatter_mul, scatter_min, scatter_max = _scatter("scatter_mul", "multiply"), _scatter("scatter_min", "min"), _scatter("scatter_max", "max")
#: Name -> what it is in jax.lax.
NAMES: dict[str, Any] = {f.__name__: f for f in (
    GatherDimensionNumbers, GatherScatterMode, ScatterDimensionNumbers, gather, scatter, scatter_add, scatter_apply, scatter_max, scatter_min,
    scatter_mul, scatter_sub,
)}  # fmt: skip
