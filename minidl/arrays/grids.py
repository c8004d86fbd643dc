"""Evenly spaced numbers, the identity, and grids of coordinates."""

from __future__ import annotations

import operator
from typing import Any

import minidl as md
from minidl import Tensor
from minidl.extend import cast, check_all, create, fits, get_backend, home, ns, operand, size_tuple

__all__ = ["eye", "linspace", "meshgrid"]


def _dtype(dtype: Any, is_complex: bool = False) -> md.DType:
    if dtype is None and is_complex:
        return md.complex128 if md.get_default_dtype() is md.float64 else md.complex64
    return md.get_default_dtype() if dtype is None else md.dtypes.canonical(dtype)


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: Any = None, endpoint: bool = True, backend: str | None = None, device: str | None = None
) -> Tensor:
    """num evenly spaced numbers from start to stop, stop itself included if endpoint. Computed in double precision and rounded once.

    Raises ValueError for a negative num.

    >>> md.linspace(0, 1, 5).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    num = operator.index(num)
    if num < 0:
        raise ValueError(f"linspace: num is {num}; it must be at least 0")
    is_complex = isinstance(start, complex) or isinstance(stop, complex)
    want = _dtype(dtype, is_complex)
    i = md.arange(num, backend=backend, device=device)
    gaps = num - 1 if endpoint else num
    out = ns.add(ns.mul(cast(i, md.complex128 if is_complex else md.float64), (stop - start) / gaps if gaps > 0 else 0.0), start)
    if endpoint and num > 1:
        out = ns.where(ns.eq(i, num - 1), stop, out)
    return cast(out, want)


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, backend: str | None = None, device: str | None = None) -> Tensor:
    """Ones on the k-th diagonal, zeros elsewhere.

    >>> md.eye(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    n_rows, n_cols = size_tuple("eye", (n_rows, n_rows if n_cols is None else n_cols))
    fits("eye", (n_rows, n_cols), _dtype(dtype))
    xp = home() if backend is None and device is None else get_backend(backend or home().name, device)
    rows, cols = (create("iota", xp, md.int64, size=n) for n in (n_rows, n_cols))
    k = max(-n_rows, min(k, n_cols))  # further off there is no diagonal
    return cast(ns.eq(ns.reshape(ns.add(rows, k), shape=(n_rows, 1)), cols), _dtype(dtype))


def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinate grids of 1-d arrays; "xy" lets the second array run along the rows, "ij" the first. Raises ValueError for another indexing.

    >>> x, y = md.meshgrid(md.arange(2), md.arange(3))
    >>> x.tolist()
    [[0, 1], [0, 1], [0, 1]]
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing {indexing!r} is neither 'xy' nor 'ij'")
    xs = [operand(a) for a in (arrays[0] if len(arrays) == 1 and isinstance(arrays[0], (list, tuple)) else arrays)]
    order = [1, 0, *range(2, len(xs))] if indexing == "xy" and len(xs) > 1 else list(range(len(xs)))
    shape = tuple(int(xs[i].size) for i in order)
    ranges = (md.reshape(x, tuple(int(x.size) if a == i else 1 for a in order)) for i, x in enumerate(xs))
    return tuple(md.broadcast_to(x, shape) for x in ranges)


check_all(globals(), __all__)
