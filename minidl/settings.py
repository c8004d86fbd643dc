"""The few settings of minidl itself. jit guards on those that a program depends on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from minidl.context import setting
from minidl.dtypes import Defaults, DType, canonical


def set_default_dtype(dtype: DType | str) -> None:
    """The dtype that Python floats and creation functions get from now on. Raises TypeError for a dtype that is no float.

    >>> md.set_default_dtype("float32")
    """
    d = canonical(dtype)
    if not d.is_float:
        raise TypeError(f"set_default_dtype: {d.name} is no float dtype")
    Defaults.floating = d


def get_default_dtype() -> DType:
    """The dtype that Python floats get.

    >>> md.get_default_dtype()
    minidl.float32
    """
    return Defaults.floating


@contextlib.contextmanager
def strict_promotion() -> Iterator[None]:
    """Inside the block, mixing array dtypes in one operation raises TypeError instead of promoting.

    >>> with md.strict_promotion():
    ...     md.tensor(1.0) + md.tensor(1)
    Traceback (most recent call last):
    TypeError: ...
    """
    before = Defaults.strict
    Defaults.strict = True
    try:
        yield
    finally:
        Defaults.strict = before


@contextlib.contextmanager
def strong_zero() -> Iterator[None]:
    """Inside the block, a zero cotangent (or tangent) annihilates infinities and NaN in every derivative that is taken, in this thread.

    It decides when a derivative is computed (`backward`, a transform), not when the operations run. It is part of a jitted program. A convention and
    no limit: the derivative of sqrt(x)**2 at 0 is then 0.

    >>> f = lambda x: md.where(x > 0, md.sqrt(x), 0.0)
    >>> with md.strong_zero():
    ...     md.grad(f)(md.tensor(0.0)).item()
    0.0
    >>> md.grad(f)(md.tensor(0.0)).item()
    nan
    """
    with setting("strong", True):
        yield


BOUNDS = ("clip", "fill", "raise-later")


@contextlib.contextmanager
def out_of_bounds(policy: str) -> Iterator[None]:
    """What data outside an operation's domain does inside the block, where values cannot be looked at: traced, under vmap, on an accelerator.

    Eager on a CPU an index out of range raises IndexError whatever this says (md.take has `mode`). "clip", the default: reads take the nearest
    element. "fill": they give nan (the smallest signed integer, the largest unsigned one, True). "raise-later": as "clip", and IndexError is raised
    by the next .numpy(), .item() or call of a jitted function, in whichever thread, once, with the user's line in a note; so are the ValueErrors of
    singular and indefinite matrices and of negative integer exponents, which otherwise give nan and 0. Writes out of range are dropped in all three.
    It holds for this thread and is part of a jitted program. Raises ValueError for another policy.

    >>> import minidl as md
    >>> with out_of_bounds("fill"):
    ...     md.jit(lambda x, i: x[i])(md.tensor([1.0, 2.0]), md.tensor([1, 7])).tolist()
    [2.0, nan]
    """
    if policy not in BOUNDS:
        raise ValueError(f"out_of_bounds: the policy is one of {', '.join(map(repr, BOUNDS))}, not {policy!r}")
    with setting("bounds", policy):
        yield
