"""Keys, the words that a draw consists of, and what all draws ask of their arguments.

A key is a Tensor uint32[2]. The words of a draw are threefry2x32 of the key and a count, so that element i depends on the key and i alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

import minidl as md
from minidl import DType, Tensor, dtypes
from minidl.extend import at_once, cast, constant, create, describe, from_numpy, get_backend, home, ns, seen, size_tuple, whole
from minidl.random import threefry  # noqa: F401  (which puts its primitives into the table)

Shape = tuple[int, ...] | list[int] | int
F = TypeVar("F", bound=Callable[..., Any])
_COUNTS = np.zeros(1, np.uint32), np.arange(2, dtype=np.uint32)  # of two keys
FEW = 2**12  # numbers for which NumPy's calls cost less than those of a library with more overhead, and the way there and back


def exact(f: F) -> F:
    """`whole` of f(key, …, /, [shape, …]), whose bits are the same on every backend: where operations run at once on a CPU, few numbers are drawn by
    NumPy's program, whichever backend they are for."""
    program, count = whole(f), f.__code__.co_posonlyargcount

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        key, xp = args[0], getattr(args[0], "xp", None)
        if not hasattr(xp, "asarray") or isinstance(key.payload, np.ndarray) or getattr(xp, "compiles_operations", False):
            return program(*args)
        data, few = args[:count], len(args) == count or math.prod(args[count]) <= FEW
        usual = few and key.shape == (2,) and all(x.xp is xp and x.node is None for x in data)
        found = seen(*data) if usual else None
        if found is None:
            return program(*args)
        numpy = get_backend("numpy")
        drawn = program(*(Tensor(v, numpy, x.dtype) for v, x in zip(found, data, strict=True)), *args[count:])
        return md.tree.map(lambda t: from_numpy(t.payload, xp, t.dtype), drawn)

    return call  # type: ignore[return-value]


def words_of(seed: int) -> np.ndarray:
    return np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)


def key(seed: int | Tensor) -> Tensor:
    """The key of a seed: a Tensor uint32[2] on the default backend, or on that of a seed which is a Tensor.

    seed: an integer, of which 64 bits count, or a Tensor of one integer. Equals jax.random.key_data(jax.random.key(seed)) with 64-bit types on.
    Raises TypeError for a seed that is no integer.

    >>> import minidl as md
    >>> md.random.key(42).tolist()
    [0, 42]
    """
    if not isinstance(seed, Tensor):
        if isinstance(seed, (bool, np.bool_)) or not hasattr(seed, "__index__"):
            raise TypeError(f"random.key: a seed is an integer, not {seed!r}")
        return md.asarray(words_of(seed.__index__()))
    if seed.shape != () or not seed.dtype.is_integer:
        raise TypeError(f"random.key: a seed is one integer, not {describe(seed)}")
    low = ns.cast(seed, dtype=dtypes.uint32)
    high = ns.cast(ns.shift_right(seed, 32), dtype=dtypes.uint32) if seed.dtype.bits == 64 else ns.bitwise_and(low, 0)
    return md.stack((high, low))


def valid(key: Tensor) -> Tensor:
    """The key. Raises TypeError for what is none."""
    if not isinstance(key, Tensor) or key.shape != (2,) or key.dtype is not dtypes.uint32:
        what = describe(key) if isinstance(key, Tensor) else type(key).__name__
        raise TypeError(f"random: a key is a Tensor u32[2], not {what}; make one with md.random.key(seed)")
    return key


def _half(key: Tensor, i: int) -> Tensor:
    return ns.slice(valid(key), start=(i,), stop=(i + 1,), step=(1,))  # type: ignore[no-any-return]


def size_of(shape: Shape) -> tuple[int, ...]:
    """A shape as a tuple. Raises ValueError for a negative size or too many numbers, TypeError for what is no shape."""
    out = size_tuple("random", shape)
    if math.prod(out) >= 2**32:
        raise ValueError(f"random: {math.prod(out)} numbers in one draw; at most 2**32 - 1, so split the key and draw in parts")
    return out


def words(key: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Two independent uint32 words per element, in the given shape."""
    shape = size_of(shape)
    n = math.prod(shape)
    first, second = _half(key, 0), _half(key, 1)
    a, b = ns.threefry2x32(first, second, 0, create("iota", home(key), dtypes.uint32, size=n))
    return (a, b) if shape == (n,) else (ns.reshape(a, shape=shape), ns.reshape(b, shape=shape))


@exact
def _split(key: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    return md.stack(words(key, shape), axis=-1)


@exact
def _folded(key: Tensor, number: Tensor, /) -> Tensor:
    return md.concat(ns.threefry2x32(_half(key, 0), _half(key, 1), 0, ns.cast(number, dtype=dtypes.uint32)), axis=0)


def split(key: Tensor, num: Shape = 2) -> Tensor:
    """num independent keys, uint32[num, 2], as jax.random.split; num may be a shape.

    >>> import minidl as md
    >>> md.random.split(md.random.key(0)).shape
    (2, 2)
    """
    return _split(key, size_of(num))


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    """A key that also depends on a number (modulo 2**32), for example a step count. Equals jax.random.fold_in.

    Raises TypeError for a
    Tensor that is not one integer.

    >>> import minidl as md
    >>> md.random.fold_in(md.random.key(0), 1).tolist() == md.random.fold_in(md.random.key(0), 2).tolist()
    False
    """
    if isinstance(data, Tensor) and (data.shape != () or not data.dtype.is_integer):
        raise TypeError(f"random.fold_in: one integer is wanted, not {describe(data)}")
    number = data if isinstance(data, Tensor) else constant(home(key), (), int(data) & 0xFFFFFFFF, dtypes.uint32)
    return _folded(key, number)


def row(keys: Tensor, i: int) -> Tensor:
    """Key i of several."""
    return ns.reshape(ns.slice(keys, start=(i, 0), stop=(i + 1, 2), step=(1, 1)), shape=(2,))


def two(key: Tensor, /) -> tuple[Tensor, Tensor]:
    """Two independent keys; at once where values may be looked at, since layers draw one in each call."""
    found = seen(valid(key)) if at_once() else None
    if found is None:
        return _two(key)
    return tuple(from_numpy(words, key.xp, key.dtype) for words in pair(found[0]))  # type: ignore[return-value]


def pair(key: np.ndarray) -> np.ndarray:
    """Two independent keys as rows."""
    out = np.empty((2, 2), np.uint32)
    out[:, 0], out[:, 1] = get_backend("numpy").threefry2x32(key[:1], key[1:], *_COUNTS)
    return out


@exact
def _two(key: Tensor, /) -> tuple[Tensor, Tensor]:
    pair = _split(key, (2,))
    return row(pair, 0), row(pair, 1)


def float_dtype(name: str, dtype: Any) -> DType:
    """The dtype asked for, the default float dtype without one. Raises TypeError for no float dtype."""
    found = dtypes.Defaults.floating if dtype is None else dtypes.canonical(dtype)
    if not found.is_float:
        raise TypeError(f"random.{name}: a float dtype is wanted, not {found.name}" + ("; use md.random.randint" if found.is_integer else ""))
    return found


def parameter(name: str, what: str, value: Any, key: Tensor, valid: Callable[[Any], Any], wanted: str) -> Tensor:
    """A distribution's parameter as a float64 Tensor on the key's backend.

    Numbers and NumPy arrays are checked; the values of a Tensor may be unknown, and the distribution says what comes of invalid ones.
    Raises ValueError for invalid numbers, TypeError for what has no real values.
    """
    if isinstance(value, Tensor):
        if value.dtype.is_complex or value.dtype is dtypes.bool_:
            raise TypeError(f"random.{name}: {what} must be real, not {describe(value)}")
        return cast(value, dtypes.float64)
    if hasattr(value, "tensor"):  # a number that may change from call to call of a traced function
        return value.tensor(dtypes.float64)
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"random.{name}: {what} must be a number, an array or a Tensor, not {value!r}") from None
    bad = array[~valid(array)]
    if bad.size:
        raise ValueError(f"random.{name}: {what} must be {wanted}, not {bad.flat[0]}")
    return from_numpy(array, home(key)) if array.shape else constant(home(key), (), float(array), dtypes.float64)


def common(name: str, shape: Shape | None, *parameters: Tensor) -> tuple[int, ...]:
    """The shape of a draw: that of the parameters where none is given. Raises ValueError where the parameters do not broadcast to it."""
    try:
        least = md.broadcast_shapes(*(p.shape for p in parameters))
        out = least if shape is None else size_of(shape)
        if md.broadcast_shapes(least, out) != out:
            raise ValueError
    except ValueError:
        to = "each other" if shape is None else f"the shape {size_of(shape)}"
        raise ValueError(f"random.{name}: parameters of shapes {', '.join(str(p.shape) for p in parameters)} do not broadcast to {to}") from None
    return out
