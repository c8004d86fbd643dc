"""Schedules of the learning rate, as torch.optim.lr_scheduler.

A schedule sets the "lr" of an optimizer's groups, a Python number that a jitted step takes as an input: nothing is compiled again. Call its step()
after the optimizer's. A rate that is a Tensor is changed in place.

Promises: the same numbers as PyTorch's schedules, chained or in sequence; state_dict() is plain data with PyTorch's keys.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR",
    "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau", "SequentialLR", "StepLR",
]  # fmt: skip


def _get(group: dict[str, Any], key: str) -> Any:
    value = group[key]
    return value.detach() if isinstance(value, md.Tensor) else value


def _set(group: dict[str, Any], key: str, value: Any) -> None:
    if isinstance(group[key], md.Tensor):
        with md.no_grad():
            group[key].assign(value.to(group[key].dtype) if isinstance(value, md.Tensor) else md.full_like(group[key], value))
    else:
        group[key] = value


def _per_group(who: str, name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value per group, from one for all or a sequence."""
    n = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * n
    if len(value) != n:
        raise ValueError(f"{who}: {name} has {len(value)} values, the optimizer {n} groups")
    return list(value)


def _positive(who: str, name: str, value: Any) -> int:
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"{who}: {name} must be a positive integer, got {value!r}")
    return value


class LRScheduler:
    """The base of schedules. Subclasses define get_lr(), the next rate of each group, from self.last_epoch (the number of steps so far),
    self.base_lrs (the first rates) and the groups.

    last_epoch: -1 begins, anything else goes on where a saved run was, in which "initial_lr" stands in the groups (KeyError otherwise).

    >>> class Halves(md.optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [group["lr"] * (0.5 if self.last_epoch else 1.0) for group in self.optimizer.param_groups]
    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = Halves(optimizer)
    >>> optimizer.step()
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    #: The rates as functions of last_epoch alone, where there is a closed form: how SequentialLR begins a schedule in the middle.
    _get_closed_form_lr: Callable[[], list[Any]] | None = None
    _hidden: tuple[str, ...] = ("optimizer",)  # what state_dict leaves out

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: wanted an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", _get(group, "lr"))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__}: to go on from last_epoch={last_epoch}, group {i} needs 'initial_lr'; load the optimizer's state"
                )
        self.base_lrs = [_get(group, "initial_lr") for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[Any]:
        """The next rate of each group; called by step()."""
        raise NotImplementedError

    def get_last_lr(self) -> list[Any]:
        """The rates that the last step() set."""
        return self._last_lr

    def step(self) -> None:
        """Set the next rates. Warns (UserWarning) if the optimizer has taken no step yet, so that the first rate would never be used."""
        if self._step_count == 1 and not self.optimizer.stepped:
            warnings.warn(f"{type(self).__name__}: step() came before the optimizer's first step(), so the first rate is not used", stacklevel=2)
        self._step_count += 1
        self._update_lr()

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        values = self.get_lr() if epoch is None or self._get_closed_form_lr is None else self._get_closed_form_lr()
        self._store(values)

    def _store(self, values: Iterable[Any]) -> None:
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            _set(group, "lr", lr)
        self._last_lr = [_get(group, "lr") for group in self.optimizer.param_groups]

    def _scaled(self, factor: float) -> list[Any]:
        """The rates of now, times a factor."""
        return [_get(group, "lr") * factor if factor != 1 else _get(group, "lr") for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {k: v for k, v in vars(self).items() if k not in self._hidden}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state."""
        vars(self).update(state_dict)


class LambdaLR(LRScheduler):
    """The first rate times lr_lambda(last_epoch); one function, or one per group. Functions are not saved.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (step + 1))
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [0.5, 0.3333, 0.25]
    """

    _hidden = ("optimizer", "lr_lambdas")

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]], last_epoch: int = -1):
        self.lr_lambdas = _per_group(type(self).__name__, "lr_lambda", lr_lambda, optimizer)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        return [base * f(self.last_epoch) for f, base in zip(self.lr_lambdas, self.base_lrs, strict=True)]


class MultiplicativeLR(LambdaLR):
    """The rate of now times lr_lambda(last_epoch).

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda step: 0.5)
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [0.5, 0.25, 0.125]
    """

    def get_lr(self) -> list[Any]:
        rates = self._scaled(1)
        return rates if self._is_initial else [lr * f(self.last_epoch) for f, lr in zip(self.lr_lambdas, rates, strict=True)]


class StepLR(LRScheduler):
    """The rate times gamma every step_size steps.

    >>> opt = md.optim.SGD([md.tensor([1.0], requires_grad=True)], lr=1.0)
    >>> schedule = StepLR(opt, step_size=2, gamma=0.5)
    >>> for _ in range(4):
    ...     opt.step()
    ...     schedule.step()
    >>> opt.param_groups[0]["lr"]
    0.25
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        return self._scaled(self.gamma if self.last_epoch and self.last_epoch % self.step_size == 0 else 1)

    def _get_closed_form_lr(self) -> list[Any]:
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self.base_lrs]


class MultiStepLR(LRScheduler):
    """The rate times gamma at each milestone, a number of steps.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2], gamma=0.1)
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [1.0, 0.1, 0.1]
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1):
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        return self._scaled(self.gamma ** self.milestones[self.last_epoch])

    def _get_closed_form_lr(self) -> list[Any]:
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base * self.gamma**passed for base in self.base_lrs]


class ConstantLR(LRScheduler):
    """The rate times factor for total_iters steps, then as it was.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [0.5, 1.0, 1.0]
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1):
        if not 0 <= factor <= 1:
            raise ValueError(f"ConstantLR: factor must lie in [0, 1], got {factor}")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        if self.last_epoch == 0:
            return self._scaled(self.factor)
        return self._scaled(1.0 / self.factor if self.last_epoch == self.total_iters else 1)

    def _get_closed_form_lr(self) -> list[Any]:
        return [base * (1 if self.last_epoch >= self.total_iters else self.factor) for base in self.base_lrs]


class LinearLR(LRScheduler):
    """The rate times a factor that goes from start_factor to end_factor in total_iters steps: a warm-up, or a linear decay.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [0.75, 1.0, 1.0]
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0, total_iters: int = 5, last_epoch: int = -1):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(f"LinearLR: start_factor must lie in (0, 1], end_factor in [0, 1]; got {start_factor} and {end_factor}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        if self.last_epoch == 0:
            return self._scaled(self.start_factor)
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._scaled(1)
        rise = self.end_factor - self.start_factor
        return self._scaled(1.0 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise))

    def _get_closed_form_lr(self) -> list[Any]:
        part = min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * (self.start_factor + (self.end_factor - self.start_factor) * part) for base in self.base_lrs]


class ExponentialLR(LRScheduler):
    """The rate times gamma in every step.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [0.5, 0.25, 0.125]
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        return self._scaled(1 if self._is_initial else self.gamma)

    def _get_closed_form_lr(self) -> list[Any]:
        return [base * self.gamma**self.last_epoch for base in self.base_lrs]


class PolynomialLR(LRScheduler):
    """The first rate times (1 - last_epoch / total_iters) ** power, down to 0 after total_iters steps.

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=4)
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates.append(round(scheduler.get_last_lr()[0], 4))
    >>> rates
    [0.75, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1):
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._scaled(1)
        return self._scaled(((1.0 - self.last_epoch / self.total_iters) / (1.0 - (self.last_epoch - 1) / self.total_iters)) ** self.power)

    def _get_closed_form_lr(self) -> list[Any]:
        return [base * (1.0 - min(self.total_iters, self.last_epoch) / self.total_iters) ** self.power for base in self.base_lrs]


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
        self.T_0 = self.T_i = _positive("CosineAnnealingWarmRestarts", "T_0", T_0)
        self.T_mult, self.eta_min, self.T_cur = _positive("CosineAnnealingWarmRestarts", "T_mult", T_mult), eta_min, last_epoch
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
            total_steps = _positive("OneCycleLR", "epochs", epochs) * _positive("OneCycleLR", "steps_per_epoch", steps_per_epoch)
        self.total_steps = _positive("OneCycleLR", "total_steps", total_steps)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start must be a float in [0, 1], got {pct_start!r}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: anneal_strategy is 'cos' or 'linear', not {anneal_strategy!r}")
        if cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            raise ValueError(f"OneCycleLR: {type(optimizer).__name__} has neither momentum nor betas; say cycle_momentum=False")
        self.cycle_momentum, self._anneal_func_type = cycle_momentum, anneal_strategy
        self.use_beta1 = "betas" in optimizer.defaults
        up = pct_start * self.total_steps - 1
        ends = [("max", up), ("initial", 2 * up), ("min", self.total_steps - 1)] if three_phase else [("max", up), ("min", self.total_steps - 1)]
        starts = ["initial", *(name for name, _ in ends)]
        momentum = {"initial": "max_momentum", "max": "base_momentum", "min": "max_momentum"}
        self._schedule_phases: list[dict[str, Any]] = [
            {"end_step": float(end), "start_lr": f"{a}_lr", "end_lr": f"{b}_lr", "start_momentum": momentum[a], "end_momentum": momentum[b]}
            for a, (b, end) in zip(starts, ends, strict=False)
        ]
        highest = _per_group("OneCycleLR", "max_lr", max_lr, optimizer)
        momenta = [_per_group("OneCycleLR", n, v, optimizer) for n, v in (("max_momentum", max_momentum), ("base_momentum", base_momentum))]
        if last_epoch == -1:
            for group, top, high, low in zip(optimizer.param_groups, highest, *momenta, strict=True):
                group.update(initial_lr=top / div_factor, max_lr=top, min_lr=top / div_factor / final_div_factor)
                if cycle_momentum:
                    group.update(max_momentum=high, base_momentum=low)
                    self._set_momentum(group, high)
        super().__init__(optimizer, last_epoch)

    def _set_momentum(self, group: dict[str, Any], value: Any) -> None:
        group.update({"betas": (value, *group["betas"][1:])} if self.use_beta1 else {"momentum": value})

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
                self._set_momentum(group, self._between(group[phase["start_momentum"]], group[phase["end_momentum"]], part))
        return [self._between(group[phase["start_lr"]], group[phase["end_lr"]], part) for group in self.optimizer.param_groups]


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

    >>> opt = md.optim.SGD([md.tensor([1.0], requires_grad=True)], lr=1.0)
    >>> warm, decay = LinearLR(opt, start_factor=0.5, total_iters=2), ExponentialLR(opt, gamma=0.9)
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
            _set(group, "lr", group["initial_lr"])
        self._undo()
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self) -> None:
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
        self._last_lr = [_get(group, "lr") for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Step every schedule."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = [_get(group, "lr") for group in self.optimizer.param_groups]


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
        self.min_lrs = _per_group("ReduceLROnPlateau", "min_lr", min_lr, optimizer)
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.best = math.inf if mode == "min" else -math.inf
        self.last_epoch = self.cooldown_counter = self.num_bad_epochs = 0
        self._last_lr = [_get(group, "lr") for group in optimizer.param_groups]

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
            for group, low in zip(self.optimizer.param_groups, _per_group("ReduceLROnPlateau", "min_lr", self.min_lrs, self.optimizer), strict=True):
                old = float(_get(group, "lr"))
                new = max(old * self.factor, low)
                if old - new > self.eps:
                    _set(group, "lr", new)
        self._last_lr = [_get(group, "lr") for group in self.optimizer.param_groups]
