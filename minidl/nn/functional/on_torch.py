"""PyTorch: the primitives of minidl.nn.functional.gates, corrected where a value is infinite; and, in files by subject, its kernels of functions that
run eagerly on the CPU or in programs for it (minidl.nn.functional.kernels), and of the equations that such are.

Promises: who may look at values does, on the CPU; elsewhere the argument of a primitive is limited beforehand.
"""

from __future__ import annotations

import numpy as np
import torch

from minidl.backends.torch_kernels import finite
from minidl.backends.torch_linear import HALF, unseen
from minidl.nn.functional.on_torch_activations import (
    elu,
    glu,
    hardshrink,
    hardsigmoid,
    leaky_relu,
    log_softmax,
    logsigmoid,
    mish,
    prelu,
    softplus,
    softshrink,
)  # fmt: skip
from minidl.nn.functional.on_torch_common import FLOATS, kept
from minidl.nn.functional.on_torch_images import averages, bilinear, bordered, enlarged, folded, maxima, sampled, unfolded
from minidl.nn.functional.on_torch_layers import attended, by_batch, by_group, by_row, by_running, lstm, norm, one_of, rows, times
from minidl.nn.functional.on_torch_losses import alignments, huber, multi_margin, multilabel_margin, of_classes, of_logarithms
from minidl.nn.functional.on_torch_programs import by_kernel, by_kernel_dx

__all__ = [
    "alignments", "attended", "averages", "bilinear", "bordered", "by_batch", "by_group", "by_kernel", "by_kernel_dx", "by_row", "by_running", "elu",
    "enlarged", "folded", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardswish_dx", "huber", "kept", "leaky_relu", "log_softmax",
    "logsigmoid", "lstm", "maxima", "mish", "multi_margin", "multilabel_margin", "norm", "of_classes", "of_logarithms", "one_of", "prelu", "rows",
    "sampled", "silu", "silu_dx", "softplus", "softshrink", "times", "unfolded",
]  # fmt: skip
Tensor = torch.Tensor
_aten = torch.ops.aten
_FAR = 1e3
_silu, _silu_backward = torch._C._nn.silu, _aten.silu_backward.default


def silu(x: Tensor) -> Tensor:
    """torch's silu(-inf) is nan."""
    if x.is_cpu and not unseen(x):
        found = _silu(x)
        if finite(found):
            return found
    return _silu(x.clamp(min=-_FAR)).to(x.dtype)


def silu_dx(g: Tensor, x: Tensor) -> Tensor:
    """torch's derivative is nan at infinity."""
    if g.shape != x.shape:
        g, x = torch.broadcast_tensors(g, x)
    if x.is_cpu and not unseen(x):
        found = _silu_backward(g, x)
        if finite(found):
            return found
    return _silu_backward(g, x.clamp(-_FAR, _FAR))


_hardswish_backward = _aten.hardswish_backward.default


def hardswish(x: Tensor) -> Tensor:
    """torch's multiplies an infinity by 0, and what it has not divided by 6 yet may be one."""
    if x.is_cpu and not unseen(x) and x.dtype in FLOATS:
        found = torch._C._nn.hardswish(x)
        if finite(found):
            return found
    y = x.float() if x.dtype in HALF else x
    inside = torch.where(y.abs() >= 3.0, -0.0, y)
    return torch.where(y >= 3.0, y, inside * (inside + 3.0) / 6.0).to(x.dtype)


def hardswish_dx(g: Tensor, x: Tensor) -> Tensor:
    """torch's derivatives at the kinks are those from inside, the table's those from outside; at nan it has one of 1."""
    if g.shape != x.shape:
        g, x = torch.broadcast_tensors(g, x)
    if x.is_cpu and not unseen(x) and x.dtype in FLOATS:
        found = _hardswish_backward(g, x)
        if finite(found) and finite(x) and not any(np.equal(x.numpy(), kink).any() for kink in (-3.0, 3.0)):  # a tenth of the time of torch's
            return found
    h, y = (v.float() if x.dtype in HALF else v for v in (g, x))
    zero = torch.zeros((), dtype=y.dtype, device=y.device)
    return torch.where(y >= 3.0, h, torch.where(y <= -3.0, zero, h * (y / 3.0 + 0.5))).to(x.dtype)
