"""Adafactor: second moments kept as those of rows and columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer, State, count, scalar


class Adafactor(Optimizer):
    """Adam without momentum, whose mean squares of matrices are kept as those of rows and columns (N. Shazeer and M. Stern, ICML 2018), as
    torch.optim.Adafactor.

    lr bounds the relative size of a step. eps: added to squares (None: that of the dtype), and the least root mean square of a parameter. d: the
    largest root mean square of a step. Raises ValueError for settings out of range, TypeError for complex parameters.

    >>> w = md.nn.Parameter(md.ones((2, 2)))
    >>> optimizer = md.optim.Adafactor([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w[0].tolist()]
    [0.9, 0.9]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        defaults = {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, execution)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if group["beta2_decay"] > 0 or group["d"] < 1 or any(e is not None and e < 0 for e in group["eps"]):
            raise ValueError(f"Adafactor: wanted beta2_decay ≤ 0, d ≥ 1 and eps ≥ 0; got {group['beta2_decay']}, {group['d']} and {group['eps']}")

    def _check_parameter(self, p: md.Tensor) -> None:
        super()._check_parameter(p)
        if p.dtype.is_complex:
            raise TypeError(f"Adafactor: complex parameters cannot be trained, not one of {p.dtype.name}")

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        if p.ndim < 2:
            return {"step": count(p), "variance": md.zeros_like(p)}
        return {"step": count(p), "row_var": md.zeros_like(p[..., :1]), "col_var": md.zeros_like(p[..., :1, :])}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        low, least = group["eps"]
        low = md.finfo(p.dtype).eps if low is None else low
        step = state["step"] + 1
        share = (step ** group["beta2_decay"]).to(p.dtype)
        size = _root_mean(p).to(md.float64)
        rate = (md.maximum(size, least) * md.minimum(1 / md.sqrt(step), group["lr"])).to(p.dtype)
        if group["weight_decay"] != 0:
            p = p * scalar(1 - group["lr"] * group["weight_decay"], p)
        after: State = {"step": step}
        square = md.square(grad)
        if p.ndim < 2:
            spread = after["variance"] = state["variance"] + (square - state["variance"]) * share
        else:
            for name, axis in (("row_var", -1), ("col_var", -2)):
                after[name] = state[name] + (md.mean(square, axis=axis, keepdims=True) - state[name]) * share
            spread = after["row_var"] * after["col_var"] / md.maximum(md.mean(after["row_var"], axis=-2, keepdims=True), low)
        move = grad / md.sqrt(md.maximum(spread, low * low))
        return p - move * (rate / md.maximum(_root_mean(move) / group["d"], 1.0)), after


def _root_mean(x: md.Tensor) -> md.Tensor:
    return md.sqrt(md.sum(md.square(x)) / max(x.size, 1))
