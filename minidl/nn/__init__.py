"""Neural networks with PyTorch's names and defaults: modules, layers, losses, initialisation and their functional forms.

By room: module (with hooks, state and pytrees), parameter, containers; linear, embedding, convolution, pooling, normalization, dropout, recurrent,
attention, transformer, activations, reshaping (axes, padding, resampling, distances), losses, adaptive, lazy; functional; init; utils. einops, which
stands on the library of that name, is imported by name.

Every layer raises TypeError for an argument of the wrong kind or dtype, ValueError for sizes and shapes that do not fit, and IndexError for an axis
or an index that is not there. The text begins with the layer or the function in it. What a docstring says of errors comes on top of that.

>>> import minidl as md
>>> from minidl import nn
>>> nn.Linear(3, 2)(md.ones((1, 3))).shape
(1, 2)
"""

from __future__ import annotations

from typing import Any

from minidl.nn import (
    activations,
    adaptive,
    attention,
    containers,
    convolution,
    dropout,
    embedding,
    functional,
    init,
    lazy,
    linear,
    losses,
    normalization,
    parallel,
    pooling,
    pytrees,
    recurrent,
    reshaping,
    transformer,
    utils,
)
from minidl.nn.activations import *  # noqa: F403
from minidl.nn.adaptive import *  # noqa: F403
from minidl.nn.attention import *  # noqa: F403
from minidl.nn.containers import *  # noqa: F403
from minidl.nn.convolution import *  # noqa: F403
from minidl.nn.dropout import *  # noqa: F403
from minidl.nn.embedding import *  # noqa: F403
from minidl.nn.lazy import *  # noqa: F403
from minidl.nn.linear import *  # noqa: F403
from minidl.nn.losses import *  # noqa: F403
from minidl.nn.module import Module
from minidl.nn.normalization import *  # noqa: F403
from minidl.nn.parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter
from minidl.nn.pooling import *  # noqa: F403
from minidl.nn.recurrent import *  # noqa: F403
from minidl.nn.reshaping import *  # noqa: F403
from minidl.nn.transformer import *  # noqa: F403

pytrees.register()
_ROOMS = (
    activations, adaptive, attention, containers, convolution, dropout, embedding, lazy, linear, losses, normalization, pooling, recurrent, reshaping,
    transformer,
)  # fmt: skip
__all__ = [
    "Buffer", "Module", "Parameter", "UninitializedBuffer", "UninitializedParameter", "functional", "init", "parallel", "utils",
    *(name for room in _ROOMS for name in room.__all__),
]  # fmt: skip
#: Names of PyTorch that are not here, and what there is for them.
ABSENT = {
    "CrossMapLRN2d": "LocalResponseNorm",
    "DataParallel": "a model runs on one device, so leave the wrapper out; PyTorch advises against it",
    "NLLLoss2d": "NLLLoss",
    "SyncBatchNorm": "it averages over processes, and minidl runs in one; BatchNorm2d and its kin",
}


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'minidl.nn' has no attribute {name!r}" + (f"; {ABSENT[name]}" if name in ABSENT else ""))
