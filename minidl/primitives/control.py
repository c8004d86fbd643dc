"""Loops and branches: primitives whose params are Graphs. Their derivatives and batching rules, which need tracing, are in minidl/control/."""

from __future__ import annotations

from typing import Any

from minidl.primitives.core import Primitive


def _infer_scan(*operands: Any, body: Any, length: int, n_consts: int, n_carry: int, reverse: bool) -> Any:
    carry = tuple((v.shape, v.dtype) for v in body.outputs[:n_carry])
    return (*carry, *(((length, *v.shape), v.dtype) for v in body.outputs[n_carry:]))


scan = Primitive("scan", "*operands", "body length n_consts n_carry reverse", infer=_infer_scan, multiple=True, promote="none")


def _infer_while(*operands: Any, cond: Any, body: Any, n_cond: int, n_body: int) -> Any:
    return tuple((v.shape, v.dtype) for v in body.outputs)


while_loop = Primitive("while_loop", "*operands", "cond body n_cond n_body", infer=_infer_while, multiple=True, promote="none")
cond = Primitive(
    "cond",
    "*operands",
    "branches",
    infer=lambda *ops, branches: tuple((v.shape, v.dtype) for v in branches[0].outputs),
    multiple=True,
    promote="none",
)


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
