"""Optimizers, step for step as torch.optim.

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

from minidl.optim.adam import Adam, AdamW
from minidl.optim.optimizer import Optimizer
from minidl.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
