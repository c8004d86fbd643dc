"""Bits, and what is uniform: floats, integers, coins.

Promises: equal bit for bit on all backends, eager, jitted and vmapped.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from minidl import DType, Tensor, dtypes
from minidl.extend import cast, constant, describe, from_numpy, home, ns, seen
from minidl.random.keys import Shape, common, exact, float_dtype, parameter, size_of, two, valid, words

#: dtype → (bits drawn, bits of the fraction): a draw is an integer of so many bits divided by their number, which is exact.
_FRACTION = {"float32": (32, 23), "float16": (16, 10), "bfloat16": (8, 7)}
_NARROW = 2**31  # so many integers and no more: the arithmetic of jax.random.randint fits int64


def bits(key: Tensor, shape: Shape = (), dtype: Any = dtypes.uint32) -> Tensor:
    """Uniform random bits as unsigned integers of any width. Equals jax.random.bits. Raises TypeError for another dtype.

    >>> import minidl as md
    >>> md.random.bits(md.random.key(0), (2,)).dtype
    minidl.uint32
    """
    dtype = dtypes.canonical(dtype)
    if dtype.kind != "uint":
        raise TypeError(f"random.bits: an unsigned integer dtype is wanted, not {dtype.name}")
    return _bits(key, size_of(shape), dtype)


@exact
def _bits(key: Tensor, /, shape: tuple[int, ...], dtype: DType) -> Tensor:
    a, b = words(key, shape)
    if dtype.bits == 64:
        return ns.bitwise_or(ns.shift_left(ns.cast(a, dtype=dtype), 32), ns.cast(b, dtype=dtype))
    word = ns.bitwise_xor(a, b)
    return word if dtype.bits == 32 else ns.cast(ns.bitwise_and(word, 2**dtype.bits - 1), dtype=dtype)


@exact
def unit(key: Tensor, /, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """Uniform on [0, 1), bit for bit as jax.random.uniform."""
    a, b = words(key, shape)
    if dtype is dtypes.float64:
        high, low = ns.cast(a, dtype=dtype), ns.cast(ns.shift_right(b, 12), dtype=dtype)
        return ns.add(ns.mul(high, 2.0**-32), ns.mul(low, 2.0**-52))
    drawn, fraction = _FRACTION[dtype.name]
    word = ns.bitwise_xor(a, b)
    word = word if drawn == 32 else ns.bitwise_and(word, 2**drawn - 1)
    return ns.mul(ns.cast(ns.shift_right(word, drawn - fraction), dtype=dtype), 2.0**-fraction)


def uniform(key: Tensor, shape: Shape | None = (), dtype: Any = None, minval: Any = 0.0, maxval: Any = 1.0) -> Tensor:
    """Uniform on [minval, maxval), in a float dtype (the default one without).

    Between 0 and 1 it equals jax.random.uniform; other bounds (numbers, or arrays that broadcast to shape; of the bounds' shape if shape is None) are
    applied in float64 and rounded once, however far they are apart. Differentiable in bounds that are Tensors: minval + u * (maxval - minval) for
    fixed u. Raises ValueError for numbers with minval > maxval or that are not finite in the dtype, and for shapes that do not broadcast, TypeError
    for another dtype.

    >>> import minidl as md
    >>> round(md.random.uniform(md.random.key(42)).item(), 6)
    0.48871
    """
    dtype = float_dtype("uniform", dtype)
    shown = [v for v in (minval, maxval) if not isinstance(v, Tensor)]
    fixed = len(shown) == 2
    if fixed and all(np.ndim(v) == 0 for v in shown) and (minval, maxval) == (0, 1):
        return unit(key, () if shape is None else size_of(shape), dtype)
    held = functools.partial(_finite, dtype)
    low, high = (parameter("uniform", what, v, key, held, f"finite in {dtype.name}") for what, v in (("minval", minval), ("maxval", maxval)))
    if fixed and (np.asarray(minval) > np.asarray(maxval)).any():
        raise ValueError(f"random.uniform: minval {minval} is above maxval {maxval}")
    return _between(key, low, high, common("uniform", shape, low, high), dtype)


def _finite(dtype: DType, x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.isfinite(x.astype(dtype.numpy))


@exact
def _between(key: Tensor, low: Tensor, high: Tensor, /, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """low + u * (high - low), in halves of u and of the span whose products are exact: so it is all the same whether a compiler contracts a product
    and a sum, as XLA does, which changes one float32 in 300 where decimal bounds put many of them midway between two floats."""
    u = ns.cast(unit(key, shape, dtype), dtype=dtypes.float64)
    scale = ns.add(ns.mul(ns.cast(ns.isfinite(ns.sub(high, low)), dtype=dtypes.float64), 0.5), 0.5)  # a half where the span is more than float64 has
    x: Any = ns.mul(low, scale)
    for a in _halves(u, 27) if dtype is dtypes.float64 else (u,):
        for b in _halves(ns.sub(ns.mul(high, scale), ns.mul(low, scale)), 26):
            x = ns.add(ns.mul(a, b), x)
    x = cast(ns.div(x, scale), dtype)
    return ns.where(ns.lt(low, high), ns.minimum(x, ns.nextafter(cast(high, dtype), cast(low, dtype))), x)  # rounding may have reached high


def _halves(x: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """A float64 without its last n bits, and what they add."""
    most = ns.bitcast(ns.bitwise_and(ns.bitcast(x.detach(), dtype=dtypes.int64), -(2**n)), dtype=dtypes.float64)
    return most, ns.sub(x, most)


def _product(a: Tensor, b: Any) -> tuple[Tensor, Tensor]:
    """The high and the low word of the product of uint64."""
    mask = 2**32 - 1
    a1, a0 = ns.shift_right(a, 32), ns.bitwise_and(a, mask)
    b1, b0 = (ns.shift_right(b, 32), ns.bitwise_and(b, mask)) if isinstance(b, Tensor) else (b >> 32, b & mask)
    first = ns.add(ns.mul(a1, b0), ns.shift_right(ns.mul(a0, b0), 32))
    second = ns.add(ns.mul(a0, b1), ns.bitwise_and(first, mask))
    return ns.add(ns.mul(a1, b1), ns.add(ns.shift_right(first, 32), ns.shift_right(second, 32))), ns.mul(a, b)


def _wide(keys: tuple[Tensor, Tensor], shape: tuple[int, ...], span: Any) -> Tensor:
    """uint64 below span: the integer part of span times a fraction of 128 bits."""
    x, y = (bits(k, shape, dtypes.uint64) for k in keys)
    high, low = _product(x, span)
    carry = ns.lt(ns.add(low, _product(y, span)[0]), low)
    return ns.add(high, ns.cast(carry, dtype=dtypes.uint64))


def _narrow(keys: tuple[Tensor, Tensor], shape: tuple[int, ...], span: Tensor) -> Tensor:
    """int64 below span, from 64 bits: as jax.random.randint, where its own 32-bit arithmetic does not wrap."""
    high, low = (ns.cast(bits(k, shape), dtype=dtypes.int64) for k in keys)
    factor = ns.remainder(ns.add(ns.mul(span, 0), 2**32), span)
    return ns.remainder(ns.add(ns.mul(ns.remainder(high, span), factor), low), span)


def randint(key: Tensor, shape: Shape | None, minval: Any, maxval: Any, dtype: Any = dtypes.int64) -> Tensor:
    """Uniform integers minval ≤ n < maxval in an integer dtype. The bounds are integers, or Tensors of them that broadcast to shape.

    Equals jax.random.randint of int32 where maxval - minval ≤ 2**16. A draw takes 64 bits, or 128 for more than 2**31 integers, so that no integer is
    likelier than another by more than 1 in 2**33. Raises ValueError for an empty range (a Tensor's: eager on a CPU; elsewhere minval is drawn) and
    for bounds beyond the dtype, TypeError for what is no integer.

    >>> import minidl as md
    >>> md.random.randint(md.random.key(0), (2,), 3, 4).tolist()
    [3, 3]
    """
    dtype = dtypes.canonical(dtype)
    if not dtype.is_integer:
        raise TypeError(f"random.randint: an integer dtype is wanted, not {dtype.name}; use md.random.uniform")
    if not isinstance(minval, Tensor) and not isinstance(maxval, Tensor):
        return _numbers(key, () if shape is None else size_of(shape), _integer("minval", minval), _integer("maxval", maxval), dtype)
    at = home(key)
    given = (("minval", minval), ("maxval", maxval))
    bounds = [v if isinstance(v, Tensor) else constant(at, (), _integer(what, v), dtypes.int64) for what, v in given]
    for what, v in zip(("minval", "maxval"), bounds, strict=True):
        if not v.dtype.is_integer or v.dtype is dtypes.uint64:
            raise TypeError(f"random.randint: {what} must be integers that int64 holds, not {describe(v)}")
    low, high = (cast(v, dtypes.int64) for v in bounds)
    shape = common("randint", shape, low, high)
    if (ends := seen(low, high)) and not (ends[0] < ends[1]).all():
        raise ValueError("random.randint: a range without integers; minval < maxval is wanted")
    return _ranging(key, low, high, shape, dtype, any(v.dtype.bits == 64 for v in bounds))


@exact
def _ranging(key: Tensor, low: Tensor, high: Tensor, /, shape: tuple[int, ...], dtype: DType, wide: bool) -> Tensor:
    """Between Tensors of int64; wide: there may be more than 2**31 integers between them."""
    keys, span = two(key), ns.sub(high, low)
    narrow = ns.clip(span, 1, _NARROW)
    out = _narrow(keys, shape, narrow)
    if wide:
        far = ns.bitcast(_wide(keys, shape, ns.bitcast(span, dtype=dtypes.uint64)), dtype=dtypes.int64)
        out = ns.where(ns.logical_and(ns.lt(low, high), ns.ne(span, narrow)), far, out)
    return cast(ns.add(out, low), dtype)


def _integer(what: str, value: Any) -> int:
    if hasattr(value, "tensor"):
        value = int(value)
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"random.randint: {what} must be an integer or a Tensor of them, not {value!r}")
    return value.__index__()


def _numbers(key: Tensor, shape: tuple[int, ...], low: int, high: int, dtype: DType) -> Tensor:
    span, info = high - low, np.iinfo(dtype.numpy)
    if span <= 0:
        raise ValueError(f"random.randint: [{low}, {high}) holds no integer; minval < maxval is wanted")
    if low < info.min or high - 1 > info.max:
        raise ValueError(f"random.randint: [{low}, {high}) does not fit {dtype.name}, which holds {info.min} to {info.max}")
    at = home(key)
    if span <= _NARROW:
        kind = dtypes.int64 if high <= 2**63 else dtypes.uint64
        return _few(key, constant(at, (), span, dtypes.int64), constant(at, (), low, kind), shape, dtype)
    return _many(key, constant(at, (), span % 2**64, dtypes.uint64), constant(at, (), low % 2**64, dtypes.uint64), shape, dtype, span == 2**64)


@exact
def _few(key: Tensor, span: Tensor, low: Tensor, /, shape: tuple[int, ...], dtype: DType) -> Tensor:
    return cast(ns.add(cast(_narrow(two(key), shape, span), low.dtype), low), dtype)


@exact
def _many(key: Tensor, span: Tensor, low: Tensor, /, shape: tuple[int, ...], dtype: DType, every: bool) -> Tensor:
    keys = two(key)
    out = ns.add(bits(keys[0], shape, dtypes.uint64) if every else _wide(keys, shape, span), low)
    return cast(ns.bitcast(out, dtype=dtypes.int64) if dtype.kind == "int" else out, dtype)


def bernoulli(key: Tensor, p: Any = 0.5, shape: Shape | None = None) -> Tensor:
    """bool, True with probability p: a number, or a float Tensor that broadcasts to shape (of its shape without one). Equals jax.random.bernoulli.

    Raises ValueError for a number outside [0, 1]; a Tensor's values are not looked at: below 0 is never, above 1 always.

    >>> import minidl as md
    >>> md.random.bernoulli(md.random.key(0), 1.0, (2,)).tolist()
    [True, True]
    """
    if isinstance(p, Tensor):
        float_dtype("bernoulli", p.dtype)
        return _coins(key, p.detach(), common("bernoulli", shape, p))
    if isinstance(p, (bool, int, float, np.floating)):
        if not 0 <= p <= 1:
            raise ValueError(f"random.bernoulli: p must be between 0 and 1, not {p}")
        return _coins(key, constant(home(key), (), float(p), dtypes.float32), () if shape is None else size_of(shape))
    return bernoulli(key, from_numpy(np.asarray(p, np.float32), home(key)), shape)


@exact
def _coins(key: Tensor, p: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    return ns.lt(unit(key, shape, p.dtype), p)


def coins(key: Tensor, p: float = 0.5, shape: Shape = ()) -> Tensor:
    """bool, True with probability p, a number, from a quarter of the words of bernoulli: what dropout draws.

    Each element is exact to 2**-32. The two that share a word have it with its halves exchanged, and depend on each other by no more than 2**-16.
    Raises ValueError for a number outside [0, 1].

    >>> import minidl as md
    >>> md.random.coins(md.random.key(0), 1.0, (2,)).tolist()
    [True, True]
    """
    shape, most = size_of(shape), most_of(p)
    return constant(home(valid(key)), shape, False, dtypes.bool_) if most < 0 else ns.coins(valid(key), shape=shape, most=most)


def most_of(p: float) -> int:
    """The largest word that says True with probability p; -1 where none does. Raises ValueError for a number outside [0, 1]."""
    if not 0 <= p <= 1:
        raise ValueError(f"random.coins: p must be between 0 and 1, not {p}")
    return round(p * 2**32) - 1
