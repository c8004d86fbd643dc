"""A Module as a pytree: its leaves are its parameters, everything else is its structure, compared by value.

Registered when minidl.nn is imported, so that md.grad, md.vmap and md.tree.map take modules.
"""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn.module import Module

_STATE = ("_parameters", "_buffers", "_modules", "_transient")


class _Blueprint:
    """Everything of a module tree but the parameters' values: enough to build it again, compared by value."""

    __slots__ = ("key", "modules", "slots")

    def __init__(self, modules: list[dict[str, Any]], slots: tuple, key: tuple):
        self.modules, self.slots, self.key = modules, slots, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Blueprint) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return self.modules[0]["class"].__name__


class _Same:
    """An object that equals only itself."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _frozen(value: Any) -> Any:
    """A hashable stand-in: plain data by value and type, anything else by identity."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, type)):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_frozen(v) for v in value)
    if isinstance(value, dict):
        return dict, tuple((_frozen(k), _frozen(v)) for k, v in value.items())
    return _Same(value)


def _flatten(module: Module) -> tuple[list[Any], _Blueprint]:
    tree = list(module.modules())
    number = {id(m): i for i, m in enumerate(tree)}
    leaves: list[Any] = []
    place: dict[int, int] = {}
    slots, key, parts = [], [], []
    for i, m in enumerate(tree):
        for name, p in m._parameters.items():
            if p is not None:
                if id(p) not in place:
                    place[id(p)] = len(leaves)
                    leaves.append(p)
                slots.append((i, name, place[id(p)]))
        plain = {k: v for k, v in m.__dict__.items() if k not in _STATE}
        children = {k: None if c is None else number[id(c)] for k, c in m._modules.items()}
        parts.append({"class": type(m), "plain": plain, "children": children, "parameters": tuple(m._parameters),
                      "buffers": dict(m._buffers), "transient": set(m._transient)})  # fmt: skip
        key.append((type(m), _frozen(plain), tuple(children.items()), tuple(m._parameters), _frozen(m._buffers)))
    return leaves, _Blueprint(parts, tuple(slots), (tuple(key), tuple(slots)))


def _unflatten(plan: _Blueprint, leaves: Any) -> Module:
    leaves = list(leaves)
    tree: list[Module] = []
    for part in plan.modules:
        m = object.__new__(part["class"])
        m.__dict__.update(part["plain"])
        m.__dict__.update(_parameters=dict.fromkeys(part["parameters"]), _buffers=dict(part["buffers"]), _transient=set(part["transient"]))
        tree.append(m)
    for m, part in zip(tree, plan.modules, strict=True):
        m.__dict__["_modules"] = {k: None if c is None else tree[c] for k, c in part["children"].items()}
    for i, name, place in plan.slots:
        tree[i]._parameters[name] = leaves[place]
    return tree[0]


def register() -> None:
    """Make md.tree know modules."""
    md.tree.register(Module, _flatten, _unflatten)
