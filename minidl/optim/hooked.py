"""Hooks of optimizers: functions of the user's that are called round a step, and round saving and loading, as torch.optim's.

Promises: hooks of a kind run in the order of registration (prepend puts one first); a handle removes its own hook.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Hooked:
    """The part of Optimizer that has hooks."""

    __slots__ = ()
    _hooks: Any = None

    # ---- round a step -------------------------------------------------------------------------------------------------------------------
    def register_step_pre_hook(self, hook: Callable[..., Any]) -> Any:
        """Call hook(optimizer, args, kwargs) before each step; returns a removable handle. A hook that returns (args, kwargs) replaces them: the
        closure is args[1] or kwargs["closure"]. The step raises RuntimeError for a hook that returns anything else than that or None."""
        return self._add_hook("pre", hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> Any:
        """Call hook(optimizer, args, kwargs) after each step; returns a removable handle.

        >>> w, seen = md.nn.Parameter(md.ones(1)), []
        >>> optimizer = md.optim.SGD([w], lr=0.1)
        >>> handle = optimizer.register_step_post_hook(lambda opt, args, kwargs: seen.append(opt.param_groups[0]["lr"]))
        >>> optimizer.step()
        >>> seen
        [0.1]
        """
        return self._add_hook("post", hook)

    def _add_hook(self, kind: str, hook: Callable[..., Any], prepend: bool = False) -> Any:
        from minidl.nn.hooks import Hooks

        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks.add(kind, hook, prepend)

    def _hooks_of(self, kind: str) -> list[Callable[..., Any]]:
        return [] if self._hooks is None else [hook for _, hook in self._hooks.of(kind)]

    def _run_hooks(self, kind: str, closure: Any) -> Any:
        """Call the hooks; returns the closure, or what a hook before the step put in its place."""
        args: tuple[Any, ...] = (self,) if closure is None else (self, closure)
        kwargs: dict[str, Any] = {}
        for hook in self._hooks_of(kind):
            new = hook(self, args, kwargs)
            if kind == "pre" and new is not None:
                if not (isinstance(new, tuple) and len(new) == 2):
                    raise RuntimeError(f"{type(self).__name__}.step: a hook before the step returns None or (args, kwargs), not {new!r}")
                args, kwargs = new
        return args[1] if len(args) > 1 else kwargs.get("closure")

    # ---- round saving and loading -----------------------------------------------------------------------------------------------------
    def register_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Any:
        """Call hook(optimizer) before the state is taken; returns a removable handle."""
        return self._add_hook("save_pre", hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Any:
        """Call hook(optimizer, state_dict) with the state that was taken; what it returns, unless None, replaces it. Returns a removable handle.

        >>> optimizer = md.optim.SGD([md.nn.Parameter(md.ones(1))], lr=0.1)
        >>> handle = optimizer.register_state_dict_post_hook(lambda optimizer, state: {**state, "epoch": 3})
        >>> optimizer.state_dict()["epoch"]
        3
        """
        return self._add_hook("save", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Any:
        """Call hook(optimizer, state_dict) with a shallow copy of the state that is to be loaded; what it returns, unless None, is loaded instead."""
        return self._add_hook("load_pre", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any], prepend: bool = False) -> Any:
        """Call hook(optimizer) after a state was loaded; returns a removable handle."""
        return self._add_hook("load", hook, prepend)

    def _replaced(self, kind: str, state: dict[str, Any]) -> dict[str, Any]:
        """A state after the hooks that may replace it."""
        for hook in self._hooks_of(kind):
            new = hook(self, state)
            state = state if new is None else new
        return state
