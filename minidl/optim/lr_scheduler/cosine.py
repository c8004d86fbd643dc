"""Schedules along a cosine, with and without restarts."""

from __future__ import annotations

import math
from typing import Any

from minidl.optim.lr_scheduler.base import LRScheduler, positive
from minidl.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """From the first rate to eta_min along half a cosine in T_max steps, and back (I. Loshchilov and F. Hutter, ICLR 2017), without restarts.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [0.5, 0.0, 0.5]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def _height(self, epoch: int) -> float:
        return 1 + math.cos(math.pi * epoch / self.T_max)

    def get_lr(self) -> list[Any]:
        rates, now = self._scaled(1), self.last_epoch
        if self._is_initial:
            return rates
        if (now - 1 - self.T_max) % (2 * self.T_max) == 0:  # just after the lowest point, where the quotient below is none
            up = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base - self.eta_min) * up for lr, base in zip(rates, self.base_lrs, strict=True)]
        return [self._height(now) / self._height(now - 1) * (lr - self.eta_min) + self.eta_min for lr in rates]

    def _get_closed_form_lr(self) -> list[Any]:
        return [self.eta_min + (base - self.eta_min) * self._height(self.last_epoch) / 2 for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the first rate to eta_min in T_0 steps, again and again, each T_mult times as long as the one before (I. Loshchilov and
    F. Hutter, ICLR 2017).

    Raises ValueError for a T_0 or T_mult that is no positive integer, and in `step` for a negative epoch.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2)
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [0.5, 1.0, 0.5]
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1):
        self.T_i: float
        self.T_cur: float
        self.T_0 = self.T_i = positive("CosineAnnealingWarmRestarts", "T_0", T_0)
        self.T_mult, self.eta_min, self.T_cur = positive("CosineAnnealingWarmRestarts", "T_mult", T_mult), eta_min, last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Set the next rates; with epoch, those of that place, which may lie between two steps."""
        if epoch is None and self.last_epoch >= 0:
            epoch, self.T_cur = self.last_epoch + 1, self.T_cur + 1
            if self.T_cur >= self.T_i:
                self.T_cur, self.T_i = self.T_cur - self.T_i, self.T_i * self.T_mult
        else:
            epoch = 0 if epoch is None else epoch
            if epoch < 0:
                raise ValueError(f"CosineAnnealingWarmRestarts: epoch must not be negative, got {epoch}")
            n, start = 0, 0.0  # full periods before, and where the last of them ends
            if self.T_mult == 1:
                start = epoch - epoch % self.T_0
            elif epoch >= self.T_0:
                n = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
                start = self.T_0 * (self.T_mult**n - 1) / (self.T_mult - 1)
            self.T_i, self.T_cur = self.T_0 * self.T_mult**n, epoch - start
        self._step_count += 1
        self.last_epoch = math.floor(epoch)
        self._store(self.get_lr())
