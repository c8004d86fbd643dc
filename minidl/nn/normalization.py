"""Normalising layers: BatchNorm1d, 2d, 3d with running statistics, LayerNorm."""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.linear import blank
from minidl.nn.module import Module


class _BatchNorm(Module):
    """Per channel: zero mean and unit variance over the batch in training, by running statistics in evaluation; then weight and bias.

    The running statistics are buffers that a training pass updates in place, with the unbiased variance; momentum=None averages over all
    batches so far (S. Ioffe and C. Szegedy, ICML 2015).
    """

    ranks: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        for name in ("weight", "bias"):
            self.register_parameter(name, blank(num_features, dtype=dtype, device=device) if affine else None)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, blank(num_features, dtype=dtype, device=device).detach() if track_running_stats else None)
        self.register_buffer("num_batches_tracked", md.asarray(0, device=device) if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batch seen."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.constant_(self.num_batches_tracked, 0)

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, statistics forgotten."""
        self.reset_running_stats()
        if self.affine:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, x: md.Tensor) -> md.Tensor:
        if x.ndim not in self.ranks:
            raise ValueError(f"{type(self).__name__}: expected {' or '.join(f'{r}-d' for r in self.ranks)} input, got shape {x.shape}")
        momentum: Any = self.momentum
        if self.training and self.track_running_stats:
            with md.no_grad():
                self.num_batches_tracked.assign(self.num_batches_tracked + 1)
            if momentum is None:
                momentum = 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)
        use_batch = self.training or self.running_mean is None
        update = self.training and self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if update or not use_batch else (None, None)
        return F.batch_norm(x, mean, var, self.weight, self.bias, use_batch, momentum, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, track_running_stats={self.track_running_stats}"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of [N, C] or [N, C, L]."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of [N, C, H, W].

    >>> BatchNorm2d(3)(md.ones((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of [N, C, D, H, W]."""

    ranks = (5,)


class LayerNorm(Module):
    """Zero mean and unit variance over the last axes of each example; then weight and bias of their shape (J. L. Ba et al., 2016)."""

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...] | list[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        for name, wanted in (("weight", True), ("bias", bias)):
            self.register_parameter(name, blank(*self.normalized_shape, dtype=dtype, device=device) if elementwise_affine and wanted else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: md.Tensor) -> md.Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
