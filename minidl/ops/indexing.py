"""Reading and writing at positions: x[...] in all of NumPy's forms, take, take_along_axis.

An index expression is first reduced to one slice (with steps and flips), then, where it holds index arrays, to one gather or scatter on a leading
axis. Bounds: negative positions count from the end; a position out of range raises IndexError where it can be looked at (Python and NumPy indices
always, tensors when eager on the CPU); elsewhere writes are dropped and reads do as `md.out_of_bounds` says. Results are
values; what is stored in x[...] where no array is an index reaches x as well (minidl.ops.views).
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from minidl import later, shapes
from minidl.context import at_once, busy
from minidl.errors import refused
from minidl.ops.common import (
    Tensor,
    bind,
    cast,
    constant,
    deciding,
    describe,
    dtypes,
    eager_on_cpu,
    fresh,
    from_numpy,
    home,
    ns,
    operand,
    permuted,
    reshaped,
    shown,
    table,
    values,
)  # fmt: skip
from minidl.ops.manipulation import broadcast_to
from minidl.tensors import view

_KEEP = "use md.where(mask, x, other), which keeps all elements, or index with md.nonzero(mask), called outside the traced function"

__all__ = ["getitem", "set_at", "take", "take_along_axis"]


#: How far before the start negative positions are where they do not count from the end.
_FAR = 2**61
_OUT_OF_BOUNDS = "index {} is out of bounds for axis {} with size {}"


def _out_of_bounds(index: int, axis: int, size: int) -> IndexError:
    return IndexError(_OUT_OF_BOUNDS.format(index + _FAR * (index < -_FAR // 2), axis, size))


class Plan:
    """What an index expression means for an array of one shape: a slice, and index arrays on some axes."""

    __slots__ = ("arrays", "axes", "dropped", "flips", "layout", "sliced", "start", "step", "stop", "together")

    def __init__(self, x: Tensor, index: Any):
        items = _expand(x, index if isinstance(index, tuple) else (index,))
        shape = x.shape
        advanced = any(isinstance(i, (np.ndarray, Tensor)) for i in items)
        self.start, self.stop, self.step = [0] * len(shape), list(shape), [1] * len(shape)
        self.flips: list[int] = []
        self.axes: list[int] = []  # axes that index arrays address
        self.arrays: list[Any] = []
        self.dropped: list[int] = []  # axes that an integer removes
        self.layout: list[int | None] = []  # axes of the sliced array in the order of the result, None for new ones
        places: list[int] = []  # where in the layout the arrays stand
        axis = 0
        gap = 0
        for number, item in enumerate(items):
            if item is None:
                self.layout.append(None)
                continue
            if item is Ellipsis:
                continue  # of no axes, but it separates index arrays
            n = shape[axis]
            if isinstance(item, slice):
                self._slice(axis, item, n)
                self.layout.append(axis)
            elif isinstance(item, int) and not advanced:
                if not -n <= item < n:
                    raise _out_of_bounds(item, axis, n)
                self.start[axis] = item % n
                self.stop[axis] = item % n + 1
                self.dropped.append(axis)
            else:
                if places and number != gap + 1:
                    places.append(-1)  # not next to each other
                gap = number
                places.append(len(self.layout))
                self.axes.append(axis)
                self.arrays.append(np.asarray(item) if isinstance(item, int) else item)
            axis += 1
        self.together = 0 if -1 in places or not places else places[0]
        self.sliced = any(a or b != n or s != 1 for a, b, s, n in zip(self.start, self.stop, self.step, shape, strict=True)) or bool(self.flips)

    def _slice(self, axis: int, item: slice, n: int) -> None:
        start, stop, step = item.indices(n)
        count = len(range(start, stop, step))
        if count <= 1:  # whatever the step is
            start = min(max(start, 0), n) if count else 0
            stop, step = start + count, 1
        elif step < 0:
            start, stop, step = start + (count - 1) * step, start + 1, -step
            self.flips.append(axis)
        self.start[axis], self.stop[axis], self.step[axis] = start, stop, step

    def places(self) -> tuple[int, ...]:
        """The shape that the index arrays broadcast to. Raises IndexError where they do not."""
        found = [a.shape for a in self.arrays]
        try:
            return shapes.broadcast(*found)
        except ValueError:
            raise IndexError(f"indexing: the index arrays of shapes {', '.join(map(str, found))} do not broadcast") from None

    def cut(self, x: Tensor) -> Tensor:
        """The slice, all axes kept."""
        if not self.sliced:
            return x
        window = (self.start, self.stop, self.step)
        if any(a or b != n or s != 1 for a, b, s, n in zip(*window, x.shape, strict=True)):
            x = ns.slice(x, start=tuple(self.start), stop=tuple(self.stop), step=tuple(self.step))
        return ns.flip(x, axes=tuple(self.flips)) if self.flips else x

    def paste(self, x: Tensor, part: Tensor, mode: str) -> Tensor:
        """x with `part` combined into the slice."""
        if self.flips:
            part = ns.flip(part, axes=tuple(self.flips))
        if not self.sliced or part.shape == x.shape:
            return _combine(x, part, mode)
        window = {"start": tuple(self.start), "stop": tuple(self.stop), "step": tuple(self.step)}
        if mode == "set":
            return ns.paste(x, part, **window)
        window["shape"] = x.shape
        wide = ns.unslice(part, **window)
        if mode == "add":
            return ns.add(x, wide)
        inside = ns.unslice(constant(home(x.xp), part.shape, True, dtypes.bool_), **window)
        return ns.where(inside, _combine(x, wide, mode), x)


def _combine(x: Tensor, v: Tensor, mode: str) -> Tensor:
    if mode == "set":
        return broadcast_to(v, x.shape)
    return {"add": ns.add, "mul": ns.mul, "min": ns.minimum, "max": ns.maximum}[mode](x, v)


def _expand(x: Tensor, items: tuple[Any, ...]) -> list[Any]:
    """Integers, slices, None and index arrays, one entry per axis but for None; an Ellipsis becomes full slices (one of no axes stays)."""
    out: list[Any] = []
    for item in items:
        if item is None or item is Ellipsis or isinstance(item, slice):
            out.append(item)
        elif isinstance(item, (bool, np.bool_)):
            raise IndexError("indexing: a single bool is no index; use a mask of the array's shape, or md.where")
        elif isinstance(item, Tensor):
            out.extend(_mask(item) if item.dtype is dtypes.bool_ else (item,))
            if not item.dtype.is_integer and item.dtype is not dtypes.bool_:
                raise IndexError(f"indexing: an index array must be of integers or bool, not {describe(item)}")
        elif isinstance(item, (list, tuple, np.ndarray, range)):
            out.extend(_array(item))
        else:
            try:
                out.append(operator.index(item))
            except TypeError:
                raise IndexError(f"indexing: {type(item).__name__} is no index; integers, slices, None, ... and integer or bool arrays are") from None
    used = sum(i is not None and i is not Ellipsis for i in out)
    if used > x.ndim:
        raise IndexError(f"indexing: {used} indices for {describe(x)}, which has {x.ndim}")
    dots = [i for i, item in enumerate(out) if item is Ellipsis]
    if len(dots) > 1:
        raise IndexError("indexing: more than one Ellipsis (...)")
    missing: list[Any] = [slice(None)] * (x.ndim - used)
    if dots:
        return [*out[: dots[0]], *(missing or [Ellipsis]), *out[dots[0] + 1 :]]
    return out + missing


def _array(item: Any) -> list[Any]:
    from minidl.ops.creation import _holds_tensor, asarray

    if _holds_tensor(item):
        t = asarray(item)
        return _mask(t) if t.dtype is dtypes.bool_ else [t]
    array = np.asarray(item)
    if not array.size and not isinstance(item, np.ndarray):
        array = array.astype(np.int64)
    if array.dtype == bool:
        return _nonzero(array)
    if array.dtype.kind not in "iu":
        raise IndexError(f"indexing: an index array must be of integers or bool, not {array.dtype}")
    return [int(array) if not array.ndim else array.astype(np.int64)]


class _Found(np.ndarray):
    """The positions along one axis of a mask's true elements, and the size the axis must have."""

    wanted: int


def _nonzero(mask: np.ndarray) -> list[np.ndarray]:
    if not mask.ndim:
        raise IndexError("indexing: a single bool is no index; use a mask of the array's shape, or md.where")
    found = [i.view(_Found) for i in np.nonzero(mask)]
    for i, n in zip(found, mask.shape, strict=True):
        i.wanted = n
    return list(found)


def _mask(mask: Tensor) -> list[np.ndarray]:
    return _nonzero(deciding(mask, "indexing with a mask", _KEEP))


def _positions(x: Tensor, plan: Plan, write: bool, mode: str | None = None) -> tuple[Tensor, Tensor | None]:
    """One int64 array of positions on the leading axis that the addressed axes make together, and which lie inside (None: all). Positions to read
    are clipped, those to write lie beyond the end."""
    sizes = [x.shape[a] for a in plan.axes]
    plan.places()
    if all(isinstance(i, np.ndarray) for i in plan.arrays):  # all known here: checked, wrapped and combined by NumPy
        known = [_checked(i, a, n) for i, a, n in zip(plan.arrays, plan.axes, sizes, strict=True)]
        flat = known[0]
        for i, n in zip(known[1:], sizes[1:], strict=True):
            flat = flat * n + i
        return from_numpy(np.asarray(flat, np.int64), home(x.xp)), None
    parts, inside = [], None
    for i, a, n in zip(plan.arrays, plan.axes, sizes, strict=True):
        if isinstance(i, np.ndarray):
            parts.append(from_numpy(_checked(i, a, n), home(x.xp)))
            continue
        i, sure = wrapped(i, a, n, mode)  # type: ignore[assignment]
        if not sure:
            rule = mode or later.policy()
            if rule != "clip" or (write and len(sizes) > 1 and mode is None):
                ok = _inside(i, a, n, rule)
                inside = ok if inside is None else ns.logical_and(inside, ok)
            if not write or len(sizes) > 1 or mode == "clip":
                i = ns.clip(i, 0, max(n - 1, 0))
        parts.append(i)
    out = parts[0]
    for i, n in zip(parts[1:], sizes[1:], strict=True):  # type: ignore[assignment]
        out = ns.add(ns.mul(out, n), i)
    return (ns.where(inside, out, shapes.prod(sizes)) if write and len(sizes) > 1 and inside is not None else out), inside


def _checked(i: np.ndarray, axis: int, n: int) -> np.ndarray:
    if isinstance(i, _Found):
        if i.wanted not in (0, n):
            raise IndexError(f"indexing: a mask with size {i.wanted} does not fit axis {axis} with size {n}")
        return i.view(np.ndarray)
    if i.dtype == np.int64 and np.maximum.reduce(i.view(np.uint64), axis=None, initial=0) < n:
        return i  # as unsigned numbers, negative ones are beyond every end
    if i.size:
        low, high = int(i.min()), int(i.max())
        if low < -n or high >= n:
            raise _out_of_bounds(low if low < -n else high, axis, n)
        if low < 0:
            return np.where(i < 0, i + n, i)
    return i


def wrapped(i: Tensor, axis: int, n: int, mode: str | None = None) -> tuple[Tensor, bool]:
    """An index tensor as int64 with negative positions counted from the end, and whether all are known to lie inside."""
    i = cast(i, dtypes.int64)
    if mode is None and eager_on_cpu(i):
        found = values(i, "indexing")
        checked = _checked(found, axis, n)
        return (i if checked is found else ns.where(ns.lt(i, 0), ns.add(i, n), i)), True
    return ns.where(ns.lt(i, 0), ns.add(i, n), i), False


def _inside(i: Tensor, axis: int, n: int, rule: str) -> Tensor:
    """Which positions lie inside; under the rule "raise-later" the others are an error to come."""
    inside = ns.logical_and(ns.ge(i, 0), ns.lt(i, n))
    if rule == "raise-later":
        given = ns.where(ns.lt(i, 0), ns.sub(i, n), i)  # before those from the end were counted from the start
        later.expect(ns.logical_not(inside), IndexError, _OUT_OF_BOUNDS.format("{}", axis, n), given)
    return inside


def _filled(out: Tensor, inside: Tensor | None, mode: str | None, value: Any = None) -> Tensor:
    """What was read, with the value (by default that of the policy) that "fill" has where nothing is. inside: of the first axes."""
    if inside is None or (mode or later.policy()) != "fill":
        return out
    d = out.dtype
    if value is None:
        value = math.nan if d.inexact else True if d is dtypes.bool_ else -(2 ** (d.bits - 1)) if d.kind == "int" else 2**d.bits - 1
    rest = out.ndim - inside.ndim
    return ns.where(reshaped(inside, (*inside.shape, *(1,) * rest)), out, value)


def _plain(item: Any) -> bool:
    """Whether an entry of an index is none of the arrays that PyTorch and NumPy gather by; a 0-d tensor is a position for PyTorch."""
    if isinstance(item, Tensor):
        return not item.ndim and item.dtype is not dtypes.bool_
    return item is None or item is Ellipsis or isinstance(item, (int, slice, np.integer))


def _frozen(item: Any) -> Any:
    """An entry of the index of a view, which stays what it is now when a tensor in it changes."""
    if isinstance(item, slice):
        return slice(*(k if k is None else operator.index(k) for k in (item.start, item.stop, item.step)))
    return item if not isinstance(item, Tensor) else int(values(item, "indexing")) if eager_on_cpu(item) else fresh(item)


def _rows(x: Tensor, index: Any) -> bool:
    """Whether an index is one tensor of positions along the first axis that can be looked at: then there is nothing to plan."""
    return isinstance(index, Tensor) and index.dtype.is_integer and x.ndim > 0 and eager_on_cpu(index)


def _row(x: Tensor, index: int) -> dict[str, tuple[int, ...]]:
    """Where row `index` lies: the plan would say the same, later."""
    n, *rest = x.payload.shape
    if not -n <= index < n:
        raise _out_of_bounds(index, 0, n)
    zeros, i = (0,) * len(rest), index % n
    return {"start": (i, *zeros), "stop": (i + 1, *rest), "step": (1,) * (len(rest) + 1)}


_plans: dict[tuple[Any, ...], tuple[Any, ...]] = {}
_INTS, _ENTRIES = frozenset((int, type(None))), frozenset((int, type(None), type(...)))


def _known(x: Tensor, index: Any) -> tuple[Any, ...] | None:
    """For an index of numbers, None, ... and slices of numbers: the slice that it means, what is flipped, the shape, and the index as a tuple."""
    key: list[Any] = [x.payload.shape]
    whole = index if index.__class__ is tuple else (index,)
    for i in whole:
        if i.__class__ is slice and _INTS.issuperset((i.start.__class__, i.stop.__class__, i.step.__class__)):
            key += (slice, i.start, i.stop, i.step)
        elif i.__class__ in _ENTRIES:
            key.append(i)
        else:
            return None
    found = _plans.get(k := tuple(key))
    if found is None:
        plan = Plan(x, index)
        window = {"start": tuple(plan.start), "stop": tuple(plan.stop), "step": tuple(plan.step)}
        sizes = [len(range(*bounds)) for bounds in zip(*window.values(), strict=True)]
        if len(_plans) > 4096:
            _plans.clear()
        slices = None if sizes == list(x.shape) else window
        found = _plans[k] = slices, tuple(plan.flips), tuple(1 if a is None else sizes[a] for a in plan.layout), whole
    return found


def getitem(x: Any, index: Any, /, *, bounds: str | None = None, fill_value: Any = None, wrap: bool = True) -> Tensor:
    """x[index]: integers, slices (also of negative step), None, ..., integer arrays and lists, bool masks (eager). The result is a
    value; where PyTorch calls it a view, what is stored in it in place is stored in x as well. bounds: what a position out of range gives, as `mode`
    of x.at says it ("fill": fill_value); wrap=False: a negative one is out of range, too.

    >>> md.getitem(md.arange(5), slice(None, None, -2)).tolist()
    [4, 2, 0]
    """
    try:
        x, index = operand(x), index if wrap else _from_start(index)
        if bounds is not None and (rule := _bounds("at[].get", bounds)) is not None:
            return _read(x, _addressed(x, index), rule, fill_value)
        known = None if busy[0] and not at_once() else _known(x, index)
        if known is not None:
            window, flips, shape, whole = known
            y = ns.slice(x, **window) if window else x
            y = ns.flip(y, axes=flips) if flips else y
            y = y if y.payload.shape == shape else ns.reshape(y, shape=shape)
            return view(fresh(x) if y is x else y, x, ("index", whole))
        if _rows(x, index):
            out = ns.gather(x, wrapped(index, 0, x.shape[0])[0])
            return out if index.ndim else view(out, x, ("index", _frozen(index)))
        if isinstance(index, Tensor) and index.dtype is dtypes.bool_ and not index.ndim:  # all of x, or nothing
            kept = int(deciding(index, "indexing with a mask", _KEEP))
            return ns.broadcast_to(ns.reshape(x, shape=(1, *x.shape)), shape=(kept, *x.shape))
        out = _read(x, index, None)
        whole = index if isinstance(index, tuple) else (index,)
        return view(out, x, ("index", tuple(map(_frozen, whole)))) if all(map(_plain, whole)) else out
    except Exception as error:
        raise refused(getitem, error, x, index) from None


def _read(x: Tensor, index: Any, mode: str | None, value: Any = None) -> Tensor:
    """x[index]; mode: what to read out of range, also eager. value: with which "fill" fills."""
    plan = Plan(x, index)
    y = plan.cut(x)
    if not plan.axes:
        shape = tuple(1 if a is None else y.shape[a] for a in plan.layout)
        y = reshaped(y, shape)
        return fresh(x) if y is x else y
    i, inside = _positions(x, plan, write=False, mode=mode)
    out = _filled(ns.gather(_front(y, plan), i), inside, mode, value)
    order, shape = _placed(plan, i.ndim, out.shape)
    return reshaped(permuted(out, order), shape)


def _front(y: Tensor, plan: Plan) -> Tensor:
    """The addressed axes as one leading axis."""
    rest = [a for a in range(y.ndim) if a not in plan.axes]
    y = permuted(y, (*plan.axes, *rest))
    k = len(plan.axes)
    return y if k == 1 else ns.reshape(y, shape=(shapes.prod(y.shape[:k]), *y.shape[k:]))


def _placed(plan: Plan, n: int, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where NumPy puts the n axes of the index arrays: the order of the gathered axes, and the shape with new axes."""
    before = sum(a is not None for a in plan.layout[: plan.together])
    rest = range(n, len(shape))
    order = (*rest[:before], *range(n), *rest[before:])
    sizes = iter(shape[n:])
    entries = [1 if a is None else next(sizes) for a in plan.layout]
    return order, (*entries[: plan.together], *shape[:n], *entries[plan.together :])


def fitting(name: str, value: Tensor, x: Tensor) -> Tensor:
    """A value in the dtype of the tensor that it is stored in. Raises TypeError for a complex one in a real tensor."""
    if value.dtype.is_complex and not x.dtype.is_complex:
        raise TypeError(f"{name}: {describe(value)} does not fit {describe(x)}; store md.real(value), or make x complex, x.to(md.complex64)")
    return cast(value, x.dtype)


def set_at(x: Any, index: Any, value: Any, mode: str = "set", /, *, bounds: str | None = None, wrap: bool = True) -> Tensor:
    """x with `value` put (or added, multiplied, …) at x[index]; x itself stays. Of several values for one position the last is set, all are added.
    bounds: what happens to a position out of range, as `mode` of x.at says it; wrap=False: a negative one is out of range, too.

    Raises IndexError for what is no index, a mask that does not fit, and a position out of range (where it can be looked at, see
    md.out_of_bounds), ValueError for a value that does not broadcast, TypeError for a complex one in a real x.

    >>> md.set_at(md.zeros(3), 1, 5.0).tolist()
    [0.0, 5.0, 0.0]
    """
    x, index = operand(x), index if wrap else _from_start(index)
    value = fitting("indexing", value if isinstance(value, Tensor) else operand(value, x), x)
    if isinstance(index, Tensor) and index.dtype is dtypes.bool_ and index.ndim <= x.ndim and value.ndim <= x.ndim - index.ndim:
        if index.shape != x.shape[: index.ndim]:
            if all(m in (0, n) for m, n in zip(index.shape, x.shape, strict=False)):  # a mask of size 0 fits any axis, and chooses nothing
                return fresh(x)
            raise IndexError(f"indexing: the mask {describe(index)} does not fit {describe(x)}")
        mask = ns.reshape(index, shape=(*index.shape, *(1,) * (x.ndim - index.ndim)))
        return ns.where(mask, _combine(x, value, mode), x)
    if isinstance(index, Tensor) and index.dtype is dtypes.bool_ and not index.ndim:  # value has the leading axis of x[index], of size 1 or 0
        kept = int(deciding(index, "indexing with a mask", _KEEP))
        whole = broadcast_to(value, (kept, *x.shape))
        return _combine(x, ns.reshape(whole, shape=x.shape), mode) if kept else fresh(x)
    rule = _bounds("set_at", bounds)
    if index.__class__ is int and x.ndim and mode == "set" and rule is None:
        window = _row(x, index)
        return ns.paste(x, ns.reshape(_fitted(value, x.shape[1:]), shape=(1, *x.shape[1:])), **window)
    if rule is None and _rows(x, one := index[0] if isinstance(index, tuple) and len(index) == 1 else index):
        updates = _fitted(value, (*one.shape, *x.shape[1:]))
        return ns.scatter(x, updates, wrapped(one, 0, x.shape[0])[0], mode=mode)
    plan = Plan(x, index if rule is None else _addressed(x, index))
    if not plan.axes:
        part_shape = _cut_shape(plan)
        shown = tuple(1 if a is None else part_shape[a] for a in plan.layout)
        return plan.paste(x, reshaped(_fitted(value, shown), part_shape), mode)
    part = plan.cut(x)
    front = _front(part, plan)
    places = plan.places()
    full = (*places, *front.shape[1:])
    order, shape = _placed(plan, len(places), full)
    updates = reshaped(_fitted(value, shape), tuple(full[a] for a in order))  # whether it fits is settled before any index is looked at
    updates = permuted(updates, tuple(np.argsort(order).tolist()))
    i, _ = _positions(x, plan, write=True, mode=rule)
    new = bind(table["scatter"], (front, updates, i), {"mode": mode})
    rest = [a for a in range(part.ndim) if a not in plan.axes]
    new = reshaped(new, tuple(part.shape[a] for a in (*plan.axes, *rest)))
    new = permuted(new, tuple(np.argsort((*plan.axes, *rest)).tolist()))
    return plan.paste(x, new, "set") if plan.sliced else new


def _cut_shape(plan: Plan) -> tuple[int, ...]:
    return tuple(max(0, -((a - b) // s)) for a, b, s in zip(plan.start, plan.stop, plan.step, strict=True))


def _fitted(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    if value.shape == shape:
        return value
    extra = value.ndim - len(shape)
    if extra > 0 and all(n == 1 for n in value.shape[:extra]):
        value = ns.reshape(value, shape=value.shape[extra:])
    return ns.broadcast_to(value, shape=shape)


#: What JAX calls the rules for positions out of range.
_BOUNDS = {None: None, "promise_in_bounds": None, "drop": "fill", "fill": "fill", "clip": "clip"}


def _bounds(name: str, mode: Any) -> str | None:
    if mode not in _BOUNDS:
        raise ValueError(f"{name}: mode is 'drop', 'fill', 'clip', 'promise_in_bounds' or None, not {shown(mode)}")
    return _BOUNDS[mode]


def _addressed(x: Tensor, index: Any) -> tuple[Any, ...]:
    """An index whose integers are data, so that those out of range are none of the caller's mistakes."""
    items = index if isinstance(index, tuple) else (index,)
    known = [np.asarray(i) if isinstance(i, (int, np.integer, np.ndarray, list)) and not isinstance(i, bool) else i for i in items]
    return tuple(from_numpy(i, home(x.xp)) if isinstance(i, np.ndarray) and i.dtype.kind in "iu" else i for i in known)


def _from_start(index: Any) -> Any:
    """An index whose negative positions are before every start."""
    items = index if isinstance(index, tuple) else (index,)
    known = [np.asarray(i) if isinstance(i, (int, np.integer, list)) and not isinstance(i, bool) else i for i in items]
    wide = lambda i: cast(i, dtypes.int64) if isinstance(i, Tensor) else i.astype(np.int64)
    far = lambda i: (ns if isinstance(i, Tensor) else np).where(i < 0, wide(i) - _FAR, wide(i))
    whole = lambda i: i.dtype.kind == "int" if isinstance(i, Tensor) else isinstance(i, np.ndarray) and i.dtype.kind == "i"
    return tuple(far(i) if whole(i) else i for i in known)


def _mode(name: str, mode: str | None) -> None:
    if mode not in (None, "clip", "fill"):
        raise ValueError(f"{name}: mode is 'clip', 'fill' or None, not {shown(mode)}")


def take(x: Any, indices: Any, /, *, axis: int | None = None, mode: str | None = None) -> Tensor:
    """The elements at these positions along an axis (which may be left out for a number and a 1-d array).

    mode: what positions out of range give, also eager: "clip" the nearest element, "fill" nan (the smallest signed integer, the largest unsigned one,
    True). None raises IndexError where they can be looked at (eager on a CPU), and elsewhere does as md.out_of_bounds says.

    >>> from minidl.ops import tensor
    >>> take(tensor([1.0, 2.0]), [0, 7], mode="fill").tolist()
    [1.0, nan]
    """
    x = operand(x)
    _mode("take", mode)
    if axis is None and x.ndim > 1:
        raise ValueError(f"take: {describe(x)} has {x.ndim} axes; say which one with axis=")
    x, a = (x, shapes.axis_index("take", axis or 0, x.ndim)) if x.ndim or axis is not None else (ns.reshape(x, shape=(1,)), 0)
    if a == 0 and mode is None and _rows(x, indices):
        return ns.gather(x, wrapped(indices, 0, x.shape[0])[0])
    i = indices if mode is None or isinstance(indices, Tensor) else from_numpy(np.asarray(indices), home(x.xp))
    return _read(x, (*(slice(None),) * a, i), mode)


def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1, mode: str | None = None) -> Tensor:
    """x[..., indices[..., i, ...], ...] along an axis; the other axes broadcast. mode and IndexError as in take.

    >>> from minidl.ops import tensor
    >>> take_along_axis(tensor([[1, 2], [3, 4]]), tensor([[1], [0]])).tolist()
    [[2], [3]]
    """
    _mode("take_along_axis", mode)
    x = operand(x)
    indices = operand(indices if not isinstance(indices, list) else np.asarray(indices), x)
    if indices.ndim != x.ndim:
        raise ValueError(f"take_along_axis: {describe(x)} and indices {describe(indices)} must have as many axes")
    if not indices.dtype.is_integer:
        raise IndexError(f"take_along_axis: indices must be integers, not {describe(indices)}")
    a = shapes.axis_index("take_along_axis", axis, x.ndim)
    n = x.shape[a]
    try:
        rest = shapes.broadcast(shapes.reduced(x.shape, (a,), False), shapes.reduced(indices.shape, (a,), False))
    except ValueError:
        raise ValueError(f"take_along_axis: {describe(x)} and indices {describe(indices)} differ outside axis {a}") from None
    i, sure = wrapped(indices, a, n, mode)
    rule, inside = "" if sure else mode or later.policy(), None
    if not sure:
        inside = _inside(i, a, n, rule) if rule != "clip" else None
        i = ns.clip(i, 0, max(n - 1, 0))
    whole, wanted = (*rest[:a], x.shape[a], *rest[a:]), (*rest[:a], i.shape[a], *rest[a:])
    x, i = (v if v.shape == s else ns.broadcast_to(v, shape=s) for v, s in ((x, whole), (i, wanted)))
    out = ns.take_along(x, i, axis=a)
    return out if inside is None else _filled(out, ns.broadcast_to(inside, shape=wanted), rule)
