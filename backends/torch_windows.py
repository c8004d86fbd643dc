"""PyTorch: products (dot_general) and windows (convolution, pooling).

Promises: float32 convolution and its transpose in x run in full float32 on CUDA too (the flag is an argument of torch._convolution); its transpose
in w follows `torch.backends.cudnn.allow_tf32`, the only switch torch has there, and products follow `torch.backends.cuda.matmul.allow_tf32`.
float16 and bfloat16 accumulate in float32; integers are exact in their own dtype.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from minidl.primitives.contraction import conv_sizes

Tensor = torch.Tensor
Ints = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
HALF = frozenset((torch.float16, torch.bfloat16))
WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # an integer as wide as a float
MANY = 2**12  # elements from which on several vectorised passes cost less than one that branches
_ROW = 8  # windows in a row from which on strided slices beat torch's pooling, which takes one element at a time
_CHANNELS = 8  # from how many on torch's pooling makes vectors of them, which pays for the copies there and back
_NATIVE = frozenset((torch.float32, torch.float64, torch.complex64, torch.complex128))


def unseen(x: Tensor) -> bool:
    """Whether nobody can look at the values: while torch traces a program, or captures one on CUDA."""
    return x.__class__ is not Tensor or (x.is_cuda and torch.cuda.is_current_stream_capturing())


def _carrier(x: Tensor) -> torch.dtype:
    """The dtype to compute products of this dtype in, on this device: exact, or at least as precise."""
    if x.dtype in HALF:
        return x.dtype if x.is_cuda else torch.float32
    return x.dtype if x.is_floating_point() or x.is_complex() else torch.int64


def _carried(fn: Callable[..., Tensor], x: Tensor, y: Tensor, **params: Any) -> Tensor:
    """fn in the carrier dtype; modulo 2**64 and narrowed, an integer product is the product modulo its own width."""
    dtype, carrier = x.dtype, _carrier(x)
    if dtype.is_complex:  # torch convolves real numbers only
        a, b, c, d = x.real, x.imag, y.real, y.imag
        return torch.complex(fn(a, c, **params) - fn(b, d, **params), fn(a, d, **params) + fn(b, c, **params))
    if dtype is torch.uint64:
        return fn(x.view(carrier), y.view(carrier), **params).view(dtype)
    return fn(x.to(carrier), y.to(carrier), **params).to(dtype)


# ---- products -------------------------------------------------------------------------------------------------------------------------
def _integer_matmul(x: Tensor, y: Tensor) -> Tensor:
    """[..., M, K] @ [..., K, N] where the library has none for integers (CUDA): sums of outer products, some of K at a time."""
    k = x.shape[-1]
    out = torch.zeros((*x.shape[:-1], y.shape[-1]), dtype=x.dtype, device=x.device)
    some = max(1, 2**24 // max(1, out.numel()))
    for i in range(0, k, some):
        out += (x[..., i : i + some, None] * y[..., None, i : i + some, :]).sum(-2)
    return out


@functools.lru_cache(4096)
def dot_plan(xn: int, yn: int, contract: tuple[Ints, Ints], batch: tuple[Ints, Ints]) -> Callable[[Tensor, Tensor], Tensor]:
    """The function that computes one kind of dot_general on arrays of xn and yn axes, matrix products directly."""
    (cx, cy), (bx, by) = contract, batch
    fx = tuple(a for a in range(xn) if a not in cx and a not in bx)
    fy = tuple(a for a in range(yn) if a not in cy and a not in by)
    if not bx and len(cx) == 1 and xn <= 2 and yn <= 2:
        if xn == yn == 1:
            return lambda x, y: torch.dot(x, y) if _direct(x) else torch.mul(x, y).sum(dtype=x.dtype)
        two_x, two_y = (xn == 2 and cx == (0,)), (yn == 2 and cy == (1,))
        if xn == yn == 2:
            if two_x:
                return (lambda x, y: _mm(x.t(), y.t())) if two_y else (lambda x, y: _mm(x.t(), y))
            return (lambda x, y: _mm(x, y.t())) if two_y else _mm
        if yn == 1:
            return (lambda x, y: _mv(x.t(), y)) if cx == (0,) else _mv
        return (lambda x, y: _mv(y, x)) if cy == (1,) else (lambda x, y: _mv(y.t(), x))
    if not cx:  # an outer product: broadcasting keeps it exact and in order
        px, py = (*bx, *fx), (*by, *fy)
        one_x, one_y = (1,) * len(fy), (1,) * len(fx)

        def outer(x: Tensor, y: Tensor) -> Tensor:
            x, y = x.permute(px), y.permute(py)
            k = len(bx)
            return torch.mul(x.reshape((*x.shape, *one_x)), y.reshape((*y.shape[:k], *one_y, *y.shape[k:])))

        return outer
    x_first = _in_order((*bx, *cx, *fx))  # then a transposed view serves, without a copy
    y_last = _in_order((*by, *fy, *cy))
    px = (*bx, *cx, *fx) if x_first else (*bx, *fx, *cx)
    py = (*by, *fy, *cy) if y_last else (*by, *cy, *fy)

    def general(x: Tensor, y: Tensor) -> Tensor:
        lead = [x.shape[a] for a in bx]
        m, n = [x.shape[a] for a in fx], [y.shape[a] for a in fy]
        b, mm, nn, k = math.prod(lead), math.prod(m), math.prod(n), math.prod([x.shape[a] for a in cx])
        head = [b] if lead else []
        x = x.permute(px).reshape(head + ([k, mm] if x_first else [mm, k]))
        y = y.permute(py).reshape(head + ([nn, k] if y_last else [k, nn]))
        x, y = x.mT if x_first else x, y.mT if y_last else y
        out = torch.matmul(x, y) if _direct(x) else _integer_matmul(x, y)
        return out.reshape(lead + m + n)

    if bx == by == tuple(range(len(bx))) and len(cx) == 1 and xn == yn == len(bx) + 2:  # matrices side by side
        nb = len(bx)
        return lambda x, y: torch.matmul(x.mT if cx[0] == nb else x, y if cy[0] == nb else y.mT) if _direct(x) else general(x, y)
    if not bx and yn == 2 and cx == (xn - 1,):  # rows of more axes with a matrix: the same product with less around it

        def rows(x: Tensor, y: Tensor) -> Tensor:
            if not (_direct(x) and x.numel()):
                return general(x, y)
            y = y.t() if cy == (1,) else y
            return torch.mm(x.reshape(-1, x.shape[-1]), y).reshape(*x.shape[:-1], y.shape[1])

        return rows
    if not bx and xn == yn > 2 and cx == cy == tuple(range(xn - 1)):  # what its gradient in the matrix is

        def over_rows(x: Tensor, y: Tensor) -> Tensor:
            if not (_direct(x) and x.numel() and y.numel()):
                return general(x, y)
            return torch.mm(x.reshape(-1, x.shape[-1]).t(), y.reshape(-1, y.shape[-1]))

        return over_rows
    return general


def _in_order(axes: Ints) -> bool:
    return axes == tuple(range(len(axes)))


def _direct(x: Tensor) -> bool:
    return not (x.is_cuda and x.dtype is torch.int64)


def turns(rows: int, depth: int, columns: int) -> bool:
    """Whether a product of float32 matrices on the CPU is made as (y.T @ x.T).T: MKL is two to five times slower with 2 to 15 columns than with as
    many rows, where the product is large enough to pay for the copy."""
    return 2 <= columns < 16 and rows * depth >= 1 << 15 and torch.backends.mkl.is_available()


def turned_mm(x: Tensor, y: Tensor) -> Tensor:
    return torch.mm(y.t(), x.t()).t().contiguous()


def _mm(x: Tensor, y: Tensor) -> Tensor:
    if x.dtype is torch.float32 and y.shape[1] < 16 and not x.is_cuda and turns(x.shape[0], x.shape[1], y.shape[1]):
        return turned_mm(x, y)
    return torch.mm(x, y) if _direct(x) else _integer_matmul(x, y)


def _mv(x: Tensor, y: Tensor) -> Tensor:
    return torch.mv(x, y) if _direct(x) else _integer_matmul(x, y[:, None])[:, 0]


def dot_general(x: Tensor, y: Tensor, *, contract: tuple[Ints, Ints], batch: tuple[Ints, Ints]) -> Tensor:
    plan = dot_plan(x.ndim, y.ndim, contract, batch)
    return plan(x, y) if x.dtype in _NATIVE else _carried(plan, x, y)


def _plus(x: Tensor, b: Tensor) -> Tensor:
    """x + b; complex numbers by parts, as torch makes NaN of their infinities, and unsigned ones, which it does not add, as signed ones."""
    if x.dtype in SIGNED:
        return (x.view(SIGNED[x.dtype]) + b.view(SIGNED[x.dtype])).view(x.dtype)
    return torch.view_as_complex(torch.view_as_real(x) + torch.view_as_real(b)) if x.is_complex() else x + b


def affine(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    if x.dtype is not torch.float32 and x.dtype is not torch.float64:
        return _plus(dot_general(x, w, contract=((x.ndim - 1,), (1,)), batch=((), ())), b)
    if x.ndim != 2:
        return torch._C._nn.linear(x, w, b)
    if w.shape[0] < 16 and x.dtype is torch.float32 and not x.is_cuda and turns(x.shape[0], x.shape[1], w.shape[0]):
        return torch.addmm(b.unsqueeze(1), w, x.t()).t().contiguous()
    return torch.addmm(b, x, w.t())


# ---- convolution ----------------------------------------------------------------------------------------------------------------------
def _convolution(
    x: Tensor, w: Tensor, stride: Ints, pad: Ints, dilation: Ints, groups: int, transposed: bool = False, more: Ints = (), bias: Tensor | None = None
) -> Tensor:
    cudnn = torch.backends.cudnn
    extra = more or (0,) * len(stride)
    return torch._convolution(  # type: ignore[attr-defined]
        x, w, bias, stride, pad, dilation, transposed, extra, groups, cudnn.benchmark, cudnn.deterministic, cudnn.enabled, False
    )


def _indirect(x: Tensor) -> bool:
    return x.is_complex() or _carrier(x) is not x.dtype


@functools.lru_cache(256)
def _even(padding: Pads) -> Ints | None:
    """The padding as torch takes it, or None where the two sides differ."""
    return tuple(lo for lo, _ in padding) if all(lo == hi for lo, hi in padding) else None


def _cut(spatial: Iterable[slice]) -> tuple[Any, ...]:
    return (..., *spatial)


def _padded(x: Tensor, padding: Pads, value: float = 0) -> Tensor:
    return torch.constant_pad_nd(x, [n for pair in reversed(padding) for n in pair], value)


def conv(x: Tensor, w: Tensor, *, stride: Ints, padding: Pads, dilation: Ints, groups: int) -> Tensor:
    if _indirect(x):
        return _carried(conv, x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if not (w.numel() and x.numel()):  # for no channels torch has another shape, or an error; for an empty axis an error
        return x.new_zeros((x.shape[0], w.shape[0], *conv_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation)))
    pad = _even(padding)
    if pad is None:
        x, pad = _padded(x, padding), (0,) * len(padding)
    return _convolution(x, w, stride, pad, dilation, groups)


def conv_affine(x: Tensor, w: Tensor, b: Tensor, *, stride: Ints, padding: Pads, dilation: Ints, groups: int) -> Tensor:
    if _indirect(x) or not (w.numel() and x.numel()):
        out = conv(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
        return _plus(out, b.reshape(-1, *(1,) * (x.ndim - 2)))
    pad = _even(padding)
    if pad is None:
        x, pad = _padded(x, padding), (0,) * len(padding)
    return _convolution(x, w, stride, pad, dilation, groups, bias=b)


def conv_dx(g: Tensor, w: Tensor, *, x_shape: Ints, stride: Ints, padding: Pads, dilation: Ints, groups: int) -> Tensor:
    if _indirect(g):
        return _carried(conv_dx, g, w, x_shape=x_shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if 0 in x_shape or not (w.numel() and g.numel()):
        return g.new_zeros(x_shape)
    pad = _even(padding)
    if g.dtype is torch.float64 and pad is not None and g.is_cpu and g.numel():  # twice as fast as a transposed convolution
        x = g.new_empty(()).expand(x_shape)  # of which only the shape is read
        mask, extra = [True, False, False], [0] * len(stride)
        return torch.ops.aten.convolution_backward(g, x, w, None, stride, pad, dilation, False, extra, groups, mask)[0]
    sizes = x_shape[2:] if pad is not None else tuple(n + lo + hi for n, (lo, hi) in zip(x_shape[2:], padding, strict=True))
    inner = pad if pad is not None else (0,) * len(padding)
    # what the windows leave untouched at the end
    more = tuple(
        n - ((t - 1) * s - 2 * p + d * (k - 1) + 1)
        for n, t, s, p, d, k in zip(sizes, g.shape[2:], stride, inner, dilation, w.shape[2:], strict=True)
    )
    out = _convolution(g, w, stride, inner, dilation, groups, True, more)
    return out if pad is not None else out[_cut(slice(lo, lo + n) for n, (lo, _) in zip(x_shape[2:], padding, strict=True))].contiguous()


def conv_dw(x: Tensor, g: Tensor, *, w_shape: Ints, stride: Ints, padding: Pads, dilation: Ints, groups: int) -> Tensor:
    if _indirect(x):
        return _carried(conv_dw, x, g, w_shape=w_shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if not x.numel() or not g.numel():
        return x.new_zeros(w_shape)
    pad = _even(padding)
    if pad is None:
        x, pad = _padded(x, padding), (0,) * len(padding)
    if x.is_floating_point():
        w = x.new_empty(()).expand(w_shape)  # of which only the shape is read
        mask, extra = [False, True, False], [0] * len(stride)
        return torch.ops.aten.convolution_backward(g, x, w, None, stride, pad, dilation, False, extra, groups, mask)[1]
    # torch has no such kernel for integers. dw correlates x with g, stride and dilation changing places: the channels of
    # a group become the batch, the batch becomes the channels.
    n, c = x.shape[0], x.shape[1] // groups
    data = x.reshape(n, groups, c, *x.shape[2:]).movedim((2, 1, 0), (0, 1, 2)).reshape(c, groups * n, *x.shape[2:])
    out = _convolution(data, g.transpose(0, 1), dilation, pad, stride, groups)
    return out[_cut(slice(0, k) for k in w_shape[2:])].transpose(0, 1).contiguous()


# ---- pooling --------------------------------------------------------------------------------------------------------------------------
@functools.lru_cache(256)
def _places(sizes: Ints, out: Ints, window: Ints, stride: Ints, padding: Pads, dilation: Ints, device: Any) -> tuple[Tensor, Tensor, Tensor]:
    """How an index in the window and a flat position in the input correspond: position = base[window's place] + offset[index], and
    index = inverse[position - base]."""
    steps = [math.prod(sizes[a + 1 :]) for a in range(len(sizes))]
    cpu: dict[str, Any] = {"dtype": torch.int64, "device": "cpu"}
    base = offset = torch.zeros((), **cpu)
    for n, k, s, (lo, _), d, step in zip(out, window, stride, padding, dilation, steps, strict=True):
        base = base[..., None] + (torch.arange(n, **cpu) * s - lo) * step
        offset = offset[..., None] + torch.arange(k, **cpu) * (d * step)
    offset = offset.reshape(-1)
    inverse = torch.zeros(int(offset.max()) + 1, **cpu)
    inverse[offset] = torch.arange(offset.numel(), **cpu)
    return base.to(device), offset.to(device), inverse.to(device)


def _small(x: Tensor, window: Ints, flat: bool) -> bool:
    """Whether places that nobody else sees are kept as one byte each: in a traced program, whose compiler then makes short vectors of them."""
    return flat and unseen(x) and math.prod(window) <= 127


def _pool_any(
    x: Tensor, out: Ints, window: Ints, stride: Ints, padding: Pads, dilation: Ints, dtype: torch.dtype = torch.int64
) -> tuple[Tensor, Tensor]:
    """max_pool for every dtype and value, one place of the window after the other: the first maximum wins, the first nan before it."""
    n = len(window)
    low = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    sizes = x.shape[x.ndim - n :]
    x = _padded(x, padding, low)
    best = index = seen = None
    padded = any(map(any, padding))
    for i, place in enumerate(itertools.product(*map(range, window))):
        starts = [k * d for k, d in zip(place, dilation, strict=True)]
        v = x[_cut(slice(a, a + (t - 1) * s + 1, s) for a, t, s in zip(starts, out, stride, strict=True))]
        inside = torch.ones((), dtype=torch.bool, device=x.device)
        for a, t, s, (lo, _), m in zip(starts, out, stride, padding, sizes, strict=True) if padded else ():
            at = torch.arange(t, device=x.device) * s + a - lo
            inside = inside[..., None] & (at >= 0) & (at < m)
        if best is None or index is None or seen is None:
            best, index, seen = v.clone(), torch.zeros(v.shape, dtype=dtype, device=x.device), inside
            continue
        take = (v > best) | ((v != v) & (best == best))
        if padded:
            take = inside & (~seen | take)
        best, index, seen = torch.where(take, v, best), index.masked_fill(take, i), seen | inside
    assert best is not None and index is not None
    return best, index


def _at(table: Tensor, i: Tensor) -> Tensor:
    """table[i] for a 1-d table: index_select takes two thirds of the time of torch.take."""
    return torch.index_select(table, 0, i.reshape(-1)).reshape(i.shape)


_POOL = {1: torch._C._nn.max_pool2d_with_indices, 2: torch._C._nn.max_pool2d_with_indices, 3: torch._C._nn.max_pool3d_with_indices}


def slices_well(shape: Ints, window: Ints, stride: Ints, padding: Pads, dilation: Ints, row: int = _ROW) -> bool:
    """Whether pooling to this shape had better be the maximum of strided slices: its windows do not overlap, and rows fill a vector."""
    plain = stride == window and not any(map(any, padding)) and set(dilation) == {1}
    return plain and shape[-1] >= row and math.prod(shape) >= MANY and 2 <= math.prod(window) <= 9


def cuts(shape: Ints, window: Ints, axis: int) -> list[Any]:
    """For each place that windows have along an axis (counted from the end), the index of the elements there."""
    k, rest = window[axis], (slice(None),) * (-1 - axis)
    return [(..., slice(i, shape[axis] // k * k, k), *rest) for i in range(k)]


def sliced_maxima(x: Tensor, window: Ints) -> tuple[Tensor, list[list[Tensor]] | None]:
    """The maxima; and for each axis of the windows, as int8, at which of its places the first maximum is. None with a nan: it compares with nothing.

    The last axis goes first, which settles ties as they must be; the next one finds only the maxima along it."""
    chosen: list[list[Tensor]] = []
    for axis in range(-1, -len(window) - 1, -1):
        x, *others = (x[cut] for cut in cuts(x.shape, window, axis))
        won = [] if others else [torch.ones(x.shape, dtype=torch.bool, device=x.device)]
        for part in others:
            here = torch.gt(part, x)
            won = [*(torch.gt(w, here) for w in won), here] if won else [torch.logical_not(here), here]
            x = torch.maximum(x, part)
        chosen.insert(0, [w.view(torch.int8) for w in won])
    return x, None if math.isnan(x.sum().item()) else chosen


def _index(chosen: list[list[Tensor]], window: Ints) -> Tensor:
    """The places in the windows, as one number each."""
    index, steps = torch.zeros((), dtype=torch.int8, device="cpu"), 1
    for axis in range(-1, -len(window) - 1, -1):
        parts = [index[cut] for cut in cuts(index.shape, window, axis)] if index.ndim else [index]
        index = parts[0]
        for i, won in enumerate(chosen[axis][1:], 1):
            if len(parts) > 1:
                index = torch.bitwise_xor(index, torch.bitwise_xor(index, parts[i]).bitwise_and_(won.neg()))
            index = torch.add(index, won, alpha=i * steps)
        steps *= window[axis]
    return index


def max_pool(x: Tensor, *, window: Ints, stride: Ints, padding: Pads, dilation: Ints, flat: bool = False) -> tuple[Tensor, Tensor]:
    """The maxima and their places: positions in the window, or with `flat` in the input's spatial plane (as pool_scatter then takes them).

    torch takes the last nan of a window and may take a padded place, so where something is not finite the general loop decides (to look costs
    one wait for the queue on CUDA).
    """
    if x.dtype in SIGNED:
        signed = SIGNED[x.dtype]
        flip = torch.iinfo(signed).min
        out, index = max_pool(x.view(signed) ^ flip, window=window, stride=stride, padding=padding, dilation=dilation, flat=flat)
        return (out ^ flip).view(x.dtype), index
    n = len(window)
    lead, sizes = x.shape[: x.ndim - n], tuple(x.shape[x.ndim - n :])
    spatial = tuple(
        (s + lo + hi - d * (k - 1) - 1) // t + 1 for s, k, t, (lo, hi), d in zip(sizes, window, stride, padding, dilation, strict=True)
    )
    sliced = slices_well((*lead, *spatial), window, stride, padding, dilation, 4)  # where torch's places would have to be converted besides
    if sliced and not flat and x.is_floating_point() and not x.is_cuda and not unseen(x):
        best, chosen = sliced_maxima(x, window)
        if chosen is not None:
            return best, _index(chosen, window).to(torch.int64)
    pad = _even(padding)
    if n in _POOL and pad is not None and x.is_floating_point() and x.numel() and not unseen(x):
        planes = x if len(lead) == 2 and n > 1 else x.reshape(-1, 1, *((1,) if n == 1 else ()), *sizes)
        one, zero = ((1,), (0,)) if n == 1 else ((), ())
        if last := planes.ndim == 4 and planes.shape[1] >= _CHANNELS and not x.is_cuda:
            planes = planes.contiguous(memory_format=torch.channels_last)
        out, where = _POOL[n](planes, one + window, one + stride, zero + pad, one + dilation)
        if last:
            out, where = out.contiguous(), where.contiguous()
        if math.isfinite(out.sum(dtype=torch.float64 if x.dtype is torch.float64 else torch.float32).item()):
            out, where = out.reshape(*lead, *spatial), where.reshape(*lead, *spatial)
            if flat:
                return out, where
            base, _, inverse = _places(sizes, spatial, window, stride, padding, dilation, x.device)
            return out, _at(inverse, where - base)
    out, index = _pool_any(x, spatial, window, stride, padding, dilation, torch.int8 if _small(x, window, flat) else torch.int64)
    if flat and index.dtype is torch.int64:
        base, offset, _ = _places(sizes, spatial, window, stride, padding, dilation, x.device)
        return out, base + _at(offset, index)
    return out, index


def _flat(i: Tensor, sizes: Ints, window: Ints, stride: Ints, padding: Pads, dilation: Ints) -> Tensor:
    base, offset, _ = _places(sizes, tuple(i.shape[i.ndim - len(window) :]), window, stride, padding, dilation, i.device)
    return base + _at(offset, i)


def pool_gather(x: Tensor, i: Tensor, *, window: Ints, stride: Ints, padding: Pads, dilation: Ints, flat: bool = False) -> Tensor:
    if x.dtype in SIGNED:
        signed = x.view(SIGNED[x.dtype])
        return pool_gather(signed, i, window=window, stride=stride, padding=padding, dilation=dilation, flat=flat).view(x.dtype)
    n = len(window)
    lead, sizes = x.shape[: x.ndim - n], tuple(x.shape[x.ndim - n :])
    flat, i = (False, i.to(torch.int64)) if _small(x, window, flat) else (flat, i)
    at = i if flat else _flat(i, sizes, window, stride, padding, dilation)
    rows, plane = math.prod(lead), math.prod(sizes)
    return torch.gather(x.reshape(rows, plane), 1, at.reshape(rows, math.prod(i.shape[len(lead) :]))).reshape(i.shape)


def pool_scatter(
    g: Tensor, i: Tensor, *, x_shape: Ints, window: Ints, stride: Ints, padding: Pads, dilation: Ints, flat: bool = False
) -> Tensor:
    n = len(window)
    lead, sizes = x_shape[: len(x_shape) - n], tuple(x_shape[len(x_shape) - n :])
    if _small(g, window, flat) and stride == window and set(dilation) == {1} and not any(map(any, padding)):
        return _spread(g, i, sizes, window)
    flat, i = (False, i.to(torch.int64)) if _small(g, window, flat) else (flat, i)
    at = i if flat else _flat(i, sizes, window, stride, padding, dilation)
    rows, plane, places = math.prod(lead), math.prod(sizes), math.prod(i.shape[len(lead) :])
    out = torch.zeros((rows, plane), dtype=g.dtype, device=g.device)
    return out.scatter_add_(1, at.reshape(rows, places), g.reshape(rows, places)).reshape(x_shape)


def _spread(g: Tensor, i: Tensor, sizes: Ints, window: Ints) -> Tensor:
    """pool_scatter where windows neither overlap nor leave gaps: each place of a window asks whether it was chosen, which a compiler fuses."""
    n = len(window)
    lead, spatial = tuple(i.shape[: i.ndim - n]), tuple(i.shape[i.ndim - n :])
    apart = lead + tuple(d for s in spatial for d in (s, 1))
    place = torch.arange(math.prod(window), dtype=i.dtype, device=g.device).reshape([d for k in window for d in (1, k)])
    out = torch.where(i.reshape(apart) == place, g.reshape(apart), torch.zeros((), dtype=g.dtype, device=g.device))
    out = out.reshape(lead + tuple(s * k for s, k in zip(spatial, window, strict=True)))
    return _padded(out, tuple((0, m - s * k) for m, s, k in zip(sizes, spatial, window, strict=True)))
