"""PyTorch: gelu, layer normalisation and attention by torch's fused kernels, where these mean what the table says. In a compiled program the
gradients of an attention that are taken apart again are never put together (`attention_grads`).

Promises: what a kernel gets wrong (gelu at infinity, an infinite score) is found by looking at its result and computed by the decomposition. To
look would stop the queue on CUDA, and nobody can while a program is traced: there the argument is corrected beforehand. Attention on CUDA is in
on_torch_cuda.py; in a traced program it is the decomposition there, on the CPU an operator of ours that the compiler calls and that looks when it
runs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from minidl.arrays.composites.on_torch_cuda import attention as attention_there
from minidl.arrays.composites.on_torch_cuda import attention_grads as grads_there
from minidl.backends import get
from minidl.backends.torch_kernels import finite, number
from minidl.backends.torch_linear import HALF, unseen
from minidl.backends.torch_rewrite import EMITTED, REWRITES, Uses
from minidl.graph import Emitted, Equation, Graph, Var

Tensor = torch.Tensor
_aten = torch.ops.aten
_gelu, _layer_norm, _layer_norm_backward = torch._C._nn.gelu, torch.native_layer_norm, _aten.native_layer_norm_backward.default
_gelu_backward = _aten.gelu_backward.default
_sigmoid_backward = _aten.sigmoid_backward.grad_input
_CPU_FLASH = "_scaled_dot_product_flash_attention_for_cpu"
_flash: Any = getattr(getattr(_aten, _CPU_FLASH, None), "default", None)
_flash_backward: Any = getattr(getattr(_aten, _CPU_FLASH + "_backward", None), "default", None)
_gelu_into = _aten.gelu.out
_SLOPE, _CUBIC = math.sqrt(2 / math.pi), 0.044715  # gelu's u = _SLOPE (x + _CUBIC x³)
_MANY = 2**12  # elements from which on several passes cost less than one slow one
_PART = 2**18
_SCORES = 2**14  # scores from which on a traced program calls torch's attention
_libraries: list[Any] = []
_FAR = 100.0  # from here on gelu is x or 0 to the last bit


def _by_sigmoid(x: Tensor, out: Tensor | None) -> Tensor:
    """gelu's tanh form: (1 + tanh u) / 2 is sigmoid(2 u), of which torch on the CPU has a vectorised kernel four times as fast as its tanh. It also
    loses nothing in the left tail, where 1 + tanh u is all rounding."""
    out = torch.mul(x, x, out=out)
    torch.add(number(2 * _SLOPE, x.dtype), out, alpha=2 * _SLOPE * _CUBIC, out=out)
    torch.sigmoid(out.mul_(x), out=out)
    return out.mul_(x)


def _dx_by_sigmoid(g: Tensor, x: Tensor, out: Tensor | None) -> Tensor:
    """g (s + x s (1 - s) 2 u'), s the sigmoid of 2 u, whose own derivative is a call; a part at a time that stays in the cache."""
    if x.numel() > _PART and g.is_contiguous() and x.is_contiguous() and (out is None or out.is_contiguous()):
        out = torch.empty_like(x) if out is None else out
        for parts in zip(*(a.view(-1).split(_PART) for a in (g, x, out)), strict=True):
            _dx_by_sigmoid(*parts)
        return out
    out, slope = torch.mul(x, x, out=out), number(2 * _SLOPE, x.dtype)
    s = torch.add(slope, out, alpha=2 * _SLOPE * _CUBIC)
    torch.sigmoid(s.mul_(x), out=s)
    torch.add(slope, out, alpha=6 * _SLOPE * _CUBIC, out=out).mul_(x)
    return _sigmoid_backward(out, s, grad_input=out).add_(s).mul_(g)


def _gelu_of(x: Tensor, *, tanh: bool, out: Tensor | None = None) -> Tensor:
    """torch's gelu(-inf) is nan; on the CPU gelu(inf) is, too. out: where the result may be put."""
    how = "tanh" if tanh else "none"
    if x.is_cuda:  # where gelu(inf) is right
        return _gelu(x.clamp(min=-_FAR), approximate=how)
    if not unseen(x):
        if tanh and x.numel() >= _MANY:
            found = _by_sigmoid(x, out)
        else:
            found = _gelu(x, approximate=how) if out is None else _gelu_into(x, approximate=how, out=out)
        if finite(found):
            return found
    return torch.where(x > _FAR, x, _gelu(x.clamp(-_FAR, _FAR), approximate=how))


def _gelu_dx_of(g: Tensor, x: Tensor, *, tanh: bool, out: Tensor | None = None) -> Tensor:
    """torch's derivative is nan at infinity, and where the cube of x is infinite. out: where the result may be put."""
    if g.shape != x.shape:
        g, x = torch.broadcast_tensors(g, x)
    how = "tanh" if tanh else "none"
    if not x.is_cuda and not unseen(x):
        found = _dx_by_sigmoid(g, x, out) if tanh and x.numel() >= _MANY else _gelu_backward(g, x, approximate=how)
        if finite(found):
            return found
    return _gelu_backward(g, x.clamp(-_FAR, _FAR), approximate=how)


def _in_float32(fn: Callable[..., Any], first: int) -> Callable[..., Any]:
    """On the CPU torch keeps statistics of half precision in half precision, and its gelu of inf is nan there: so fn runs in float32, and its first
    results are narrowed."""

    def call(x: Tensor, *more: Tensor, **params: Any) -> Any:
        if x.dtype not in HALF or x.is_cuda:
            return fn(x, *more, **params)
        out = fn(x.float(), *(a.float() for a in more), **params)
        return out.to(x.dtype) if isinstance(out, Tensor) else tuple(o.to(x.dtype) if i < first else o for i, o in enumerate(out))

    return call


def _normalise(x: Tensor, w: Tensor, b: Tensor, *, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return _layer_norm(x, w.shape, w, b, eps)


def _normalise_dx(g: Tensor, x: Tensor, w: Tensor, mean: Tensor, rstd: Tensor, *, eps: float) -> Tensor:
    return _layer_norm_backward(g, x, w.shape, mean.contiguous(), rstd.contiguous(), w, None, (True, False, False))[0]


def _normalise_dw(g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, *, rank: int, eps: float) -> Tensor:
    shape = x.shape[x.ndim - rank :]
    if eps < 1e-12:  # x * rstd - mean * rstd, as the kernel has it, is not 0 where x does not vary
        return (g * ((x - mean) * rstd)).reshape(-1, *shape).sum(0)
    w = x.new_empty(()).expand(shape)  # of which only the shape is read
    return _layer_norm_backward(g, x, shape, mean.contiguous(), rstd.contiguous(), w, None, (False, True, False))[1]


gelu, gelu_dx = _in_float32(_gelu_of, 1), _in_float32(_gelu_dx_of, 1)
layer_norm, layer_norm_dx, layer_norm_dw = _in_float32(_normalise, 1), _in_float32(_normalise_dx, 1), _in_float32(_normalise_dw, 1)


def _heads(x: Tensor) -> Tensor:
    """[batch, heads, length, width], as the kernels take it, the last axis without gaps."""
    x = x if x.ndim == 4 else x.reshape(-1, 1, *x.shape[-2:])
    return x if x.stride(-1) == 1 else x.contiguous()


def _mask(mask: Tensor, q: Tensor) -> Tensor | None:
    if not mask.ndim:
        return None
    if q.ndim == 4:  # of masks torch takes those of two axes and of four
        return mask[None] if mask.ndim == 3 else mask
    return mask.expand(*q.shape[:-2], *mask.shape[-2:]).reshape(-1, 1, *mask.shape[-2:])


def _flashes(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, causal: bool) -> bool:
    """Whether torch's kernel takes these arguments."""
    return (
        _flash is not None and not q.is_cuda and q.shape[-1] == v.shape[-1] and q.numel() > 0 and k.numel() > 0
        and not (causal and mask.ndim > 0) and q.dtype not in HALF
    )  # fmt: skip


def flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """torch's attention, and the logarithms of its rows' sums."""
    out, lse = _flash(_heads(q), _heads(k), _heads(v), 0.0, causal, attn_mask=_mask(mask, q), scale=scale)
    if q.ndim == 4:
        return out, lse
    return out.reshape(*q.shape[:-1], v.shape[-1]), lse.reshape(q.shape[:-1])


def _right(lse: Tensor, mask: Tensor) -> bool:
    """Whether the kernel means the table: its sums are nan where a score is +inf, of which the table has a limit, and 0 for a row that may look
    nowhere, but also for one of few scores, all nan."""
    if not finite(lse):
        return False
    return bool(lse.all()) or (mask.ndim > 1 and bool(((mask == -math.inf).all(-1) | (lse != 0)).all()))


def _worth_a_call(q: Tensor, k: Tensor) -> bool:
    """Whether there are so many scores that a kernel which keeps none costs less than what a compiler makes of the decomposition."""
    return q.numel() // q.shape[-1] * k.shape[-2] >= _SCORES


@functools.cache
def _plain(name: str, device: str) -> Callable[..., Any]:
    """A primitive's decomposition on that device."""
    xp = get("torch", device)
    return xp.decomposed(name, xp)


@functools.cache
def _operators() -> Any:
    """Both as operators of torch's, which its compiler calls as they are: on the CPU, where they look at their results."""
    library = torch.library.Library(f"minidl_{len(_libraries)}", "DEF")
    _libraries.append(library)  # whose operators go when it does
    arrays = "Tensor q, Tensor k, Tensor v, Tensor mask"
    library.define(f"attention({arrays}, float scale, bool causal) -> (Tensor, Tensor)")
    library.define(f"attention_grad(Tensor g, {arrays}, Tensor o, Tensor lse, float scale, bool causal) -> Tensor")

    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
        out, lse = flash(q, k, v, mask, scale, causal)
        if not _right(lse, mask):
            for mine, right in zip((out, lse), attention(q, k, v, mask, scale=scale, causal=causal), strict=True):
                mine.copy_(right)
        return out, lse

    def backward(g: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, o: Tensor, lse: Tensor, scale: float, causal: bool) -> Tensor:
        return attention_grad(g, q, k, v, mask, o, lse, scale=scale, causal=causal).contiguous()

    def shape_of_backward(g: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
        return q.new_empty((*q.shape[:-2], sum(a.shape[-2] * a.shape[-1] for a in (q, k, v))))

    name = library.ns
    library.impl("attention", forward, "CPU")
    library.impl("attention_grad", backward, "CPU")
    torch.library.register_fake(f"{name}::attention", flash, lib=library)
    torch.library.register_fake(f"{name}::attention_grad", shape_of_backward, lib=library)
    return getattr(torch.ops, name)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    if q.is_cuda and q.__class__ is Tensor and (found := attention_there(_plain, q, k, v, mask, scale=scale, causal=causal)):
        return found
    if _flashes(q, k, v, mask, causal):
        if unseen(q) and _worth_a_call(q, k):
            return _operators().attention(q, k, v, mask, scale, causal)
        if not unseen(q):
            out, lse = flash(q, k, v, mask, scale, causal)
            if _right(lse, mask):
                return out, lse
    return _plain("attention", str(q.device))(q, k, v, mask, scale=scale, causal=causal)


def _flashed(g: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, o: Tensor, lse: Tensor, *, scale: float, causal: bool) -> Any:
    """torch's gradients of q, k and v as heads; None where they are not the table's."""
    if q.is_cuda and q.__class__ is Tensor:
        return grads_there(_plain, g, q, k, v, mask, o, lse, scale=scale, causal=causal)
    if unseen(q) or not _flashes(q, k, v, mask, causal) or not _right(lse, mask):
        return None
    rows = lse if q.ndim == 4 else lse.reshape(-1, 1, lse.shape[-1])
    return _flash_backward(*map(_heads, (g, q, k, v, o)), rows, 0.0, causal, attn_mask=_mask(mask, q), scale=scale)


def attention_grad(g: Tensor, q: Tensor, k: Tensor, v: Tensor, *more: Tensor, scale: float, causal: bool) -> Tensor:
    if unseen(q) and _flashes(q, k, v, more[0], causal) and _worth_a_call(q, k):
        return _operators().attention_grad(g, q, k, v, *more, scale, causal)
    found = _flashed(g, q, k, v, *more, scale=scale, causal=causal)
    if found is None:
        return _plain("attention_grad", str(q.device))(g, q, k, v, *more, scale=scale, causal=causal)
    return torch.cat([d.reshape(*q.shape[:-2], -1) for d in found], -1)


# ---- in compiled programs -------------------------------------------------------------------------------------------------------------
#: attention_grads(g, q, k, v, ...; scale, causal): what attention_grad computes, in the shapes of q, k and v.
AttentionGrads = Emitted("attention_grads", True)


def attention_grads(g: Tensor, q: Tensor, k: Tensor, v: Tensor, *more: Tensor, scale: float, causal: bool) -> tuple[Tensor, ...]:
    """The three gradients apart."""
    found = _flashed(g, q, k, v, *more, scale=scale, causal=causal)
    if found is None:  # apart in memory, too
        sizes = [a.shape[-2] * a.shape[-1] for a in (q, k, v)]
        found = [d.clone() for d in _plain("attention_grad", str(q.device))(g, q, k, v, *more, scale=scale, causal=causal).split(sizes, -1)]
    return tuple(d.reshape(a.shape) for d, a in zip(found, (q, k, v), strict=True))


def attentions_apart(graph: Graph, place: str) -> Graph:
    """The graph with `attention_grads` in place of such gradients."""
    if not place:
        return graph
    uses, new, gone = Uses(graph), {}, set()
    for e in graph.equations:
        packed = e.outputs[0]
        if e.primitive.name != "attention_grad" or packed in uses.kept:
            continue
        like, lead, ends = e.inputs[1:4], packed.shape[:-1], [0]
        for a in like:
            ends.append(ends[-1] + a.shape[-2] * a.shape[-1])
        parts: dict[int, Any] = {}
        for cut in uses.users.get(packed, []):
            k = ends.index(cut.params["start"][-1]) if cut.primitive.name == "slice" and cut.params["start"][-1] in ends[:3] else 3
            whole = {"start": (*(0 for _ in lead), *ends[k : k + 1]), "stop": (*lead, *ends[k + 1 : k + 2]), "step": (1,) * packed.ndim}
            readers = uses.users.get(cut.outputs[0], [])
            shaped = [r for r in readers if r.primitive.name == "reshape" and k < 3 and r.outputs[0].shape == like[k].shape]
            if cut.params != whole or cut.outputs[0] in uses.kept or len(shaped) != 1 or len(readers) != 1 or k in parts:
                break
            parts[k] = shaped[0].outputs[0]
        else:
            outputs = tuple(parts.get(k) or Var(a.shape, a.dtype) for k, a in enumerate(like))
            new[e] = Equation(AttentionGrads, e.inputs, e.params, outputs, e.where)
            gone |= {r for v in parts.values() for r in (uses.made[v], uses.made[uses.made[v].inputs[0]])}  # type: ignore[index]
    return Graph(graph.inputs, [new.get(e, e) for e in graph.equations if e not in gone], graph.outputs, graph.name)


EMITTED["attention_grads"] = attention_grads
REWRITES.append(attentions_apart)
