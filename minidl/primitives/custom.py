"""Functions with rules of their own: a primitive whose params are Graphs. Its derivative and batching rule are in minidl/custom_rules.py."""

from __future__ import annotations

from typing import Any

from minidl.primitives.core import Primitive


def _decompose_custom(xp: Any, *operands: Any, body: Any, rule: Any) -> Any:
    call = lambda p, ins, params: getattr(xp, p.name)(*ins, **params)
    return tuple(body.run(call, operands[: len(body.inputs)], lambda c: xp.full(shape=(), value=c.value, dtype=c.dtype)))


#: A function with derivatives of its own: `body` of the first operands, all of them, which the graphs of the rule take too. Programs are compiled
#: with the body in its place.
custom = Primitive(
    "custom",
    "*operands",
    "body rule",
    infer=lambda *ops, body, rule: tuple((v.shape, v.dtype) for v in body.outputs),
    decompose=_decompose_custom,
    multiple=True,
    promote="none",
)
