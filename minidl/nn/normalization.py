"""Normalising layers: by batch (with running statistics), by example and channel, by groups of channels, and over the last axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import blank

__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "LayerNorm",
    "LocalResponseNorm", "RMSNorm",
]  # fmt: skip


# ---- with running statistics ----------------------------------------------------------------------------------------------------------
class _Running(Module):
    """Weight and bias of each channel, and running statistics as buffers."""

    def _start(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool, device: str | None, dtype: Any,
        bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        for name, wanted in (("weight", True), ("bias", bias)):
            self.register_parameter(name, blank(num_features, dtype=dtype, device=device) if affine and wanted else None)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, blank(num_features, dtype=dtype, device=device).detach() if track_running_stats else None)
        self.register_buffer("num_batches_tracked", md.asarray(0, device=device) if track_running_stats else None)
        self.reset_parameters()

    def _upgrade(self, state: dict[str, Any], prefix: str) -> None:
        """States of PyTorch before 0.4.1, among them torchvision's, do not count batches."""
        if self.num_batches_tracked is not None and prefix + "running_mean" in state:
            state.setdefault(prefix + "num_batches_tracked", self.num_batches_tracked.detach())

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batch seen."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.constant_(self.num_batches_tracked, 0)

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, statistics forgotten."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, track_running_stats={self.track_running_stats}"


class _BatchNorm(_Running):
    """Per channel: zero mean and unit variance over the batch in training, by running statistics in evaluation; then weight and bias.

    The running statistics are buffers that a training pass updates in place, with the unbiased variance; momentum=None averages over all
    batches so far (S. Ioffe and C. Szegedy, ICML 2015).
    """

    ranks: ClassVar[tuple[int, ...]] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        self._start(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: md.Tensor) -> md.Tensor:
        if input.ndim not in self.ranks:
            raise ValueError(f"{type(self).__name__}: expected {' or '.join(f'{r}-d' for r in self.ranks)} input, got shape {input.shape}")
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        mean, var = self.running_mean, self.running_var
        update = self.training and self.track_running_stats
        if update:
            batches = self.num_batches_tracked
            batches.assign(batches + 1)  # of integers, which the tape does not notice
            if self.momentum is None:
                momentum = 1.0 / batches.to(mean.dtype)
        use_batch = self.training or mean is None
        if use_batch and not update:
            mean = var = None
        return F.batch_norm(input, mean, var, self.weight, self.bias, use_batch, momentum, self.eps)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of [N, C] or [N, C, L].

    >>> md.nn.BatchNorm1d(1, eps=0.0)(md.tensor([[1.0], [3.0]])).tolist()
    [[-1.0], [1.0]]
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of [N, C, H, W].

    >>> BatchNorm2d(3)(md.ones((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of [N, C, D, H, W].

    >>> md.nn.BatchNorm3d(2)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 4, 4, 4)
    """

    ranks = (5,)


class _InstanceNorm(_Running):
    """Each channel of each example by itself: zero mean and unit variance, then weight and bias if affine (D. Ulyanov et al., arXiv 1607.08022).

    With track_running_stats, evaluation uses the running statistics that training updates.
    """

    n: ClassVar[int] = 0

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        self._start(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: md.Tensor) -> md.Tensor:
        single = input.ndim == self.n + 1
        if input.ndim not in (self.n + 1, self.n + 2) or (self.affine and input.shape[0 if single else 1] != self.num_features):
            raise ValueError(f"{type(self).__name__}: expected [N, {self.num_features}, and {self.n} more axes], or no N, got {input.shape}")
        momentum = 0.0 if self.momentum is None else self.momentum
        own = self.training or not self.track_running_stats
        x = input[None] if single else input
        out = F.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias, own, momentum, self.eps)
        return out[0] if single else out


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of [N, C, L] (or [C, L]).

    >>> md.nn.InstanceNorm1d(1, eps=0.0)(md.tensor([[[1.0, 3.0]]])).tolist()
    [[[-1.0, 1.0]]]
    """

    n = 1


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of [N, C, H, W] (or [C, H, W]).

    >>> InstanceNorm2d(3)(md.ones((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    n = 2


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of [N, C, D, H, W] (or [C, D, H, W]).

    >>> md.nn.InstanceNorm3d(2)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 4, 4, 4)
    """

    n = 3


# ---- without --------------------------------------------------------------------------------------------------------------------------
class GroupNorm(Module):
    """Zero mean and unit variance over each of num_groups groups of channels of [N, C, ...]; then weight and bias [C] (Y. Wu, K. He, ECCV 2018).

    Raises ValueError where the groups do not divide the channels.

    >>> md.nn.GroupNorm(2, 4, eps=0.0)(md.tensor([[1.0, 3.0, 2.0, 6.0]])).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: {num_channels} channels cannot be split into {num_groups} groups")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        for name, wanted in (("weight", True), ("bias", bias)):
            self.register_parameter(name, blank(num_channels, dtype=dtype, device=device) if affine and wanted else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LayerNorm(Module):
    """Zero mean and unit variance over the last axes of each example; then weight and bias of their shape (J. L. Ba et al., 2016).

    >>> md.nn.LayerNorm(2, eps=0.0)(md.tensor([[1.0, 3.0]])).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
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

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"


class RMSNorm(Module):
    """x / sqrt(mean(x²) + eps) over the last axes, times weight (B. Zhang and R. Sennrich, NeurIPS 2019). eps: finfo(dtype).eps unless given.

    >>> [[round(v, 4) for v in row] for row in md.nn.RMSNorm(2, eps=0.0)(md.tensor([[1.0, 7.0]])).tolist()]
    [[0.2, 1.4]]
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.register_parameter("weight", blank(*self.normalized_shape, dtype=dtype, device=device) if elementwise_affine else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """x / (k + alpha mean(x² over `size` neighbouring channels))^beta for [N, C, ...] (A. Krizhevsky et al., NeurIPS 2012).

    >>> md.nn.LocalResponseNorm(2)(md.zeros((1, 3, 2))).shape
    (1, 3, 2)
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
