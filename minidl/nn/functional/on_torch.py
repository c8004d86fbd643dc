"""PyTorch: the primitives of minidl.nn.functional.gates, corrected where a value is infinite; and for functions that run eagerly on the CPU, by its
kernels forwards and backwards: activations, normalisation of batches and groups, LSTM layers, losses, pooling, borders, resampling, lists of
gradients (minidl.nn.functional.kernels).

Promises: who may look at values does, on the CPU; elsewhere the argument of a primitive is limited beforehand. Half precision, and what a kernel may
get wrong (mish of -inf, an infinite cotangent where the derivative is 0, a kink), is no function's: found by looking, which is one quick pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from minidl.backends.torch_kernels import finite
from minidl.backends.torch_linear import HALF, is_last, unseen

Tensor = torch.Tensor
_aten = torch.ops.aten
_MANY = 2**20  # scores from which on nothing as large is kept for the backward pass
_SOME = 2**14
_FLOATS = (torch.float32, torch.float64)


def _ours(*xs: Tensor | None) -> bool:
    """Whether these are floats of one dtype on the CPU."""
    first = xs[0]
    assert first is not None
    return first.dtype in _FLOATS and all(x is None or (x.dtype is first.dtype and x.__class__ is Tensor and x.is_cpu) for x in xs)


# ---- primitives -------------------------------------------------------------------------------------------------------------------------------
_FAR = 1e3
_silu, _silu_backward = torch._C._nn.silu, _aten.silu_backward.default


def silu(x: Tensor) -> Tensor:
    """torch's silu(-inf) is nan."""
    if x.is_cpu and not unseen(x):
        found = _silu(x)
        if finite(found):
            return found
    return _silu(x.clamp(min=-_FAR)).to(x.dtype)


def silu_dx(g: Tensor, x: Tensor) -> Tensor:
    """torch's derivative is nan at infinity."""
    if g.shape != x.shape:
        g, x = torch.broadcast_tensors(g, x)
    if x.is_cpu and not unseen(x):
        found = _silu_backward(g, x)
        if finite(found):
            return found
    return _silu_backward(g, x.clamp(-_FAR, _FAR))


_hardswish_backward = _aten.hardswish_backward.default


def hardswish(x: Tensor) -> Tensor:
    """torch's multiplies an infinity by 0, and what it has not divided by 6 yet may be one."""
    if x.is_cpu and not unseen(x) and x.dtype in _FLOATS:
        found = torch._C._nn.hardswish(x)
        if finite(found):
            return found
    y = x.float() if x.dtype in HALF else x
    inside = torch.where(y.abs() >= 3.0, -0.0, y)
    return torch.where(y >= 3.0, y, inside * (inside + 3.0) / 6.0).to(x.dtype)


def hardswish_dx(g: Tensor, x: Tensor) -> Tensor:
    """torch's derivatives at the kinks are those from inside, the table's those from outside; at nan it has one of 1."""
    if g.shape != x.shape:
        g, x = torch.broadcast_tensors(g, x)
    if x.is_cpu and not unseen(x) and x.dtype in _FLOATS:
        found = _hardswish_backward(g, x)
        if finite(found) and finite(x) and not any(np.equal(x.numpy(), kink).any() for kink in (-3.0, 3.0)):  # a tenth of the time of torch's
            return found
    h, y = (v.float() if x.dtype in HALF else v for v in (g, x))
    zero = torch.zeros((), dtype=y.dtype, device=y.device)
    return torch.where(y >= 3.0, h, torch.where(y <= -3.0, zero, h * (y / 3.0 + 0.5))).to(x.dtype)


# ---- activations ------------------------------------------------------------------------------------------------------------------------------
def _activation(
    forward: Callable[..., Tensor], backward: Callable[..., Tensor], fits: Callable[..., bool] = lambda *params: True, look: bool = True
) -> Callable[..., Any]:
    """The kernel of a function of one array; fits: for which parameters, which are numbers; look: whether there is anything that it gets wrong."""

    def kernel(tracked: bool, x: Tensor, *params: Any) -> Any:
        if not (x.dtype in _FLOATS and x.__class__ is Tensor and x.is_cpu):
            return None
        if params and not (all(p.__class__ in (float, int) for p in params) and fits(*params)):
            return None
        out = forward(x, *params)
        if look and not finite(out):
            return None

        def back(wanted: list[bool], g: Tensor) -> Any:
            d = backward(g, x, *params)
            return (d,) if not look or finite(d) else None

        return out, (), back

    return kernel


mish = _activation(torch.nn.functional.mish, _aten.mish_backward)
hardsigmoid = _activation(  # whose own backward pass has a sixth in float32 alone
    torch.nn.functional.hardsigmoid, lambda g, x: _aten.hardtanh_backward(g, x, -3.0, 3.0).div_(6.0)
)
logsigmoid = _activation(torch.nn.functional.logsigmoid, lambda g, x: torch.sigmoid(-x).mul_(g))
glu = _activation(torch.nn.functional.glu, _aten.glu_backward)
leaky_relu = _activation(
    torch.nn.functional.leaky_relu, lambda g, x, slope: _aten.leaky_relu_backward(g, x, slope, False), math.isfinite, look=False
)
softplus = _activation(torch.nn.functional.softplus, _aten.softplus_backward, lambda beta, most: 0 < beta < math.inf and most <= 80)
elu = _activation(
    lambda x, alpha, inner: _aten.elu(x, alpha, 1.0, inner),
    lambda g, x, alpha, inner: _aten.elu_backward(g, alpha, 1.0, inner, False, x),
    lambda alpha, inner: math.isfinite(alpha) and 0 < inner < math.inf,
)


def log_softmax(tracked: bool, x: Tensor, axis: int) -> Any:
    """Not of rows of -inf, nor with +inf."""
    if not x.dim() or not _ours(x):
        return None
    out = torch.log_softmax(x, axis)
    return (out, (), lambda wanted, g: (_aten._log_softmax_backward_data(g, out, axis, x.dtype),)) if finite(out) else None


# ---- batch normalisation ----------------------------------------------------------------------------------------------------------------------
def by_batch(
    tracked: bool, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None, rate: Tensor | None,
    eps: float, momentum: Any,
) -> Any:  # fmt: skip
    """torch takes 0 for the inverse of a deviation of 0 where eps is 0, and a weight for a factor of the mean."""
    if rate is not None or eps <= 0 or not _ours(x, weight, bias, mean, var) or not (weight is None or finite(weight)):
        return None
    if mean is not None and var is not None:  # which the kernel would write to
        mean, var = mean.clone(), var.clone()
    out, *saved = torch.native_batch_norm(x, weight, bias, mean, var, True, 0.0 if momentum is None else momentum, eps)
    return out, (mean, var), _normal_back(x, weight, None, None, saved, True, eps)


def by_running(tracked: bool, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    if eps <= 0 or not _ours(x, mean, var, weight, bias) or not (weight is None or finite(weight)):
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


def by_group(tracked: bool, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float) -> Any:
    if eps <= 0 or not _ours(x, weight, bias) or not (weight is None or finite(weight)):
        return None
    x, (n, c) = x.contiguous(), x.shape[:2]
    sizes = n, c, x.numel() // (n * c), groups
    out, *saved = torch.native_group_norm(x, weight, bias, *sizes, eps)
    if not finite(out):
        return None

    def back(wanted: list[bool], g: Tensor) -> Any:
        found = _aten.native_group_norm_backward(g.contiguous(), x, *saved, weight, *sizes, wanted)
        return found if all(d is None or finite(d) for d in found) else None

    return out, (), back


# ---- recurrent layers -------------------------------------------------------------------------------------------------------------------------
def lstm(tracked: bool, x: Tensor, h: Tensor, c: Tensor, ih: Tensor, hh: Tensor, bias_ih: Any, bias_hh: Any, reverse: bool) -> Any:
    """A layer in one direction by oneDNN, which looks at few of the shapes."""
    biases, (n, size), rows = bias_ih is not None and bias_hh is not None, h.shape, (hh.shape[0],)
    if x.dtype is not torch.float32 or not _ours(x, h, c, ih, hh, bias_ih, bias_hh) or not torch.backends.mkldnn.is_available():
        return None
    b_ih, b_hh = (bias_ih, bias_hh) if biases else (hh.new_zeros(rows),) * 2
    right = rows == b_ih.shape == b_hh.shape and ih.shape == (*rows, x.shape[2]) and hh.shape == (4 * size, size) and h.shape == c.shape
    if not right or x.shape[1] != n:
        return None
    given = [a.contiguous() for a in (x, ih, hh, b_ih, b_hh, h, c)]  # it reads others as if they were
    *results, space = _aten.mkldnn_rnn_layer(*given, reverse, [], 2, size, 1, True, False, False, tracked)

    def back(wanted: list[bool], *cts: Tensor | None) -> Any:
        cts = tuple(g if g is None else g.contiguous() for g in cts)
        found = _aten.mkldnn_rnn_layer_backward(*given, *results, *cts, reverse, 2, size, 1, True, True, False, [], False, space)
        dx, d_ih, d_hh, d_b, _, dh, dc = found
        return dx, dh, dc, d_ih, d_hh, d_b if biases else None, d_b if biases else None

    return tuple(results), (), back


# ---- losses -----------------------------------------------------------------------------------------------------------------------------------
_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _picked(logs: Tensor, target: Tensor, weight: Tensor | None, axis: int, ignore: int, reduction: str) -> Any:
    """The loss of logarithms [N, C, ...] at the targets, and its backward pass; it raises for a class that there is not."""
    shape, flat = logs.shape, target.dim() < 2
    if target.shape != shape[:axis] + shape[axis + 1 :]:
        raise ValueError
    rows = (logs if flat else logs.reshape(*shape[:2], -1, 1)).contiguous()  # or its gradient would not be
    at = (target if flat else target.reshape(shape[0], -1, 1)).contiguous()
    name = "nll_loss" if flat else "nll_loss2d"
    how = weight, _REDUCTIONS[reduction], ignore
    loss, total = getattr(_aten, f"{name}_forward")(rows, at, *how)

    def back(g: Tensor) -> Tensor:
        g = g if reduction != "none" or flat else g.reshape(at.shape)
        return getattr(_aten, f"{name}_backward")(g, rows, at, *how, total).reshape(shape)

    return loss.reshape(target.shape) if reduction == "none" else loss, back


def of_logarithms(tracked: bool, logs: Tensor, target: Tensor, weight: Tensor | None, axis: int, ignore: int, reduction: str) -> Any:
    if not _ours(logs, weight) or target.dtype is not torch.int64:
        return None
    loss, back = _picked(logs, target, weight, axis, ignore, reduction)
    return (loss, (), lambda wanted, g: None if wanted[2] else (back(g), None, None)) if finite(loss) else None


def of_classes(tracked: bool, x: Tensor, target: Tensor, axis: int, ignore: int, reduction: str) -> Any:
    """Not for scores that memory does not hold twice easily, nor for infinite ones."""
    if not _ours(x) or target.dtype is not torch.int64 or x.numel() >= _MANY:
        return None
    logs = torch.log_softmax(x, axis)
    if not finite(logs):
        return None
    loss, back = _picked(logs, target, None, axis, ignore, reduction)
    return loss, (), lambda wanted, g: (_aten._log_softmax_backward_data(back(g), logs, axis, x.dtype), None)


def huber(tracked: bool, x: Tensor, target: Tensor, delta: Any, reduction: str) -> Any:
    if not _ours(x, target) or x.shape != target.shape or delta.__class__ not in (int, float):
        return None
    how = _REDUCTIONS[reduction], float(delta)
    out = _aten.huber_loss(x, target, *how)
    if not finite(out):
        return None

    def back(wanted: list[bool], g: Tensor) -> Any:
        d = _aten.huber_loss_backward(g, x, target, *how)
        return (d if wanted[0] else None, d.neg() if wanted[1] else None) if finite(d) else None

    return out, (), back


def alignments(tracked: bool, logs: Tensor, target: Tensor, lasting: Tensor, wanted: Tensor, blank: int) -> Any:
    """In float64: what torch gives back is the gradient behind a log_softmax, from which the probabilities are taken again."""
    if not _ours(logs) or target.dtype is not torch.int64 or not target.numel() or not finite(logs) or logs.max().item() > 10.0:
        return None
    wide, sizes = logs.double(), (lasting.tolist(), wanted.tolist())
    loss, paths = _aten._ctc_loss(wide, target, *sizes, blank, False)
    if not finite(loss):
        return None

    def back(asked: list[bool], g: Tensor) -> Any:
        g = g.double()
        d = _aten._ctc_loss_backward(g, wide, target, *sizes, loss, paths, blank, False)
        there = torch.arange(len(logs))[:, None] < lasting
        d.sub_(wide.exp().mul_(torch.where(there, g, 0.0)[..., None]))
        return (d.to(logs.dtype), None, None, None) if finite(d) else None

    return loss.to(logs.dtype), (), back


# ---- pooling ----------------------------------------------------------------------------------------------------------------------------------
def maxima(tracked: bool, x: Tensor, *how: Any) -> Any:
    """Few maxima, or any with channels last: for others the primitive has quicker ways. torch takes the last nan of a window."""
    if x.dim() != 4 or not _ours(x) or (x.numel() > _SOME and not is_last(x)):
        return None
    out, index = torch._C._nn.max_pool2d_with_indices(x, *how)
    if not finite(out):
        return None
    return out, (), lambda wanted, g: (_aten.max_pool2d_with_indices_backward(g, x, *how, False, index),)


def averages(tracked: bool, x: Tensor, sizes: tuple[int, ...]) -> Any:
    """By windows of different widths; of many elements torch's running sum is not accurate enough."""
    if x.dim() not in (4, 5) or not _ours(x) or math.prod(-(-a // b) for a, b in zip(x.shape[2:], sizes, strict=True)) > 64:
        return None
    name = f"_adaptive_avg_pool{x.dim() - 2}d"
    return getattr(_aten, name)(x, sizes), (), lambda wanted, g: (getattr(_aten, f"{name}_backward")(g, x),)


# ---- borders ----------------------------------------------------------------------------------------------------------------------------------
def bordered(tracked: bool, x: Tensor, widths: tuple[int, ...], mode: str) -> Any:
    name = {"reflect": "reflection", "replicate": "replication"}.get(mode)
    n = len(widths) // 2
    if name is None or min(widths) < 0 or x.dim() != n + 2 or not _ours(x):
        return None
    name = f"{name}_pad{n}d"
    return getattr(_aten, name)(x, widths), (), lambda wanted, g: (getattr(_aten, f"{name}_backward")(g, x, widths),)


# ---- resampling -------------------------------------------------------------------------------------------------------------------------------
def _resampled(x: Tensor, name: str, sizes: tuple[int, ...], *how: Any) -> Any:
    """Of images. An infinity spoils its neighbours, whose weights are 0."""
    out = getattr(torch._C._nn, f"upsample_{name}2d")(x, sizes, *how)
    if not finite(out):
        return None

    def back(wanted: list[bool], g: Tensor) -> Any:
        d = getattr(_aten, f"upsample_{name}2d_backward")(g, sizes, x.shape, *how)
        return (d,) if finite(d) else None

    return out, (), back


def enlarged(tracked: bool, x: Tensor, sizes: tuple[int, ...]) -> Any:
    """By powers of two: torch rounds the inverse of a factor before it looks which pixel is the nearest."""
    factors = [b // a for a, b in zip(x.shape[2:], sizes, strict=True)]
    return _resampled(x, "nearest", sizes) if x.dim() == 4 and _ours(x) and all(f & (f - 1) == 0 for f in factors) else None


def bilinear(tracked: bool, x: Tensor, sizes: tuple[int, ...], scales: tuple[float | None, ...], align: bool) -> Any:
    return _resampled(x, "bilinear", sizes, align, *scales) if _ours(x) else None


_MODES, _OUTSIDE = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")


def sampled(tracked: bool, x: Tensor, grid: Tensor, mode: str, padding: str, align: bool, slopes: Callable[..., Tensor]) -> Any:
    """Not the nearest pixel, which rounding may choose. slopes: the function's own derivatives in the grid."""
    if mode == "nearest" or not _ours(x, grid) or not finite(grid):
        return None
    name, how = f"grid_sampler_{x.dim() - 2}d", (_MODES.index(mode), _OUTSIDE.index(padding), align)
    out = getattr(_aten, name)(x, grid, *how)
    if not finite(out):
        return None

    def back(wanted: list[bool], g: Tensor) -> Any:
        dx, d = getattr(_aten, f"{name}_backward")(g, x, grid, *how, wanted)
        if not all(v is None or finite(v) for v in (dx, d)):
            return None
        if wanted[1] and mode == "bilinear":
            _on_pixels(d, g, x, grid, align, lambda *given: slopes(*given, mode, padding, align))
        return dx, d

    return out, (), back


def _on_pixels(d: Tensor, g: Tensor, x: Tensor, grid: Tensor, align: bool, slopes: Callable[..., Tensor]) -> None:
    """The function's own derivatives where a place is on a pixel but for rounding: its two sides have different slopes, and torch rounds else."""
    (n, channels, *shape), k = x.shape, x.dim() - 2
    size = torch.tensor(shape[::-1], dtype=grid.dtype)
    at = (grid + 1.0).mul_((size - 1.0 if align else size) * 0.5).sub_(0.0 if align else 0.5)
    near = torch.sub(at, at.round()).abs_().lt(at.abs_().add_(1.0).mul_(4 * torch.finfo(at.dtype).eps)).any(-1).view(n, -1)
    few = int(near.sum(1).max())
    if few:
        place = near.to(torch.int8).argsort(1, descending=True)[:, :few, None]
        points, cotangents = place.expand(n, few, k), place.mT.expand(n, channels, few)
        wide = (1,) * (k - 1)
        some = grid.reshape(n, -1, k).gather(1, points).view(n, *wide, few, k)
        given = g.reshape(n, channels, -1).gather(2, cotangents).view(n, channels, *wide, few)
        d.view(n, -1, k).scatter_(1, points, slopes(x, some, given).view(n, few, k))


# ---- lists of arrays, as gradients are --------------------------------------------------------------------------------------------------------
def norm(tracked: bool, *xs: Tensor) -> Any:
    if tracked or not _ours(*xs):
        return None
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(xs)))), (), None


def times(tracked: bool, scale: Tensor, *xs: Tensor) -> Any:
    return None if tracked or scale.dim() or not _ours(scale, *xs) else (tuple(torch._foreach_mul(list(xs), scale)), (), None)


# ---- look-up ----------------------------------------------------------------------------------------------------------------------------------
def rows(tracked: bool, weight: Tensor, index: Tensor, padding: int | None) -> Any:
    """torch complains of a negative place, which counts from the end."""
    if weight.dim() != 2 or not _ours(weight) or index.dtype is not torch.int64:
        return None
    n, hole = weight.shape[0], -1 if padding is None else padding % weight.shape[0]
    return torch.embedding(weight, index), (), lambda wanted, g: (_aten.embedding_dense_backward(g, index, n, hole, False), None)
