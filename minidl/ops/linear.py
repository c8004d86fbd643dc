"""Products: matmul and what a linear layer computes; both lower to dot_general.

Matrix times matrix goes there at once; everything else finds its axes first.
"""

from __future__ import annotations

from typing import Any

from minidl import shapes
from minidl.errors import checked
from minidl.ops.common import Tensor, describe, ns, operand, traced

__all__ = ["affine", "matmul"]


def _matmul(x: Any, y: Any) -> Tensor:
    if not isinstance(x, Tensor):
        x = operand(x, y if isinstance(y, Tensor) else None)
    y = operand(y, x)
    n, m = x.ndim, y.ndim
    if not n or not m:
        raise ValueError(f"matmul: {describe(x)} @ {describe(y)}: 0-d arrays have no inner dimension; use *")
    inner = max(m - 2, 0)
    if x.shape[-1] != y.shape[inner]:
        raise ValueError(f"matmul: inner dimensions differ: {describe(x)} @ {describe(y)} ({x.shape[-1]} != {y.shape[inner]})")
    if m <= 2 or n == 1:
        return ns.dot_general(x, y, contract=((n - 1,), (inner,)), batch=((), ()))
    if n == 2:  # (rows, batch..., columns) comes out
        out = ns.dot_general(x, y, contract=((1,), (inner,)), batch=((), ()))
        return ns.permute(out, axes=(*range(1, m - 1), 0, m - 1))
    try:
        lead = shapes.broadcast(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise ValueError(f"matmul: batch dimensions do not broadcast: {describe(x)} @ {describe(y)}") from None
    x, y = (v if v.shape[:-2] == lead else ns.broadcast_to(v, shape=(*lead, *v.shape[-2:])) for v in (x, y))
    k = len(lead)
    return ns.dot_general(x, y, contract=((k + 1,), (k,)), batch=(tuple(range(k)),) * 2)


_matmul.__name__ = "matmul"
_matmul = checked(_matmul)
_LAST_WITH_FIRST, _NO_BATCH = ((1,), (0,)), ((), ())


def matmul(x: Any, y: Any, /) -> Tensor:
    """The matrix product x @ y, with NumPy's rules: 1-d arrays are a row on the left and a column on the right, leading axes broadcast.

    Raises ValueError for 0-d arrays and for sizes that differ: `matmul: inner dimensions differ: f32[3,4] @ f32[5,6] (4 != 5)`.

    >>> from minidl.ops import ones
    >>> matmul(ones((2, 3)), ones((3, 4))).shape
    (2, 4)
    """
    try:
        a, b = x.payload.shape, y.payload.shape
        plain = len(a) == 2 == len(b) and a[1] == b[0]
    except AttributeError:  # no Tensors
        plain = False
    return ns.dot_general(x, y, contract=_LAST_WITH_FIRST, batch=_NO_BATCH) if plain else _matmul(x, y)


matmul.parameters = ("x", "y")  # type: ignore[attr-defined]  # it has the error contract itself


def affine(x: Any, w: Any, b: Any = None, /) -> Tensor:
    """x wᵀ + b for x [..., k], a matrix w [n, k] and b [n] or None: what a linear layer computes, in one operation.

    Raises ValueError for other shapes.

    >>> md.affine(md.tensor([1.0, 2.0]), md.tensor([[3.0, 4.0]]), md.tensor([0.5])).tolist()
    [11.5]
    """
    x = operand(x)
    w = operand(w, x)
    if w.ndim != 2 or not x.ndim or (b is not None and (b := operand(b, x)).shape != w.shape[:1]):
        given = "" if b is None else f" and bias {describe(b)}"
        raise ValueError(f"affine: {describe(x)} with weight {describe(w)}{given}; x [..., k], the weight [n, k] and the bias [n] are wanted")
    if b is not None:
        return ns.affine(x, w, b)
    if x.shape[-1] != w.shape[1] or traced():
        return matmul(x, ns.permute(w, axes=(1, 0)))
    return ns.dot_general(x, w, contract=((x.ndim - 1,), (1,)), batch=((), ()))
