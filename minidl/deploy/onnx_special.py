"""Functions of one number that ONNX does not have, computed in float64: erfc, erfinv, lgamma and digamma.

Promises: relative errors of at most 2e-7 (erfc) and 1e-14 (erfinv), absolute or relative ones of 1e-13 (lgamma, digamma), before the result is
rounded to the dtype of the program; infinities, nan and poles as minidl has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.deploy.onnx_writer import Writer
from minidl.extend import WICHURA

SPECIAL: dict[str, Callable[..., Any]] = {}


class _Value:
    """A float64 value of a file, with Python's operators."""

    def __init__(self, w: Writer, name: str):
        self.w, self.name = w, name

    def op(self, op: str, *others: Any) -> _Value:
        """An operation of ONNX on this value and others, or numbers."""
        return _Value(self.w, self.w.node(op, self.name, *(o.name if isinstance(o, _Value) else self.w.scalar(o, md.float64) for o in others)))

    def where(self, a: Any, b: Any) -> _Value:
        """a where this condition holds, else b."""
        return self.op("Where", a, b)

    def polynomial(self, coefficients: Any) -> _Value:
        """By Horner's rule, the highest power first."""
        out: Any = self * coefficients[0] + coefficients[1]
        for c in coefficients[2:]:
            out = out * self + c
        return out

    def __add__(self, other: Any) -> _Value:
        return self.op("Add", other)

    def __sub__(self, other: Any) -> _Value:
        return self.op("Sub", other)

    def __mul__(self, other: Any) -> _Value:
        return self.op("Mul", other)

    def __truediv__(self, other: Any) -> _Value:
        return self.op("Div", other)

    def __lt__(self, other: Any) -> _Value:
        return self.op("Less", other)

    def __neg__(self) -> _Value:
        return self.op("Neg")


def _function(f: Callable[[_Value], _Value]) -> Callable[..., Any]:
    """Note a function of a value under its name, without the underscore."""

    def write(w: Writer, e: Any, x: str) -> str:
        dtype = e.inputs[0].dtype
        return w.cast(f(_Value(w, w.cast(x, md.float64))).name, dtype)

    SPECIAL[f.__name__.strip("_")] = write
    return write


@_function
def _erfc(x: _Value) -> _Value:
    """A rational function's exponential. Source: W. Press et al., Numerical Recipes, 6.2: erfcc, with its Chebyshev coefficients."""
    size = x.op("Abs")
    t = (size * 0.5 + 1.0).op("Reciprocal")
    inner = t.polynomial(
        (0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223)
    )
    large = t * (inner - size * size).op("Exp")
    large = (size < 30.0).where(large, 0.0)
    out = (x < 0.0).where(-large + 2.0, large)
    return x.op("Equal", x).where(out, x)


@_function
def _erfinv(x: _Value) -> _Value:
    """The quantile of the normal distribution at (1 + x) / 2, over √2. Source: M. Wichura, Algorithm AS 241 (1988)."""
    half = x * 0.5
    r = (-((-x.op("Abs") + 1.0) * 0.5).op("Log")).op("Sqrt")
    near, far, end = (
        v.polynomial(top) / v.polynomial(low) for v, (top, low) in zip((-(half * half) + 0.180625, r - 1.6, r - 5.0), WICHURA, strict=True)
    )
    tail = (r < 5.0).where(far, end) * x.op("Sign")
    out = (x.op("Abs") < 0.85).where(half * near, tail) / math.sqrt(2)
    return x.op("Abs").op("Equal", 1.0).where(x * math.inf, out)


_LANCZOS = (
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905, -0.13857109526572012,
    9.9843695780195716e-6, 1.5056327351493116e-7,
)  # fmt: skip


@_function
def _lgamma(x: _Value) -> _Value:
    """C. Lanczos' sum of nine terms (1964) above 1/2, Euler's reflection below."""
    low = x < 0.5
    z = low.where(-x + 1.0, x) - 1.0
    total: Any = z * 0.0 + _LANCZOS[0]
    for k, c in enumerate(_LANCZOS[1:], 1):
        total = total + (z + float(k)).op("Reciprocal") * c
    t = z + 7.5
    above = (z + 0.5) * t.op("Log") - t + total.op("Log") + 0.5 * math.log(2 * math.pi)
    below = -(_sine(x).op("Abs") / math.pi).op("Log") - above
    out = low.where(below, above)
    return x.op("Abs").op("Equal", math.inf).where(math.inf, out)


def _sine(x: _Value) -> _Value:
    """sin(πx), exactly 0 at integers."""
    rest = x - (x * 0.5 + 0.5).op("Floor") * 2.0
    rest = rest.op("Abs").op("Equal", 1.0).where(0.0, rest)
    return (rest * math.pi).op("Sin")


@_function
def _digamma(x: _Value) -> _Value:
    """The asymptotic series eight steps up, Euler's reflection below 1/2. Source: NIST Digital Library of Mathematical Functions, 5.5 and 5.11.2."""
    low = x < 0.5
    z = low.where(-x + 1.0, x)
    steps: Any = z.op("Reciprocal")
    for k in range(1, 8):
        steps = steps + (z + float(k)).op("Reciprocal")
    t = z + 8.0
    r = (t * t).op("Reciprocal")
    series = r.polynomial((-1 / 12, 691 / 32760, -1 / 132, 1 / 240, -1 / 252, 1 / 120, -1 / 12, 0.0))
    above = t.op("Log") - t.op("Reciprocal") * 0.5 + series - steps
    # π cot(πx): the cosine is the sine a quarter further
    cotangent = _sine(x + 0.5) / _sine(x) * math.pi
    out = low.where(above - cotangent, above)
    out = (x < 0.0).where((x.op("Floor")).op("Equal", x).where(math.nan, out), out)
    return x.op("Equal", 0.0).where(-(x.op("Reciprocal")), x.op("Equal", math.inf).where(math.inf, out))
