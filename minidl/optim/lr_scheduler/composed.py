"""Schedules of schedules: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from minidl.optim.lr_scheduler.base import LRScheduler, rate_of, set_rate
from minidl.optim.lr_scheduler.plateau import ReduceLROnPlateau
from minidl.optim.optimizer import Optimizer


class _Composed(LRScheduler):
    """A schedule of schedules, whose states are saved with it."""

    _hidden = ("optimizer", "_schedulers")

    def _take(self, schedulers: Sequence[Any], optimizer: Optimizer | None) -> None:
        name = type(self).__name__
        if not schedulers:
            raise ValueError(f"{name}: got no schedule")
        self._schedulers, self.optimizer = list(schedulers), optimizer or schedulers[0].optimizer
        for s in schedulers:
            if isinstance(s, ReduceLROnPlateau):
                raise ValueError(f"{name}: ReduceLROnPlateau needs a metric in each step and cannot be composed")
            if s.optimizer is not self.optimizer:
                raise ValueError(f"{name}: all schedules must be of one optimizer")

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for s, saved in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            s.load_state_dict(saved)

    def _undo(self) -> None:
        """Take back the step that making a schedule takes."""
        for s in self._schedulers:
            s._undo() if isinstance(s, _Composed) else setattr(s, "last_epoch", s.last_epoch - 1)


class SequentialLR(_Composed):
    """One schedule until the first milestone, the next until the second, and so on: a warm-up and then a decay.

    Raises ValueError unless there is one milestone fewer than schedules, and for schedules of different optimizers or a ReduceLROnPlateau among them.

    >>> opt = md.optim.SGD([md.tensor([1.0], requires_grad=True)], lr=1.0)
    >>> s = md.optim.lr_scheduler
    >>> warm, decay = s.LinearLR(opt, start_factor=0.5, total_iters=2), s.ExponentialLR(opt, gamma=0.9)
    >>> schedule = SequentialLR(opt, [warm, decay], milestones=[2])
    >>> rates = []
    >>> for _ in range(4):
    ...     rates.append(round(opt.param_groups[0]["lr"], 4))
    ...     opt.step()
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 0.9]
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1):
        self._take(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(f"SequentialLR: {len(schedulers)} schedules want {len(schedulers) - 1} milestones, got {len(milestones)}")
        self._milestones, self.last_epoch = list(milestones), last_epoch + 1
        for group in optimizer.param_groups:
            set_rate(group, "lr", group["initial_lr"])
        self._undo()
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        """Step the schedule whose turn it is; at a milestone the next one begins."""
        self.last_epoch += 1
        at = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[at]
        if at > 0 and self._milestones[at - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Composed):
    """All schedules in each step, one after the other on the same rate.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> s = md.optim.lr_scheduler
    >>> both = s.ChainedScheduler([s.ExponentialLR(optimizer, 0.5), s.ConstantLR(optimizer, 0.1, total_iters=9)])
    >>> optimizer.step()
    >>> both.step()
    >>> [round(rate, 4) for rate in both.get_last_lr()]
    [0.05]
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        self._take(schedulers, optimizer)
        self._last_lr = [rate_of(group, "lr") for group in self.optimizer.param_groups]

    def step(self) -> None:  # type: ignore[override]
        """Step every schedule."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = [rate_of(group, "lr") for group in self.optimizer.param_groups]
