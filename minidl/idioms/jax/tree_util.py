"""jax.tree_util and jax.tree: md.tree with JAX's names, paths to leaves, and dataclasses whose settings are no leaves."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import minidl as md
from minidl.idioms import of_jax

PyTreeDef: Any = type(md.tree.flatten(0)[1])
#: Methods that JAX's structures have.
PyTreeDef.unflatten = lambda self, leaves: md.tree.unflatten(self, list(leaves))
PyTreeDef.flatten_up_to = lambda self, tree: _up_to(self, tree)


def _up_to(structure: Any, tree: Any) -> list[Any]:
    """What stands in a pytree in the places of the leaves of a structure. Raises ValueError where it has none of it."""
    if structure.kind is None:
        return [tree]
    inside = md.tree.flatten(tree, is_leaf=lambda x: x is not tree)
    if (inside[1].kind, inside[1].aux) != (structure.kind, structure.aux) or len(inside[0]) != len(structure.children):
        raise ValueError(f"flatten_up_to: {tree!r} has not the structure {structure}")
    return [leaf for child, part in zip(structure.children, inside[0], strict=True) for leaf in _up_to(child, part)]


class SequenceKey(NamedTuple):
    """A place in a tuple or a list."""

    idx: int

    def __str__(self) -> str:
        return f"[{self.idx!r}]"


class DictKey(NamedTuple):
    """A key of a dict."""

    key: Any

    def __str__(self) -> str:
        return f"[{self.key!r}]"


class GetAttrKey(NamedTuple):
    """A field of a dataclass or a named tuple."""

    name: str

    def __str__(self) -> str:
        return f".{self.name}"


class FlattenedIndexKey(NamedTuple):
    """A child of a registered type that gives its children no names."""

    key: int

    def __str__(self) -> str:
        return f"[<flat index {self.key}>]"


#: Registered type -> its children with the keys of their paths.
_KEYED: dict[type, Callable[[Any], Iterable[tuple[Any, Any]]]] = {}


def _keys(node: Any, n: int) -> list[Any]:
    """The keys of a container's children, in the order in which md.tree flattens them."""
    for cls in type(node).__mro__:
        if cls in _KEYED:
            return [key for key, _ in _KEYED[cls](node)]
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return [GetAttrKey(name) for name in node._fields]
    if isinstance(node, dict):
        try:
            return [DictKey(key) for key in (sorted(node) if type(node) is dict else node)]
        except TypeError:
            return [DictKey(key) for key in node]
    if isinstance(node, (tuple, list)):
        return [SequenceKey(i) for i in range(n)]
    if dataclasses.is_dataclass(node) and len(dataclasses.fields(node)) == n:
        return [GetAttrKey(field.name) for field in dataclasses.fields(node)]
    return [FlattenedIndexKey(i) for i in range(n)]


def tree_flatten_with_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[tuple[tuple[Any, ...], Any]], Any]:
    """The leaves, each with the keys that lead to it, and the structure.

    >>> pairs, _ = tree_flatten_with_path({"w": [1, 2]})
    >>> [(keystr(path), leaf) for path, leaf in pairs]
    [("['w'][0]", 1), ("['w'][1]", 2)]
    """
    pairs: list[tuple[tuple[Any, ...], Any]] = []

    def walk(node: Any, path: tuple[Any, ...]) -> None:
        if is_leaf is not None and is_leaf(node):
            pairs.append((path, node))
            return
        children, structure = md.tree.flatten(node, lambda other: other is not node)
        if structure.kind is None:
            pairs.append((path, node))
            return
        for key, child in zip(_keys(node, len(children)), children, strict=True):
            walk(child, (*path, key))

    walk(tree, ())
    return pairs, md.tree.flatten(tree, is_leaf)[1]


def tree_leaves_with_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[tuple[Any, ...], Any]]:
    """The leaves, each with the keys that lead to it."""
    return tree_flatten_with_path(tree, is_leaf)[0]


def tree_map_with_path(f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """md.tree.map of a function that gets the path, too.

    >>> tree_map_with_path(lambda path, x: keystr(path), {"a": (1, 2)})
    {'a': ("['a'][0]", "['a'][1]")}
    """
    pairs, structure = tree_flatten_with_path(tree, is_leaf)
    return md.tree.unflatten(structure, [f(*row) for row in zip(*zip(*pairs, strict=True), *_columns(tree, rest, structure, is_leaf), strict=True)])


def _columns(tree: Any, rest: Sequence[Any], structure: Any, is_leaf: Any) -> list[list[Any]]:
    """Of each other pytree what it has in the places of the leaves, be it a pytree of its own."""
    columns = []
    for other in rest:
        leaves, found = md.tree.flatten(other)
        columns.append(leaves if found == structure else _below(tree, other, is_leaf))
    return columns


def keystr(keys: Iterable[Any], *, simple: bool = False, separator: str = "") -> str:
    """A path as text: as it would be written in Python, or its names alone.

    >>> keystr((DictKey("a"), SequenceKey(0))), keystr((DictKey("a"), SequenceKey(0)), simple=True, separator="/")
    ("['a'][0]", 'a/0')
    """
    return separator.join(str(k[0]) if simple else str(k) for k in keys)


# ---- types of one's own -----------------------------------------------------------------------------------------------------------------
def register_pytree_node(nodetype: type, flatten_func: Any, unflatten_func: Any, flatten_with_keys_func: Any = None) -> None:
    """md.tree.register, with the keys of paths if they are given."""
    md.tree.register(nodetype, flatten_func, unflatten_func)
    if flatten_with_keys_func is not None:
        _KEYED[nodetype] = lambda node: flatten_with_keys_func(node)[0]


def register_pytree_with_keys(nodetype: type, flatten_with_keys: Any, unflatten_func: Any, flatten_func: Any = None) -> None:
    """register_pytree_node of a function that returns (key, child) pairs and aux."""

    def plain(node: Any) -> Any:
        pairs, aux = flatten_with_keys(node)
        return [child for _, child in pairs], aux

    register_pytree_node(nodetype, flatten_func or plain, unflatten_func, flatten_with_keys)


def register_pytree_node_class(cls: Any) -> Any:
    """A class decorator: the methods tree_flatten and tree_unflatten say how."""
    register_pytree_node(cls, lambda x: x.tree_flatten(), lambda aux, children: cls.tree_unflatten(aux, children))
    return cls


def register_pytree_with_keys_class(cls: Any) -> Any:
    """A class decorator: the methods tree_flatten_with_keys and tree_unflatten say how."""
    register_pytree_with_keys(cls, lambda x: x.tree_flatten_with_keys(), lambda aux, children: cls.tree_unflatten(aux, children))
    return cls


def register_dataclass(
    nodetype: Any = None, data_fields: Sequence[str] | None = None, meta_fields: Sequence[str] | None = None, drop_fields: Sequence[str] = ()
) -> Any:
    """A dataclass whose data_fields are children and whose meta_fields are settings, part of the structure; without these, fields with
    metadata=dict(static=True) are settings.

    >>> @register_dataclass
    ... @dataclasses.dataclass
    ... class Layer:
    ...     w: float
    ...     name: str = dataclasses.field(metadata=dict(static=True), default="")
    >>> md.tree.leaves(Layer(2.0, "first"))
    [2.0]
    """
    if nodetype is None:
        return functools.partial(register_dataclass, data_fields=data_fields, meta_fields=meta_fields, drop_fields=drop_fields)
    if data_fields is None or meta_fields is None:
        fields = [f for f in dataclasses.fields(nodetype) if f.init and f.name not in drop_fields]
        meta_fields = [f.name for f in fields if f.metadata.get("static", False)]
        data_fields = [f.name for f in fields if f.name not in meta_fields]
    data, meta = tuple(data_fields), tuple(meta_fields)

    def build(aux: Any, children: Sequence[Any]) -> Any:
        return nodetype(**dict(zip(data, children, strict=True)), **dict(zip(meta, aux, strict=True)))

    register_pytree_node(
        nodetype, lambda x: ([getattr(x, n) for n in data], tuple(getattr(x, n) for n in meta)), build,
        lambda x: ([(GetAttrKey(n), getattr(x, n)) for n in data], None),
    )  # fmt: skip
    return nodetype


def register_static(cls: Any) -> Any:
    """A class whose instances are settings: containers of nothing, equal where they are equal."""
    md.tree.register(cls, lambda x: ((), x), lambda aux, _: aux)
    return cls


class Partial(functools.partial):
    """functools.partial as a pytree: what is fixed are children, the function is a setting.

    >>> md.tree.map(lambda x: x * 2, Partial(lambda a, b: a + b, 1))(3)
    5
    """


md.tree.register(Partial, lambda p: ((p.args, p.keywords), p.func), lambda f, c: Partial(f, *c[0], **c[1]))


# ---- the rest ---------------------------------------------------------------------------------------------------------------------------
def tree_broadcast(prefix_tree: Any, full_tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The prefix with each of its leaves in the place of all below it."""
    leaves, structure = md.tree.flatten(prefix_tree, is_leaf)
    parts = _below(prefix_tree, full_tree, is_leaf)
    return md.tree.unflatten(structure, [md.tree.map(lambda _, v=v: v, part) for v, part in zip(leaves, parts, strict=True)])


def _below(prefix: Any, tree: Any, is_leaf: Any) -> list[Any]:
    if (is_leaf is not None and is_leaf(prefix)) or md.tree.flatten(prefix, lambda other: other is not prefix)[1].kind is None:
        return [tree]
    given, structure = md.tree.flatten(prefix, lambda other: other is not prefix)
    found, other = md.tree.flatten(tree, lambda v: v is not tree)
    if (structure.kind, structure.aux, len(given)) != (other.kind, other.aux, len(found)):
        raise ValueError(f"tree: a {type(tree).__name__} where a {type(prefix).__name__} is wanted")
    return [part for p, t in zip(given, found, strict=True) for part in _below(p, t, is_leaf)]


def tree_reduce_associative(operation: Any, tree: Any, *, identity: Any = None, is_leaf: Any = None) -> Any:
    """The leaves joined by an associative function of two, in halves."""
    leaves = md.tree.leaves(tree, is_leaf)
    if not leaves:
        return identity
    while len(leaves) > 1:
        leaves = [operation(*leaves[i : i + 2]) if i + 1 < len(leaves) else leaves[i] for i in range(0, len(leaves), 2)]
    return leaves[0]


def tree_structure(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The structure of a pytree."""
    return md.tree.flatten(tree, is_leaf)[1]


def tree_reduce(function: Any, tree: Any, initializer: Any = of_jax.NONE, is_leaf: Any = None) -> Any:
    """The leaves, from left to right, joined by a function of two."""
    return of_jax.reduce(function, md.tree.leaves(tree, is_leaf), initializer)


def tree_all(tree: Any, *, is_leaf: Any = None) -> bool:
    """Whether all leaves are true."""
    return all(md.tree.leaves(tree, is_leaf))


def all_leaves(iterable: Iterable[Any], is_leaf: Any = None) -> bool:
    """Whether none of them is a container."""
    items = list(iterable)
    return [id(v) for v in md.tree.leaves(items, is_leaf)] == [id(v) for v in items]


def tree_map(f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """md.tree.map; in the place of a leaf another pytree may have a pytree of its own, which f gets whole.

    >>> tree_map(lambda x, pair: x + pair[1], [1], [(2, 3)])
    [4]
    """
    leaves, structure = md.tree.flatten(tree, is_leaf)
    return md.tree.unflatten(structure, [f(*row) for row in zip(leaves, *_columns(tree, rest, structure, is_leaf), strict=True)])


def tree_unflatten(treedef: Any, leaves: Iterable[Any]) -> Any:
    """md.tree.unflatten."""
    return md.tree.unflatten(treedef, leaves)


tree_flatten, tree_leaves, tree_transpose = md.tree.flatten, md.tree.leaves, of_jax.transpose


def treedef_children(treedef: Any) -> list[Any]:
    """The structures of the children."""
    return list(treedef.children)


def treedef_is_leaf(treedef: Any) -> bool:
    """Whether it is that of a leaf."""
    return treedef.kind is None


def treedef_tuple(treedefs: Iterable[Any]) -> Any:
    """The structure of a tuple of such pytrees."""
    return PyTreeDef(tuple, None, tuple(treedefs))
