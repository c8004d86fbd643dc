"""Primitives that ONNX does not have, or not for every number, as several operations that it has.

Promises: what the primitive gives also for zeros of both signs, infinities and nan, and digits kept near the ends of a range; division of integers
by 0 gives 0, where a runtime ends the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.deploy.onnx_writer import Writer

COMPOSITIONS: dict[str, Callable[..., Any]] = {}


def number(w: Writer, e: Any, value: float) -> str:
    """A number in the dtype of an equation's first input."""
    return w.scalar(value, e.inputs[0].dtype)


def _operation(f: Callable[..., Any]) -> Callable[..., Any]:
    """Note a function under its name, without the underscores."""
    COMPOSITIONS[f.__name__.strip("_")] = f
    return f


# ---- powers and logarithms ------------------------------------------------------------------------------------------------------------------
@_operation
def _rsqrt(w: Writer, e: Any, x: str) -> str:
    return w.node("Reciprocal", w.node("Sqrt", x))


@_operation
def _expm1(w: Writer, e: Any, x: str) -> str:
    """tanh(x / 2) (exp(x) + 1), which keeps its digits near 0; the other form where that is inf."""
    half = w.node("Tanh", w.node("Mul", x, number(w, e, 0.5)))
    grown = w.node("Exp", x)
    near = w.node("Mul", half, w.node("Add", grown, number(w, e, 1)))
    return w.node("Where", w.node("Less", w.node("Abs", x), number(w, e, 1)), near, w.node("Sub", grown, number(w, e, 1)))


@_operation
def _log1p(w: Writer, e: Any, x: str) -> str:
    """log(u) x / (u - 1) with u = 1 + x as rounded: the digits that u lost come back (W. Kahan's form)."""
    one = number(w, e, 1)
    u = w.node("Add", x, one)
    lost = w.node("Mul", w.node("Log", u), w.node("Div", x, w.node("Sub", u, one)))
    large = w.node("Greater", u, w.scalar(float(np.finfo(e.inputs[0].dtype.numpy).max) / 4, e.inputs[0].dtype))
    return w.node("Where", w.node("Equal", u, one), x, w.node("Where", large, w.node("Log", u), lost))


@_operation
def _log2(w: Writer, e: Any, x: str) -> str:
    return w.node("Mul", w.node("Log", x), number(w, e, 1 / math.log(2)))


@_operation
def _log10(w: Writer, e: Any, x: str) -> str:
    return w.node("Mul", w.node("Log", x), number(w, e, 1 / math.log(10)))


@_operation
def _logaddexp(w: Writer, e: Any, x: str, y: str) -> str:
    """The larger one and log(1 + exp(-distance)); equal infinities have no distance."""
    same = w.node("Equal", x, y)
    distance = w.node("Where", same, number(w, e, 0), w.node("Abs", w.node("Sub", x, y)))
    larger = w.node("Where", w.node("Greater", x, y), x, y)
    return w.node("Add", larger, _log1p(w, e, w.node("Exp", w.node("Neg", distance))))


@_operation
def _softplus(w: Writer, e: Any, x: str) -> str:
    """Softplus, which overflows in float16 and float64 where exp does."""
    return w.node("Softplus", x) if e.inputs[0].dtype.bits == 32 else _logaddexp(w, e, x, number(w, e, 0))


@_operation
def _xlogy(w: Writer, e: Any, x: str, y: str) -> str:
    zero = w.node("And", w.node("Equal", x, number(w, e, 0)), w.node("Equal", y, y))
    return w.node("Where", zero, number(w, e, 0), w.node("Mul", x, w.node("Log", y)))


@_operation
def _gelu(w: Writer, e: Any, x: str) -> str:
    if e.params["tanh"]:
        cube = w.node("Mul", w.node("Mul", w.node("Mul", x, x), x), number(w, e, 0.044715))
        inner = w.node("Tanh", w.node("Mul", w.node("Add", x, cube), number(w, e, math.sqrt(2 / math.pi))))
    else:
        inner = w.node("Erf", w.node("Div", x, number(w, e, math.sqrt(2))))
    return w.node("Mul", w.node("Mul", x, w.node("Add", inner, number(w, e, 1))), number(w, e, 0.5))


# ---- plane figures --------------------------------------------------------------------------------------------------------------------------
def _ordered(w: Writer, x: str, y: str) -> tuple[str, str, str, str]:
    """The sizes of two numbers, whether the second is the smaller one, and the smaller and the larger size; nan is neither."""
    a, b = w.node("Abs", x), w.node("Abs", y)
    swap = w.node("Greater", a, b)
    return a, b, w.node("Where", swap, b, a), w.node("Where", swap, a, b)


@_operation
def _hypot(w: Writer, e: Any, x: str, y: str) -> str:
    """larger √(1 + (smaller / larger)²), which does not overflow before the result does."""
    a, b, low, high = _ordered(w, x, y)
    ratio = w.node("Where", w.node("Equal", high, number(w, e, 0)), low, w.node("Div", low, high))
    out = w.node("Mul", high, w.node("Sqrt", w.node("Add", w.node("Mul", ratio, ratio), number(w, e, 1))))
    endless = number(w, e, math.inf)
    return w.node("Where", w.node("Or", w.node("Equal", a, endless), w.node("Equal", b, endless)), endless, out)


@_operation
def _atan2(w: Writer, e: Any, y: str, x: str) -> str:
    """The angle in the first eighth of the circle, then mirrored at the diagonal and both axes."""
    a, b, low, high = _ordered(w, y, x)
    ratio = w.node("Where", w.node("Equal", low, high), number(w, e, 1), w.node("Div", low, high))
    ratio = w.node("Where", w.node("Equal", high, number(w, e, 0)), low, ratio)
    angle = w.node("Atan", ratio)
    angle = w.node("Where", w.node("Greater", a, b), w.node("Sub", number(w, e, math.pi / 2), angle), angle)
    angle = w.node("Where", _signbit(w, e, x), w.node("Sub", number(w, e, math.pi), angle), angle)
    return _copysign(w, e, angle, y)


# ---- parts of numbers -----------------------------------------------------------------------------------------------------------------------
@_operation
def _trunc(w: Writer, e: Any, x: str) -> str:
    return _copysign(w, e, w.node("Floor", w.node("Abs", x)), x)


@_operation
def _isnan(w: Writer, e: Any, x: str) -> str:
    return w.node("Not", w.node("Equal", x, x))


@_operation
def _isinf(w: Writer, e: Any, x: str) -> str:
    return w.node("Equal", w.node("Abs", x), number(w, e, math.inf)) if e.inputs[0].dtype.is_float else _isnan(w, e, x)


@_operation
def _isfinite(w: Writer, e: Any, x: str) -> str:
    return w.node("Less", w.node("Abs", x), number(w, e, math.inf)) if e.inputs[0].dtype.is_float else w.node("Equal", x, x)


@_operation
def _signbit(w: Writer, e: Any, x: str) -> str:
    dtype = e.inputs[0].dtype
    if dtype.kind in ("uint", "bool"):
        return _isnan(w, e, x)
    negative = w.node("Less", x, number(w, e, 0))
    return w.node("Or", negative, w.node("Less", w.node("Reciprocal", x), number(w, e, 0))) if dtype.is_float else negative


@_operation
def _copysign(w: Writer, e: Any, x: str, y: str) -> str:
    sign = w.node("Where", _signbit(w, e, y), number(w, e, -1), number(w, e, 1))
    return w.node("Mul", w.node("Abs", x), sign)  # onnxruntime's Where makes 0 of -0


# ---- comparison and division ----------------------------------------------------------------------------------------------------------------
@_operation
def _ne(w: Writer, e: Any, x: str, y: str) -> str:
    return w.node("Not", w.node("Equal", x, y))


def _divisor(w: Writer, e: Any, y: str) -> tuple[str, str]:
    """For integers: y, but 1 for 0 and -1, since a processor stops at x / 0 and at lowest / -1; and by what the quotient is multiplied: 0 and -1
    there, 1 elsewhere."""
    dtype = e.inputs[0].dtype
    zero = w.cast(w.node("Equal", y, number(w, e, 0)), dtype)
    by, sign = w.node("Add", y, zero), w.node("Sub", number(w, e, 1), zero)
    if dtype.kind == "int":
        twice = w.node("Mul", w.cast(w.node("Equal", y, number(w, e, -1)), dtype), number(w, e, 2))
        by, sign = w.node("Add", by, twice), w.node("Sub", sign, twice)
    return by, sign


@_operation
def _remainder(w: Writer, e: Any, x: str, y: str) -> str:
    zero = number(w, e, 0)
    if not e.outputs[0].dtype.is_float:
        return w.node("Mod", x, y if _known(e) else _divisor(w, e, y)[0])  # of 1 there is no rest, as of 0 and -1
    rest = w.node("Mod", x, y, fmod=1)
    other = w.node("Xor", w.node("Less", rest, zero), w.node("Less", y, zero))
    wrong = w.node("And", other, _ne(w, e, rest, zero))
    return _copysign(w, e, w.node("Where", wrong, w.node("Add", rest, y), rest), y)


@_operation
def _floor_divide(w: Writer, e: Any, x: str, y: str) -> str:
    if e.outputs[0].dtype.is_float:
        whole = w.node("Div", w.node("Sub", x, _remainder(w, e, x, y)), y)
        plain = w.node("Floor", w.node("Div", x, y))  # the other form is nan for an x or y that is inf, and for y = 0
        return w.node("Where", w.node("IsNaN", whole), plain, w.node("Round", whole))
    by, sign = (y, "") if _known(e) else _divisor(w, e, y)
    out = w.node("Div", x, by)  # toward 0
    if e.outputs[0].dtype.kind == "int":
        other = w.node("Xor", w.node("Less", x, number(w, e, 0)), w.node("Less", by, number(w, e, 0)))
        down = w.node("And", other, _ne(w, e, w.node("Mod", x, by), number(w, e, 0)))
        out = w.node("Sub", out, w.cast(down, e.outputs[0].dtype))
    return w.node("Mul", out, sign) if sign else out


def _known(e: Any) -> bool:
    """Whether an integer divisor is in the program, and one that nothing is to be feared of."""
    value = getattr(e.inputs[1], "value", 0)
    return value not in (0, -1) and not hasattr(value, "per")
