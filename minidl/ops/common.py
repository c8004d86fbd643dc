"""What the array functions share: operands, values, fresh tensors, creation in the right place.

Promises: a function that returns its argument unchanged returns another Tensor object, so that in-place changes of one never show in the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import dtypes
from minidl.backends import default, get
from minidl.context import busy, interpreting, state
from minidl.dtypes import DType
from minidl.primitives import table
from minidl.tensors import Tensor, bind, describe, from_numpy, ns, scalar_type


def home(xp: Any) -> Any:
    """The backend below all interpreters."""
    while not hasattr(xp, "asarray"):
        xp = xp.home or default()
    return xp


def traced() -> bool:
    """Whether an interpreter (a trace or vmap) is at work in this thread."""
    return bool(busy[0]) and state.interpreter is not None


def choose(backend: str | None, device: str | None) -> Any:
    """The backend that a creation function was asked for."""
    if backend is None and device is None:
        return default()
    return get(backend or default().name, device)


def create(primitive: str, xp: Any, dtype: DType, **params: Any) -> Tensor:
    """Apply a primitive without array arguments on xp, or in the current trace."""
    if traced():
        return bind(table[primitive], (), {**params, "dtype": dtype})
    with xp.scope():
        return Tensor(getattr(xp, primitive)(**params, dtype=dtype), xp, dtype)


def constant(xp: Any, shape: tuple[int, ...], value: Any, dtype: DType) -> Tensor:
    """A tensor of one value. Raises OverflowError for an integer that does not fit."""
    if hasattr(value, "tensor"):  # a number that may change from call to call of a traced function
        return ns.broadcast_to(value.tensor(dtype), shape=shape)
    value = {"bool": bool, "int": int, "uint": int, "float": float, "complex": complex}[dtype.kind](value)
    if dtype.is_integer:
        lowest = -(2 ** (dtype.bits - 1)) if dtype.kind == "int" else 0
        if not lowest <= value < lowest + 2**dtype.bits:
            raise OverflowError(f"full: {value} does not fit {dtype.name}")
    return create("full", xp, dtype, shape=shape, value=value)


def operand(x: Any, like: Tensor | None = None, name: str = "array") -> Tensor:
    """A Tensor of anything an array function takes; Python and NumPy data goes to the backend of `like`, or to the default one."""
    if isinstance(x, Tensor):
        return x
    xp = default() if like is None else home(like.xp)
    kind = scalar_type(x)
    if kind is not None:
        dtype = dtypes.of_scalar_type(kind) if like is None else dtypes.promote_scalar(like.dtype, kind)
        return constant(xp, (), x, dtype)
    if isinstance(x, (np.ndarray, np.generic)):
        return from_numpy(np.asarray(x), xp)
    raise TypeError(f"{name}: expected a Tensor, got {type(x).__name__}; convert it with md.asarray")


def fresh(x: Tensor) -> Tensor:
    """Another Tensor of the same value, on the tape like x."""
    if x.node is None and not busy[0]:
        return Tensor(x.payload, x.xp, x.dtype)
    return ns.reshape(x, shape=x.shape)


def reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x in another shape; x itself where nothing changes."""
    return x if x.shape == tuple(shape) else ns.reshape(x, shape=tuple(shape))


def permuted(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """x with its axes in another order; x itself where nothing changes."""
    return x if all(i == a for i, a in enumerate(axes)) else ns.permute(x, axes=tuple(axes))


def cast(x: Tensor, dtype: DType) -> Tensor:
    """x in another dtype; x itself where nothing changes."""
    return x if x.dtype is dtype else ns.cast(x, dtype=dtype)


def values(x: Tensor, what: str) -> np.ndarray:
    """The data as NumPy sees it, perhaps sharing memory. Raises TypeError, naming the operation, for a tensor without values (traced or batched)."""
    interp = state.interpreter if busy[0] else None
    if interp is not None:
        out = interp.concretize(x, what)
        if not isinstance(out, Tensor):
            return np.asarray(out)
        with interpreting(getattr(interp, "parent", None)):
            return values(out, what)
    if not hasattr(x.xp, "asarray"):
        x.xp.gone()
    return x.xp.to_numpy(x.payload)


def eager_on_cpu(x: Tensor) -> bool:
    """Whether looking at the values is allowed and cheap."""
    return not traced() and x.xp.device == "cpu"


def pairs(name: str, value: Any, n: int) -> tuple[tuple[int, int], ...]:
    """n pairs (before, after) from an integer, a pair for all axes, or one entry per axis (an integer or a pair)."""
    if isinstance(value, int):
        return ((value, value),) * n
    entries = tuple(value)
    if len(entries) == n:
        return tuple((e, e) if isinstance(e, int) else (int(e[0]), int(e[1])) for e in entries)
    if len(entries) == 2 and all(isinstance(e, int) for e in entries):
        return (entries,) * n
    raise ValueError(f"{name}: {value!r} gives widths for {len(entries)} axes; {n} wanted")


def ints(name: str, value: Any, n: int) -> tuple[int, ...]:
    """n integers from one integer or a sequence of n."""
    entries = (value,) * n if isinstance(value, int) else tuple(value)
    if len(entries) != n or not all(isinstance(e, int) for e in entries):
        raise ValueError(f"{name}: {value!r} is neither an integer nor {n} of them")
    return entries


__all__ = [
    "Tensor", "bind", "busy", "cast", "choose", "constant", "create", "default", "describe", "dtypes", "eager_on_cpu", "fresh",
    "from_numpy", "home", "ints", "ns", "operand", "pairs", "permuted", "reshaped", "scalar_type", "state", "table", "traced", "values",
]  # fmt: skip
