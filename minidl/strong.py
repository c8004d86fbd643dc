"""Strong zeros: under `md.strong_zero()` a cotangent (or tangent) of 0 annihilates what a derivative rule would multiply it with, be it inf or NaN.

A rule is linear in its cotangent, so a zero contributes nothing; floating point says 0 * inf = nan all the same. Here the rule runs as it is, and
what came out is corrected where it is no finite number though nothing but zeros went in. Finite results are left alone, so derivatives of any order
see the rule itself. A primitive may say more by its `strong`: "terms", linear in the cotangent and in one other operand, so that each result is a sum
of products, which are corrected term by term (matmul, convolution); or a function (xp, g, names, args, values) → the args to give to its rule.

Promises: one text for the raw, the recorded and the captured pass; nothing here runs, and no program changes, while the setting is off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidl.extend import Primitive, batch_leading

_OUTPUTS = frozenset(("out", "out0", "out1", "out2"))


def corrected(
    xp: Any, primitive: Primitive, rule: Callable[..., Any], g: Any, names: Sequence[str], args: Sequence[Any], values: dict[str, Any]
) -> Any:
    """rule(xp, g, *args) with strong zeros. values: the residuals by name, of the whole node."""
    floats = [n in _OUTPUTS or n == "shared" or (n in primitive.args and _joined(primitive, n)) for n in names]
    if callable(primitive.strong):
        args = primitive.strong(xp, g, names, args, values)
    d = rule(xp, g, *args)
    if not any(floats):  # moved, not multiplied
        return d
    if primitive.strong == "terms":
        at = floats.index(True)
        return _product(xp, lambda t, other: rule(xp, t, *args[:at], other, *args[at + 1 :]), g, args[at], d)
    zero = _nothing(xp, primitive, g, d, values)
    return xp.where(xp.logical_and(zero, xp.logical_not(xp.isfinite(d))), 0.0, d)


def _joined(primitive: Primitive, name: str) -> bool:
    """Whether an argument shares the dtype of the result: the others are indices and conditions."""
    return primitive.joins is None or primitive.args.index(name) in primitive.joins


def _nothing(xp: Any, primitive: Primitive, g: Any, d: Any, values: dict[str, Any]) -> Any:
    """Where in d nothing but zeros of g arrived."""
    zero = xp.eq(g, 0.0)
    if primitive.elementwise:
        return zero
    rank, axis = len(d.shape), values.get("axis")
    if axis is not None:
        axes = axis if isinstance(axis, tuple) else (axis,)
        if len(g.shape) == len(d.shape):
            return xp.all(zero, axis=axes, keepdims=True)
        if len(g.shape) == rank - len(axes):  # the cotangent of a reduction
            return xp.reshape(zero, shape=tuple(1 if i in axes else n for i, n in enumerate(d.shape)))
        if len(g.shape) == rank + len(axes):  # the tangent of one
            return xp.all(zero, axis=axes, keepdims=False)
    if primitive.batch is batch_leading and rank >= 2:  # matrices on the last two axes
        lead = tuple(d.shape[:-2])
        if tuple(g.shape[: rank - 2]) == lead:
            return xp.reshape(_over(xp, zero, rank - 2), shape=(*lead, 1, 1))
    return _over(xp, zero, 0)


def _over(xp: Any, zero: Any, kept: int) -> Any:
    axes = tuple(range(kept, len(zero.shape)))
    return xp.all(zero, axis=axes, keepdims=False) if axes else zero


def _product(xp: Any, rule: Callable[..., Any], g: Any, y: Any, d: Any) -> Any:
    """A sum of products without the terms whose cotangent is 0."""
    dtype = xp.dtype_of(d)
    fine = xp.isfinite(y)
    clean = rule(g, xp.where(fine, y, 0.0))
    met = lambda which: rule(xp.cast(xp.ne(g, 0.0), dtype=dtype), xp.cast(which, dtype=dtype))
    if dtype.is_complex:
        return xp.where(xp.gt(xp.real(met(xp.logical_not(fine))), 0.5), d, clean)
    infinite = xp.isinf(y)
    signs = rule(xp.sign(g), xp.where(infinite, xp.sign(y), 0.0))
    count = met(infinite)
    limit = xp.where(xp.eq(xp.abs(signs), count), xp.mul(signs, float("inf")), float("nan"))  # infinities of one sign, or of both
    found = xp.where(xp.gt(count, 0.5), xp.add(limit, clean), clean)
    return xp.where(xp.gt(met(xp.isnan(y)), 0.5), float("nan"), found)
