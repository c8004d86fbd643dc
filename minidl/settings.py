"""The few settings of minidl itself. jit guards on each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from minidl.dtypes import Defaults, DType, StrictPromotion, canonical


def set_default_dtype(dtype: DType | str) -> None:
    """The dtype that Python floats and creation functions get from now on. Raises TypeError for a dtype that is no float.

    >>> set_default_dtype("float32")
    """
    d = canonical(dtype)
    if not d.is_float:
        raise TypeError(f"set_default_dtype: {d.name} is no float dtype")
    Defaults.floating = d


def get_default_dtype() -> DType:
    """The dtype that Python floats get.

    >>> get_default_dtype()
    minidl.float32
    """
    return Defaults.floating


@contextlib.contextmanager
def strict_promotion() -> Iterator[None]:
    """Inside the block, mixing array dtypes in one operation raises TypeError instead of promoting."""
    before = StrictPromotion.on
    StrictPromotion.on = True
    try:
        yield
    finally:
        StrictPromotion.on = before
