"""Dropout layers: they drop in training and pass on in evaluation.

The draws come from minidl's generator, so one seed gives the same masks on every backend.
"""

from __future__ import annotations

from typing import Any, ClassVar

import minidl as md
from minidl.nn import functional as F
from minidl.nn.module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _Dropout(Module):
    function: ClassVar[Any] = None

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p is a probability, not {p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: md.Tensor) -> md.Tensor:
        return type(self).function(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training, zero each element with probability p and scale the rest by 1/(1-p); in evaluation, its input.

    N. Srivastava et al., JMLR 15, 2014.

    >>> layer = md.nn.Dropout(0.5)
    >>> set(layer(md.ones(100)).tolist()) == {0.0, 2.0}, layer.eval()(md.ones(2)).tolist()
    (True, [1.0, 1.0])
    """

    function = staticmethod(F.dropout)


class Dropout1d(_Dropout):
    """In training, zero whole channels of [N, C, L] (or [C, L]) with probability p and scale the rest by 1/(1-p).

    >>> md.nn.Dropout1d(0.5).eval()(md.ones((1, 2, 2))).tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """

    function = staticmethod(F.dropout1d)


class Dropout2d(_Dropout):
    """In training, zero whole channels of [N, C, H, W] (or [N, C, L]) with probability p and scale the rest by 1/(1-p).

    >>> y = md.nn.Dropout2d(0.5)(md.ones((2, 3, 4, 4)))
    >>> bool((y.max(axis=(2, 3)) == y.min(axis=(2, 3))).all())
    True
    """

    function = staticmethod(F.dropout2d)


class Dropout3d(_Dropout):
    """In training, zero whole channels of [N, C, D, H, W] (or [C, D, H, W]) with probability p and scale the rest by 1/(1-p).

    >>> md.nn.Dropout3d(0.5)(md.ones((1, 2, 4, 4, 4))).shape
    (1, 2, 4, 4, 4)
    """

    function = staticmethod(F.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout to selu's lower limit that keeps mean 0 and variance 1 (G. Klambauer et al., NeurIPS 2017).

    >>> md.nn.AlphaDropout(0.5).eval()(md.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    function = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """AlphaDropout of whole channels of [N, C, ...].

    >>> md.nn.FeatureAlphaDropout(0.5).eval()(md.ones((1, 2, 2))).tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """

    function = staticmethod(F.feature_alpha_dropout)
