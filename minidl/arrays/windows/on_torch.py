"""PyTorch: convolution and pooling, and rewrites of programs with images. On a CPU their channels are last in memory where that is quicker.

Promises: float32 convolution and its transpose in x run in full float32 on CUDA too (the flag is an argument of torch._convolution); its transpose
in w follows `torch.backends.cudnn.allow_tf32`, the only switch torch has there. float16 and bfloat16 accumulate in float32; integers are exact in
their own dtype. Rewrites keep values and gradients to the last bit, nan and ties included; of a maximum that is zero, the sign may be the other one.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable
from typing import Any

import torch

from minidl.arrays.windows.on_numpy import out_sizes
from minidl.backends.torch_elementwise import NATIVE
from minidl.backends.torch_linear import MANY, SIGNED, WORDS, carried, carrier, is_last, plus, unseen
from minidl.backends.torch_rewrite import EMITTED, LAST, REWRITES, WAYS, Uses
from minidl.dtypes import float32
from minidl.graph import Emitted, Equation, Graph, Literal, Var, subgraphs
from minidl.passes.basic import dead_code
from minidl.primitives.core import table

Tensor = torch.Tensor
Ints = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]
_ROW = 8  # windows in a row from which on strided slices beat torch's pooling, which takes one element at a time
_CHANNELS = 8  # from how many on torch's pooling makes vectors of them, which pays for the copies there and back


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
    return x.is_complex() or carrier(x) is not x.dtype


def wants_last(w: Ints, groups: int, dtype: Any) -> bool:
    """Whether a convolution with kernels [O, I / groups, h, w] is made with channels last in memory, as oneDNN takes and gives them without copies of
    its own: its result lies so, and what is computed from that element by element. With few channels there is nothing to gain."""
    return len(w) == 4 and w[0] >= 8 and not 4 < w[1] * groups < 8 and dtype is torch.float32 and torch.backends.mkldnn.is_available()


def _last(w: Ints, groups: int, last: bool | None, *arrays: Tensor) -> Iterable[Tensor]:
    """The arrays of a convolution in the order that it wants, or in which it is told to have them."""
    if not arrays[0].is_cpu or (last is None and not wants_last(w, groups, arrays[0].dtype)):
        return arrays
    return map(torch.Tensor.contiguous if last is False else _made_last, arrays)


def _made_last(x: Tensor) -> Tensor:
    if x.shape[1] != 1:
        return x.contiguous(memory_format=torch.channels_last)
    x = x.contiguous()  # which is either order, and says the first
    return x.as_strided(x.shape, (x.stride(0), 1, *x.stride()[2:]))


@functools.lru_cache(256)
def _even(padding: Pads) -> Ints | None:
    """The padding as torch takes it, or None where the two sides differ."""
    return tuple(lo for lo, _ in padding) if all(lo == hi for lo, hi in padding) else None


def _cut(spatial: Iterable[slice]) -> tuple[Any, ...]:
    return (..., *spatial)


def _padded(x: Tensor, padding: Pads, value: float = 0) -> Tensor:
    return torch.constant_pad_nd(x, [n for pair in reversed(padding) for n in pair], value)


def conv(x: Tensor, w: Tensor, *, stride: Ints, padding: Pads, dilation: Ints, groups: int, last: bool | None = None) -> Tensor:
    if _indirect(x):
        return carried(conv, x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if not (w.numel() and x.numel()):  # for no channels torch has another shape, or an error; for an empty axis an error
        return x.new_zeros((x.shape[0], w.shape[0], *out_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation)))
    pad = _even(padding)
    if pad is None:
        x, pad = _padded(x, padding), (0,) * len(padding)
    x, w = _last(w.shape, groups, last, x, w)
    return _convolution(x, w, stride, pad, dilation, groups)


def conv_affine(
    x: Tensor, w: Tensor, b: Tensor, *, stride: Ints, padding: Pads, dilation: Ints, groups: int, last: bool | None = None
) -> Tensor:
    if _indirect(x) or not (w.numel() and x.numel()):
        out = conv(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
        return plus(out, b.reshape(-1, *(1,) * (x.ndim - 2)))
    pad = _even(padding)
    if pad is None:
        x, pad = _padded(x, padding), (0,) * len(padding)
    x, w = _last(w.shape, groups, last, x, w)
    return _convolution(x, w, stride, pad, dilation, groups, bias=b)


def conv_dx(
    g: Tensor, w: Tensor, *, x_shape: Ints, stride: Ints, padding: Pads, dilation: Ints, groups: int, last: bool | None = None
) -> Tensor:
    if _indirect(g):
        return carried(conv_dx, g, w, x_shape=x_shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
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
    g, w = _last(w.shape, groups, last, g, w)
    out = _convolution(g, w, stride, inner, dilation, groups, True, more)
    return out if pad is not None else out[_cut(slice(lo, lo + n) for n, (lo, _) in zip(x_shape[2:], padding, strict=True))].contiguous()


def conv_dw(
    x: Tensor, g: Tensor, *, w_shape: Ints, stride: Ints, padding: Pads, dilation: Ints, groups: int, last: bool | None = None
) -> Tensor:
    if _indirect(x):
        return carried(conv_dw, x, g, w_shape=w_shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if not x.numel() or not g.numel():
        return x.new_zeros(w_shape)
    pad = _even(padding)
    if pad is None:
        x, pad = _padded(x, padding), (0,) * len(padding)
    if x.is_floating_point():
        x, g = _last(w_shape, groups, last, x, g)
        w = x.new_empty(()).expand(w_shape)  # of which only the shape is read
        mask, extra = [False, True, False], [0] * len(stride)
        return torch.ops.aten.convolution_backward(g, x, w, None, stride, pad, dilation, False, extra, groups, mask)[1].contiguous()
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

    torch takes the last nan of a window and may take a padded place, so where something is not finite the general loop decides. On CUDA to look would
    be to wait for the queue; there a second pooling finds the first nan, and the kernel for contiguous images takes no padded place
    (DilatedMaxPool2d.cu; that for channels last says place 0 of a window of -inf).
    """
    if x.dtype in SIGNED:
        signed = SIGNED[x.dtype]
        flip = torch.iinfo(signed).min
        out, index = max_pool(x.view(signed) ^ flip, window=window, stride=stride, padding=padding, dilation=dilation, flat=flat)
        return (out ^ flip).view(x.dtype), index
    n = len(window)
    lead, sizes = x.shape[: x.ndim - n], tuple(x.shape[x.ndim - n :])
    spatial = out_sizes(sizes, window, stride, padding, dilation)
    sliced = slices_well((*lead, *spatial), window, stride, padding, dilation, 4)  # where torch's places would have to be converted besides
    if sliced and not flat and x.is_floating_point() and not x.is_cuda and not unseen(x) and not is_last(x):
        best, chosen = sliced_maxima(x, window)
        if chosen is not None:
            return best, _index(chosen, window).to(torch.int64)
    pad = _even(padding)
    if n in _POOL and pad is not None and x.is_floating_point() and x.numel() and (x.is_cuda or not unseen(x)):
        planes = x if len(lead) == 2 and n > 1 else x.reshape(-1, 1, *((1,) if n == 1 else ()), *sizes)
        one, zero = ((1,), (0,)) if n == 1 else ((), ())
        if last := planes.ndim == 4 and planes.shape[1] >= _CHANNELS and not x.is_cuda and not is_last(x):
            planes = planes.contiguous(memory_format=torch.channels_last)
        sizes_of = one + window, one + stride, zero + pad, one + dilation
        planes = planes.contiguous() if x.is_cuda else planes
        out, where = _POOL[n](planes, *sizes_of)
        if last:
            out, where = out.contiguous(), where.contiguous()
        if x.is_cuda:
            where = torch.where(out != out, _POOL[n](torch.ne(planes, planes).to(planes.dtype), *sizes_of)[1], where)
        if x.is_cuda or math.isfinite(out.sum(dtype=torch.float64 if x.dtype is torch.float64 else torch.float32).item()):
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
    if flat and is_last(i) and g.is_floating_point():
        g, pad = g.contiguous(memory_format=torch.channels_last), [lo for lo, _ in padding]
        out = torch.empty(x_shape, dtype=g.dtype, device=g.device, memory_format=torch.channels_last)
        return torch.ops.aten.max_pool2d_with_indices_backward.grad_input(g, out, window, stride, pad, dilation, False, i, grad_input=out)
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


# ---- in compiled programs -------------------------------------------------------------------------------------------------------------
#: pool_masks(x; window): the maxima, and what `spread` takes.
PoolMasks = Emitted("pool_masks", True)
#: spread(g, places; x_shape, window, ...): pool_scatter where pool_masks found the places.
Spread = Emitted("spread")
#: enlarged(x; sizes): each pixel as a rectangle of so many that the image has these sizes.
Enlarged = Emitted("enlarged")


def enlarged(x: Tensor, *, sizes: tuple[int, ...]) -> Tensor:
    return torch.ops.aten.upsample_nearest2d.default(x, sizes)


def pool_masks(x: Tensor, *, window: tuple[int, ...]) -> tuple[Tensor, Any]:
    """For each axis of the windows one mask for each place along it, int8, with every bit set where the first maximum is. With a nan, which compares
    with nothing, the general kernel decides."""
    best, chosen = sliced_maxima(x, window)
    if chosen is not None:
        return best, [[m.neg_() for m in masks] for masks in chosen]
    none = (0,) * len(window)
    return max_pool(x, window=window, stride=window, padding=tuple(zip(none, none, strict=True)), dilation=(1,) * len(window))


pool_masks.fits = slices_well  # type: ignore[attr-defined]


def spread(g: Tensor, places: Any, *, x_shape: tuple[int, ...], window: tuple[int, ...], **more: Any) -> Tensor:
    """g at the chosen places, 0 elsewhere: by bits, so that neither 0 * inf nor a branch arises; one axis after the other, the first one first."""
    if isinstance(places, Tensor):
        return pool_scatter(g, places, x_shape=x_shape, window=window, **more)
    n, bits = len(window), g.view(WORDS[g.dtype.itemsize])
    for axis in range(-n, 0):
        shape = (*bits.shape[: bits.ndim + axis], x_shape[axis], *bits.shape[bits.ndim + axis + 1 :])
        out = (torch.zeros if x_shape[axis] % window[axis] else torch.empty)(shape, dtype=bits.dtype, device=bits.device)
        for cut, mask in zip(cuts(shape, window, axis), places[axis], strict=True):
            torch.bitwise_and(bits, mask, out=out[cut])
        bits = out
    return bits.view(g.dtype)


def _new(name: str, inputs: tuple, params: dict, like: Any, where: str | None) -> Equation:
    return Equation(table[name], inputs, params, (Var(like.shape, like.dtype),), where)


def _cut_by(uses: Uses, scatter: Equation, x: Any) -> bool:
    """Whether this is a pool_scatter of what was 0 already where x is not positive."""
    cut = uses.maker(scatter.inputs[0], "where")
    return scatter.primitive.name == "pool_scatter" and cut is not None and uses.positive(cut) is x


def relu_after_pooling(graph: Graph) -> Graph:
    """relu after max pooling instead of before it: the maximum of a window and its first place are the same, and where the maximum is not positive no
    gradient passes either way; so relu and its derivative see a quarter of the elements."""
    uses, equations = Uses(graph), list(graph.equations)
    for pool in graph.equations:
        relu = uses.maker(pool.inputs[0], "relu") if pool.primitive.name == "max_pool" else None
        if relu is None or relu.outputs[0] in uses.kept or not relu.outputs[0].dtype.is_float:
            continue
        cut = [e for test in uses.users[relu.outputs[0]] if test.primitive.name == "gt" for e in uses.users.get(test.outputs[0], [])]
        scatters = [uses.maker(e.inputs[1], "pool_scatter") for e in cut]
        others = [e for e in uses.users[relu.outputs[0]] if e is not pool and e.primitive.name != "gt"]
        tests = [e for e in uses.users[relu.outputs[0]] if e.primitive.name == "gt"]
        fits = all(
            s is not None and s.inputs[1] is pool.outputs[1] and uses.positive(e) is relu.outputs[0] and len(uses.users[s.outputs[0]]) == 1
            and s.outputs[0] not in uses.kept
            for e, s in zip(cut, scatters, strict=True)
        )  # fmt: skip
        # where a whole window is below 0 the places differ, which nobody else may see: but for a scatter to which no gradient comes from there
        scatters += [s for s in uses.users.get(pool.outputs[1], []) if _cut_by(uses, s, pool.outputs[0])]
        seen = pool.outputs[1] in uses.kept or any(all(u is not s for s in scatters) for u in uses.users.get(pool.outputs[1], []))
        if others or not fits or seen or any(t.outputs[0] in uses.kept for t in tests):
            continue
        best = Var(pool.outputs[0].shape, pool.outputs[0].dtype)
        at = equations.index(pool)
        equations[at : at + 1] = [
            Equation(pool.primitive, relu.inputs, pool.params, (best, pool.outputs[1]), pool.where),
            Equation(relu.primitive, (best,), {}, (pool.outputs[0],), relu.where),
        ]
        for e, scatter in zip(cut, scatters, strict=False):
            assert scatter is not None
            g, (zero,) = scatter.inputs[0], e.inputs[2:]
            test = _new("gt", (pool.outputs[0], Literal(0.0, g.dtype)), {}, Var(g.shape, e.inputs[0].dtype), e.where)
            passed = _new("where", (test.outputs[0], g, zero), {}, g, e.where)
            equations[equations.index(scatter)] = test
            at = equations.index(e)
            equations[at : at + 1] = [passed, Equation(scatter.primitive, (passed.outputs[0], scatter.inputs[1]), scatter.params, e.outputs, e.where)]
    return dead_code(Graph(graph.inputs, equations, graph.outputs, graph.name))


def pools_as_slices(graph: Graph) -> Graph:
    """Max pooling over windows that neither overlap nor leave rows that are too short for a vector as the maximum of strided slices, and its places,
    which nobody but the derivative sees, as a mask for each place along an axis; the library's kernel takes one element at a time, unless the
    channels are last."""
    uses, new, last = Uses(graph), {}, images(graph)
    for e in graph.equations:
        if e.primitive.name != "max_pool" or not e.outputs[0].dtype.is_float or e.inputs[0] in last:
            continue
        window, places, shape = e.params["window"], e.outputs[1], e.outputs[0].shape
        readers = uses.users.get(places, [])
        ours = all(r.primitive.name == "pool_scatter" and r.params["window"] == window and r.params["stride"] == window for r in readers)
        well = slices_well(shape, window, e.params["stride"], e.params["padding"], e.params["dilation"])
        if well and ours and places not in uses.kept and all(r.inputs[0] is not places for r in readers):
            new[e] = Equation(PoolMasks, e.inputs, {"window": window}, e.outputs, e.where)
            new.update((r, Equation(Spread, r.inputs, r.params, r.outputs, r.where)) for r in readers)
    return Graph(graph.inputs, [new.get(e, e) for e in graph.equations], graph.outputs, graph.name)


def flat_pools(graph: Graph) -> Graph:
    """The poolings whose places nobody else sees keep torch's own flat positions instead of converting them there and back."""
    uses, flat = Uses(graph), set[Equation]()

    def window(e: Equation) -> tuple:
        n = len(e.params["window"])
        plane = e.params["x_shape"] if "x_shape" in e.params else e.inputs[0].shape
        return (plane[len(plane) - n :], *(e.params[k] for k in ("window", "stride", "padding", "dilation")))

    for pool in graph.equations:
        if pool.primitive.name != "max_pool" or (places := pool.outputs[1]) in uses.kept:
            continue
        readers = uses.users.get(places, [])
        ours = (e.primitive.name in ("pool_gather", "pool_scatter") and e.inputs[0] is not places and window(e) == window(pool) for e in readers)
        if all(ours):
            flat.update((pool, *readers))
    equations = [Equation(e.primitive, e.inputs, {**e.params, "flat": True}, e.outputs, e.where) if e in flat else e for e in graph.equations]
    return Graph(graph.inputs, equations, graph.outputs, graph.name) if flat else graph


#: Up to which axis the shape stays, for what moves elements and leaves the order of channels in memory as it is.
_KEEP = dict.fromkeys(("concat", "slice"), 1) | dict.fromkeys("max_pool pool_gather pool_scatter enlarged reshape broadcast_to".split(), 2)


def _lies_last(e: Equation) -> bool:
    """Whether a convolution is made with channels last in memory."""
    w, told = e.params.get("w_shape", e.inputs[1].shape), e.params.get("last")
    return wants_last(w, e.params["groups"], NATIVE[e.outputs[0].dtype]) if told is None else told


def laid(last: bool, graph: Graph) -> Graph | None:
    """The graph whose float32 convolutions of images, those of loops and branches too, all have the channels last in memory, or none has; None where
    `wants_last` says so of each."""

    def inside(value: Any) -> Any:
        if isinstance(value, tuple) and any(isinstance(v, Graph) for v in value):
            return tuple(map(inside, value))
        return (laid(last, value) or value) if isinstance(value, Graph) else value

    def told(e: Equation) -> dict[str, Any]:
        if e.primitive.name in ("conv", "conv_dx", "conv_dw") and len(e.inputs[0].shape) == 4 and e.outputs[0].dtype is float32:
            return {} if _lies_last(e) == last else {**e.params, "last": last}
        return {k: inside(v) for k, v in e.params.items()} if any(laid(last, g) for g in subgraphs(e.params)) else {}

    found = {e: Equation(e.primitive, e.inputs, params, e.outputs, e.where) for e in graph.equations if (params := told(e))}
    return Graph(graph.inputs, [found.get(e, e) for e in graph.equations], graph.outputs, graph.name) if found else None


def images(graph: Graph) -> set[Var]:
    """Whose channels are last in memory: results of convolutions, and what is computed of them element by element, window by window or by a move that
    leaves examples and channels alone."""
    found: set[Var] = set()
    for e in graph.equations:
        out, name = e.outputs[0], e.primitive.name
        if name in ("conv", "conv_affine", "conv_dx"):
            lies = _lies_last(e)
        else:
            n = _KEEP.get(name)  # None: all of it
            lies = any(a in found and a.shape[:n] == out.shape[:n] for a in e.inputs)
        found.update(e.outputs if lies else ())
    return {v for v in found if len(v.shape) == 4}


def enlargements(graph: Graph) -> Graph:
    """What repeats the pixels of an image whose channels are last, by powers of two (torch rounds the inverse of a factor), is one kernel, which
    leaves the channels there: broadcasting between two reshapes would not."""
    uses, new, last = Uses(graph), {}, images(graph)
    for e in graph.equations:
        wide = uses.maker(e.inputs[0], "broadcast_to") if e.primitive.name == "reshape" and len(e.outputs[0].shape) == 4 else None
        apart = uses.maker(wide.inputs[0], "reshape") if wide is not None else None
        if wide is None or apart is None or apart.inputs[0] not in last or 0 in e.outputs[0].shape or not e.outputs[0].dtype.is_float:
            continue
        (x, *_), sizes = apart.inputs, e.outputs[0].shape[2:]
        n, c, h, w = x.shape
        factors = sizes[0] // h, sizes[1] // w
        fits = apart.outputs[0].shape == (n, c, h, 1, w, 1) and wide.outputs[0].shape == (n, c, h, factors[0], w, factors[1])
        if fits and e.outputs[0].shape[:2] == (n, c) and all(f & (f - 1) == 0 for f in factors):
            new[e] = Equation(Enlarged, (x,), {"sizes": sizes}, e.outputs, e.where)
    return dead_code(Graph(graph.inputs, [new.get(e, e) for e in graph.equations], graph.outputs, graph.name)) if new else graph


def of_images(graph: Graph, place: str) -> Graph:
    """The rewrites above in their order; pool_masks looks at its values, for which CUDA would have to wait."""
    graph = relu_after_pooling(graph)
    return flat_pools(pools_as_slices(enlargements(graph)) if place == "cpu" else graph)


EMITTED.update(pool_masks=pool_masks, spread=spread, enlarged=enlarged)
REWRITES.append(of_images)
LAST.append(images)
WAYS.update(channels_first=functools.partial(laid, False), channels_last=functools.partial(laid, True))
