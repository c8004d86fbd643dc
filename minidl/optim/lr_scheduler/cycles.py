"""Schedules that go up and down, and let momentum go the other way: OneCycleLR and CyclicLR."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from minidl.optim.lr_scheduler.base import LRScheduler, per_group, positive, set_rate
from minidl.optim.optimizer import Optimizer


def cycled_setting(who: str, optimizer: Optimizer) -> str:
    """ "betas" or "momentum": what goes down when the rate goes up. Raises ValueError where there is neither."""
    for name in ("betas", "momentum"):
        if name in optimizer.defaults:
            return name
    raise ValueError(f"{who}: {type(optimizer).__name__} has neither momentum nor betas; say cycle_momentum=False")


def set_momentum(group: dict[str, Any], value: Any) -> None:
    """Set the momentum of a group, or its first beta."""
    group.update({"betas": (value, *group["betas"][1:])} if "betas" in group else {"momentum": value})


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr in pct_start of the steps, then down to 1 / final_div_factor of where it began (L. Smith and N. Topin,
    2018).

    With cycle_momentum, momentum (or the first beta) goes the other way between max_momentum and base_momentum. three_phase: down to the beginning
    as fast as up, then to the end. Raises ValueError for a step after the last one.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=5)
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [0.9505, 0.6113, 0.1883]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"OneCycleLR: wanted an Optimizer, got {type(optimizer).__name__}")
        if total_steps is None and (epochs is None or steps_per_epoch is None):
            raise ValueError("OneCycleLR: say total_steps, or epochs and steps_per_epoch")
        if total_steps is None:
            total_steps = positive("OneCycleLR", "epochs", epochs) * positive("OneCycleLR", "steps_per_epoch", steps_per_epoch)
        self.total_steps = positive("OneCycleLR", "total_steps", total_steps)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start must be a float in [0, 1], got {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: anneal_strategy is 'cos' or 'linear', not {anneal_strategy!r}")
        self.cycle_momentum, self._anneal_func_type = cycle_momentum, anneal_strategy
        self.use_beta1 = cycle_momentum and cycled_setting("OneCycleLR", optimizer) == "betas"
        up = pct_start * self.total_steps - 1
        ends = [("max", up), ("initial", 2 * up), ("min", self.total_steps - 1)] if three_phase else [("max", up), ("min", self.total_steps - 1)]
        starts = ["initial", *(name for name, _ in ends)]
        momentum = {"initial": "max_momentum", "max": "base_momentum", "min": "max_momentum"}
        self._schedule_phases: list[dict[str, Any]] = [
            {"end_step": float(end), "start_lr": f"{a}_lr", "end_lr": f"{b}_lr", "start_momentum": momentum[a], "end_momentum": momentum[b]}
            for a, (b, end) in zip(starts, ends, strict=False)
        ]
        highest = per_group("OneCycleLR", "max_lr", max_lr, optimizer)
        momenta = [per_group("OneCycleLR", n, v, optimizer) for n, v in (("max_momentum", max_momentum), ("base_momentum", base_momentum))]
        if last_epoch == -1:
            for group, top, high, low in zip(optimizer.param_groups, highest, *momenta, strict=True):
                group.update(initial_lr=top / div_factor, max_lr=top, min_lr=top / div_factor / final_div_factor)
                if cycle_momentum:
                    group.update(max_momentum=high, base_momentum=low)
                    set_momentum(group, high)
        super().__init__(optimizer, last_epoch)

    def _between(self, start: Any, end: Any, part: float) -> Any:
        if self._anneal_func_type == "linear":
            return (end - start) * part + start
        return end + (start - end) / 2.0 * (1 + math.cos(math.pi * part))

    def get_lr(self) -> list[Any]:
        if self.last_epoch > self.total_steps:
            raise ValueError(f"OneCycleLR: step {self.last_epoch} of a schedule of {self.total_steps} steps")
        start = 0.0
        for phase in self._schedule_phases:
            end = phase["end_step"]
            if self.last_epoch <= end or phase is self._schedule_phases[-1]:
                break
            start = end
        part = (self.last_epoch - start) / (end - start)
        if self.cycle_momentum:
            for group in self.optimizer.param_groups:
                set_momentum(group, self._between(group[phase["start_momentum"]], group[phase["end_momentum"]], part))
        return [self._between(group[phase["start_lr"]], group[phase["end_lr"]], part) for group in self.optimizer.param_groups]


class CyclicLR(LRScheduler):
    """Up from base_lr to max_lr in step_size_up steps and down in step_size_down (as many unless said), again and again (L. Smith, WACV 2017).

    mode: "triangular", "triangular2" (half the height in each cycle) or "exp_range" (times gamma in each step); or scale_fn, a function of the
    number of the cycle or, with scale_mode "iterations", of the step. With cycle_momentum, momentum (or the first beta) goes the other way between
    max_momentum and base_momentum. Raises ValueError for another mode, and where there is no momentum to cycle.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0, momentum=0.9)
    >>> scheduler = md.optim.lr_scheduler.CyclicLR(optimizer, base_lr=0.1, max_lr=0.5, step_size_up=2)
    >>> rates = []
    >>> for _ in range(4):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [0.3, 0.5, 0.3, 0.1]
    """

    _hidden = ("optimizer", "scale_fn")

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"CyclicLR: wanted an Optimizer, got {type(optimizer).__name__}")
        if scale_fn is None and mode not in ("triangular", "triangular2", "exp_range"):
            raise ValueError(f"CyclicLR: mode is 'triangular', 'triangular2' or 'exp_range', not {mode!r}; or give a scale_fn")
        lows, self.max_lrs = per_group("CyclicLR", "base_lr", base_lr, optimizer), per_group("CyclicLR", "max_lr", max_lr, optimizer)
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode, self.gamma, self.scale_fn = mode, gamma, scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            cycled_setting("CyclicLR", optimizer)
            self.base_momentums = per_group("CyclicLR", "base_momentum", base_momentum, optimizer)
            self.max_momentums = per_group("CyclicLR", "max_momentum", max_momentum, optimizer)
        if last_epoch == -1:
            for i, (group, low) in enumerate(zip(optimizer.param_groups, lows, strict=True)):
                set_rate(group, "lr", low)
                if cycle_momentum:
                    set_momentum(group, self.max_momentums[i])
                    group.update(max_momentum=self.max_momentums[i], base_momentum=self.base_momentums[i])
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lows

    def _scale(self, cycle: int) -> float:
        if self.scale_fn is not None:
            return self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        return {"triangular": 1.0, "triangular2": 1 / 2.0 ** (cycle - 1), "exp_range": self.gamma**self.last_epoch}[self.mode]

    def get_lr(self) -> list[Any]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = (x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)) * self._scale(cycle)
        if self.cycle_momentum:
            for group, low, high in zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True):
                set_momentum(group, high - (high - low) * height)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]
