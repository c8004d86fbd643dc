"""Integers that follow a distribution, and random orders: poisson, categorical, choice, permutation. None of them has a derivative."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minidl as md
from minidl import DType, Tensor, dtypes
from minidl.extend import cast, constant, describe, from_numpy, home, ns, operand, whole
from minidl.random.keys import Shape, common, fold_in, parameter, size_of, two
from minidl.random.normal import _drawn, _gumbel
from minidl.random.uniform import bits, randint, unit

_MEAN_MOST = 2.0**62
_LOG_FACTORIAL = np.array([math.lgamma(k + 1) for k in range(21)])


def _all(x: Tensor) -> Tensor:
    return ns.all(x, axis=tuple(range(x.ndim)), keepdims=False)


def _by_inversion(key: Tensor, mean: Tensor) -> Tensor:
    """Poisson numbers of small means: the first k whose cumulative probability exceeds a uniform number."""
    u = unit(key, mean.shape, dtypes.float64)
    p = ns.exp(ns.neg(mean))

    def step(carry: Any) -> Any:
        i, k, p, total = carry
        beyond = ns.ge(u, total)
        k = ns.where(beyond, ns.add(k, 1.0), k)
        p = ns.where(beyond, ns.mul(p, ns.div(mean, ns.maximum(k, 1.0))), p)
        return ns.add(i, 1), k, p, ns.where(beyond, ns.add(total, p), total)

    def waiting(carry: Any) -> Tensor:  # a total may round to less than the largest u
        return ns.logical_and(ns.lt(carry[0], 100), ns.logical_not(_all(ns.lt(u, carry[3]))))

    start = (constant(home(key), (), 0, dtypes.int64), ns.mul(u, 0.0), p, ns.add(p, ns.mul(u, 0.0)))
    return md.while_loop(waiting, step, start)[1]


def _log_probability(k: Tensor, mean: Tensor) -> Tensor:
    """Of k under a mean of at least 10. Far out by Stirling's series about the mean, where the difference of large logarithms has no digits left.

    Source: C. Loader, Fast and accurate computation of binomial probabilities (2000).
    """
    few = ns.lt(k, 20.0)
    n = ns.clip(k, 0.0, 20.0)
    factorial = ns.gather(from_numpy(_LOG_FACTORIAL, home(k)), ns.cast(n, dtype=dtypes.int64))
    near = ns.sub(ns.sub(ns.mul(n, ns.log(mean)), mean), factorial)
    n = ns.where(few, 20.0, k)
    d = ns.div(ns.sub(n, mean), mean)
    deviance = ns.mul(mean, ns.sub(ns.mul(ns.add(d, 1.0), ns.log1p(d)), d))
    r = ns.div(1.0, n)
    q = ns.square(r)
    stirling = ns.mul(r, ns.add(1 / 12, ns.mul(q, ns.add(-1 / 360, ns.mul(q, ns.add(1 / 1260, ns.mul(q, -1 / 1680)))))))
    far = ns.neg(ns.add(ns.add(deviance, stirling), ns.mul(ns.log(ns.mul(n, 2 * math.pi)), 0.5)))
    return ns.where(few, near, far)


def _by_rejection(key: Tensor, mean: Tensor, done: Tensor) -> Tensor:
    """Poisson numbers of means from 10 on. Source: W. Hörmann, The transformed rejection method for generating Poisson random variables (1993)."""
    b = ns.add(ns.mul(ns.sqrt(mean), 2.53), 0.931)
    a = ns.add(ns.mul(b, 0.02483), -0.059)
    inverse = ns.add(ns.div(1.1328, ns.sub(b, 3.4)), 1.1239)
    quick = ns.sub(0.9277, ns.div(3.6224, ns.sub(b, 2.0)))

    def step(carry: Any) -> Any:
        i, done, kept = carry
        first, second = two(fold_in(key, i))
        u, v = ns.sub(unit(first, mean.shape, dtypes.float64), 0.5), ns.sub(1.0, unit(second, mean.shape, dtypes.float64))
        r = ns.maximum(ns.sub(0.5, ns.abs(u)), 1e-30)
        k = ns.floor(ns.add(ns.mul(ns.add(ns.div(ns.mul(a, 2.0), r), b), u), ns.add(mean, 0.43)))
        at_once = ns.logical_and(ns.ge(r, 0.07), ns.le(v, quick))
        least = ns.log(ns.div(ns.mul(v, inverse), ns.add(ns.div(a, ns.square(r)), b)))
        later = ns.logical_or(ns.ge(r, 0.013), ns.le(v, r))
        later = ns.logical_and(ns.logical_and(later, ns.ge(k, 0.0)), ns.le(least, _log_probability(ns.maximum(k, 0.0), mean)))
        return ns.add(i, 1), ns.logical_or(done, ns.logical_or(at_once, later)), ns.where(done, kept, k)

    start = (constant(home(key), (), 0, dtypes.int64), done, ns.mul(mean, 0.0))
    return md.while_loop(lambda carry: ns.logical_not(_all(carry[1])), step, start)[2]


def poisson(key: Tensor, lam: Any, shape: Shape | None = None, dtype: Any = dtypes.int64) -> Tensor:
    """Poisson numbers of mean lam: a number, or an array that broadcasts to shape (of its shape without one), as integers of a dtype.

    Raises ValueError for a number that is negative, nan or above 2**62; a Tensor's such give -1. Raises TypeError for no signed integer dtype.

    >>> import minidl as md
    >>> md.random.poisson(md.random.key(0), 0.0, (2,)).tolist()
    [0, 0]
    """
    dtype = dtypes.canonical(dtype)
    if dtype.kind != "int":
        raise TypeError(f"random.poisson: a signed integer dtype is wanted, not {dtype.name}")
    mean = parameter("poisson", "lam", lam, key, lambda x: (x >= 0) & (x <= _MEAN_MOST), "between 0 and 2**62").detach()
    return _poisson(key, mean, common("poisson", shape, mean), dtype)


@whole
def _poisson(key: Tensor, mean: Tensor, /, shape: tuple[int, ...], dtype: DType) -> Tensor:
    mean = mean if mean.shape == shape else ns.broadcast_to(mean, shape=shape)
    valid = ns.logical_and(ns.ge(mean, 0.0), ns.le(mean, _MEAN_MOST))
    small = ns.logical_or(ns.lt(mean, 10.0), ns.logical_not(valid))
    first, second = two(key)
    few = _by_inversion(first, ns.where(ns.logical_and(small, valid), mean, 0.0))
    many = _by_rejection(second, ns.where(small, 10.0, mean), small)
    return cast(ns.where(valid, ns.where(small, few, many), -1.0), dtype)


def categorical(key: Tensor, logits: Any, axis: int = -1, shape: Shape | None = None, replace: bool = True) -> Tensor:
    """Positions along an axis of logits, drawn with probability softmax(logits): int64, of the shape of the other axes or one that ends with it.

    The largest of the logits plus Gumbel noise, as in jax.random.categorical. A logit of -inf is never drawn, unless all are (0 is drawn then).
    replace=False: the draws of the axes that shape has in front are different positions. Raises ValueError for a shape that does not end with
    that of the other axes, and for more different draws than there are positions; TypeError for logits that are no floats.

    >>> import math
    >>> import minidl as md
    >>> md.random.categorical(md.random.key(0), [0.0, -math.inf], shape=(3,)).tolist()
    [0, 0, 0]
    """
    logits = operand(np.asarray(logits, np.float32) if isinstance(logits, (list, tuple)) else logits, key, "random.categorical")
    if not logits.dtype.is_float:
        raise TypeError(f"random.categorical: logits must be floats, not {describe(logits)}")
    if logits.ndim == 0:
        raise ValueError("random.categorical: logits need an axis")
    axis = _axis("categorical", axis, logits.ndim)
    batch = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    out = batch if shape is None else size_of(shape)
    n = len(out) - len(batch)
    if n < 0 or out[n:] != batch:
        raise ValueError(f"random.categorical: the shape {out} does not end with {batch}, the axes of logits {describe(logits)} beside axis {axis}")
    if logits.shape[axis] == 0 and math.prod(out):
        raise ValueError(f"random.categorical: logits {describe(logits)} have no positions along axis {axis}")
    if not replace and math.prod(out[:n]) > logits.shape[axis]:
        raise ValueError(f"random.categorical: {math.prod(out[:n])} different draws out of {logits.shape[axis]} positions")
    return _categorical(key, logits.detach(), axis, out, n, replace)


@whole
def _categorical(key: Tensor, logits: Tensor, /, axis: int, out: tuple[int, ...], n: int, replace: bool) -> Tensor:
    scores = ns.cast(logits, dtype=dtypes.float64)
    if replace:
        noise = _gumbel(key, (*out[:n], *logits.shape), _drawn(logits.dtype))
        return ns.argmax(ns.add(noise, scores), axis=axis + n, keepdims=False)
    noisy = ns.add(_gumbel(key, logits.shape, _drawn(logits.dtype)), scores)
    return ns.reshape(md.moveaxis(md.topk(noisy, math.prod(out[:n]), axis).indices, axis, 0), shape=out)


def _axis(name: str, axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise IndexError(f"random.{name}: axis {axis} of {ndim} axes")
    return axis % ndim


def permutation(key: Tensor, x: Any, axis: int = 0, independent: bool = False) -> Tensor:
    """0..x-1 in random order (int64), or an array with its slices along an axis in random order; independent: each line along the axis in its own.

    Equals jax.random.permutation. Raises ValueError for a negative count, IndexError for an axis that x does not have.

    >>> import minidl as md
    >>> sorted(md.random.permutation(md.random.key(0), 4).tolist())
    [0, 1, 2, 3]
    """
    if hasattr(x, "__index__") and not isinstance(x, (Tensor, np.ndarray)):
        _axis("permutation", axis, 1)
        return _order(key, size_of(x), 0)
    x = operand(x, key, "random.permutation")
    return _permuted(key, x, _axis("permutation", axis, x.ndim), independent)


@whole
def _permuted(key: Tensor, x: Tensor, /, axis: int, independent: bool) -> Tensor:
    if independent:
        return md.take_along_axis(x, _order(key, x.shape, axis), axis=axis)
    return md.take(x, _order(key, (x.shape[axis],), 0), axis=axis)


@whole
def _order(key: Tensor, /, shape: tuple[int, ...], along: int) -> Tensor:
    """Positions along an axis in random order, independently for each line."""
    order = None
    for _ in range(math.ceil(3 * math.log(max(math.prod(shape), 2)) / math.log(2**32 - 1))):  # enough sorts that ties of 32 bits do not show
        key, by = two(key)
        by = ns.argsort(ns.cast(bits(by, shape), dtype=dtypes.int64), axis=along, descending=False)
        order = by if order is None else md.take_along_axis(order, by, axis=along)
    assert order is not None
    return order


def choice(key: Tensor, a: Any, shape: Shape = (), replace: bool = True, p: Any = None, axis: int = 0) -> Tensor:
    """Elements of 0..a-1, or slices of an array along an axis, in the given shape: alike likely, or with the probabilities p (weights, in fact).

    By the method of jax.random.choice, whose draws it repeats up to rounding. Raises ValueError for no elements, for more different draws
    (replace=False) than there are elements, and for p that is no vector of a weight per element, or has numbers that are negative or sum to 0.

    >>> import minidl as md
    >>> md.random.choice(md.random.key(0), 5, (2,), p=[0.0, 0.0, 1.0, 0.0, 0.0]).tolist()
    [2, 2]
    """
    out = size_of(shape)
    count = math.prod(out)
    number = hasattr(a, "__index__") and not isinstance(a, (Tensor, np.ndarray))
    array = None if number else operand(np.asarray(a) if isinstance(a, (list, tuple)) else a, key, "random.choice")
    axis = 0 if array is None else _axis("choice", axis, array.ndim)
    n = size_of(a)[0] if array is None else array.shape[axis]
    if n == 0 and count:
        raise ValueError("random.choice: there is nothing to choose from")
    if not replace and count > n:
        raise ValueError(f"random.choice: {count} different draws out of {n} elements")
    if p is None:
        index = randint(key, out, 0, n) if replace and count else md.reshape(permutation(key, n)[:count], out)
    else:
        weights = parameter("choice", "p", p, key, lambda x: (x >= 0) & (x < math.inf), "at least 0").detach()
        if weights.shape != (n,):
            raise ValueError(f"random.choice: p has shape {weights.shape}; a weight for each of {n} elements is wanted")
        if not isinstance(p, Tensor) and not np.sum(p) > 0:
            raise ValueError("random.choice: the weights p sum to 0")
        index = _weighted(key, weights, out, replace)
    if array is None:
        return index
    picked = md.take(array, ns.reshape(index, shape=(count,)), axis=axis)
    return md.reshape(picked, (*array.shape[:axis], *out, *array.shape[axis + 1 :]))


@whole
def _weighted(key: Tensor, weights: Tensor, /, out: tuple[int, ...], replace: bool) -> Tensor:
    """Positions by their weights."""
    if not replace:
        noisy = ns.add(_gumbel(key, weights.shape, dtypes.float32), ns.log(weights))
        return md.reshape(md.argsort(noisy, descending=True)[: math.prod(out)], out)
    total = ns.cumsum(weights, axis=0, reverse=False)
    r = ns.mul(total[-1], ns.sub(1.0, ns.cast(unit(key, out, dtypes.float32), dtype=dtypes.float64)))
    return md.searchsorted(total, r)
