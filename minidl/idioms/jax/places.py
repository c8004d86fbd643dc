"""Functions of jax.numpy about places: where something is, what is there, which elements differ. Places are int64.

What has a shape that values decide takes `size` (and `fill_value`), with which it can be traced.
"""

from __future__ import annotations

import builtins
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md
from minidl.idioms.jax.arrays import beside, meshgrid


# ---- what values decide -----------------------------------------------------------------------------------------------------------------
def _known(count: md.Tensor, name: str) -> int:
    try:
        return int(count)
    except TypeError as error:
        raise TypeError(f"{name}: the shape of the result depends on values; give size= where it is traced") from error


def flatnonzero(a: Any, *, size: int | None = None, fill_value: Any = None) -> md.Tensor:
    """The places of what is not zero in the flattened array; size: so many of them, and then fill_value (0).

    >>> flatnonzero(md.tensor([0, 5, 7]), size=3).tolist()
    [1, 2, 0]
    """
    there = md.flatten(md.asarray(a)) != 0
    count = md.sum(there)
    n = _known(count, "nonzero") if size is None else size
    found = md.argsort(~there)[:n].to(md.int64)
    found = md.concat([found, md.zeros(n - found.shape[0], dtype=md.int64, **beside(found))])
    return md.where(md.arange(n, **beside(found)) < count, found, 0 if fill_value is None else fill_value)


def nonzero(a: Any, *, size: int | None = None, fill_value: Any = None) -> tuple[md.Tensor, ...]:
    """The places of what is not zero, one vector for each axis; size: so many, and then fill_value (0), a number or one for each axis.

    >>> [v.tolist() for v in nonzero(md.tensor([[0, 5], [7, 0]]))]
    [[0, 1], [1, 0]]
    """
    x = md.asarray(a)
    if not x.ndim:
        raise ValueError("nonzero: a 0-d array has no places; use jnp.atleast_1d")
    fills = fill_value if isinstance(fill_value, tuple) else (fill_value,) * x.ndim
    count = md.sum(x != 0)
    flat = flatnonzero(x, size=size)
    filled = md.arange(flat.shape[0], **beside(x)) >= count
    return tuple(md.where(filled, 0 if f is None else f, v) for v, f in zip(unravel_index(flat, x.shape), fills, strict=True))


def argwhere(a: Any, *, size: int | None = None, fill_value: Any = None) -> md.Tensor:
    """The places of what is not zero, in rows."""
    return md.stack(nonzero(a, size=size, fill_value=fill_value), axis=-1)


def where(condition: Any, x: Any = None, y: Any = None, /, *, size: int | None = None, fill_value: Any = None) -> Any:
    """md.where, of a condition that may be numbers, or nonzero of the condition alone."""
    if x is None and y is None:
        return nonzero(condition, size=size, fill_value=fill_value)
    condition = md.asarray(condition)
    return md.where(condition if condition.dtype is md.bool else condition != 0, x, y)


def unique(
    ar: Any, return_index: bool = False, return_inverse: bool = False, return_counts: bool = False, axis: int | None = None, *,
    equal_nan: bool = True, size: int | None = None, fill_value: Any = None, sorted: bool = True,
) -> Any:  # fmt: skip
    """The different elements (along an axis the different slices) in order. size: so many, and then fill_value (the first).

    return_index, return_inverse, return_counts: also where each stood first, which of them each element is, and how often it is there.

    >>> [v.tolist() for v in unique(md.tensor([3, 1, 3]), return_counts=True, size=3)]
    [[1, 3, 1], [1, 2, 0]]
    """
    x = md.asarray(ar)
    rows = md.reshape(x, (-1, 1)) if axis is None else md.reshape(md.moveaxis(x, axis, 0), (x.shape[axis], -1))
    n = rows.shape[0]
    columns = rows if not x.dtype.is_complex else md.reshape(md.stack([md.real(rows), md.imag(rows)], axis=-1), (n, 2 * rows.shape[1]))
    order = lexsort(tuple(md.flip(columns, axis=1).T)) if columns.shape[1] != 1 else md.argsort(columns[:, 0])
    ordered = md.take(rows, order, axis=0)
    changes = ordered[1:] != ordered[:-1]
    if equal_nan and x.dtype.inexact:
        changes = changes & ~(md.isnan(ordered[1:]) & md.isnan(ordered[:-1]))
    first = md.concat([md.ones(builtins.min(n, 1), dtype=md.bool, **beside(x)), md.any(changes, axis=1)])
    at = flatnonzero(first, size=size)
    values = md.take(ordered, at, axis=0)
    kept = values.shape[0]
    if size is not None and fill_value is not None:
        values = md.where((md.arange(kept, **beside(x)) < md.sum(first))[:, None], values, md.asarray(fill_value, dtype=x.dtype))
    shape = () if axis is None else tuple(m for i, m in enumerate(x.shape) if i != axis % x.ndim)
    out = [md.moveaxis(md.reshape(values, (kept, *shape)), 0, axis or 0)]
    if return_index:
        out.append(md.take(order, at))
    if return_inverse:
        inverse = md.zeros(n, dtype=md.int64, **beside(x)).at[order].set(md.cumulative_sum(first.to(md.int64), axis=0) - 1)
        out.append(md.reshape(inverse, x.shape) if axis is None else inverse)
    if return_counts:
        starts = flatnonzero(first, size=kept + 1, fill_value=n)
        out.append(starts[1:] - starts[:-1])
    return out[0] if len(out) == 1 else tuple(out)


def _sets(keep: Callable[[md.Tensor, md.Tensor], md.Tensor], name: str, text: str) -> Callable[..., md.Tensor]:
    def function(ar1: Any, ar2: Any, assume_unique: bool = False, *, size: int | None = None, fill_value: Any = None) -> md.Tensor:
        found = keep(md.asarray(ar1), md.asarray(ar2))
        return found if size is None else unique(found, size=size, fill_value=fill_value)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = text
    return function


setdiff1d = _sets(lambda a, b: (lambda u: u[~md.isin(u, b)])(unique(a)), "setdiff1d", "The elements of the first that the second lacks, in order.")
setxor1d = _sets(
    lambda a, b: (lambda u, v: unique(md.concat([u[~md.isin(u, v)], v[~md.isin(v, u)]])))(unique(a), unique(b)), "setxor1d",
    "The elements of one alone, in order.",
)  # fmt: skip


def intersect1d(
    ar1: Any, ar2: Any, assume_unique: bool = False, return_indices: bool = False, *, size: int | None = None, fill_value: Any = None
) -> Any:
    """The elements of both, each once, in order. return_indices: also where each is first among the one and among the other, which wants no size.

    >>> [v.tolist() for v in intersect1d(md.tensor([3, 1, 3]), md.tensor([2, 3]), return_indices=True)]
    [[3], [0], [1]]
    """
    x, y = md.asarray(ar1), md.asarray(ar2)
    (u, first), (v, second) = (unique(md.flatten(a).to(md.result_type(x, y)), return_index=True) for a in (x, y))
    both = md.isin(u, v)
    found = u[both]
    if size is not None:
        if return_indices:
            raise ValueError("intersect1d: return_indices wants no size, or unique(..., return_index=True, size=) of each")
        return unique(found, size=size, fill_value=fill_value)
    return (found, first[both], second[md.searchsorted(v, found)]) if return_indices else found


def union1d(ar1: Any, ar2: Any, *, size: int | None = None, fill_value: Any = None) -> md.Tensor:
    """The elements of either, each once, in order."""
    return unique(md.concat([md.flatten(md.asarray(ar1)), md.flatten(md.asarray(ar2))]), size=size, fill_value=fill_value)


def bincount(x: Any, weights: Any = None, minlength: int = 0, *, length: int | None = None) -> md.Tensor:
    """How often each number from 0 is there, or the sum of its weights; length: of so many numbers, the larger ones left out.

    >>> bincount(md.tensor([0, 2, 2]), length=2).tolist()
    [1, 0]
    """
    x = md.asarray(x)
    n = builtins.max(_known(md.max(x) + 1, "bincount") if x.size else 0, minlength) if length is None else length
    w = md.ones_like(x, dtype=md.int64) if weights is None else md.asarray(weights)
    return md.zeros(n, dtype=w.dtype, **beside(x)).at[md.maximum(x, 0)].add(w, mode="drop")


def extract(condition: Any, arr: Any, *, size: int | None = None, fill_value: Any = 0) -> md.Tensor:
    """The elements where the condition is not zero."""
    return compress(md.flatten(md.asarray(condition)), md.flatten(md.asarray(arr)), size=size, fill_value=fill_value)


def compress(condition: Any, a: Any, axis: int | None = None, *, size: int | None = None, fill_value: Any = 0) -> md.Tensor:
    """The slices along an axis (of the flattened array without one) where the condition is not zero."""
    x = md.flatten(md.asarray(a)) if axis is None else md.asarray(a)
    axis = 0 if axis is None else axis
    there = md.asarray(condition)
    at = flatnonzero(there, size=size)
    out = md.take(x, at, axis=axis)
    if size is None:
        return out
    valid = md.reshape(md.arange(size, **beside(x)) < md.sum(there != 0), tuple(-1 if i == axis % x.ndim else 1 for i in range(x.ndim)))
    return md.where(valid, out, fill_value)


# ---- choosing ---------------------------------------------------------------------------------------------------------------------------
def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> md.Tensor:
    """Of each place the choice of the first condition that holds, else default. Raises ValueError for lists of unequal length.

    >>> select([md.tensor([True, False])], [md.tensor([1.0, 1.0])], 5.0).tolist()
    [1.0, 5.0]
    """
    if len(condlist) != len(choicelist) or not condlist:
        raise ValueError(f"select: {len(condlist)} conditions for {len(choicelist)} choices; as many, and at least one, are wanted")
    out = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        out = md.where(condition, choice, out)
    return out


def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> md.Tensor:
    """Of each place the choice of that number; mode "clip" or "wrap" says what other numbers are, "raise" looks at them, outside a trace."""
    at = md.asarray(a)
    stack = [md.asarray(c) for c in choices]
    stack = list(md.broadcast_arrays(at, *stack))
    at, n = stack[0], len(stack) - 1
    if mode == "raise" and (bool(md.any((at < 0) | (at >= n))) if at.size else False):
        raise ValueError(f"choose: numbers of choices are from 0 to {n - 1}")
    at = md.remainder(at, n) if mode == "wrap" else md.clip(at, 0, n - 1)
    return md.take_along_axis(md.stack(stack[1:]), at[None], axis=0)[0]


def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> md.Tensor:
    """Functions (or numbers) of x where their condition holds, the last one elsewhere if there is one more, else 0.

    >>> piecewise(md.tensor([-1.0, 2.0]), [md.tensor([True, False])], [lambda v: -v, lambda v: v * 10.0]).tolist()
    [1.0, 20.0]
    """
    x = md.asarray(x)
    conditions = [md.asarray(c) for c in (condlist if isinstance(condlist, (list, tuple)) else md.unstack(md.asarray(condlist)))]
    values = [f(x, *args, **kw) if callable(f) else f for f in funclist]
    default = values[-1] if len(values) == len(conditions) + 1 else 0
    out = md.full_like(x, 0) + default if not isinstance(default, md.Tensor) else default.to(x.dtype)
    for condition, value in zip(conditions, values, strict=False):  # NumPy lets the last condition win
        out = md.where(condition, value, out)
    return out.to(x.dtype)


def take(
    a: Any, indices: Any, axis: int | None = None, out: Any = None, mode: str | None = None, unique_indices: bool = False,
    indices_are_sorted: bool = False, fill_value: Any = None,
) -> md.Tensor:  # fmt: skip
    """The elements at these places along an axis, of the flattened array without one; mode: "fill" (the default: nan or fill_value where a place is
    out of range), "clip" or "wrap".

    >>> take(md.tensor([1.0, 2.0]), md.tensor([0, -1, 5])).tolist()
    [1.0, 2.0, nan]
    """
    x, at = md.asarray(a), md.asarray(indices)
    x = md.flatten(x) if axis is None else x
    axis = (0 if axis is None else axis) % x.ndim
    if mode == "wrap":
        at = md.remainder(at, x.shape[axis])
    elif mode == "clip":  # where a negative place is the first, not one from the end
        at = md.maximum(at, 0)
    inside = (slice(None),) * axis
    return x.at[(*inside, at)].get(mode="clip" if mode in ("clip", "wrap") else "fill", fill_value=fill_value)


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1, mode: str | None = None, fill_value: Any = None) -> md.Tensor:
    """The elements at these places along an axis, of the flattened array for axis None; mode as in take.

    >>> take_along_axis(md.tensor([[1.0, 2.0]]), md.tensor([[1, 5]]), axis=1).tolist()
    [[2.0, nan]]
    """
    x, at = md.asarray(arr), md.asarray(indices)
    if axis is None:
        return take(x, at, mode=mode, fill_value=fill_value)
    n = x.shape[axis]
    at = md.remainder(at, n) if mode == "wrap" else at
    found = md.take_along_axis(x, at, axis=axis, mode="clip" if mode in ("clip", "wrap") else "fill")
    return found if fill_value is None or mode in ("clip", "wrap") else md.where((at >= -n) & (at < n), found, fill_value)


def put_along_axis(arr: Any, indices: Any, values: Any, axis: int | None, inplace: bool = True, *, mode: str | None = None) -> md.Tensor:
    """The array with values at the places along an axis; as in JAX, inplace=False must be said, and ValueError says so.

    >>> put_along_axis(md.zeros((1, 2)), md.tensor([[1]]), 5.0, 1, inplace=False).tolist()
    [[0.0, 5.0]]
    """
    if inplace:
        raise ValueError("put_along_axis: an array does not change; say inplace=False and take the result")
    x, at = md.asarray(arr), md.asarray(indices)
    if axis is None:
        return md.reshape(md.flatten(x).at[md.flatten(at)].set(values, mode=mode), x.shape)
    axis %= x.ndim
    grid = list(meshgrid(*(md.arange(n, **beside(x)) for n in at.shape), sparse=True, indexing="ij"))
    grid[axis] = at
    return x.at[tuple(grid)].set(values, mode=mode)


def unravel_index(indices: Any, shape: Any) -> tuple[md.Tensor, ...]:
    """The places along each axis of places in the flattened array; those out of range are moved within.

    >>> [v.tolist() for v in unravel_index(md.tensor([0, 5]), (2, 3))]
    [[0, 1], [0, 2]]
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    at, n, out = md.asarray(indices), math.prod(shape), []
    at = md.clip(md.where(at < 0, at + n, at), 0, builtins.max(n - 1, 0))
    for size in reversed(shape):
        out.append(md.remainder(at, builtins.max(size, 1)))
        at = md.floor_divide(at, builtins.max(size, 1))
    return tuple(reversed(out))


def ravel_multi_index(multi_index: Sequence[Any], dims: Sequence[int], mode: str = "raise", order: str = "C") -> md.Tensor:
    """The places in the flattened array of places along each axis; order: "C", or "F" with the first axis running fastest.

    >>> ravel_multi_index((md.tensor([1]), md.tensor([2])), (2, 3)).tolist()
    [5]
    """
    at = [md.asarray(i) for i in multi_index]
    if mode == "raise" and any(bool(md.any((i < 0) | (i >= n))) for i, n in zip(at, dims, strict=True)):
        raise ValueError(f"ravel_multi_index: a place lies outside {tuple(dims)}")
    at = [md.remainder(i, n) if mode == "wrap" else md.clip(i, 0, n - 1) for i, n in zip(at, dims, strict=True)]
    pairs = list(zip(at, dims, strict=True))
    out: Any = 0
    for i, n in pairs if order == "C" else reversed(pairs):
        out = out * n + i
    return out


def lexsort(keys: Any, axis: int = -1) -> md.Tensor:
    """The order by several keys, of which the last one decides first.

    >>> lexsort((md.tensor([1, 0, 2]), md.tensor([0, 0, -1]))).tolist()
    [2, 1, 0]
    """
    keys = [md.asarray(k) for k in keys]
    order = md.argsort(keys[0], axis=axis)
    for k in keys[1:]:
        order = md.take_along_axis(order, md.argsort(md.take_along_axis(k, order, axis=axis), axis=axis), axis=axis)
    return order


# ---- triangles ------------------------------------------------------------------------------------------------------------------------
def _triangle(mask: Callable[..., md.Tensor], name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def of(n: int, k: int = 0, m: int | None = None, *, size: int | None = None) -> tuple[md.Tensor, ...]:
        return nonzero(mask(md.ones((n, n if m is None else m)), k=k), size=size)

    def like(arr: Any, k: int = 0, *, size: int | None = None) -> tuple[md.Tensor, ...]:
        return of(arr.shape[-2], k, arr.shape[-1], size=size)

    of.__name__ = of.__qualname__ = f"{name}_indices"
    like.__name__ = like.__qualname__ = f"{name}_indices_from"
    of.__doc__, like.__doc__ = f"The places of md.{name} in a matrix of n rows and m columns.", f"The places of md.{name} in a matrix."
    return of, like


tril_indices, tril_indices_from = _triangle(md.tril, "tril")
triu_indices, triu_indices_from = _triangle(md.triu, "triu")


def mask_indices(n: int, mask_func: Callable[..., Any], k: int = 0, *, size: int | None = None) -> tuple[md.Tensor, ...]:
    """The places of an n by n matrix that mask_func(ones, k) keeps."""
    return nonzero(mask_func(md.ones((n, n)), k), size=size)


#: Name -> what it is in jax.numpy.
NAMES: dict[str, Any] = {
    name: value for name, value in list(globals().items())
    if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == __name__
}  # fmt: skip
