"""The primitives as plain lax code, one function each with the table's signature: here the elementwise ones, reductions and structure.

Promises: no function here starts a compilation, touches a setting of JAX or looks at a device; dtypes come out as the table says, given that
64-bit types are on (the caller's business); values keep minidl's conventions where XLA's own differ (integer division by zero, NaN in
casts and maxima, ties, rows of -inf). float16 and bfloat16 are computed in float32 wherever rounding would add up. XLA may multiply by the
reciprocal of a divisor that it broadcasts (off by at most one more ulp).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax
from jax.extend.random import threefry2x32_p

from minidl.backends import complex_values
from minidl.primitives import table

kernels: dict[str, Callable[..., Any]] = {}
_f: Callable[..., Any]
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
        return to(f(*(to(x, np.float32) for x in xs), **params), xs[0].dtype)

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


# ---- elementwise ----------------------------------------------------------------------------------------------------------------------
def _only_float(f: Callable[..., Any]) -> Callable[..., Any]:
    """Integers are already round."""
    return lambda x: f(x) if is_float(x) else x


def _log_base(base: float) -> Callable[..., Any]:
    scale = 1 / math.log(base)

    def log(x: Any) -> Any:
        if x.dtype.kind == "c":
            z = kernels["log"](x)
            return lax.complex(*(lax.mul(part, const(scale, part)) for part in (lax.real(z), lax.imag(z))))
        if is_float(x) and x.dtype.itemsize < 8:  # in double, so that whole powers come out whole
            return to(lax.mul(lax.log(to(x, np.float64)), const(scale, to(x, np.float64))), x.dtype)
        return lax.div(lax.log(x), const(math.log(base), x))

    return log


_round = _only_float(lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN))
for _name in "exp expm1 log log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh square neg".split():
    kernels[_name] = getattr(lax, _name)

def _either(name: str) -> Callable[..., Any]:
    f = kernels[name]
    return lambda x: _complex[name](x) if x.dtype.kind == "c" else f(x)


_TOOLS = {n: getattr(lax, {"absolute": "abs", "negative": "neg"}.get(n, n)) for n in "absolute negative sin cos atan2 log log1p".split()}
_TOOLS |= {
    "where": lax.select, "full": lambda like, value: const(value, like), "signbit": lambda x: kernels["signbit"](x),
    "hypot": lambda x, y: kernels["hypot"](x, y),
}  # fmt: skip


def _split(x: Any) -> tuple[Any, Any]:
    return lax.real(x), lax.imag(x)


def _products(f: Any, g: Any, h: Any, k: Any) -> Callable[[Any], Any]:
    """f(a) g(b) + i h(a) k(b): XLA's own lose the signs of zeros."""

    def call(x: Any) -> Any:
        a, b = _split(x)
        return lax.complex(lax.mul(f(a), g(b)), lax.mul(h(a), k(b)))

    return call


_OWN = {
    "sinh": _products(lax.sinh, lax.cos, lax.cosh, lax.sin), "cosh": _products(lax.cosh, lax.cos, lax.sinh, lax.sin),
    "sin": _products(lax.sin, lax.cosh, lax.cos, lax.sinh), "cos": _products(lax.cos, lax.cosh, lambda a: lax.neg(lax.sin(a)), lax.sinh),
    "atan": lambda x: lax.complex(*reversed(_split(lax.atanh(lax.complex(*reversed(_split(x))))))),
}  # fmt: skip
_complex = complex_values.kernels(_TOOLS, {name: _OWN.get(name, kernels[name]) for name in complex_values.TABLE}, _split, lax.complex)
kernels.update({name: _either(name) for name in _complex})
_logistic = wide(lax.logistic)


def _sigmoid(x: Any) -> Any:
    if x.dtype.kind != "c":
        return _logistic(x)
    right, one = lax.ge(lax.real(x), const(0, lax.real(x))), const(1, x)
    z = _complex["exp"](lax.select(right, lax.neg(x), x))  # never overflows
    return lax.div(lax.select(right, one, z), lax.add(z, one))


_complex_pow = complex_values.raised(_TOOLS, lax.pow, _complex["log"], _complex["exp"], _split, lax.complex)

for _name, _f in {"erf": lax.erf, "erfc": lax.erfc, "erfinv": lax.erf_inv}.items():
    kernels[_name] = wide(_f)
kernels |= {
    "sigmoid": _sigmoid, "log2": _log_base(2.0), "log10": _log_base(10.0),
    "floor": _only_float(lax.floor), "ceil": _only_float(lax.ceil),
    "round": lambda x: lax.complex(_round(lax.real(x)), _round(lax.imag(x))) if x.dtype.kind == "c" else _round(x),
    "trunc": _only_float(lambda x: lax.select(lax.lt(x, const(0, x)), lax.ceil(x), lax.floor(x))),
    "abs": lambda x: x if x.dtype.kind in "bu" else kernels["hypot"](lax.real(x), lax.imag(x)) if x.dtype.kind == "c" else lax.abs(x),
    "real": lambda x: lax.real(x) if x.dtype.kind == "c" else x,
    "imag": lambda x: lax.imag(x) if x.dtype.kind == "c" else const(0, x),
    "conj": lambda x: lax.conj(x) if x.dtype.kind == "c" else x,
    "logical_not": lax.bitwise_not, "bitwise_invert": lax.bitwise_not,
}  # fmt: skip


kernels["lgamma"] = double(lax.lgamma)


@kernel
@double
def digamma(x: Any) -> Any:
    return lax.select(lax.eq(x, const(0, x)), copysign(const(np.inf, x), lax.neg(x)), lax.digamma(x))


@kernel
@double
def polygamma(x: Any, *, n: int) -> Any:
    """Reflected below 0 (DLMF 5.15.6), where the zeta function that lax sums does not reach."""
    p = np.poly1d([1.0, 0.0])  # the n-th derivative of the cotangent, as a polynomial in it
    for _ in range(n):
        p = p.deriv() * np.poly1d([-1.0, 0.0, -1.0])
    r = lax.sub(x, lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN))
    cot, derivative = lax.div(const(1, x), lax.tan(lax.mul(const(np.pi, x), r))), const(0, x)
    for c in p.coeffs:
        derivative = lax.add(lax.mul(derivative, cot), const(c, x))
    sign, below = (-1) ** (n + 1), lax.lt(x, const(0, x))
    at = lax.select(below, lax.sub(const(1, x), x), x)
    right = lax.mul(const(sign * math.factorial(n), x), lax.zeta(const(n + 1, x), at))
    right = lax.select(lax.eq(at, const(0, x)), const(sign * np.inf, x), lax.select(lax.eq(at, const(np.inf, x)), const(sign * 0.0, x), right))
    left = lax.sub(lax.mul(const(-sign, x), right), lax.mul(const(np.pi ** (n + 1), x), derivative))
    left = lax.select(lax.eq(r, const(0, x)), const(np.inf if n % 2 else np.nan, x), left)
    return lax.select(below, left, right)


@kernel
def relu(x: Any) -> Any:
    return lax.max(x, const(0, x))


@kernel
@wide
def softplus(x: Any) -> Any:
    return lax.add(lax.max(x, const(0, x)), lax.log1p(lax.exp(lax.neg(lax.abs(x)))))


@kernel
def sign(x: Any) -> Any:
    if x.dtype.kind == "c":
        return _complex_sign(x)
    return lax.select(lax.eq(x, const(0, x)), const(0, x), lax.sign(x))  # sign(-0.) is +0, as in NumPy


def _complex_sign(x: Any) -> Any:
    """An infinite part hides a finite one."""
    parts, whole = (lax.real(x), lax.imag(x)), lax.sign(x)
    wild = [lax.eq(lax.abs(c), const(np.inf, c)) for c in parts]
    unknown = lax.bitwise_or(lax.bitwise_or(*map(isnan, parts)), lax.bitwise_and(*wild))
    out = []
    for c, w, tame in zip(parts, wild, (lax.real(whole), lax.imag(whole)), strict=True):
        hidden = lax.select(w, lax.sign(c), const(0, c))
        tame = lax.select(lax.eq(x, const(0, x)), const(0, c), tame)
        out.append(lax.select(unknown, const(np.nan, c), lax.select(lax.bitwise_or(*wild), hidden, tame)))
    return lax.complex(*out)


def _parts(test: Callable[[Any], Any], join: Callable[[Any, Any], Any], exact: bool) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        if x.dtype.kind == "c":
            return join(test(lax.real(x)), test(lax.imag(x)))
        return test(x) if is_float(x) else lax.full(x.shape, exact, np.bool_)

    return call


kernels["isnan"] = _parts(isnan, lax.bitwise_or, False)
kernels["isinf"] = _parts(lambda x: lax.eq(lax.abs(x), const(np.inf, x)), lax.bitwise_or, False)
kernels["isfinite"] = _parts(lax.is_finite, lax.bitwise_and, True)


@kernel
def signbit(x: Any) -> Any:
    if is_float(x):
        x = lax.bitcast_convert_type(x, f"int{x.dtype.itemsize * 8}")
    return lax.lt(x, const(0, x))


def _bool_or(on_bool: Callable[..., Any], f: Callable[..., Any]) -> Callable[..., Any]:
    return binary(lambda x, y: (on_bool if x.dtype.kind == "b" else f)(x, y))


for _name in "sub div atan2 eq ne lt le gt ge shift_left nextafter".split():
    kernels[_name] = binary(getattr(lax, _name))
for _name, _f in {"and": lax.bitwise_and, "or": lax.bitwise_or, "xor": lax.bitwise_xor}.items():
    kernels["logical_" + _name] = kernels["bitwise_" + _name] = binary(_f)
kernels |= {
    "add": _bool_or(lax.bitwise_or, lax.add), "mul": _bool_or(lax.bitwise_and, lax.mul),
    "maximum": _bool_or(lax.bitwise_or, lax.max), "minimum": _bool_or(lax.bitwise_and, lax.min),
    "shift_right": binary(lambda x, y: (lax.shift_right_arithmetic if x.dtype.kind == "i" else lax.shift_right_logical)(x, y)),
}  # fmt: skip


def _divmod(x: Any, y: Any) -> tuple[Any, Any]:
    """Floored quotient and remainder, as Python and NumPy define them; integers give 0, 0 for a divisor of 0."""
    zero = const(0, x)
    if not is_float(x):
        none = lax.eq(y, zero)
        y = lax.select(none, const(1, y), y)
        q, r = lax.div(x, y), lax.rem(x, y)
        if x.dtype.kind == "i":
            off = lax.bitwise_and(lax.ne(r, zero), lax.ne(lax.lt(r, zero), lax.lt(y, zero)))
            q, r = lax.select(off, lax.sub(q, const(1, q)), q), lax.select(off, lax.add(r, y), r)
        return lax.select(none, zero, q), lax.select(none, zero, r)
    r = lax.rem(x, y)
    q = lax.div(lax.sub(x, r), y)
    off = lax.bitwise_and(lax.ne(r, zero), lax.ne(lax.lt(r, zero), lax.lt(y, zero)))
    q = lax.select(off, lax.sub(q, const(1, q)), q)
    r = lax.select(off, lax.add(r, y), lax.select(lax.eq(r, zero), kernels["copysign"](zero, y), r))
    down = lax.floor(q)
    q = lax.select(lax.gt(lax.sub(q, down), const(0.5, q)), lax.add(down, const(1, q)), down)
    q = lax.select(lax.eq(q, zero), kernels["copysign"](zero, lax.div(x, y)), q)
    inf = const(np.inf, x)
    infinite = lax.bitwise_or(lax.eq(lax.abs(x), inf), lax.eq(lax.abs(y), inf))  # the floor of the quotient, as the Array API prefers
    return lax.select(lax.eq(y, zero), lax.div(x, y), lax.select(infinite, lax.floor(lax.div(x, y)), q)), r


kernels["floor_divide"] = binary(wide(lambda x, y: _divmod(x, y)[0]))
kernels["remainder"] = binary(wide(lambda x, y: _divmod(x, y)[1]))


@kernel
@binary
def pow_(x: Any, y: Any) -> Any:
    if is_float(x):
        return wide(lax.pow)(x, y)
    if x.dtype.kind == "c":
        return _complex_pow(x, y)
    zero, one = const(0, x), const(1, x)
    negative = lax.lt(y, zero)

    def step(s: Any) -> Any:  # square and multiply, wrapping as integer products do
        out, base, e = s
        out = lax.select(lax.ne(lax.bitwise_and(e, one), zero), lax.mul(out, base), out)
        return out, lax.mul(base, base), lax.shift_right_logical(e, one)

    def more(s: Any) -> Any:
        return lax.reduce_or(lax.ne(s[2], zero), tuple(range(len(x.shape))))

    return lax.select(negative, zero, lax.while_loop(more, step, (one, x, lax.select(negative, zero, y)))[0])


def _ignore_nan(f: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, y: Any) -> Any:
        if not is_float(x):
            return f(x, y)
        return lax.select(isnan(x), y, lax.select(isnan(y), x, f(x, y)))

    return call


kernels["fmax"] = binary(_ignore_nan(kernels["maximum"]))
kernels["fmin"] = binary(_ignore_nan(kernels["minimum"]))


@kernel
@binary
@wide
def hypot(x: Any, y: Any) -> Any:
    if x.dtype.itemsize == 4:  # double has room for the squares, and rounds once
        x, y = to(x, np.float64), to(y, np.float64)
        out = to(lax.sqrt(lax.add(lax.mul(x, x), lax.mul(y, y))), np.float32)
        x, y = to(x, np.float32), to(y, np.float32)
    else:
        out = lax.abs(lax.complex(x, y))
    inf = const(np.inf, x)
    return lax.select(lax.bitwise_or(lax.eq(lax.abs(x), inf), lax.eq(lax.abs(y), inf)), inf, out)


@kernel
@binary
@wide
def logaddexp(x: Any, y: Any) -> Any:
    apart = lax.add(lax.max(x, y), lax.log1p(lax.exp(lax.neg(lax.abs(lax.sub(x, y))))))
    return lax.select(lax.eq(x, y), lax.add(x, const(math.log(2), x)), apart)


@kernel
@binary
def copysign(x: Any, y: Any) -> Any:
    return lax.select(lax.ne(signbit(x), signbit(y)), lax.neg(x), x)


@kernel
@binary
def xlogy(x: Any, y: Any) -> Any:
    zero = lax.eq(x, const(0, x))
    return lax.select(lax.bitwise_and(zero, lax.eq(y, y)), const(0, x), lax.mul(x, lax.log(y)))


@kernel
@binary
def where(cond: Any, x: Any, y: Any) -> Any:
    return lax.select(cond, x, y)


@kernel
@binary
def clip(x: Any, lo: Any, hi: Any) -> Any:
    return lax.min(lax.max(x, lo), hi)


@kernel
def cast(x: Any, *, dtype: Any) -> Any:
    if dtype.kind == "bool":
        return x if x.dtype.kind == "b" else lax.ne(x, const(0, x))
    if x.dtype.kind == "c" and not dtype.is_complex:
        x = lax.real(x)
    return to(x, dtype.numpy)  # XLA saturates and sends NaN to 0


@kernel
def bitcast(x: Any, *, dtype: Any) -> Any:
    return lax.bitcast_convert_type(x, dtype.numpy)


@kernel
def threefry2x32(k0: Any, k1: Any, x0: Any, x1: Any) -> Any:
    words = spread(k0, k1, x0, x1)
    if words[0].size < 16:
        return tuple(threefry2x32_p.bind(*words))
    rounds: Any = table["threefry2x32"].decompose
    return rounds(None, *words)  # which XLA fuses with what reads it; jax's own is a subroutine, so the many draws of keys are compiled once


def plus_zero(x: Any) -> Any:
    """x + 0.0 for a constant 0.0, which XLA would drop and keep -0.0."""
    zero = const(0, x)
    return lax.select(lax.eq(x, zero), zero, x)


# ---- creation -------------------------------------------------------------------------------------------------------------------------
@kernel
def full(*, shape: tuple[int, ...], value: Any, dtype: Any) -> Any:
    return lax.full(shape, np.asarray(value, dtype.numpy)[()], dtype.numpy)


@kernel
def iota(*, size: int, dtype: Any) -> Any:
    return lax.iota(dtype.numpy, size)


# ---- reductions -----------------------------------------------------------------------------------------------------------------------
def _keep(out: Any, x: Any, axis: Sequence[int], keepdims: bool) -> Any:
    return lax.reshape(out, tuple(1 if i in axis else s for i, s in enumerate(x.shape))) if keepdims else out


def _reduce(f: Callable[..., Any], on_bool: Callable[..., Any] | None = None) -> Callable[..., Any]:
    def call(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
        return _keep((on_bool if on_bool and x.dtype.kind == "b" else f)(x, axis), x, axis, keepdims)

    return call


def _ordered(f: Callable[..., Any], start: float, whole: Callable[..., Any]) -> Callable[..., Any]:
    """The largest or the smallest number, nan where one is among them: XLA's own reduction of thousands of numbers on a CPU (jax 0.10) loses it. Axes
    side by side are one, since XLA is slow to reduce several by a function that it does not know."""

    def step(x: Any, y: Any) -> Any:
        return lax.select(lax.ne(x, x), x, f(x, y))

    def call(x: Any, axis: Sequence[int]) -> Any:
        if x.dtype.kind not in "fV":  # bfloat16 is of kind V
            return whole(x, axis)
        groups: list[list[int]] = []
        for i in range(x.ndim):
            near = bool(groups) and (i in axis) == (groups[-1][0] in axis)
            groups = [*groups[:-1], [*groups[-1], i]] if near else [*groups, [i]]
        merged = lax.reshape(x, [math.prod(x.shape[i] for i in g) for g in groups])
        out = lax.reduce(merged, np.asarray(start, x.dtype), step, [k for k, g in enumerate(groups) if g[0] in axis])
        return lax.reshape(out, [n for i, n in enumerate(x.shape) if i not in axis])

    return call


for _name, _f, _g in (
    ("sum", lax.reduce_sum, None), ("prod", lax.reduce_prod, None), ("any", lax.reduce_or, None), ("all", lax.reduce_and, None),
    ("max", _ordered(lax.max, -np.inf, lax.reduce_max), lax.reduce_or), ("min", _ordered(lax.min, np.inf, lax.reduce_min), lax.reduce_and),
):  # fmt: skip
    kernels[_name] = wide(_reduce(_f, _g)) if _name in ("sum", "prod") else _reduce(_f, _g)


def _exponentials(x: Any, axis: tuple[int, ...], evenly: bool = True) -> tuple[Any, Any, Any]:
    """(exp(x - max), its sum, the max), axes kept in the latter two; evenly: a row with +inf gives it all, evenly (else its sum is inf).

    Between the largest finite numbers inf - inf never arises. That is arithmetic alone, which XLA fuses with the reductions; a select would not be.
    """
    limit = np.finfo(x.dtype).max
    high = _keep(lax.reduce_max(x, axis), x, axis, True)
    low = lax.min(lax.max(high, const(-limit, high)), const(limit, high))
    e = lax.exp(lax.sub(lax.min(x, const(limit, x)) if evenly else x, shape_to(low, x.shape)))
    return e, _keep(lax.reduce_sum(e, axis), x, axis, True), high


@kernel
@wide
def logsumexp(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    if 0 in x.shape:
        return _keep(lax.log(lax.reduce_sum(lax.exp(x), axis)), x, axis, keepdims)
    _, total, high = _exponentials(x, axis, evenly=False)
    out = lax.add(lax.log(total), high)
    return out if keepdims else lax.squeeze(out, axis)


def _or_one(total: Any) -> Any:
    return lax.select(lax.eq(total, const(0, total)), const(1, total), total)


@kernel
@wide
def softmax(x: Any, *, axis: int) -> Any:
    if 0 in x.shape:
        return x
    e, total, _ = _exponentials(x, (axis,))
    return lax.div(e, shape_to(_or_one(total), x.shape))


@kernel
@wide
def log_softmax(x: Any, *, axis: int) -> Any:
    if 0 in x.shape:
        return x
    _, total, high = _exponentials(x, (axis,))
    top = shape_to(lax.select(lax.eq(high, const(-np.inf, high)), const(0, high), high), x.shape)
    d = lax.select(lax.eq(x, top), const(0, x), lax.sub(x, top))
    total = lax.select(lax.eq(total, const(np.inf, total)), const(np.nan, total), total)  # from a nan that XLA's `minimum` on a CPU took for a number
    return lax.sub(d, shape_to(lax.log(_or_one(total)), x.shape))


def _arg(f: Callable[..., Any]) -> Callable[..., Any]:
    """The extreme first, then the least position that holds it: an eighth of the time of XLA's variadic reduction on a CPU."""

    def call(x: Any, *, axis: int, keepdims: bool) -> Any:
        if x.dtype.kind == "b":
            x = to(x, np.int8)
        best = shape_to(_keep(f(x, (axis,)), x, (axis,), True), x.shape)
        n = x.shape[axis]
        place = lax.broadcasted_iota(_small_int(2 * n), x.shape, axis)
        if is_float(x):  # a nan comes before what XLA's reduction, which may lose it, takes for the best
            far = lax.select(lax.eq(x, best), lax.add(place, const(n, place)), const(2 * n, place))
            out = lax.reduce_min(lax.select(isnan(x), place, far), (axis,))
            out = lax.select(lax.ge(out, const(n, out)), lax.sub(out, const(n, out)), out)
        else:
            out = lax.reduce_min(lax.select(lax.eq(x, best), place, const(n, place)), (axis,))
        return _keep(to(out, I64), x, (axis,), keepdims)

    return call


def _small_int(n: int) -> np.dtype:
    return I32 if n < 2**31 - 1 else I64


kernels["argmax"] = _arg(lax.reduce_max)
kernels["argmin"] = _arg(lax.reduce_min)


def _cumulative(f: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, *, axis: int, reverse: bool) -> Any:
        if x.dtype.kind == "b":
            return to(f(to(x, np.uint8), axis=axis, reverse=reverse), np.bool_)
        return f(x, axis=axis, reverse=reverse)

    return call


for _name in "cumsum cumprod cummax cummin cumlogsumexp".split():
    kernels[_name] = wide(_cumulative(getattr(lax, _name)))


@kernel
def argsort(x: Any, *, axis: int, descending: bool) -> Any:
    if x.dtype.kind == "b":
        x = to(x, np.uint8)
    n = x.shape[axis]
    if descending:  # sorted backwards and read backwards: equal elements stay in order, and NaN comes first
        x = lax.rev(x, (axis,))
    place = lax.broadcasted_iota(_small_int(n), x.shape, axis)
    _, place = lax.sort((x, place), dimension=axis, is_stable=True, num_keys=1)
    if descending:
        place = lax.sub(const(n - 1, place), lax.rev(place, (axis,)))
    return to(place, I64)


# ---- structure ------------------------------------------------------------------------------------------------------------------------
kernels["barrier"] = lambda x, after: lax.optimization_barrier((x, after))[0]
kernels["reshape"] = lambda x, *, shape: lax.reshape(x, shape)
kernels["permute"] = lambda x, *, axes: lax.transpose(x, axes)
kernels["broadcast_to"] = lambda x, *, shape: shape_to(x, shape)
kernels["flip"] = lambda x, *, axes: lax.rev(x, axes)
kernels["concat"] = lambda *xs, axis: lax.concatenate(xs, axis)
kernels["slice"] = lambda x, *, start, stop, step: lax.slice(x, start, tuple(map(max, start, stop)), step)


def pad_with(x: Any, value: Any, *, widths: tuple[tuple[int, int], ...]) -> Any:
    """`pad` with the fill as a 0-d array."""
    return lax.pad(x, value, [(lo, hi, 0) for lo, hi in widths])


@kernel
def pad(x: Any, *, widths: tuple[tuple[int, int], ...], value: Any) -> Any:
    return pad_with(x, np.asarray(value, x.dtype)[()], widths=widths)


@kernel
def unslice(x: Any, *, shape: tuple[int, ...], start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]) -> Any:
    if 0 in x.shape:
        return lax.full(shape, 0, x.dtype)
    config = [(a, size - a - (n - 1) * s - 1, s - 1) for n, size, a, s in zip(x.shape, shape, start, step, strict=True)]
    return lax.pad(x, np.zeros((), x.dtype)[()], config)


def _triangle(compare: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, *, k: int) -> Any:
        row, col = (lax.broadcasted_iota(I32, x.shape[-2:], i) for i in (0, 1))
        return lax.select(shape_to(compare(col, lax.add(row, const(k, row))), x.shape), x, const(0, x))

    return call


kernels["tril"] = _triangle(lax.le)
kernels["triu"] = _triangle(lax.ge)
