"""Reading and writing at positions along an axis: gather, scatter and their kin. Values in, values out; the forms that end in _ store the result.

Positions may be negative. Where several elements go to one place, "add" and the reductions take all of them; of a plain scatter the last one stays
on NumPy, and any one on other backends.
"""

from __future__ import annotations

import builtins
from typing import Any

import minidl as md
from minidl.idioms.numbers import along, word_all

__all__ = [
    "gather", "index_add", "index_copy", "index_fill", "index_put", "index_reduce", "index_select", "masked_fill", "masked_scatter", "scatter",
    "scatter_add", "scatter_reduce",
]  # fmt: skip


def _dim(name: str, x: md.Tensor, dim: int) -> int:
    n = builtins.max(x.ndim, 1)
    if not isinstance(dim, builtins.int):
        raise TypeError(f"{name}: dim must be an integer, not {dim!r}; the order is {name}(dim, index, ...)")
    if not -n <= dim < n:
        raise IndexError(f"{name}: dim {dim} is out of range for shape {x.shape}")
    return dim % n


@along
def gather(input: md.Tensor, dim: int, index: md.Tensor) -> md.Tensor:
    """input[i, index[i, j], ...] for dim 1, and so on; index has as many axes and is no longer along the others. Raises ValueError for another
    number of axes, but a number is a vector of one element.

    >>> md.tensor([[1, 2], [3, 4]]).gather(1, md.tensor([[1], [0]])).tolist()
    [[2], [3]]
    """
    dim = _dim("gather", input, dim)
    if input.ndim + index.ndim < 2:
        return md.reshape(md.take(md.reshape(input, (-1,)), md.reshape(index, (-1,)), axis=0), index.shape)
    if index.ndim != input.ndim:
        raise ValueError(f"gather: index has {index.ndim} axes and input {input.ndim}; both of shape {input.shape} but along dim {dim} is wanted")
    window = tuple(slice(None) if a == dim else slice(n) for a, n in enumerate(index.shape))
    part = input if all(a == dim or n == m for a, (n, m) in enumerate(zip(index.shape, input.shape, strict=True))) else input[window]
    return md.take_along_axis(part, index, axis=dim)


@along
def index_select(input: md.Tensor, dim: int, index: md.Tensor) -> md.Tensor:
    """The slices at these positions of an axis. Raises ValueError for positions that are no vector and no number, and for several of a number."""
    dim = _dim("index_select", input, dim)
    if index.ndim > 1 or (not input.ndim and index.size != 1):
        raise ValueError(f"index_select: a vector of positions is wanted{'' if input.ndim else ', of one in a number'}, not {index.shape}; see take")
    out = md.take(input if input.ndim else md.reshape(input, (1,)), md.reshape(index, (-1,)), axis=dim)
    return out if input.ndim else md.reshape(out, ())


def masked_fill(input: md.Tensor, mask: md.Tensor, value: Any) -> md.Tensor:
    """The value where the mask is True. Raises TypeError for a mask that is not of bools, and for a value that the dtype would cut.

    >>> md.ones(2).masked_fill(md.tensor([True, False]), 0.0).tolist()
    [0.0, 1.0]
    """
    if mask.dtype is not md.bool:
        raise TypeError(f"masked_fill: the mask must be bool, not {mask.dtype.name}; compare it with 0")
    if not input.dtype.is_complex and (value.dtype.is_complex if isinstance(value, md.Tensor) else isinstance(value, complex)):
        raise TypeError(f"masked_fill: {value} in a tensor of {input.dtype.name} would be cut; make it complex, with .to(md.complex64)")
    if isinstance(value, md.Tensor):
        return md.where(mask, value.to(input.dtype), input)
    if isinstance(value, float) and not input.dtype.inexact:
        if value != builtins.int(value):
            raise TypeError(f"masked_fill: {value} in a tensor of {input.dtype.name} would be cut; convert it with .to(md.float32)")
        value = builtins.int(value)
    return md.where(mask, value, input)


def masked_scatter(input: md.Tensor, mask: md.Tensor, source: md.Tensor) -> md.Tensor:
    """Where the mask, which broadcasts, is True, the elements of source one after the other. Raises TypeError for a mask that is not of bools,
    ValueError for a source of too few elements, where values can be looked at.

    >>> md.zeros(3).masked_scatter(md.tensor([True, False, True]), md.tensor([1.0, 2.0])).tolist()
    [1.0, 0.0, 2.0]
    """
    if mask.dtype is not md.bool:
        raise TypeError(f"masked_scatter: the mask must be bool, not {mask.dtype.name}; compare it with 0")
    mask = md.broadcast_to(mask, input.shape)
    wanted = md.extend.seen(mask)
    count = builtins.int(wanted[0].sum()) if wanted is not None else source.size and 1
    if count > source.size:
        raise ValueError(f"masked_scatter: the mask has {count} places, and source {source.size} elements")
    if not source.size:
        return input
    place = md.clip(md.cumulative_sum(mask.reshape(-1).to(md.int64), axis=0) - 1, 0, source.size - 1)
    return md.where(mask, md.take(source.to(input.dtype).reshape(-1), place, axis=0).reshape(input.shape), input)


def _along(input: md.Tensor, dim: int, index: md.Tensor) -> tuple[md.Tensor, ...]:
    """An index expression for input[.., index[..], ..] along dim."""
    axes = [
        md.reshape(md.arange(n, backend=index.backend, device=index.device), (n,) + (1,) * (index.ndim - 1 - a)) for a, n in enumerate(index.shape)
    ]
    return tuple(index if a == dim else axes[a] for a in range(index.ndim))


_MODES = {"add": "add", "sum": "add", "multiply": "multiply", "prod": "multiply", "amax": "max", "amin": "min"}


def _scattered(name: str, input: md.Tensor, dim: int, index: md.Tensor, src: Any, mode: str | None) -> md.Tensor:
    dim = _dim(name, input, dim)
    if isinstance(index, md.Tensor) and input.ndim + index.ndim == 1:  # a number is a vector of one element
        values = md.reshape(src, (-1,)) if isinstance(src, md.Tensor) and src.ndim < 2 else src
        return md.reshape(_scattered(name, md.reshape(input, (-1,)), 0, md.reshape(index, (-1,)), values, mode), input.shape)
    if not isinstance(index, md.Tensor) or index.ndim != input.ndim:
        raise ValueError(
            f"{name}: index must be a tensor of {input.ndim} axes, as input of shape {input.shape}, not {getattr(index, 'shape', index)}"
        )
    if isinstance(src, md.Tensor):
        if src.ndim != index.ndim or any(n > m for n, m in zip(index.shape, src.shape, strict=True)):
            raise ValueError(f"{name}: src of shape {src.shape} is too small for index of shape {index.shape}")
        src = src[tuple(slice(n) for n in index.shape)] if src.shape != index.shape else src
    else:
        src = md.full(index.shape, src, dtype=input.dtype, backend=input.backend, device=input.device)
    if mode in ("add", "sum") and index.shape[:dim] + index.shape[dim + 1 :] == input.shape[:dim] + input.shape[dim + 1 :]:
        usual = src.dtype is input.dtype is not md.bool and index.dtype.is_integer and index.size
        known = md.extend.seen(index) if usual else None
        if known and known[0].min() >= 0 and known[0].max() < input.shape[dim]:
            return md.extend.ns.put_along(input, index.to(md.int64), src, axis=dim, mode="add")
    place = input.at[_along(input, dim, index)]
    return getattr(place, "set" if mode is None else _MODES[mode])(src)


@along
def scatter(input: md.Tensor, dim: int, index: md.Tensor, src: Any = None, value: Any = None, *, reduce: str | None = None) -> md.Tensor:
    """input with elements of src (or one value) at the positions index along an axis; reduce: "add" or "multiply" combines.
    Raises ValueError for another, and where src is smaller than index.

    >>> md.zeros(2, 3).scatter(1, md.tensor([[2], [0]]), 1.0).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    if reduce not in (None, "add", "multiply"):
        raise ValueError(f"scatter: reduce must be 'add' or 'multiply', not {reduce!r}; see scatter_reduce")
    return _scattered("scatter", input, dim, index, value if src is None else src, reduce)


@along
def scatter_add(input: md.Tensor, dim: int, index: md.Tensor, src: md.Tensor) -> md.Tensor:
    """input with elements of src added at the positions index along an axis.

    >>> md.zeros(3).scatter_add(0, md.tensor([1, 1]), md.ones(2)).tolist()
    [0.0, 2.0, 0.0]
    """
    return _scattered("scatter_add", input, dim, index, src, "add")


@along
def scatter_reduce(input: md.Tensor, dim: int, index: md.Tensor, src: md.Tensor, reduce: str, *, include_self: bool = True) -> md.Tensor:
    """input with elements of src combined at the positions index along an axis: "sum", "prod", "mean", "amax" or "amin".

    include_self: what input holds takes part; without, it stays only where nothing goes. Raises ValueError for another reduction.
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise ValueError(f"scatter_reduce: reduce must be 'sum', 'prod', 'mean', 'amax' or 'amin', not {reduce!r}")
    name, mode, start = "scatter_reduce", "sum" if reduce == "mean" else reduce, input
    hit = None
    if reduce == "mean" or not include_self:
        counts = _scattered(name, md.zeros_like(input), dim, index, 1, "add")
        hit = counts > 0
        if not include_self:
            info = md.finfo(input.dtype) if input.dtype.inexact else md.iinfo(input.dtype)
            low, high = (-md.inf, md.inf) if input.dtype.inexact else (info.min, info.max)
            start = md.where(hit, {"sum": 0, "prod": 1, "amax": low, "amin": high}[mode], input)
    out = _scattered(name, start, dim, index, src, mode)
    if reduce == "mean":
        total = counts + 1 if include_self else md.where(hit, counts, 1)
        out = out / total if input.dtype.inexact else md.floor_divide(out, total)
    return out


def _rows(name: str, input: md.Tensor, dim: int, index: md.Tensor) -> Any:
    return input.at[(slice(None),) * _dim(name, input, dim) + (index,)]


@along
def index_add(input: md.Tensor, dim: int, index: md.Tensor, source: md.Tensor, *, alpha: float = 1) -> md.Tensor:
    """input with slices of source added at these positions of an axis: sums over the neighbours of nodes, for example.

    >>> md.zeros(2, 2).index_add(0, md.tensor([1, 1]), md.ones(2, 2)).tolist()
    [[0.0, 0.0], [2.0, 2.0]]
    """
    return _rows("index_add", input, dim, index).add(source if alpha == 1 else alpha * source)


@along
def index_reduce(
    input: md.Tensor, dim: int, index: md.Tensor, source: md.Tensor, reduce: str, *, include_self: bool = True
) -> md.Tensor:  # fmt: skip
    """input with slices of source combined at these positions of an axis: "prod", "mean", "amax" or "amin", as scatter_reduce does with elements.

    >>> md.ones(2, 2).index_reduce(0, md.tensor([1, 1]), md.full((2, 2), 3.0), "prod").tolist()
    [[1.0, 1.0], [9.0, 9.0]]
    """
    axis = _dim("index_reduce", input, dim)
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise ValueError(f"index_reduce: reduce must be 'prod', 'mean', 'amax' or 'amin', not {reduce!r}; see index_add")
    if index.ndim != 1 or source.ndim != input.ndim or source.shape[axis] != index.size:
        raise ValueError(f"index_reduce: an index of as many positions as source {source.shape} has slices along {dim} is wanted, not {index.shape}")
    places = index.reshape([-1 if a == axis else 1 for a in range(source.ndim)]).broadcast_to(source.shape)
    return scatter_reduce(input, axis, places, source, reduce, include_self=include_self)


@along
def index_copy(input: md.Tensor, dim: int, index: md.Tensor, source: md.Tensor) -> md.Tensor:
    """input with slices of source at these positions of an axis."""
    return _rows("index_copy", input, dim, index).set(source)


@along
def index_fill(input: md.Tensor, dim: int, index: md.Tensor, value: Any) -> md.Tensor:
    """input with one value in the slices at these positions of an axis."""
    return _rows("index_fill", input, dim, index).set(value)


def index_put(input: md.Tensor, indices: tuple[md.Tensor, ...], values: Any, accumulate: bool = False) -> md.Tensor:
    """input with values at input[indices], added if accumulate."""
    place = input.at[tuple(indices)]
    return place.add(values) if accumulate else place.set(values)


word_all(globals(), __all__)
