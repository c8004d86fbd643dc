"""Muon: momentum whose matrix is made orthogonal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl as md
from minidl.optim.optimizer import Optimizer, State, scalar


class Muon(Optimizer):
    """Steps along the momentum's nearest orthogonal matrix, nearly (K. Jordan et al., 2024), for the matrices of hidden layers; as torch.optim.Muon.

    The direction comes from ns_steps of a Newton-Schulz iteration with an odd polynomial of degree 5, in bfloat16 as PyTorch computes it;
    ns_dtype="float32" costs little where bfloat16 has no hardware. adjust_lr_fn: "original" (also None) scales a step by
    sqrt(max(1, rows / columns)), "match_rms_adamw" by 0.2 * sqrt(max(rows, columns)) (J. Liu et al., 2025). Train biases, embeddings and other
    tensors with AdamW. Raises ValueError for parameters that are no real matrices and for settings out of range.

    >>> opt = Muon(lr=0.1, weight_decay=0.0, ns_dtype="float32")
    >>> p, _ = opt.update(md.eye(2) * 5.0, opt.init(md.eye(2)), md.eye(2))
    >>> bool(md.all(md.abs(p - 0.9 * md.eye(2)) < 0.05))
    True
    """

    def __init__(
        self,
        params: Iterable[Any] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        ns_dtype: str = "bfloat16",
    ):
        abc = tuple(ns_coefficients) if isinstance(ns_coefficients, list) else ns_coefficients
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov, "ns_coefficients": abc}
        super().__init__(params, {**defaults, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn, "ns_dtype": ns_dtype})

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Muon: adjust_lr_fn is 'original' or 'match_rms_adamw', not {group['adjust_lr_fn']!r}")
        if not 0 <= group["ns_steps"] < 100:
            raise ValueError(f"Muon: ns_steps must be fewer than 100, got {group['ns_steps']}")
        if group["ns_dtype"] not in ("bfloat16", "float16", "float32", "float64"):
            raise ValueError(f"Muon: ns_dtype names a float dtype, not {group['ns_dtype']!r}")

    def _check_parameter(self, p: md.Tensor) -> None:
        super()._check_parameter(p)
        if p.ndim != 2 or p.dtype.is_complex:
            raise ValueError(f"Muon: only real matrices can be trained, not {p.dtype.short} of shape {p.shape}; give the others to AdamW")

    def _start(self, p: md.Tensor, group: dict[str, Any]) -> State:
        return {"momentum_buffer": md.zeros_like(p)}

    def _update(self, p: md.Tensor, grad: md.Tensor, group: dict[str, Any], state: State) -> tuple[md.Tensor, State]:
        lr, momentum = group["lr"], group["momentum"]
        buffer = state["momentum_buffer"] + (grad - state["momentum_buffer"]) * (1 - momentum)
        move = grad + (buffer - grad) * momentum if group["nesterov"] else buffer
        rows, columns = p.shape
        ratio = max(1.0, rows / max(columns, 1)) ** 0.5 if group["adjust_lr_fn"] != "match_rms_adamw" else 0.2 * max(rows, columns) ** 0.5
        move = orthogonal(move, group["ns_coefficients"], int(group["ns_steps"]), group["eps"], group["ns_dtype"]).to(p.dtype)
        return p * scalar(1 - lr * group["weight_decay"], p) - move * scalar(lr * ratio, p), {"momentum_buffer": buffer}


def orthogonal(x: md.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float, dtype: str) -> md.Tensor:
    """U S' Vᵀ with singular values near 1 for x = U S Vᵀ: X ← aX + (bA + cA²)X with A = XXᵀ, from x / max(|x|, eps). Returned in dtype."""
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]
    low = getattr(md, dtype)
    wide = md.float32 if low.itemsize < 4 else low  # sums of products are rounded once, as PyTorch's kernel does
    x = (x.mT if tall else x).to(low).to(wide)
    x = (x / md.maximum(md.sqrt(md.sum(md.square(x))).to(low).to(wide), eps)).to(low)
    for _ in range(steps):
        gram = x @ x.mT
        change = (gram.to(wide) * b + (gram @ gram).to(wide) * c).to(low)
        x = (x.to(wide) * a + (change @ x).to(wide)).to(low)
    return x.mT if tall else x
