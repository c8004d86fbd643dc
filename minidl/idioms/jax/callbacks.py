"""Python functions in the midst of a program: pure_callback, io_callback, debug.callback and debug.print.

Outside a trace they are called. A compiled program of minidl runs no Python: inside jit, vmap and loops that are traced, a callback whose values are
known there (they depend on nothing that is not) is called once, while tracing, and otherwise TypeError says so; debug.print and debug.callback,
which compute nothing, say in a warning that they are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import minidl as md


def _values(what: str, args: Any) -> Any:
    """The arguments as NumPy arrays; None where they have no values yet."""
    try:
        return md.tree.map(lambda x: x.numpy() if isinstance(x, md.Tensor) else x, args)
    except TypeError:
        return None


def pure_callback(callback: Callable[..., Any], result_shape_dtypes: Any, *args: Any, vectorized: Any = None, **kwargs: Any) -> Any:
    """callback of the arguments as NumPy arrays, whose results have these shapes and dtypes. No derivative flows through it. Raises TypeError where
    the arguments have no values, inside a trace, and ValueError for a result of another shape.

    >>> from minidl.idioms.jax import ShapeDtypeStruct
    >>> pure_callback(lambda x: np.sort(x), ShapeDtypeStruct((2,), md.float32), md.tensor([2.0, 1.0])).tolist()
    [1.0, 2.0]
    """
    given = _values("pure_callback", (args, kwargs))
    if given is None:
        raise TypeError("pure_callback: the arguments have no values while a program is traced; it runs no Python, so call it outside")
    found = callback(*given[0], **given[1])

    def fitted(wanted: Any, value: Any) -> md.Tensor:
        value = np.asarray(value)
        if value.shape != tuple(wanted.shape):
            raise ValueError(f"pure_callback: a result of shape {value.shape}, where {tuple(wanted.shape)} was said")
        return md.asarray(value, dtype=wanted.dtype if isinstance(wanted.dtype, md.DType) else str(np.dtype(wanted.dtype)))

    return md.tree.map(fitted, result_shape_dtypes, found)


def io_callback(callback: Callable[..., Any], result_shape_dtypes: Any, *args: Any, ordered: bool = False, **kwargs: Any) -> Any:
    """pure_callback of a function with effects; each call is one call."""
    return pure_callback(callback, result_shape_dtypes, *args, **kwargs)


def callback(callback: Callable[..., Any], *args: Any, ordered: bool = False, partitioned: bool = False, **kwargs: Any) -> None:
    """callback of the arguments as NumPy arrays; left out with a warning where they have no values."""
    given = _values("debug.callback", (args, kwargs))
    if given is None:
        warnings.warn("debug.callback is left out of a program that is traced: it runs no Python", stacklevel=2)
    else:
        callback(*given[0], **given[1])


def print(fmt: str, *args: Any, ordered: bool = False, partitioned: bool = False, **kwargs: Any) -> None:
    """fmt.format(*args, **kwargs), printed; left out with a warning where the arguments have no values.

    >>> from minidl.idioms.jax import debug
    >>> debug.print("x = {x}", x=md.ones(2))
    x = [1. 1.]
    """
    given = _values("debug.print", (args, kwargs))
    if given is None:
        warnings.warn("debug.print is left out of a program that is traced: it runs no Python", stacklevel=2)
    else:
        import builtins

        builtins.print(fmt.format(*given[0], **given[1]))
