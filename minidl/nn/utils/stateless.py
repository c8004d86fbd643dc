"""A module as a function of its parameters and buffers by name, as torch.func.functional_call (torch.nn.utils.stateless.functional_call).

A Module is a pytree, so md.grad, md.vmap and md.jit take it as it is; this is for those who keep weights in dicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import minidl as md
from minidl.nn.module import Module
from minidl.nn.parameter import uninitialized

__all__ = ["functional_call"]
Given = Mapping[str, md.Tensor]


def _together(parts: Given | tuple[Given, ...]) -> dict[str, md.Tensor]:
    together: dict[str, md.Tensor] = {}
    for part in (parts,) if isinstance(parts, Mapping) else parts:
        for name, value in part.items():
            if name in together:
                raise ValueError(f"functional_call: {name!r} is in two of the dicts")
            if not isinstance(value, md.Tensor):
                raise TypeError(f"functional_call: {name!r} must be a Tensor, not {type(value).__name__}")
            together[name] = value
    return together


def _slots(module: Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Dotted name → (the dict that holds a parameter or buffer, its key there)."""
    return {
        f"{path}.{key}" if path else key: (holder, key)
        for path, m in module.named_modules(remove_duplicate=False)
        for holder in (m._parameters, m._buffers)
        for key, value in holder.items()
        if value is not None
    }


@contextmanager
def _swapped(slots: dict[str, tuple[dict[str, Any], str]], given: dict[str, md.Tensor]) -> Iterator[None]:
    before = {name: slots[name][0][slots[name][1]] for name in given}
    try:
        for name, value in given.items():
            holder, key = slots[name]
            holder[key] = value
        yield
    finally:
        for name, value in before.items():
            holder, key = slots[name]
            holder[key] = value


def functional_call(
    module: Module,
    parameters_and_buffers: Given | tuple[Given, ...],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """module(*args, **kwargs) with these tensors in the place of its parameters and buffers of those names; afterwards it has its own again.

    parameters_and_buffers: a dict, or a tuple of dicts without common names. args: a tuple, or one argument that is none. tie_weights: what has
    several names is replaced under all of them. strict: every name must be given. A running statistic that the module updates is updated in the
    tensor that was given. Raises RuntimeError that lists names that the module does not have, or (strict) that are missing, and for those that have
    no shape yet; TypeError for what is no Tensor; ValueError for a name in two dicts, and for two tensors for tied names.

    >>> layer, x = md.nn.Linear(2, 1), md.tensor([1.0, 2.0])
    >>> params = {"weight": md.tensor([[3.0, 4.0]]), "bias": md.tensor([0.5])}
    >>> functional_call(layer, params, x).tolist()
    [11.5]
    >>> md.grad(lambda p: functional_call(layer, p, x).sum())(params)["weight"].tolist()
    [[1.0, 2.0]]
    """
    given, slots = _together(parameters_and_buffers), _slots(module)
    unknown = [name for name in given if name not in slots]
    for holder, key in (slots[name] for name in given if name in slots):
        if uninitialized(holder[key]):
            holder[key].detach()  # raises: afterwards the module would be a plain one whose parameters have no shape
    if tie_weights:
        groups: dict[int, list[str]] = {}
        for name, (holder, key) in slots.items():
            groups.setdefault(id(holder[key]), []).append(name)
        for group in groups.values():
            values = {id(given[name]): given[name] for name in group if name in given}
            if len(values) > 1:
                raise ValueError(f"functional_call: {', '.join(map(repr, group))} are tied, but two tensors are given for them")
            for value in values.values():
                given.update(dict.fromkeys(group, value))
    missing = [name for name in slots if name not in given] if strict else []
    if unknown or missing:
        text = [f"{what} key(s): {', '.join(map(repr, keys))}" for what, keys in (("Unexpected", unknown), ("Missing", missing)) if keys]
        raise RuntimeError(f"functional_call of {type(module).__name__}: " + "; ".join(text))
    with _swapped(slots, given):
        return module(*(args if isinstance(args, tuple) else () if args is None else (args,)), **(kwargs or {}))
