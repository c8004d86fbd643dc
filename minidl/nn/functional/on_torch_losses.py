"""PyTorch: losses, by its kernels forwards and backwards."""

from __future__ import annotations

from typing import Any

import torch

from minidl.backends.torch_kernels import finite
from minidl.nn.functional.on_torch_common import fitting, ours

Tensor = torch.Tensor
_aten = torch.ops.aten
_MANY = 2**20  # scores from which on nothing as large is kept for the backward pass
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


@fitting(lambda tracked, logs, target, weight, *how: ours(logs, weight) and target.dtype is torch.int64)
def of_logarithms(tracked: bool, logs: Tensor, target: Tensor, weight: Tensor | None, axis: int, ignore: int, reduction: str) -> Any:
    loss, back = _picked(logs, target, weight, axis, ignore, reduction)
    return (loss, (), lambda wanted, g: None if wanted[2] else (back(g), None, None)) if finite(loss) else None


@fitting(lambda tracked, x, target, *how: ours(x) and target.dtype is torch.int64 and x.numel() < _MANY)
def of_classes(tracked: bool, x: Tensor, target: Tensor, axis: int, ignore: int, reduction: str) -> Any:
    """Not for scores that memory does not hold twice easily, nor for infinite ones."""
    logs = torch.log_softmax(x, axis)
    if not finite(logs):
        return None
    loss, back = _picked(logs, target, None, axis, ignore, reduction)
    return loss, (), lambda wanted, g: (_aten._log_softmax_backward_data(back(g), logs, axis, x.dtype), None)


@fitting(lambda tracked, x, target, delta, reduction: ours(x, target) and x.shape == target.shape and delta.__class__ in (int, float))
def huber(tracked: bool, x: Tensor, target: Tensor, delta: Any, reduction: str) -> Any:
    how = _REDUCTIONS[reduction], float(delta)
    out = _aten.huber_loss(x, target, *how)
    if not finite(out):
        return None

    def back(wanted: list[bool], g: Tensor) -> Any:
        d = _aten.huber_loss_backward(g, x, target, *how)
        return (d if wanted[0] else None, d.neg() if wanted[1] else None) if finite(d) else None

    return out, (), back


@fitting(lambda tracked, x, target, weight, p, margin, *rest: ours(x, weight) and target.dtype is torch.int64 and margin.__class__ in (int, float))
def multi_margin(tracked: bool, x: Tensor, target: Tensor, weight: Tensor | None, p: int, margin: Any, reduction: str) -> Any:
    """It takes no nan for one."""
    if not finite(x) or not (weight is None or finite(weight)):
        return None
    how = x.contiguous(), target.contiguous(), p, margin, weight if weight is None else weight.contiguous(), _REDUCTIONS[reduction]

    def back(wanted: list[bool], g: Tensor) -> Any:
        return (_aten.multi_margin_loss_backward(g.contiguous(), *how), None, None) if not wanted[2] and finite(g) else None

    return _aten.multi_margin_loss(*how), (), back


@fitting(lambda tracked, x, target, reduction: ours(x) and target.dtype is torch.int64)
def multilabel_margin(tracked: bool, x: Tensor, target: Tensor, reduction: str) -> Any:
    """It takes no nan for one."""
    if not finite(x):
        return None
    how = x.contiguous(), target.contiguous(), _REDUCTIONS[reduction]
    out, inside = _aten.multilabel_margin_loss_forward(*how)

    def back(wanted: list[bool], g: Tensor) -> Any:
        return (_aten.multilabel_margin_loss_backward(g.contiguous(), *how, inside), None) if finite(g) else None

    return out, (), back


@fitting(lambda tracked, logs, target, *rest: ours(logs) and target.dtype is torch.int64 and target.numel() > 0)
def alignments(tracked: bool, logs: Tensor, target: Tensor, lasting: Tensor, wanted: Tensor, blank: int) -> Any:
    """In float64: what torch gives back is the gradient behind a log_softmax, from which the probabilities are taken again."""
    if not finite(logs) or logs.max().item() > 10.0:
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
