"""Random numbers by threefry2x32 (J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011), the same on every backend.

Functional, with JAX's names: a key is a Tensor uint32[2]; every draw takes one, and the same key gives the same numbers. `bits` and `uniform`
equal jax.random's. Stateful, as in PyTorch: `manual_seed` and `default_generator`, which initialisation, dropout and shuffling draw from.

Promises: no backend's own generator is ever called; bits, uniform, randint, bernoulli and permutation are equal bit for bit on all backends;
`normal` is computed in float64 with one approximation and rounded once. A generator that was never seeded starts at seed 0.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from minidl import dtypes, ops
from minidl.backends import default, using
from minidl.batching import Batched, Level
from minidl.context import interpreting, state
from minidl.dtypes import DType
from minidl.ops.common import create, from_numpy, home
from minidl.tensors import Tensor, describe, ns
from minidl.tracing import host, persistent

__all__ = [
    "Generator", "bernoulli", "bits", "default_generator", "fold_in", "key", "manual_seed", "normal", "permutation", "randint", "split", "uniform",
]  # fmt: skip
Shape = tuple[int, ...] | list[int] | int


def _seed_words(seed: int) -> np.ndarray:
    return np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)


def key(seed: int) -> Tensor:
    """The key of an integer seed (of which 64 bits count), a Tensor uint32[2] on the default backend.

    >>> key(42).tolist()
    [0, 42]
    """
    return ops.asarray(_seed_words(int(seed)))


def _half(key: Tensor, i: int) -> Tensor:
    if not isinstance(key, Tensor) or key.shape != (2,) or key.dtype is not dtypes.uint32:
        what = describe(key) if isinstance(key, Tensor) else type(key).__name__
        raise TypeError(f"random: a key is a Tensor u32[2], not {what}; make one with md.random.key(seed)")
    return ns.slice(key, start=(i,), stop=(i + 1,), step=(1,))


def _words(key: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Two independent uint32 words per element, in the given shape."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    n = math.prod(shape)
    if n >= 2**32:
        raise ValueError(f"random: {n} numbers in one draw; at most 2**32 - 1, so split the key and draw in parts")
    count = create("iota", home(key.xp), dtypes.uint32, size=n)
    a, b = ns.threefry2x32(_half(key, 0), _half(key, 1), 0, count)
    return ns.reshape(a, shape=shape), ns.reshape(b, shape=shape)


def split(key: Tensor, num: int = 2) -> Tensor:
    """num independent keys, uint32[num, 2], as jax.random.split.

    >>> split(key(0)).shape
    (2, 2)
    """
    return ops.stack(_words(key, num), axis=1)


def fold_in(key: Tensor, data: int | Tensor) -> Tensor:
    """A key that also depends on a number, for example a step count."""
    number = ns.cast(data, dtype=dtypes.uint32) if isinstance(data, Tensor) else int(data) & 0xFFFFFFFF
    a, b = ns.threefry2x32(_half(key, 0), _half(key, 1), 0, number)
    return ops.concat((a, b), axis=0)


def bits(key: Tensor, shape: Shape = (), dtype: Any = dtypes.uint32) -> Tensor:
    """Uniform random bits as unsigned integers of any width. Raises TypeError for another dtype.

    >>> bits(key(0), (2,)).dtype
    minidl.uint32
    """
    dtype = dtypes.canonical(dtype)
    if dtype.kind != "uint":
        raise TypeError(f"random.bits: an unsigned integer dtype is wanted, not {dtype.name}")
    a, b = _words(key, shape)
    if dtype.bits == 64:
        return ns.bitwise_or(ns.shift_left(ns.cast(a, dtype=dtype), 32), ns.cast(b, dtype=dtype))
    word = ns.bitwise_xor(a, b)
    return word if dtype.bits == 32 else ns.cast(ns.bitwise_and(word, 2**dtype.bits - 1), dtype=dtype)


#: dtype → (bits drawn, bits of the fraction): a draw is an integer of so many bits divided by their number, which is exact.
_FRACTION = {"float32": (32, 23), "float16": (16, 10), "bfloat16": (8, 7)}


def _unit(key: Tensor, shape: Shape, dtype: DType) -> Tensor:
    """Uniform on [0, 1), bit for bit as jax.random.uniform."""
    if not dtype.is_float:
        raise TypeError(f"random: a float dtype is wanted, not {dtype.name}; use md.random.randint for integers")
    a, b = _words(key, shape)
    if dtype is dtypes.float64:
        high, low = ns.cast(a, dtype=dtype), ns.cast(ns.shift_right(b, 12), dtype=dtype)
        return ns.add(ns.mul(high, 2.0**-32), ns.mul(low, 2.0**-52))
    drawn, fraction = _FRACTION[dtype.name]
    word = ns.bitwise_xor(a, b)
    word = word if drawn == 32 else ns.bitwise_and(word, 2**drawn - 1)
    return ns.mul(ns.cast(ns.shift_right(word, drawn - fraction), dtype=dtype), 2.0**-fraction)


def uniform(key: Tensor, shape: Shape = (), dtype: Any = None, minval: Any = 0.0, maxval: Any = 1.0) -> Tensor:
    """Uniform on [minval, maxval); bounds other than 0 and 1 are applied in float64 and rounded once.

    >>> round(uniform(key(42)).item(), 6)
    0.48871
    """
    dtype = dtypes.Defaults.floating if dtype is None else dtypes.canonical(dtype)
    x = _unit(key, shape, dtype)
    if isinstance(minval, (int, float)) and isinstance(maxval, (int, float)):
        if (minval, maxval) == (0, 1):
            return x
        x = ns.cast(ns.add(ns.mul(ns.cast(x, dtype=dtypes.float64), float(maxval) - minval), float(minval)), dtype=dtype)
        if minval < maxval:  # rounding may have reached maxval
            x = ns.clip(x, float(minval), float(np.nextafter(np.asarray(maxval, dtype.numpy), np.asarray(minval, dtype.numpy))))
        return x
    low, high = (ns.cast(v, dtype=dtypes.float64) if isinstance(v, Tensor) else v for v in (minval, maxval))
    return ns.cast(ns.add(ns.mul(ns.cast(x, dtype=dtypes.float64), ns.sub(high, low)), low), dtype=dtype)


def _ratio(r: Tensor, piece: int) -> Tensor:
    out = []
    from minidl.backends.numpy_special import _PPND as WICHURA

    for coefficients in WICHURA[piece]:
        y: Any = coefficients[0]
        for c in coefficients[1:]:
            y = ns.add(ns.mul(r, y), c)
        out.append(y)
    return ns.div(*out)


def normal(key: Tensor, shape: Shape = (), dtype: Any = None) -> Tensor:
    """Normal with mean 0 and variance 1, by the quantile function of M. J. Wichura, Algorithm AS 241, Applied Statistics 37 (1988).

    >>> normal(key(0), (3, 2)).shape
    (3, 2)
    """
    dtype = dtypes.Defaults.floating if dtype is None else dtypes.canonical(dtype)
    drawn = dtypes.float64 if dtype is dtypes.float64 else dtypes.float32
    lowest = float(np.nextafter(drawn.numpy.type(-1), drawn.numpy.type(0)))
    u = ns.clip(ns.add(ns.mul(_unit(key, shape, drawn), 2.0), lowest), lowest, math.inf)
    u = ns.cast(u, dtype=dtypes.float64)
    q = ns.mul(u, 0.5)
    a = ns.abs(u)
    middle = ns.mul(q, _ratio(ns.sub(0.180625, ns.square(q)), 0))
    r = ns.sqrt(ns.neg(ns.log(ns.mul(ns.sub(1.0, a), 0.5))))
    tail = _ratio(ns.sub(r, 1.6), 1)
    if drawn is dtypes.float64:  # beyond what a float32 draw reaches
        tail = ns.where(ns.le(r, 5.0), tail, _ratio(ns.sub(r, 5.0), 2))
    out = ns.where(ns.le(a, 0.85), middle, ns.copysign(tail, u))
    return ns.cast(out, dtype=dtype) if dtype is not dtypes.float64 else out


def randint(key: Tensor, shape: Shape, minval: int, maxval: int, dtype: Any = dtypes.int64) -> Tensor:
    """Uniform integers minval ≤ n < maxval, from 64 bits each. Raises ValueError for an empty range or one of more than 2**31.

    >>> randint(key(0), (2,), 3, 4).tolist()
    [3, 3]
    """
    span = maxval - minval
    if not 0 < span <= 2**31:
        raise ValueError(
            f"random.randint: [{minval}, {maxval}) holds {max(span, 0)} integers; between 1 and 2**31 are wanted (md.random.bits for more)"
        )
    pair = split(key)
    high, low = (ns.cast(bits(_row(pair, i), shape), dtype=dtypes.int64) for i in (0, 1))
    offset = ns.add(ns.mul(ns.remainder(high, span), 2**32 % span), low)
    return ns.cast(ns.add(ns.remainder(offset, span), minval), dtype=dtypes.canonical(dtype))


def bernoulli(key: Tensor, p: Any = 0.5, shape: Shape | None = None) -> Tensor:
    """bool, True with probability p (a number, or a Tensor that broadcasts to shape)."""
    if shape is None:
        shape = p.shape if isinstance(p, Tensor) else ()
    return ns.lt(_unit(key, shape, p.dtype if isinstance(p, Tensor) else dtypes.float32), p)


def permutation(key: Tensor, x: int | Tensor, axis: int = 0) -> Tensor:
    """0..x-1 in random order, or x with its slices along an axis in random order.

    >>> sorted(permutation(key(0), 4).tolist())
    [0, 1, 2, 3]
    """
    n = x if isinstance(x, int) else x.shape[axis]
    order = create("iota", home(key.xp), dtypes.int64, size=n)
    for _ in range(math.ceil(3 * math.log(max(n, 2)) / math.log(2**32 - 1))):  # enough sorts that ties of 32 bits do not show
        pair = split(key)
        key = _row(pair, 0)
        by = ns.argsort(ns.cast(bits(_row(pair, 1), n), dtype=dtypes.int64), axis=0, descending=False)
        order = ns.gather(order, by)
    return order if isinstance(x, int) else ops.take(x, order, axis=axis)


def _row(pair: Tensor, i: int) -> Tensor:
    return ns.reshape(ns.slice(pair, start=(i, 0), stop=(i + 1, 2), step=(1, 1)), shape=(2,))


class Generator:
    """A stream of keys with state: the key lies in a Tensor that each draw replaces in place, so that jit carries it from call to call.

    The state follows the backend that asks: the stream is one, whichever backends draw from it.
    """

    def __init__(self, seed: int = 0):
        self._seed = seed
        self._keys: list[Tensor] = []  # one per backend that has drawn; `place` says which is up to date
        self.place = -1
        self._lock = threading.RLock()

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream anew from an integer seed."""
        with self._lock:
            self._key_on(_backend(None)).assign(key(seed))
        return self

    @property
    def key(self) -> Tensor:
        """The Tensor that holds the state of now, on the backend of the current context."""
        return self._key_on(_backend(None))

    def restore(self, key: Tensor) -> None:
        """Go back to a state that `key.detach()` kept."""
        with self._lock:
            self._key_on(_backend(key)).assign(key)

    def _key_on(self, backend: Any) -> Tensor:
        i = next((i for i, k in enumerate(self._keys) if k.xp is backend), len(self._keys))
        if i != self.place:  # not what a trace records: the state moves before the program runs
            with interpreting(None):
                now = _seed_words(self._seed) if self.place < 0 else ops.common.values(self._keys[self.place], "random")
                moved = from_numpy(np.array(now), backend, dtypes.uint32)
                if i < len(self._keys):
                    self._keys[i].assign(moved)
                else:
                    self._keys.append(moved)
                    persistent.append(moved)
            self.place = i
        if host(self.__dict__, "place") != i:  # guards a compiled program against a state that is elsewhere on a later call
            raise AssertionError("the generator's state was moved while it was read")
        return self._keys[i]

    def next_key(self, like: Tensor | None = None) -> Tensor:
        """A fresh key on the backend of `like` (the default one without), one for each lane under vmap; the state advances."""
        interp = state.interpreter
        if isinstance(interp, Level):
            with interpreting(interp.parent), using(interp.home):
                keys = split(self.next_key(), interp.size)
            return Tensor(Batched(keys), interp, keys.dtype)
        with self._lock:
            own = self._key_on(_backend(like))
            pair = split(own)
            own.assign(_row(pair, 0))
        return _row(pair, 1)


def _backend(like: Tensor | None) -> Any:
    if like is not None:
        return home(like.xp)
    return default() if state.interpreter is None else home(state.interpreter)


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the generator that initialisation, dropout and shuffling draw from; returns it.

    >>> manual_seed(0) is default_generator
    True
    """
    return default_generator.manual_seed(seed)
