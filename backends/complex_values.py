"""Functions of complex numbers where their parts are infinite, nan or zero: one text, which each backend binds to its own array functions.

C's Annex G, as the Array API standard repeats it, says what these values are; NumPy follows it nearly, torch less, XLA and Numba hardly, and all
but NumPy lose the signs of zeros here and there. So a function is computed in the part of the plane to which its symmetry leads every number back,
where each library is right about finite numbers; what is not finite is said here, on real and imaginary parts; and the signs are put back.

The texts use no name but those of this module and TOOLS, which `bound` replaces by a library's functions. Parts that the symmetry makes so are
not negative. Source: Python array API standard 2025.12, special cases of the elementwise functions (ISO/IEC 9899, Annex G).
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

INF, NAN, HALF_PI = math.inf, math.nan, math.pi / 2
LARGE = 1000.0  # beyond it exp overflows in every dtype
FLAT = 300.0  # beyond it tanh is 1, and libraries that divide by cosh have no value
#: What a library provides: functions of real arrays, and full(like, value).
TOOLS = ("where", "full", "signbit", "negative", "absolute", "sin", "cos", "atan2", "hypot", "log", "log1p")
_unbound: Any = None
where = full = signbit = negative = absolute = sin = cos = atan2 = hypot = log = log1p = _unbound
Part = Any
Parts = tuple[Any, Any]


# ---- what is not finite ---------------------------------------------------------------------------------------------------------------
def _turned(a: Part, b: Part) -> Parts:
    """exp(a + ib) where exp(a) is 0 or inf, or something is nan. An angle of 0 stays 0; one without a value leaves the size alone."""
    unknown, nan = (b == INF) | (b != b), full(b, NAN)
    most = where(unknown, full(a, INF), full(a, LARGE))
    r = where(a >= most, full(a, INF), where(a <= -most, full(a, 0.0), full(a, NAN)))
    real = where(unknown, r, r * cos(b))
    return real, where(b == 0, b, where(unknown, where(r == 0, r, nan), r * sin(b)))


def _expm1(a: Part, b: Part) -> Parts:
    real, imag = _turned(a, b)
    return where((a == 0) & (b == 0), full(a, 0.0), real - full(a, 1.0)), imag


def _sinh(a: Part, b: Part) -> Parts:
    real, imag = _turned(a, b)
    return where(a == 0, a, real), imag


def _cosh(a: Part, b: Part) -> Parts:
    real, imag = _turned(a, b)
    return real, where(a == 0, a, imag)


def _tanh(a: Part, b: Part) -> Parts:
    nan = full(a, NAN)
    far = a >= where(b < INF, full(a, FLAT), full(a, INF))
    return where(far, full(a, 1.0), where(a == 0, a, nan)), where(far, full(a, 0.0), where(b == 0, b, nan))


def _log(a: Part, b: Part) -> Parts:
    nan = full(a, NAN)
    real = where((absolute(a) == INF) | (b == INF), full(a, INF), nan)
    return real, where((a != a) | (b != b), nan, atan2(b, a))


def _log1p(a: Part, b: Part) -> Parts:
    real, imag = _log(a, b)
    nothing = (a == 0) & (b == 0)
    return where(nothing, full(a, 0.0), real), where(nothing, b, imag)


def _sqrt(a: Part, b: Part) -> Parts:
    zero, inf, nan = full(a, 0.0), full(a, INF), full(a, NAN)
    real = where((b == INF) | (a == INF), inf, where((a == -INF) & (b == b), zero, nan))
    return real, where((b == INF) | (a == -INF), inf, where((a == INF) & (b == b), zero, nan))


def _asinh(a: Part, b: Part) -> Parts:
    real, imag = _log(a, b)
    return real, where(b == 0, b, imag)


def _acosh(a: Part, b: Part) -> Parts:
    real, imag = _log(a, b)
    return real, where((a == 0) & (b != b), full(a, HALF_PI), imag)


def _atanh(a: Part, b: Part) -> Parts:
    zero, nan = full(a, 0.0), full(a, NAN)
    real = where((a == INF) | (b == INF) | (a == 0), zero, nan)
    return real, where((b == INF) | ((a == INF) & (b == b)), full(a, HALF_PI), nan)


def _acos(a: Part, b: Part) -> Parts:
    real, imag = _acosh(a, b)
    return imag, negative(real)


def _cos(a: Part, b: Part) -> Parts:  # cos(z) = cosh(iz), and so on
    real, imag = _cosh(b, a)
    return real, negative(imag)


def _sin(a: Part, b: Part) -> Parts:
    imag, real = _sinh(b, a)
    return real, imag


def _tan(a: Part, b: Part) -> Parts:
    imag, real = _tanh(b, a)
    return real, imag


def _asin(a: Part, b: Part) -> Parts:
    imag, real = _asinh(b, a)
    return real, imag


def _atan(a: Part, b: Part) -> Parts:
    imag, real = _atanh(b, a)
    return real, imag


def sign(real: Part, imag: Part, a: Part, b: Part) -> Parts:
    """(a + ib) / |a + ib|, which a library makes `real` and `imag` of finite parts: an infinite part hides a finite one; two hide each other."""
    wild_a, wild_b = absolute(a) == INF, absolute(b) == INF
    unknown = (a != a) | (b != b) | (wild_a & wild_b)
    return _hidden(real, a, wild_a, wild_a | wild_b, unknown), _hidden(imag, b, wild_b, wild_a | wild_b, unknown)


def _hidden(tame: Part, c: Part, own: Part, wild: Part, unknown: Part) -> Part:
    one = where(c > 0, full(c, 1.0), full(c, -1.0))
    return where(unknown, full(c, NAN), where(wild, where(own, one, full(c, 0.0)), tame))


# ---- where a library is right -----------------------------------------------------------------------------------------------------------
def _within(a: Part, b: Part, most_a: float, most_b: float) -> Part:
    return (absolute(a) < most_a) & (b < most_b)


# ---- which parts are zero on an axis, where libraries multiply what overflows by 0 ------------------------------------------------------------
def _nowhere(a: Part, b: Part) -> Parts:
    return a != a, b != b


def _flat(a: Part, b: Part) -> Parts:
    return a != a, b == 0


def _each(a: Part, b: Part) -> Parts:
    return a == 0, b == 0


def _both(a: Part, b: Part) -> Parts:
    return a != a, (a == 0) | (b == 0)


def _start(a: Part, b: Part) -> Parts:
    return (a == 0) & (b == 0), b == 0


def _nothing(a: Part, b: Part) -> Parts:
    return (a == 0) & (b == 0), (a == 0) & (b == 0)


# ---- symmetries: what parts to compute with, and the signs of the result ------------------------------------------------------------------
def _upper(a: Part, b: Part) -> Parts:
    return a, absolute(b)


def _quadrant(a: Part, b: Part) -> Parts:
    return absolute(a), absolute(b)


def _mirrored(real: Part, imag: Part, a: Part, b: Part) -> Parts:
    """f(conj z) = conj f(z)."""
    return real, where(signbit(b), negative(imag), imag)


def _above(real: Part, imag: Part, a: Part, b: Part) -> Parts:
    """The same, for an f that keeps the upper half plane."""
    return real, where(signbit(b), negative(absolute(imag)), absolute(imag))


def _below(real: Part, imag: Part, a: Part, b: Part) -> Parts:
    """The same, for an f that exchanges the half planes."""
    return real, where(signbit(b), absolute(imag), negative(absolute(imag)))


def _odd(real: Part, imag: Part, a: Part, b: Part) -> Parts:
    """Besides, f(-z) = -f(z)."""
    return where(signbit(a), negative(real), real), where(signbit(b), negative(imag), imag)


def _even(real: Part, imag: Part, a: Part, b: Part) -> Parts:
    """Besides, f(-z) = f(z)."""
    return real, where(signbit(a) != signbit(b), negative(imag), imag)


#: primitive -> (symmetry, its signs, where a part is zero all the same, what is true elsewhere); and below which parts a library is right
TABLE: dict[str, tuple[Callable[..., Any], ...]] = {
    "exp": (_upper, _mirrored, _flat, _turned), "expm1": (_upper, _mirrored, _start, _expm1),
    "log": (_upper, _above, _nowhere, _log), "log1p": (_upper, _above, _nothing, _log1p),
    "sqrt": (_upper, _above, _nowhere, _sqrt), "acosh": (_upper, _above, _nowhere, _acosh),
    "acos": (_upper, _below, _nowhere, _acos), "asin": (_quadrant, _odd, _nowhere, _asin),
    "asinh": (_quadrant, _odd, _nowhere, _asinh), "atan": (_quadrant, _odd, _nowhere, _atan),
    "atanh": (_quadrant, _odd, _nowhere, _atanh), "sin": (_quadrant, _odd, _each, _sin),
    "sinh": (_quadrant, _odd, _each, _sinh), "tan": (_quadrant, _odd, _each, _tan),
    "tanh": (_quadrant, _odd, _each, _tanh), "cos": (_quadrant, _even, _both, _cos),
    "cosh": (_quadrant, _even, _both, _cosh),
}  # fmt: skip
RIGHT: dict[str, tuple[float, float]] = dict.fromkeys(TABLE, (INF, INF)) | dict.fromkeys(("exp", "expm1", "sinh", "cosh"), (LARGE, INF))
RIGHT |= {"sin": (INF, LARGE), "cos": (INF, LARGE), "tanh": (FLAT, INF), "tan": (INF, FLAT)}


def _times(x: Part, y: Part) -> Part:
    return where((x == 0) | (y == 0), full(x, 0.0), x * y)


def exponent(u: Part, v: Part, c: Part, d: Part) -> Parts:
    """(u + iv)(c + id), what exp takes where x ** y is exp(y log x). A part that is 0 adds nothing, so real powers are those of real numbers."""
    return _times(c, u) - _times(d, v), _times(c, v) + _times(d, u)


def power(real: Part, imag: Part, other_real: Part, other_imag: Part, a: Part, b: Part, c: Part, d: Part) -> Parts:
    """(a + ib) ** (c + id): a library's where all is finite, else exp(y log x), of 0 as NumPy has it, and x ** 0 is 1."""
    zero, one, nan = full(a, 0.0), full(a, 1.0), full(a, NAN)
    tame = (absolute(a) < INF) & (absolute(b) < INF) & (absolute(c) < INF) & (absolute(d) < INF)
    nothing, at_nothing, never = (a == 0) & (b == 0), where(c > 0, zero, nan), (c == 0) & (d == 0)
    real = where(never, one, where(nothing, at_nothing, where(tame, real, other_real)))
    return real, where(never, zero, where(nothing, at_nothing, where(tame, imag, other_imag)))


def near_one(a: Part, b: Part) -> Parts:
    """log(1 + z) for finite z, accurate near 0, which NumPy's and Numba's are not: half the logarithm of |1 + z|² without the 1."""
    half = full(a, 0.5)
    real = where(hypot(a, b) < half, half * log1p(a * (full(a, 2.0) + a) + b * b), log(hypot(full(a, 1.0) + a, b)))
    return real, atan2(b, full(a, 1.0) + a)


def bound(tools: dict[str, Any], wrap: Callable[[Any], Any] = lambda f: f) -> dict[str, Any]:
    """The functions of this module over a library's. wrap: what compiles one (those that it calls are wrapped before it)."""
    names: dict[str, Any] = {"__builtins__": builtins, **tools, **{n: v for n, v in globals().items() if isinstance(v, float)}}
    for name, f in globals().items():
        if isinstance(f, FunctionType) and name not in ("bound", "kernels", "raised"):
            names[name] = wrap(FunctionType(f.__code__, names, name))
    return names


def kernels(
    tools: dict[str, Any], native: dict[str, Callable[[Any], Any]], split: Callable[[Any], Parts], join: Callable[..., Any]
) -> dict[str, Any]:
    """The functions of `native`, which take complex arrays, with these values put right. split, join: an array's parts, and an array of parts."""
    names, where_ = bound(tools), tools["where"]

    def made(name: str, f: Callable[[Any], Any]) -> Callable[[Any], Any]:
        fold, signs, zero, elsewhere = (names[g.__name__] for g in TABLE[name])

        def kernel(x: Any) -> Any:
            a, b = split(x)
            u, v = fold(a, b)
            real, imag = split(f(join(u, v)))
            other_real, other_imag = elsewhere(u, v)
            tame, (no_real, no_imag) = names["_within"](u, v, *RIGHT[name]), zero(u, v)
            return join(*signs(where_(tame & ~no_real, real, other_real), where_(tame & ~no_imag, imag, other_imag), a, b))

        kernel.__name__ = name
        return kernel

    return {name: made(name, f) for name, f in native.items()}


def raised(tools: dict[str, Any], pow_: Any, log_: Any, exp_: Any, split: Callable[[Any], Parts], join: Callable[..., Any]) -> Callable[..., Any]:
    """x ** y by a library's functions of complex numbers, with these values."""
    names = bound(tools)

    def kernel(x: Any, y: Any) -> Any:
        others = split(exp_(join(*names["exponent"](*split(log_(x)), *split(y)))))
        return join(*names["power"](*split(pow_(x, y)), *others, *split(x), *split(y)))

    return kernel
