"""Schedules of the learning rate, as torch.optim.lr_scheduler.

A schedule sets the "lr" of an optimizer's groups, a Python number that a jitted step takes as an input: nothing is compiled again. Call its step()
after the optimizer's. A rate that is a Tensor is changed in place.

Promises: the same numbers as PyTorch's schedules, chained or in sequence; state_dict() is plain data with PyTorch's keys.

By room: base; factors; cosine; cycles; plateau; composed.
"""

from __future__ import annotations

from minidl.optim.lr_scheduler.base import LRScheduler
from minidl.optim.lr_scheduler.composed import ChainedScheduler, SequentialLR
from minidl.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from minidl.optim.lr_scheduler.cycles import CyclicLR, OneCycleLR
from minidl.optim.lr_scheduler.factors import ConstantLR, ExponentialLR, LambdaLR, LinearLR, MultiplicativeLR, MultiStepLR, PolynomialLR, StepLR
from minidl.optim.lr_scheduler.plateau import ReduceLROnPlateau

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
