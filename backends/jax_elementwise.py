"""The primitives as plain lax code, one function each with the table's signature: functions of single elements.

Promises: no function here starts a compilation, touches a setting of JAX or looks at a device; dtypes come out as the table says, given that
64-bit types are on (the caller's business); values keep minidl's conventions where XLA's own differ (integer division by zero, NaN in
casts and maxima, ties, rows of -inf). float16 and bfloat16 are computed in float32 wherever rounding would add up. XLA may multiply by the
reciprocal of a divisor that it broadcasts (off by at most one more ulp).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jax import lax

from minidl.backends import complex_values
from minidl.backends.jax_helpers import binary, const, is_float, isnan, kernel, kernels, to, wide

_f: Callable[..., Any]


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


def _atan2(y: Any, x: Any) -> Any:
    """lax.atan2, but of two subnormal numbers, of which XLA makes zeros and so nan: their bits as integers lie at the same angle."""
    if y.dtype.itemsize == 2:
        return lax.atan2(y, x)
    bits = [lax.bitcast_convert_type(v, f"int{v.dtype.itemsize * 8}") for v in (y, x)]
    sizes = [lax.bitwise_and(b, const(np.iinfo(b.dtype).max, b)) for b in bits]
    small = lax.lt(lax.bitwise_or(*sizes), const(1 << np.finfo(y.dtype).nmant, sizes[0]))
    whole = [(s := to(n, y.dtype), lax.neg(s)) for n in sizes]
    far = [lax.select(lax.lt(b, const(0, b)), *s[::-1]) for b, s in zip(bits, whole, strict=True)]
    return lax.atan2(*(lax.select(small, a, b) for a, b in zip(far, (y, x), strict=True)))


_TOOLS = {n: getattr(lax, {"absolute": "abs", "negative": "neg"}.get(n, n)) for n in "absolute negative sin cos log log1p".split()}
_TOOLS |= {
    "atan2": _atan2,
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


_sign_parts = complex_values.bound(_TOOLS)["sign"]
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


@kernel
def relu(x: Any) -> Any:
    return lax.select(lax.le(x, const(0, x)), const(0, x), x)  # see _extreme


@kernel
@wide
def softplus(x: Any) -> Any:
    return lax.add(lax.max(x, const(0, x)), lax.log1p(lax.exp(lax.neg(lax.abs(x)))))


@kernel
def sign(x: Any) -> Any:
    out = lax.select(lax.eq(x, const(0, x)), const(0, x), lax.sign(x))  # sign(-0.) is +0, as in NumPy
    return lax.complex(*_sign_parts(*_split(out), *_split(x))) if x.dtype.kind == "c" else out


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


kernels["atan2"] = binary(_atan2)
for _name in "sub div eq ne lt le gt ge shift_left nextafter".split():
    kernels[_name] = binary(getattr(lax, _name))
for _name, _f in {"and": lax.bitwise_and, "or": lax.bitwise_or, "xor": lax.bitwise_xor}.items():
    kernels["logical_" + _name] = kernels["bitwise_" + _name] = binary(_f)


def _extreme(f: Callable[..., Any], behind: Callable[..., Any]) -> Callable[..., Any]:
    """By comparisons: a sum or maximum that XLA fuses with its own `maximum` or `minimum` on a CPU loses a nan. (In this order as quick as those.)"""
    return lambda x, y: lax.select(lax.bitwise_and(lax.bitwise_not(behind(x, y)), lax.eq(y, y)), x, y) if is_float(x) else f(x, y)


_larger, _smaller = _extreme(lax.max, lax.lt), _extreme(lax.min, lax.gt)
kernels |= {
    "add": _bool_or(lax.bitwise_or, lax.add), "mul": _bool_or(lax.bitwise_and, lax.mul),
    "maximum": _bool_or(lax.bitwise_or, _larger), "minimum": _bool_or(lax.bitwise_and, _smaller),
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
    return _smaller(_larger(x, lo), hi)


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


def plus_zero(x: Any) -> Any:
    """x + 0.0 for a constant 0.0, which XLA would drop and keep -0.0."""
    zero = const(0, x)
    return lax.select(lax.eq(x, zero), zero, x)
