"""ReduceLROnPlateau: a schedule that a metric decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minidl.optim.lr_scheduler.base import LRScheduler, per_group, rate_of, set_rate
from minidl.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """The rate times factor when a metric has not become better for more than patience steps.

    mode: "min" or "max", which of two metrics is better; it must be so by threshold, relative ("rel") or absolute ("abs"). cooldown: steps after a
    reduction that are not counted. min_lr: a lower bound, for all groups or each. A change smaller than eps is not made. Raises ValueError for other
    modes and for a factor from 1 on.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    >>> for loss in (3.0, 3.0):
    ...     scheduler.step(loss)
    >>> optimizer.param_groups[0]["lr"]
    0.1
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"ReduceLROnPlateau: wanted an Optimizer, got {type(optimizer).__name__}")
        if factor >= 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be smaller than 1, got {factor}")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(f"ReduceLROnPlateau: mode is 'min' or 'max', threshold_mode 'rel' or 'abs'; got {mode!r} and {threshold_mode!r}")
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown, self.eps = threshold, threshold_mode, cooldown, eps
        self.min_lrs = per_group("ReduceLROnPlateau", "min_lr", min_lr, optimizer)
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.best = math.inf if mode == "min" else -math.inf
        self.last_epoch = self.cooldown_counter = self.num_bad_epochs = 0
        self._last_lr = [rate_of(group, "lr") for group in optimizer.param_groups]

    @property
    def in_cooldown(self) -> bool:
        """Whether a reduction was so recent that bad steps do not count."""
        return self.cooldown_counter > 0

    def _better(self, metric: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * metric > sign * self.best * (1 + sign * self.threshold)
        return sign * metric > sign * self.best + self.threshold

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """Take note of a metric, a number or a 0-d tensor, and reduce the rates where it is time."""
        self.last_epoch += 1
        metric = float(metrics)
        if self._better(metric):
            self.best, self.num_bad_epochs = metric, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            if self.default_min_lr is not None:  # a group may have been added
                self.min_lrs = [self.default_min_lr] * len(self.optimizer.param_groups)
            for group, low in zip(self.optimizer.param_groups, per_group("ReduceLROnPlateau", "min_lr", self.min_lrs, self.optimizer), strict=True):
                old = float(rate_of(group, "lr"))
                new = max(old * self.factor, low)
                if old - new > self.eps:
                    set_rate(group, "lr", new)
        self._last_lr = [rate_of(group, "lr") for group in self.optimizer.param_groups]
