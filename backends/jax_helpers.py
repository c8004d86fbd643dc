"""What the JAX kernels share: their table, broadcasting with Python's numbers, constants, and half precision computed in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax

kernels: dict[str, Callable[..., Any]] = {}
#: What libraries rewrite in a program, see md.extend.define: functions of a graph, and of whether it is for the CPU.
REWRITES: list[Callable[[Any, bool], Any]] = []
I64, I32 = np.dtype(np.int64), np.dtype(np.int32)


def kernel(f: Callable[..., Any]) -> Callable[..., Any]:
    """Enter a function into the namespace under its own name, less a trailing underscore."""
    kernels[f.__name__.rstrip("_")] = f
    return f


def shape_to(x: Any, shape: tuple[int, ...]) -> Any:
    """NumPy's broadcast_to."""
    return x if x.shape == shape else lax.broadcast_in_dim(x, shape, tuple(range(len(shape) - len(x.shape), len(shape))))


def _weak(x: Any) -> bool:
    return type(x) in (bool, int, float, complex) or getattr(x, "weak_type", False)  # np.float64 is a float too, but has a dtype


def spread(*xs: Any) -> tuple[Any, ...]:
    """Arrays of one shape, by NumPy's broadcasting; a Python number takes the dtype of the arrays beside it."""
    if any(map(_weak, xs)):
        dtype = [x.dtype for x in xs if not _weak(x)][-1]
        xs = tuple(lax.convert_element_type(x, dtype) if _weak(x) else x for x in xs)
    shape = xs[0].shape
    if all(x.shape == shape for x in xs):
        return xs
    shape = np.broadcast_shapes(*(x.shape for x in xs))
    return tuple(shape_to(x, shape) for x in xs)


def is_float(x: Any) -> bool:
    return x.dtype.kind not in "biuc"  # ml_dtypes' bfloat16 has a kind of its own


def is_half(x: Any) -> bool:
    return is_float(x) and x.dtype.itemsize == 2


def const(value: Any, x: Any) -> Any:
    """A constant of x's dtype and shape."""
    return lax.full(x.shape, value, x.dtype)


def to(x: Any, dtype: Any) -> Any:
    return x if x.dtype == dtype else lax.convert_element_type(x, dtype)


def isnan(x: Any) -> Any:
    return lax.ne(x, x)


def wide(f: Callable[..., Any]) -> Callable[..., Any]:
    """Compute 16-bit floats in float32 and round once."""

    @functools.wraps(f)
    def call(*xs: Any, **params: Any) -> Any:
        if not is_half(xs[0]):
            return f(*xs, **params)
        return to(f(*(to(x, np.float32) if is_half(x) else x for x in xs), **params), xs[0].dtype)

    return call


def double(f: Callable[..., Any]) -> Callable[..., Any]:
    """Compute narrower floats in float64 and round once."""

    @functools.wraps(f)
    def call(x: Any, **params: Any) -> Any:
        return to(f(to(x, np.float64), **params), x.dtype)

    return call


def binary(f: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(f)
    def call(*xs: Any) -> Any:
        return f(*spread(*xs))

    return call
