"""Relatives of Adam: Adamax, NAdam and RAdam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import minidl as md
from minidl.optim.optimizer import Optimizer, State, count, decayed


class Adamax(Optimizer):
    """Adam with the largest gradient in place of the mean square (D. Kingma and J. Ba, ICLR 2015, section 7), as torch.optim.Adamax.

    Raises ValueError for settings out of range.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.Adamax([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.9]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}, execution)

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        return {"step": count(p), "exp_avg": md.zeros_like(p), "exp_inf": md.zeros_like(p)}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        (beta1, beta2), step = group["betas"], state["step"] + 1
        p, grad = decayed(p, grad, group)
        mean = state["exp_avg"] + (grad - state["exp_avg"]) * (1 - beta1)
        largest = md.maximum(state["exp_inf"] * beta2, md.abs(grad) + group["eps"])
        size = (group["lr"] / (1 - beta1**step)).to(p.dtype)
        return p - mean / largest * size, {"step": step, "exp_avg": mean, "exp_inf": largest}


class NAdam(Optimizer):
    """Adam with Nesterov's look-ahead (T. Dozat, ICLR workshop 2016), as torch.optim.NAdam.

    momentum_decay: how fast the first beta comes to its value. Weight decay as in Adam. Raises ValueError for settings out of range.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.NAdam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.8944]
    """

    _dtypes: ClassVar[dict[str, Any]] = {"step": md.float64, "mu_product": md.float64}

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay, "maximize": maximize}
        super().__init__(params, {**defaults, "decoupled_weight_decay": decoupled_weight_decay}, execution)

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        return {"step": count(p), "mu_product": count(p) + 1, "exp_avg": md.zeros_like(p), "exp_avg_sq": md.zeros_like(p)}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        (beta1, beta2), lr, step = group["betas"], group["lr"], state["step"] + 1
        p, grad = decayed(p, grad, group)
        now, soon = (beta1 * (1 - 0.5 * 0.96 ** (n * group["momentum_decay"])) for n in (step, step + 1))
        product = state["mu_product"] * now
        mean = state["exp_avg"] + (grad - state["exp_avg"]) * (1 - beta1)
        square = state["exp_avg_sq"] * beta2 + md.square(grad) * (1 - beta2)
        root = md.sqrt(square / (1 - beta2**step).to(p.dtype)) + group["eps"]
        p = p - grad / root * (lr * (1 - now) / (1 - product)).to(p.dtype) - mean / root * (lr * soon / (1 - product * soon)).to(p.dtype)
        return p, {"step": step, "mu_product": product, "exp_avg": mean, "exp_avg_sq": square}


class RAdam(Optimizer):
    """Adam that takes plain momentum steps until the mean square can be trusted (L. Liu et al., ICLR 2020), as torch.optim.RAdam.

    Weight decay as in Adam. Raises ValueError for settings out of range.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.RAdam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.8]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, {**defaults, "decoupled_weight_decay": decoupled_weight_decay}, execution)

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        return {"step": count(p), "exp_avg": md.zeros_like(p), "exp_avg_sq": md.zeros_like(p)}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        (beta1, beta2), step = group["betas"], state["step"] + 1
        p, grad = decayed(p, grad, group)
        mean = state["exp_avg"] + (grad - state["exp_avg"]) * (1 - beta1)
        square = state["exp_avg_sq"] * beta2 + md.square(grad) * (1 - beta2)
        longest, left = 2 / (1 - beta2) - 1, 1 - beta2**step
        length = longest - 2 * step * beta2**step / left  # of the average, in steps: above 5 its variance is bounded
        bounded = length > 5
        safe = md.where(bounded, length, 6.0)
        rectified = md.sqrt((safe - 4) * (safe - 2) * longest / ((longest - 4) * (longest - 2) * safe) * left).to(p.dtype)
        step_size = mean * (group["lr"] / (1 - beta1**step)).to(p.dtype)
        p = p - md.where(bounded, step_size * rectified / (md.sqrt(square) + group["eps"]), step_size)
        return p, {"step": step, "exp_avg": mean, "exp_avg_sq": square}
