"""SiLU, hardswish and their derivatives as primitives, since torch has a kernel for each; and dropout's choice, one operation instead of two.

Promises: at -inf the value is 0 with derivative 0, at inf the derivative is 1, a nan has a derivative of nan; 16 bits are computed in float32 and
rounded once. The derivatives of hardswish at its kinks, -3 and 3, are those from outside, 0 and 1.
"""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.extend import define, elementwise

_FAR = 1e3  # from here on the sigmoid is 0 or 1 in every dtype


def _wide(xp: Any, *xs: Any) -> list[Any]:
    return [xp.cast(x, dtype=md.float32) if xp.dtype_of(x) in (md.float16, md.bfloat16) else x for x in xs]


def _narrow(xp: Any, x: Any, like: Any) -> Any:
    dtype = xp.dtype_of(like)
    return x if xp.dtype_of(x) is dtype else xp.cast(x, dtype=dtype)


def _silu(xp: Any, x: Any) -> Any:
    (y,) = _wide(xp, x)
    s = xp.sigmoid(y)
    return _narrow(xp, xp.where(y <= -_FAR, -0.0, y) * s, x)


def _parts(xp: Any, x: Any) -> tuple[Any, Any]:
    """x where the derivatives are not constant, and its sigmoid, with which inf * 0 never arises."""
    return xp.where(xp.abs(x) >= _FAR, 0.0, x), xp.sigmoid(x)


def _silu_dx(xp: Any, g: Any, x: Any) -> Any:
    h, y = _wide(xp, g, x)
    y, s = _parts(xp, y)
    return _narrow(xp, h * ((y * (1.0 - s) + 1.0) * s), x)


def _silu_dx_x(xp: Any, c: Any, g: Any, x: Any) -> Any:
    """c g silu''(x)."""
    d, h, y = _wide(xp, c, g, x)
    y, s = _parts(xp, y)
    return _narrow(xp, d * h * ((y * (1.0 - (s + s)) + 2.0) * (s * (1.0 - s))), x)


def _hardswish(xp: Any, x: Any) -> Any:
    (y,) = _wide(xp, x)
    inside = xp.where(xp.abs(y) >= 3.0, -0.0, y)  # so that inf * 0 never arises
    return _narrow(xp, xp.where(y >= 3.0, y, inside * (inside + 3.0) / 6.0), x)


def _hardswish_dx(xp: Any, g: Any, x: Any) -> Any:
    h, y = _wide(xp, g, x)
    return _narrow(xp, xp.where(y >= 3.0, h, xp.where(y <= -3.0, 0.0, h * (y / 3.0 + 0.5))), x)


def _hardswish_dx_x(xp: Any, c: Any, g: Any, x: Any) -> Any:
    """c g hardswish''(x)."""
    d, h, y = _wide(xp, c, g, x)
    return _narrow(xp, xp.where(xp.abs(y) >= 3.0, 0.0, d * h / 3.0), x)


def _kept(xp: Any, mask: Any, x: Any, *, scale: float) -> Any:
    return xp.where(mask, x * scale, 0.0)


_options: Any = {"only": "float", "promote": "float"}
silu = define(elementwise("silu", "x", lambda xp, g, x: xp.silu_dx(g, x), decompose=_silu, **_options), __package__)
silu_dx = define(elementwise("silu_dx", "g x", lambda xp, c, x: xp.silu_dx(c, x), _silu_dx_x, decompose=_silu_dx, **_options), __package__)
hardswish = define(elementwise("hardswish", "x", lambda xp, g, x: xp.hardswish_dx(g, x), decompose=_hardswish, **_options), __package__)
hardswish_dx = define(
    elementwise("hardswish_dx", "g x", lambda xp, c, x: xp.hardswish_dx(c, x), _hardswish_dx_x, decompose=_hardswish_dx, **_options), __package__
)
#: x times scale where mask holds, 0 elsewhere, whatever x is there.
kept = define(
    elementwise(
        "kept", "mask x", None, lambda xp, g, mask, scale: xp.kept(mask, g, scale=scale), params="scale", only="inexact", promote="float",
        joins=(1,), others=md.bool, decompose=_kept,
    ), __package__,
)  # fmt: skip
