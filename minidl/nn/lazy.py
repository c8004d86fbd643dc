"""Layers that learn the width of their input from the first one: LazyLinear, lazy convolutions and lazy norms.

Promises: a lazy layer is the plain one from its first call on, of the same class, and draws then what the plain one would draw when it is made; until
then its parameters are nn.UninitializedParameter, which optimizers, state_dict and functions refuse. A first input that does not fit changes
nothing, nor does a first call inside md.jit, which is refused. load_state_dict gives them the shapes of the state. Optimizers are made after the
first call, because the parameters are new objects then.
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import minidl as md
from minidl.nn import init
from minidl.nn.convolution import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from minidl.nn.functional.convolution import Size
from minidl.nn.linear import Linear
from minidl.nn.module import Module
from minidl.nn.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from minidl.nn.parameter import Parameter, UninitializedBuffer, UninitializedParameter, uninitialized

__all__ = [
    "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d", "LazyConv3d", "LazyConvTranspose1d", "LazyConvTranspose2d",
    "LazyConvTranspose3d", "LazyInstanceNorm1d", "LazyInstanceNorm2d", "LazyInstanceNorm3d", "LazyLinear",
]  # fmt: skip
_STATE = ("_parameters", "_buffers", "_modules", "_transient", "training", "_hooks", "_state_hooks")


def _tracing() -> bool:
    """Whether a new tensor would be a symbol of a program."""
    return md.zeros(()).xp is not md.extend.home()


class _Lazy(Module):
    """What lazy layers share; the plain layer is the class behind this one in the order of bases, and its first argument is what is not known."""

    cls_to_become: ClassVar[Any] = None
    axis: ClassVar[int] = -1  # of the input: how wide it is says the size
    ranks: ClassVar[tuple[int, ...]] = ()  # of inputs; () for one and more

    def _wait(self, **settings: Any) -> None:
        """Start as the plain layer of width 0, whose parameters are still without a shape."""
        plain = self.cls_to_become
        with init.skipped():
            plain.__init__(self, 0, **settings)
        place = {"device": settings["device"], "dtype": settings["dtype"]}
        self._settings = {k: v for k, v in settings.items() if k not in place}
        for name, old in self._parameters.items():
            if old is not None:
                self._parameters[name] = UninitializedParameter(**place, owner=f"{type(self).__name__}.{name}")
        for name, old in self._buffers.items():
            if old is not None and old.ndim:
                self._buffers[name] = UninitializedBuffer(**place, owner=f"{type(self).__name__}.{name}")

    def has_uninitialized_params(self) -> bool:
        """Whether some parameter or buffer has no shape yet."""
        return any(uninitialized(v) for holder in (self._parameters, self._buffers) for v in holder.values())

    def initialize_parameters(self, input: md.Tensor) -> None:
        """Become the plain layer for inputs like this one; what was loaded before stays. Raises ValueError for an input of other axes, and for one
        that does not fit what was loaded; RuntimeError inside md.jit and md.trace, whose programs can make no parameters."""
        name, plain = type(self).__name__, self.cls_to_become
        if _tracing():
            raise RuntimeError(f"{name}: the first call makes the parameters, which a traced program cannot; call the module once outside md.jit")
        if (self.ranks and input.ndim not in self.ranks) or input.ndim < 1:
            wanted = " or ".join(f"{r}-d" for r in self.ranks) or "1-d or more"
            raise ValueError(f"{name}: expected {wanted} input, got shape {input.shape}")
        waiting = [v for v in (*self._parameters.values(), *self._buffers.values()) if uninitialized(v)]
        place = {"device": waiting[0].device, "dtype": waiting[0].dtype} if waiting else {}
        drawing = contextlib.nullcontext() if waiting else init.skipped()
        with md.eagerly(), md.use_backend(waiting[0].backend if waiting else input.backend), drawing:
            made = plain(input.shape[self.axis], **self._settings, **place)
        if waiting:
            made.to(waiting[0].dtype)
        holders = ((self._parameters, made._parameters), (self._buffers, made._buffers))
        for mine, new in holders:
            for key, old in mine.items():
                if old is not None and not uninitialized(old) and old.shape != new[key].shape:
                    raise ValueError(f"{name}: {key} of shape {old.shape} was loaded, but an input of shape {input.shape} wants {new[key].shape}")
        for mine, new in holders:
            for key, old in mine.items():
                if uninitialized(old):
                    mine[key] = old.successor(new[key]) if isinstance(old, Parameter) else new[key]
        for key, value in made.__dict__.items():
            if key not in _STATE:
                object.__setattr__(self, key, value)
        del self._settings
        object.__setattr__(self, "__class__", plain)

    def forward(self, input: md.Tensor, *args: Any, **kwargs: Any) -> md.Tensor:
        """The first call: the plain layer's, after becoming it."""
        self.initialize_parameters(input)
        return self.forward(input, *args, **kwargs)


class LazyLinear(_Lazy, Linear):
    """Linear, whose in_features is the last axis of the first input.

    >>> layer = LazyLinear(2)
    >>> layer(md.ones((4, 3))).shape, layer
    ((4, 2), Linear(in_features=3, out_features=2, bias=True))
    """

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: str | None = None, dtype: Any = None):
        self._wait(out_features=out_features, bias=bias, device=device, dtype=dtype)


# ---- convolutions ---------------------------------------------------------------------------------------------------------------------
class _LazyConv(_Lazy):
    def __init__(
        self,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
    ):
        self._wait(
            out_channels=out_channels, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias,
            padding_mode=padding_mode, device=device, dtype=dtype,
        )  # fmt: skip


class LazyConv1d(_LazyConv, Conv1d):
    """Conv1d, whose in_channels is that of the first input.

    >>> LazyConv1d(4, 3)(md.ones((2, 3, 8))).shape
    (2, 4, 6)
    """

    cls_to_become, axis, ranks = Conv1d, -2, (2, 3)


class LazyConv2d(_LazyConv, Conv2d):
    """Conv2d, whose in_channels is that of the first input.

    >>> net = md.nn.Sequential(LazyConv2d(4, 3), md.nn.Flatten(), md.nn.LazyLinear(10))
    >>> net(md.ones((2, 3, 8, 8))).shape, net[0].in_channels, net[2].in_features
    ((2, 10), 3, 144)
    """

    cls_to_become, axis, ranks = Conv2d, -3, (3, 4)


class LazyConv3d(_LazyConv, Conv3d):
    """Conv3d, whose in_channels is that of the first input.

    >>> LazyConv3d(4, 2)(md.ones((1, 3, 4, 4, 4))).shape
    (1, 4, 3, 3, 3)
    """

    cls_to_become, axis, ranks = Conv3d, -4, (4, 5)


class _LazyConvTranspose(_Lazy):
    def __init__(
        self,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: str | None = None,
        dtype: Any = None,
    ):
        self._wait(
            out_channels=out_channels, kernel_size=kernel_size, stride=stride, padding=padding, output_padding=output_padding, groups=groups,
            bias=bias, dilation=dilation, padding_mode=padding_mode, device=device, dtype=dtype,
        )  # fmt: skip


class LazyConvTranspose1d(_LazyConvTranspose, ConvTranspose1d):
    """ConvTranspose1d, whose in_channels is that of the first input.

    >>> LazyConvTranspose1d(4, 2, stride=2)(md.ones((2, 3, 8))).shape
    (2, 4, 16)
    """

    cls_to_become, axis, ranks = ConvTranspose1d, -2, (2, 3)


class LazyConvTranspose2d(_LazyConvTranspose, ConvTranspose2d):
    """ConvTranspose2d, whose in_channels is that of the first input.

    >>> LazyConvTranspose2d(4, 2, stride=2)(md.ones((2, 3, 4, 4))).shape
    (2, 4, 8, 8)
    """

    cls_to_become, axis, ranks = ConvTranspose2d, -3, (3, 4)


class LazyConvTranspose3d(_LazyConvTranspose, ConvTranspose3d):
    """ConvTranspose3d, whose in_channels is that of the first input.

    >>> LazyConvTranspose3d(4, 2, stride=2)(md.ones((1, 3, 2, 2, 2))).shape
    (1, 4, 4, 4, 4)
    """

    cls_to_become, axis, ranks = ConvTranspose3d, -4, (4, 5)


# ---- norms ----------------------------------------------------------------------------------------------------------------------------
class _LazyNorm(_Lazy):
    axis = 1

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: str | None = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        self._wait(
            eps=eps, momentum=momentum, affine=affine, track_running_stats=track_running_stats, device=device, dtype=dtype, bias=bias
        )


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """BatchNorm1d, whose num_features is that of the first input.

    >>> LazyBatchNorm1d()(md.ones((2, 3))).shape
    (2, 3)
    """

    cls_to_become, ranks = BatchNorm1d, (2, 3)


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """BatchNorm2d, whose num_features is that of the first input.

    >>> LazyBatchNorm2d()(md.ones((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    cls_to_become, ranks = BatchNorm2d, (4,)


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """BatchNorm3d, whose num_features is that of the first input.

    >>> LazyBatchNorm3d()(md.ones((2, 3, 2, 2, 2))).shape
    (2, 3, 2, 2, 2)
    """

    cls_to_become, ranks = BatchNorm3d, (5,)


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """InstanceNorm1d, whose num_features is that of the first input; affine and with running statistics unless told otherwise.

    >>> LazyInstanceNorm1d()(md.ones((2, 3, 4))).shape
    (2, 3, 4)
    """

    cls_to_become, axis, ranks = InstanceNorm1d, -2, (2, 3)


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """InstanceNorm2d, whose num_features is that of the first input; affine and with running statistics unless told otherwise.

    >>> LazyInstanceNorm2d()(md.ones((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """

    cls_to_become, axis, ranks = InstanceNorm2d, -3, (3, 4)


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """InstanceNorm3d, whose num_features is that of the first input; affine and with running statistics unless told otherwise.

    >>> LazyInstanceNorm3d()(md.ones((1, 3, 2, 2, 2))).shape
    (1, 3, 2, 2, 2)
    """

    cls_to_become, axis, ranks = InstanceNorm3d, -4, (4, 5)
