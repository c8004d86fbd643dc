"""Functions as graphs, for primitives that carry them in their params, as loops and branches do, and functions with rules of their own: traced, run
on Tensors, differentiated, batched, cut in two.

Promises: a function is traced once, and each graph that is derived from it is made once for the settings in force; every level of tracing and vmap
sees the primitive with its derivative, which is computed on Tensors in either mode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import Any

from minidl import tape, tree
from minidl.autograd import home
from minidl.backends import using
from minidl.batching import Batched, Level
from minidl.context import autocasting, busy, grad_mode, interpreting, state
from minidl.dtypes import Defaults, DType
from minidl.graph import Equation, Graph, Var
from minidl.passes import inlined
from minidl.primitives import Primitive, table
from minidl.tensors import Tensor, assign_alone, bind, ns
from minidl.tracing import Trace, asarray_here, finish, innermost
from minidl.transforms import _push, alias, as_constant, here, pulled, with_node, zeros_like

Aval = tuple[tuple[int, ...], DType]
Tensors = Sequence[Tensor]


def settings() -> tuple[Any, ...]:
    """What holds in this thread that a graph which is traced now depends on: part of the key for whoever keeps it. The last says whether a rule's
    tangents are transposed, so that custom functions are linear and what they compute is; None while they are recorded for that.

    >>> before = md.extend.settings()
    >>> with md.strong_zero():
    ...     md.extend.settings() == before
    False
    """
    return state.strong, state.bounds, Defaults.floating, Defaults.strict, state.transposing


def aval(t: Any) -> Aval:
    """The shape and dtype of a Tensor or a variable.

    >>> md.extend.aval(md.ones((2, 3)))
    ((2, 3), minidl.float32)
    """
    return tuple(t.shape), t.dtype


def node_of(t: Any) -> Any:
    """The place of a float Tensor on the tape of the current context; None for anything else."""
    return here(t)[2] if isinstance(t, Tensor) and t.dtype.inexact else None


def now(t: Any) -> Any:
    """What a Tensor, which others may change, holds now in the current context; another value as it is."""
    if not isinstance(t, Tensor):
        return t
    payload, xp, node = here(t)
    return Tensor(payload, xp, t.dtype, node)


# ---- from a function to a graph -------------------------------------------------------------------------------------------------------------
class Body:
    """A function of Tensors as a graph, traced in the current context on new symbols of these shapes and dtypes.

    graph: its inputs are the symbols, then `written`, then `read`, the Tensors from outside that f changes and those that it only reads; its outputs
    the leaves of what f returns, whose structure is `structure`, and then what `written` are in the end. Raises RuntimeError where f sets the .grad
    of a leaf that is made inside.

    >>> weight, calls = md.tensor(3.0), md.zeros(())
    >>> def f(x):
    ...     calls.assign(calls + 1.0)
    ...     return x * weight
    >>> body = md.extend.Body(f, [((), md.float32)])
    >>> body.read[0] is weight, body.written[0] is calls
    (True, True)
    >>> [v.item() for v in body.graph(md.tensor(2.0), calls, weight)]
    [6.0, 1.0]
    """

    def __init__(self, f: Callable[..., Any], avals: Sequence[Aval]):
        inner = Trace(state.interpreter)
        inner.body = True
        symbols = [Var(tuple(s), d) for s, d in avals]
        with interpreting(inner):
            leaves, self.structure = tree.flatten(f(*(Tensor(v, inner, v.dtype) for v in symbols)))
            payloads = [inner.lift(asarray_here(v))[0] for v in leaves]
            self.written = list(inner.written.values())
            payloads += [inner.lift(t)[0] for t in self.written]
        inner.closed = True
        if inner.leaves_grads():
            raise RuntimeError("control flow: .grad was set inside a loop or branch; return the gradients (md.grad) and carry them instead")
        changed = [inner.captured[id(t)][1] for t in self.written]
        only_read = [e for k, e in inner.captured.items() if k not in inner.written]
        self.read: list[Tensor] = [e[0] for e in only_read]
        self.graph = finish(inner.equations, symbols + changed + [e[1] for e in only_read], payloads, "body")

    def store(self, values: Tensors, *others: Body) -> None:
        """Give `written`, and what others write (branches, of which one runs), the values that they have in the end."""
        bodies = (self, *others)
        moved: set[int] = set().union(*(b._moved() for b in bodies))
        written = {id(t): t for b in bodies for t in b.written}
        for (i, t), v in zip(written.items(), values, strict=True):
            assign_alone(t, v if i in moved else v.detach())

    def _moved(self) -> set[int]:
        """The ids of `written` but for those that have no place on the tape afterwards, as they had none: what is written there came through no_grad.
        All of them inside of another body, where nobody knows yet what will be differentiated."""
        trace = innermost()
        if trace is not None and (trace.body or trace.parent is not None):
            return {*map(id, self.written)}
        w, n = len(self.written), len(self.graph.inputs) - len(self.read) - len(self.written)
        inputs, ends = self.graph.inputs[n : n + w], self.graph.outputs[len(self.graph.outputs) - w :]
        before: set[Any] = set()
        still = {v for v, t in zip(inputs, self.written, strict=True) if not _tracked(t)}
        constant = {v for v, t in zip(self.graph.inputs[n + w :], self.read, strict=True) if not _tracked(t)}
        while still != before:
            live, before = reached(self.graph, set(self.graph.inputs) - still - constant), still
            still = {v for v, o in zip(inputs, ends, strict=True) if v in still and o not in live}
        return {id(t) for v, t in zip(inputs, self.written, strict=True) if v not in still}


def _tracked(t: Any) -> bool:
    """Whether a tensor has a place on a tape: that of this level or, below the lanes of a vmap, of one outside."""
    if node_of(t) is not None or t.node is not None:
        return True
    lanes = getattr(t.payload, "inner", None)
    return isinstance(lanes, Tensor) and _tracked(lanes)


def reached(graph: Graph, live: Iterable[Any]) -> set[Any]:
    """These variables of a graph, and what has a derivative with respect to them.

    >>> graph = md.trace(lambda x, y: (x * y, md.stop_gradient(x) + y))(md.tensor(1.0), md.tensor(2.0))
    >>> found = md.extend.reached(graph, graph.inputs[:1])
    >>> [v in found for v in graph.outputs]
    [True, False]
    """
    found = set(live)
    for e in graph.equations:
        name = e.primitive.name
        if name != "stop" and not found.isdisjoint(e.inputs[:1] if name == "instead" else e.inputs):
            found.update(v for v in e.outputs if v.dtype.inexact)
    return found


def closed(f: Callable[..., Any], avals: Sequence[Aval]) -> Graph:
    """The graph of a function that reads nothing but its arguments, which are Tensors as its results are."""
    body = Body(lambda *xs: tuple(f(*xs)), avals)
    assert not (body.read or body.written), "a derived body reads nothing from outside"
    return body.graph


# ---- graphs on Tensors ------------------------------------------------------------------------------------------------------------------------
def run_graph(graph: Graph, args: Tensors) -> list[Tensor]:
    """A graph on Tensors, equation by equation, in the current context and in the dtypes that it shows."""
    if busy[0] and state.autocast is not None:
        with autocasting(None):
            return run_graph(graph, args)
    xp = state.interpreter
    with _on(args):
        number = lambda c: ns.full(shape=(), value=c.value, dtype=c.dtype) if xp is None else Tensor(xp.scalar(c.value, c.dtype), xp, c.dtype)
        return graph.run(bind, list(args), number)


def _on(args: Tensors) -> contextlib.AbstractContextManager[Any]:
    """Where numbers become tensors."""
    return using(home(args[0].xp)) if args and state.interpreter is None else contextlib.nullcontext()


def attach(name: str, inputs: Sequence[Any], outs: Sequence[Any], vjp: Callable[..., Any], jvp: Callable[..., Any]) -> list[Any]:
    """The results of a call, the floats among them with a place on the tape if an input has one.

    vjp(inputs, cotangents, tracked) gives one cotangent for each input, jvp(inputs, tangents) one tangent for each result; both on Tensors, None
    being zero. They get the inputs as they are now, with their places if the derivative is differentiated in turn, as `tracked` says.
    """
    nodes = [node_of(t) for t in inputs]
    live = [i for i, n in enumerate(nodes) if n is not None]
    floats = [i for i, o in enumerate(outs) if isinstance(o, Tensor) and o.dtype.inexact]
    if not (state.grad and live and floats):
        return list(outs)
    bare = [*map(as_constant, inputs)]
    xp = here(outs[floats[0]])[1]
    start = lambda tracked: [with_node(t, n if tracked else None) if isinstance(t, Tensor) else t for t, n in zip(bare, nodes, strict=True)]

    def pull(cts: list[Any], tracked: bool) -> list[Any]:
        full: list[Any] = [None] * len(outs)
        for i, c in zip(floats, cts, strict=True):
            full[i] = c
        with using(home(xp)):  # where zeros are made
            found = vjp(start(tracked), full, tracked)
        return [found[i] for i in live]

    def push(tangents: list[Any]) -> list[Any]:
        full: list[Any] = [None] * len(bare)
        for i, t in zip(live, tangents, strict=True):
            full[i] = t
        with using(home(xp)):
            moved = jvp(start(True), full)
        return [moved[i] for i in floats]

    made = iter(tape.opaque_nodes(xp, name, [nodes[i] for i in live], len(floats), pull, push))
    return [Tensor(*here(o)[:2], o.dtype, next(made)) if i in floats else o for i, o in enumerate(outs)]


def apply(primitive: Primitive, derive: Callable[..., Any], operands: Tensors, params: dict[str, Any]) -> tuple[Tensor, ...]:
    """A primitive with graphs on Tensors, which `derive` says the derivative of; see md.extend.define."""
    live = [node_of(t) is not None for t in operands]
    if not (state.grad and any(live)):
        return _plain(primitive, operands, params)
    with _on(operands):
        given, more, vjp, jvp = derive(operands, live, params)
    outs = _plain(primitive, [*map(as_constant, given)], more)
    own = outs[: len(primitive.infer(*operands, **params))]
    return tuple(attach(primitive.name, given, own, lambda ins, cts, tracked: vjp(ins, None if tracked else outs, cts), jvp))


def _plain(primitive: Primitive, operands: Tensors, params: dict[str, Any]) -> tuple[Tensor, ...]:
    """What runs at once does so without what is there for derivatives alone."""
    if state.interpreter is None:
        run = lambda v: inlined(v) if isinstance(v, Graph) else v
        params = {k: tuple(map(run, v)) if isinstance(v, tuple) else run(v) for k, v in params.items()}
    return bind(primitive, operands, params, plain=True)


# ---- from a graph to others ---------------------------------------------------------------------------------------------------------------------
def jvp_graph(graph: Graph, moving: Sequence[bool], wanted: Sequence[bool]) -> Graph:
    """The graph (inputs, tangents of the moving inputs) → (outputs, tangents of the wanted outputs).

    >>> graph = md.trace(lambda x: md.sin(x))(md.tensor(0.0))
    >>> [v.item() for v in md.extend.jvp_graph(graph, [True], [True])(md.tensor(0.0), md.tensor(5.0))]
    [0.0, 5.0]
    """
    key = ("jvp", tuple(moving), tuple(wanted), settings())
    if key not in graph.cache:
        n = len(graph.inputs)

        def build(*xs: Tensor) -> list[Tensor]:
            fresh = [alias(p) if m else p for p, m in zip(xs[:n], moving, strict=True)]
            with grad_mode(True):
                outs = run_graph(graph, fresh)
            return [as_constant(o) for o in outs] + _push([*compress(outs, wanted)], [*compress(fresh, moving)], xs[n:])

        graph.cache[key] = closed(build, [aval(v) for v in (*graph.inputs, *compress(graph.inputs, moving))])
    return graph.cache[key]


def vjp_graph(graph: Graph, wanted: Sequence[bool], used: Sequence[bool]) -> Graph:
    """The graph (inputs, cotangents of the used outputs) → cotangents of the wanted inputs, plain (unconjugated) ones.

    >>> graph = md.trace(lambda x, y: x * y)(md.tensor(2.0), md.tensor(3.0))
    >>> [v.item() for v in md.extend.vjp_graph(graph, [True, False], [True])(md.tensor(2.0), md.tensor(3.0), md.tensor(10.0))]
    [30.0]
    """
    key = ("vjp", tuple(wanted), tuple(used), settings())
    if key not in graph.cache:
        n = len(graph.inputs)

        def build(*xs: Tensor) -> list[Tensor]:
            fresh = [alias(x) if w else x for x, w in zip(xs[:n], wanted, strict=True)]
            with grad_mode(True):
                outs = [*compress(run_graph(graph, fresh), used)]
            aliases = [*compress(fresh, wanted)]
            return [zeros_like(a) if g is None else g for a, g in zip(aliases, pulled("control flow", outs, xs[n:], aliases), strict=True)]

        graph.cache[key] = closed(build, [aval(v) for v in (*graph.inputs, *compress(graph.outputs, used))])
    return graph.cache[key]


def halves(graph: Graph, wanted: Sequence[bool], used: Sequence[bool]) -> tuple[Graph, Graph]:
    """As vjp_graph, in two parts: the graph itself, as it is run where it is differentiated, and the graph cotangents of the used outputs →
    cotangents of the wanted inputs. The second reads values of the first, which are its residuals: whoever runs the two apart makes them outputs of
    the one and inputs of the other.

    >>> graph = md.trace(lambda x, y: x * md.exp(y))(md.tensor(2.0), md.tensor(3.0))
    >>> forward, backward = md.extend.halves(graph, [True, False], [True])
    >>> read = {v for e in backward.equations for v in e.inputs} - set(backward.inputs)
    >>> read == set(forward.equations[0].outputs)
    True
    """
    t = Trace(state.interpreter)
    args = [Tensor(Var(v.shape, v.dtype), t, v.dtype, None) for v in graph.inputs]
    targets = [*compress(args, wanted)]
    for a in targets:
        a.node = tape.alias_node(t, None)
    with interpreting(t), grad_mode(True):
        outs = run_graph(graph, args)
        mark = len(t.equations)
        ends = [*compress(outs, used)]
        seeds = [Var(o.shape, o.dtype) for o in ends]
        found: dict[int, Any] = dict.fromkeys(a.node[0] for a in targets)
        roots = [(o.node, s) for o, s in zip(ends, seeds, strict=True) if o.node is not None]
        tape.pull_raw(roots, found, None, True, lambda node, g: None)
        grads = [t.full(shape=a.shape, value=0, dtype=a.dtype) if (g := found[a.node[0]]) is None else g for a in targets]
    t.closed = True
    forward = Graph([a.payload for a in args], t.equations[:mark], [o.payload for o in outs], graph.name)
    return forward, finish(t.equations[mark:], seeds, grads, "backward")


def batched_graph(graph: Graph, size: int, batched: Sequence[bool], force: Sequence[bool]) -> tuple[Graph, list[bool]]:
    """The graph over a leading batch axis on the flagged inputs, and which of its outputs have one: those that depend on a flagged input, and those
    flagged in `force`. What batching rules read from outside, such as an array that one makes, are further inputs, and these Tensors the graph's
    `captured`.

    >>> graph = md.trace(lambda x, y: (x * y, y))(md.tensor(2.0), md.tensor(3.0))
    >>> wide, flags = md.extend.batched_graph(graph, 5, [True, False], [False, False])
    >>> wide.outputs[0].shape, flags
    ((5,), [True, False])
    """
    t = Trace(state.interpreter)
    args = [Tensor(Var((size, *v.shape) if b else v.shape, v.dtype), t, v.dtype) for v, b in zip(graph.inputs, batched, strict=True)]
    with interpreting(t):
        level = Level(size, t, t.home)
        inside = [Tensor(Batched(a, b), level, a.dtype) for a, b in zip(args, batched, strict=True)]
        with interpreting(level), grad_mode(False):
            outs = [level.lift(o)[0] for o in run_graph(graph, inside)]
        flags = [o.mapped for o in outs]
        wide = []
        for o, f, must in zip(outs, flags, force, strict=True):
            inner = o.inner
            if must and not f:
                inner = ns.broadcast_to(inner, shape=(size, *inner.shape))
            wide.append(t.lift(inner)[0])
    t.closed = True
    read = t.captured.values()
    made = finish(t.equations, [*(a.payload for a in args), *(e[1] for e in read)], wide, graph.name)
    made.captured = tuple(e[0] for e in read)
    return made, [f or m for f, m in zip(flags, force, strict=True)]


def without(backward: Graph, cts: Sequence[Var], read: Sequence[bool]) -> tuple[Graph, list[bool]]:
    """A backward pass where some of its inputs, the cotangents, do not come: what is made of these alone is left out, and they add nothing to what
    else there is. And which of its outputs are left."""
    here, gone, new = set(compress(cts, read)), {c for c, r in zip(cts, read, strict=True) if not r}, dict[Any, Any]()
    inputs, equations = [v for v in backward.inputs if v not in gone], list[Equation]()
    for e in backward.equations:
        given = [new.get(a, a) if isinstance(a, Var) else a for a in e.inputs]
        made = given[:1] if e.primitive.name == "barrier" else given  # which only waits for the other
        if missing := gone.intersection(given):
            left = [a for a in made if a not in missing]
            if e.primitive.name in ("add", "barrier") and left and left[0].shape == e.outputs[0].shape:
                new[e.outputs[0]] = left[0]
                continue
            if here.isdisjoint(made):
                gone.update(e.outputs)
                continue
            zeros: dict[Any, Any] = {v: Var(v.shape, v.dtype) for v in missing}
            equations += [Equation(table["full"], (), {"shape": v.shape, "value": 0, "dtype": v.dtype}, (z,), e.where) for v, z in zeros.items()]
            given = [zeros.get(a, a) for a in given]
        if not here.isdisjoint(made):
            here.update(e.outputs)
        equations.append(Equation(e.primitive, tuple(given), e.params, e.outputs, e.where))
    outputs = [new.get(v, v) for v in backward.outputs]
    there = [v not in gone for v in outputs]
    return Graph(inputs, equations, [*compress(outputs, there)], backward.name), there
