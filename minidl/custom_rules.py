"""What a call of a function with rules of its own is: on the tape a node, and inside traces and vmaps an equation with its rules as graphs.

custom.py has the functions that users meet. Here is what runs their rules: in reverse, forward (each is the transpose of the other), over the lanes
of a vmap, and again for higher orders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidl import tape
from minidl.autograd import home, pullback
from minidl.backends import using
from minidl.batching import LOOPS
from minidl.context import grad_mode, interpreting, state
from minidl.control import run_graph
from minidl.control.batches import batched_graph
from minidl.control.bodies import aval
from minidl.graph import Graph, Var
from minidl.primitives import table
from minidl.tensors import Tensor, bind, describe, ns
from minidl.tracing import Trace, finish, subgraph
from minidl.transforms import _push, alias, as_constant, here, with_node, zeros_like


def node_of(t: Any) -> Any:
    return here(t)[2] if isinstance(t, Tensor) and t.dtype.inexact else None


def in_body() -> bool:
    """Whether a loop's or branch's function is traced, whose arguments may be differentiated later though they are on no tape yet."""
    level = state.interpreter
    while level is not None and not getattr(level, "body", False):
        level = level.parent
    return level is not None


def in_rule() -> bool:
    """Whether a rule is traced, inside which others are traced when they are differentiated: one may call the function that it is of."""
    level = state.interpreter
    while level is not None and not getattr(level, "rule", False):
        level = level.parent
    return level is not None


def attach(name: str, leaves: Sequence[Any], outs: list[Any], vjp: Callable[..., Any], jvp: Callable[..., Any]) -> list[Any]:
    """Give the float outputs of a call nodes whose derivatives are vjp and jvp over the tracked leaves."""
    nodes = [node_of(t) for t in leaves]
    live = [i for i, n in enumerate(nodes) if n is not None]
    floats = [i for i, o in enumerate(outs) if isinstance(o, Tensor) and o.dtype.inexact]
    if not (state.grad and live and floats):
        return outs
    xp = here(outs[floats[0]])[1]

    def pull(cts: list[Any], tracked: bool) -> list[Any]:
        full = [cts[floats.index(i)] if i in floats else None for i in range(len(outs))]
        with using(home(xp)):  # where zeros are made
            found = vjp(nodes if tracked else [None] * len(nodes), full, tracked)
        return [found[i] for i in live]

    def push(tangents: list[Any]) -> list[Any]:
        full: list[Any] = [None] * len(leaves)
        for i, t in zip(live, tangents, strict=True):
            full[i] = t
        with using(home(xp)):
            moved = jvp(nodes, full)
        return [moved[i] for i in floats]

    made = iter(tape.opaque_nodes(xp, name, [nodes[i] for i in live], len(floats), pull, push))
    return [Tensor(*here(o)[:2], o.dtype, next(made)) if i in floats else o for i, o in enumerate(outs)]


def starting(bare: Sequence[Any], nodes: Sequence[Any]) -> list[Any]:
    return [with_node(t, n) if isinstance(t, Tensor) else t for t, n in zip(bare, nodes, strict=True)]


def transposed(bare: Sequence[Any], outs: Sequence[Any], again: Any, reverse: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """vjp and jvp from a reverse rule: again(start) gives the residuals anew, reverse(residuals or None, cotangents) the cotangents."""

    def vjp(nodes: list[Any], cts: list[Any], tracked: bool) -> list[Any]:
        return reverse(again(starting(bare, nodes)) if tracked else None, cts)

    def jvp(nodes: list[Any], tangents: list[Any]) -> list[Any]:
        """The tangent map is the transpose of bwd: pull the tangents back through a bwd run on cotangent variables."""
        res = again(starting(bare, nodes))
        variables = [alias(zeros_like(o)) if isinstance(o, Tensor) and o.dtype.inexact else None for o in outs]
        with grad_mode(True):
            found = reverse(res, variables)
        pairs = [(g, t) for g, t in zip(found, tangents, strict=True) if isinstance(g, Tensor) and g.node is not None and t is not None]
        targets = [v.node for v in variables if v is not None]
        moved = iter(pullback("custom_vjp", [(g.node, t) for g, t in pairs], targets, retain=True) if pairs else [None] * len(targets))
        return [next(moved) if v is not None else None for v in variables]

    return vjp, jvp


def pushed(bare: Sequence[Any], move: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """vjp and jvp from a forward rule: move(primals, tangents) gives the tangents of the outputs."""

    def run(nodes: list[Any], tangents: list[Any]) -> list[Any]:
        full = [(zeros_like(t) if d is None else d) if isinstance(t, Tensor) else d for t, d in zip(bare, tangents, strict=True)]
        return move(starting(bare, nodes), full)

    def vjp(nodes: list[Any], cts: list[Any], tracked: bool) -> list[Any]:
        variables = [alias(zeros_like(t)) if isinstance(t, Tensor) and t.dtype.inexact else None for t in bare]
        with grad_mode(True):
            moved = run(nodes, variables)
        pairs = [(m.node, c) for m, c in zip(moved, cts, strict=True) if c is not None and m.node is not None]
        targets = [v.node for v in variables if v is not None]
        found = iter(pullback("custom_jvp", pairs, targets, retain=True, create_graph=tracked or None) if pairs else [None] * len(targets))
        return [next(found) if v is not None else None for v in variables]

    return vjp, run


def _by_extra(extra: Sequence[Tensor], value: Callable[[list[Tensor]], list[Tensor]]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """vjp and jvp by what a function reads from outside, as value(extra) has them."""

    def run(nodes: list[Any]) -> tuple[list[Any], list[Any]]:
        variables = [alias(t) if t.dtype.inexact else t for t in starting(extra, nodes)]
        with grad_mode(True):
            return variables, value(variables)

    def vjp(nodes: list[Any], cts: list[Any], tracked: bool) -> list[Any]:
        variables, outs = run(nodes)
        pairs = [(o.node, c) for o, c in zip(outs, cts, strict=True) if c is not None and o.node is not None]
        targets = [v.node for v in variables if v.dtype.inexact]
        found = iter(pullback("custom", pairs, targets, retain=True, create_graph=tracked or None) if pairs else [None] * len(targets))
        return [next(found) if v.dtype.inexact else None for v in variables]

    def jvp(nodes: list[Any], tangents: list[Any]) -> list[Any]:
        variables, outs = run(nodes)
        moving = [(v, t) for v, t in zip(variables, tangents, strict=True) if t is not None]
        moved = iter(_push([o for o in outs if o.dtype.inexact], [v for v, _ in moving], [t for _, t in moving]))
        return [next(moved) if o.dtype.inexact else None for o in outs]

    return vjp, jvp


class Rule:
    """The rules of one call as graphs. Each takes its own inputs and then `extra`, the tensors that value or rules read from outside: "value" takes
    the arguments; "fwd" too, and gives the residuals besides; "bwd" takes residuals and cotangents and gives those of the arguments `back`; "push"
    takes arguments and tangents."""

    def __init__(self, name: str, given: Sequence[Tensor]):
        self.name, self.n, self.n_out, self.back, self.home = name, len(given), 0, list[int](), home(given[0].xp)
        self.given = [aval(t) for t in given]
        self.functions: dict[str, Callable[..., list[Any]]] = {}
        self.extra: list[Tensor] = []
        self.open = True  # while `extra` may grow
        self.graphs: dict[str, Graph | None] = {}

    def graph(self, kind: str) -> Any:
        """One of the graphs; None for one that changes a tensor or its gradient."""
        if kind not in self.graphs:
            avals = self.given * 2 if kind == "push" else self.given
            if kind == "bwd":
                outs = [aval(v) for v in self.graph("fwd").outputs]
                avals = [*outs[self.n_out :], *outs[: self.n_out]]
            t = Trace(state.interpreter, self.home)
            t.rule = True
            args, more = ([Tensor(Var(tuple(v[0]), v[1]), t, v[1]) for v in vs] for vs in (avals, map(aval, self.extra)))
            t.view.update((id(e), (v.payload, None)) for e, v in zip(self.extra, more, strict=True))
            inputs = [v.payload for v in (*args, *more)]
            with grad_mode(True), interpreting(t):
                payloads = [t.lift(o)[0] for o in self.functions[kind](*args)]
            t.closed = True
            places = [*range(len(more)), *(self._place(e[0]) for e in t.captured.values())]
            inputs += [e[1] for e in t.captured.values()]
            graph = self.graphs[kind] = None if t.written or t.leaves_grads() else finish(t.equations, inputs, payloads, kind)
            if graph is not None:
                graph.cache["extra"] = places
            elif not self.open:
                raise RuntimeError(f"{self.name}: a rule inside of another one changes a tensor from outside; return what it should be")
        return self.graphs[kind]

    def _place(self, t: Tensor) -> int:
        """Where in `extra` a tensor is that a function read. What it makes of numbers is another tensor each time, of the same value."""
        if not self.open:
            for i, e in enumerate(self.extra if hasattr(t.xp, "asarray") else ()):
                if hasattr(e.xp, "asarray") and aval(e) == aval(t) and e.xp.to_numpy(e.payload).tobytes() == t.xp.to_numpy(t.payload).tobytes():
                    return i
            raise RuntimeError(f"{self.name}: {describe(t)} is read from outside only when the rule is differentiated; hand it over as an argument")
        self.extra.append(t)
        return len(self.extra) - 1

    def run(self, kind: str, operands: Sequence[Tensor], extra: Sequence[Tensor]) -> list[Tensor]:
        """One of the graphs on Tensors, in the current context."""
        graph = self.graph(kind)
        return _run(graph, [*operands, *(extra[i] for i in graph.cache["extra"])])


def _run(graph: Graph, xs: Sequence[Tensor]) -> list[Tensor]:
    with using(home(xs[0].xp)):  # where its numbers become tensors
        return run_graph(graph, xs)


class _Wide(Rule):
    """The rule of a call inside vmap, for the level outside: cotangents of what all lanes share are summed over them."""

    def __init__(self, rule: Rule, size: int, batched: Sequence[bool]):
        self.rule, self.size, self.batched = rule, size, list(batched)
        self.name, self.n, self.n_out, self.back, self.graphs = rule.name, rule.n, rule.n_out, rule.back, {}

    def graph(self, kind: str) -> Any:
        """The graph over a leading batch axis."""
        if kind not in self.graphs:
            inner, own = self.rule.graph(kind), self.batched[: self.n]
            extra = [self.batched[self.n + i] for i in inner.cache["extra"]]
            flags = own * 2 if kind == "push" else [True] * (len(inner.inputs) - len(extra)) if kind == "bwd" else own
            wide, _ = batched_graph(inner, self.size, flags + extra, [True] * len(inner.outputs))
            if kind == "bwd":
                held = [own[i] for i in self.back]
                add = lambda *xs: [o if b else ns.sum(o, axis=(0,), keepdims=False) for o, b in zip(run_graph(wide, xs), held, strict=True)]
                wide = subgraph(lambda *xs: tuple(add(*xs)), [aval(v) for v in wide.inputs])[0]
            wide.cache["extra"] = inner.cache["extra"]
            self.graphs[kind] = wide
        return self.graphs[kind]


def apply_custom(operands: Sequence[Tensor], params: dict[str, Any]) -> list[Tensor]:
    """The custom primitive on Tensors, with its derivatives."""
    rule, body = params["rule"], params["body"]
    args, extra, residuals = operands[: rule.n], operands[rule.n :], len(body.outputs) > rule.n_out

    def apply(graph: Graph, xs: Sequence[Tensor]) -> list[Tensor]:
        if state.interpreter is None:
            return _run(graph, xs[: len(graph.inputs)])
        return list(bind(table["custom"], xs, {"body": graph, "rule": rule}))

    if not state.grad or all(node_of(t) is None for t in operands):
        return apply(body, operands)
    bare, fixed = [as_constant(t) for t in args], [as_constant(t) for t in extra]
    if all(node_of(t) is None for t in args):
        value = lambda xs: rule.run("fwd" if residuals else "value", args, xs)
        return attach(rule.name, extra, apply(body, [*bare, *fixed]), *_by_extra(fixed, value)) if in_body() else value(extra)
    tail = rule.run("fwd", args, fixed)[rule.n_out :] if residuals else []
    if rule.name == "custom_jvp":
        outs = apply(rule.graph("value"), [*bare, *fixed])
        return attach(rule.name, args, outs, *pushed(bare, lambda start, full: rule.run("push", [*start, *full], fixed)))
    found = apply(rule.graph("fwd"), [*bare, *fixed])
    outs, kept = found[: rule.n_out], found[rule.n_out :]

    def reverse(res: Any, cts: list[Any]) -> list[Any]:
        full = [zeros_like(o) if c is None else c for o, c in zip(outs, cts, strict=True)]
        got = rule.run("bwd", [*(kept if res is None else res), *full], fixed)
        places = dict(zip(rule.back, got, strict=True))
        return [places.get(i) for i in range(rule.n)]

    again = lambda start: rule.run("fwd", start, fixed)[rule.n_out :]
    return [*attach(rule.name, args, outs, *transposed(bare, outs, again, reverse)), *tail]


def _batch_custom(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    body, _ = batched_graph(params["body"], size, batched[: len(params["body"].inputs)], [True] * len(params["body"].outputs))
    return apply_custom(xs, {"body": body, "rule": _Wide(params["rule"], size, batched)})


LOOPS["custom"], table["custom"].batch = apply_custom, _batch_custom
