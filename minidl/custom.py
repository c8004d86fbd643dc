"""Derivatives of the user's own making: functions that become one node of the tape."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from minidl import tape, tree
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
from minidl.tracing import Trace, asarray_here, finish, subgraph
from minidl.transforms import _push, alias, as_constant, here, with_node, zeros_like


def _node(t: Any) -> Any:
    return here(t)[2] if isinstance(t, Tensor) and t.dtype.inexact else None


def _in_body() -> bool:
    """Whether a loop's or branch's function is traced, whose arguments may be differentiated later though they are on no tape yet."""
    level = state.interpreter
    while level is not None and not getattr(level, "body", False):
        level = level.parent
    return level is not None


def _conj(g: Any) -> Any:
    return ns.conj(g) if isinstance(g, Tensor) and g.dtype.is_complex else g


def _fitted(who: str, g: Any, what: str, like: Any) -> Tensor | None:
    """A cotangent or tangent that a rule returned for a Tensor, in the dtype of that; None where it is none, and so zero."""
    if g is None or not isinstance(like, Tensor) or not like.dtype.inexact:
        return None
    if not isinstance(g, (list, tuple, dict)):
        g = asarray_here(g)
        if g.shape == like.shape:
            g = ns.real(g) if g.dtype.is_complex and not like.dtype.is_complex else g
            return g if g.dtype is like.dtype else ns.cast(g, dtype=like.dtype)
    raise ValueError(f"{who} returned {describe(g) if isinstance(g, Tensor) else 'a ' + type(g).__name__} for {what} {describe(like)}")


def _attach(name: str, leaves: Sequence[Any], outs: list[Any], vjp: Callable[..., Any], jvp: Callable[..., Any]) -> list[Any]:
    """Give the float outputs of a call nodes whose derivatives are vjp and jvp over the tracked leaves."""
    nodes = [_node(t) for t in leaves]
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


class _Custom:
    """What functions with rules of their own share: eager, a call becomes a node of the tape; inside a trace or vmap it becomes an equation, whose
    rules are there for whoever differentiates what was traced (a loop, a level outside)."""

    rules: tuple[Callable[..., Any], ...] = ()
    _taped: Callable[..., Any]  # the call on the tape of this level
    _enter: Callable[..., bool]  # trace the rules of a call; False where one changes a tensor

    def __init__(self, f: Callable[..., Any], nondiff_argnums: int | Sequence[int] = ()):
        functools.update_wrapper(self, f, updated=())
        self.f = f
        self.nondiff = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kind = type(self).__name__
        if not self.rules:
            word = "def" + kind[7:]
            raise TypeError(f"{kind}: {getattr(self.f, '__name__', 'the function')} has no rule yet; call .{word}({', '.join(_RULES[kind])}) first")
        if kwargs or any(i >= len(args) for i in self.nondiff):
            bound = inspect.signature(self.f).bind(*args, **kwargs)
            bound.apply_defaults()
            args = (*bound.args, *bound.kwargs.values())
        if self.nondiff:
            return self._apart(args)
        leaves, structure = tree.flatten(args)
        if not state.grad or not any(isinstance(t, Tensor) for t in leaves):
            return self.f(*args)
        if state.interpreter is not None:
            found = self._recorded(leaves, structure)
            if found is not None:
                return found
        return self.f(*args) if all(_node(t) is None for t in leaves) else self._taped(leaves, structure)

    def _apart(self, args: Sequence[Any]) -> Any:
        """The call without the arguments that are not differentiated, which the rules get first."""
        if any(not -len(args) <= i < len(args) for i in self.nondiff):
            raise ValueError(f"{type(self).__name__}: nondiff_argnums {self.nondiff} but {len(args)} positional arguments came")
        fixed = {i % len(args): args[i] for i in self.nondiff}
        first = [args[i] for i in self.nondiff]

        def merged(f: Callable[..., Any]) -> Callable[..., Any]:
            def call(*rest: Any) -> Any:
                left = iter(rest)
                return f(*(fixed[i] if i in fixed else next(left) for i in range(len(args))))

            return call

        inner = type(self)(merged(self.f))
        *forward, last = self.rules
        inner.rules = (*map(merged, forward), functools.partial(last, *first))
        return inner(*(a for i, a in enumerate(args) if i not in fixed))

    def _recorded(self, leaves: list[Any], structure: Any) -> Any:
        """The call as an equation. None where it changes a tensor, or reads a tracked one besides arguments that nobody differentiates: then f is its
        own rule."""
        given = [t for t in leaves if isinstance(t, Tensor)]

        def fill(ts: Sequence[Any]) -> Any:
            left = iter(ts)
            return tree.unflatten(structure, [next(left) if isinstance(t, Tensor) else t for t in leaves])

        rule = _Rule(type(self).__name__, given)
        out_structure: list[Any] = []

        def value(*ts: Any) -> list[Any]:
            outs, found = tree.flatten(self.f(*fill(ts)))
            out_structure.append(found)
            return [asarray_here(o) for o in outs]

        rule.functions["value"] = value, [aval(t) for t in given]
        if not rule.graph("value"):
            return None
        rule.n_out = len(rule.graph("value").outputs)
        if not self._enter(rule, leaves, fill):
            return None
        if not _in_body() and all(_node(t) is None for t in given) and any(_node(t) is not None for t in rule.extra):
            return None
        rule.open = False
        return tree.unflatten(out_structure[0], apply_custom([*given, *rule.extra], {"body": rule.graph("value"), "rule": rule})[: rule.n_out])


class custom_vjp(_Custom):
    """A function with a reverse rule of its own.

    f.defvjp(fwd, bwd): fwd(*args) -> (out, residuals); bwd(residuals, cotangent) -> one cotangent (or None) per argument. Forward mode through
    it transposes bwd, which must be linear in the cotangent. Complex cotangents follow PyTorch's convention. nondiff_argnums: arguments (functions,
    settings) that have no cotangent, which bwd gets before the residuals.
    Raises TypeError when it is called before it has a rule or where bwd returns no tuple, ValueError for a cotangent of another shape.

    >>> f = md.custom_vjp(lambda x: x * 2.0)
    >>> f.defvjp(lambda x: (x * 2.0, None), lambda res, g: (g * 100.0,))
    >>> md.grad(f)(md.tensor(1.0)).item()
    100.0
    """

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Set the forward and the reverse rule."""
        self.rules = fwd, bwd

    def _reverse(self, leaves: Sequence[Any], args: Sequence[Any], outs: Sequence[Any], structure: Any, res: Any, cts: Sequence[Any]) -> list[Any]:
        """What bwd says, flat: one cotangent or None for each leaf."""
        full = [zeros_like(o) if c is None and isinstance(o, Tensor) else _conj(c) for o, c in zip(outs, cts, strict=True)]
        found = self.rules[1](res, tree.unflatten(structure, full))
        if not isinstance(found, tuple) or len(found) != len(args):
            raise TypeError(f"custom_vjp: bwd must return a tuple of {len(args)} cotangents, one per argument")
        flat = [g for a, g in zip(args, found, strict=True) for g in tree.matched("custom_vjp: bwd's cotangent", g, a)]
        return [_conj(_fitted("custom_vjp: bwd", g, "the argument", t)) for t, g in zip(leaves, flat, strict=True)]

    def _taped(self, leaves: list[Any], structure: Any) -> Any:
        bare = [as_constant(t) if isinstance(t, Tensor) else t for t in leaves]
        args = tree.unflatten(structure, leaves)
        fwd = self.rules[0]
        with grad_mode(False):
            out, residuals = fwd(*tree.unflatten(structure, bare))
        outs, out_structure = tree.flatten(out)

        def pull(res: Any, cts: list[Any]) -> list[Any]:
            if res is not None:
                return self._reverse(leaves, args, outs, out_structure, res[0], cts)
            with grad_mode(False):
                return self._reverse(leaves, args, outs, out_structure, residuals, cts)

        again = lambda start: (fwd(*tree.unflatten(structure, start))[1],)
        outs = [as_constant(o) if isinstance(o, Tensor) else o for o in outs]
        return tree.unflatten(out_structure, _attach("custom_vjp", leaves, outs, *_transposed(bare, outs, again, pull)))

    def _enter(self, rule: _Rule, leaves: list[Any], fill: Any) -> bool:
        fwd = self.rules[0]
        kept: dict[str, Any] = {}

        def forward(*ts: Any) -> list[Any]:
            out, res = fwd(*fill(ts))
            outs, kept["outs"] = tree.flatten(out)
            kept["res"], kept["structure"] = tree.flatten(res)
            return [asarray_here(o) for o in outs] + [r for r in kept["res"] if isinstance(r, Tensor)]

        def backward(*ts: Any) -> list[Any]:
            left = iter(ts)
            res = tree.unflatten(kept["structure"], [next(left) if isinstance(r, Tensor) else r for r in kept["res"]])
            cts = list(left)
            found = self._reverse(leaves, fill([t for t in leaves if isinstance(t, Tensor)]), cts, kept["outs"], res, cts)
            found = [g for t, g in zip(leaves, found, strict=True) if isinstance(t, Tensor)]
            rule.back = [i for i, g in enumerate(found) if isinstance(g, Tensor)]
            return [found[i] for i in rule.back]

        rule.functions["fwd"] = forward, rule.functions["value"][1]
        graph = rule.graph("fwd")
        if graph:
            outs = graph.outputs
            rule.functions["bwd"] = backward, [aval(v) for v in (*outs[rule.n_out :], *outs[: rule.n_out])]
        return bool(graph and rule.graph("bwd"))


class custom_jvp(_Custom):
    """A function with a forward rule of its own; reverse mode transposes it, so the rule must be linear in the tangents.

    f.defjvp(rule): rule(primals, tangents) -> (out, tangent out). nondiff_argnums: arguments that have no tangent, which the rule gets first.
    Raises TypeError when it is called before it has a rule.

    >>> f = md.custom_jvp(lambda x: md.sin(x))
    >>> _ = f.defjvp(lambda primals, tangents: (md.sin(primals[0]), tangents[0] * 5.0))
    >>> md.grad(f)(md.tensor(0.0)).item()
    5.0
    """

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Set the forward rule; usable as a decorator."""
        self.rules = (rule,)
        return rule

    def _moved(self, primals: Any, tangents: Any) -> tuple[list[Any], list[Any]]:
        """What the rule says, flat: outputs, and one tangent for each."""
        found = self.rules[0](primals, tangents)
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError("custom_jvp: the rule must return what the function gives and its tangent, a tuple of two")
        outs = tree.leaves(found[0])
        moved = zip(tree.matched("custom_jvp: the tangent", found[1], found[0]), outs, strict=True)
        fitted = [_fitted("custom_jvp: the rule", m, "the result", o) for m, o in moved]
        return outs, [zeros_like(o) if m is None and isinstance(o, Tensor) else m for m, o in zip(fitted, outs, strict=True)]

    def _taped(self, leaves: list[Any], structure: Any) -> Any:
        bare = [as_constant(t) if isinstance(t, Tensor) else t for t in leaves]
        with grad_mode(False):
            out = self.f(*tree.unflatten(structure, bare))
        outs, out_structure = tree.flatten(out)
        move = lambda start, full: self._moved(tree.unflatten(structure, start), tree.unflatten(structure, full))[1]
        outs = [as_constant(o) if isinstance(o, Tensor) else o for o in outs]
        return tree.unflatten(out_structure, _attach("custom_jvp", leaves, outs, *_pushed(bare, move)))

    def _enter(self, rule: _Rule, leaves: list[Any], fill: Any) -> bool:
        def push(*ts: Any) -> list[Any]:
            outs, moved = self._moved(fill(ts[: rule.n]), fill(ts[rule.n :]))
            return [zeros_like(asarray_here(o)) if m is None else m for o, m in zip(outs, moved, strict=True)]

        rule.functions["push"] = push, rule.functions["value"][1] * 2
        return bool(rule.graph("push"))


_RULES = {"custom_vjp": ("fwd", "bwd"), "custom_jvp": ("rule",)}


def _starting(bare: Sequence[Any], nodes: Sequence[Any]) -> list[Any]:
    return [with_node(t, n) if isinstance(t, Tensor) else t for t, n in zip(bare, nodes, strict=True)]


def _transposed(bare: Sequence[Any], outs: Sequence[Any], again: Any, reverse: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """vjp and jvp from a reverse rule: again(start) gives the residuals anew, reverse(residuals or None, cotangents) the cotangents."""

    def vjp(nodes: list[Any], cts: list[Any], tracked: bool) -> list[Any]:
        return reverse(again(_starting(bare, nodes)) if tracked else None, cts)

    def jvp(nodes: list[Any], tangents: list[Any]) -> list[Any]:
        """The tangent map is the transpose of bwd: pull the tangents back through a bwd run on cotangent variables."""
        res = again(_starting(bare, nodes))
        variables = [alias(zeros_like(o)) if isinstance(o, Tensor) and o.dtype.inexact else None for o in outs]
        with grad_mode(True):
            found = reverse(res, variables)
        pairs = [(g, t) for g, t in zip(found, tangents, strict=True) if isinstance(g, Tensor) and g.node is not None and t is not None]
        targets = [v.node for v in variables if v is not None]
        moved = iter(pullback("custom_vjp", [(g.node, t) for g, t in pairs], targets, retain=True) if pairs else [None] * len(targets))
        return [next(moved) if v is not None else None for v in variables]

    return vjp, jvp


def _pushed(bare: Sequence[Any], move: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """vjp and jvp from a forward rule: move(primals, tangents) gives the tangents of the outputs."""

    def run(nodes: list[Any], tangents: list[Any]) -> list[Any]:
        full = [(zeros_like(t) if d is None else d) if isinstance(t, Tensor) else d for t, d in zip(bare, tangents, strict=True)]
        return move(_starting(bare, nodes), full)

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
        variables = [alias(t) if t.dtype.inexact else t for t in _starting(extra, nodes)]
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


# ---- inside traces and vmaps --------------------------------------------------------------------------------------------------------------
class _Rule:
    """The rules of one call as graphs. Each takes its own inputs and then `extra`, the tensors that value or rules read from outside: "value" takes
    the arguments; "fwd" too, and gives the residuals besides; "bwd" takes residuals and cotangents and gives those of the arguments `back`; "push"
    takes arguments and tangents. For higher orders they are traced again (deep), so that functions with rules inside them keep these."""

    def __init__(self, name: str, given: Sequence[Tensor]):
        self.name, self.n, self.n_out, self.back, self.home = name, len(given), 0, list[int](), home(given[0].xp)
        self.functions: dict[str, tuple[Callable[..., list[Any]], list[Any]]] = {}
        self.extra: list[Tensor] = []
        self.open = True  # while `extra` may grow
        self.graphs: dict[tuple[str, bool], Graph | None] = {}

    def graph(self, kind: str, deep: bool = False) -> Any:
        """One of the graphs; None for one that changes a tensor."""
        if (kind, deep) not in self.graphs:
            f, avals = self.functions[kind]
            t = Trace(state.interpreter, self.home)
            args, more = ([Tensor(Var(tuple(v[0]), v[1]), t, v[1]) for v in vs] for vs in (avals, map(aval, self.extra)))
            t.view.update((id(e), (v.payload, None)) for e, v in zip(self.extra, more, strict=True))
            with interpreting(t), grad_mode(deep):
                payloads = [t.lift(o)[0] for o in f(*args)]
            t.closed = True
            places = [*range(len(more)), *(self._place(e[0]) for e in t.captured.values())]
            inputs = [v.payload for v in (*args, *more)] + [e[1] for e in t.captured.values()]
            graph = self.graphs[kind, deep] = None if t.written else finish(t.equations, inputs, payloads, kind)
            if graph is not None:
                graph.cache["extra"] = places
        return self.graphs[kind, deep]

    def _place(self, t: Tensor) -> int:
        """Where in `extra` a tensor is that a function read. What it makes of numbers is another tensor each time, of the same value."""
        if not self.open:
            for i, e in enumerate(self.extra if hasattr(t.xp, "asarray") else ()):
                if hasattr(e.xp, "asarray") and aval(e) == aval(t) and e.xp.to_numpy(e.payload).tobytes() == t.xp.to_numpy(t.payload).tobytes():
                    return i
            raise RuntimeError(f"{self.name}: {describe(t)} is read from outside only when the rule is differentiated; hand it over as an argument")
        self.extra.append(t)
        return len(self.extra) - 1

    def run(self, kind: str, operands: Sequence[Tensor], extra: Sequence[Tensor], deep: bool) -> list[Tensor]:
        """One of the graphs on Tensors, in the current context."""
        graph = self.graph(kind, deep)
        return _run(graph, [*operands, *(extra[i] for i in graph.cache["extra"])])


def _run(graph: Graph, xs: Sequence[Tensor]) -> list[Tensor]:
    with using(home(xs[0].xp)):  # where its numbers become tensors
        return run_graph(graph, xs)


class _Wide(_Rule):
    """The rule of a call inside vmap, for the level outside: cotangents of what all lanes share are summed over them."""

    def __init__(self, rule: _Rule, size: int, batched: Sequence[bool]):
        self.rule, self.size, self.batched = rule, size, list(batched)
        self.name, self.n, self.n_out, self.back, self.graphs = rule.name, rule.n, rule.n_out, rule.back, {}

    def graph(self, kind: str, deep: bool = False) -> Any:
        """The graph over a leading batch axis."""
        if (kind, deep) not in self.graphs:
            inner, own = self.rule.graph(kind, deep), self.batched[: self.n]
            extra = [self.batched[self.n + i] for i in inner.cache["extra"]]
            flags = own * 2 if kind == "push" else [True] * (len(inner.inputs) - len(extra)) if kind == "bwd" else own
            wide, _ = batched_graph(inner, self.size, flags + extra, [True] * len(inner.outputs))
            if kind == "bwd":
                held = [own[i] for i in self.back]
                add = lambda *xs: [o if b else ns.sum(o, axis=(0,), keepdims=False) for o, b in zip(run_graph(wide, xs), held, strict=True)]
                wide = subgraph(lambda *xs: tuple(add(*xs)), [aval(v) for v in wide.inputs])[0]
            wide.cache["extra"] = inner.cache["extra"]
            self.graphs[kind, deep] = wide
        return self.graphs[kind, deep]


def apply_custom(operands: Sequence[Tensor], params: dict[str, Any]) -> list[Tensor]:
    """The custom primitive on Tensors, with its derivatives."""
    rule, body = params["rule"], params["body"]
    args, extra, residuals = operands[: rule.n], operands[rule.n :], len(body.outputs) > rule.n_out

    def apply(graph: Graph, xs: Sequence[Tensor]) -> list[Tensor]:
        if state.interpreter is None:
            return _run(graph, xs[: len(graph.inputs)])
        return list(bind(table["custom"], xs, {"body": graph, "rule": rule}))

    if not state.grad or all(_node(t) is None for t in operands):
        return apply(body, operands)
    bare, fixed = [as_constant(t) for t in args], [as_constant(t) for t in extra]
    if all(_node(t) is None for t in args):
        value = lambda xs: rule.run("fwd" if residuals else "value", args, xs, True)
        return _attach(rule.name, extra, apply(body, [*bare, *fixed]), *_by_extra(fixed, value)) if _in_body() else value(extra)
    tail = rule.run("fwd", args, fixed, True)[rule.n_out :] if residuals else []
    if rule.name == "custom_jvp":
        outs = apply(rule.graph("value"), [*bare, *fixed])
        return _attach(rule.name, args, outs, *_pushed(bare, lambda start, full: rule.run("push", [*start, *full], fixed, True)))
    found = apply(rule.graph("fwd"), [*bare, *fixed])
    outs, kept = found[: rule.n_out], found[rule.n_out :]

    def reverse(res: Any, cts: list[Any]) -> list[Any]:
        full = [zeros_like(o) if c is None else c for o, c in zip(outs, cts, strict=True)]
        got = rule.run("bwd", [*(kept if res is None else res), *full], fixed, res is not None)
        places = dict(zip(rule.back, got, strict=True))
        return [places.get(i) for i in range(rule.n)]

    again = lambda start: rule.run("fwd", start, fixed, True)[rule.n_out :]
    return [*_attach(rule.name, args, outs, *_transposed(bare, outs, again, reverse)), *tail]


def _batch_custom(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    body, _ = batched_graph(params["body"], size, batched[: len(params["body"].inputs)], [True] * len(params["body"].outputs))
    return apply_custom(xs, {"body": body, "rule": _Wide(params["rule"], size, batched)})


LOOPS["custom"], table["custom"].batch = apply_custom, _batch_custom
