"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer, State, decayed, scalar


class SGD(Optimizer):
    """p -= lr * g, with momentum, dampening, weight decay and Nesterov's look-ahead as in torch.optim.SGD.

    The momentum buffer is the first gradient, then momentum * buffer + (1 - dampening) * g (I. Sutskever et al., ICML 2013, in PyTorch's form). With
    dampening the state has no buffer before the first step. Raises ValueError for negative settings and for nesterov without momentum or with
    dampening.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.SGD([w], lr=0.1, momentum=0.9)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.8]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize}
        super().__init__(params, defaults, execution)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov wants a momentum and zero dampening")

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        # zeros make the first buffer the gradient itself when there is no dampening; with it, the buffer has to wait for that gradient
        return {"momentum_buffer": md.zeros_like(p)} if group["momentum"] and not group["dampening"] else {}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        momentum, dampening = group["momentum"], group["dampening"]
        p, grad = decayed(p, grad, group)
        if momentum == 0:
            return p - grad * scalar(group["lr"], p), {}
        buffer = state.get("momentum_buffer")
        if buffer is None:
            buffer = grad * 1.0
        else:
            buffer = buffer * momentum + (grad * (1 - dampening) if dampening != 0 else grad)
        grad = grad + buffer * momentum if group["nesterov"] else buffer
        return p - grad * scalar(group["lr"], p), {"momentum_buffer": buffer}
