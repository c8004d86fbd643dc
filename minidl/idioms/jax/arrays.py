"""Functions of jax.numpy that make arrays, with JAX's arguments: what minidl calls with others, and what it lacks."""

from __future__ import annotations

import builtins
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import minidl as md


def inexact(x: Any) -> md.Tensor:
    """x, in the default float dtype if it is of integers."""
    x = md.asarray(x)
    return x if x.dtype.inexact else x.to(md.get_default_dtype())


def beside(x: md.Tensor) -> dict[str, Any]:
    """Where x is, for what is created beside it."""
    return {"backend": x.backend, "device": x.device}


def together(*xs: Any) -> list[md.Tensor]:
    """Tensors: numbers and NumPy's arrays lie beside the first that is one already."""
    first = next((x for x in xs if isinstance(x, md.Tensor)), None)
    return [x if isinstance(x, md.Tensor) else md.asarray(x) if first is None else md.asarray(x, **beside(first)) for x in xs]


def known_dtype(dtype: Any) -> md.DType:
    """minidl's dtype of what stands for one: a name, a NumPy dtype, a Python type."""
    return md.zeros((), dtype=dtype).dtype


def typed(x: md.Tensor, dtype: Any) -> md.Tensor:
    """x in a dtype, if one is given."""
    return x if dtype is None else x.to(dtype)


# ---- making -----------------------------------------------------------------------------------------------------------------------------
def array(object: Any, dtype: Any = None, copy: bool = True, order: Any = None, ndmin: int = 0, *, device: Any = None) -> md.Tensor:
    """md.asarray, which copies unless it is told not to; ndmin puts axes of size one in front.

    >>> array([1.0, 2.0], ndmin=2).shape
    (1, 2)
    """
    x = md.asarray(object, dtype=dtype, copy=True if copy else None)
    return md.reshape(x, (1,) * (ndmin - x.ndim) + x.shape) if ndmin > x.ndim else x


def _like(make: Callable[..., md.Tensor], name: str) -> Callable[..., md.Tensor]:
    def function(a: Any, dtype: Any = None, shape: Any = None, *, device: Any = None) -> md.Tensor:
        x = md.asarray(a)
        return make(x.shape if shape is None else shape, dtype=dtype or x.dtype, **beside(x))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{name}, of another shape if one is given."
    return function


zeros_like, ones_like, empty_like = _like(md.zeros, "zeros_like"), _like(md.ones, "ones_like"), _like(md.zeros, "empty_like")


def full_like(a: Any, fill_value: Any, dtype: Any = None, shape: Any = None, *, device: Any = None) -> md.Tensor:
    """md.full_like, of another shape if one is given; fill_value may be a tensor.

    >>> full_like(md.ones(2), 3.0, shape=(1,)).tolist()
    [3.0]
    """
    x = md.asarray(a)
    return full(x.shape if shape is None else shape, md.asarray(fill_value, dtype=dtype or x.dtype))


def full(shape: Any, fill_value: Any, dtype: Any = None, *, device: Any = None) -> md.Tensor:
    """md.full, whose value may be a tensor that broadcasts to the shape.

    >>> full((2, 2), md.tensor([1.0, 2.0])).tolist()
    [[1.0, 2.0], [1.0, 2.0]]
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if getattr(fill_value, "shape", ()) == () and not isinstance(fill_value, md.Tensor):
        return md.full(shape, fill_value, dtype=dtype)
    return md.broadcast_to(typed(md.asarray(fill_value), dtype), shape)


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None, *, device: Any = None) -> md.Tensor:
    """md.eye."""
    return md.eye(N, N if M is None else M, k=k, dtype=dtype)


def identity(n: int, dtype: Any = None) -> md.Tensor:
    """md.eye of as many rows as columns."""
    return md.eye(n, dtype=dtype)


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None, axis: int = 0, *, device: Any = None
) -> Any:
    """Equal steps from start to stop, which may be tensors: then along a new axis. retstep: also how long a step is.

    >>> linspace(0.0, 1.0, 3).tolist(), linspace(md.tensor([0.0, 1.0]), 3.0, 2, axis=1).tolist()
    ([0.0, 0.5, 1.0], [[0.0, 3.0], [1.0, 3.0]])
    """
    a, b = md.broadcast_arrays(*map(inexact, together(start, stop)))
    a, b = a.to(both := md.result_type(a, b)), b.to(both)
    steps = num - 1 if endpoint else num
    part = md.arange(num, **beside(a)).to(both) / builtins.max(steps, 1)
    part = md.reshape(part, (num, *(1,) * a.ndim))
    out = md.where(part == 1.0, b, a * (1.0 - part) + b * part) if endpoint else a * (1.0 - part) + b * part
    out = md.moveaxis(out, 0, axis)
    if dtype is not None:
        out = (md.floor(out) if not known_dtype(dtype).inexact else out).to(dtype)
    return (out, (b - a) / steps if steps else md.full_like(a, math.nan)) if retstep else out


def logspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: float = 10.0, dtype: Any = None, axis: int = 0) -> md.Tensor:
    """base to the powers of linspace.

    >>> logspace(0, 2, 3).tolist()
    [1.0, 10.0, 100.0]
    """
    return typed(md.pow(base, linspace(start, stop, num, endpoint, axis=axis)), dtype)


def geomspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0) -> md.Tensor:
    """Equal factors from start to stop, which have one sign.

    >>> [round(v, 4) for v in geomspace(1.0, 4.0, 3).tolist()]
    [1.0, 2.0, 4.0]
    """
    a, b = inexact(start), inexact(stop)
    sign = md.sign(a)
    return typed(sign * md.exp(linspace(md.log(a * sign), md.log(b * sign), num, endpoint, axis=axis)), dtype)


def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> list[md.Tensor]:
    """md.meshgrid as a list; sparse: each with size one along the axes of the others.

    >>> [v.shape for v in meshgrid(md.arange(2), md.arange(3), sparse=True)]
    [(1, 2), (3, 1)]
    """
    xs = [md.asarray(x) for x in xi]
    if not sparse:
        return list(md.meshgrid(*xs, indexing=indexing))
    axes = list(range(len(xs)))
    if indexing == "xy" and len(xs) > 1:
        axes[:2] = [1, 0]
    return [md.reshape(x, tuple(-1 if i == axis else 1 for i in range(len(xs)))) for x, axis in zip(xs, axes, strict=True)]


def indices(dimensions: Sequence[int], dtype: Any = md.int64, sparse: bool = False) -> Any:
    """The numbers of the places along each axis, stacked; sparse: a tuple of them that broadcast.

    >>> indices((1, 2)).tolist()
    [[[0, 0]], [[0, 1]]]
    """
    grid = meshgrid(*(md.arange(n, dtype=dtype) for n in dimensions), sparse=sparse, indexing="ij")
    return tuple(grid) if sparse else md.stack(grid) if grid else md.zeros((0,), dtype=dtype)


class _Grid:
    """np.mgrid and np.ogrid: slices in brackets, a complex step counts the places."""

    def __init__(self, sparse: bool):
        self.sparse = sparse

    def __getitem__(self, key: Any) -> Any:
        rows = [_run(k) for k in (key if isinstance(key, tuple) else (key,))]
        if not isinstance(key, tuple):
            return rows[0]
        grid = meshgrid(*rows, sparse=self.sparse, indexing="ij")
        return grid if self.sparse else md.stack(grid)


def _run(key: slice) -> md.Tensor:
    start, step = key.start or 0, 1 if key.step is None else key.step
    return linspace(start, key.stop, int(abs(step))) if isinstance(step, complex) else md.arange(start, key.stop, step)


class _Joined:
    """np.r_ and np.c_: arrays, numbers and slices in brackets, joined along the first or the last axis."""

    def __init__(self, axis: int, rank: int):
        self.axis, self.rank = axis, rank

    def __getitem__(self, key: Any) -> md.Tensor:
        parts = [_run(k) if isinstance(k, slice) else md.asarray(k) for k in (key if isinstance(key, tuple) else (key,))]
        wide = [md.reshape(p, (*(p.shape or (1,)), *(1,) * (self.rank - builtins.max(p.ndim, 1)))) for p in parts]
        dtype = functools.reduce(md.result_type, [p.dtype for p in wide])
        return md.concat([p.to(dtype) for p in wide], axis=self.axis)


mgrid, ogrid, r_, c_ = _Grid(False), _Grid(True), _Joined(0, 1), _Joined(-1, 2)


def ix_(*args: Any) -> tuple[md.Tensor, ...]:
    """Vectors of places as indices of their grid.

    >>> md.reshape(md.arange(6), (2, 3))[ix_([1], [0, 2])].tolist()
    [[3, 5]]
    """
    xs = [md.asarray(a) for a in args]
    xs = [md.nonzero(x)[0] if x.dtype is md.bool else x for x in xs]
    return tuple(md.reshape(x, (1,) * i + (-1,) + (1,) * (len(xs) - 1 - i)) for i, x in enumerate(xs))


# ---- diagonals and triangles --------------------------------------------------------------------------------------------------------------
def diag(v: Any, k: int = 0) -> md.Tensor:
    """The matrix with a vector on its k-th diagonal, or the k-th diagonal of a matrix."""
    return md.diag(md.asarray(v), k)


def diagflat(v: Any, k: int = 0) -> md.Tensor:
    """The matrix with all elements on its k-th diagonal."""
    return md.diag(md.flatten(md.asarray(v)), k)


def diag_indices(n: int, ndim: int = 2) -> tuple[md.Tensor, ...]:
    """The places of the main diagonal of an array of n along each axis."""
    return (md.arange(n),) * ndim


def diag_indices_from(arr: Any) -> tuple[md.Tensor, ...]:
    """The places of the main diagonal."""
    return diag_indices(arr.shape[0], arr.ndim)


def fill_diagonal(a: Any, val: Any, wrap: bool = False, *, inplace: bool = True) -> md.Tensor:
    """The array with val, repeated if it is shorter, on its main diagonal; as in JAX, inplace=False must be said, since
    arrays do not change, and ValueError says so.

    >>> fill_diagonal(md.zeros((2, 2)), 1.0, inplace=False).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if inplace or wrap:
        raise ValueError("fill_diagonal: an array does not change; say inplace=False, without wrap, and take the result")
    x = md.asarray(a)
    n = builtins.min(x.shape)
    values = md.flatten(md.asarray(val, dtype=x.dtype, **beside(x)))
    values = md.tile(values, (-(-n // builtins.max(values.size, 1)),))[:n]
    return x.at[(md.arange(n, **beside(x)),) * x.ndim].set(values)


#: Name -> what it is in jax.numpy.
NAMES: dict[str, Any] = {
    name: value for name, value in list(globals().items())
    if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == __name__
    and name not in ("inexact", "beside", "known_dtype", "together", "typed")
} | {"mgrid": mgrid, "ogrid": ogrid, "r_": r_, "c_": c_}  # fmt: skip
