"""Neural networks with PyTorch's names and defaults: modules, layers, losses, initialisation and their functional forms.

>>> import minidl as md
>>> from minidl import nn
>>> nn.Linear(3, 2)(md.ones((1, 3))).shape
(1, 2)
"""

from __future__ import annotations

from minidl.nn import functional, init, utils
from minidl.nn.activations import *  # noqa: F403
from minidl.nn.activations import __all__ as _activations
from minidl.nn.containers import ModuleDict, ModuleList, Sequential
from minidl.nn.convolution import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    Conv1d,
    Conv2d,
    Conv3d,
    Dropout2d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from minidl.nn.linear import Dropout, Embedding, Flatten, Identity, Linear
from minidl.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from minidl.nn.module import Module
from minidl.nn.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, LayerNorm
from minidl.nn.parameter import Parameter

__all__ = [
    "AvgPool1d", "AvgPool2d", "AvgPool3d", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Conv1d", "Conv2d",
    "Conv3d", "CrossEntropyLoss", "Dropout", "Dropout2d", "Embedding", "Flatten", "HuberLoss", "Identity", "L1Loss", "LayerNorm", "Linear",
    "MSELoss", "MaxPool1d", "MaxPool2d", "MaxPool3d", "Module", "ModuleDict", "ModuleList", "NLLLoss", "Parameter", "Sequential",
    "SmoothL1Loss", "functional", "init", "utils", *_activations,
]  # fmt: skip
