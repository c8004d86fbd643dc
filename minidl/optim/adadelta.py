"""Adadelta: steps in the units of the parameter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer, State, count, decayed, scalar


class Adadelta(Optimizer):
    """Steps whose units are the parameter's: over the root of the mean square of gradients, times that of past steps (M. Zeiler, 2012), as
    torch.optim.Adadelta.

    Raises ValueError for settings out of range.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.Adadelta([w])
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.9968]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}, execution)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if isinstance(group["rho"], (int, float)) and not 0 <= group["rho"] <= 1:
            raise ValueError(f"Adadelta: rho must lie in [0, 1], got {group['rho']}")

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        return {"step": count(p), "square_avg": md.zeros_like(p), "acc_delta": md.zeros_like(p)}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        rho, eps = group["rho"], group["eps"]
        p, grad = decayed(p, grad, group)
        square = state["square_avg"] * rho + md.square(grad) * (1 - rho)
        move = md.sqrt(state["acc_delta"] + eps) / md.sqrt(square + eps) * grad
        after = {"step": state["step"] + 1, "square_avg": square, "acc_delta": state["acc_delta"] * rho + md.square(move) * (1 - rho)}
        return p - move * scalar(group["lr"], p), after
