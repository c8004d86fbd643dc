"""Optimizers, step for step as torch.optim (Lion as optax), stateful, functional and under jit; schedules; averages of weights.

>>> import minidl as md
>>> from minidl import optim
>>> w = md.tensor([1.0], requires_grad=True)
>>> opt = optim.SGD([w], lr=0.1)
>>> (w * w).sum().backward()
>>> opt.step()
>>> round(w.item(), 6)
0.8
"""

from __future__ import annotations

from typing import Any

from minidl.optim import lr_scheduler, swa_utils
from minidl.optim.adadelta import Adadelta
from minidl.optim.adafactor import Adafactor
from minidl.optim.adam import Adam, AdamW
from minidl.optim.adam_family import Adamax, NAdam, RAdam
from minidl.optim.adaptive import Adagrad, RMSprop
from minidl.optim.asgd import ASGD
from minidl.optim.lbfgs import LBFGS
from minidl.optim.lion import Lion
from minidl.optim.muon import Muon
from minidl.optim.optimizer import Optimizer
from minidl.optim.rprop import Rprop
from minidl.optim.sgd import SGD

__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "Muon", "NAdam", "Optimizer", "RAdam", "RMSprop",
    "Rprop", "lr_scheduler", "swa_utils",
]  # fmt: skip
#: Names of PyTorch that are not here, and what there is for them.
ABSENT = {"SparseAdam": "gradients are never sparse tensors here, those of Embedding(sparse=True) neither; Adam"}


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'minidl.optim' has no attribute {name!r}" + (f"; {ABSENT[name]}" if name in ABSENT else ""))
