"""What of a loop's body has a part in a derivative, so that what has none is left out: a zero in its place would be nan beside an infinity."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any

import minidl as md
from minidl.extend import reached


def moved(body: md.Graph, first: int, k: int, moving: Sequence[bool]) -> list[bool]:
    """Which inputs of a loop's body move in some step, if these do in the first one; its carry are k inputs from the first on."""
    key = ("moved", first, k, *moving)
    if key not in body.cache:
        live = reached(body, compress(body.inputs, moving))
        after = [m or (first <= i < first + k and body.outputs[i - first] in live) for i, m in enumerate(moving)]
        body.cache[key] = after if after == list(moving) else moved(body, first, k, after)
    return body.cache[key]


def asked(body: md.Graph, first: int, k: int, live: Sequence[bool], cts: Sequence[Any], idle: bool) -> list[bool]:
    """Which outputs of a loop's body get a cotangent in some step, if these do in the last one; live: the inputs that have one; idle: whether there
    may be no step, after which the carry is what it was."""
    key = ("asked", first, k, *live, *(c is not None for c in cts), idle)
    if key not in body.cache:
        alive = reached(body, compress(body.inputs, live))
        into = [reached(body, [v]) if m else set() for v, m in zip(body.inputs[first : first + k], live[first:], strict=False)]
        now: list[bool] = []
        stays = [idle and i < k and live[first + i] for i in range(len(cts))]
        after = [c is not None and (s or o in alive) for c, s, o in zip(cts, stays, body.outputs, strict=True)]
        while now != after:
            now = after
            after = [u or (i < k and not into[i].isdisjoint(compress(body.outputs, now))) for i, u in enumerate(now)]
        body.cache[key] = now
    return body.cache[key]
