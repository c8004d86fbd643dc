"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer, State, count, decayed


class Adam(Optimizer):
    """Steps along the running mean of gradients over the root of that of their squares (D. Kingma and J. Ba, ICLR 2015), as torch.optim.Adam.

    weight_decay adds to the gradient here, and shrinks the parameter with decoupled_weight_decay and in AdamW. amsgrad keeps the largest mean square
    (S. Reddi et al., ICLR 2018). The step count is a 0-d float64 Tensor per parameter, in which the bias corrections are computed. Raises ValueError
    for settings out of range.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.9]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        **execution: Any,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize}
        super().__init__(params, {**defaults, "decoupled_weight_decay": decoupled_weight_decay}, execution)

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        return {"step": count(p), **{n: md.zeros_like(p) for n in names}}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        lr, (beta1, beta2), step = group["lr"], group["betas"], state["step"] + 1
        p, grad = decayed(p, grad, group)
        mean = state["exp_avg"] + (grad - state["exp_avg"]) * (1 - beta1)
        square = state["exp_avg_sq"] * beta2 + md.square(grad) * (1 - beta2)
        after = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
        if group["amsgrad"]:
            square = after["max_exp_avg_sq"] = md.maximum(state["max_exp_avg_sq"], square)
        root, size = md.sqrt(1 - beta2**step), lr / (1 - beta1**step)
        if p.dtype.itemsize < 4:  # where eps * root may be no number above zero
            return p - mean / (md.sqrt(square) / root.to(p.dtype) + group["eps"]) * size.to(p.dtype), after
        # so that an element costs one division: sqrt(square) / root + eps, both sides times root; XLA is quicker with the rate above the fraction
        return p - mean * (size * root).to(p.dtype) / (md.sqrt(square) + (group["eps"] * root).to(p.dtype)), after


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters directly (I. Loshchilov and F. Hutter, ICLR 2019), as torch.optim.AdamW.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.AdamW([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.899]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True, **execution)
