"""Functions of single elements that are more than their primitive, or several of them."""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl import Tensor
from minidl.extend import cast, check_all, constant, home, ns, operand, scalar_type

__all__ = ["angle", "heaviside"]


def angle(x: Any, /) -> Tensor:
    """The argument of x in (-pi, pi], element by element: atan2(imag, real); for real x, pi below 0. Derivative 0 at 0.

    >>> md.angle(md.tensor(2j)).item() == md.angle(md.tensor(1j)).item()
    True
    """
    x = operand(x)
    if x.dtype.is_complex:
        return ns.atan2(ns.imag(x), ns.real(x))
    x = x if x.dtype.inexact else cast(x, md.get_default_dtype())
    return ns.atan2(constant(home(x), (), 0.0, x.dtype), x)


def heaviside(x: Any, h: Any, /) -> Tensor:
    """0 below 0, 1 above, h at 0, nan at nan, element by element; constant in x, so its derivative in x is 0. Raises TypeError for complex numbers.

    >>> md.heaviside(md.tensor(-2.0), 0.5).item()
    0.0
    """
    x = operand(x, h if isinstance(h, Tensor) else None)
    x = cast(x, md.dtypes.promote(x.dtype, h.dtype) if isinstance(h, Tensor) else md.dtypes.promote_scalar(x.dtype, scalar_type(h) or float))
    x = x if x.dtype.inexact else cast(x, md.get_default_dtype())
    if x.dtype.is_complex:
        raise TypeError(f"heaviside: dtype {x.dtype.short} is not supported; it wants real numbers")
    return ns.where(ns.eq(x, 0), h, ns.mul(ns.add(ns.sign(x), 1.0), 0.5))


check_all(globals(), __all__)
