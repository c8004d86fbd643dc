"""Adagrad and RMSprop: steps over the root of summed or averaged squares of gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer, State, count, decayed, scalar


class Adagrad(Optimizer):
    """Steps over the root of the sum of all squared gradients (J. Duchi et al., JMLR 2011), as torch.optim.Adagrad.

    lr_decay: the n-th step (from 0) has the rate lr / (1 + n * lr_decay). Raises ValueError for negative settings.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.Adagrad([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.9]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        defaults = {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, {**defaults, "initial_accumulator_value": initial_accumulator_value}, execution)

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        start = group["initial_accumulator_value"]
        return {"step": count(p), "sum": md.full_like(p, start * (1 + 1j) if p.dtype.is_complex else start)}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        p, grad = decayed(p, grad, group)
        total = state["sum"] + md.square(grad)
        rate = (group["lr"] / (1 + state["step"] * group["lr_decay"])).to(p.dtype)
        return p - grad / (md.sqrt(total) + group["eps"]) * rate, {"step": state["step"] + 1, "sum": total}


class RMSprop(Optimizer):
    """Steps over the root of the running mean of squared gradients (T. Hinton, lecture 6e of Neural Networks for Machine Learning, 2012), as
    torch.optim.RMSprop.

    centered: over the root of their variance (A. Graves, 2013). momentum: along a running sum of such steps. Raises ValueError for negative settings.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.RMSprop([w], lr=0.01)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.9]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "centered": centered, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**defaults, "maximize": maximize}, execution)

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        names = ["square_avg", *["momentum_buffer"] * bool(group["momentum"]), *["grad_avg"] * bool(group["centered"])]
        return {"step": count(p), **{n: md.zeros_like(p) for n in names}}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        alpha, momentum = group["alpha"], group["momentum"]
        p, grad = decayed(p, grad, group)
        square = state["square_avg"] * alpha + md.square(grad) * (1 - alpha)
        after = {"step": state["step"] + 1, "square_avg": square}
        if group["centered"]:
            mean = after["grad_avg"] = state["grad_avg"] + (grad - state["grad_avg"]) * (1 - alpha)
            square = square - md.square(mean)
        move = grad / (md.sqrt(square) + group["eps"])
        if momentum != 0:
            move = after["momentum_buffer"] = state["momentum_buffer"] * momentum + move
        return p - move * scalar(group["lr"], p), after
