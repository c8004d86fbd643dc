"""Hooks of modules: functions of the user's that are called round forward, and with the gradients of outputs and inputs.

Promises: hooks of a kind run in the order of registration (prepend puts one first); a handle removes its own hook, more than once without harm. The
hooks of a module are plain attributes of it, so a traced program is guarded by them. A backward hook sees gradients through one identity node
round the outputs and one round the inputs, so it works eagerly, with create_graph, and under grad, vmap and jit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import minidl as md

Hook = Callable[..., Any]
_numbers = itertools.count()


class RemovableHandle:
    """What registering a hook returns: remove() undoes it, and so does leaving a with block."""

    def __init__(self, hooks: dict[Any, Any], key: Any):
        self._hooks, self._key = hooks, key

    def remove(self) -> None:
        """Take the hook away."""
        self._hooks.pop(self._key, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def _tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


class Hooks:
    """The hooks of one module, in the order in which they run: number → (kind, function)."""

    __minidl_state__ = ("call",)

    def __init__(self) -> None:
        self.by_number: dict[int, tuple[str, Hook]] = {}

    def add(self, kind: str, hook: Hook, prepend: bool) -> RemovableHandle:
        """Register a hook of a kind."""
        number = next(_numbers)
        entry = {number: (kind, hook)}
        if prepend:
            rest = dict(self.by_number)
            self.by_number.clear()
            self.by_number.update(entry | rest)
        else:
            self.by_number.update(entry)
        return RemovableHandle(self.by_number, number)

    def of(self, *kinds: str) -> list[tuple[str, Hook]]:
        """The hooks of some kinds, in order."""
        return [(kind, hook) for kind, hook in self.by_number.values() if kind in kinds]

    def call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """forward with everything round it."""
        try:
            for kind, hook in self.of("pre", "pre_kwargs"):
                if kind == "pre":
                    found = hook(module, args)
                    args = args if found is None else _tuple(found)
                elif (found := hook(module, args, kwargs)) is not None:
                    if not isinstance(found, tuple) or len(found) != 2:
                        raise TypeError(f"a forward pre-hook of {type(module).__name__} must return None or (args, kwargs), not {found!r}")
                    args, kwargs = found
            backward = _Backward(module, self.of("backward_pre"), self.of("backward"))
            args = backward.inputs(args)
            output = module.forward(*args, **kwargs)
        except Exception:
            for kind, hook in self.of("forward_always", "forward_kwargs_always"):
                hook(module, args, kwargs, None) if "kwargs" in kind else hook(module, args, None)
            raise
        for kind, hook in self.of("forward", "forward_kwargs", "forward_always", "forward_kwargs_always"):
            found = hook(module, args, kwargs, output) if "kwargs" in kind else hook(module, args, output)
            output = output if found is None else found
        return backward.outputs(output)


class _Backward:
    """One call's gradients on their way: outputs first, then inputs."""

    def __init__(self, module: Any, pre: list[tuple[str, Hook]], full: list[tuple[str, Hook]]):
        self.module, self.pre, self.full = module, [h for _, h in pre], [h for _, h in full]
        self.grad_output: tuple[Any, ...] = ()
        self.watched = False  # whether some input needs a gradient, so that the hooks wait for it

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments behind one node, which calls the hooks."""
        if not self.full:
            return args
        tensors = [i for i, a in enumerate(args) if isinstance(a, md.Tensor)]
        live = [i for i in tensors if args[i].requires_grad and args[i].dtype.inexact]
        self.watched = bool(live) and md.is_grad_enabled()
        if not self.watched:
            return args
        where = [tensors.index(i) for i in live]

        def done(grads: tuple[Any, ...]) -> tuple[Any, ...]:
            full: list[Any] = [None] * len(tensors)
            for place, g in zip(where, grads, strict=True):
                full[place] = g
            found = self._finish(tuple(full))
            return tuple(found[place] for place in where)

        new = list(args)
        for i, x in zip(live, _watch(done)(*(args[i] for i in live)), strict=True):
            new[i] = x
        return tuple(new)

    def outputs(self, output: Any) -> Any:
        """The outputs behind one node, which remembers their gradients."""
        if not (self.pre or self.full) or not md.is_grad_enabled():
            return output
        leaves, structure = md.tree.flatten(output)
        tensors = [i for i, v in enumerate(leaves) if isinstance(v, md.Tensor)]
        live = [i for i in tensors if leaves[i].requires_grad]
        if not live:
            return output
        where = [tensors.index(i) for i in live]

        def arrived(grads: tuple[Any, ...]) -> tuple[Any, ...]:
            full: list[Any] = [None] * len(tensors)
            for place, g in zip(where, grads, strict=True):
                full[place] = g
            self.grad_output = tuple(full)
            for hook in self.pre:
                found = hook(self.module, self.grad_output)
                if found is not None:
                    self.grad_output = self._checked("pre-", found, self.grad_output)
            if not self.watched:
                self._finish((None,))
            return tuple(self.grad_output[place] for place in where)

        for i, x in zip(live, _watch(arrived)(*(leaves[i] for i in live)), strict=True):
            leaves[i] = x
        return md.tree.unflatten(structure, leaves)

    def _finish(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.full:
            found = hook(self.module, grads, self.grad_output)
            if found is not None:
                grads = self._checked("", found, grads)
        return grads

    def _checked(self, kind: str, found: Any, wanted: tuple[Any, ...]) -> tuple[Any, ...]:
        found = _tuple(found)
        if len(found) != len(wanted):
            raise RuntimeError(f"a backward {kind}hook of {type(self.module).__name__} returned {len(found)} gradients, {len(wanted)} are wanted")
        return found


def _watch(seen: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Any:
    """The identity of several tensors, whose cotangents pass through `seen`."""
    identity = md.custom_vjp(lambda *xs: xs, effects=True)
    identity.defvjp(lambda *xs: (xs, ()), lambda residuals, grads: seen(grads))
    return identity
