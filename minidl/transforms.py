"""Functional transforms on the one tape: grad, value_and_grad, vjp, jvp, linearize.

Each puts a fresh alias node above its inputs, runs the function, and passes over what was recorded between the aliases and the outputs:
backwards for grad and vjp, forwards for jvp. Fresh nodes are all that keeps nested differentiations apart (the perturbation confusion of
Siskind and Pearlmutter, Confusion of tagged perturbations in forward automatic differentiation, IFL 2005).

Promises: outside jit the user's Python runs on concrete values; the result is tracked exactly where something else tracked feeds it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from minidl import tape, tree
from minidl.autograd import constant, payload_here, pullback
from minidl.backends import using
from minidl.context import busy, grad_mode, interpreting, state
from minidl.guards import stateful
from minidl.tensors import Tensor, describe, home, ns

Function = Callable[..., Any]


def here(t: Tensor) -> tuple[Any, Any, Any]:
    """(payload, xp, node) of a Tensor in the current context."""
    interp = state.interpreter
    if interp is None:
        return t.payload, t.xp, t.node
    payload, node = interp.lift(t)
    return payload, interp, node


def as_constant(t: Any) -> Any:
    """The value of a Tensor as a constant of the current level, outer levels keep their tapes; another value as it is."""
    return Tensor(*here(t)[:2], t.dtype) if isinstance(t, Tensor) else t


def with_node(t: Tensor, node: Any) -> Tensor:
    """The same value with this place on the tape."""
    return Tensor(t.payload, t.xp, t.dtype, node)


def zeros_like(t: Any) -> Tensor:
    """Zeros of a tensor's (or symbol's) shape and dtype, made in the current context."""
    return ns.full(shape=tuple(t.shape), value=0, dtype=t.dtype)


def alias(t: Tensor) -> Tensor:
    """The same value with a fresh node above whatever was recorded for it."""
    payload, xp, node = here(t)
    return Tensor(payload, xp, t.dtype, tape.alias_node(xp, node if state.grad else None))


def twin(t: Any) -> Any:
    """Another Tensor of the same value and node, for code that may store something in it: a transform goes on from what it was.

    >>> x = md.zeros(())
    >>> md.extend.twin(x).add_(1.0).item(), x.item()
    (1.0, 0.0)
    """
    return Tensor(t.payload, t.xp, t.dtype, t.node) if isinstance(t, Tensor) else t


def with_modules(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """f and its arguments, of which Modules and optimizers belong to f: they are not made again from their tensors, but themselves.

    >>> net = md.nn.Linear(2, 1)
    >>> f, rest = md.extend.with_modules(lambda m, x: m(x), (net, md.ones(2)))
    >>> len(rest), f(*rest).shape
    (1, (1,))
    """
    if not any(map(stateful, args)):
        return f, args

    def g(*rest: Any, **kwargs: Any) -> Any:
        left = iter(rest)
        return f(*(a if stateful(a) else next(left) for a in args), **kwargs)

    return g, tuple(a for a in args if not stateful(a))


def stop_gradient(x: Any) -> Any:
    """The same values (of every tensor in a pytree), through which no derivative flows.

    >>> md.grad(lambda x: x * md.stop_gradient(x))(3.0).item()
    3.0
    """

    def stopped(t: Any) -> Any:
        if isinstance(t, Tensor):
            t = t.detach()
            t.of = None  # a value of its own, which is what JAX's users take it for
        return t

    return tree.map(stopped, x)


def argument_numbers(name: str, argnums: int | Sequence[int], n: int) -> tuple[int, ...]:
    """Which of n positional arguments are meant. Raises ValueError for one that there is not.

    >>> md.extend.argument_numbers("grad", (0, -1), 3)
    (0, 2)
    """
    nums = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in nums:
        if not -n <= i < n:
            raise ValueError(f"{name}: argnums {argnums} but {n} positional argument{'s' * (n != 1)} came")
    return tuple(i % n for i in nums)


def inexact(name: str, values: Sequence[Any]) -> list[Tensor]:
    """What a transform differentiates with respect to, as Tensors. Raises TypeError for what is neither float nor complex.

    >>> md.extend.inexact("grad", [2.0])[0].dtype
    minidl.float32
    """
    out = []
    for v in values:
        if not isinstance(v, Tensor):
            from minidl.ops import asarray

            v = asarray(v)
        if not v.dtype.inexact:
            raise TypeError(f"{name}: differentiation wants float or complex inputs, not {describe(v)}; convert it, or leave it out of argnums")
        out.append(v)
    return out


def _aliased(name: str, args: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
    """The arguments with every float tensor (and number) replaced by an alias, and those aliases, which nobody changes."""
    leaves, structure = tree.flatten(list(args))
    aliases = [alias(t) for t in inexact(name, leaves)]
    return tree.unflatten(structure, [twin(a) for a in aliases]), aliases


def _run(f: Function, args: Sequence[Any], kwargs: dict[str, Any], aliases: Sequence[Tensor]) -> Any:
    try:
        if state.grad:
            return f(*args, **kwargs)
        with grad_mode(True):  # a transform differentiates also under no_grad; only its results are then untracked
            return f(*args, **kwargs)
    finally:
        for a in aliases:
            if a.node[1] is tape.ALIAS and a.node[3] is None:  # and has no hook
                a.node[1] = tape.PAST


def value_and_grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False, holomorphic: bool = False) -> Function:
    """A function that returns (f(...), gradients): one pytree of gradients for argnums, a tuple of them for a sequence of argnums.

    f returns one real number (and auxiliary data, if has_aux). Raises TypeError for an output that is no scalar, ValueError for bad argnums.

    >>> value, g = md.value_and_grad(lambda x: (x * x).sum())(md.tensor([1.0, 2.0]))
    >>> value.item(), g.tolist()
    (5.0, [2.0, 4.0])
    """

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nums = argument_numbers("grad", argnums, len(args))
        chosen, aliases = _aliased("grad", [args[i] for i in nums])
        full = list(args)
        for i, a in zip(nums, chosen, strict=True):
            full[i] = a
        out = _run(f, full, kwargs, aliases)
        out, aux = out if has_aux else (out, None)
        if not isinstance(out, Tensor) or out.size != 1:
            what = describe(out) if isinstance(out, Tensor) else type(out).__name__
            raise TypeError(f"grad: the function must return one number, not {what}; reduce it with .sum() or .mean(), or use md.jacrev")
        if out.dtype.is_complex and not holomorphic:
            raise TypeError(f"grad: the output {describe(out)} is complex; take its real part or abs, or pass holomorphic=True")
        if not out.dtype.inexact:
            raise TypeError(f"grad: the output {describe(out)} is no float; derivatives need one")
        seed = constant(out, 1)
        grads = _pull("grad", [out], [seed], aliases)
        if holomorphic:
            grads = [ns.conj(g) if g.dtype.is_complex else g for g in grads]
        nested = tree.unflatten(tree.flatten(chosen)[1], grads)
        result = nested[0] if isinstance(argnums, int) else tuple(nested)
        value = leave(out, aliases)
        return ((value, leave(aux, aliases)) if has_aux else value), result

    return wrapped


def leave(x: Any, aliases: Sequence[Tensor], outer: bool = False) -> Any:
    """Cut outputs from the graph of a finished transform, unless they depend on something else that is tracked. Values of the levels outside, such
    as the lanes of a vmap, keep their places there; those are looked at too if the aliases may be of an outer level."""

    return tree.map(lambda t: _cut(t, aliases, outer), x)


def _cut(t: Any, aliases: Sequence[Tensor], outer: bool) -> Any:
    if isinstance(t, Tensor) and t.node is not None:
        if not state.grad:
            return t.detach()
        if t.node[1] is tape.RELEASED or not tape.reach([t.node], [a.node for a in aliases if a.node is not None])[1]:
            t = as_constant(t)
    if outer and isinstance(t, Tensor) and hasattr(t.payload, "mapped"):
        with interpreting(t.xp.parent):
            inner = _cut(t.payload.inner, aliases, outer)
        return Tensor(type(t.payload)(inner, t.payload.mapped), t.xp, t.dtype, t.node)
    return t


def _pull(name: str, outs: Sequence[Tensor], cts: Sequence[Tensor], aliases: Sequence[Tensor]) -> list[Tensor]:
    """Gradients in the user's convention (conjugated), zeros for inputs that were not used."""
    roots = []
    for o, c in zip(outs, cts, strict=True):
        if not isinstance(c, Tensor) or c.shape != o.shape:
            raise ValueError(f"{name}: cotangent {describe(c)} for output {describe(o)}; they must agree in shape")
        if o.node is not None and o.dtype.inexact:
            c = c if c.dtype is o.dtype else ns.cast(c, dtype=o.dtype)
            roots.append((o.node, ns.conj(c) if c.dtype.is_complex else c))
    targets = [a.node for a in aliases]
    found = pullback(name, roots, targets, retain=True)
    found = [g if g is None else tape.apply_hooks(tape.hooks_of(n), g) for g, n in zip(found, targets, strict=True)]
    return [constant(a, 0) if g is None else (ns.conj(g) if g.dtype.is_complex else g) for a, g in zip(aliases, found, strict=True)]


def grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False, holomorphic: bool = False) -> Function:
    """The function that computes f's gradient; see value_and_grad. Nests with every other transform.

    >>> md.grad(md.grad(lambda x: x * x * x))(md.tensor(2.0)).item()
    12.0
    """
    both = value_and_grad(f, argnums, has_aux, holomorphic)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, g = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return wrapped


def vjp(f: Function, *primals: Any, has_aux: bool = False) -> Any:
    """(f(*primals), pull) where pull(cotangent) gives a tuple with one pytree of cotangents per primal; pull may be called many times, and raises
    ValueError for a cotangent of another structure than the output's.

    >>> out, pull = md.vjp(lambda x: x * 3.0, md.tensor([1.0, 2.0]))
    >>> pull(md.tensor([1.0, 10.0]))[0].tolist()
    [3.0, 30.0]
    """
    chosen, aliases = _aliased("vjp", primals)
    out = _run(f, chosen, {}, aliases)
    out, aux = out if has_aux else (out, None)
    leaves, structure = tree.flatten(out)
    outs, in_structure = [twin(o) for o in leaves], tree.flatten(chosen)[1]

    def pull(cotangent: Any) -> tuple[Any, ...]:
        cts, s = tree.flatten(cotangent)
        if s != structure:
            raise ValueError("vjp: the cotangent's structure differs from the output's")
        return tuple(tree.unflatten(in_structure, leave(_pull("vjp", outs, cts, aliases), aliases, outer=True)))

    value, aux = _held(leave((out, aux), aliases), outs, aliases)
    return (value, pull, aux) if has_aux else (value, pull)


def _held(left: Any, outs: Sequence[Any], aliases: Sequence[Tensor]) -> Any:
    """What leaves a transform whose tape is read again later: who differentiates it does not release that."""
    if aliases and any(isinstance(t, Tensor) and t.node is not None for t in tree.leaves(left)):
        tape.hold([o.node for o in outs if isinstance(o, Tensor)], max(a.node[0] for a in aliases))
    return left


def _push(outs: Sequence[Any], aliases: Sequence[Tensor], tangents: Sequence[Tensor]) -> list[Tensor]:
    roots = [o.node for o in outs if isinstance(o, Tensor) and o.node is not None]
    nodes, tracked, _ = tape.reach(roots, [a.node for a in aliases])
    level = state.interpreter
    on_tensors = (tracked and state.grad) or any(t.node is not None for t in tangents) or any(n[2] is not level for n in nodes if level is not None)
    known: dict[int, Any] = {}
    for a, t in zip(aliases, tangents, strict=True):
        if t.shape != a.shape:
            raise ValueError(f"jvp: tangent {describe(t)} for primal {describe(a)}; they must agree in shape")
        t = t if t.dtype is a.dtype else ns.cast(t, dtype=a.dtype)
        known[a.node[0]] = t if on_tensors else payload_here(t)
    if nodes and on_tensors:
        with using(home(nodes[0][2])):
            tape.push(nodes, known, ns, True)
    elif nodes:
        xp = level or nodes[0][2]
        with tape.scope(xp):
            tape.push(nodes, known, xp, False)
    results = []
    for o in outs:
        if not isinstance(o, Tensor):
            raise TypeError(f"jvp: outputs must be tensors, not {type(o).__name__}")
        t = known.get(o.node[0]) if o.node is not None else None  # type: ignore[assignment]
        if t is None:
            t = constant(o, 0)
        elif not on_tensors:
            xp = level or o.xp
            t = Tensor(t, xp, o.dtype)
        results.append(t)
    return results


def pulled(name: str, outs: Sequence[Any], cts: Sequence[Any], aliases: Sequence[Any], create_graph: bool | None = None) -> list[Tensor | None]:
    """Plain (unconjugated) cotangents of the aliases that outs were computed of; None where nothing flows, and for what is no Tensor. create_graph:
    as in pullback."""
    roots = [(o.node, c) for o, c in zip(outs, cts, strict=True) if isinstance(o, Tensor) and o.node is not None and c is not None]
    found = iter(pullback(name, roots, [a.node for a in aliases if a is not None], retain=True, create_graph=create_graph))
    return [None if a is None else next(found) for a in aliases]


def again(
    name: str, run: Callable[[list[Any]], Sequence[Tensor]], inputs: Callable[[], list[Any]], places: Sequence[int | None]
) -> tuple[Callable[..., list[Any]], Callable[..., list[Tensor]]]:
    """The vjp and jvp of an opaque node (minidl.tape) whose results are run(inputs()), by running it on Tensors once more; places: which input each
    parent is of."""
    used = [p for p in places if p is not None]

    def vjp(cts: Sequence[Any], tracked: bool) -> list[Any]:
        start = inputs()
        with grad_mode(True):  # a pass over Tensors whose outcome is not differentiated runs under no_grad
            for p in used:  # inside vmap the parents' nodes belong to a level outside
                start[p] = alias(start[p])
            results = run(start)
        found = dict(zip(used, pulled(name, results, cts, [start[p] for p in used], create_graph=True), strict=True))
        return [None if p is None else found[p] for p in places]

    def jvp(tangents: Sequence[Any]) -> list[Tensor]:
        start = inputs()
        moved = [(p, t) for p, t in zip(places, tangents, strict=True) if t is not None and p is not None]
        with grad_mode(True):
            for p, _ in moved:
                start[p] = alias(start[p])
            results = run(start)
        return _push(results, [start[p] for p, _ in moved], [t for _, t in moved])

    return vjp, jvp


def stands_for(
    f: Callable[..., Any], inputs: Sequence[Tensor | None], results: Sequence[Any], back: Callable[..., Sequence[Any] | None]
) -> list[Tensor]:
    """Native arrays that a kernel made of the inputs as Tensors: the first of what f(*inputs) is, a Tensor or a tuple of them. With their node on the
    tape goes back(wanted, *cotangents): natives or None → one for each input (those not wanted may be None), or None to leave them to f, which
    computes other derivatives and those of strong zeros. It may be called again; what it keeps nobody writes to.

    >>> x = md.tensor([1.0, 2.0], requires_grad=True)
    >>> a = x.payload
    >>> (y,) = md.extend.stands_for(lambda v: v * v, (x,), [a * a], lambda wanted, g: [g * (a + a)])
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([1.0, 4.0], [2.0, 4.0])
    """
    xp = next(x.xp for x in inputs if x is not None)
    parents = [None if x is None else x.node for x in inputs]
    nodes: list[Any] = [None] * len(results)
    if any(parents) and (not busy[0] or state.grad):
        stood = _Stood(f, [None if x is None else (x.payload, x.xp, x.dtype, x.node) for x in inputs], parents, len(results), back)
        nodes = tape.opaque_nodes(xp, f.__name__, parents, len(results), stood.vjp, stood.jvp, stood.raw)
    return [Tensor(v, xp, xp.dtype_of(v), n) for v, n in zip(results, nodes, strict=True)]


class _Stood:
    """The derivatives of what a kernel made; kept: its inputs, as they were then."""

    __slots__ = ("back", "f", "kept", "n", "wanted")

    def __init__(self, f: Callable[..., Any], kept: list[Any], parents: list[Any], n: int, back: Callable[..., Any]):
        self.f, self.kept, self.n, self.back, self.wanted = f, kept, n, back, [p is not None for p in parents]

    def raw(self, cts: Sequence[Any]) -> Sequence[Any] | None:
        return None if state.strong or state.interpreter is not None else self.back(self.wanted, *cts)

    def _rules(self) -> tuple[Callable[..., list[Any]], Callable[..., list[Tensor]]]:
        run = lambda start: (outs if isinstance(outs := self.f(*start), tuple) else (outs,))[: self.n]
        places = [i if w else None for i, w in enumerate(self.wanted)]
        return again(self.f.__name__, run, lambda: [k and Tensor(*k) for k in self.kept], places)

    def vjp(self, cts: Sequence[Any], tracked: bool) -> list[Any]:
        return self._rules()[0](cts, tracked)

    def jvp(self, tangents: Sequence[Any]) -> list[Tensor]:
        return self._rules()[1](tangents)


def _directions(name: str, tangents: Sequence[Any], primals: Sequence[Any]) -> list[Tensor]:
    """The leaves of the tangents, whose structure is the primals'."""
    given, structure = tree.flatten(list(tangents))
    if structure != tree.flatten(list(primals))[1]:
        raise ValueError(f"{name}: the tangents' structure differs from the primals'")
    return inexact(name, given)


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False) -> Any:
    """(f(*primals), its derivative in the direction of tangents).

    Raises TypeError unless primals and tangents are tuples of one length, ValueError where they differ in structure.

    >>> md.jvp(lambda x: x * x, (md.tensor(3.0),), (md.tensor(1.0),))[1].item()
    6.0
    """
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)) or len(primals) != len(tangents):
        raise TypeError("jvp: primals and tangents are tuples of the same length")
    chosen, aliases = _aliased("jvp", primals)
    given = _directions("jvp", tangents, chosen)
    out = _run(f, chosen, {}, aliases)
    out, aux = out if has_aux else (out, None)
    outs, structure = tree.flatten(out)
    moved = tree.unflatten(structure, _push(outs, aliases, given))
    value = leave(out, aliases)
    return (value, moved, leave(aux, aliases)) if has_aux else (value, moved)


def linearize(f: Function, *primals: Any) -> tuple[Any, Function]:
    """(f(*primals), the linear map tangents → output tangent), f being run once.

    Raises ValueError for tangents of another structure than the primals'.

    >>> out, push = md.linearize(lambda x: x * x, md.tensor(3.0))
    >>> push(md.tensor(2.0)).item()
    12.0
    """
    chosen, aliases = _aliased("linearize", primals)
    out = _run(f, chosen, {}, aliases)
    leaves, structure = tree.flatten(out)
    outs = [twin(o) for o in leaves]

    def push(*tangents: Any) -> Any:
        given = _directions("linearize", tangents, chosen)
        return tree.unflatten(structure, leave(_push(outs, aliases, given), aliases, outer=True))

    return _held(leave(out, aliases), outs, aliases), push
