"""The functions of loops and branches as graphs: traced, run on Tensors, and differentiated in either mode.

Promises: a body is traced once; what each step would compute alike is computed in front of the loop, where that takes no more memory. What a body
stores in its operands in place stays in the body, eager and traced; what it stores in a tensor from outside is stored there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidl import tape, tree
from minidl.batching import LOOPS
from minidl.context import grad_mode, state
from minidl.control.reach import reached, those
from minidl.dtypes import DType, bool_
from minidl.graph import Equation, Graph, Var
from minidl.passes import inlined
from minidl.primitives import table
from minidl.tensors import Tensor, assign_alone, bind, describe, ns
from minidl.tracing import asarray_here, innermost, subgraph, subgraph_writing
from minidl.transforms import _push, alias, as_constant, here, twin, with_node, zeros_like

Aval = tuple[tuple[int, ...], DType]


def aval(t: Any) -> Aval:
    """The shape and dtype of a Tensor or a variable."""
    return tuple(t.shape), t.dtype


def tensors(x: Any) -> tuple[list[Tensor], tree.Structure]:
    """The leaves of a pytree as Tensors of the current context, and its structure."""
    leaves, structure = tree.flatten(x)
    return [asarray_here(v) if state.interpreter is not None else eager(v) for v in leaves], structure


def eager(v: Any) -> Any:
    """A Tensor of a number or an array, where no interpreter is at work."""
    if isinstance(v, Tensor) or state.interpreter is not None:
        return v
    from minidl.ops import asarray

    return asarray(v)


def own(x: Any) -> Any:
    """A pytree with Tensors of their own, as a trace has them: what a body stores in its operands reaches nobody else, nor what is stored in its
    results."""
    if x.__class__ is tuple:
        return tuple([own(v) for v in x])
    return twin(x) if isinstance(x, Tensor) else tree.map(twin, x)


def run_graph(graph: Graph, args: Sequence[Tensor]) -> list[Tensor]:
    """A graph on Tensors, equation by equation, in the current context."""

    def apply(primitive: Any, inputs: list[Any], params: dict[str, Any]) -> Any:
        again = LOOPS.get(primitive.name)
        return again(inputs, params) if again is not None else bind(primitive, inputs, params)

    return graph.run(apply, list(args), lambda c: ns.full(shape=(), value=c.value, dtype=c.dtype))


def bound(name: str, operands: Sequence[Tensor], params: dict[str, Any]) -> list[Tensor]:
    """The primitive itself on Tensors; what runs at once does so without what is there for derivatives alone."""
    if state.interpreter is None:
        run = lambda v: inlined(v) if isinstance(v, Graph) else v
        params = {k: tuple(map(run, v)) if isinstance(v, tuple) else run(v) for k, v in params.items()}
    return list(bind(table[name], operands, params))


def derived(build: Callable[..., list[Any]], avals: Sequence[Aval]) -> Graph:
    """The graph of a function on Tensors; its outputs must all be Tensors."""
    graph, extra, _ = subgraph(lambda *xs: tuple(build(*xs)), avals)
    assert not extra, "a derived body reads nothing from outside"
    return graph


def node_of(t: Tensor) -> Any:
    """The place of a Tensor on the tape of the current context."""
    return here(t)[2]


def applied(name: str, operands: Sequence[Tensor], params: dict[str, Any], vjp: Callable[..., Any], jvp: Callable[..., Any]) -> list[Tensor]:
    """Apply a loop primitive; if an operand is tracked, give its outputs nodes with these derivatives.

    vjp(operands, outputs, cotangents) and jvp(operands, tangents) compute on Tensors; None stands for zero.
    """
    nodes = [node_of(t) if t.dtype.inexact else None for t in operands]
    with grad_mode(state.grad):
        outs = bound(name, [as_constant(t) for t in operands], params)
    if not state.grad or all(n is None for n in nodes):
        return outs
    xp = outs[0].xp
    live = [i for i, n in enumerate(nodes) if n is not None]
    bare = [as_constant(t) for t in operands]
    kept = list(outs)

    def pull(cts: list[Any], tracked: bool) -> list[Any]:
        ins = [with_node(t, nodes[i]) if tracked else t for i, t in enumerate(bare)]
        with grad_mode(state.grad):
            found = vjp(ins, None if tracked else kept, cts)
        return [found[i] for i in live]

    def push(tangents: list[Any]) -> list[Any]:
        full: list[Any] = [None] * len(bare)
        for i, t in zip(live, tangents, strict=True):
            full[i] = t
        return jvp([with_node(t, nodes[i]) for i, t in enumerate(bare)], full)

    made = tape.opaque_nodes(xp, name, [nodes[i] for i in live], len(outs), pull, push)
    return [with_node(o, n) if o.dtype.inexact else o for o, n in zip(outs, made, strict=True)]


def jvp_graph(graph: Graph, moving: Sequence[bool], wanted: Sequence[bool]) -> Graph:
    """(inputs, tangents of the moving inputs) → (outputs, tangents of the wanted outputs)."""
    key = ("jvp", tuple(moving), tuple(wanted), state.strong)
    if key not in graph.cache:
        n = len(graph.inputs)

        def build(*xs: Tensor) -> list[Tensor]:
            primals, tangents = list(xs[:n]), list(xs[n:])
            fresh = [alias(p) if m else p for p, m in zip(primals, moving, strict=True)]
            with grad_mode(True):
                outs = run_graph(graph, fresh)
            pushed = _push(those(outs, wanted), those(fresh, moving), tangents)
            return [as_constant(o) for o in outs] + pushed

        graph.cache[key] = derived(build, [aval(v) for v in (*graph.inputs, *those(graph.inputs, moving))])
    return graph.cache[key]


def vjp_graph(graph: Graph, wanted: Sequence[bool], used: Sequence[bool]) -> Graph:
    """(inputs, cotangents of the used outputs) → cotangents of the wanted inputs."""
    key = ("vjp", tuple(wanted), tuple(used), state.strong)
    if key not in graph.cache:
        n = len(graph.inputs)

        def build(*xs: Tensor) -> list[Tensor]:
            fresh = [alias(x) if w else x for x, w in zip(xs[:n], wanted, strict=True)]
            with grad_mode(True):
                outs = those(run_graph(graph, fresh), used)
            return _pull(outs, xs[n:], those(fresh, wanted))

        graph.cache[key] = derived(build, [aval(v) for v in (*graph.inputs, *those(graph.outputs, used))])
    return graph.cache[key]


def _pull(outs: Sequence[Tensor], cts: Sequence[Tensor], aliases: Sequence[Tensor]) -> list[Tensor]:
    """Plain (unconjugated) cotangents of the aliases, zeros where nothing flows."""
    from minidl.autograd import pullback

    roots = [(o.node, c) for o, c in zip(outs, cts, strict=True) if o.node is not None]
    found = pullback("control flow", roots, [a.node for a in aliases], retain=True) if roots else [None] * len(aliases)
    return [zeros_like(a) if g is None else g for a, g in zip(aliases, found, strict=True)]


def same(name: str, before: Sequence[Tensor], after: Sequence[Any]) -> None:
    """Raise TypeError unless a carry keeps its number of tensors, their shapes and dtypes."""
    if len(before) != len(after):
        raise TypeError(f"{name}: the carry has {len(before)} tensors going in and {len(after)} coming out")
    for a, b in zip(before, after, strict=True):
        if tuple(a.shape) != tuple(b.shape) or a.dtype is not b.dtype:
            raise TypeError(f"{name}: the carry changes from {describe(a)} to {describe(b)}; it must keep its shape and dtype")


def _shortens(e: Equation) -> bool:
    return e.primitive.name == "cast" and e.outputs[0].dtype.inexact and e.outputs[0].dtype.bits < e.inputs[0].dtype.bits


class Traced:
    """A traced body: its graph, what it read from outside, and the outside tensors that it changed, which become part of the carry."""

    def __init__(self, name: str, f: Callable[..., Any], avals: Sequence[Aval], carry: Sequence[Tensor], loop: bool = True):
        self.graph, self.extra, self.structure, self.written = subgraph_writing(f, avals)
        n, w = len(avals), len(self.written)
        self.written_vars = self.graph.inputs[n : n + w]
        self.extra_vars = self.graph.inputs[n + w :]
        outs = self.graph.outputs
        split = len(outs) - w
        self.outputs = [*outs[split:], *outs[:split]]
        same(name, carry, outs[: len(carry)])
        if loop:
            self._hoist()

    def _hoist(self) -> None:
        """Compute before the loop what every step would compute alike, unless it is larger than what it is made from: a step's residuals then
        hold no copies of it. Not the cast to a shorter float: the steps' cotangents are added up in the dtype of what they share."""
        fixed, moved, kept = set(self.extra_vars), [], []
        for e in self.graph.equations:
            reads = {a for a in e.inputs if isinstance(a, Var)}
            if reads and reads <= fixed and not _shortens(e) and sum(v.nbytes for v in e.outputs) <= sum(v.nbytes for v in reads):
                fixed.update(e.outputs)
                moved.append(e)
            else:
                kept.append(e)
        if not moved:
            return
        used = {a for e in kept for a in e.inputs} | set(self.outputs)
        needed = [v for v in (*self.extra_vars, *(v for e in moved for v in e.outputs)) if v in used]
        self.extra = run_graph(Graph(self.extra_vars, moved, needed), self.extra)
        self.extra_vars = tuple(needed)
        self.graph = Graph([*(v for v in self.graph.inputs if v not in fixed), *needed], kept, self.graph.outputs, "body")

    def still(self) -> set[int]:
        """The ids of the changed tensors that have no place on the tape afterwards, as they had none: what is written there came through no_grad.
        None inside of another body, where nobody knows yet what will be differentiated."""
        trace = innermost()
        if trace is not None and (trace.body or trace.parent is not None):
            return set()
        before: set[Any] = set()
        found = {v for v, t in zip(self.written_vars, self.written, strict=True) if not _tracked(t)}
        constant = {v for v, t in zip(self.extra_vars, self.extra, strict=True) if not _tracked(t)}
        while found != before:
            live, before = reached(self.graph, set(self.graph.inputs) - found - constant), found
            found = {v for v, o in zip(self.written_vars, self.outputs, strict=False) if v in found and o not in live}
        return {id(t) for v, t in zip(self.written_vars, self.written, strict=True) if v in found}

    def store(self, values: Sequence[Tensor]) -> None:
        """Write the final values of the changed tensors."""
        still = self.still()
        for t, v in zip(self.written, values, strict=True):
            assign_alone(t, v.detach() if id(t) in still else v)


def _tracked(t: Any) -> bool:
    """Whether a tensor has a place on a tape: that of this level or, below the lanes of a vmap, of one outside."""
    if node_of(t) is not None or t.node is not None:
        return True
    lanes = getattr(t.payload, "inner", None)
    return isinstance(lanes, Tensor) and _tracked(lanes)


def one_bool(what: str, x: Tensor, integers: bool = False) -> None:
    """Raise TypeError unless a condition is one bool (or integer)."""
    if x.shape != () or not (x.dtype is bool_ or (integers and x.dtype.is_integer)):
        raise TypeError(f"{what} must be one bool, not {describe(x)}")


def holds(what: str, x: Any, integers: bool = False) -> bool:
    """Eager: whether a condition holds; it is refused where a trace would refuse it."""
    if isinstance(x, Tensor):
        one_bool(what, x, integers)
    return bool(x)
