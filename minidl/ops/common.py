"""What the array functions share: operands, values, fresh tensors, creation in the right place.

Promises: a function that returns its argument unchanged returns another Tensor object, so that in-place changes of one never show in the other.
"""

from __future__ import annotations

import functools
import operator
import os
from typing import Any

import numpy as np

from minidl import dtypes, shapes
from minidl.backends import default, get
from minidl.context import busy, interpreting, state
from minidl.dtypes import DType
from minidl.later import check, flags
from minidl.primitives import table
from minidl.shapes import shown
from minidl.tensors import Tensor, bind, describe, from_numpy, home, in_range, ns, scalar_type


def traced() -> Any:
    """The interpreter (a trace or vmap) that is at work in this thread, None without one.

    >>> md.extend.traced() is None, md.jit(lambda x: x * (md.extend.traced() is not None))(md.tensor(1.0)).item()
    (True, 1.0)
    """
    return state.interpreter if busy[0] else None


def choose(backend: str | None, device: str | None) -> Any:
    """The backend that a creation function was asked for."""
    if backend is None and device is None:
        return default()
    return get(backend or default().name, device)


@functools.cache
def _memory() -> int:
    """Bytes that no result can exceed: the memory of the machine, or of an accelerator of today."""
    try:
        return max(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), 2**38)
    except (AttributeError, ValueError, OSError):
        return 2**40


def fits(name: str, shape: tuple[int, ...], dtype: DType) -> None:
    """Raise MemoryError for a result that no memory holds, before anything is allocated or traced.

    >>> md.extend.fits("tile", (2, 3), md.float32)
    """
    size = shapes.prod(shape)
    if size >> 32 and (nbytes := size * dtype.itemsize) > _memory():  # the first is quick
        raise MemoryError(f"{name}: {dtype.short}[{','.join(map(str, shape))}] would take {nbytes / 2**30:.3g} GiB, which no memory here holds")


def create(primitive: str, xp: Any, dtype: DType, **params: Any) -> Tensor:
    """Apply a primitive without array arguments on xp, or in the current trace.

    >>> md.extend.create("iota", md.extend.home(), md.int64, size=3).tolist()
    [0, 1, 2]
    """
    fits(primitive, params.get("shape") or (params.get("size", 1),), dtype)
    if traced():
        return bind(table[primitive], (), {**params, "dtype": dtype})
    if not xp.needs_scope:
        return Tensor(getattr(xp, primitive)(**params, dtype=dtype), xp, dtype)
    with xp.scope():
        return Tensor(getattr(xp, primitive)(**params, dtype=dtype), xp, dtype)


def constant(xp: Any, shape: tuple[int, ...], value: Any, dtype: DType) -> Tensor:
    """A tensor of one value. Raises OverflowError for an integer that does not fit.

    >>> md.extend.constant(md.extend.home(), (2,), 1, md.float32).tolist()
    [1.0, 1.0]
    """
    if hasattr(value, "tensor"):  # a number that may change from call to call of a traced function
        return ns.broadcast_to(value.tensor(dtype), shape=shape)
    value = {"bool": bool, "int": int, "uint": int, "float": float, "complex": complex}[dtype.kind](value)
    if dtype.is_integer:
        lowest = -(2 ** (dtype.bits - 1)) if dtype.kind == "int" else 0
        if not lowest <= value < lowest + 2**dtype.bits:
            raise OverflowError(f"full: {shown(value)} does not fit {dtype.name}")
    value = in_range(value, dtype)
    return create("full", xp, dtype, shape=shape, value=value)


def operand(x: Any, like: Tensor | None = None, name: str = "") -> Tensor:
    """A Tensor of anything an array function takes; Python and NumPy data goes to the backend of `like`, or to the default one. Raises TypeError
    for anything else.

    >>> md.extend.operand(2, md.ones(3)).dtype
    minidl.float32
    """
    if isinstance(x, Tensor):
        return x
    xp = default() if like is None else home(like.xp)
    kind = scalar_type(x)
    if kind is not None:
        dtype = dtypes.of_scalar_type(kind) if like is None else dtypes.promote_scalar(like.dtype, kind)
        return constant(xp, (), x, dtype)
    if isinstance(x, (np.ndarray, np.generic)):
        return from_numpy(x, xp)
    raise TypeError(f"{name}{': ' * bool(name)}expected a Tensor, a Python number or a NumPy array, got {shown(x)}; convert it with md.asarray")


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
    """x in another dtype; x itself where nothing changes.

    >>> md.extend.cast(md.tensor(2.0), md.int64).item()
    2
    """
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
    if flags:
        check()
    return x.xp.to_numpy(x.payload)


def deciding(x: Tensor, name: str, instead: str) -> np.ndarray:
    """The values of a tensor on which the size of a result depends. Where there are none yet (traced or batched) it raises TypeError that says what
    to do instead.

    >>> md.extend.deciding(md.ones(2), "nonzero", "md.where keeps all elements").tolist()
    [1.0, 1.0]
    """
    try:
        return values(x, name)
    except TypeError as error:
        why = str(error).partition("; use")[0]
        raise TypeError(f"{why}, and the size of the result depends on it; {instead}") from None


def eager_on_cpu(x: Tensor) -> bool:
    """Whether looking at the values is allowed and cheap."""
    return not traced() and x.xp.device == "cpu"


def _index(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: integers are wanted, not {shown(value)}") from None


def pairs(name: str, value: Any, n: int) -> tuple[tuple[int, int], ...]:
    """n pairs (before, after) from an integer, a pair for all axes, or one entry per axis (an integer or a pair). Raises TypeError and ValueError for
    what is none of these.

    >>> md.extend.pairs("pad", [1, (2, 3)], 2)
    ((1, 1), (2, 3))
    """
    if not isinstance(value, (tuple, list)):
        value = _index(name, value)
        return ((value, value),) * n
    entries = [tuple(e) if isinstance(e, (tuple, list)) else _index(name, e) for e in value]
    if len(entries) == n and all(isinstance(e, int) or len(e) == 2 for e in entries):
        return tuple((e, e) if isinstance(e, int) else (_index(name, e[0]), _index(name, e[1])) for e in entries)
    if len(entries) == 2 and all(isinstance(e, int) for e in entries):
        return (tuple(entries),) * n  # type: ignore[return-value]
    raise ValueError(f"{name}: {shown(value)} gives widths for {len(entries)} axes; {n} wanted")


__all__ = [
    "Tensor", "bind", "busy", "cast", "choose", "constant", "create", "deciding", "default", "describe", "dtypes", "eager_on_cpu", "fits", "fresh",
    "from_numpy", "home", "ns", "operand", "pairs", "permuted", "reshaped", "scalar_type", "shown", "state", "table", "traced", "values",
]  # fmt: skip
