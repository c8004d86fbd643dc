"""Averaged gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import minidl as md
from minidl.optim.optimizer import Optimizer, State, count, decayed, scalar


class ASGD(Optimizer):
    """Gradient descent with a rate that falls, and the average of all points (B. Polyak and A. Juditsky, 1992), as torch.optim.ASGD.

    The average is state[p]["ax"], begun at step t0. lambd: a decay. alpha: how fast the rate falls. Raises ValueError for a negative
    lr, alpha or weight_decay.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.ASGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.8]
    """

    _dtypes: ClassVar[dict[str, Any]] = {"step": md.float64, "eta": md.float64, "mu": md.float64}

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        defaults = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, execution)

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        return {"step": count(p), "eta": count(p) + group["lr"], "mu": count(p) + 1, "ax": md.zeros_like(p)}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        step, eta = state["step"] + 1, state["eta"]
        eta = md.where(step == 1, scalar(group["lr"], eta), eta)  # a schedule may have changed it since the state was made
        p, grad = decayed(p, grad, group)
        p = p * (1 - group["lambd"] * eta).to(p.dtype) - grad * eta.to(p.dtype)
        average = state["ax"] + (p - state["ax"]) * state["mu"].to(p.dtype)
        falling = group["lr"] / (1 + group["lambd"] * group["lr"] * step) ** group["alpha"]
        return p, {"step": step, "eta": falling, "mu": 1 / md.maximum(step - group["t0"], 1.0), "ax": average}
