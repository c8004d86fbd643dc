"""Averages of weights over training: exponential (EMA) and equal (SWA), as torch.optim.swa_utils.

Promises: `update_parameters` may stand in a jitted step; the first update takes the model's values as they are.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import minidl as md
from minidl import nn
from minidl.optim.lr_scheduler.base import LRScheduler, per_group, rate_of
from minidl.optim.optimizer import Optimizer

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn", "update_bn"]

Average = Callable[[md.Tensor, md.Tensor, md.Tensor], md.Tensor]


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """decay * average + (1 - decay) * current. Raises ValueError for a decay outside [0, 1].

    >>> get_ema_avg_fn(0.75)(md.ones(1), md.zeros(1), md.asarray(3)).item()
    0.75
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"get_ema_avg_fn: decay must lie in [0, 1], got {decay}")
    return functools.partial(_ema, decay)


def _ema(decay: float, average: md.Tensor, current: md.Tensor, n: Any) -> md.Tensor:
    return decay * average + (1 - decay) * current


def _equal(average: md.Tensor, current: md.Tensor, n: Any) -> md.Tensor:
    return average + (current - average) / (n + 1).to(average.dtype)


def get_swa_avg_fn() -> Average:
    """The equal average of all: average + (current - average) / (n + 1) (P. Izmailov et al., UAI 2018).

    >>> average = md.optim.swa_utils.get_swa_avg_fn()
    >>> average(md.tensor(1.0), md.tensor(3.0), md.tensor(1)).item()
    2.0
    """
    return _equal


def _each(average: Average, averages: list[md.Tensor], current: list[md.Tensor], n: md.Tensor) -> None:
    for a, c in zip(averages, current, strict=True):
        a.assign(average(a, c, n).to(a.dtype))


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[list[md.Tensor], list[md.Tensor], md.Tensor], None]:
    """As get_ema_avg_fn, for lists of tensors, the first of which change in place.

    >>> averages = [md.tensor(1.0)]
    >>> md.optim.swa_utils.get_ema_multi_avg_fn(0.5)(averages, [md.tensor(3.0)], 1)
    >>> averages[0].item()
    2.0
    """
    return functools.partial(_each, get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> Callable[[list[md.Tensor], list[md.Tensor], md.Tensor], None]:
    """As get_swa_avg_fn, for lists of tensors, the first of which change in place.

    >>> averages = [md.tensor(1.0)]
    >>> md.optim.swa_utils.get_swa_multi_avg_fn()(averages, [md.tensor(3.0)], md.tensor(1))
    >>> averages[0].item()
    2.0
    """
    return functools.partial(_each, _equal)


class AveragedModel(nn.Module):
    """A copy of a model whose parameters are averages of the model's; called like the model.

    avg_fn(average, current, number of updates so far): the new average; the equal average by default. multi_avg_fn: the same on lists, in place.
    use_buffers: average the buffers too; otherwise they are the model's last ones. Raises ValueError where both functions are given.

    >>> model = nn.Linear(2, 1)
    >>> ema = AveragedModel(model, avg_fn=get_ema_avg_fn(0.9))
    >>> ema.update_parameters(model)
    >>> int(ema.n_averaged), bool(md.all(ema.module.weight == model.weight))
    (1, True)
    """

    def __init__(
        self,
        model: nn.Module,
        device: str | None = None,
        avg_fn: Average | None = None,
        multi_avg_fn: Callable[[list[md.Tensor], list[md.Tensor], md.Tensor], None] | None = None,
        use_buffers: bool = False,
    ):
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("AveragedModel: give avg_fn or multi_avg_fn, not both")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        where = next(self.module.parameters(), None)
        place = {} if where is None else {"backend": where.backend, "device": where.device}
        self.register_buffer("n_averaged", md.zeros((), dtype=md.int64, **place))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: nn.Module) -> None:
        """Take a model of the same structure into the average."""
        pairs: list[tuple[md.Tensor, md.Tensor]] = list(zip(self.module.parameters(), model.parameters(), strict=True))
        buffers: list[tuple[md.Tensor, md.Tensor]] = list(zip(self.module.buffers(), model.buffers(), strict=True))
        with md.no_grad():
            if self.use_buffers:
                pairs, buffers = pairs + buffers, []
            averages = [a.detach() for a, _ in pairs]
            current = [c.detach().to(backend=a.backend, device=a.device) for a, c in pairs]
            update = self.multi_avg_fn or functools.partial(_each, self.avg_fn or get_swa_avg_fn())
            update(new := [a.clone() for a in averages], current, self.n_averaged)
            for (a, _), average, c in zip(pairs, new, current, strict=True):
                a.assign(md.where(self.n_averaged == 0, c.to(a.dtype), average))
            for b, c in buffers:
                b.assign(c.detach().to(backend=b.backend, device=b.device))
            self.n_averaged.assign(self.n_averaged + 1)


def update_bn(loader: Iterable[Any], model: nn.Module, device: str | None = None) -> None:
    """Running statistics of all batch norms anew, from the inputs (or first entries of tuples) that loader gives, moved to device if that is given.

    >>> model = md.nn.BatchNorm1d(1)
    >>> md.optim.swa_utils.update_bn([md.tensor([[1.0], [3.0]])], model)
    >>> model.running_mean.tolist()
    [2.0]
    """
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))]
    if not norms:
        return
    momenta, training = [m.momentum for m in norms], model.training
    model.train()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    try:
        with md.no_grad():
            for batch in loader:
                input = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(input if device is None else input.to(device=device))
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        model.train(training)


class SWALR(LRScheduler):
    """From the rate at the beginning to swa_lr in anneal_epochs steps, then constant. Raises ValueError for an anneal_strategy but "cos" and
    "linear".

    >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=1.0)
    >>> scheduler = md.optim.swa_utils.SWALR(optimizer, swa_lr=0.1, anneal_epochs=1)
    >>> optimizer.step()
    >>> scheduler.step()
    >>> [round(rate, 4) for rate in scheduler.get_last_lr()]
    [0.1]
    """

    def __init__(
        self, optimizer: Optimizer, swa_lr: float | list[float], anneal_epochs: int = 10, anneal_strategy: str = "cos", last_epoch: int = -1
    ):
        if anneal_strategy not in ("cos", "linear") or not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"SWALR: anneal_strategy is 'cos' or 'linear', anneal_epochs 0 or more; got {anneal_strategy!r} and {anneal_epochs!r}")
        for group, lr in zip(optimizer.param_groups, per_group("SWALR", "swa_lr", swa_lr, optimizer), strict=True):
            group["swa_lr"] = lr
        self.anneal_epochs, self._anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _part(self, step: int) -> float:
        part = 1.0 if self.anneal_epochs == 0 else max(0.0, min(1.0, step / self.anneal_epochs))
        return part if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * part)) / 2

    def get_lr(self) -> list[Any]:
        step = self._step_count - 1
        before, now = self._part(step - 1), self._part(step)
        out = []
        for group in self.optimizer.param_groups:
            lr = rate_of(group, "lr")
            start = group["swa_lr"] if before == 1 else (lr - before * group["swa_lr"]) / (1 - before)
            out.append(group["swa_lr"] * now + start * (1 - now))
        return out
