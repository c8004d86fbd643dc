"""The elementwise array functions: one table from public names to primitives, and the few that need more than their primitive.

Operands are Tensors, Python numbers (weak: they never widen a dtype) or NumPy arrays; shapes broadcast as in NumPy; two tensors share the promoted
dtype. Raises ValueError for shapes that do not broadcast, TypeError for a dtype the function does not take, RuntimeError for two backends.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

from minidl import later
from minidl.errors import refused
from minidl.ops.common import Tensor, cast, dtypes, eager_on_cpu, fresh, ns, operand, scalar_type, shown, values

_FLOAT, _SAME, _BOOL = "Integers become the default float.", "The dtype stays.", "The result is bool."

#: public name -> (primitive, what it computes, what happens to the dtype)
_TABLE: dict[str, tuple[str, str, str]] = {}


def _rows(note: str, **rows: str) -> None:
    for name, text in rows.items():
        primitive, _, what = text.partition("|")
        _TABLE[name] = (primitive, what, note) if primitive.isidentifier() else (name, text, note)


_rows(
    _FLOAT,
    exp="e to the power x", expm1="exp(x) - 1, accurate near 0", log="The natural logarithm", log1p="log(1 + x), accurate near 0",
    log2="The logarithm to base 2", log10="The logarithm to base 10", sqrt="The square root", rsqrt="1 / sqrt(x)", sin="The sine", cos="The cosine",
    tan="The tangent", asin="The inverse sine", acos="The inverse cosine", atan="The inverse tangent", sinh="The hyperbolic sine",
    cosh="The hyperbolic cosine", tanh="The hyperbolic tangent", asinh="The inverse hyperbolic sine", acosh="The inverse hyperbolic cosine",
    atanh="The inverse hyperbolic tangent", sigmoid="1 / (1 + exp(-x))", softplus="log(1 + exp(x))", erf="The error function",
    erfc="1 - erf(x)", erfinv="The inverse of erf",
    divide="div|x / y", atan2="The angle of the point (y, x), first argument the ordinate", hypot="sqrt(x**2 + y**2) without overflow",
    logaddexp="log(exp(x) + exp(y)) without overflow", copysign="The size of x with the sign of y", nextafter="The next number after x towards y",
    xlogy="x * log(y), 0 where both are 0",
)  # fmt: skip
_rows(
    _SAME,
    negative="neg|-x", sign="The sign of x: -1, 0 or 1; x / abs(x) for complex x", square="x * x", relu="max(x, 0), with derivative 0 at 0",
    floor="The largest integer not above x", ceil="The smallest integer not below x", round="The nearest integer, halves to even",
    trunc="The integer part", conj="The complex conjugate", add="x + y", subtract="sub|x - y", multiply="mul|x * y",
    floor_divide="floor(x / y); 0 for an integer division by 0", remainder="x - floor(x / y) * y; 0 for an integer division by 0",
    maximum="The larger one; nan if either is; a tie shares the gradient", minimum="The smaller one; nan if either is; a tie shares the gradient",
    fmax="The larger one, ignoring nan", fmin="The smaller one, ignoring nan",
    bitwise_invert="~x", bitwise_and="x & y", bitwise_or="x | y", bitwise_xor="x ^ y", bitwise_left_shift="shift_left|x << y",
    bitwise_right_shift="shift_right|x >> y, arithmetic for signed integers",
    abs="The absolute value, with derivative 0 at 0; real for complex x", real="The real part", imag="The imaginary part",
)  # fmt: skip
_rows(
    _BOOL,
    isnan="Whether x is nan", isinf="Whether x is infinite", isfinite="Whether x is neither infinite nor nan", signbit="Whether the sign bit is set",
    logical_not="not x", logical_and="x and y", logical_or="x or y", logical_xor="Either x or y", equal="eq|x == y", not_equal="ne|x != y",
    less="lt|x < y", less_equal="le|x <= y", greater="gt|x > y", greater_equal="ge|x >= y",
)  # fmt: skip

#: public name -> "arguments = result", which the docstring shows; floats to four places
_EXAMPLES: dict[str, str] = {}
_EXAMPLES.update(
    exp="1.0 = 2.7183", expm1="0.001 = 0.001", log="10.0 = 2.3026", log1p="1.0 = 0.6931", log2="8.0 = 3.0", log10="1000.0 = 3.0",
    sqrt="2.0 = 1.4142", rsqrt="4.0 = 0.5", sin="1.0 = 0.8415", cos="1.0 = 0.5403", tan="1.0 = 1.5574", asin="1.0 = 1.5708", acos="0.0 = 1.5708",
    atan="1.0 = 0.7854", sinh="1.0 = 1.1752", cosh="1.0 = 1.5431", tanh="1.0 = 0.7616", asinh="1.0 = 0.8814", acosh="2.0 = 1.317",
    atanh="0.5 = 0.5493", sigmoid="1.0 = 0.7311", softplus="0.0 = 0.6931", erf="1.0 = 0.8427", erfc="1.0 = 0.1573", erfinv="0.5 = 0.4769",
    divide="7, 2 = 3.5", atan2="1.0, -1.0 = 2.3562", hypot="3.0, 4.0 = 5.0",
    logaddexp="1000.0, 1000.0 = 1000.6932", copysign="2.0, -1.0 = -2.0", nextafter="1.0, 2.0 = 1.0000001192092896", xlogy="2.0, 3.0 = 2.1972",
    negative="3 = -3", sign="-2.5 = -1.0", square="-3 = 9", relu="-2.0 = 0.0", floor="-1.5 = -2.0", ceil="-1.5 = -1.0", round="2.5 = 2.0",
    trunc="-1.5 = -1.0", conj="1 + 2j = (1-2j)", add="2, 3 = 5", subtract="2, 3 = -1", multiply="2, 3 = 6", floor_divide="-7, 2 = -4",
    remainder="-7, 2 = 1", maximum="2, 3 = 3", minimum="2, 3 = 2", fmax="2.0, 1.0 = 2.0", fmin="2.0, 1.0 = 1.0", bitwise_invert="5 = -6",
    bitwise_and="6, 3 = 2", bitwise_or="6, 3 = 7", bitwise_xor="6, 3 = 5", bitwise_left_shift="1, 4 = 16", bitwise_right_shift="-8, 1 = -4",
    abs="3 + 4j = 5.0", real="3 + 4j = 3.0", imag="3 + 4j = 4.0", isnan="0.0 = False", isinf="float('inf') = True", isfinite="1.0 = True",
    signbit="-0.0 = True", logical_not="True = False", logical_and="True, False = False", logical_or="True, False = True",
    logical_xor="True, True = False", equal="2, 2.0 = True", not_equal="2, 3 = True", less="2, 3 = True", less_equal="3, 3 = True",
    greater="2, 3 = False", greater_equal="3, 3 = True",
)  # fmt: skip


def _example(name: str, exact: bool) -> str:
    arguments, result = _EXAMPLES[name].split(" = ")
    call = f"md.{name}({', '.join(f'md.tensor({a})' for a in arguments.split(', '))}).item()"
    return f">>> {call if exact else f'round({call}, 4)'}\n{result}"


for _name, (_primitive, _what, _note) in _TABLE.items():
    _function = getattr(ns, _primitive)
    _function.__name__ = _function.__qualname__ = _name
    _function.__doc__ = f"{_what}, element by element. {_note}\n\n{_example(_name, _note is not _FLOAT or _name == 'nextafter')}\n"
    _function.__module__ = __name__
    globals()[_name] = _function

__all__ = [*_TABLE, "astype", "clip", "positive", "pow", "reciprocal", "where"]


def pow(x: Any, y: Any, /) -> Tensor:
    """x ** y, element by element; squares and square roots take their own primitives.

    Raises ValueError for an integer with a negative integer exponent, where the values can be looked at; elsewhere such elements are 0.

    >>> md.pow(md.tensor(3.0), 2).item()
    9.0
    """
    try:
        kind = y.__class__
        if (kind is int or kind is float) and isinstance(x, Tensor):
            if y == 2 and x.dtype is not dtypes.bool_ and (kind is int or x.dtype.inexact):
                return ns.square(x)
            if y == 0.5:
                return ns.sqrt(x)
        if not (isinstance(x, Tensor) and x.dtype.inexact):
            _check_exponent(x, y)
        return ns.pow(x, y)
    except Exception as error:
        raise refused(pow, error, x, y) from None


_NEGATIVE = "pow: an integer to a negative integer power is no integer; convert the base with .to(md.float32)"


def _check_exponent(x: Any, y: Any) -> None:
    integer = scalar_type(x) in (int, bool) if not isinstance(x, Tensor) else not x.dtype.inexact
    if not integer:
        return
    if scalar_type(y) is int:
        negative = y < 0
    else:
        negative = False
        if isinstance(y, Tensor) and y.dtype.kind == "int":
            if eager_on_cpu(y):
                negative = bool((values(y, "pow") < 0).any())
            elif later.policy() == "raise-later":
                later.expect(ns.lt(y, 0), ValueError, _NEGATIVE)
    if negative:
        raise ValueError(_NEGATIVE)


def reciprocal(x: Any, /) -> Tensor:
    """1 / x, element by element. Integers become the default float.

    >>> md.reciprocal(md.tensor(4)).item()
    0.25
    """
    return ns.div(1, x)


def positive(x: Any, /) -> Tensor:
    """+x: the same values as a tensor of its own.

    >>> md.positive(md.tensor(-2.0)).item()
    -2.0
    """
    return fresh(operand(x))


def where(condition: Any, x: Any = None, y: Any = None, /) -> Any:
    """x where the condition holds and y elsewhere; the three broadcast, x and y share the promoted dtype. Of a condition alone: md.nonzero.

    A derivative of nan or inf in the branch not taken still spoils the sum: make the argument harmless first (the "double where").

    >>> md.where(md.tensor(True), 1.0, 2.0).item()
    1.0
    """
    try:
        if not isinstance(condition, Tensor):
            condition = operand(condition, x if isinstance(x, Tensor) else y if isinstance(y, Tensor) else None)
        return ns.where(condition, x, y)
    except Exception as error:
        if x is None and y is None:
            return importlib.import_module("minidl").nonzero(condition)  # which a room above the core has
        raise refused(where, error, condition, x, y) from None


def clip(x: Any, /, min: Any = None, max: Any = None) -> Tensor:
    """minimum(maximum(x, min), max). Python-number bounds are constants, at which the derivative is 0; at tensor bounds a tie is shared.
    Raises TypeError for complex numbers.

    >>> md.clip(md.tensor(5.0), 0, 1).item()
    1.0
    """
    try:
        x = operand(x)
        if (min is None or scalar_type(min)) and (max is None or scalar_type(max)):
            if min is None and max is None:
                return fresh(x)
            if complex in (scalar_type(min), scalar_type(max)):
                raise TypeError(f"clip: the bounds are real numbers, not {shown(min)} and {shown(max)}")
            if x.dtype is dtypes.bool_ and {type(b) for b in (min, max)} <= {bool, type(None)}:
                x = x if min is None else ns.maximum(x, min)
                return x if max is None else ns.minimum(x, max)
            if x.dtype.inexact or isinstance(min, float) or isinstance(max, float):
                return ns.clip(x, -math.inf if min is None else min, math.inf if max is None else max)
            bits = 64 if x.dtype is dtypes.bool_ else x.dtype.bits
            lowest = 0 if x.dtype.kind == "uint" else -(2 ** (bits - 1))
            highest = lowest + 2**bits - 1
            lo = lowest if min is None or min < lowest else int(min)
            hi = highest if max is None or max > highest else int(max)
            return ns.clip(x, lo, hi)
        if min is not None:
            x = ns.maximum(x, min)
        return x if max is None else ns.minimum(x, max)
    except Exception as error:
        raise refused(clip, error, x, min, max) from None


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: str | None = None) -> Tensor:
    """x in another dtype, on the same device or another. float to integer saturates and takes nan to 0; complex to real takes the real part;
    to bool is x != 0.

    >>> md.astype(md.tensor(2.7), "int32").item()
    2
    """
    x, dtype = operand(x), dtypes.canonical(dtype)
    out = cast(x if device is None else x.to(device=device), dtype)
    return fresh(x) if out is x and copy else out
