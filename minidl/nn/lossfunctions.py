"""Losses as functions; all are names of minidl.nn.functional."""

from __future__ import annotations

import minidl as md


def hot(x: md.Tensor, n: int, axis: int = -1) -> md.Tensor:
    """bool: whether x equals 0..n-1 along a new axis; a comparison, because gather and its scatter are slow where this is used."""
    axis = axis % (x.ndim + 1)
    numbers = md.arange(n, backend=x.backend, device=x.device)
    return md.expand_dims(x.to(md.int64), axis=axis) == numbers.reshape((n,) + (1,) * (x.ndim - axis))


def reduced(name: str, loss: md.Tensor, reduction: str) -> md.Tensor:
    """The mean, the sum or the losses themselves. Raises ValueError for another word."""
    if reduction == "mean":
        return md.mean(loss)
    if reduction == "sum":
        return md.sum(loss)
    if reduction != "none":
        raise ValueError(f'{name}: reduction is "mean", "sum" or "none", not {reduction!r}')
    return loss


def _same_shape(name: str, x: md.Tensor, target: md.Tensor) -> None:
    if x.shape != target.shape:
        raise ValueError(f"{name}: input {x.shape} and target {target.shape} differ in shape; reshape one of them")


def cross_entropy(
    x: md.Tensor,
    target: md.Tensor,
    weight: md.Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> md.Tensor:
    """-log of the probability that softmax(x) gives to the target class.

    x [N, C, ...] (or [C]) unnormalised; target integers [N, ...], or class probabilities of x's shape; weight [C]. The mean is weighted and
    leaves out targets equal to ignore_index. Raises ValueError for other shapes, IndexError for a class out of range (eager on a CPU).

    >>> round(cross_entropy(md.zeros((1, 2)), md.asarray([1])).item(), 4)
    0.6931
    """
    axis = 0 if x.ndim == 1 else 1
    n = x.shape[axis]
    if not (target.dtype.inexact or weight is not None or label_smoothing):
        target, valid = _classes(x, target, axis, ignore_index)
        loss = -md.log_softmax(x, axis=axis, at=md.where(valid, target, -1) if 0 <= ignore_index < n else target)
        return md.sum(loss) / md.sum(valid.to(x.dtype)) if reduction == "mean" else reduced("cross_entropy", loss, reduction)
    logp = md.log_softmax(x, axis=axis)
    if target.dtype.is_float:
        _same_shape("cross_entropy", x, target)
        if label_smoothing:
            target = target * (1 - label_smoothing) + label_smoothing / n
        if weight is not None:
            target = target * _along(weight, x.ndim, axis)
        loss = -md.sum(logp * target, axis=axis)
        return md.sum(loss) / max(loss.size, 1) if reduction == "mean" else reduced("cross_entropy", loss, reduction)
    loss = nll_loss(logp, target, weight, ignore_index, "none" if label_smoothing else reduction)
    if not label_smoothing:
        return loss
    target = target.to(md.int64)
    valid, scale = target != ignore_index, None if weight is None else _along(weight, x.ndim, axis)
    smooth = md.where(valid, -md.sum(logp if scale is None else logp * scale, axis=axis), 0.0)
    loss = loss * (1 - label_smoothing) + smooth * (label_smoothing / n)
    if reduction != "mean":
        return reduced("cross_entropy", loss, reduction)
    return md.sum(loss) / _count(target, valid, weight, n, axis, x.dtype)


def nll_loss(x: md.Tensor, target: md.Tensor, weight: md.Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> md.Tensor:
    """-x at the target class, for log-probabilities x [N, C, ...] (or [C]) and integer targets [N, ...]; mean and weight as cross_entropy."""
    axis = 0 if x.ndim == 1 else 1
    target, valid = _classes(x, target, axis, ignore_index)
    n = x.shape[axis]
    at = hot(target, n, axis)
    if 0 <= ignore_index < n:
        at = md.logical_and(at, md.expand_dims(valid, axis=axis))
    picked = md.where(at, x if weight is None else x * _along(weight, x.ndim, axis), 0.0)
    if reduction == "mean":
        return -md.sum(picked) / _count(target, valid, weight, n, axis, x.dtype)
    return reduced("nll_loss", -md.sum(picked, axis=axis), reduction)


def _classes(x: md.Tensor, target: md.Tensor, axis: int, ignore_index: int) -> tuple[md.Tensor, md.Tensor]:
    """The targets as int64, and which of them count."""
    if target.dtype.inexact or target.shape != x.shape[:axis] + x.shape[axis + 1 :]:
        raise ValueError(
            f"cross_entropy: scores of shape {x.shape} want integer targets of shape {x.shape[:axis] + x.shape[axis + 1 :]}"
            f" (or probabilities of their own shape), not {target.dtype.name} of shape {target.shape}"
        )
    target = target.to(md.int64)
    _check_classes(target, x.shape[axis], ignore_index)
    return target, target != ignore_index


def _check_classes(target: md.Tensor, n: int, ignore_index: int) -> None:
    """Raise IndexError for a class that does not exist, where values can be looked at; elsewhere such a target has loss 0."""
    if target.device != "cpu":
        return
    try:
        values = target.numpy()
    except TypeError:  # traced or batched
        return
    wrong = values[((values < 0) | (values >= n)) & (values != ignore_index)]
    if wrong.size:
        raise IndexError(
            f"cross_entropy: the target holds class {wrong[0]}, but the scores have classes 0 to {n - 1} (ignore_index is {ignore_index})"
        )


def _along(weight: md.Tensor, ndim: int, axis: int) -> md.Tensor:
    return weight.reshape((-1,) + (1,) * (ndim - axis - 1))


def _count(target: md.Tensor, valid: md.Tensor, weight: md.Tensor | None, n: int, axis: int, dtype: object) -> md.Tensor:
    """The sum of the weights of the targets that count."""
    if weight is None:
        return md.sum(valid.to(dtype))
    at = md.logical_and(hot(target, n, axis), md.expand_dims(valid, axis=axis))
    return md.sum(md.where(at, _along(weight, target.ndim + 1, axis), 0.0))


def mse_loss(x: md.Tensor, target: md.Tensor, reduction: str = "mean") -> md.Tensor:
    """(x - target)², for equal shapes."""
    _same_shape("mse_loss", x, target)
    return reduced("mse_loss", md.square(x - target), reduction)


def l1_loss(x: md.Tensor, target: md.Tensor, reduction: str = "mean") -> md.Tensor:
    """|x - target|, for equal shapes."""
    _same_shape("l1_loss", x, target)
    return reduced("l1_loss", md.abs(x - target), reduction)


def huber_loss(x: md.Tensor, target: md.Tensor, reduction: str = "mean", delta: float = 1.0) -> md.Tensor:
    """(x - target)²/2 within delta of the target, and beyond it the tangent line (P. Huber, 1964)."""
    _same_shape("huber_loss", x, target)
    d = md.abs(x - target)
    near = md.clip(d, 0.0, delta)
    return reduced("huber_loss", near * (d - near * 0.5), reduction)


def smooth_l1_loss(x: md.Tensor, target: md.Tensor, reduction: str = "mean", beta: float = 1.0) -> md.Tensor:
    """huber_loss / beta; |x - target| for beta 0."""
    if beta == 0:
        return l1_loss(x, target, reduction)
    return huber_loss(x, target, reduction, beta) / beta


def binary_cross_entropy(x: md.Tensor, target: md.Tensor, weight: md.Tensor | None = None, reduction: str = "mean") -> md.Tensor:
    """-(t log x + (1-t) log(1-x)) for probabilities x; logarithms end at -100 and x (1-x) in the derivative at 1e-12, as in PyTorch."""
    _same_shape("binary_cross_entropy", x, target)
    loss = _bce(x, target)
    return reduced("binary_cross_entropy", loss if weight is None else loss * weight, reduction)


@md.custom_vjp
def _bce(x: md.Tensor, t: md.Tensor) -> md.Tensor:
    return -(t * md.clip(md.log(x), -100.0, None) + (1 - t) * md.clip(md.log1p(-x), -100.0, None))


def _bce_forward(x: md.Tensor, t: md.Tensor) -> tuple:
    return _bce(x, t), (x, t)


def _bce_backward(residuals: tuple, g: md.Tensor) -> tuple:
    x, t = residuals
    to_target = md.clip(md.log1p(-x), -100.0, None) - md.clip(md.log(x), -100.0, None)
    return g * (x - t) / md.clip((1 - x) * x, 1e-12, None), g * to_target


_bce.defvjp(_bce_forward, _bce_backward)


def binary_cross_entropy_with_logits(
    x: md.Tensor, target: md.Tensor, weight: md.Tensor | None = None, reduction: str = "mean", pos_weight: md.Tensor | None = None
) -> md.Tensor:
    """binary_cross_entropy of sigmoid(x), computed from x without overflow."""
    _same_shape("binary_cross_entropy_with_logits", x, target)
    if pos_weight is None:
        loss = md.softplus(x) - x * target
    else:
        loss = (1 - target) * x + (1 + (pos_weight - 1) * target) * md.softplus(-x)
    return reduced("binary_cross_entropy_with_logits", loss if weight is None else loss * weight, reduction)
