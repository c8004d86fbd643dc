"""Layers and losses as functions, with PyTorch's names, argument order and defaults.

By room: activations, attention, convolution, dropouts, losses (cross-entropies), maps (linear maps, look-up, distances), normalization, pooling and
fractional (drawn windows), recurrence (steps of recurrent networks), regression (losses between values, rankings and distributions), resizing
(padding, shuffles, resampling), sequences (CTC); precision says what some of them do under md.autocast.
All are names of this module. At kinks and at infinity the values and derivatives follow minidl's convention table: a fully masked softmax row is 0,
silu(-inf) is 0. Every function raises TypeError for an argument of the wrong kind or dtype, ValueError for sizes and shapes that do not fit, and
IndexError for an axis or an index that is not there; what a docstring says of errors comes on top of that.
PyTorch's older size_average and reduce are understood by name; `inplace` stores the result in the argument.
"""

from __future__ import annotations

import minidl as md
from minidl.nn.functional import (
    activations,
    attention,
    convolution,
    dropouts,
    fractional,
    losses,
    maps,
    normalization,
    pooling,
    recurrence,
    regression,
    resizing,
    sequences,
)
from minidl.nn.functional.activations import *  # noqa: F403
from minidl.nn.functional.attention import *  # noqa: F403
from minidl.nn.functional.convolution import *  # noqa: F403
from minidl.nn.functional.dropouts import *  # noqa: F403
from minidl.nn.functional.fractional import *  # noqa: F403
from minidl.nn.functional.losses import *  # noqa: F403
from minidl.nn.functional.maps import *  # noqa: F403
from minidl.nn.functional.normalization import *  # noqa: F403
from minidl.nn.functional.pooling import *  # noqa: F403
from minidl.nn.functional.recurrence import *  # noqa: F403
from minidl.nn.functional.regression import *  # noqa: F403
from minidl.nn.functional.resizing import *  # noqa: F403
from minidl.nn.functional.sequences import *  # noqa: F403

_SQUARES = ("cosine_similarity", "normalize", "pairwise_distance")
_NORMS = [name for name in normalization.__all__ if name not in normalization.OWN_DTYPE]
for _name in (*losses.__all__, *_NORMS, *regression.__all__, *sequences.__all__, *_SQUARES):
    globals()[_name] = md.full_precision(globals()[_name])  # what adds up squares or takes logarithms begins in float32 under md.autocast

_ROOMS = (
    activations, attention, convolution, dropouts, fractional, losses, maps, normalization, pooling, recurrence, regression, resizing, sequences,
)  # fmt: skip
__all__ = sorted(name for room in _ROOMS for name in room.__all__)
for _name in __all__:
    globals()[_name] = md.checked(globals()[_name])
    globals()[_name].__module__ = __name__  # where this one is found, also by pickle
