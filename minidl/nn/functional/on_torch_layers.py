"""PyTorch: normalisation of batches and groups, attention, LSTM layers, lists of gradients and look-up, by its kernels forwards and backwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from minidl.backends.torch_kernels import KERNELS, finite
from minidl.nn.functional.on_torch_common import fitting, kept, ours

Tensor = torch.Tensor
_aten = torch.ops.aten
_layer_norm_backward = _aten.native_layer_norm_backward.default


# ---- normalisation ---------------------------------------------------------------------------------------------------------------------------------
#: torch's kernels compute x * scale + (bias - mean * scale), where a smaller eps loses the bias of what does not vary: scale is 1 / sqrt(eps) there.
_LEAST = 1e-8


def by_batch(
    tracked: bool, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, rate: Tensor | None,
    eps: float, momentum: Any,
) -> Any:  # fmt: skip
    """torch takes a weight for a factor of the mean."""
    if rate is not None or eps < _LEAST or not ours(x, weight, bias, mean, var) or not (weight is None or finite(weight)):
        return None
    if mean is not None and var is not None:  # which the kernel would write to
        mean, var = mean.clone(), var.clone()
    out, *saved = torch.native_batch_norm(x, weight, bias, mean, var, True, 0.0 if momentum is None else momentum, eps)
    return out, (mean, var), _normal_back(x, weight, None, None, saved, True, eps)


def by_running(tracked: bool, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    if eps < _LEAST or not ours(x, mean, var, weight, bias) or not (weight is None or finite(weight)):
        return None
    out, *saved = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)
    back = _normal_back(x, weight, mean, var, saved, False, eps)

    def reordered(wanted: list[bool], g: Tensor) -> Any:
        if wanted[1] or wanted[2]:
            return None
        dx, dw, db, *_ = back([wanted[0], *wanted[3:]], g)
        return dx, None, None, dw, db

    return out, (), reordered


def _normal_back(x: Tensor, weight: Any, mean: Any, var: Any, saved: list[Tensor], training: bool, eps: float) -> Callable[..., Any]:
    def back(wanted: list[bool], g: Tensor) -> Any:
        asked = [*wanted[:2], wanted[2] or training]
        dx, dw, db = _aten.native_batch_norm_backward(g, x, weight, mean, var, *saved, training, eps, asked)
        if training and not finite(db):  # a sum of the cotangents: of infinities the kernel makes others than the formula
            return None
        return dx, dw, db if wanted[2] else None, None, None, None

    return back


def by_row(tracked: bool, x: Tensor, weight: Tensor | None, bias: Tensor | None, axes: int, eps: float) -> Any:
    """In eager code alone: a program has the primitive, whose derivatives others merge with."""
    if eps < 1e-12 or not ours(x, weight, bias):  # see minidl.arrays.composites.on_torch
        return None
    lead, shape = tuple(range(x.dim() - axes)), x.shape[x.dim() - axes :]
    out, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)

    def back(wanted: list[bool], g: Tensor) -> Any:
        dx, dw, _ = _layer_norm_backward(g, x, shape, mean, rstd, weight, None, [*wanted[:2], False])
        return dx, dw, KERNELS["sum"](g, axis=lead, keepdims=False) if wanted[2] else None

    return out, (), back


@fitting(lambda tracked, x, weight, bias, groups, eps: eps >= _LEAST and ours(x, weight, bias))
def by_group(tracked: bool, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float) -> Any:
    if not (weight is None or finite(weight)):
        return None
    x, (n, c) = x.contiguous(), x.shape[:2]
    weight, bias = (a if a is None else a.contiguous() for a in (weight, bias))  # it reads others as if they were
    sizes = n, c, x.numel() // (n * c), groups
    out, *saved = torch.native_group_norm(x, weight, bias, *sizes, eps)
    if not finite(out):
        return None

    def back(wanted: list[bool], g: Tensor) -> Any:
        found = _aten.native_group_norm_backward(g.contiguous(), x, *saved, weight, *sizes, wanted)
        return found if all(d is None or finite(d) for d in found) else None

    return out, (), back


# ---- attention that keeps its weights -------------------------------------------------------------------------------------------------------------
def attended(
    tracked: bool, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, drawn: Tensor | None, causal: bool, scale: float | None, p: float
) -> Any:  # fmt: skip
    """In eager code alone: a program has the operations, which others merge with."""
    added = mask is not None and mask.dtype is not torch.bool
    if q.dim() != k.dim() or k.shape[:-1] != v.shape[:-1] or not ours(q, k, v, mask if added else None) or (causal and mask is not None):
        return None
    scale, kept_scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale, 1.0 / (1.0 - p)
    scores = torch.matmul(q, k.mT).mul_(scale)
    if mask is not None:
        scores = scores.add_(mask if added else torch.where(mask, 0.0, -math.inf).to(q.dtype))  # inf and nan stay nan
    elif causal:
        scores.masked_fill_(torch.ones(scores.shape[-2:], dtype=torch.bool).triu_(1), -math.inf)
    weights = torch.softmax(scores, -1)
    if not finite(weights):  # a row that may look nowhere, or an infinite score
        return None
    given = weights if drawn is None else kept(drawn, weights, scale=kept_scale)

    def back(wanted: list[bool], g: Tensor | None, of_weights: Tensor | None) -> Any:
        if g is None or wanted[3]:
            return None
        d = torch.matmul(g, v.mT)
        d = d if of_weights is None else d.add_(of_weights)
        d = _aten._softmax_backward_data(d if drawn is None else kept(drawn, d, scale=kept_scale), weights, -1, weights.dtype).mul_(scale)
        if not finite(d):
            return None
        return torch.matmul(d, k), torch.matmul(d.mT, q), torch.matmul(given.mT, g), None, None

    return (torch.matmul(given, v), given), (), back


# ---- recurrent layers ------------------------------------------------------------------------------------------------------------------------------
def _layer(tracked: bool, x: Tensor, h: Tensor, c: Tensor, ih: Tensor, hh: Tensor, bias_ih: Any, bias_hh: Any, reverse: bool) -> bool:
    """Whether these are the arrays of a layer: oneDNN looks at few of the shapes."""
    (n, size), rows = h.shape, (hh.shape[0],)
    if x.dtype is not torch.float32 or not ours(x, h, c, ih, hh, bias_ih, bias_hh) or not torch.backends.mkldnn.is_available():
        return False
    right = ih.shape == (*rows, x.shape[2]) and hh.shape == (4 * size, size) and h.shape == c.shape and x.shape[1] == n
    return right and all(b is None or b.shape == rows for b in (bias_ih, bias_hh))


@fitting(_layer)
def lstm(tracked: bool, x: Tensor, h: Tensor, c: Tensor, ih: Tensor, hh: Tensor, bias_ih: Any, bias_hh: Any, reverse: bool) -> Any:
    """A layer in one direction by oneDNN."""
    biases, size = bias_ih is not None and bias_hh is not None, h.shape[1]
    b_ih, b_hh = (bias_ih, bias_hh) if biases else (hh.new_zeros(hh.shape[:1]),) * 2
    given = [a.contiguous() for a in (x, ih, hh, b_ih, b_hh, h, c)]  # it reads others as if they were
    *results, space = _aten.mkldnn_rnn_layer(*given, reverse, [], 2, size, 1, True, False, False, tracked)

    def back(wanted: list[bool], *cts: Tensor | None) -> Any:
        cts = tuple(g if g is None else g.contiguous() for g in cts)
        found = _aten.mkldnn_rnn_layer_backward(*given, *results, *cts, reverse, 2, size, 1, True, True, False, [], False, space)
        dx, d_ih, d_hh, d_b, _, dh, dc = found
        return dx, dh, dc, d_ih, d_hh, d_b if biases else None, d_b.clone() if biases else None

    return tuple(results), (), back


# ---- lists of arrays, as gradients are -------------------------------------------------------------------------------------------------------------
@fitting(lambda tracked, *xs: not tracked and ours(*xs))
def norm(tracked: bool, *xs: Tensor) -> Any:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(xs)))), (), None


@fitting(lambda tracked, scale, *xs: not tracked and not scale.dim() and ours(scale, *xs))
def times(tracked: bool, scale: Tensor, *xs: Tensor) -> Any:
    return tuple(torch._foreach_mul(list(xs), scale)), (), None


# ---- look-up ---------------------------------------------------------------------------------------------------------------------------------------
def rows(tracked: bool, weight: Tensor, index: Tensor, padding: int | None) -> Any:
    """torch complains of a negative place, which counts from the end."""
    if weight.dim() != 2 or not ours(weight) or index.dtype is not torch.int64:
        return None
    n, hole = weight.shape[0], -1 if padding is None else padding % weight.shape[0]
    return torch.embedding(weight, index), (), lambda wanted, g: (_aten.embedding_dense_backward(g, index, n, hole, False), None)


def one_of(tracked: bool, index: Tensor, n: int) -> Any:
    if not index.is_cpu or index.dtype is not torch.int64:
        return None
    return torch.zeros((*index.shape, n), dtype=torch.int64).scatter_(-1, index.unsqueeze(-1), 1), (), None
