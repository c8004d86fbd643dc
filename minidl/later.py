"""Errors that only values can show, where values cannot be looked at: in a traced program, under vmap, on an accelerator.

Eager on a CPU an index out of range, a singular matrix or an integer to a negative power raises at once. Elsewhere `md.out_of_bounds` says what
happens; its "raise-later" writes the number of the first error into a flag on the device, which is state like any other: a compiled program, a loop
or a branch carries it, and `.numpy()`, `.item()` and the next call of a compiled program read it and raise.

Promises: without that policy nothing is computed, kept or read; no policy lets a library see an index that is out of range.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from minidl.context import ask, grad_mode, interpreting, state
from minidl.dtypes import int64
from minidl.tensors import Tensor, ns

_HERE = os.path.dirname(__file__)
#: The flag of each backend and device that ever had an error to expect: 0, or the number of an entry of `errors` plus 1.
flags: dict[Any, Tensor] = {}
errors: list[tuple[type[Exception], str]] = []


def policy() -> str:
    """What `md.out_of_bounds` says in this thread. A trace that asks becomes a program for this answer."""
    return ask("bounds")


def _line() -> str:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_HERE, "<minidl")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _flag(xp: Any) -> Tensor:
    while not hasattr(xp, "asarray"):
        xp = xp.home
    if xp not in flags:
        with xp.scope():
            flags[xp] = Tensor(xp.full(shape=(), value=0, dtype=int64), xp, int64)
    return flags[xp]


def _anywhere(bad: Tensor) -> Any:
    """Whether `bad` holds anywhere, in all lanes of all vmaps: a Tensor of the innermost trace (or none), and that interpreter."""
    level = state.interpreter
    while hasattr(level, "size"):  # a vmap
        payload = level.lift(bad)[0]
        bad, level = payload.inner, level.parent
        with interpreting(level):
            bad = ns.any(bad, axis=tuple(range(bad.ndim)), keepdims=False) if bad.ndim else bad
    return bad, level


def expect(bad: Tensor, kind: type[Exception], text: str) -> None:
    """Raise kind(text), with the user's line, at the next synchronisation if `bad` holds anywhere. For the policy "raise-later"."""
    bad = ns.any(bad, axis=tuple(range(bad.ndim)), keepdims=False) if bad.ndim else bad
    entry = kind, f"{text} ({_line()})"
    number = errors.index(entry) + 1 if entry in errors else len(errors) + 1
    if number > len(errors):
        errors.append(entry)
    bad, level = _anywhere(bad)
    with interpreting(level), grad_mode(False):
        flag = _flag(level or bad.xp)
        flag.assign(ns.where(ns.logical_and(bad, ns.eq(flag, 0)), number, flag))


def check() -> None:
    """Raise the first error that a flag has seen since the last check."""
    for xp, flag in list(flags.items()):  # another thread may add one
        number = int(xp.to_numpy(flag.payload))
        if number:
            with xp.scope():
                flag.payload = xp.full(shape=(), value=0, dtype=int64)
            kind, text = errors[number - 1]
            raise kind(text)
