"""Dtype policies: in which dtypes a module keeps its parameters, computes, and returns.

As jmp's policies (DeepMind, 2021) and Keras' mixed_precision.Policy; built from autocast and forward hooks, so it holds for a model or one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import minidl as md

_HALF = ("float16", "bfloat16")


@dataclass(frozen=True)
class Policy:
    """param_dtype: of the parameters. compute_dtype: of products, convolutions and attention, as under md.autocast; float32 or float64 switches
    autocast off inside and takes half inputs up. output_dtype: of the float tensors that come out; None leaves them.

    `of` raises ValueError for a text that names no policy.

    >>> Policy.of("mixed_bfloat16")
    Policy(param_dtype=minidl.float32, compute_dtype=minidl.bfloat16, output_dtype=None)
    >>> Policy.of("params=float32,compute=float16,output=float32").compute_dtype
    minidl.float16
    """

    param_dtype: Any = md.float32
    compute_dtype: Any = md.float32
    output_dtype: Any = None

    @staticmethod
    def of(text: str) -> Policy:
        """A policy from its name: "float32", "bfloat16" (all three), "mixed_bfloat16", "mixed_float16", or "params=...,compute=...,output=...".

        Raises ValueError for another text.
        """
        if "=" in text:
            words = {"params": "param_dtype", "compute": "compute_dtype", "output": "output_dtype"}
            pairs = [part.partition("=") for part in text.replace(" ", "").split(",")]
            if any(name not in words or _float(value) is None for name, _, value in pairs):
                raise ValueError(f"Policy: wanted 'params=...,compute=...,output=...' with float dtypes, got {text!r}")
            return Policy(**{words[name]: _float(value) for name, _, value in pairs})
        dtype = _float(text.removeprefix("mixed_"))
        if dtype is None or (text.startswith("mixed_") and dtype.name not in _HALF):
            raise ValueError(f"Policy: no policy is called {text!r}; there are float32, float64, bfloat16, float16, mixed_bfloat16 and mixed_float16")
        return Policy(md.float32, dtype) if text.startswith("mixed_") else Policy(dtype, dtype, dtype)


def _float(name: str) -> md.DType | None:
    """The float dtype of a name, None if it is that of something else."""
    found = getattr(md, name, None)
    return found if isinstance(found, md.DType) and found.is_float else None


def _cast(tree: Any, dtype: Any) -> Any:
    return md.tree.map(lambda x: x.to(dtype) if isinstance(x, md.Tensor) and x.dtype.is_float else x, tree)


class _Applied:
    """The hooks of one module: a block around each forward pass."""

    def __init__(self, policy: Policy):
        self.policy = policy
        half = policy.compute_dtype.name in _HALF
        self.block = md.autocast(dtype=policy.compute_dtype) if half else md.autocast(enabled=False)

    def before(self, module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Casts what comes in, and begins the block."""
        args, kwargs = _cast((args, kwargs), self.policy.compute_dtype)
        self.block.__enter__()
        return args, kwargs

    def after(self, module: Any, args: tuple, output: Any) -> Any:
        """Ends the block, and casts what goes out."""
        self.block.__exit__(None, None, None)
        return output if self.policy.output_dtype is None or output is None else _cast(output, self.policy.output_dtype)


def apply_policy(module: Any, policy: Policy | str) -> Any:
    """Let a module follow a policy: its parameters take the dtype now (make the optimizer afterwards), its forward passes from now on.

    policy: a Policy or the name of one. The innermost policy decides, so a layer may have another than its model. Returns a function that takes the
    policy off (the parameters keep their dtype).

    >>> from minidl import nn
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> off = apply_policy(net, Policy(compute_dtype=md.bfloat16, output_dtype=md.float32))
    >>> net(md.ones((1, 2))).dtype, net[0](md.ones((1, 2))).dtype, net[0].weight.dtype
    (minidl.float32, minidl.float32, minidl.float32)
    """
    policy = Policy.of(policy) if isinstance(policy, str) else policy
    if any(p.dtype.is_float and p.dtype is not policy.param_dtype for p in module.parameters()):
        module.to(dtype=policy.param_dtype)
    applied = _Applied(policy)
    handles = [
        module.register_forward_pre_hook(applied.before, prepend=True, with_kwargs=True),
        module.register_forward_hook(applied.after, always_call=True),
    ]

    def off() -> None:
        for handle in handles:
            handle.remove()

    return off
