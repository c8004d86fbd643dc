"""Inspection under the names of the Array API: limits, kinds and promotion of dtypes, and what there is (`__array_namespace_info__`).

Source: Python array API standard 2025.12 (Consortium for Python Data API Standards).
"""

from __future__ import annotations

from typing import Any

import numpy as np

import minidl as md
from minidl import DType, Tensor, dtypes
from minidl.extend import check_all, describe, get_backend, home, scalar_type

__all__ = ["__array_namespace_info__", "can_cast", "finfo", "iinfo", "isdtype", "result_type"]

canonical = dtypes.canonical
_STANDARD = tuple(d for d in dtypes.all_dtypes if d not in (dtypes.float16, dtypes.bfloat16))


class FloatInfo(md.tree.Fields):
    """Limits of a float dtype."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


class IntInfo(md.tree.Fields):
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
            raise ValueError(f"isdtype: kind {describe(kind)} is not one of {', '.join(_KINDS)}")
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


def _device(name: str | None) -> str:
    """Where new tensors are made; raises ValueError for a device that there is not."""
    return home().device if name is None else get_backend(home().name, name).device


class NamespaceInfo:
    """What `__array_namespace_info__` returns: questions about dtypes, devices and capabilities of the default backend."""

    __slots__ = ()

    def capabilities(self) -> dict[str, Any]:
        """Boolean masks and functions with data-dependent shapes work, 64 axes at most.

        The shape of a result depends on values in: `unique_all`, `unique_counts`, `unique_inverse`, `unique_values`, `nonzero`, `repeat` with a
        tensor of counts, `arange` with a tensor as a bound, and reading x[mask]. An assignment x[mask] = v does too if v has an axis of the chosen
        elements, and not with a number or what broadcasts against each of them. Under jit and vmap these raise TypeError, which names the function,
        the user's line and what to do instead: `where` keeps all elements, `sort` all values, counts and bounds are given as Python integers.
        What follows from constants alone (`x[md.arange(4) > 1]`) has values there, too.

        >>> md.__array_namespace_info__().capabilities()["data-dependent shapes"]
        True
        """
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """Where new tensors are made."""
        return home().device

    def default_dtypes(self, *, device: str | None = None) -> dict[str, DType]:
        """The dtypes of tensors made of Python numbers, and of positions."""
        _device(device)  # raises for a device that there is not
        real = md.get_default_dtype()
        return {"real floating": real, "complex floating": real.complex, "integral": dtypes.int64, "indexing": dtypes.int64}

    def devices(self) -> tuple[str, ...]:
        """The devices of the default backend."""
        return home().devices()

    def dtypes(self, *, device: str | None = None, kind: str | tuple[str, ...] | None = None) -> dict[str, DType]:
        """The standard's dtypes by name, all or those of a kind (see `isdtype`); float16 and bfloat16 are minidl's own and not among them.

        >>> md.__array_namespace_info__().dtypes(kind="real floating")
        {'float32': minidl.float32, 'float64': minidl.float64}
        """
        _device(device)
        return {d.name: d for d in _STANDARD if kind is None or isdtype(d, kind)}


def __array_namespace_info__() -> NamespaceInfo:
    """Which dtypes, devices and capabilities there are. Source: Python array API standard, `inspection`.

    >>> md.__array_namespace_info__().default_dtypes()["real floating"]
    minidl.float32
    """
    return NamespaceInfo()


check_all(globals(), ["can_cast", "finfo", "iinfo", "isdtype", "result_type"])
