"""What becomes of a write to a tensor that shows the elements of another: it reaches that other one, too.

`detach`, an index without arrays, another shape, another order of axes, a piece: PyTorch and NumPy make views of memory of these. Here they are
values, which stay as they were when their base changes, and `y = x[0]; y += 1` changes y alone, as it does to those who know JAX. But what nobody
writes who does not mean the base, `x[0].zero_()` and `x[0][1] = 2`, is stored in the base as well, at the same elements, and starts from what the
base holds by then. So nothing that is written is lost, eager, traced and mapped alike. What `detach` gives is the same tensor to operators, too.

A view knows in its slot `of`: a weak reference to its base, the base's own `of`, the step between the two (None for detach), the base's shape, and
how often the base had been given other data (`x.data = y`): where that goes on, the views of the old data are tensors of their own. The index in a
step is what it was when the view was made. A chain of views whose middle is gone is folded into one step (`folded`), so that reading costs the same
at any depth. Promises: a base is not kept alive by a view; where PyTorch copies (a reshape behind a transpose) the write stays with the copy, which
does not follow its base either; a view through detach writes past the tape; the highest base is written first, so that one which refuses leaves all
as they were.
"""

from __future__ import annotations

from _thread import RLock
from typing import Any, NamedTuple

import numpy as np

from minidl.context import grad_mode
from minidl.ops.common import Tensor, fresh, ns, reshaped, state
from minidl.tensors import assign_alone, living, sever, view

#: Held where parts of a tensor are stored: what threads store in different parts is all there.
parts = RLock()
#: How NumPy says that a reshape would copy, where it can.
_SAY = {"copy": False} if np.lib.NumpyVersion(np.__version__) >= "2.1.0" else {}


class _Strided(NamedTuple):
    """Elements of a base at even distances, in a dtype of the same width; past: behind a detach."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: Any
    past: bool

    def places(self) -> np.ndarray:
        """Where they are in the base, flat, in the view's order."""
        found = np.full((), self.offset)
        for n, stride in zip(self.shape, self.strides, strict=True):
            found = np.add.outer(found, np.arange(n) * stride)
        return found.reshape(-1)


def _bits(x: Tensor, dtype: Any) -> Tensor:
    return x if x.dtype is dtype else ns.bitcast(x, dtype=dtype)


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
    if kind == "strided":
        out = indexing.getitem(reshaped(base.detach() if how.past else base, (int(base.size),)), how.places())
        return _bits(reshaped(out, how.shape), how.dtype)
    return ns.bitcast(base, dtype=how) if kind == "bits" else getattr(ns, kind)(base, **{"axes" if kind == "permute" else "shape": how})


def _put(base: Tensor, step: Any, value: Tensor) -> Tensor:
    """The base with the value at the elements that the view shows."""
    from minidl.ops.indexing import set_at

    kind, how = step
    if kind == "part":
        return _again(base, step)
    if kind == "index":
        return set_at(base, how, value)
    if kind == "permute":
        return ns.permute(value, axes=tuple(sorted(range(len(how)), key=how.__getitem__)))
    if kind in ("diagonal", "strided"):
        if kind == "diagonal":
            whole = np.empty(base.shape, np.int8)
            how = _strided(np.diagonal(whole, *how), whole, base.dtype, False)
        flat = reshaped(_bits(value, base.dtype), (int(value.size),))
        return reshaped(set_at(reshaped(base, (int(base.size),)), how.places(), flat), base.shape)
    return ns.bitcast(value, dtype=base.dtype) if kind == "bits" else reshaped(value, base.shape)


def links_of(of: Any) -> tuple[list[Any], Tensor | None]:
    """The steps from a view up to the nearest tensor that lives, and that; no tensor where nobody can see the base."""
    found = []
    while of is not None:
        found.append(of)
        if (base := living(of)) is not None:
            return found, base
        of = of[1]
    return found, None


def _between(links: list[Any], base: Tensor) -> list[Tensor]:
    """The bases of some steps, lowest first: those that are gone are made again from the last one."""
    made = [base]
    for link in links[:0:-1]:
        made.append(_again(made[-1], link[2]))
    return made[::-1]


def settle(x: Tensor) -> None:
    """Before a view is changed: let it hold what its base does by now."""
    chain = []
    while x.of is not None:
        links, base = links_of(x.of)
        if base is None or copies(links):
            sever(x)
            break
        chain.append((x, links, base))
        x = base
    for t, links, base in reversed(chain):
        with grad_mode((state.grad or t.node is not None) and t.leaf is None):
            assign_alone(t, _again(_between(links, base)[0], links[0][2]))


def through(x: Tensor, value: Tensor) -> None:
    """Store in the bases of a view what is about to be stored in the view; in the highest first, which may refuse it."""
    with parts:
        _through(x, value)


def _through(x: Tensor, value: Tensor) -> None:
    links, base = links_of(x.of)
    if base is None:
        x.of = None
        return
    if base.of is not None:
        settle(base)
    grad, found = state.grad, []
    while base is not None:
        for link, between in zip(links, _between(links, base), strict=True):
            if _copied(link):
                sever(x)
                base = None
                break
            grad = grad and not _past(link[2])
            with grad_mode(grad):
                value = value.detach() if link[2] is None else _put(between, link[2], value)
        else:
            found.append((base, value, grad))
            x = base
            links, base = links_of(x.of)
    for base, value, grad in reversed(found):
        with grad_mode(grad):
            assign_alone(base, value)


def tie(out: Tensor, x: Tensor, memo: dict[int, Any]) -> Tensor:
    """Let the deep copy of a view be one of the copy of its base, for as long as somebody holds that."""
    import copy

    links, base = links_of(x.of)
    if base is not None and (base.node is None or base.leaf is not None) and not copies(links):
        view(out, copy.deepcopy(base, memo), links[-1][2])
        for link in links[-2::-1]:
            out.of = link[0], out.of, *link[2:]
    return out


def copies(links: list[Any]) -> bool:
    """Whether PyTorch copies at one of these steps, so that what is below is a tensor of its own."""
    return any(map(_copied, links))


def apart(x: Tensor) -> bool:
    """Whether a write to a tensor reaches no other one."""
    links, base = links_of(x.of)
    return base is None or copies(links)


def _past(step: Any) -> bool:
    return step is None or (step[0] == "strided" and step[1].past)


def _copied(of: Any) -> bool:
    """Whether PyTorch, which minds the order in memory, copies at the last step."""
    if of[1] is None or of[2] is None or of[2][0] not in ("reshape", "contiguous"):
        return False
    links = []
    while of is not None:
        links.append(of)
        of = of[1]
    found = np.empty(links[-1][3], np.int8)
    for link in reversed(links):
        found, copied = _laid(found, link[2])
    return copied


def _laid(base: Any, step: Any) -> tuple[np.ndarray, bool]:
    """A NumPy array that lies in memory as a view of PyTorch's would, and whether the step copies. Nobody looks at its elements."""
    step = step or ("bits", None)
    kind, how = step
    if kind == "index":
        key = tuple(0 if isinstance(k, Tensor) else k for k in (how if isinstance(how, tuple) else (how,)))
        found = base[key]
        return (found if isinstance(found, np.ndarray) else base[(*key, None)].reshape(())), False  # NumPy's numbers have no place in memory
    if kind == "contiguous":
        return (base, False) if base.flags.c_contiguous else (np.empty(base.shape, np.int8), True)
    if kind == "reshape":
        try:
            found = base.reshape(how, **_SAY)
        except ValueError:
            return np.empty(how, np.int8), True
        return found, not np.may_share_memory(found, base)
    if kind == "strided":
        return np.lib.stride_tricks.as_strided(base.reshape(-1)[how.offset :], how.shape, how.strides), False
    return np.diagonal(base, *how) if kind == "diagonal" else base.transpose(how) if kind == "permute" else base, False


def _strided(found: np.ndarray, whole: np.ndarray, dtype: Any, past: bool) -> _Strided:
    start = found.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    return _Strided(found.shape, found.strides, start, dtype, past)


def folded(of: Any, alive: Any) -> Any:
    """One step for all those from a view up to a base that lives, so that long chains of views stay short; what there was where there is none."""
    links, base = [of], living(alive)
    while links[-1] is not alive:
        links.append(links[-1][1])
    whole = found = np.empty(alive[3], np.int8)
    dtype: Any = None if base is None else base.dtype
    past = False
    for link in reversed(links):
        step: Any = link[2] or ("bits", dtype)
        kind, how = step
        if base is None or kind == "part" or any(isinstance(k, Tensor) for k in (how if isinstance(how, tuple) else (how,))):
            return of
        past = past or _past(link[2])
        dtype = how.dtype if kind == "strided" else how if kind == "bits" else dtype
        found, copied = _laid(found, link[2])
        if copied:
            return None if alive[1] is None else of
    return alive[0], alive[1], ("strided", _strided(found, whole, dtype, past)), alive[3], alive[4]
