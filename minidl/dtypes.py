"""Element types: one object per dtype, and the one promotion rule that every backend shares.

Promises: dtypes are singletons, so `a.dtype is b.dtype` decides equality on the happy path; comparison with anything else is False and
never raises; this module knows no array library but NumPy.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np


class DType:
    """An element type: `md.float32`, `md.int64` and so on.

    Attributes: name ("float32"), short ("f32"), kind ("bool", "int", "uint", "float" or "complex"), bits, and the booleans inexact, is_float,
    is_complex, is_integer. A call makes a Tensor of it, as NumPy's and JAX's dtypes do; OverflowError for an integer that does not fit.

    >>> md.float32.bits, md.float32.kind, md.float32 == md.ones(2).dtype
    (32, 'float', True)
    >>> md.uint32(13).dtype
    minidl.uint32
    """

    __slots__ = (
        "bits", "fast", "fast_float", "fast_inexact", "fast_numeric", "fast_ordered", "fast_real", "inexact", "is_complex", "is_float", "is_integer",
        "kind", "name", "short",
    )  # fmt: skip

    def __init__(self, name: str, short: str, kind: str, bits: int):
        self.name, self.short, self.kind, self.bits = name, short, kind, bits
        self.is_float = kind == "float"
        self.is_complex = kind == "complex"
        self.inexact = self.is_float or self.is_complex
        self.is_integer = kind in ("int", "uint")
        # What the generated eager code asks with one attribute. bfloat16 takes the general way: NumPy widens it next to a Python number.
        self.fast = name != "bfloat16"
        self.fast_numeric = self.fast and kind != "bool"
        self.fast_real = self.fast and not self.is_complex
        self.fast_ordered = self.fast_real and kind != "bool"
        self.fast_float = self.fast and self.is_float
        self.fast_inexact = self.fast and self.inexact

    @property
    def numpy(self) -> np.dtype:
        """The NumPy dtype that stores this type (bfloat16 through ml_dtypes)."""
        return _numpy_dtype(self.name)

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return 1 if self.kind == "bool" else self.bits // 8

    @property
    def real(self) -> DType:
        """The dtype of the real part: float32 for complex64, itself for a real dtype."""
        return {"complex64": float32, "complex128": float64}.get(self.name, self)

    @property
    def complex(self) -> DType:
        """The complex dtype that holds this one."""
        return complex128 if (self.bits >= 64 and self.kind != "complex") or self is complex128 else complex64

    def __call__(self, value: Any = 0) -> Any:
        from minidl.ops import asarray

        return asarray(value, dtype=self)

    def __repr__(self) -> str:
        return f"minidl.{self.name}"

    def __reduce__(self) -> tuple:
        return by_name_lookup, (self.name,)


bool_ = DType("bool", "bool", "bool", 8)
int8, int16, int32, int64 = (DType(f"int{b}", f"i{b}", "int", b) for b in (8, 16, 32, 64))
uint8, uint16, uint32, uint64 = (DType(f"uint{b}", f"u{b}", "uint", b) for b in (8, 16, 32, 64))
float16 = DType("float16", "f16", "float", 16)
bfloat16 = DType("bfloat16", "bf16", "float", 16)
float32 = DType("float32", "f32", "float", 32)
float64 = DType("float64", "f64", "float", 64)
complex64 = DType("complex64", "c64", "complex", 64)
complex128 = DType("complex128", "c128", "complex", 128)

all_dtypes = (bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64, complex64, complex128)
by_name = {d.name: d for d in all_dtypes}
_RANK = {"bool": 0, "uint": 1, "int": 1, "float": 2, "complex": 3}


def by_name_lookup(name: str) -> DType:
    """The dtype of that name; pickles refer to dtypes through this function."""
    return by_name[name]


@functools.cache
def _numpy_dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


@functools.cache
def from_numpy(dtype: np.dtype) -> DType:
    """The minidl dtype of a NumPy dtype. Raises TypeError for object, string, datetime and other dtypes that minidl does not have."""
    dtype = np.dtype(dtype)
    try:
        return by_name[dtype.name]
    except KeyError:
        names = ", ".join(by_name)
        raise TypeError(f"minidl has no dtype for NumPy's {dtype}; it has {names}") from None


def canonical(dtype: object) -> DType:
    """The DType meant by a DType, its name, a NumPy dtype or a Python type (bool, int, float, complex).

    >>> canonical("float64"), canonical(int)
    (minidl.float64, minidl.int64)
    """
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, str) and dtype in by_name:
        return by_name[dtype]
    if isinstance(dtype, type) and dtype in (bool, int, float, complex):
        return of_scalar_type(dtype)
    if isinstance(dtype, (str, type, np.dtype)):
        try:
            return from_numpy(np.dtype(dtype))
        except TypeError:
            pass
    text = dtype if isinstance(dtype, (str, type, int, float, np.dtype)) else type(dtype)
    raise TypeError(f"dtype: {text!r} is not a dtype; use one of {', '.join('md.' + n for n in by_name)}")


@dataclass(slots=True)
class _Defaults:
    """The default float dtype (`md.set_default_dtype`), and whether mixing dtypes raises (`with md.strict_promotion():`). In slots, which each call
    of a jitted function reads in half the time of the attributes of a class."""

    floating: DType = float32
    strict: bool = False


Defaults = _Defaults()


def of_scalar_type(kind: type) -> DType:
    """The dtype that a lone Python scalar of this type gets."""
    if kind is bool:
        return bool_
    if kind is int:
        return int64
    if kind is float:
        return Defaults.floating
    return Defaults.floating.complex


@functools.cache
def promote(a: DType, b: DType) -> DType:
    """The dtype of an operation on two array dtypes.

    The higher kind wins (bool < integer < float < complex), and a float keeps its width against any integer; within a kind the wider one
    wins; float16 with bfloat16 gives float32. Raises TypeError for uint64 with a signed integer, which nothing exact can hold.

    >>> promote(int32, float16), promote(float32, complex64), promote(uint8, int8)
    (minidl.float16, minidl.complex64, minidl.int16)
    """
    if a is b:
        return a
    ra, rb = _RANK[a.kind], _RANK[b.kind]
    if ra != rb:
        low, high = (a, b) if ra < rb else (b, a)
        if high.is_complex and low.is_float and low.bits > high.real.bits:
            return complex128
        return high
    if a.kind == b.kind:
        if a.bits == b.bits:
            return float32
        return a if a.bits > b.bits else b
    signed, unsigned = (a, b) if a.kind == "int" else (b, a)
    if signed.bits > unsigned.bits:
        return signed
    if unsigned.bits == 64:
        raise TypeError(f"{a.short} with {b.short}: no integer dtype holds both; convert one with .to(md.int64) or .to(md.uint64)")
    return by_name[f"int{unsigned.bits * 2}"]


def promote_scalar(dtype: DType, kind: type) -> DType:
    """The dtype of an operation between an array and a Python scalar, which is weak: it only ever raises the kind.

    >>> promote_scalar(float16, float), promote_scalar(int32, float), promote_scalar(float32, complex)
    (minidl.float16, minidl.float32, minidl.complex64)
    """
    if kind is complex:
        return dtype if dtype.is_complex else (dtype.complex if dtype.is_float else Defaults.floating.complex)
    if kind is float:
        return dtype if dtype.inexact else Defaults.floating
    if kind is int:
        return int64 if dtype is bool_ else dtype
    return dtype
