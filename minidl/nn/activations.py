"""Activation layers: each a function of nn.functional with its constants as attributes."""

from __future__ import annotations

from typing import Any, ClassVar

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import blank

__all__ = [
    "CELU", "ELU", "GELU", "GLU", "SELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "LogSoftmax", "Mish",
    "PReLU", "RReLU", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Softmax", "Softmax2d", "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh",
    "Tanhshrink", "Threshold",
]  # fmt: skip


class Activation(Module):
    """A function of one tensor; what the constructor keeps are its further arguments, in the order of the print."""

    function: ClassVar[Any] = None

    def keep(self, **settings: Any) -> None:
        """Start the module with these attributes, which are passed on at each call."""
        super().__init__()
        self._settings = tuple(settings)
        for name, value in settings.items():
            setattr(self, name, value)

    def __init__(self) -> None:
        self.keep()

    def forward(self, input: md.Tensor) -> md.Tensor:
        return type(self).function(input, **{n: getattr(self, n) for n in self._settings})

    def extra_repr(self) -> str:
        pairs = ((n, getattr(self, n)) for n in self._settings)
        return ", ".join(f"{n}={v!r}" for n, v in pairs if n != "inplace" or v)


class _InPlace(Activation):
    def __init__(self, inplace: bool = False):
        self.keep(inplace=inplace)


class ReLU(_InPlace):
    """max(x, 0) element by element, with derivative 0 at 0.

    >>> ReLU()(md.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    function = staticmethod(F.relu)


class ReLU6(_InPlace):
    """x limited to [0, 6] (A. Krizhevsky, 2010).

    >>> md.nn.ReLU6()(md.tensor([-1.0, 3.0, 8.0])).tolist()
    [0.0, 3.0, 6.0]
    """

    function = staticmethod(F.relu6)


class SELU(_InPlace):
    """The self-normalising elu (G. Klambauer et al., NeurIPS 2017).

    >>> round(md.nn.SELU()(md.tensor(1.0)).item(), 4)
    1.0507
    """

    function = staticmethod(F.selu)


class SiLU(_InPlace):
    """x sigmoid(x), also known as swish (S. Elfwing et al., Neural Networks 107, 2018).

    >>> round(md.nn.SiLU()(md.tensor(1.0)).item(), 4)
    0.7311
    """

    function = staticmethod(F.silu)


class Mish(_InPlace):
    """x tanh(softplus(x)) (D. Misra, BMVC 2020).

    >>> round(md.nn.Mish()(md.tensor(1.0)).item(), 4)
    0.8651
    """

    function = staticmethod(F.mish)


class Hardsigmoid(_InPlace):
    """x / 6 + 1/2 limited to [0, 1].

    >>> md.nn.Hardsigmoid()(md.tensor([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    function = staticmethod(F.hardsigmoid)


class Hardswish(_InPlace):
    """x hardsigmoid(x) (A. Howard et al., ICCV 2019).

    >>> md.nn.Hardswish()(md.tensor([0.0, 4.0])).tolist()
    [0.0, 4.0]
    """

    function = staticmethod(F.hardswish)


class LeakyReLU(Activation):
    """x above 0, negative_slope x elsewhere.

    >>> md.nn.LeakyReLU(0.5)(md.tensor([-1.0, 2.0])).tolist()
    [-0.5, 2.0]
    """

    function = staticmethod(F.leaky_relu)

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False):
        self.keep(negative_slope=negative_slope, inplace=inplace)


class ELU(Activation):
    """x above 0, alpha (exp(x) - 1) elsewhere (D. Clevert et al., ICLR 2016).

    >>> md.nn.ELU()(md.tensor([0.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    function = staticmethod(F.elu)

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        self.keep(alpha=alpha, inplace=inplace)


class CELU(Activation):
    """x above 0, alpha (exp(x / alpha) - 1) elsewhere (J. Barron, arXiv 1704.07483).

    >>> md.nn.CELU()(md.tensor([0.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    function = staticmethod(F.celu)

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        self.keep(alpha=alpha, inplace=inplace)


class GELU(Activation):
    """x times its normal distribution function; approximate="tanh" is the usual approximation (D. Hendrycks and K. Gimpel, arXiv 1606.08415).

    >>> [round(v, 4) for v in md.nn.GELU()(md.tensor([-1.0, 0.0, 2.0])).tolist()]
    [-0.1587, 0.0, 1.9545]
    """

    function = staticmethod(F.gelu)

    def __init__(self, approximate: str = "none"):
        self.keep(approximate=approximate)


class Tanh(Activation):
    """The hyperbolic tangent.

    >>> md.nn.Tanh()(md.tensor(0.0)).item()
    0.0
    """

    function = staticmethod(F.tanh)


class Sigmoid(Activation):
    """1 / (1 + exp(-x)).

    >>> md.nn.Sigmoid()(md.tensor(0.0)).item()
    0.5
    """

    function = staticmethod(F.sigmoid)


class LogSigmoid(Activation):
    """log(sigmoid(x)).

    >>> round(md.nn.LogSigmoid()(md.tensor(0.0)).item(), 4)
    -0.6931
    """

    function = staticmethod(F.logsigmoid)


class Softsign(Activation):
    """x / (1 + |x|).

    >>> md.nn.Softsign()(md.tensor([-1.0, 3.0])).tolist()
    [-0.5, 0.75]
    """

    function = staticmethod(F.softsign)


class Tanhshrink(Activation):
    """x - tanh(x).

    >>> md.nn.Tanhshrink()(md.tensor(0.0)).item()
    0.0
    """

    function = staticmethod(F.tanhshrink)


class Softplus(Activation):
    """log(1 + exp(beta x)) / beta, and x itself where beta x is above the threshold.

    >>> round(md.nn.Softplus()(md.tensor(0.0)).item(), 4)
    0.6931
    """

    function = staticmethod(F.softplus)

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        self.keep(beta=beta, threshold=threshold)


class Hardtanh(Activation):
    """x limited to [min_val, max_val]. Raises ValueError unless min_val is below max_val.

    >>> md.nn.Hardtanh()(md.tensor([-1.0, 0.0, 2.0])).tolist()
    [-1.0, 0.0, 1.0]
    """

    function = staticmethod(F.hardtanh)

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        if not min_val < max_val:
            raise ValueError(f"Hardtanh: min_val {min_val} must be below max_val {max_val}")
        self.keep(min_val=min_val, max_val=max_val, inplace=inplace)


class Threshold(Activation):
    """x above the threshold, value elsewhere.

    >>> md.nn.Threshold(1.0, -5.0)(md.tensor([-1.0, 0.0, 2.0])).tolist()
    [-5.0, -5.0, 2.0]
    """

    function = staticmethod(F.threshold)

    def __init__(self, threshold: float, value: float, inplace: bool = False):
        self.keep(threshold=threshold, value=value, inplace=inplace)


class _Shrink(Activation):
    def __init__(self, lambd: float = 0.5):
        self.keep(lambd=lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardshrink(_Shrink):
    """0 within lambd of 0, x elsewhere.

    >>> md.nn.Hardshrink()(md.tensor([-1.0, 0.0, 2.0])).tolist()
    [-1.0, 0.0, 2.0]
    """

    function = staticmethod(F.hardshrink)


class Softshrink(_Shrink):
    """x moved towards 0 by lambd, and 0 within lambd of 0.

    >>> md.nn.Softshrink()(md.tensor([-1.0, 0.0, 2.0])).tolist()
    [-0.5, 0.0, 1.5]
    """

    function = staticmethod(F.softshrink)


class RReLU(Activation):
    """Leaky ReLU with slopes drawn from [lower, upper) in training and their mean in evaluation (B. Xu et al., arXiv 1505.00853).

    >>> md.nn.RReLU()(md.tensor([2.0])).tolist()
    [2.0]
    """

    function = staticmethod(F.rrelu)

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False):
        self.keep(lower=lower, upper=upper, inplace=inplace)

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training)


class PReLU(Module):
    """Leaky ReLU with a learned slope, one for all channels of [N, C, ...] or one for each (K. He et al., ICCV 2015).

    >>> md.nn.PReLU()(md.tensor([-1.0, 2.0])).tolist()
    [-0.25, 2.0]
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: str | None = None, dtype: Any = None):
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = blank(num_parameters, dtype=dtype, device=device)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All slopes as at the start."""
        init.constant_(self.weight, self.init)

    def forward(self, input: md.Tensor) -> md.Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


# ---- along an axis --------------------------------------------------------------------------------------------------------------------
class GLU(Activation):
    """The first half along dim times the sigmoid of the second (Y. Dauphin et al., ICML 2017).

    >>> md.nn.GLU()(md.tensor([3.0, 0.0])).tolist()
    [1.5]
    """

    function = staticmethod(F.glu)

    def __init__(self, dim: int = -1):
        self.keep(dim=dim)


class _AlongAxis(Activation):
    def __init__(self, dim: int | None = None):
        self.keep(dim=dim)


class Softmax(_AlongAxis):
    """exp(x) normalised to sum 1 along dim; without dim the axis is PyTorch's choice, with its warning.

    >>> Softmax(dim=-1)(md.zeros((1, 4))).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    function = staticmethod(F.softmax)


class LogSoftmax(_AlongAxis):
    """The logarithm of softmax along dim.

    >>> [round(v, 4) for v in md.nn.LogSoftmax(dim=0)(md.tensor([0.0, 0.0])).tolist()]
    [-0.6931, -0.6931]
    """

    function = staticmethod(F.log_softmax)


class Softmin(_AlongAxis):
    """softmax(-x) along dim.

    >>> md.nn.Softmin(dim=0)(md.tensor([1.0, 1.0])).tolist()
    [0.5, 0.5]
    """

    function = staticmethod(F.softmin)


class Softmax2d(Activation):
    """softmax over the channels of [N, C, H, W] (or [C, H, W]).

    Raises ValueError for an input with another number of axes.

    >>> md.nn.Softmax2d()(md.zeros((1, 2, 1, 1))).tolist()
    [[[[0.5]], [[0.5]]]]
    """

    def forward(self, input: md.Tensor) -> md.Tensor:
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected [N, C, H, W] or [C, H, W], got shape {input.shape}")
        return F.softmax(input, -3)
