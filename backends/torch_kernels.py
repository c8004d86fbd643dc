"""The primitives in PyTorch, continued: reductions and what goes along one axis, structure and indexing. Promises: those of torch_elementwise."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable
from typing import Any

import torch

from minidl.backends.torch_elementwise import KERNELS, SUMS, Kernel, as_number, as_signed, early, kernel
from minidl.backends.torch_linear import HALF, SIGNED, affine, blank, dot_general, unseen

Tensor = torch.Tensor
Axes = tuple[int, ...]
_SINGLE = (torch.float32, torch.float64)
_MANY = 2**16  # elements from which on places are looked at before they are used; and of a sum that is taken in blocks


# ---- reductions and what goes along one axis ------------------------------------------------------------------------------------------
@functools.lru_cache(1024)
def _first(shape: Axes, axis: Axes) -> Axes | None:
    """Of a sum of more than 4096 elements: the last of its axes that have no more together, where the others have no more either, () where they do or
    the sum is over all axes, as there NumPy is more accurate than two sums. None for a shorter sum."""
    if math.prod(shape[a] for a in axis) <= 4096:
        return None
    inner: Axes = ()
    for a in reversed(axis):
        if math.prod(shape[b] for b in (a, *inner)) > 4096:
            break
        inner = (a, *inner)
    rest = math.prod(shape[a] for a in axis if a not in inner)
    return inner if len(axis) < len(shape) and rest <= 4096 else ()


def short_rows(shape: Axes, axis: Axes) -> bool:
    """Whether a sum is over rows so short, and of so many, that torch's loop over a row costs more than the sums of whole columns."""
    return len(shape) - 1 in axis and 2 <= shape[-1] <= 4 and math.prod(shape) >= 2**14


@kernel
@early("ring")
def sum_(x: Tensor, *, axis: Axes, keepdims: bool) -> Tensor:
    if not axis:
        return x  # to torch no axis means all axes
    if x.is_cpu and x.dtype in _SINGLE and short_rows(x.shape, axis) and not unseen(x):
        first, second, *others = x.unbind(-1)
        total = torch.add(first, second)
        for column in others:
            total.add_(column)
        total.add_(0.0)  # no sum is a negative zero
        out = sum_(total, axis=tuple(a for a in axis if a != x.ndim - 1), keepdims=keepdims)
        return out.unsqueeze(-1) if keepdims else out
    if x.dtype is torch.float32 and not x.is_cuda and x.numel() > 4096 and (inner := _first(x.shape, axis)) is not None:
        if inner:  # two short sums, one after the other
            return torch.sum(torch.sum(x, inner, True), axis, keepdims)
        if len(axis) == x.ndim and x.numel() >= _MANY and x.is_contiguous() and not unseen(x):  # as accurate in a tenth of the time
            blocks, *rest = x.view(-1).split(x.numel() // 512 * 512)
            total = torch.sum(blocks.view(-1, 512), 1).sum(dtype=torch.float64) + (rest[0].sum(dtype=torch.float64) if rest else 0.0)
            return total.float().view((1,) * x.ndim if keepdims else ())
        return torch.sum(x, axis, keepdims, dtype=torch.float64).float()  # torch's own long sums are half as accurate as NumPy's
    return torch.sum(x, axis, keepdims, dtype=x.dtype)


@kernel
@early("ring")
def prod(x: Tensor, *, axis: Axes, keepdims: bool) -> Tensor:
    for a in reversed(axis):
        x = torch.prod(x, a, keepdims, dtype=x.dtype)
    return x


def _over_axes(fn: Kernel) -> Kernel:
    return lambda x, *, axis, keepdims: fn(x, axis, keepdims) if axis else x


def _position_of(fn: Kernel) -> Kernel:
    return lambda x, *, axis, keepdims: fn(x if x.dtype is not torch.bool else x.view(torch.uint8), axis, keepdims)


def _cumulative(fn: Kernel) -> Kernel:
    return lambda x, *, axis, reverse: fn(x.flip(axis), axis).flip(axis) if reverse else fn(x, axis)


KERNELS.update(
    max=early("order")(_over_axes(torch.amax)), min=early("order")(_over_axes(torch.amin)), any=_over_axes(torch.any), all=_over_axes(torch.all),
    argmax=early("rank")(_position_of(torch.argmax)), argmin=early("rank")(_position_of(torch.argmin)),
    cumsum=early("ring")(_cumulative(lambda x, a: torch.cumsum(x, a, dtype=x.dtype))),
    cumprod=early("ring")(_cumulative(lambda x, a: torch.cumprod(x, a, dtype=x.dtype))),
    cummax=early("order")(_cumulative(lambda x, a: torch.cummax(x, a).values)),
    cummin=early("order")(_cumulative(lambda x, a: torch.cummin(x, a).values)),
    cumlogsumexp=_cumulative(torch.logcumsumexp),
)  # fmt: skip


@kernel
def logsumexp(x: Tensor, *, axis: Axes, keepdims: bool) -> Tensor:
    if x.dtype in HALF:
        return logsumexp(x.float(), axis=axis, keepdims=keepdims).to(x.dtype)
    return torch.logsumexp(x, axis, keepdims) if axis else x


@kernel
@early("rank")
def argsort(x: Tensor, *, axis: int, descending: bool) -> Tensor:
    return torch.sort(x, dim=axis, descending=descending, stable=True).indices


@kernel
@early("rank")
def argtopk(x: Tensor, *, axis: int, k: int, largest: bool) -> Tensor:
    """torch's own, of k + 1, which tells the rows where its order is the only one (on CUDA looking would stop the queue); the others are sorted."""
    if k >= x.shape[axis] or x.numel() < 1024 or x.dtype is torch.bool or not x.is_cpu or unseen(x):
        return argsort(x, axis=axis, descending=largest).narrow(axis, 0, k)
    rows = x.movedim(axis, -1)
    high, places = torch.topk(rows, k + 1, largest=largest)
    high, places = high if largest else high.flip(-1), places[..., :k]
    if not (sure := (high[..., :-1] > high[..., 1:]).all(-1)).all():
        places[~sure] = argsort(rows[~sure], axis=-1, descending=largest)[..., :k]
    return places.movedim(-1, axis)


def _to_repair(x: Tensor, axis: int, out: Tensor) -> bool:
    """Whether any row needs repair. A row of softmax is nan all over if it is at all, so one element of each is looked at; on CUDA looking
    would stop the queue, so the repair always runs."""
    return x.shape[axis] > 0 and (x.is_cuda or unseen(x) or math.isnan(out.select(axis, 0).sum().item()))


@kernel
def softmax(x: Tensor, *, axis: int, out: Tensor | None = None) -> Tensor:
    """Rows of -inf give 0, and the mass is on the +inf where there are any. out: where the result may be put."""
    out = torch.softmax(x, axis) if out is None else torch.softmax(x, axis, out=out)
    if _to_repair(x, axis, out):
        top = torch.amax(x, axis, True)
        at_top = (x == math.inf).to(x.dtype)
        out = torch.where(top == math.inf, at_top / torch.sum(at_top, axis, True), torch.where(top == -math.inf, 0.0, out))
    return out


@kernel
def log_softmax(x: Tensor, *, axis: int) -> Tensor:
    """Rows of -inf give -inf; the logarithm of softmax where there are +inf."""
    out = torch.log_softmax(x, axis)
    if _to_repair(x, axis, out):
        out = torch.where(torch.amax(x, axis, True).isinf(), torch.log(softmax(x, axis=axis)), out)
    return out


@kernel
def log_softmax_at(x: Tensor, i: Tensor, *, axis: int) -> Tensor:
    """0 for a place outside, of which gather complains on the CPU: so nothing has to be put right where there is none."""
    if not x.is_cuda and not unseen(x) and i.numel() and x.dtype not in HALF:
        try:
            out = torch.log_softmax(x, axis).gather(axis, i.unsqueeze(axis)).squeeze(axis)
        except RuntimeError:
            pass
        else:
            if not math.isnan(out.sum().item()):  # a row that wants repair is nan all over
                return out
    n, logs = x.shape[axis], log_softmax(x.float() if x.dtype in HALF else x, axis=axis)
    out = logs.gather(axis, i.clamp(0, n - 1).unsqueeze(axis)).squeeze(axis).to(x.dtype)
    return torch.where((i >= 0) & (i < n), out, 0.0)


# ---- structure ------------------------------------------------------------------------------------------------------------------------
KERNELS.update(
    barrier=lambda x, after: x, reshape=lambda x, *, shape: torch.reshape(x, shape), permute=lambda x, *, axes: torch.permute(x, axes),
    broadcast_to=lambda x, *, shape: x.expand(shape), concat=lambda *xs, axis: torch.cat(xs, axis),
    flip=early("ring")(lambda x, *, axes: torch.flip(x, axes)),
    tril=early("ring")(lambda x, *, k: torch.tril(x, k)), triu=early("ring")(lambda x, *, k: torch.triu(x, k)),
)  # fmt: skip


@functools.lru_cache(4096)
def slices(start: Axes, stop: Axes, step: Axes) -> tuple:
    """What to index with for a slice."""
    return tuple(map(slice, start, stop, step))


@kernel
def slice_(x: Tensor, *, start: Axes, stop: Axes, step: Axes) -> Tensor:
    return x[slices(start, stop, step)]


@kernel
def unslice(x: Tensor, *, shape: Axes, start: Axes, stop: Axes, step: Axes) -> Tensor:
    out = blank(shape, x).zero_()
    out[slices(start, stop, step)] = x
    return out


@kernel
def paste(x: Tensor, v: Tensor, *, start: Axes, stop: Axes, step: Axes) -> Tensor:
    out = x.clone(memory_format=torch.contiguous_format)
    out[slices(start, stop, step)] = v
    return out


def add_at_slice(held: dict[int, Any], n: int, x: Tensor, start: Axes, stop: Axes, step: Axes) -> None:
    """held[n] += unslice(x), in place once the sum is one that was made here: held[~n] says of which that is so, in this pass alone."""
    total = held[n]
    if total.is_complex():
        held[n] = SUMS["add"](total, unslice(x, shape=tuple(total.shape), start=start, stop=stop, step=step))
        return
    mine = held.get(~n)
    if mine is None or mine() is not total:  # another cotangent may be the same array, or show it
        held[n] = total = total.clone().add_(0.0)  # as what is added beside the slice: no zero stays negative
        held[~n] = weakref.ref(total)  # weak, so that it goes with the last that needs it
    total[slices(start, stop, step)].add_(x)


@kernel
def pad(x: Tensor, *, widths: tuple[tuple[int, int], ...], value: Any) -> Tensor:
    out = blank([lo + n + hi for (lo, hi), n in zip(widths, x.shape, strict=True)], x).fill_(value)
    out[tuple(slice(lo, lo + n) for (lo, _), n in zip(widths, x.shape, strict=True))] = x
    return out


# ---- indexing -------------------------------------------------------------------------------------------------------------------------
def _tried(f: Callable[..., Tensor], x: Tensor, i: Tensor, *more: Any) -> Tensor | None:
    """f(x, i, …) of torch's, which complains of places outside on a CPU: then None, as where it would not, or where x is so large that to look first
    costs less than an attempt."""
    if x.is_cpu and not unseen(x) and not unseen(i) and x.numel() <= _MANY:
        try:
            return f(x, i, *more)
        except (IndexError, RuntimeError):
            pass
    return None


def _int64(i: Tensor) -> Tensor:
    return i if i.dtype is torch.int64 else i.to(torch.int64)


def _with_spare(x: Tensor, at: Tensor, axis: int, over: bool = False) -> tuple[Tensor, Tensor]:
    """A copy of x with one more place at the end of the axis, where updates out of range go, and the positions that send them there. On a CPU
    they are looked at first: where all lie inside, nothing is added. over: then x itself serves."""
    n = x.shape[axis]
    if at.is_cpu and not unseen(x) and not unseen(at) and at.numel():
        low, high = torch.aminmax(at)
        if low.item() >= 0 and high.item() < n:
            return x if over else x.clone(memory_format=torch.contiguous_format), at
    at = torch.where((at >= 0) & (at < n), at, n)
    if unseen(x):  # inductor computes x inside a concatenation, and what is then added to that shows in x as well
        return torch.constant_pad_nd(x, [0, 0] * (x.ndim - axis - 1) + [0, 1]), at
    shape = list(x.shape)
    shape[axis] = 1
    return torch.cat((x, torch.zeros(shape, dtype=x.dtype, device=x.device)), axis), at


def _rows(x: Tensor, at: Tensor) -> Tensor:
    return torch.index_select(x, 0, at) if at.ndim == 1 else torch.index_select(x, 0, at.reshape(-1)).reshape(at.shape + x.shape[1:])


@kernel
@early("ring")
def gather(x: Tensor, i: Tensor) -> Tensor:
    at = _int64(i)
    found = _tried(_rows, x, at)
    return _rows(x, at.clamp(0, max(x.shape[0] - 1, 0))) if found is None else found


def _added(x: Tensor, at: Tensor, rows: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format).index_add_(0, at, rows)


@kernel
def scatter(x: Tensor, u: Tensor, i: Tensor, *, mode: str, out: Tensor | None = None) -> Tensor:
    """out: x itself, to be written over."""
    if x.dtype in SIGNED:
        return as_signed(scatter, "order" if mode in ("min", "max") else "ring", (x, u, i.to(torch.int64)), {"mode": mode})
    if x.dtype in HALF and mode in ("add", "mul"):  # rounded once: a sum of many would stand still where it is 2048 times what is added
        return scatter(x.float(), u.float(), i, mode=mode).to(x.dtype)
    at = _int64(i).reshape(-1)
    rows = u.reshape(at.shape + x.shape[1:])
    if mode == "add" and out is None and (found := _tried(_added, x, at, rows)) is not None:
        return found
    out, at = _with_spare(x, at, 0, out is not None)
    if mode == "add":
        out.index_add_(0, at, rows)
    elif mode == "set":  # torch says nothing about which duplicate wins: write the last one's value from each of them
        last = torch.zeros(out.shape[:1], dtype=torch.int64, device=x.device)
        last.scatter_reduce_(0, at, torch.arange(at.numel(), device=x.device), "amax")
        out.index_copy_(0, at, rows.index_select(0, last[at]))
    else:
        places = at.reshape(-1, *(1,) * (rows.ndim - 1)).expand(rows.shape)
        out.scatter_reduce_(0, places, rows, {"mul": "prod", "min": "amin", "max": "amax"}[mode])
    return out[: x.shape[0]]


@kernel
@early("ring")
def take_along(x: Tensor, i: Tensor, *, axis: int) -> Tensor:
    at = _int64(i)
    found = _tried(lambda x, at: torch.gather(x, axis, at), x, at)
    return torch.gather(x, axis, at.clamp(0, max(x.shape[axis] - 1, 0))) if found is None else found


@kernel
@early("ring")
def put_along(x: Tensor, i: Tensor, u: Tensor, *, axis: int, mode: str, out: Tensor | None = None) -> Tensor:
    """The sum (the only mode) of x and of u at the places i; a place outside gets what changes nothing. out: x itself, to be written over."""
    i, last = _int64(i), x.shape[axis] - 1
    if last < 0:
        return x.clone()
    if x.dtype in HALF:
        found = put_along(x.float(), i, u.float(), axis=axis, mode=mode).to(x.dtype)
        return found if out is None else out.copy_(found)
    if out is None and (found := _tried(lambda x, i: x.clone().scatter_add_(axis, i, u), x, i)) is not None:
        return found
    none = torch.zeros((), dtype=u.dtype, device=u.device)
    none = none.neg() if u.is_floating_point() or u.is_complex() else none
    return (x.clone() if out is None else out).scatter_add_(axis, i.clamp(0, last), torch.where((i >= 0) & (i <= last), u, none))


KERNELS.update(affine=affine, dot_general=dot_general)


# ---- where a look at the values pays --------------------------------------------------------------------------------------------------
_relu_backward, _hardtanh_backward = torch.ops.aten.threshold_backward, torch.ops.aten.hardtanh_backward
_SEVERAL = 2**12  # elements from which on several passes cost less than one slow one


@functools.cache
def number(value: float, dtype: torch.dtype, device: Any = "cpu") -> Tensor:
    """A 0-d tensor: torch takes it faster than a number of Python, and adds a multiple to it in one pass."""
    return torch.full((), value, dtype=dtype, device=device)


def keep_inside(g: Tensor, x: Tensor, out: Tensor | None = None, *, lo: float, hi: float) -> Tensor:
    """torch's derivative of clip passes g where x is nan; the table's does not."""
    if not finite(x):
        return torch.where((x > lo) & (x < hi), g, torch.zeros((), dtype=g.dtype, device=g.device), out=out)
    return _hardtanh_backward.default(g, x, lo, hi) if out is None else _hardtanh_backward.grad_input(g, x, lo, hi, grad_input=out)


def keep_positive(g: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """torch's derivative of relu passes g where x is nan; the table's does not."""
    if math.isnan(x.sum().item()):
        return torch.where(x > 0, g, torch.zeros((), dtype=g.dtype, device=g.device), out=out)
    return _relu_backward.default(g, x, 0) if out is None else _relu_backward.grad_input(g, x, 0, grad_input=out)


@kernel
def relu_dx(g: Tensor, out: Tensor) -> Tensor:
    """Small arrays go the way that no kernel has to be proved for; on CUDA looking for nan would stop the queue."""
    if out.numel() >= _SEVERAL and not out.is_cuda:
        return keep_positive(g, out)
    zero = number(0.0, out.dtype, out.device)
    return torch.where(torch.gt(out, zero), g, zero)


@kernel
def clip_dx(g: Tensor, x: Tensor, lo: Any, hi: Any) -> Tensor:
    low, high = as_number(lo), as_number(hi)
    if x.is_cpu and g.shape == x.shape and g.dtype is x.dtype and x.dtype in _SINGLE and math.isfinite(low) and math.isfinite(high):
        return keep_inside(g, x, lo=low, hi=high)
    inside = ((x > lo) | (lo == -math.inf)) & ((x < hi) | (hi == math.inf))
    return torch.where(inside, g, number(0.0, g.dtype, g.device))


def finite(x: Tensor) -> bool:
    """Whether no element is nan or infinite, in one cheap pass (it may say no where a sum overflows)."""
    return math.isfinite(x.sum(dtype=torch.float32 if x.dtype in HALF else x.dtype).item())


def places_kernel(decomposed: Callable[..., Any]) -> Callable[..., Any]:
    """log_softmax_at_dx, falling back on the decomposition for a place outside (of which scatter complains) and for rows without a plain softmax."""

    def log_softmax_at_dx(g: Tensor, x: Tensor, i: Tensor, *, axis: int) -> Tensor:
        if not x.is_cuda and x.numel() and x.dtype not in HALF:
            p, g_row = torch.softmax(x, axis), g.unsqueeze(axis)
            if not math.isnan(p.select(axis, 0).sum().item()):
                try:
                    return torch.zeros(x.shape, dtype=x.dtype).scatter_(axis, i.unsqueeze(axis), g_row).sub_(p.mul_(g_row))
                except RuntimeError:
                    pass
        return decomposed(g, x, i, axis=axis)

    return log_softmax_at_dx
