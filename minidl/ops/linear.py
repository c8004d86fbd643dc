"""Products: matmul and what a linear layer computes; both lower to dot_general.

Matrix times matrix on one backend and dtype takes generated straight-line code; everything else finds its axes first.
"""

from __future__ import annotations

from typing import Any

from minidl import shapes
from minidl.context import at_once
from minidl.emit import load
from minidl.errors import checked
from minidl.kinds import kind_of
from minidl.ops.common import Tensor, busy, describe, ns, operand, state, table, traced
from minidl.tape import count

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


def _generate_matmul() -> Any:
    """The product of two matrices, eager, on one backend and in one dtype; everything else goes to _matmul."""
    primitive = table["dot_general"]
    contract, batch = ((1,), (0,)), ((), ())
    env = {"Tensor": Tensor, "busy": busy, "state": state, "at_once": at_once, "count": count, "_matmul": _matmul, "C": contract, "B": batch}
    text = {"x": "a", "y": "b", "x_shape": "a.shape", "y_shape": "b.shape", "contract": "C", "batch": "B"}

    def node(live: tuple[int, ...]) -> str:
        kind = kind_of(primitive, live, False, 2)
        name = "K" + "".join(map(str, live))
        env[name] = kind
        return f"Tensor(out, xp, dt, [{', '.join(['next(count)', name, 'xp', *('nm'[i] for i in live), *(text[r] for r in kind.residuals)])}])"

    call = "xp.dot_general(a, b, contract=C, batch=B)"
    lines = [
        "def matmul(x, y, /):", "    try:", "        xp = x.xp; dt = x.dtype; a = x.payload; b = y.payload",
        "        if len(a.shape) == 2 == len(b.shape) and y.xp is xp and y.dtype is dt and (not busy[0] or at_once()):",
        "            if xp.needs_scope:", f"                with xp.scope(): out = {call}", f"            else: out = {call}",
        "            n = x.node; m = y.node",
        "            if n is None and m is None or busy[0] and not state.grad: return Tensor(out, xp, dt)",
        f"            if n is None: return {node((1,))}",
        f"            if m is None: return {node((0,))}", f"            return {node((0, 1))}",
        "    except Exception: pass", "    return _matmul(x, y)",
    ]  # fmt: skip
    return load("\n".join(lines) + "\n", env, "matmul")


matmul = _generate_matmul()
matmul.__module__ = __name__
matmul.__doc__ = """The matrix product x @ y, with NumPy's rules: 1-d arrays are a row on the left and a column on the right, leading axes broadcast.

Raises ValueError for 0-d arrays and for sizes that differ: `matmul: inner dimensions differ: f32[3,4] @ f32[5,6] (4 != 5)`.

>>> from minidl.ops import ones
>>> matmul(ones((2, 3)), ones((3, 4))).shape
(2, 4)
"""


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
