"""The loss of sequences whose alignment is not known: connectionist temporal classification, by one scan over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl.nn.functional.kernels import by_kernel
from minidl.nn.functional.losses import seen

__all__ = ["ctc_loss"]
Lengths = md.Tensor | Sequence[int] | int


def ctc_loss(
    log_probs: md.Tensor,
    targets: md.Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> md.Tensor:
    """-log of the probability of all alignments of targets to log_probs (A. Graves et al., ICML 2006).

    log_probs: [T, N, C], logarithms of probabilities of classes; or [T, C] for one sequence. targets: integer classes [N, S], or all of them one
    after the other (their lengths must then be known while a program is traced: give integers); or [S]. input_lengths, target_lengths: [N] each.
    blank: the class of no label. reduction: "none" gives [N]; "mean" divides by the lengths of targets first, as PyTorch. zero_infinity: 0, with
    gradient 0, where a target is longer than its input; without it the loss is inf there, and the gradient 0 too, where PyTorch's is nan. Else the
    gradient is that of this function; behind log_softmax it is PyTorch's. Raises ValueError for shapes that do not fit and, on a CPU, where values
    can be looked at (not of what a program is traced for): ValueError for an input length outside 0 to T, a target length outside 0 to S, and the
    blank among the labels of a target; IndexError for a label that is no class. What stands behind a target's length may be anything.

    >>> uniform = md.full((3, 1, 2), -0.6931472)
    >>> round(md.nn.functional.ctc_loss(uniform, md.tensor([[1]]), [3], [1], reduction="sum").item(), 4)
    0.2877
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'ctc_loss: reduction is "mean", "sum" or "none", not {reduction!r}')
    single = log_probs.ndim == 2
    if single:
        log_probs, targets = log_probs[:, None], targets[None]
    if log_probs.ndim != 3 or not targets.dtype.is_integer:
        raise ValueError(f"ctc_loss: log_probs [T, N, C] or [T, C] and integer targets are wanted, got {log_probs.shape} and {targets.dtype.name}")
    steps, n, classes = log_probs.shape
    if not 0 <= blank < classes:
        raise ValueError(f"ctc_loss: blank {blank} is no class of {classes}")
    like = {"backend": log_probs.backend, "device": log_probs.device}
    if targets.ndim == 1:
        targets = _apart(targets, target_lengths)
    lasting, wanted = (_lengths(name, v, n, like) for name, v in (("input_lengths", input_lengths), ("target_lengths", target_lengths)))
    if targets.ndim != 2 or targets.shape[0] != n:
        raise ValueError(f"ctc_loss: targets {targets.shape} for {n} sequences: [N, S], or one after the other")
    _check("input_lengths", lasting, steps, "the steps of log_probs")
    _check("target_lengths", wanted, targets.shape[1], "the labels of each row of targets")
    _check_labels(targets, wanted, classes, blank)
    loss = _aligned(log_probs, targets, lasting, wanted, blank)
    if zero_infinity:
        loss = md.where(loss == math.inf, 0.0, loss)
    if single and reduction == "none":
        return loss[0]
    if reduction == "mean":
        return md.mean(loss / md.maximum(wanted, 1).to(loss.dtype))
    return md.sum(loss) if reduction == "sum" else loss


@by_kernel("alignments")
def _aligned(log_probs: md.Tensor, targets: md.Tensor, lasting: md.Tensor, wanted: md.Tensor, /, blank: int) -> md.Tensor:
    """-log of the probability of all alignments, for each sequence."""
    width = 2 * targets.shape[1] + 1
    (steps, n, classes), like = log_probs.shape, {"backend": log_probs.backend, "device": log_probs.device}
    blanks = md.full_like(targets, blank)
    # blank, label, blank, label, …, blank; a label may follow another without a blank between them where they differ
    path = md.concat((md.stack((blanks, targets), axis=-1).reshape((n, width - 1)), md.full((n, 1), blank, dtype=targets.dtype, **like)), axis=1)
    path = md.clip(path, 0, classes - 1)  # what pads targets is not read, and may be anything
    jumps = md.concat((md.zeros((n, min(width, 2)), dtype=md.bool, **like), (path[:, 2:] != path[:, :-2]) & (path[:, 2:] != blank)), axis=1)
    scores = md.take_along_axis(log_probs, md.broadcast_to(path[None], (steps, n, width)).to(md.int64), axis=2)
    never = md.full((n, 2), -math.inf, dtype=log_probs.dtype, **like)

    def move(alpha: md.Tensor, at: tuple[md.Tensor, md.Tensor]) -> tuple[md.Tensor, None]:
        now, time = at
        moved = md.concat((never, alpha), axis=1)
        ways = md.stack((alpha, moved[:, 1 : width + 1], md.where(jumps, moved[:, :width], -math.inf)))
        return md.where((time < lasting)[:, None], md.logsumexp(ways, axis=0) + now, alpha), None

    start = md.concat((md.zeros((n, 1), dtype=log_probs.dtype, **like), md.broadcast_to(never[:, :1], (n, width - 1))), axis=1)
    alpha, _ = md.scan(move, start, (scores, md.arange(steps, **like)))
    ends = md.take_along_axis(alpha, md.stack((2 * wanted, md.maximum(2 * wanted - 1, 0)), axis=1), axis=1)
    return -md.logaddexp(ends[:, 0], md.where(wanted > 0, ends[:, 1], -math.inf))


def _lengths(name: str, value: Lengths, n: int, like: dict[str, Any]) -> md.Tensor:
    found = value.reshape(-1) if isinstance(value, md.Tensor) else md.asarray([value] if isinstance(value, int) else list(value), **like)
    found = found.to(md.int64) if n == 0 and found.shape == (0,) else found  # an empty list has no dtype
    if found.shape != (n,) or not found.dtype.is_integer:
        raise ValueError(f"ctc_loss: {name} are {n} integers, got {found.dtype.name} of shape {found.shape}")
    return found.to(md.int64)


def _check(name: str, lengths: md.Tensor, most: int, what: str) -> None:
    for v in () if (values := seen(lengths)) is None else values.tolist():
        if not 0 <= v <= most:
            raise ValueError(f"ctc_loss: {name} holds {v}; lengths are from 0 to {most}, {what}")


def _check_labels(targets: md.Tensor, lengths: md.Tensor, classes: int, blank: int) -> None:
    rows, sizes = seen(targets), seen(lengths)
    if rows is None or sizes is None or not rows.size:
        return
    labels = rows[sizes[:, None] > range(rows.shape[1])]
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise IndexError(f"ctc_loss: targets hold class {wrong[0]}, but log_probs has classes 0 to {classes - 1}")
    if (labels == blank).any():
        raise ValueError(f"ctc_loss: targets hold the blank, {blank}, which is no label; leave it out, or give another class as blank")


def _apart(targets: md.Tensor, lengths: Lengths) -> md.Tensor:
    """Targets that stand one after the other, as [N, S]."""
    sizes = [lengths] if isinstance(lengths, int) else [int(v) for v in (lengths.tolist() if isinstance(lengths, md.Tensor) else lengths)]
    if min(sizes, default=0) < 0:
        raise ValueError(f"ctc_loss: target_lengths holds {min(sizes)}; lengths are from 0")
    if sum(sizes) != targets.shape[0]:
        raise ValueError(f"ctc_loss: targets one after the other are {sum(sizes)} by their lengths, got {targets.shape[0]}")
    starts, longest = [sum(sizes[:i]) for i in range(len(sizes))], max(sizes, default=0)
    place = [min(start + i, max(targets.shape[0] - 1, 0)) for start in starts for i in range(longest)]
    return md.take(targets, md.asarray(place, dtype=md.int64, backend=targets.backend, device=targets.device), axis=0).reshape((len(sizes), longest))
