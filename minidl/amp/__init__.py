"""Training in mixed precision: autocast (also md.autocast), GradScaler for float16, and dtype policies of modules.

>>> import minidl as md
>>> from minidl import nn
>>> net, scaler = nn.Linear(3, 1), md.amp.GradScaler()
>>> opt = md.optim.SGD(net.parameters(), lr=0.1)
>>> @md.jit
... def step(x):
...     opt.zero_grad()
...     with md.autocast(dtype=md.float16):
...         loss = nn.functional.mse_loss(net(x), md.zeros((4, 1)))
...     scaler.scale(loss).backward()
...     scaler.step(opt)
...     scaler.update()
...     return loss
>>> losses = [step(md.ones((4, 3))).item() for _ in range(5)]
>>> losses[-1] < losses[0]
True
"""

from __future__ import annotations

from minidl import autocast, full_precision, is_autocast_enabled, low_precision
from minidl.amp.grad_scaler import GradScaler
from minidl.amp.policy import Policy, apply_policy

__all__ = ["GradScaler", "Policy", "apply_policy", "autocast", "full_precision", "is_autocast_enabled", "low_precision"]
