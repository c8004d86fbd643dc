"""Derivatives of the user's own making, and checkpointing: functions that become one node of the tape."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from minidl import tape, tree
from minidl.autograd import pullback
from minidl.context import autocasting, grad_mode, state
from minidl.tensors import Tensor, describe, ns
from minidl.tracing import innermost
from minidl.transforms import _push, alias, as_constant, here, with_node, zeros_like

#: Streams of random numbers that `checkpoint` replays: each has `key`, the Tensor of its state, and `restore(key)`.
streams: list[Any] = []


def _node(t: Any) -> Any:
    return here(t)[2] if isinstance(t, Tensor) and t.dtype.inexact else None


def _conj(g: Any) -> Any:
    return ns.conj(g) if isinstance(g, Tensor) and g.dtype.is_complex else g


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
        found = vjp(nodes if tracked else [None] * len(nodes), full, tracked)
        return [found[i] for i in live]

    def push(tangents: list[Any]) -> list[Any]:
        full: list[Any] = [None] * len(leaves)
        for i, t in zip(live, tangents, strict=True):
            full[i] = t
        moved = jvp(nodes, full)
        return [moved[i] for i in floats]

    made = iter(tape.opaque_nodes(xp, name, [nodes[i] for i in live], len(floats), pull, push))
    return [Tensor(*here(o)[:2], o.dtype, next(made)) if i in floats else o for i, o in enumerate(outs)]


class custom_vjp:
    """A function with a reverse rule of its own.

    f.defvjp(fwd, bwd): fwd(*args) -> (out, residuals); bwd(residuals, cotangent) -> one cotangent (or None) per argument. Forward mode through
    it transposes bwd, which must be linear in the cotangent. Complex cotangents follow PyTorch's convention.
    Raises TypeError when it is called before it has a rule or where bwd returns no tuple, ValueError for a cotangent of another shape.

    >>> f = md.custom_vjp(lambda x: x * 2.0)
    >>> f.defvjp(lambda x: (x * 2.0, None), lambda res, g: (g * 100.0,))
    >>> md.grad(f)(md.tensor(1.0)).item()
    100.0
    """

    def __init__(self, f: Callable[..., Any]):
        functools.update_wrapper(self, f, updated=())
        self.f = f
        self.fwd: Callable[..., Any] | None = None
        self.bwd: Callable[..., Any] | None = None

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Set the forward and the reverse rule."""
        self.fwd, self.bwd = fwd, bwd

    def __call__(self, *args: Any) -> Any:
        if self.fwd is None or self.bwd is None:
            raise TypeError(f"custom_vjp: {getattr(self.f, '__name__', 'the function')} has no rule yet; call .defvjp(fwd, bwd) first")
        leaves, structure = tree.flatten(args)
        if not state.grad or all(_node(t) is None for t in leaves):
            return self.f(*args)
        bare = [as_constant(t) if isinstance(t, Tensor) else t for t in leaves]
        with grad_mode(False):
            out, residuals = self.fwd(*tree.unflatten(structure, bare))
        outs, out_structure = tree.flatten(out)
        fwd, bwd = self.fwd, self.bwd

        def reverse(res: Any, cts: list[Any]) -> list[Any]:
            full = [zeros_like(o) if c is None and isinstance(o, Tensor) else _conj(c) for o, c in zip(outs, cts, strict=True)]
            found = bwd(res, tree.unflatten(out_structure, full))
            if not isinstance(found, tuple) or len(found) != len(args):
                raise TypeError(f"custom_vjp: bwd must return a tuple of {len(args)} cotangents, one per argument")
            flat: list[Any] = []
            for a, g in zip(args, found, strict=True):
                n = len(tree.leaves(a))
                flat += [None] * n if g is None else tree.leaves(g)
            for t, g in zip(leaves, flat, strict=True):
                if isinstance(t, Tensor) and isinstance(g, Tensor) and g.shape != t.shape:
                    raise ValueError(f"custom_vjp: bwd returned {describe(g)} for the argument {describe(t)}")
            return [_conj(g) for g in flat]

        def vjp(nodes: list[Any], cts: list[Any], tracked: bool) -> list[Any]:
            if not tracked:
                with grad_mode(False):
                    return reverse(residuals, cts)
            start = [with_node(t, n) if isinstance(t, Tensor) else t for t, n in zip(bare, nodes, strict=True)]
            _, res = fwd(*tree.unflatten(structure, start))
            return reverse(res, cts)

        def jvp(nodes: list[Any], tangents: list[Any]) -> list[Any]:
            """The tangent map is the transpose of bwd: pull the tangents back through a bwd run on cotangent variables."""
            _, res = fwd(*tree.unflatten(structure, [with_node(t, n) if isinstance(t, Tensor) else t for t, n in zip(bare, nodes, strict=True)]))
            variables = [alias(zeros_like(o)) if isinstance(o, Tensor) and o.dtype.inexact else None for o in outs]
            with grad_mode(True):
                found = reverse(res, variables)
            pairs = [(g, t) for g, t in zip(found, tangents, strict=True) if isinstance(g, Tensor) and g.node is not None and t is not None]
            targets = [v.node for v in variables if v is not None]
            moved = iter(pullback("custom_vjp", [(g.node, t) for g, t in pairs], targets, retain=True) if pairs else [None] * len(targets))
            return [next(moved) if v is not None else None for v in variables]

        return tree.unflatten(out_structure, _attach("custom_vjp", leaves, [as_constant(o) if isinstance(o, Tensor) else o for o in outs], vjp, jvp))


class custom_jvp:
    """A function with a forward rule of its own; reverse mode transposes it, so the rule must be linear in the tangents.

    f.defjvp(rule): rule(primals, tangents) -> (out, tangent out).
    Raises TypeError when it is called before it has a rule.

    >>> f = md.custom_jvp(lambda x: md.sin(x))
    >>> _ = f.defjvp(lambda primals, tangents: (md.sin(primals[0]), tangents[0] * 5.0))
    >>> md.grad(f)(md.tensor(0.0)).item()
    5.0
    """

    def __init__(self, f: Callable[..., Any]):
        functools.update_wrapper(self, f, updated=())
        self.f = f
        self.rule: Callable[..., Any] | None = None

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Set the forward rule; usable as a decorator."""
        self.rule = rule
        return rule

    def __call__(self, *args: Any) -> Any:
        if self.rule is None:
            raise TypeError(f"custom_jvp: {getattr(self.f, '__name__', 'the function')} has no rule yet; call .defjvp(rule) first")
        leaves, structure = tree.flatten(args)
        if not state.grad or all(_node(t) is None for t in leaves):
            return self.f(*args)
        bare = [as_constant(t) if isinstance(t, Tensor) else t for t in leaves]
        with grad_mode(False):
            out = self.f(*tree.unflatten(structure, bare))
        outs, out_structure = tree.flatten(out)
        rule = self.rule

        def run(nodes: list[Any], tangents: list[Any]) -> list[Any]:
            start = [with_node(t, n) if isinstance(t, Tensor) else t for t, n in zip(bare, nodes, strict=True)]
            full = [(zeros_like(t) if d is None else d) if isinstance(t, Tensor) else d for t, d in zip(bare, tangents, strict=True)]
            _, moved = rule(tree.unflatten(structure, start), tree.unflatten(structure, full))
            return tree.leaves(moved)

        def vjp(nodes: list[Any], cts: list[Any], tracked: bool) -> list[Any]:
            variables = [alias(zeros_like(t)) if isinstance(t, Tensor) and t.dtype.inexact else None for t in bare]
            with grad_mode(True):
                moved = run(nodes, variables)
            pairs = [(m.node, c) for m, c in zip(moved, cts, strict=True) if c is not None and m.node is not None]
            targets = [v.node for v in variables if v is not None]
            found = iter(pullback("custom_jvp", pairs, targets, retain=True, create_graph=tracked or None) if pairs else [None] * len(targets))
            return [next(found) if v is not None else None for v in variables]

        return tree.unflatten(out_structure, _attach("custom_jvp", leaves, [as_constant(o) if isinstance(o, Tensor) else o for o in outs], vjp, run))


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, whose intermediate values are not kept but computed again in the backward pass (less memory for more time).

    The second run starts from the state of the first: random draws are replayed, buffers hold what they held then, and what it writes to them (as
    BatchNorm does) is undone. Inside md.jit it reads its inputs behind a barrier, so that it is not merged with the first run. Tensors changed in
    place are followed so; attributes set to new tensors are not. Source: T. Chen et al., Training deep nets with sublinear memory cost (2016).

    >>> md.grad(md.checkpoint(lambda x: md.sin(md.sin(x))))(md.tensor(0.0)).item()
    1.0
    """

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = tree.flatten((args, kwargs))
        if not state.grad:
            return f(*args, **kwargs)
        bare = [as_constant(t) if isinstance(t, Tensor) else t for t in leaves]
        before, block = [(s, s.key.detach()) for s in streams], state.autocast

        def run(nodes: Sequence[Any]) -> tuple[Any, list[Tensor]]:
            start = [t if n is None else alias(with_node(t, n or None)) for t, n in zip(bare, nodes, strict=True)]
            a, k = tree.unflatten(structure, start)
            with grad_mode(True), autocasting(block):
                return f(*a, **k), [t for t, n in zip(start, nodes, strict=True) if n is not None]

        born = next(tape.count)
        live = [i for i, t in enumerate(leaves) if _node(t) is not None]
        fresh = [() if i in live else None for i in range(len(leaves))]  # (): an alias above nothing
        with _journal() as changed:
            out, aliases = run(fresh)
        changed = {k: v for k, v in changed.items() if v[0]() is not None}  # the function's own are gone
        outs, out_structure = tree.flatten(out)
        outside = _outside([o.node for o in outs if isinstance(o, Tensor) and o.node is not None], {t.node[0] for t in aliases}, born)
        outs = [as_constant(o) if isinstance(o, Tensor) else o for o in outs]
        like = next((o for o in outs if isinstance(o, Tensor) and o.dtype.inexact), None)
        if like is None or not (live or outside):
            return out
        sources = [*leaves, *(with_node(like, n) for n in outside)]  # those of the second kind stand for their nodes alone
        del out, aliases

        def again(nodes: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
            now = [(s, s.key.detach()) for s, _ in before]
            with _journal() as undo:
                try:
                    _restore(changed)
                    _rewind(before)
                    results, aliases = run(nodes)
                    return tree.leaves(results), aliases
                finally:
                    _restore(undo)
                    _rewind(now)

        def vjp(nodes: list[Any], cts: list[Any], tracked: bool) -> list[Any]:
            trace = innermost()
            with contextlib.nullcontext() if trace is None else trace.apart([_symbol(c) for c in cts]):
                results, aliases = again([nodes[i] or () if i in live else None for i in range(len(leaves))])
                pairs = [(r.node, c) for r, c in zip(results, cts, strict=True) if c is not None and isinstance(r, Tensor) and r.node is not None]
                targets = [*(x.node for x in aliases), *outside]
                found = pullback("checkpoint", pairs, targets, retain=True, create_graph=tracked) if pairs else [None] * len(targets)
            result: list[Any] = [None] * len(sources)
            for i, g in zip([*live, *range(len(leaves), len(sources))], found, strict=True):
                result[i] = g
            return result

        def jvp(nodes: list[Any], tangents: list[Any]) -> list[Any]:
            moved = [None if t is None else n or () for t, n in zip(tangents[: len(leaves)], nodes[: len(leaves)], strict=True)]
            results, aliases = again(moved)
            given = [t for t in tangents if t is not None]
            more = [with_node(t, n) for t, n in zip(tangents[len(leaves) :], outside, strict=True) if t is not None]
            floats = [i for i, r in enumerate(results) if isinstance(r, Tensor) and r.dtype.inexact]
            out = dict(zip(floats, _push([results[i] for i in floats], [*aliases, *more], given), strict=True))
            return [out.get(i) for i in range(len(results))]

        return tree.unflatten(out_structure, _attach("checkpoint", sources, outs, vjp, jvp))

    return wrapped


def _symbol(t: Any) -> Any:
    """What a Tensor is in the innermost trace, below all levels of vmap."""
    while isinstance(t, Tensor) and hasattr(t.payload, "inner"):
        t = t.payload.inner
    return t.payload if isinstance(t, Tensor) else None


@contextlib.contextmanager
def _journal() -> Iterator[dict[int, Any]]:
    """Collect what in-place operations change inside, as it was before: a reference to the Tensor, and its value."""
    outer, found = state.journal, dict[int, Any]()
    state.journal = found
    try:
        yield found
    finally:
        state.journal = outer
        if outer is not None:
            outer.update({k: v for k, v in found.items() if k not in outer})


def _restore(journal: dict[int, Any]) -> None:
    with grad_mode(False):
        for target, value in list(journal.values()):
            if (t := target()) is not None:
                t.assign(value)


def _rewind(streams: list[tuple[Any, Tensor]]) -> None:
    for stream, key in streams:
        stream.restore(key)


def _outside(roots: Sequence[Any], stop: set[int], born: int) -> list[Any]:
    """The tracked nodes that a function read besides its arguments: parameters, closures, globals."""
    seen, found, stack = set(stop), [], list(roots)
    while stack:
        node = stack.pop()
        if node[0] in seen:
            continue
        seen.add(node[0])
        if node[0] > born or (len(node) > 4 and node[1] is tape.ALIAS):  # numbers fall; the second is how a trace sees what is not its own
            found.append(node)
        else:
            stack.extend(tape.parents_of(node))
    return found
