"""LRScheduler, the base of schedules, and how a rate is read and set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer


def rate_of(group: dict[str, Any], key: str) -> Any:
    """A rate of now, a number or a Tensor that later steps do not change."""
    value = group[key]
    return value.detach() if isinstance(value, md.Tensor) else value


def set_rate(group: dict[str, Any], key: str, value: Any) -> None:
    """Set a rate, in place where it is a Tensor."""
    if isinstance(group[key], md.Tensor):
        with md.no_grad():
            group[key].assign(value.to(group[key].dtype) if isinstance(value, md.Tensor) else md.full_like(group[key], value))
    else:
        group[key] = value


def per_group(who: str, name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value per group, from one for all or a sequence."""
    n = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * n
    if len(value) != n:
        raise ValueError(f"{who}: {name} has {len(value)} values, the optimizer {n} groups")
    return list(value)


def positive(who: str, name: str, value: Any) -> int:
    """value, if it is a positive integer. Raises ValueError otherwise."""
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
                group.setdefault("initial_lr", rate_of(group, "lr"))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__}: to go on from last_epoch={last_epoch}, group {i} needs 'initial_lr'; load the optimizer's state"
                )
        self.base_lrs = [rate_of(group, "initial_lr") for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[Any]:
        """The next rate of each group; called by step()."""
        raise NotImplementedError(f"{type(self).__name__} is missing the required get_lr")

    def get_last_lr(self) -> list[Any]:
        """The rates that the last step() set."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Set the next rates; with epoch (deprecated in PyTorch) those of that place.

        Warns (UserWarning) if the optimizer has taken no step yet, so that the first rate would never be used.
        """
        if self._step_count == 1 and not self.optimizer.stepped:
            warnings.warn(f"{type(self).__name__}: step() came before the optimizer's first step(), so the first rate is not used", stacklevel=2)
        self._step_count += 1
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        values = self.get_lr() if epoch is None or self._get_closed_form_lr is None else self._get_closed_form_lr()
        self._store(values)

    def _store(self, values: Iterable[Any]) -> None:
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            set_rate(group, "lr", lr)
        self._last_lr = [rate_of(group, "lr") for group in self.optimizer.param_groups]

    def _scaled(self, factor: float) -> list[Any]:
        """The rates of now, times a factor."""
        return [rate_of(group, "lr") * factor if factor != 1 else rate_of(group, "lr") for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {k: v for k, v in vars(self).items() if k not in self._hidden}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state, PyTorch's too; functions stay those of this schedule."""
        vars(self).update({k: v for k, v in state_dict.items() if k not in self._hidden})
