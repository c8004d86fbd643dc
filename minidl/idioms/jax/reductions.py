"""The reductions of jax.numpy, which leave out what `where` does not name and may begin from `initial`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.idioms.of_lax import greatest, least


def _array(a: Any, where: Any, instead: Callable[[md.DType], Any]) -> md.Tensor:
    x = md.asarray(a)
    return x if where is None else md.where(where, x, md.full_like(x, instead(x.dtype)))


def _no_out(name: str, out: Any) -> None:
    if out is not None:
        raise TypeError(f"{name}: out has no counterpart, as in JAX; take the result")


def _total(name: str, nothing: Any, join: Callable[[Any, Any], Any]) -> Callable[..., md.Tensor]:
    def function(
        a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False, initial: Any = None, where: Any = None,
        promote_integers: bool = True,
    ) -> md.Tensor:  # fmt: skip
        _no_out(name, out)
        found = getattr(md, name)(_array(a, where, lambda dtype: nothing), axis=axis, keepdims=keepdims, dtype=dtype)
        return found if initial is None else join(found, initial)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{name} of the elements that `where` names, and of initial."
    return function


def _extreme(name: str, start: Callable[[md.DType], Any], join: Callable[[Any, Any], Any]) -> Callable[..., md.Tensor]:
    def function(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False, initial: Any = None, where: Any = None) -> md.Tensor:
        _no_out(name, out)
        if where is not None and initial is None:
            raise ValueError(f"{name}: where= needs initial=, which the result is where it names nothing")
        found = getattr(md, name)(_array(a, where, start), axis=axis, keepdims=keepdims)
        return found if initial is None else join(found, initial)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{name} of the elements that `where` names, and of initial. Raises ValueError for where= without initial=."
    return function


def _test(name: str, nothing: bool) -> Callable[..., md.Tensor]:
    def function(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False, *, where: Any = None) -> md.Tensor:
        _no_out(name, out)
        x = md.asarray(a)
        return getattr(md, name)(x if where is None else md.where(where, x != 0, nothing), axis=axis, keepdims=keepdims)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{name} of the elements that `where` names."
    return function


sum = _total("sum", 0, md.add)
prod = _total("prod", 1, md.multiply)
max = _extreme("max", least, md.maximum)
min = _extreme("min", greatest, md.minimum)
any = _test("any", False)
all = _test("all", True)


def mean(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False, *, where: Any = None) -> md.Tensor:
    """md.mean of the elements that `where` names.

    >>> mean(md.tensor([1.0, 3.0, 8.0]), where=md.tensor([True, True, False])).item()
    2.0
    """
    _no_out("mean", out)
    x = md.asarray(a)
    x = x if dtype is None else x.to(dtype)
    if where is None:
        return md.mean(x if x.dtype.inexact else x.to(md.get_default_dtype()), axis=axis, keepdims=keepdims)
    named = md.broadcast_to(md.asarray(where), x.shape)
    return md.sum(md.where(named, x, 0), axis=axis, keepdims=keepdims) / md.sum(named, axis=axis, keepdims=keepdims)


def var(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: bool = False, *, where: Any = None, mean: Any = None,
    correction: Any = None,
) -> md.Tensor:  # fmt: skip
    """The mean squared distance from the mean (or from `mean`) of the elements that `where` names, their number less ddof.

    >>> var(md.tensor([1.0, 3.0]), ddof=1).item()
    2.0
    """
    _no_out("var", out)
    x = md.asarray(a)
    x = x if dtype is None else x.to(dtype)
    x = x if x.dtype.inexact else x.to(md.get_default_dtype())
    less = ddof if correction is None else correction
    if where is None and mean is None and not x.dtype.is_complex:
        return md.var(x, axis=axis, correction=less, keepdims=keepdims)
    named = md.broadcast_to(md.asarray(True if where is None else where), x.shape)
    count = md.sum(named, axis=axis, keepdims=True)
    middle = md.sum(md.where(named, x, 0), axis=axis, keepdims=True) / count if mean is None else md.asarray(mean)
    away = md.where(named, x - middle, 0)
    total = md.sum(md.real(away * md.conj(away)), axis=axis, keepdims=keepdims)
    return total / (md.sum(named, axis=axis, keepdims=keepdims) - less)


def std(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: bool = False, **options: Any) -> md.Tensor:
    """The square root of var, with its arguments.

    >>> std(md.tensor([1.0, 3.0])).item()
    1.0
    """
    x = md.asarray(a)
    if not options and dtype is None and out is None and x.dtype.is_float:
        return md.std(x, axis=axis, correction=ddof, keepdims=keepdims)
    return md.sqrt(var(a, axis, dtype, out, ddof, keepdims, **options))


def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False, where: Any = None
) -> Any:  # fmt: skip
    """log(sum(b exp(a))) of the elements that `where` names; return_sign: the pair of the logarithm of the sum's absolute value, and its sign.

    >>> round(logsumexp(md.tensor([0.0, 0.0]), b=md.tensor([1.0, 3.0])).item(), 4)
    1.3863
    """
    x = md.asarray(a)
    x = x if x.dtype.inexact else x.to(md.get_default_dtype())
    x = x if where is None else md.where(where, x, -math.inf)
    if b is None and not return_sign:
        return md.logsumexp(x, axis=axis, keepdims=keepdims)
    b = md.ones_like(x) if b is None else md.asarray(b)
    x, b = md.broadcast_arrays(md.where(b == 0, -math.inf, x), b)
    top = md.stop_gradient(md.max(x, axis=axis, keepdims=True))
    top = md.where(md.isfinite(top), top, 0.0)
    total = md.sum(b * md.exp(x - top), axis=axis, keepdims=keepdims)
    sign = md.sign(total)
    found = md.log(md.abs(total) if return_sign else total) + (top if keepdims else md.reshape(top, total.shape))
    return (found, sign) if return_sign else found


#: Name -> what it is in jax.numpy.
NAMES: dict[str, Any] = {f.__name__: f for f in (sum, prod, max, min, any, all, mean, var, std)} | {"amax": max, "amin": min}
