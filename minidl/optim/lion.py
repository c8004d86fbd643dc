"""Lion: steps of one size in each direction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer, State, scalar


class Lion(Optimizer):
    """Steps along the sign of an average of gradient and momentum (X. Chen et al., NeurIPS 2023), as optax.lion.

    betas: the weight of the momentum in the step, and in the next momentum. weight_decay shrinks the parameter directly. The rate should be 3 to 10
    times smaller than AdamW's, the decay larger by as much. Raises ValueError for settings out of range.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.Lion([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.8999]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 1e-3,
        *,
        maximize: bool = False,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize})

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        return {"exp_avg": md.zeros_like(p)}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        (beta1, beta2), mean = group["betas"], state["exp_avg"]
        move = md.sign(grad * (1 - beta1) + mean * beta1) + p * group["weight_decay"]
        return p - move * scalar(group["lr"], p), {"exp_avg": grad * (1 - beta2) + mean * beta2}
