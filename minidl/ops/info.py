"""Questions about dtypes: limits, kinds, promotion."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import dtypes
from minidl.dtypes import DType, canonical
from minidl.ops.common import Tensor, scalar_type, shown
from minidl.tree import Fields

__all__ = ["can_cast", "finfo", "iinfo", "isdtype", "result_type"]


class FloatInfo(Fields):
    """Limits of a float dtype."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


class IntInfo(Fields):
    """Limits of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: DType


def _dtype_of(x: Any) -> DType:
    return x.dtype if isinstance(x, Tensor) else canonical(x)


def finfo(dtype: Any, /) -> FloatInfo:
    """The limits of a float dtype (of the parts, for a complex one). Raises TypeError for others.

    >>> md.finfo("float32").bits
    32
    """
    d = _dtype_of(dtype)
    if not d.inexact:
        raise TypeError(f"finfo: {d.name} is no float dtype; use iinfo")
    if d is dtypes.bfloat16:
        import ml_dtypes

        info: Any = ml_dtypes.finfo(d.numpy)
    else:
        info = np.finfo(d.real.numpy)
    return FloatInfo(d.real.bits, float(info.eps), float(info.max), float(info.min), float(info.smallest_normal), d.real)


def iinfo(dtype: Any, /) -> IntInfo:
    """The limits of an integer dtype. Raises TypeError for others.

    >>> md.iinfo("int8").max
    127
    """
    d = _dtype_of(dtype)
    if not d.is_integer:
        raise TypeError(f"iinfo: {d.name} is no integer dtype; use finfo")
    info = np.iinfo(d.numpy)
    return IntInfo(d.bits, int(info.max), int(info.min), d)


_KINDS = {
    "bool": ("bool",), "signed integer": ("int",), "unsigned integer": ("uint",), "integral": ("int", "uint"), "real floating": ("float",),
    "complex floating": ("complex",), "numeric": ("int", "uint", "float", "complex"),
}  # fmt: skip


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind: a dtype, one of the Array API's names ("integral", "real floating" …), or a tuple of these.

    Raises ValueError for the name of no kind.

    >>> md.isdtype("int8", ("bool", "integral"))
    True
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str) and kind not in dtypes.by_name:
        if kind not in _KINDS:
            raise ValueError(f"isdtype: kind {shown(kind)} is not one of {', '.join(_KINDS)}")
        return canonical(dtype).kind in _KINDS[kind]
    return canonical(dtype) is (dtypes.bool_ if kind == "bool" else canonical(kind))


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that an operation on these tensors, dtypes and Python numbers has. Raises TypeError for nothing or what does not promote.

    >>> md.result_type("float16", "float32")
    minidl.float32
    """
    kinds = [k for a in arrays_and_dtypes if not isinstance(a, (DType, np.dtype)) and (k := scalar_type(a)) is not None]
    known = [_dtype_of(a) for a in arrays_and_dtypes if isinstance(a, (DType, np.dtype)) or scalar_type(a) is None]
    if not known and not kinds:
        raise TypeError("result_type: no array, dtype or number came")
    out = known[0] if known else dtypes.of_scalar_type(kinds[0])
    for d in known[1:]:
        out = dtypes.promote(out, d)
    for k in kinds:
        out = dtypes.promote_scalar(out, k)
    return out


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion ever turns the first dtype (or tensor's dtype) into the second.

    >>> md.can_cast("int8", "float32"), md.can_cast("float64", "float32")
    (True, False)
    """
    have, want = _dtype_of(from_), canonical(to)
    try:
        return dtypes.promote(have, want) is want
    except TypeError:
        return False
