"""Elementwise primitives: each row is a name, its arguments and one partial derivative per argument.

At kinks the text says what the gradient law (minidl/testing/kinks.py) demands: 0 for abs, relu and clip, an even split for maximum and
minimum ties, 0 where a finite value has no other claim (atan2(0,0), hypot(0,0), xlogy(0,0)).
"""

from __future__ import annotations

import math
from typing import Any

from minidl.dtypes import DType, bool_
from minidl.primitives.core import Primitive, batch_elementwise, elementwise

SQRT_PI = math.sqrt(math.pi)


def _zero(xp: Any, g: Any, x_shape: Any, x_dtype: DType) -> Any:
    return xp.full(shape=x_shape, value=0.0, dtype=x_dtype)


def _zero_y(xp: Any, g: Any, y_shape: Any, y_dtype: DType) -> Any:
    return xp.full(shape=y_shape, value=0.0, dtype=y_dtype)


def _where0(xp: Any, dead: Any, value: Any) -> Any:
    """value, and 0 where `dead`: never 0 * inf."""
    return xp.where(dead, 0.0, value)


# ---- one argument ---------------------------------------------------------------------------------------------------------------------
def _unary(name: str, rule: Any, only: str = "inexact") -> Primitive:
    return elementwise(name, "x", rule, only=only, promote="float")


exp = _unary("exp", lambda xp, g, out: g * out)
expm1 = _unary("expm1", lambda xp, g, x: g * xp.exp(x))
log = _unary("log", lambda xp, g, x: g / x)
log1p = _unary("log1p", lambda xp, g, x: g / (x + 1.0))
log2 = _unary("log2", lambda xp, g, x: g / (x * math.log(2)))
log10 = _unary("log10", lambda xp, g, x: g / (x * math.log(10)))
sqrt = _unary("sqrt", lambda xp, g, out: g * 0.5 / out)
rsqrt = _unary("rsqrt", lambda xp, g, x, out: g * (-0.5) * out / x)
sin = _unary("sin", lambda xp, g, x: g * xp.cos(x))
cos = _unary("cos", lambda xp, g, x: -(g * xp.sin(x)))
tan = _unary("tan", lambda xp, g, out: g * (out * out + 1.0))
asin = _unary("asin", lambda xp, g, x: g * xp.rsqrt((1.0 - x) * (x + 1.0)))
acos = _unary("acos", lambda xp, g, x: -(g * xp.rsqrt((1.0 - x) * (x + 1.0))))
atan = _unary("atan", lambda xp, g, x: g / (x * x + 1.0))
sinh = _unary("sinh", lambda xp, g, x: g * xp.cosh(x))
cosh = _unary("cosh", lambda xp, g, x: g * xp.sinh(x))
tanh = _unary("tanh", lambda xp, g, out: xp.tanh_dx(g, out))
asinh = _unary("asinh", lambda xp, g, x: g * xp.rsqrt(x * x + 1.0))
acosh = _unary("acosh", lambda xp, g, x: g * (xp.rsqrt(x - 1.0) * xp.rsqrt(x + 1.0)))
atanh = _unary("atanh", lambda xp, g, x: g / ((1.0 - x) * (x + 1.0)))
sigmoid = _unary("sigmoid", lambda xp, g, out: xp.sigmoid_dx(g, out))
softplus = _unary("softplus", lambda xp, g, x: g * xp.sigmoid(x), only="float")
erf = _unary("erf", lambda xp, g, x: g * (2 / SQRT_PI) * xp.exp(-(x * x)), only="float")
erfc = _unary("erfc", lambda xp, g, x: g * (-2 / SQRT_PI) * xp.exp(-(x * x)), only="float")
erfinv = _unary("erfinv", lambda xp, g, out: g * (SQRT_PI / 2) * xp.exp(out * out), only="float")
#: What tanh and sigmoid pass back, from their results y: one pass where a library has that.
tanh_dx = elementwise(
    "tanh_dx", "g y", lambda xp, c, y: xp.tanh_dx(c, y), lambda xp, c, g, y: c * g * (y * -2.0), only="inexact",
    decompose=lambda xp, g, y: g * (1.0 - y * y),
)  # fmt: skip
sigmoid_dx = elementwise(
    "sigmoid_dx", "g y", lambda xp, c, y: xp.sigmoid_dx(c, y), lambda xp, c, g, y: c * g * (1.0 - y * 2.0), only="inexact",
    decompose=lambda xp, g, y: g * (y * (1.0 - y)),
)  # fmt: skip
def _root_rule(xp: Any, g: Any, x: Any, out: Any, p: float) -> Any:
    dead = xp.logical_or(xp.eq(out, 0.0), xp.isinf(x)) if p > 1 and p != 2 else xp.eq(out, 0.0)
    g, out = _where0(xp, dead, g), xp.where(dead, 1.0, out)  # rather than the quotient: derivatives of this text have no 0 / 0 either
    return g * 0.5 / out if p == 2 else g / p * out / xp.where(dead, 1.0, x)


#: The p-th root of x >= 0 that ends a norm: derivative 0 at 0, the subgradient of least norm; 0 at infinity for p > 1.
root = elementwise(
    "root", "x", _root_rule, params="p", only="float", promote="float",
    decompose=lambda xp, x, p: xp.sqrt(x) if p == 2 else xp.pow(x, 1.0 / p),
)  # fmt: skip


neg = elementwise("neg", "x", lambda xp, g: -g, only="numeric")
square = elementwise("square", "x", lambda xp, g, x: g * (x * 2.0), only="numeric")
relu = elementwise("relu", "x", lambda xp, g, out: xp.relu_dx(g, out), only="ordered")
#: g where relu was positive: its derivative, in one pass where a library has that.
relu_dx = Primitive(
    "relu_dx", "g out", infer=lambda g, out: (out.shape, g.dtype), decompose=lambda xp, g, out: xp.where(out > 0, g, 0.0), joins=(0,), inline=True,
)
for _name in ("floor", "ceil", "round", "trunc"):
    elementwise(_name, "x", _zero, only="numeric" if _name == "round" else "ordered").fast = ("ordered", "dt")


def _real_of(dtype: DType) -> DType:
    return dtype.real


def _abs_vjp(xp: Any, g: Any, x: Any, x_dtype: DType) -> Any:
    return xp.cast(g, dtype=x_dtype) * xp.conj(xp.sign(x)) if x_dtype.is_complex else g * xp.sign(x)


def _abs_jvp(xp: Any, t: Any, x: Any, x_dtype: DType) -> Any:
    return xp.real(xp.conj(xp.sign(x)) * t) if x_dtype.is_complex else t * xp.sign(x)


def _sign_tangent(xp: Any, t: Any, x: Any, s: Any) -> Any:
    r = xp.abs(x)
    along = xp.cast(xp.real(t * xp.conj(s)), dtype=xp.dtype_of(s)) * s
    return _where0(xp, xp.eq(r, 0.0), (t - along) / xp.cast(r, dtype=xp.dtype_of(s)))


def _sign_vjp(xp: Any, g: Any, x: Any, out: Any, x_shape: Any, x_dtype: DType) -> Any:
    return xp.conj(_sign_tangent(xp, xp.conj(g), x, out)) if x_dtype.is_complex else _zero(xp, g, x_shape, x_dtype)


def _sign_jvp(xp: Any, t: Any, x: Any, out: Any, x_shape: Any, x_dtype: DType) -> Any:
    return _sign_tangent(xp, t, x, out) if x_dtype.is_complex else _zero(xp, t, x_shape, x_dtype)


abs = elementwise("abs", "x", _abs_vjp, jvps=(_abs_jvp,), out=_real_of, only="numeric")
sign = elementwise("sign", "x", _sign_vjp, jvps=(_sign_jvp,), only="numeric")
real = elementwise("real", "x", lambda xp, g, x_dtype: xp.cast(g, dtype=x_dtype), jvps=(lambda xp, t: xp.real(t),), out=_real_of)
imag = elementwise(
    "imag", "x", lambda xp, g, x_shape, x_dtype: xp.cast(g, dtype=x_dtype) * -1j if x_dtype.is_complex else _zero(xp, g, x_shape, x_dtype),
    jvps=(lambda xp, t: xp.imag(t),), out=_real_of,
)  # fmt: skip
conj = elementwise("conj", "x", lambda xp, g: xp.conj(g), jvps=(lambda xp, t: xp.conj(t),), only="numeric")


for _unusual in (acos, expm1, log1p, neg, sigmoid, sign, tan, tanh):  # libraries miss some complex values, so these take no straight line
    _unusual.fast = ("ordered" if _unusual in (neg, sign) else "float", "dt")


def _bool(_: DType) -> DType:
    return bool_


for _name in ("isnan", "isinf", "isfinite"):
    elementwise(_name, "x", None, out=_bool)
elementwise("signbit", "x", None, out=_bool, only="real")
elementwise("logical_not", "x", None, out=_bool, only="bool")
elementwise("bitwise_invert", "x", None, only="bits")

# ---- two arguments --------------------------------------------------------------------------------------------------------------------
add = elementwise("add", "x y", lambda xp, g: g, lambda xp, g: g)
sub = elementwise("sub", "x y", lambda xp, g: g, lambda xp, g: -g, only="numeric")
add.fast, sub.fast = ("real", "dt"), ("ordered", "dt")  # as above: torch's sums of complex infinities are NaN
mul = elementwise("mul", "x y", lambda xp, g, y: g * y, lambda xp, g, x: g * x)
div = elementwise("div", "x y", lambda xp, g, y: g / y, lambda xp, g, y, out: -(g * out) / y, promote="float", only="inexact")
floor_divide = elementwise("floor_divide", "x y", _zero, _zero_y, only="ordered")
remainder = elementwise("remainder", "x y", lambda xp, g: g, lambda xp, g, x, y: -(g * xp.floor_divide(x, y)), only="ordered")


def _pow_x(xp: Any, g: Any, x: Any, y: Any) -> Any:
    # x**0 is constant, also at 0 and at nan; there the base is made harmless, not the product cut, so that derivatives of this text hold too
    dead = xp.logical_and(xp.eq(y, 0.0), xp.logical_not(xp.abs(x) > 0.0))
    return g * y * xp.pow(xp.where(dead, 1.0, x), y - 1.0)


def _pow_y(xp: Any, g: Any, x: Any, y: Any, out: Any, x_dtype: DType) -> Any:
    dead = xp.eq(x, 0.0)
    if not x_dtype.is_complex:
        dead = xp.logical_and(dead, y >= 0.0)
    return g * out * xp.log(xp.where(dead, 1.0, x))


pow = elementwise("pow", "x y", _pow_x, _pow_y, only="numeric")


def _chosen(better: Any) -> tuple[Any, Any]:
    """Rules of maximum-like functions: all to the one that was chosen, halves at a tie."""

    def part(xp: Any, g: Any, mine: Any, other: Any) -> Any:
        tie = xp.eq(mine, other)
        return _where0(xp, xp.logical_not(xp.logical_or(tie, better(xp, mine, other))), xp.where(tie, g * 0.5, g))

    return (lambda xp, g, x, y: part(xp, g, x, y)), (lambda xp, g, x, y: part(xp, g, y, x))


def _chosen_nan(better: Any) -> tuple[Any, Any]:
    """As _chosen; a nan operand was chosen, two share."""

    def part(xp: Any, g: Any, mine: Any, other: Any) -> Any:
        nan, both = xp.isnan(mine), xp.logical_and(xp.isnan(mine), xp.isnan(other))
        tie = xp.logical_or(xp.eq(mine, other), both)
        take = xp.logical_or(tie, xp.logical_or(nan, better(xp, mine, other)))
        return xp.where(take, xp.where(tie, g * 0.5, g), 0.0)

    return (lambda xp, g, x, y: part(xp, g, x, y)), (lambda xp, g, x, y: part(xp, g, y, x))


maximum = elementwise("maximum", "x y", *_chosen_nan(lambda xp, a, b: xp.gt(a, b)), only="real")
minimum = elementwise("minimum", "x y", *_chosen_nan(lambda xp, a, b: xp.lt(a, b)), only="real")
fmax = elementwise("fmax", "x y", *_chosen(lambda xp, a, b: xp.logical_or(xp.gt(a, b), xp.isnan(b))), only="real")
fmin = elementwise("fmin", "x y", *_chosen(lambda xp, a, b: xp.logical_or(xp.lt(a, b), xp.isnan(b))), only="real")


def _over_square(xp: Any, g: Any, top: Any, x: Any, y: Any) -> Any:
    r = xp.hypot(x, y)
    far = xp.isinf(xp.maximum(xp.abs(x), xp.abs(y)))  # which nan is not, while hypot(inf, nan) is inf
    return _where0(xp, xp.logical_or(xp.eq(r, 0.0), far), g * (top / r) / r)


def _cosine(xp: Any, x: Any, y: Any) -> Any:
    r = xp.hypot(x, y)
    along = xp.logical_and(xp.isinf(x), xp.isfinite(y))
    return _where0(xp, xp.eq(r, 0.0), xp.where(along, xp.sign(x), xp.div(x, r)))


def _turned(xp: Any, g: Any, x: Any, y: Any, side: Any) -> Any:
    r = xp.hypot(x, y)
    return _where0(xp, xp.eq(r, 0.0), g * (xp.cosine(y, x) * side / r))


atan2 = elementwise(
    "atan2", "x y", lambda xp, g, x, y: _over_square(xp, g, y, x, y), lambda xp, g, x, y: -_over_square(xp, g, x, x, y),
    promote="float", only="float",
)  # fmt: skip
#: x / hypot(x, y), the cosine of the angle: a primitive of its own, because the derivative of the quotient is y² / r³ without a difference.
cosine = elementwise(
    "cosine", "x y", lambda xp, g, x, y: _turned(xp, g, x, y, xp.cosine(y, x)), lambda xp, g, x, y: -_turned(xp, g, x, y, xp.cosine(x, y)),
    promote="float", only="float", decompose=lambda xp, x, y: _cosine(xp, x, y),
)  # fmt: skip
hypot = elementwise(
    "hypot", "x y",
    lambda xp, g, x, y, out: _where0(xp, xp.eq(out, 0.0), g * xp.cosine(x, y)),
    lambda xp, g, x, y, out: _where0(xp, xp.eq(out, 0.0), g * xp.cosine(y, x)),
    promote="float", only="float",
)  # fmt: skip


def _logaddexp_part(xp: Any, g: Any, mine: Any, other: Any, out: Any) -> Any:
    tie = xp.logical_and(xp.eq(mine, other), xp.isinf(mine))  # where the difference is nan
    part = xp.where(tie, g * 0.5, g * xp.sigmoid(mine - other))
    return _where0(xp, xp.eq(out, -math.inf), part)


logaddexp = elementwise(
    "logaddexp", "x y",
    lambda xp, g, x, y, out: _logaddexp_part(xp, g, x, y, out), lambda xp, g, x, y, out: _logaddexp_part(xp, g, y, x, out),
    promote="float", only="float",
)  # fmt: skip
copysign = elementwise("copysign", "x y", lambda xp, g, x, out: g * (xp.sign(x) * xp.sign(out)), _zero_y, promote="float", only="float")
nextafter = elementwise("nextafter", "x y", lambda xp, g: g, _zero_y, promote="float", only="float")


def _both_zero(xp: Any, x: Any, y: Any) -> Any:
    return xp.logical_and(xp.eq(x, 0.0), xp.eq(y, 0.0))


xlogy = elementwise(
    "xlogy", "x y",
    lambda xp, g, x, y: _where0(xp, _both_zero(xp, x, y), g * xp.log(y)), lambda xp, g, x, y: _where0(xp, _both_zero(xp, x, y), g * (x / y)),
    promote="float", only="float",
)  # fmt: skip

for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    elementwise(_name, "x y", None, None, out=_bool, only="any" if _name in ("eq", "ne") else "real")
for _name in ("logical_and", "logical_or", "logical_xor"):
    elementwise(_name, "x y", None, None, out=_bool, only="bool")
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    elementwise(_name, "x y", None, None, only="bits")
for _name in ("shift_left", "shift_right"):
    elementwise(_name, "x y", None, None, only="integer")

# ---- three arguments ------------------------------------------------------------------------------------------------------------------
where = elementwise(
    "where", "c x y", None,
    lambda xp, g, c: xp.where(c, g, 0.0), lambda xp, g, c: xp.where(c, 0.0, g),
    joins=(1, 2), others=bool_,
)  # fmt: skip
def _clip_dx(xp: Any, g: Any, x: Any, lo: Any, hi: Any) -> Any:
    # an infinite bound bounds nothing: at an infinite x the derivative is the limit, 1
    above = xp.logical_or(xp.gt(x, lo), xp.eq(lo, -math.inf))
    below = xp.logical_or(xp.lt(x, hi), xp.eq(hi, math.inf))
    return _where0(xp, xp.logical_not(xp.logical_and(above, below)), g)


#: Bounds are constants here (Python scalars); with array bounds `md.clip` is maximum and minimum. The derivative is as relu's.
clip = elementwise("clip", "x lo hi", lambda xp, g, x, lo, hi: xp.clip_dx(g, x, lo, hi), None, None, only="real")
clip_dx = Primitive("clip_dx", "g x lo hi", infer=lambda g, x, lo, hi: (x.shape, g.dtype), decompose=_clip_dx, joins=(0,), inline=True)

# ---- conversions ----------------------------------------------------------------------------------------------------------------------
cast = Primitive(
    "cast", "x", "dtype", infer=lambda x, dtype: (x.shape, dtype), elementwise=True, promote="none", batch=batch_elementwise,
    vjps=(lambda xp, g, x_dtype: xp.cast(g, dtype=x_dtype),), jvps=(lambda xp, t, dtype: xp.cast(t, dtype=dtype),),
)  # fmt: skip


def _infer_bitcast(x: Any, dtype: DType) -> Any:
    if x.dtype.itemsize != dtype.itemsize:
        raise TypeError(f"bitcast: {x.dtype.short} to {dtype.short} changes the size of an element")
    return x.shape, dtype


bitcast = Primitive("bitcast", "x", "dtype", infer=_infer_bitcast, elementwise=True, promote="none", batch=batch_elementwise, check_first=True)
