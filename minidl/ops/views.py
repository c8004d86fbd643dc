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

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from minidl.backends import get
from minidl.context import grad_mode, interpreting
from minidl.ops.common import Tensor, ns, reshaped, state
from minidl.tensors import origin

F = TypeVar("F", bound=Callable[..., Any])
_WHOLE = {"reshape", "expand_dims", "contiguous"}  # what keeps all elements in their order
_ORDERS = {"permute_dims", "swapaxes", "transpose", "moveaxis"}  # what keeps all elements


def mark(view: Tensor, base: Tensor, step: Any) -> Tensor:
    """Say of a new tensor that it shows elements of another. step: (function, further arguments, their names), where None is the function of an
    index; None for detach."""
    view.of = origin(base, step)
    return view


def view(f: F) -> F:
    """A function whose result shows elements of its first argument."""

    @functools.wraps(f)
    def viewing(x: Any, /, *args: Any, **params: Any) -> Any:
        out = f(x, *args, **params)
        return mark(out, x, (f, args, params)) if isinstance(x, Tensor) else out

    return viewing  # type: ignore[return-value]


def _again(base: Tensor, step: Any) -> Tensor:
    from minidl.ops.indexing import getitem

    return base.detach() if step is None else (step[0] or getitem)(base, *step[1], **step[2])


def source(of: Any) -> Tensor | None:
    """The base of a view as it is now, made again where only what it was made of lives; None where nobody can see it."""
    base = of[0]()
    if base is not None:
        settle(base)
    elif of[1] is not None and (root := source(of[1])) is not None:
        base = mark(_again(root, of[1][2]), root, of[1][2])
    return base


def settle(x: Tensor) -> None:
    """Before a view is changed: let it hold what its base does by now."""
    of = x.of
    if of is None:
        return
    base = source(of)
    if base is not None:
        x.of = None  # the base has this value already
        try:
            with grad_mode(state.grad and x.leaf is None):
                x.assign(_again(base, of[2]))
        finally:
            x.of = of


def through(x: Tensor, value: Tensor) -> None:
    """Store in the base of a view what is about to be stored in the view."""
    of = x.of
    base = source(of)
    if base is None or _copied(of):
        x.of = None
        return
    with grad_mode(state.grad and of[2] is not None):
        base.assign(value.detach() if of[2] is None else _put(base, of[2], value))


def _put(base: Tensor, step: Any, value: Tensor) -> Tensor:
    """The base with the value at the elements that the view shows."""
    f, args, _ = step
    if f is None:
        from minidl.ops.indexing import set_at

        return set_at(base, args[0], value)
    if f.__name__ == "bits":
        return ns.bitcast(value, dtype=base.dtype)
    if f.__name__ in _WHOLE:
        return reshaped(value, base.shape)
    if f.__name__ in _ORDERS:
        order = [n - 1 for n in _tried(np.empty(tuple(range(1, base.ndim + 1)), bool), step).shape]
        return ns.permute(value, axes=tuple(np.argsort(order).tolist()))
    n = int(base.size)  # a diagonal
    flat = reshaped(base, (n,)).at[_tried(np.arange(n).reshape(base.shape), step).reshape(-1)]
    return reshaped(flat.set(reshaped(value, (int(value.size),))), base.shape)


def _tried(array: np.ndarray, step: Any) -> np.ndarray:
    """What a step makes of a NumPy array, if possible without a copy."""
    xp = get("numpy")
    with interpreting(None):
        return _again(Tensor(array, xp, xp.dtype_of(array)), step).payload


def _copied(of: Any) -> bool:
    """Whether PyTorch, which minds the order in memory, copies at the last step."""
    return of[1] is not None and of[2] is not None and of[2][0] is not None and not _layout(of)[1]


def _layout(of: Any) -> tuple[np.ndarray, bool]:
    """A NumPy array that lies in memory as a view of PyTorch's would, and whether its last step copied nothing."""
    base = np.empty(of[3], np.int8) if of[1] is None else _layout(of[1])[0]
    if of[2] is None:
        return base, True
    if of[2][0] is None:
        index = of[2][1][0] if isinstance(of[2][1][0], tuple) else (of[2][1][0],)
        return base[tuple(0 if isinstance(k, Tensor) else k for k in index)], True
    found = np.ascontiguousarray(base) if of[2][0].__name__ == "contiguous" else _tried(base, of[2])
    return found, np.may_share_memory(found, base)
