"""What a call of a function with rules of its own is: on the tape a node, and inside traces and vmaps an equation with its rules as graphs.

custom.py has the functions that users meet. Here is what runs their rules: in reverse, forward (each is the transpose of the other), over the lanes
of a vmap, and again for higher orders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidl.autograd import home
from minidl.bodies import Tensors, attach, aval, batched_graph, closed, node_of, run_graph
from minidl.context import grad_mode, interpreting, levels, setting, state
from minidl.graph import Equation, Graph, Var
from minidl.primitives import table
from minidl.tensors import Tensor, bind, describe, ns
from minidl.tracing import Trace, finish, innermost
from minidl.transforms import again as run_again
from minidl.transforms import alias, as_constant, pulled, zeros_like


def in_body() -> bool:
    """Whether a loop's or branch's function is traced, whose arguments may be differentiated later though they are on no tape yet."""
    return any(getattr(level, "body", False) for level in levels())


def in_rule() -> bool:
    """Whether a rule is traced, inside which others are traced when they are differentiated: one may call the function that it is of."""
    return any(getattr(level, "rule", False) for level in levels())


def transposed(outs: Sequence[Any], again: Any, reverse: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """vjp and jvp from a reverse rule: again(inputs) gives the residuals anew, reverse(residuals or None, cotangents) the cotangents."""

    def vjp(ins: list[Any], cts: list[Any], tracked: bool) -> list[Any]:
        with setting("transposing", False):  # what a user's rule differentiates is none of the tangents'
            return reverse(again(ins) if tracked else None, cts)

    def jvp(ins: list[Any], tangents: list[Any]) -> list[Any]:
        """The tangent map is the transpose of bwd: pull the tangents back through a bwd run on cotangent variables."""
        res, variables = again(ins), _variables(outs)
        with grad_mode(True):
            found = reverse(res, variables)
        return pulled("custom_vjp", found, tangents, variables)

    return vjp, jvp


def completed(cts: Sequence[Any], outs: Sequence[Any]) -> list[Any]:
    """The cotangents, and zeros for the tensors that have none. In a trace these come of the others: where none of those is read in the end, a rule's
    products with the zeros have no part in it, too."""

    given = [c for c in cts if c is not None and innermost() is not None]

    def zero(o: Tensor) -> Tensor:
        z = zeros_like(o)
        for c in given:
            z = ns.instead(ns.stop(c), z)
        return z

    return [zero(o) if c is None and isinstance(o, Tensor) else c for o, c in zip(outs, cts, strict=True)]


def from_forward(move: Any, value: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """vjp and jvp from a forward rule: move(inputs, tangents) gives the tangents of the outputs. A call that is met where a rule's tangents are
    transposed is linear, and may be of the rule's own function: its transpose is that of what value(inputs) computes, as in JAX."""

    def jvp(ins: list[Any], tangents: list[Any]) -> list[Any]:
        full = [(zeros_like(t) if d is None else d) if isinstance(t, Tensor) else d for t, d in zip(ins, tangents, strict=True)]
        return move(ins, full)

    def vjp(ins: list[Any], cts: list[Any], tracked: bool) -> list[Any]:
        variables = _variables(ins)
        if state.transposing:
            return run_again("custom_jvp", value, lambda: list(ins), [None if v is None else i for i, v in enumerate(variables)])[0](cts, tracked)
        with grad_mode(True), setting("transposing", None):
            moved = jvp(ins, variables)
        with setting("transposing", True):
            return pulled("custom_jvp", moved, cts, variables, tracked or None)

    return vjp, jvp


def _variables(like: Sequence[Any]) -> list[Any]:
    """New inputs of a linear map, for the tensors that have a derivative."""
    return [alias(zeros_like(t)) if isinstance(t, Tensor) and t.dtype.inexact else None for t in like]


def _by_extra(value: Callable[[list[Tensor]], list[Tensor]]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """vjp and jvp by what a function reads from outside, as value(extra) has them."""
    rules = lambda extra: run_again("custom", value, lambda: list(extra), [i if t.dtype.inexact else None for i, t in enumerate(extra)])
    return lambda ins, cts, tracked: rules(ins)[0](cts, tracked), lambda ins, tangents: rules(ins)[1](tangents)


class Rule:
    """The rules of one call as graphs. Each takes its own inputs and then `extra`, the tensors that value or rules read from outside: "value" takes
    the arguments; "fwd" too, and gives the residuals besides; "bwd" takes residuals and cotangents and gives those of the arguments `back`; "push"
    takes arguments and tangents."""

    def __init__(self, name: str, given: Tensors):
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
            t.view.update((id(e), (v.payload, t.tracked(e.node))) for e, v in zip(self.extra, more, strict=True))
            inputs = [v.payload for v in (*args, *more)]
            with grad_mode(True), interpreting(t):
                payloads = [t.lift(o)[0] for o in self.functions[kind](*args)]
            t.closed = True
            known: list[Equation] = []  # what the graph reads as tensors that it is given
            for tensor, v, *_ in t.captured.values():
                i = self._place(tensor)
                if i < len(more):
                    known.append(Equation(table["stop"], (more[i].payload,), {}, (v,)))
                else:
                    inputs.append(v)
            graph = self.graphs[kind] = None if t.written or t.leaves_grads() else finish([*known, *t.equations], inputs, payloads, kind)
            if graph is not None:
                graph.cache["extra"] = range(len(inputs) - len(args))
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

    def run(self, kind: str, operands: Tensors, extra: Tensors) -> list[Tensor]:
        """One of the graphs on Tensors, in the current context."""
        graph = self.graph(kind)
        return run_graph(graph, [*operands, *(extra[i] for i in graph.cache["extra"])])


class _Wide(Rule):
    """The rule of a call inside vmap, for the level outside: cotangents of what all lanes share are summed over them."""

    def __init__(self, rule: Rule, size: int, batched: Sequence[bool]):
        self.rule, self.size, self.batched = rule, size, list(batched)
        self.name, self.n, self.n_out, self.back, self.graphs = rule.name, rule.n, rule.n_out, rule.back, {}
        self.outside, self.made = len(self.batched) - self.n, list[Tensor]()  # what is read from outside, and then what batching rules made

    def graph(self, kind: str) -> Any:
        """The graph over a leading batch axis."""
        if kind not in self.graphs:
            inner, own = self.rule.graph(kind), self.batched[: self.n]
            extra = [self.batched[self.n + i] for i in inner.cache["extra"]]
            flags = own * 2 if kind == "push" else [True] * (len(inner.inputs) - len(extra)) if kind == "bwd" else own
            wide, _ = batched_graph(inner, self.size, flags + extra, [True] * len(inner.outputs))
            first = self.outside + len(self.made)
            places = [*inner.cache["extra"], *range(first, first + len(wide.captured))]
            self.made += wide.captured
            if kind == "bwd":
                held = [own[i] for i in self.back]
                add = lambda *xs: [o if b else ns.sum(o, axis=(0,), keepdims=False) for o, b in zip(run_graph(wide, xs), held, strict=True)]
                wide = closed(add, [aval(v) for v in wide.inputs])
            wide.cache["extra"] = places
            self.graphs[kind] = wide
        return self.graphs[kind]

    def run(self, kind: str, operands: Tensors, extra: Tensors) -> list[Tensor]:
        """One of the graphs on Tensors; what its batching rules make only now is no operand yet."""
        self.graph(kind)
        return super().run(kind, operands, [*extra, *self.made[len(extra) - self.outside :]])


def apply_custom(operands: Tensors, params: dict[str, Any]) -> list[Tensor]:
    """The custom primitive on Tensors, with its derivatives."""
    rule, body = params["rule"], params["body"]
    args, extra, residuals = operands[: rule.n], operands[rule.n :], len(body.outputs) > rule.n_out

    def apply(graph: Graph, xs: Tensors) -> list[Tensor]:
        if state.interpreter is None:
            return run_graph(graph, xs[: len(graph.inputs)])
        return list(bind(table["custom"], xs, {"body": graph, "rule": rule}, plain=True))

    if not state.grad or all(node_of(t) is None for t in operands):
        return apply(body, operands)
    bare, fixed = [as_constant(t) for t in args], [as_constant(t) for t in extra]
    if all(node_of(t) is None for t in args):
        value = lambda xs: rule.run("fwd" if residuals else "value", args, xs)
        return attach(rule.name, extra, apply(body, [*bare, *fixed]), *_by_extra(value)) if in_body() or in_rule() else value(extra)
    tail = rule.run("fwd", args, fixed)[rule.n_out :] if residuals else []
    if rule.name == "custom_jvp":
        outs, push = apply(rule.graph("value"), [*bare, *fixed]), lambda start, full: rule.run("push", [*start, *full], fixed)
        return attach(rule.name, args, outs, *from_forward(push, lambda start: rule.run("value", start, fixed)))
    found = apply(rule.graph("fwd"), [*bare, *fixed])
    outs, kept = found[: rule.n_out], found[rule.n_out :]

    def reverse(res: Any, cts: list[Any]) -> list[Any]:
        got = rule.run("bwd", [*(kept if res is None else res), *completed(cts, outs)], fixed)
        places = dict(zip(rule.back, got, strict=True))
        return [places.get(i) for i in range(rule.n)]

    again = lambda start: rule.run("fwd", start, fixed)[rule.n_out :]
    return [*attach(rule.name, args, outs, *transposed(outs, again, reverse)), *tail]


def _batch_custom(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    rule, inner, n = _Wide(params["rule"], size, batched), params["body"], len(params["body"].inputs)
    body, _ = batched_graph(inner, size, batched[:n], [True] * len(inner.outputs))
    if made := body.captured:
        rule.made += made
        body = Graph([*body.inputs[:n], *(Var(x.shape, x.dtype) for x in xs[n:]), *body.inputs[n:]], body.equations, body.outputs, body.name)
    if state.interpreter is not None:  # a body, whose derivatives read nothing from outside, or another vmap
        for kind in params["rule"].graphs:
            rule.graph(kind)
    return apply_custom([*xs, *rule.made], {"body": body, "rule": rule})


table["custom"].apply, table["custom"].batch = apply_custom, _batch_custom
