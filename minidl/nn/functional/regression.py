"""Losses between values, rankings and distributions as functions; all are names of minidl.nn.functional.

Each takes reduction "mean", "sum" or "none" (and kl_div "batchmean") and raises ValueError for another word, and for shapes that differ. PyTorch's
deprecated size_average and reduce do not exist here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.nn.functional.kernels import by_kernel
from minidl.nn.functional.losses import all_count, hot, reduced, same_shape
from minidl.nn.functional.maps import pairwise_distance

__all__ = [
    "cosine_embedding_loss", "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "margin_ranking_loss", "mse_loss",
    "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss",
    "triplet_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip


# ---- regression -----------------------------------------------------------------------------------------------------------------------
def _weighted(name: str, loss: md.Tensor, reduction: str, weight: md.Tensor | None) -> md.Tensor:
    """The reduction of weighted losses; their mean is by the sum of the weights."""
    if weight is None:
        return reduced(name, loss, reduction)
    if weight.shape != loss.shape:
        raise ValueError(f"{name}: weight {weight.shape} and input {loss.shape} differ in shape")
    if reduction == "mean":
        return md.sum(loss * weight) / md.sum(weight)
    return reduced(name, loss * weight, reduction)


def mse_loss(input: md.Tensor, target: md.Tensor, reduction: str = "mean", weight: md.Tensor | None = None) -> md.Tensor:
    """(input - target)², for equal shapes.

    weight: of the same shape; "mean" divides by its sum. Raises ValueError where the shapes differ, and for another reduction.

    >>> mse_loss(md.tensor([1.0, 2.0]), md.tensor([1.0, 4.0])).item()
    2.0
    """
    same_shape("mse_loss", input, target)
    return _weighted("mse_loss", md.square(input - target), reduction, weight)


def l1_loss(input: md.Tensor, target: md.Tensor, reduction: str = "mean", weight: md.Tensor | None = None) -> md.Tensor:
    """|input - target|, for equal shapes.

    weight: as mse_loss. The derivative at 0 is 0. Raises ValueError where the shapes differ, and for another reduction.

    >>> md.nn.functional.l1_loss(md.tensor([1.0, 4.0]), md.tensor([0.0, 0.0])).item()
    2.5
    """
    same_shape("l1_loss", input, target)
    return _weighted("l1_loss", md.abs(input - target), reduction, weight)


def huber_loss(
    input: md.Tensor, target: md.Tensor, reduction: str = "mean", delta: float = 1.0, weight: md.Tensor | None = None
) -> md.Tensor:
    """(input - target)²/2 within delta of the target, and beyond it the tangent line (P. Huber, Annals of Mathematical Statistics 35, 1964).

    Raises ValueError where the shapes of input, target and weight (if given) differ, for a delta of 0 or less, and for another reduction.

    >>> md.nn.functional.huber_loss(md.tensor([1.0, 4.0]), md.tensor([0.0, 0.0]), reduction="none").tolist()
    [0.5, 3.5]
    """
    same_shape("huber_loss", input, target)
    if delta <= 0:
        raise ValueError(f"huber_loss: delta must be positive, not {delta}")
    if weight is None:
        return _huber(input, target, delta, reduction)
    if weight.shape != input.shape:
        raise ValueError(f"huber_loss: weight {weight.shape} and input {input.shape} differ in shape")
    return reduced("huber_loss", _huber(input, target, delta, "none") * weight, reduction)


@by_kernel("huber")
def _huber(input: md.Tensor, target: md.Tensor, /, delta: float, reduction: str) -> md.Tensor:
    d = md.abs(input - target)
    near = md.clip(d, 0.0, delta)
    return reduced("huber_loss", near * (d - near * 0.5), reduction)


def smooth_l1_loss(input: md.Tensor, target: md.Tensor, reduction: str = "mean", beta: float = 1.0) -> md.Tensor:
    """huber_loss / beta; |input - target| for beta 0. Raises ValueError as huber_loss, and for a negative beta.

    >>> md.nn.functional.smooth_l1_loss(md.tensor([1.0, 4.0]), md.tensor([0.0, 0.0]), reduction="none").tolist()
    [0.5, 3.5]
    """
    same_shape("smooth_l1_loss", input, target)
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, not {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction)
    loss = huber_loss(input, target, reduction, beta)
    return loss if beta == 1 else loss / beta


# ---- distributions --------------------------------------------------------------------------------------------------------------------
def kl_div(input: md.Tensor, target: md.Tensor, reduction: str = "mean", log_target: bool = False) -> md.Tensor:
    """target (log target - input) for log-probabilities input, and probabilities (or, log_target, log-probabilities) target.

    "batchmean" divides the sum by the size of the first axis, and is the divergence; "mean" divides by the number of elements, as in PyTorch. Raises
    ValueError where the shapes differ, and for another reduction.

    >>> round(md.nn.functional.kl_div(md.log(md.tensor([0.25, 0.75])), md.tensor([0.5, 0.5]), reduction="sum").item(), 4)
    0.1438
    """
    same_shape("kl_div", input, target)
    loss = md.exp(target) * (target - input) if log_target else md.xlogy(target, target) - target * input
    if reduction == "batchmean":
        return md.sum(loss) / max(input.shape[0] if input.ndim else 1, 1)
    return reduced("kl_div", loss, reduction)


def poisson_nll_loss(
    input: md.Tensor, target: md.Tensor, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
) -> md.Tensor:
    """The Poisson distribution's -log p(target) at rate exp(input), or input without log_input; full adds Stirling's term for targets above 1.

    Raises ValueError where the shapes differ, and for another reduction.

    >>> md.nn.functional.poisson_nll_loss(md.tensor([0.0]), md.tensor([2.0])).item()
    1.0
    """
    same_shape("poisson_nll_loss", input, target)
    loss = md.exp(input) - target * input if log_input else input - target * md.log(input + eps)
    if full:
        large = md.where(target > 1, target, 2.0)
        loss = loss + md.where(target > 1, large * md.log(large) - large + md.log(large * (2 * math.pi)) * 0.5, 0.0)
    return reduced("poisson_nll_loss", loss, reduction)


def gaussian_nll_loss(
    input: md.Tensor, target: md.Tensor, var: md.Tensor | float, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> md.Tensor:
    """The normal distribution's -log p(target) at mean input and variance var (at least eps, unseen by gradients), without its constant unless full.

    D. Nix and A. Weigend, ICNN 1994. var: of input's shape, or with a last axis of 1 or none. Raises ValueError for another shape.

    >>> md.nn.functional.gaussian_nll_loss(md.tensor([0.0]), md.tensor([2.0]), md.tensor([1.0])).item()
    2.0
    """
    var = var if isinstance(var, md.Tensor) else md.full_like(input.detach(), float(var))
    if var.shape != input.shape:
        if var.shape == input.shape[:-1]:
            var = var[..., None]
        elif var.shape[:-1] != input.shape[:-1] or var.shape[-1] != 1:
            raise ValueError(f"gaussian_nll_loss: var {var.shape} does not fit input {input.shape}")
    clamped = var + (md.maximum(var, eps) - var).detach()
    loss = (md.log(clamped) + md.square(input - target) / clamped) * 0.5
    return reduced("gaussian_nll_loss", loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


# ---- margins --------------------------------------------------------------------------------------------------------------------------
def hinge_embedding_loss(input: md.Tensor, target: md.Tensor, margin: float = 1.0, reduction: str = "mean") -> md.Tensor:
    """input where target is 1, max(0, margin - input) where it is -1, for distances input.

    Raises ValueError for another reduction than "mean", "sum" and "none".

    >>> md.nn.functional.hinge_embedding_loss(md.tensor([0.5, 0.5]), md.tensor([1, -1]), reduction="none").tolist()
    [0.5, 0.5]
    """
    apart = md.where(target != 1, md.relu(margin - input), 0.0)
    together = md.where(target != -1, input, 0.0)
    return reduced("hinge_embedding_loss", apart + together, reduction)


def soft_margin_loss(input: md.Tensor, target: md.Tensor, reduction: str = "mean") -> md.Tensor:
    """log(1 + exp(-target input)) for targets 1 and -1.

    Raises ValueError where the shapes differ, and for another reduction.

    >>> round(md.nn.functional.soft_margin_loss(md.tensor([0.0]), md.tensor([1.0])).item(), 4)
    0.6931
    """
    same_shape("soft_margin_loss", input, target)
    return reduced("soft_margin_loss", md.softplus(-target * input), reduction)


def margin_ranking_loss(
    input1: md.Tensor, input2: md.Tensor, target: md.Tensor, margin: float = 0, reduction: str = "mean"
) -> md.Tensor:
    """max(0, -target (input1 - input2) + margin): target 1 says that input1 should be the larger one, -1 that input2 should.

    Raises ValueError where the three differ in their number of axes, and for another reduction.

    >>> md.nn.functional.margin_ranking_loss(md.tensor([1.0]), md.tensor([3.0]), md.tensor([1])).item()
    2.0
    """
    if not input1.ndim == input2.ndim == target.ndim:
        raise ValueError(f"margin_ranking_loss: {input1.shape}, {input2.shape} and target {target.shape} must have as many axes")
    return reduced("margin_ranking_loss", md.relu(-target * (input1 - input2) + margin), reduction)


def cosine_embedding_loss(
    input1: md.Tensor, input2: md.Tensor, target: md.Tensor, margin: float = 0, reduction: str = "mean"
) -> md.Tensor:
    """1 - cos where target is 1, max(0, cos - margin) where it is -1, for inputs [N, D] and target [N], or [D] and one number.

    Raises ValueError for other numbers of axes and for another reduction.

    >>> md.nn.functional.cosine_embedding_loss(md.tensor([[1.0, 0.0]]), md.tensor([[0.0, 1.0]]), md.tensor([1])).item()
    1.0
    """
    if input1.ndim != target.ndim + 1 or input1.ndim != input2.ndim or input1.ndim > 2:
        raise ValueError(f"cosine_embedding_loss: {input1.shape}, {input2.shape} and {target.shape} should be [N, D], [N, D], [N], or without N")
    tiny = 1e-12  # under the square root, as in PyTorch
    square = [md.sum(x * x, axis=-1) + tiny for x in (input1, input2)]
    cos = md.sum(input1 * input2, axis=-1) / md.sqrt(square[0] * square[1])
    loss = md.where(target == 1, 1 - cos, 0.0) + md.where(target == -1, md.relu(cos - margin), 0.0)
    return reduced("cosine_embedding_loss", loss, reduction)


def _numbers_of_classes(name: str, target: md.Tensor) -> None:
    if target.dtype.inexact:
        raise ValueError(f"{name}: the target's numbers of classes are integers, not {target.dtype.name}: target.to(md.int64)")


def multi_margin_loss(
    input: md.Tensor, target: md.Tensor, p: int = 1, margin: float = 1.0, weight: md.Tensor | None = None, reduction: str = "mean"
) -> md.Tensor:
    """The mean over wrong classes i of max(0, margin - input[target] + input[i])^p, times weight[target]: input [N, C], target [N] (or without N).

    Raises ValueError for a p that is not 1 or 2, other shapes, and another reduction, and for a class that is not there what cross_entropy does:
    IndexError, eager on a CPU; elsewhere its loss is 0.

    >>> md.nn.functional.multi_margin_loss(md.tensor([[1.0, 2.0]]), md.tensor([0])).item()
    1.0
    """
    if p not in (1, 2) or input.shape[:-1] != target.shape or input.ndim not in (1, 2):
        raise ValueError(f"multi_margin_loss: expected p 1 or 2, [N, C] and [N] or the same without N, got p={p}, {input.shape} and {target.shape}")
    _numbers_of_classes("multi_margin_loss", target)
    return _multi_margin(input, target, weight, p, margin, reduction)


@by_kernel("multi_margin")
def _multi_margin(input: md.Tensor, target: md.Tensor, weight: Any, /, p: int, margin: Any, reduction: str) -> md.Tensor:
    all_count("multi_margin_loss", target := target.to(md.int64), input.shape[-1])
    at = hot(target, input.shape[-1])
    there = md.expand_dims((target >= 0) & (target < input.shape[-1]), axis=-1)
    right = md.sum(md.where(at, input, 0.0), axis=-1, keepdims=True)
    gap = md.relu(margin - right + input)
    gap = gap if p == 1 else gap * gap
    if weight is not None:
        gap = gap * md.sum(md.where(at, weight, 0.0), axis=-1, keepdims=True)
    return reduced("multi_margin_loss", md.sum(md.where(there & ~at, gap, 0.0), axis=-1) / input.shape[-1], reduction)


def multilabel_margin_loss(input: md.Tensor, target: md.Tensor, reduction: str = "mean") -> md.Tensor:
    """Σ max(0, 1 - input[j] + input[i]) / C over target classes j and others i: target holds the classes of each row, up to the first -1.

    input: [N, C] or [C], target: integers of the same shape. Raises ValueError where the shapes differ, for other targets, and for another reduction,
    and IndexError for a class that is not there, eager on a CPU; elsewhere such a class is left out.

    >>> md.nn.functional.multilabel_margin_loss(md.tensor([[1.0, 0.5]]), md.tensor([[0, -1]])).item()
    0.25
    """
    same_shape("multilabel_margin_loss", input, target)
    _numbers_of_classes("multilabel_margin_loss", target)
    return _multilabel_margin(input, target, reduction)


@by_kernel("multilabel_margin")
def _multilabel_margin(input: md.Tensor, target: md.Tensor, /, reduction: str) -> md.Tensor:
    n, target = input.shape[-1], target.to(md.int64)
    all_count("multilabel_margin_loss", target, n, -1, "-1 ends a list")
    if (found := md.extend.seen(target)) is not None:  # behind the longest list there is nothing
        target = target[..., : int(((found[0] < 0).cumsum(axis=-1) == 0).sum(axis=-1).max(initial=0))]
    listed = (md.cumulative_sum((target < 0).to(md.int64), axis=-1) == 0) & (target < n)
    at = md.logical_and(hot(target, n), listed[..., None])  # [..., place in target, class]
    inside = md.any(at, axis=-2)
    right = md.sum(md.where(at, input[..., None, :], 0.0), axis=-1, keepdims=True)
    gap = md.relu(1 - right + input[..., None, :])  # [..., place, class]
    pairs = md.logical_and(listed[..., None], md.logical_not(inside)[..., None, :])
    return reduced("multilabel_margin_loss", md.sum(md.where(pairs, gap, 0.0), axis=(-2, -1)) / n, reduction)


def multilabel_soft_margin_loss(
    input: md.Tensor, target: md.Tensor, weight: md.Tensor | None = None, reduction: str = "mean"
) -> md.Tensor:
    """binary_cross_entropy_with_logits, averaged over the classes of each row [N, C].

    Raises ValueError where the shapes of input and target differ, and for another reduction.

    >>> round(md.nn.functional.multilabel_soft_margin_loss(md.zeros((1, 2)), md.tensor([[0.0, 1.0]])).item(), 4)
    0.6931
    """
    same_shape("multilabel_soft_margin_loss", input, target)
    loss = target * md.softplus(-input) + (1 - target) * md.softplus(input)
    return reduced("multilabel_soft_margin_loss", md.mean(loss if weight is None else loss * weight, axis=-1), reduction)


def triplet_margin_loss(
    anchor: md.Tensor,
    positive: md.Tensor,
    negative: md.Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> md.Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + margin) over rows, with p-norms; swap: or from positive to negative, where that is closer.

    V. Balntas et al., BMVC 2016.

    >>> md.nn.functional.triplet_margin_loss(md.tensor([[0.0]]), md.tensor([[1.0]]), md.tensor([[1.0]])).item()
    1.0
    """
    distance = lambda a, b: pairwise_distance(a, b, p, eps)
    return triplet_margin_with_distance_loss(anchor, positive, negative, distance_function=distance, margin=margin, swap=swap, reduction=reduction)


def triplet_margin_with_distance_loss(
    anchor: md.Tensor,
    positive: md.Tensor,
    negative: md.Tensor,
    *,
    distance_function: Callable[[md.Tensor, md.Tensor], md.Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> md.Tensor:
    """triplet_margin_loss with another distance (pairwise_distance by default).

    distance_function: of two tensors, to the distances of their rows. Raises ValueError where the three differ in their number of axes, and for
    another reduction.

    >>> md.nn.functional.triplet_margin_with_distance_loss(md.tensor([[0.0]]), md.tensor([[1.0]]), md.tensor([[1.0]])).item()
    1.0
    """
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ValueError(f"triplet_margin_loss: {anchor.shape}, {positive.shape} and {negative.shape} must have as many axes")
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = md.minimum(far, distance(positive, negative))
    return reduced("triplet_margin_loss", md.relu(near - far + margin), reduction)


