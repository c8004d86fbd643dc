"""Rprop: a step size for each element."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer, State, count, scalar


class Rprop(Optimizer):
    """Steps of each element's own size, which grows while the gradient keeps its sign (M. Riedmiller and H. Braun, 1993), as torch.optim.Rprop.

    For whole batches. etas: by what a size shrinks and grows; step_sizes: its bounds. Raises ValueError for etas on the wrong side of 1.

    >>> w = md.nn.Parameter(md.ones(1))
    >>> optimizer = md.optim.Rprop([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> [round(v, 4) for v in w.tolist()]
    [0.9]
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        maximize: bool = False,
        **execution: Any,
    ):
        super().__init__(params, {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize}, execution)

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if not 0 < group["etas"][0] < 1 < group["etas"][1]:
            raise ValueError(f"Rprop: etas are one number below 1 and one above, not {group['etas']}")

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        first = group["lr"] * (1 + 1j) if p.dtype.is_complex else group["lr"]
        return {"step": count(p), "prev": md.zeros_like(p), "step_size": md.full_like(p, first)}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        (shrink, grow), (smallest, largest) = group["etas"], group["step_sizes"]
        first = state["step"] == 0  # the rate of now, which a schedule may have changed since the state was made
        kept, size = grad * state["prev"], md.where(first, scalar(group["lr"], grad), state["step_size"])
        size = md.clip(md.where(kept > 0, size * grow, md.where(kept < 0, size * shrink, size)), smallest, largest)
        grad = md.where(kept < 0, 0.0, grad)
        return p - md.sign(grad) * size, {"step": state["step"] + 1, "prev": grad, "step_size": size}
