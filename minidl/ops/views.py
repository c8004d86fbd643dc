"""What becomes of a write to a tensor that shows the elements of another: it reaches that other one, too.

`detach`, an index without arrays, another shape, another order of axes, a piece: PyTorch and NumPy make views of memory of these. Here they are
values, which stay as they were when their base changes, and `y = x[0]; y += 1` changes y alone, as it does to those who know JAX. But what nobody
writes who does not mean the base, `x[0].zero_()` and `x[0][1] = 2`, is stored in the base as well, at the same elements, and starts from what the
base holds by then. So nothing that is written is lost, eager, traced and mapped alike. What `detach` gives is the same tensor to operators, too.

A view knows in its slot `of`: a weak reference to its base, the base's own `of`, the step between the two (None for detach) and the base's shape.
Promises: a base is not kept alive by a view; where PyTorch copies (a reshape behind a transpose) the write stays with the copy; a view through
detach writes past the tape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.context import grad_mode
from minidl.ops.common import Tensor, fresh, ns, reshaped, state
from minidl.tensors import assign_alone, view


def _again(base: Tensor, step: Any) -> Tensor:
    """The view of a base."""
    from minidl.ops import indexing, manipulation

    if step is None:
        return base.detach()
    kind, how = step
    if kind == "part":
        raise RuntimeError(f"in-place: {how} is a value of its own here, so that x would not change; make another x with md.complex(real, imag)")
    if kind == "index":
        return indexing.getitem(base, how)
    if kind == "diagonal":
        return manipulation.diagonal(base, offset=how[0], axis1=how[1], axis2=how[2])
    if kind == "contiguous":
        return fresh(base)
    return ns.bitcast(base, dtype=how) if kind == "bits" else getattr(ns, kind)(base, **{"axes" if kind == "permute" else "shape": how})


def _put(base: Tensor, step: Any, value: Tensor) -> Tensor:
    """The base with the value at the elements that the view shows."""
    kind, how = step
    if kind == "part":
        return _again(base, step)
    if kind == "index":
        from minidl.ops.indexing import set_at

        return set_at(base, how, value)
    if kind == "permute":
        return ns.permute(value, axes=tuple(sorted(range(len(how)), key=how.__getitem__)))
    if kind == "bits":
        return ns.bitcast(value, dtype=base.dtype)
    if kind == "diagonal":
        n = int(base.size)
        where = np.diagonal(np.arange(n).reshape(base.shape), *how).reshape(-1)
        return reshaped(reshaped(base, (n,)).at[where].set(reshaped(value, (int(value.size),))), base.shape)
    return reshaped(value, base.shape)


def source(of: Any) -> Tensor | None:
    """The base of a view as it is now, made again where only what it was made of lives; None where nobody can see it."""
    base = of[0]()
    if base is not None:
        settle(base)
    elif of[1] is not None and (root := source(of[1])) is not None:
        base = view(_again(root, of[1][2]), root, of[1][2])
    return base


def settle(x: Tensor) -> None:
    """Before a view is changed: let it hold what its base does by now."""
    of = x.of
    if of is None:
        return
    base = source(of)
    if base is not None:
        with grad_mode(state.grad and x.leaf is None):
            assign_alone(x, _again(base, of[2]))


def through(x: Tensor, value: Tensor) -> None:
    """Store in the base of a view what is about to be stored in the view."""
    of = x.of
    base = source(of)
    if base is None or _copied(of):
        x.of = None
        return
    with grad_mode(state.grad and of[2] is not None):
        base.assign(value.detach() if of[2] is None else _put(base, of[2], value))


def _copied(of: Any) -> bool:
    """Whether PyTorch, which minds the order in memory, copies at the last step."""
    return of[1] is not None and of[2] is not None and of[2][0] in ("reshape", "contiguous") and _layout(of)[1]


def _layout(of: Any) -> tuple[np.ndarray, bool]:
    """A NumPy array that lies in memory as a view of PyTorch's would, and whether the last step copied it."""
    base = found = np.empty(of[3], np.int8) if of[1] is None else _layout(of[1])[0]
    step: Any = of[2] or ("bits", None)
    kind, how = step
    if kind == "index":
        found = base[tuple(0 if isinstance(k, Tensor) else k for k in (how if isinstance(how, tuple) else (how,)))]
        found = found if isinstance(found, np.ndarray) else base[(slice(1),) * base.ndim].reshape(())
    elif kind == "diagonal":
        found = np.diagonal(base, *how)
    elif kind in ("reshape", "permute"):
        found = base.reshape(how) if kind == "reshape" else base.transpose(how)
    elif kind == "contiguous":
        found = np.ascontiguousarray(base)
    return found, not np.may_share_memory(found, base)
