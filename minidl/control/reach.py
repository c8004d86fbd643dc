"""What of a body has a part in a derivative, so that what has none is left out: a zero in its place would be nan beside an infinity."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from minidl.graph import Equation, Graph, Var
from minidl.primitives import table


def those(values: Sequence[Any], on: Sequence[bool]) -> list[Any]:
    """The values for which there is True."""
    return list(itertools.compress(values, on))


def reached(graph: Graph, live: Iterable[Any]) -> set[Any]:
    """These variables of a graph, and what has a derivative with respect to them."""
    found = set(live)
    for e in graph.equations:
        name = e.primitive.name
        if name != "stop" and not found.isdisjoint(e.inputs[:1] if name == "instead" else e.inputs):
            found.update(v for v in e.outputs if v.dtype.inexact)
    return found


def moved(body: Graph, first: int, k: int, moving: Sequence[bool]) -> list[bool]:
    """Which inputs of a loop's body move in some step, if these do in the first one; its carry are k inputs from the first on."""
    key = ("moved", first, k, *moving)
    if key not in body.cache:
        live = reached(body, those(body.inputs, moving))
        after = [m or (first <= i < first + k and body.outputs[i - first] in live) for i, m in enumerate(moving)]
        body.cache[key] = after if after == list(moving) else moved(body, first, k, after)
    return body.cache[key]


def asked(body: Graph, first: int, k: int, live: Sequence[bool], cts: Sequence[Any], idle: bool) -> list[bool]:
    """Which outputs of a loop's body get a cotangent in some step, if these do in the last one; live: the inputs that have one; idle: whether there
    may be no step, after which the carry is what it was."""
    key = ("asked", first, k, *live, *(c is not None for c in cts), idle)
    if key not in body.cache:
        alive = reached(body, those(body.inputs, live))
        into = [reached(body, [v]) if m else set() for v, m in zip(body.inputs[first : first + k], live[first:], strict=False)]
        now: list[bool] = []
        stays = [idle and i < k and live[first + i] for i in range(len(cts))]
        after = [c is not None and (s or o in alive) for c, s, o in zip(cts, stays, body.outputs, strict=True)]
        while now != after:
            now = after
            after = [u or (i < k and not into[i].isdisjoint(those(body.outputs, now))) for i, u in enumerate(now)]
        body.cache[key] = now
    return body.cache[key]


def without(backward: Graph, cts: Sequence[Var], read: Sequence[bool]) -> tuple[Graph, list[bool]]:
    """A backward pass where some of its inputs, the cotangents, do not come: what is made of these alone is left out, and they add nothing to what
    else there is. And which of its outputs are left."""
    here, gone, new = set(those(cts, read)), {c for c, r in zip(cts, read, strict=True) if not r}, dict[Any, Any]()
    inputs, equations = [v for v in backward.inputs if v not in gone], list[Equation]()
    for e in backward.equations:
        given = [new.get(a, a) if isinstance(a, Var) else a for a in e.inputs]
        if missing := gone.intersection(given):
            left = [a for a in given if a not in missing]
            if e.primitive.name == "add" and left and left[0].shape == e.outputs[0].shape:
                new[e.outputs[0]] = left[0]
                continue
            if here.isdisjoint(given):
                gone.update(e.outputs)
                continue
            zeros: dict[Any, Any] = {v: Var(v.shape, v.dtype) for v in missing}
            equations += [Equation(table["full"], (), {"shape": v.shape, "value": 0, "dtype": v.dtype}, (z,), e.where) for v, z in zeros.items()]
            given = [zeros.get(a, a) for a in given]
        if not here.isdisjoint(given):
            here.update(e.outputs)
        equations.append(Equation(e.primitive, tuple(given), e.params, e.outputs, e.where))
    outputs = [new.get(v, v) for v in backward.outputs]
    there = [v not in gone for v in outputs]
    return Graph(inputs, equations, those(outputs, there), backward.name), there
