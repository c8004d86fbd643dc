"""Losses as modules: each a function of nn.functional with its settings as attributes."""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn.module import Module


class _Loss(Module):
    """A function of (input, target); keyword arguments of the constructor are passed on at each call."""

    def __init__(self, function: Any, reduction: str, **settings: Any):
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f'{type(self).__name__}: reduction is "mean", "sum" or "none", not {reduction!r}')
        self.reduction, self._function, self._settings = reduction, function, tuple(settings)
        for name, value in settings.items():
            if isinstance(value, md.Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x: md.Tensor, target: md.Tensor) -> md.Tensor:
        return self._function(x, target, reduction=self.reduction, **{n: getattr(self, n) for n in self._settings})


class CrossEntropyLoss(_Loss):
    """nn.functional.cross_entropy: scores [N, C, ...] against integer classes [N, ...] or class probabilities.

    >>> round(CrossEntropyLoss()(md.zeros((4, 10)), md.asarray([1, 2, 3, 4])).item(), 4)
    2.3026
    """

    def __init__(self, weight: md.Tensor | None = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0):
        super().__init__(F.cross_entropy, reduction, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing)


class NLLLoss(_Loss):
    """nn.functional.nll_loss: log-probabilities against integer classes."""

    def __init__(self, weight: md.Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(F.nll_loss, reduction, weight=weight, ignore_index=ignore_index)


class MSELoss(_Loss):
    """nn.functional.mse_loss: the squared difference."""

    def __init__(self, reduction: str = "mean"):
        super().__init__(F.mse_loss, reduction)


class L1Loss(_Loss):
    """nn.functional.l1_loss: the absolute difference."""

    def __init__(self, reduction: str = "mean"):
        super().__init__(F.l1_loss, reduction)


class HuberLoss(_Loss):
    """nn.functional.huber_loss: squared near the target, linear beyond delta."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(F.huber_loss, reduction, delta=delta)


class SmoothL1Loss(_Loss):
    """nn.functional.smooth_l1_loss: huber_loss divided by beta."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0):
        super().__init__(F.smooth_l1_loss, reduction, beta=beta)


class BCELoss(_Loss):
    """nn.functional.binary_cross_entropy of probabilities, with logarithms cut at -100."""

    def __init__(self, weight: md.Tensor | None = None, reduction: str = "mean"):
        super().__init__(F.binary_cross_entropy, reduction, weight=weight)


class BCEWithLogitsLoss(_Loss):
    """nn.functional.binary_cross_entropy_with_logits."""

    def __init__(self, weight: md.Tensor | None = None, reduction: str = "mean", pos_weight: md.Tensor | None = None):
        super().__init__(F.binary_cross_entropy_with_logits, reduction, weight=weight, pos_weight=pos_weight)
