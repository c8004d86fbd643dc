"""Derivatives of the user's own making: functions that become one node of the tape."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from minidl import tree
from minidl.bodies import attach, node_of, now
from minidl.context import grad_mode, state
from minidl.custom_rules import Rule, apply_custom, completed, from_forward, in_body, in_rule, transposed
from minidl.tensors import Tensor, describe, ns
from minidl.tracing import asarray_here
from minidl.transforms import as_constant, twin, zeros_like


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


def _tensors(outs: Sequence[Any]) -> list[Any]:
    """Those results that are arrays; others are none of an equation's."""
    return [o for o in outs if isinstance(o, Tensor)]


def _in_their_places(found: Sequence[Any], outs: Sequence[Any], others: bool = True) -> list[Any]:
    """The outs with other tensors in the places of theirs; others: with what is no tensor, else None in its place."""
    left = iter(found)
    return [next(left) if isinstance(o, Tensor) else o if others else None for o in outs]


class _Custom:
    """What functions with rules of their own share: eager, a call becomes a node of the tape; inside a trace or vmap it becomes an equation, whose
    rules are there for whoever differentiates what was traced (a loop, a level outside)."""

    rules: tuple[Callable[..., Any], ...] = ()
    _taped: Callable[..., Any]  # the call on the tape of this level
    _enter: Callable[..., None]  # the rules of a call

    def __init__(self, f: Callable[..., Any], nondiff_argnums: int | Sequence[int] = (), *, effects: bool = False):
        functools.update_wrapper(self, f, updated=())
        self.f, self.effects = f, effects
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
        if state.interpreter is not None and not self.effects:
            found = self._recorded(leaves, structure)
            if found is not None:
                return found
        return self.f(*args) if all(node_of(t) is None for t in leaves) else self._taped(leaves, structure)

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

        inner = type(self)(merged(self.f), effects=self.effects)
        *forward, last = self.rules
        inner.rules = (*map(merged, forward), functools.partial(last, *first))
        return inner(*(a for i, a in enumerate(args) if i not in fixed))

    def _recorded(self, leaves: list[Any], structure: Any) -> Any:
        """The call as an equation. None where it changes a tensor, or reads a tracked one besides arguments that nobody differentiates: then f is its
        own rule."""
        given = _tensors(leaves)

        def fill(ts: Sequence[Any]) -> Any:
            left = iter(ts)
            return tree.unflatten(structure, [next(left) if isinstance(t, Tensor) else t for t in leaves])

        rule = Rule(type(self).__name__, given)
        result: list[Any] = []

        def value(*ts: Any) -> list[Any]:
            result[:] = tree.flatten(self.f(*fill(ts)))
            return _tensors(result[0])

        rule.functions["value"] = value
        if not rule.graph("value"):
            return None
        rule.n_out = len(rule.graph("value").outputs)
        self._enter(rule, leaves, fill)
        if not in_rule() and not all(map(rule.graph, rule.functions)):
            return None
        if not (in_body() or in_rule()) and all(node_of(t) is None for t in given) and any(node_of(t) is not None for t in rule.extra):
            return None
        rule.open = False
        outs, form = result
        found = apply_custom([*given, *rule.extra], {"body": rule.graph("value"), "rule": rule})[: rule.n_out]
        return tree.unflatten(form, _in_their_places(found, outs))


class custom_vjp(_Custom):
    """A function with a reverse rule of its own.

    f.defvjp(fwd, bwd): fwd(*args) -> (out, residuals); bwd(residuals, cotangent) -> one cotangent (or None) per argument. Forward mode through
    it transposes bwd, which must be linear in the cotangent. Complex cotangents follow PyTorch's convention. nondiff_argnums: arguments (functions,
    settings) that have no cotangent, which bwd gets before the residuals. effects: bwd does more than compute, such as storing what it sees: it then
    runs where a derivative is taken, and a trace keeps no rule for derivatives taken later.
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
        found = self.rules[1](res, tree.unflatten(structure, [twin(_conj(c)) for c in completed(cts, outs)]))
        if not isinstance(found, tuple) or len(found) != len(args):
            raise TypeError(f"custom_vjp: bwd must return a tuple of {len(args)} cotangents, one per argument")
        flat = [g for a, g in zip(args, found, strict=True) for g in tree.matched("custom_vjp: bwd's cotangent", g, a)]
        return [_conj(_fitted("custom_vjp: bwd", g, "the argument", t)) for t, g in zip(leaves, flat, strict=True)]

    def _taped(self, leaves: list[Any], structure: Any) -> Any:
        start, args = [now(t) for t in leaves], tree.unflatten(structure, leaves)
        fwd = self.rules[0]
        out, residuals = fwd(*tree.unflatten(structure, map(as_constant, start)))
        outs, out_structure = tree.flatten(out)

        def pull(res: Any, cts: list[Any]) -> list[Any]:
            if res is not None:
                return self._reverse(leaves, args, outs, out_structure, res[0], cts)
            with grad_mode(False):
                return self._reverse(leaves, args, outs, out_structure, residuals, cts)

        again = lambda start: (fwd(*tree.unflatten(structure, start))[1],)
        outs = [*map(as_constant, outs)]
        return tree.unflatten(out_structure, attach("custom_vjp", start, outs, *transposed(outs, again, pull)))

    def _enter(self, rule: Rule, leaves: list[Any], fill: Any) -> None:
        fwd = self.rules[0]
        kept: dict[str, Any] = {}

        def forward(*ts: Any) -> list[Any]:
            out, res = fwd(*fill(ts))
            kept["outs"], kept["out structure"] = tree.flatten(out)
            kept["res"], kept["structure"] = tree.flatten(res)
            return _tensors(kept["outs"]) + _tensors(kept["res"])

        def backward(*ts: Any) -> list[Any]:
            n = len(_tensors(kept["res"]))
            res, cts = tree.unflatten(kept["structure"], _in_their_places(ts[:n], kept["res"])), _in_their_places(ts[n:], kept["outs"], False)
            found = self._reverse(leaves, fill(_tensors(leaves)), cts, kept["out structure"], res, cts)
            found = [g for t, g in zip(leaves, found, strict=True) if isinstance(t, Tensor)]
            rule.back[:] = [i for i, g in enumerate(found) if isinstance(g, Tensor)]
            return [found[i] for i in rule.back]

        rule.functions |= {"fwd": forward, "bwd": backward}


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
        start = [now(t) for t in leaves]
        out = self.f(*tree.unflatten(structure, map(as_constant, start)))
        outs, out_structure = tree.flatten(out)
        move = lambda primals, full: self._moved(tree.unflatten(structure, primals), tree.unflatten(structure, [twin(t) for t in full]))[1]
        outs, value = [*map(as_constant, outs)], lambda primals: tree.leaves(self.f(*tree.unflatten(structure, primals)))
        return tree.unflatten(out_structure, attach("custom_jvp", start, outs, *from_forward(move, value)))

    def _enter(self, rule: Rule, leaves: list[Any], fill: Any) -> None:
        def push(*ts: Any) -> list[Any]:
            outs, moved = self._moved(fill(ts[: rule.n]), fill(ts[rule.n :]))
            return [zeros_like(o) if m is None else m for o, m in zip(outs, moved, strict=True) if isinstance(o, Tensor)]

        rule.functions["push"] = push


_RULES = {"custom_vjp": ("fwd", "bwd"), "custom_jvp": ("rule",)}
