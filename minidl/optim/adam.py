"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Steps along the running mean of gradients over the root of that of their squares (D. Kingma and J. Ba, ICLR 2015), as torch.optim.Adam.

    weight_decay adds to the gradient here, and shrinks the parameter in AdamW. amsgrad keeps the largest mean square (S. Reddi et al., ICLR 2018).
    The step count is a 0-d float64 Tensor per parameter, in which the bias corrections are computed. Raises ValueError for settings out of range.
    """

    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize})

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        for beta in group["betas"]:
            if isinstance(beta, (int, float)) and not 0 <= beta < 1:
                raise ValueError(f"{type(self).__name__}: betas must lie in [0, 1), got {group['betas']}")

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> dict[str, Any]:
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        return {"step": md.sum(md.zeros_like(p, dtype=md.float64)), **{n: md.zeros_like(p) for n in names}}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        lr, decay, (beta1, beta2) = md.host(group, "lr"), md.host(group, "weight_decay"), md.host(group, "betas")
        step, mean, square = state["step"], state["exp_avg"], state["exp_avg_sq"]
        step.assign(step + 1)
        new = p
        if decay != 0:
            if self.decoupled:
                new = p * (1 - lr * decay)
            else:
                grad = grad + p * decay
        mean.assign(mean + (grad - mean) * (1 - beta1))
        square.assign(square * beta2 + md.square(grad) * (1 - beta2))
        if group["amsgrad"]:
            largest = state["max_exp_avg_sq"]
            largest.assign(md.maximum(largest, square))
            square = largest
        size = (lr / (1 - beta1**step)).to(p.dtype)
        scale = md.sqrt(1 - beta2**step).to(p.dtype)
        p.assign(new - mean / (md.sqrt(square) / scale + md.host(group, "eps")) * size)


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters directly (I. Loshchilov and F. Hutter, ICLR 2019), as torch.optim.AdamW."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
