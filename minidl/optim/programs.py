"""The eager step of an optimizer as one compiled program: its operations are few for each parameter, but each of them goes through memory.

Promises: a class of the user's, which may do in its `_update` what should happen at every step, runs operation by operation; so do parameters on
several backends or devices, and steps of which something new is asked again and again. A program goes with its optimizer, and with a parameter that
is replaced.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import minidl as md

if TYPE_CHECKING:
    from minidl.optim.optimizer import Optimizer

#: How often the step of one optimizer is compiled, before it is given up: something about it is new each time.
MOST = 8


class Programs:
    """The compiled step of an optimizer: for which parameters, and how often it was traced, for parameters that were replaced too."""

    def __init__(self) -> None:
        self.run: Any = None
        self.params: list[weakref.ref[md.Tensor]] = []
        self.together = True  # on one backend and device; a Tensor never changes its place
        self.before = 0

    @property
    def compiles(self) -> int:
        return self.before + (0 if self.run is None else self.run.compiles)

    def renew(self, params: list[md.Tensor]) -> None:
        """Drop what was compiled, with all tensors that it holds."""
        self.before, self.run, self.params = self.compiles, None, [weakref.ref(p) for p in params]
        self.together = len({(p.backend, p.device) for p in params}) < 2


known: weakref.WeakKeyDictionary[Optimizer, Programs] = weakref.WeakKeyDictionary()


def run(optimizer: Optimizer) -> None:
    """The step of an optimizer, compiled where that is worth it."""
    if not type(optimizer).__module__.startswith("minidl."):
        return optimizer._step_all()
    programs = known.get(optimizer)
    if programs is None:
        programs = known[optimizer] = Programs()
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if len(params) != len(programs.params) or any(r() is not p for r, p in zip(programs.params, params, strict=True)):
        programs.renew(params)
    if not programs.together or programs.compiles > MOST:
        if programs.run is not None:
            programs.renew(params)  # given up: nothing needs what they hold
        return optimizer._step_all()
    if programs.run is None:
        programs.run = md.jit(optimizer_step)
    programs.run(optimizer)


def forget(optimizer: Optimizer) -> None:
    """Drop the program of an optimizer whose parameters or state became other tensors."""
    known.pop(optimizer, None)


def optimizer_step(optimizer: Optimizer) -> None:
    """All updates, under the name that md.profile and md.explain show."""
    optimizer._step_all()
