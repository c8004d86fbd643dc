"""Normalisation as functions; all are names of minidl.nn.functional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl.nn.functional.kernels import by_kernel
from minidl.nn.functional.precision import own_dtype

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"]
#: Those that give back the dtype of their input under md.autocast, as PyTorch's do; the others give float32.
OWN_DTYPE = ("batch_norm", "instance_norm")


def _last_axes(name: str, input: md.Tensor, normalized_shape: Sequence[int], *params: md.Tensor | None) -> tuple[int, ...]:
    shape = tuple(normalized_shape)
    if input.shape[input.ndim - len(shape) :] != shape or any(p is not None and p.shape != shape for p in params):
        raise ValueError(f"{name}: the last axes of shape {input.shape}, and weight and bias, must be {shape}")
    return shape


def layer_norm(
    input: md.Tensor, normalized_shape: Sequence[int], weight: md.Tensor | None = None, bias: md.Tensor | None = None, eps: float = 1e-5
) -> md.Tensor:
    """Zero mean and unit (biased) variance over the last axes (J. L. Ba et al., arXiv 1607.06450). Raises ValueError for other last axes.

    >>> md.nn.functional.layer_norm(md.tensor([[1.0, 3.0]]), (2,), eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    shape = _last_axes("layer_norm", input, normalized_shape, weight, bias)
    return _layer_norm(input, weight, bias, len(shape), eps)


@by_kernel("by_row")
def _layer_norm(x: md.Tensor, weight: Any, bias: Any, /, axes: int, eps: float) -> md.Tensor:
    return md.layer_norm(x, weight, bias, axes=axes, eps=eps)


def rms_norm(input: md.Tensor, normalized_shape: Sequence[int], weight: md.Tensor | None = None, eps: float | None = None) -> md.Tensor:
    """input / sqrt(mean(input²) + eps) over the last axes, times weight (B. Zhang and R. Sennrich, NeurIPS 2019). eps: finfo(dtype).eps unless given.

    Half precision is computed in float32 and rounded once. Raises ValueError for other last axes.

    >>> [[round(v, 4) for v in row] for row in md.nn.functional.rms_norm(md.tensor([[1.0, 7.0]]), (2,), eps=0.0).tolist()]
    [[0.2, 1.4]]
    """
    shape = _last_axes("rms_norm", input, normalized_shape, weight)
    x = input.to(md.float32) if md.finfo(input.dtype).bits < 32 else input
    square = md.mean(x * x, axis=tuple(range(-len(shape), 0)), keepdims=True)
    out = x * md.rsqrt(square + float(md.finfo(input.dtype).eps if eps is None else eps))
    out = out if weight is None else out * weight
    return out.to(input.dtype) if x is not input else out


def _blended(running: md.Tensor, new: md.Tensor, momentum: Any) -> md.Tensor:
    return running * (1 - momentum) + new.to(running.dtype) * momentum


def _store(running: md.Tensor, value: md.Tensor) -> None:
    """In place, without the tape: which costs more than the store, so it is switched off where it could notice alone."""
    if running.requires_grad or value.requires_grad:
        with md.no_grad():
            running.assign(value)
    else:
        running.assign(value)


def _per_channel(name: str, input: md.Tensor, **given: md.Tensor | None) -> None:
    wanted = input.shape[1:2]
    for what, t in given.items():
        if t is not None and (not wanted or t.shape != wanted):
            raise ValueError(f"{name}: {what} of shape {t.shape} for input [N, C, ...] of shape {input.shape}; one number for each channel is wanted")


@own_dtype
def batch_norm(
    input: md.Tensor,
    running_mean: md.Tensor | None,
    running_var: md.Tensor | None,
    weight: md.Tensor | None = None,
    bias: md.Tensor | None = None,
    training: bool = False,
    momentum: float | md.Tensor = 0.1,
    eps: float = 1e-5,
) -> md.Tensor:
    """Normalise input [N, C, ...] per channel: by the batch in training (which updates the running statistics in place), by them otherwise.

    S. Ioffe and C. Szegedy, ICML 2015. Raises ValueError for one value per channel in training, without statistics otherwise, and for
    a negative eps.

    >>> md.nn.functional.batch_norm(md.tensor([[1.0], [3.0]]), None, None, training=True, eps=0.0).tolist()
    [[-1.0], [1.0]]
    """
    if eps < 0:
        raise ValueError(f"batch_norm: eps must not be negative, got {eps}")
    if not training and (running_mean is None or running_var is None):
        raise ValueError("batch_norm: running_mean and running_var are needed unless training=True")
    _per_channel("batch_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if training and not input.size:  # nothing says nothing of the distribution
        shape = (1, input.shape[1]) + (1,) * (input.ndim - 2)
        return _scaled(input, md.ones(shape, dtype=input.dtype, backend=input.backend, device=input.device), weight, bias, eps)
    if training:
        n = input.size // max(input.shape[1], 1)
        if n == 1:
            raise ValueError(f"batch_norm: more than one value per channel is needed in training, got shape {input.shape}")
        known = running_mean is not None and running_var is not None
        given = (running_mean, running_var) if known else (None, None)
        number = isinstance(momentum, (int, float))  # and no Tensor, nor a number that changes from call to call of a traced function
        out, *new = _by_batch(input, weight, bias, *given, None if number else momentum, eps, momentum if number else None)
        if known:
            for running, value in zip(given, new, strict=True):
                _store(running, value)  # type: ignore[arg-type]
        return out
    assert running_mean is not None and running_var is not None
    return _by_running(input, running_mean, running_var, weight, bias, eps)


@by_kernel("by_running")
@md.extend.fused
def _by_running(x: md.Tensor, mean: md.Tensor, var: md.Tensor, weight: Any, bias: Any, /, eps: float) -> md.Tensor:
    shape = (1, x.shape[1]) + (1,) * (x.ndim - 2)
    return _scaled(x - mean.reshape(shape), var.reshape(shape), weight, bias, eps)


@by_kernel("by_batch")
@md.extend.fused
def _by_batch(
    x: md.Tensor, weight: Any, bias: Any, running_mean: Any, running_var: Any, rate: Any, /, eps: float, momentum: Any
) -> tuple[Any, ...]:
    """x normalised by itself, and the running statistics after it."""
    axes, n = (0, *range(2, x.ndim)), x.size // x.shape[1]
    mean = md.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    var = md.mean(md.square(centred), axis=axes, keepdims=True)
    out, rate = _scaled(centred, var, weight, bias, eps), momentum if rate is None else rate
    if running_mean is None:
        return out, None, None
    new = mean.detach().reshape((-1,)), var.detach().reshape((-1,)) * (n / (n - 1))
    return out, *(_blended(old.detach(), value, rate) for old, value in zip((running_mean, running_var), new, strict=True))


def _scaled(centred: md.Tensor, var: md.Tensor, weight: Any, bias: Any, eps: float) -> md.Tensor:
    scale = md.rsqrt(var + eps)
    out = centred * (scale if weight is None else scale * weight.reshape(var.shape))
    return out if bias is None else out + bias.reshape(var.shape)


@own_dtype
def instance_norm(
    input: md.Tensor,
    running_mean: md.Tensor | None = None,
    running_var: md.Tensor | None = None,
    weight: md.Tensor | None = None,
    bias: md.Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> md.Tensor:
    """Normalise each channel of each example of input [N, C, ...] by itself, or by the running statistics where use_input_stats is False.

    Running statistics, where given, are updated in place by the mean over the examples (D. Ulyanov et al., arXiv 1607.08022). Raises ValueError for
    one value per channel, and without statistics where they are needed.

    >>> md.nn.functional.instance_norm(md.tensor([[[1.0, 3.0]]]), eps=0.0).tolist()
    [[[-1.0, 1.0]]]
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    _per_channel("instance_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    n, c, *spatial = input.shape
    flat = input.reshape((1, n * c, *spatial))
    if math.prod(spatial) == 1:
        raise ValueError(f"instance_norm: more than one value per channel is needed in training, got shape {input.shape}")
    stats = (None, None)
    if running_mean is not None and running_var is not None:
        stats = (md.zeros_like(flat[0, :, *(0,) * len(spatial)].detach()), md.ones_like(flat[0, :, *(0,) * len(spatial)].detach()))
    out = batch_norm(flat, *stats, None, None, True, 1.0, eps).reshape(input.shape)
    if running_mean is not None and running_var is not None:
        with md.no_grad():
            for running, one in zip((running_mean, running_var), stats, strict=True):
                assert one is not None
                running.assign(_blended(running, md.mean(one.reshape((n, c)), axis=0), momentum))
    shape = (1, c) + (1,) * len(spatial)
    out = out if weight is None else out * weight.reshape(shape)
    return out if bias is None else out + bias.reshape(shape)


def group_norm(
    input: md.Tensor, num_groups: int, weight: md.Tensor | None = None, bias: md.Tensor | None = None, eps: float = 1e-5
) -> md.Tensor:
    """Zero mean and unit variance over each of num_groups groups of the channels of input [N, C, ...]; weight and bias are [C].

    Y. Wu and K. He, ECCV 2018. Raises ValueError where the groups do not divide the channels.

    >>> md.nn.functional.group_norm(md.tensor([[1.0, 3.0, 2.0, 6.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise ValueError(f"group_norm: the channels of shape {input.shape} cannot be split into {num_groups} groups")
    _per_channel("group_norm", input, weight=weight, bias=bias)
    if input.size == num_groups:
        raise ValueError(f"group_norm: more than one value per group is needed, got shape {input.shape} and {num_groups} groups")
    return _by_group(input, weight, bias, num_groups, eps)


@by_kernel("by_group")
@md.extend.fused
def _by_group(x: md.Tensor, weight: Any, bias: Any, /, groups: int, eps: float) -> md.Tensor:
    n, c = x.shape[:2]
    out = md.layer_norm(x.reshape((n, groups, x.size // max(n * groups, 1))), eps=eps).reshape(x.shape)
    shape = (1, c) + (1,) * (x.ndim - 2)
    out = out if weight is None else out * weight.reshape(shape)
    return out if bias is None else out + bias.reshape(shape)


def local_response_norm(input: md.Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> md.Tensor:
    """input / (k + alpha mean(input² over `size` neighbouring channels))^beta for input [N, C, ...] (A. Krizhevsky et al., NeurIPS 2012).

    Raises ValueError for fewer than three axes.

    >>> md.nn.functional.local_response_norm(md.zeros((1, 3, 2)), 2).shape
    (1, 3, 2)
    """
    if input.ndim < 3:
        raise ValueError(f"local_response_norm: expected [N, C, ...], got shape {input.shape}")
    rows = (input * input).reshape((input.shape[0], 1, input.shape[1], math.prod(input.shape[2:])))
    if not input.size:
        return input * 1.0
    rows = md.pad(rows, ((0, 0), (0, 0), (size // 2, (size - 1) // 2), (0, 0)))
    mean = md.avg_pool(rows, (size, 1), stride=1).reshape(input.shape)
    return input / md.pow(mean * alpha + k, beta)
