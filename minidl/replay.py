"""Eager fusion: the backward pass of a tape whose like was seen before is replayed as one compiled program.

A tape's structure (the kinds of its nodes, who leads to whom, shapes, dtypes, params) is a key; the third pass of one key is captured from the texts
of the rules, as a trace captures anything, and compiled. A program is for the structure alone, and values go in as residuals. Rules see nothing but a
cotangent and the residuals of a node, so the dtype of the result and the residuals settle those of all cotangents, down to the leaves.

For backends whose dispatch is dear (`fuses`): there a pass of a hundred nodes takes half the time. Elsewhere it was tried and does not pay: see
ARCHITECTURE.md.

A program lets go of the residuals when it ends, where the ordinary pass frees them as it goes: on a CPU the peak memory of a whole step, forward pass
included, was 15 % higher for 24 layers whose activations weigh most, 25 to 35 % where their weights do.

Promises: what a program cannot know is left to the ordinary pass: hooks on results, nodes with functions of their own (jitted calls, custom rules),
other backends on the tape, strong zeros, released graphs, more than 2,000 nodes; so is a structure whose capture, compilation or run fails. Values
differ by rounding at most; at most 256 structures are remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidl import tape
from minidl.context import interpreting
from minidl.dtypes import Defaults
from minidl.graph import Graph, Var, told
from minidl.kinds import Kind, Node
from minidl.tape import LEAF
from minidl.tracing import Trace, finish

_PASSES = 2  # ordinary passes of a structure before it is compiled
_MOST = 256
_LONGEST = 2000  # nodes; longer programs take long to compile
_INT = frozenset((int,))
_known: dict[tuple, Any] = {}  # structure -> how often it was seen, its program, or None where there can be none


class _Program:
    """run(*arrays[keep]) gives the cotangents of the leaves among the nodes, in the order of their arrival."""

    __slots__ = ("keep", "leaves", "run")

    def __init__(self, run: Callable[..., tuple], keep: list[int], leaves: list[int]):
        self.run, self.keep, self.leaves = run, keep, leaves


def backward(root: Node, dtype: Any, retain: bool, arrive: Callable[[Node, Any], None]) -> bool:
    """The pass from a scalar result, if there is a program for it; False where the ordinary pass has to do it."""
    found = _structure(root, dtype)
    if found is None:
        return False
    nodes, arrays, key = found
    try:
        program = _known.get(key, 0)
    except TypeError:  # a param that cannot be a key
        return False
    if program.__class__ is int:
        if program < _PASSES:
            for oldest in list(_known)[: max(0, len(_known) - _MOST + 1)]:  # a copy: other threads come by
                _known.pop(oldest, None)
            _known[key] = program + 1
            return False
        try:
            program = _known[key] = _captured(root, dtype, nodes, arrays)
        except Exception:  # whatever it was: the ordinary pass needs none of it, or says it in the user's terms
            program = _known[key] = None
    if program is None:
        return False
    try:
        cotangents = program.run(*[arrays[k] for k in program.keep])
    except Exception:  # nothing has arrived yet; the ordinary pass wants less memory, for one
        _known[key] = None
        return False
    for i, g in zip(program.leaves, cotangents, strict=True):
        arrive(nodes[i], g)
    if not retain:
        for node in nodes:
            if node[1] is not LEAF:
                node[1] = tape.RELEASED
                del node[3:]
    return True


def _structure(root: Node, dtype: Any) -> tuple[list[Node], list[Any], tuple] | None:
    """The nodes below, their arrays (each once), and the key; None where something is no matter of structure."""
    xp = root[2]
    index, nodes, places = {root[0]: 0}, [root], dict[int, int]()
    arrays: list[Any] = []
    key: list[Any] = [xp, dtype, Defaults.floating]
    for node in nodes:
        kind = node[1]
        key.append(kind)
        if kind is LEAF and node[2] is xp:
            continue
        if kind.__class__ is not Kind or node[2] is not xp or kind.wide or len(nodes) > _LONGEST:
            return None
        n = 3 + kind.n
        for p in node[3:n]:
            at = index.get(p[0])
            if at is None:
                at = index[p[0]] = len(nodes)
                nodes.append(p)
            key.append(at)
        for r in node[n:]:
            shape = getattr(r, "shape", None)
            if shape is None:
                form = r.__class__
                if form is float or form is complex or (form is tuple and not _INT.issuperset(map(type, r))):
                    r = told(r)
                key += (form, r)
                continue
            place = places.get(id(r))
            if place is None:
                place = places[id(r)] = len(arrays)
                arrays.append(r)
                key += (shape, r.dtype)
            key.append(place)
    return nodes, arrays, tuple(key)


def _captured(root: Node, dtype: Any, nodes: Sequence[Node], arrays: Sequence[Any]) -> _Program | None:
    """The pass as a program: the same nodes with symbols for residuals, pulled back under a trace."""
    xp, t = root[2], Trace()
    t.settle_home(xp)
    symbols = [Var(tuple(a.shape), xp.dtype_of(a)) for a in arrays]
    symbol = {id(a): v for a, v in zip(arrays, symbols, strict=True)}
    twin: dict[int, Node] = {}
    for node in sorted(nodes, key=lambda n: -n[0]):  # parents are older
        n = 3 + node[1].n
        rest = node[3:] if node[1] is LEAF else [*(twin[p[0]] for p in node[3:n]), *(symbol.get(id(r), r) for r in node[n:])]
        twin[node[0]] = [node[0], node[1], t, *rest]
    got: dict[int, Any] = {}
    with interpreting(t):
        seed = t.full(shape=(), value=1.0, dtype=dtype)
        tape.pull_raw([(twin[root[0]], seed)], None, None, True, lambda node, g: got.update({node[0]: g}))
    if t.captured or t.guards or t.asked - {"strong"}:
        return None
    graph = finish(t.equations, symbols, list(got.values()), "backward")
    used = {a for e in graph.equations for a in e.inputs} | set(graph.outputs)
    keep = [k for k, v in enumerate(symbols) if v in used]
    at = {node[0]: i for i, node in enumerate(nodes)}
    graph = Graph([symbols[k] for k in keep], graph.equations, graph.outputs, graph.name)
    return _Program(xp.compile(graph), keep, [at[n] for n in got])
