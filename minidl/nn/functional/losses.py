"""Classification losses as functions: cross-entropy in its forms; all are names of minidl.nn.functional."""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn.functional.kernels import by_kernel

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "nll_loss"]


def hot(input: md.Tensor, n: int, axis: int = -1) -> md.Tensor:
    """bool: whether input equals 0..n-1 along a new axis; a comparison, because gather and its scatter are slow where this is used."""
    axis = axis % (input.ndim + 1)
    numbers = md.arange(n, backend=input.backend, device=input.device)
    return md.expand_dims(input.to(md.int64), axis=axis) == numbers.reshape((n,) + (1,) * (input.ndim - axis))


def reduced(name: str, loss: md.Tensor, reduction: str) -> md.Tensor:
    """The mean, the sum or the losses themselves. Raises ValueError for another word."""
    if reduction == "mean":
        return md.mean(loss)
    if reduction == "sum":
        return md.sum(loss)
    if reduction != "none":
        raise ValueError(f'{name}: reduction is "mean", "sum" or "none", not {reduction!r}')
    return loss


def _no_truth(name: str, ignore_index: int) -> None:
    """Raise TypeError where PyTorch's older size_average, which was the argument of this place, is taken for a class."""
    if isinstance(ignore_index, bool):
        raise TypeError(f"{name}: ignore_index is the number of a class, not {ignore_index}; what was size_average says reduction='mean' or 'sum'")


def same_shape(name: str, input: md.Tensor, target: md.Tensor) -> None:
    """Raise ValueError where the shapes differ: a silent broadcast is the usual bug of a loss."""
    if input.shape != target.shape:
        raise ValueError(f"{name}: input {input.shape} and target {target.shape} differ in shape; reshape one of them")


def seen(values: md.Tensor) -> Any:
    """The values as an array, or None where they cannot be looked at without waiting for them, or at all."""
    try:
        return values.numpy() if values.device == "cpu" else None
    except TypeError:  # traced or batched
        return None


def cross_entropy(
    input: md.Tensor,
    target: md.Tensor,
    weight: md.Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> md.Tensor:
    """-log of the probability that softmax(input) gives to the target class.

    input [N, C, ...] (or [C]) unnormalised; target integers [N, ...], or class probabilities of input's shape; weight [C]. The mean is weighted and
    leaves out targets equal to ignore_index. Raises ValueError for other shapes and a
    label_smoothing outside 0 to 1, IndexError for a class out of range: eager on a CPU at once, elsewhere (where its loss is 0) if md.out_of_bounds
    says "raise-later".

    >>> round(cross_entropy(md.zeros((1, 2)), md.asarray([1])).item(), 4)
    0.6931
    """
    _no_truth("cross_entropy", ignore_index)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"cross_entropy: label_smoothing is between 0 and 1, not {label_smoothing}")
    axis = 0 if input.ndim == 1 else 1
    n = input.shape[axis]
    if not (target.dtype.inexact or weight is not None or label_smoothing):
        return _of_classes(input, target, axis, ignore_index, reduction)
    logp = md.log_softmax(input, axis=axis)
    if target.dtype.is_float:
        if target.shape != input.shape:
            raise ValueError(
                f"cross_entropy: {target.dtype.name} targets are probabilities of the scores' shape {input.shape}, not of {target.shape}; numbers of "
                "classes are integers: target.to(md.int64)"
            )
        if label_smoothing:
            target = target * (1 - label_smoothing) + label_smoothing / n
        if weight is not None:
            target = target * _along(weight, input.ndim, axis)
        loss = -md.sum(logp * target, axis=axis)
        return reduced("cross_entropy", loss, reduction)
    loss = nll_loss(logp, target, weight, ignore_index, "none" if label_smoothing else reduction)
    if not label_smoothing:
        return loss
    target = target.to(md.int64)
    valid, scale = target != ignore_index, None if weight is None else _along(weight, input.ndim, axis)
    smooth = md.where(valid, -md.sum(logp if scale is None else logp * scale, axis=axis), 0.0)
    loss = loss * (1 - label_smoothing) + smooth * (label_smoothing / n)
    if reduction != "mean":
        return reduced("cross_entropy", loss, reduction)
    return md.sum(loss) / _count(target, valid, weight, n, axis, input.dtype)


@by_kernel("of_classes")
def _of_classes(input: md.Tensor, target: md.Tensor, /, axis: int, ignore_index: int, reduction: str) -> md.Tensor:
    target, valid = _classes(input, target, axis, ignore_index)
    if valid is None and reduction == "mean":
        logp = md.log_softmax(input, axis=axis, at=target)
        return md.sum(logp) / -logp.size
    if valid is None:
        return reduced("cross_entropy", -md.log_softmax(input, axis=axis, at=target), reduction)
    return _some_count(input, target, valid, axis, 0 <= ignore_index < input.shape[axis], reduction)


@md.extend.fused
def _some_count(input: md.Tensor, target: md.Tensor, valid: md.Tensor, /, axis: int, hide: bool, reduction: str) -> md.Tensor:
    """cross_entropy where not all targets count. hide: whether those that do not are classes."""
    loss = -md.log_softmax(input, axis=axis, at=md.where(valid, target, -1) if hide else target)
    return md.sum(loss) / md.sum(valid.to(input.dtype)) if reduction == "mean" else reduced("cross_entropy", loss, reduction)


def nll_loss(input: md.Tensor, target: md.Tensor, weight: md.Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> md.Tensor:
    """-input at the target class, for log-probabilities input [N, C, ...] (or [C]) and integer targets [N, ...]; mean and weight as cross_entropy.

    Raises ValueError for targets that are no integers or do not fit input, and for another reduction; IndexError for a class that there is not (on a
    CPU, where values can be looked at).

    >>> md.nn.functional.nll_loss(md.tensor([[-1.0, -2.0]]), md.tensor([1])).item()
    2.0
    """
    _no_truth("nll_loss", ignore_index)
    return _of_logarithms(input, target, weight, 0 if input.ndim == 1 else 1, ignore_index, reduction)


@by_kernel("of_logarithms")
def _of_logarithms(input: md.Tensor, target: md.Tensor, weight: Any, /, axis: int, ignore_index: int, reduction: str) -> md.Tensor:
    target, valid = _classes(input, target, axis, ignore_index)
    if valid is None and input.size < _MANY:
        valid = target != ignore_index
    return _picked(input, target, valid, weight, axis, ignore_index, reduction)


_MANY = 2**14  # scores from which on a comparison with each of them costs more than gather and its scatter


@md.extend.fused
def _picked(input: md.Tensor, target: md.Tensor, valid: Any, weight: Any, /, axis: int, ignore_index: int, reduction: str) -> md.Tensor:
    """valid: which targets count; None, where all do, asks for a gather."""
    if valid is None:
        losses = -md.squeeze(md.take_along_axis(input, md.expand_dims(target, axis=axis), axis=axis), axis=axis)
        scale = None if weight is None else weight[target]
    else:
        at = hot(target, input.shape[axis], axis)
        if 0 <= ignore_index < input.shape[axis]:
            at = md.logical_and(at, md.expand_dims(valid, axis=axis))
        picked = md.where(at, input, 0.0)
        if weight is None and reduction == "mean":
            return -md.sum(picked) / md.sum(valid.to(input.dtype))
        losses = -md.sum(picked, axis=axis)
        scale = None if weight is None else md.sum(md.where(at, _along(weight, input.ndim, axis), 0.0), axis=axis)
    if scale is None:
        return reduced("nll_loss", losses, reduction)
    losses = losses * scale
    return md.sum(losses) / md.sum(scale) if reduction == "mean" else reduced("nll_loss", losses, reduction)


def _classes(input: md.Tensor, target: md.Tensor, axis: int, ignore_index: int) -> tuple[md.Tensor, md.Tensor | None]:
    """The targets as int64, and which of them count; None for all, where that can be seen."""
    if target.dtype.inexact or target.shape != input.shape[:axis] + input.shape[axis + 1 :]:
        raise ValueError(
            f"cross_entropy: scores of shape {input.shape} want integer targets of shape {input.shape[:axis] + input.shape[axis + 1 :]}"
            f" (or probabilities of their own shape), not {target.dtype.name} of shape {target.shape}"
        )
    target = target.to(md.int64)
    note = f"ignore_index is {ignore_index}"
    return target, None if all_count("cross_entropy", target, input.shape[axis], ignore_index, note) else target != ignore_index


def all_count(name: str, target: md.Tensor, n: int, ignored: int | None = None, note: str = "there is no other") -> bool:
    """Whether every one of these int64 targets is seen to be a class that counts. Raises IndexError for one that is no class and not `ignored`, where
    values can be looked at; elsewhere such a target has loss 0, but where md.out_of_bounds says "raise-later"."""
    values = seen(target)
    if values is None:
        md.extend.expect(
            lambda: ((target < 0) | (target >= n)) & (True if ignored is None else target != ignored),
            IndexError, f"{name}: the target holds a class that is not there; the scores have classes 0 to {n - 1} ({note})",
        )  # fmt: skip
        return False
    if values.size and values.view("u8").max() < n and (ignored is None or not 0 <= ignored < n):  # a negative number is a large one there
        return True
    wrong = values[((values < 0) | (values >= n)) & (values != ignored)]
    if wrong.size:
        raise IndexError(f"{name}: the target holds class {wrong[0]}, but the scores have classes 0 to {n - 1} ({note})")
    return False


def _along(weight: md.Tensor, ndim: int, axis: int) -> md.Tensor:
    return weight.reshape((-1,) + (1,) * (ndim - axis - 1))


def _count(target: md.Tensor, valid: md.Tensor, weight: md.Tensor | None, n: int, axis: int, dtype: object) -> md.Tensor:
    """The sum of the weights of the targets that count."""
    if weight is None:
        return md.sum(valid.to(dtype))
    at = md.logical_and(hot(target, n, axis), md.expand_dims(valid, axis=axis))
    return md.sum(md.where(at, _along(weight, target.ndim + 1, axis), 0.0))


def binary_cross_entropy(input: md.Tensor, target: md.Tensor, weight: md.Tensor | None = None, reduction: str = "mean") -> md.Tensor:
    """-(t log p + (1-t) log(1-p)) for probabilities p = input; logarithms end at -100 and p (1-p) in the derivative at 1e-12, as in PyTorch.

    Raises ValueError where the shapes of input and target differ, and for another reduction.

    >>> round(md.nn.functional.binary_cross_entropy(md.tensor([0.5]), md.tensor([1.0])).item(), 4)
    0.6931
    """
    same_shape("binary_cross_entropy", input, target)
    return _bce_reduced(input, target, weight, reduction)


@md.extend.fused
def _bce_reduced(input: md.Tensor, target: md.Tensor, weight: Any, /, reduction: str) -> md.Tensor:
    loss = _bce(input, target)
    return reduced("binary_cross_entropy", loss if weight is None else loss * weight, reduction)


@md.custom_vjp
def _bce(input: md.Tensor, t: md.Tensor) -> md.Tensor:
    return -(t * md.clip(md.log(input), -100.0, None) + (1 - t) * md.clip(md.log1p(-input), -100.0, None))


def _bce_forward(input: md.Tensor, t: md.Tensor) -> tuple:
    return _bce(input, t), (input, t)


def _bce_backward(residuals: tuple, g: md.Tensor) -> tuple:
    input, t = residuals
    to_target = md.clip(md.log1p(-input), -100.0, None) - md.clip(md.log(input), -100.0, None)
    return g * (input - t) / md.clip((1 - input) * input, 1e-12, None), g * to_target


_bce.defvjp(_bce_forward, _bce_backward)


def binary_cross_entropy_with_logits(
    input: md.Tensor, target: md.Tensor, weight: md.Tensor | None = None, reduction: str = "mean", pos_weight: md.Tensor | None = None
) -> md.Tensor:
    """binary_cross_entropy of sigmoid(input), computed from input without overflow.

    pos_weight: a factor of the losses of targets 1. Raises ValueError where the shapes of input and target differ, and for another reduction.

    >>> round(md.nn.functional.binary_cross_entropy_with_logits(md.tensor([0.0]), md.tensor([1.0])).item(), 4)
    0.6931
    """
    same_shape("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        loss = md.softplus(input) - input * target
    else:
        loss = (1 - target) * input + (1 + (pos_weight - 1) * target) * md.softplus(-input)
    return reduced("binary_cross_entropy_with_logits", loss if weight is None else loss * weight, reduction)
