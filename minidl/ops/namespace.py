"""minidl as an Array API namespace: the constants, the version of the standard, and what there is (`__array_namespace_info__`).

Source: Python array API standard 2025.12 (Consortium for Python Data API Standards).
"""

from __future__ import annotations

import math
from typing import Any

from minidl import dtypes
from minidl.backends import get
from minidl.dtypes import DType
from minidl.ops.common import choose, default
from minidl.ops.info import isdtype

__all__ = ["__array_api_version__", "__array_namespace_info__", "e", "inf", "nan", "newaxis", "pi"]

#: The newest version that minidl follows; `x.__array_namespace__(api_version=...)` takes the older ones as well.
__array_api_version__ = "2025.12"
VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", __array_api_version__)
e, inf, nan, newaxis, pi = math.e, math.inf, math.nan, None, math.pi

_STANDARD = tuple(d for d in dtypes.all_dtypes if d not in (dtypes.float16, dtypes.bfloat16))


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

        >>> NamespaceInfo().capabilities()["data-dependent shapes"]
        True
        """
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """Where new tensors are made."""
        return default().device

    def default_dtypes(self, *, device: str | None = None) -> dict[str, DType]:
        """The dtypes of tensors made of Python numbers, and of positions."""
        get(default().name, device)  # raises for a device that there is not
        real = dtypes.Defaults.floating
        return {"real floating": real, "complex floating": real.complex, "integral": dtypes.int64, "indexing": dtypes.int64}

    def devices(self) -> tuple[str, ...]:
        """The devices of the default backend."""
        return default().devices()

    def dtypes(self, *, device: str | None = None, kind: str | tuple[str, ...] | None = None) -> dict[str, DType]:
        """The standard's dtypes by name, all or those of a kind (see `isdtype`); float16 and bfloat16 are minidl's own and not among them.

        >>> NamespaceInfo().dtypes(kind="real floating")
        {'float32': minidl.float32, 'float64': minidl.float64}
        """
        choose(None, device)
        return {d.name: d for d in _STANDARD if kind is None or isdtype(d, kind)}


def __array_namespace_info__() -> NamespaceInfo:
    """Which dtypes, devices and capabilities there are. Source: Python array API standard, `inspection`.

    >>> md.__array_namespace_info__().default_dtypes()["real floating"]
    minidl.float32
    """
    return NamespaceInfo()
