"""Pytrees: nested containers whose leaves are tensors or anything else; transforms and jit take and return them.

tuple, list, dict, namedtuple, dataclass and None are containers from the start; `register` adds a type.

Promises: the leaves of a dict stand in the order of its sorted keys, and dicts with equal keys are of equal structure; what is built from a structure
has its keys in the order of the dict that was flattened, so that values() of parameters and of their gradients go together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

_registry: dict[type, tuple[Callable[[Any], tuple[Sequence[Any], Any]], Callable[[Any, Sequence[Any]], Any]]] = {}
_leaves: set[type] = set()  # some of the types that are no containers


class Fields(tuple):
    """A tuple whose entries have names, from a class body as typing.NamedTuple takes one; that compiles each class, a tenth of `import minidl`.

    >>> class Pair(Fields):
    ...     first: int
    ...     second: int
    >>> Pair(1, 2).second
    2
    """

    __slots__ = ()
    _fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)
        for i, name in enumerate(cls._fields):
            setattr(cls, name, property(itemgetter(i)))

    def __new__(cls, *values: Any) -> Any:
        if len(values) != len(cls._fields):
            raise TypeError(f"{cls.__name__}: wanted {', '.join(cls._fields)}, got {len(values)} values")
        return tuple.__new__(cls, values)

    def __getnewargs__(self) -> tuple:
        return tuple(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in zip(self._fields, self, strict=True))})"


class _Keys(tuple):
    """The sorted keys of a dict; `order` is as they stood there, of which equality takes no notice."""

    order: tuple[Any, ...]


class Structure(Fields):
    """The shape of a pytree: hashable, compared by value. kind is None for a leaf. The keys of a dict count in any order, but what is built has them
    in the order of the dict that was flattened."""

    kind: Any
    aux: Any
    children: tuple[Structure, ...]

    @property
    def size(self) -> int:
        """Number of leaves."""
        return 1 if self.kind is None else sum(c.size for c in self.children)

    num_leaves = size  # JAX's name
    num_nodes = property(lambda self: 1 + sum(c.num_nodes for c in self.children), doc="How many leaves and pytrees there are.")


LEAF = Structure(None, None, ())


def register(cls: type, flatten: Callable[[Any], tuple[Sequence[Any], Any]], unflatten: Callable[[Any, Sequence[Any]], Any]) -> None:
    """Make instances of cls containers: flatten(x) -> (children, aux), unflatten(aux, children) -> x; aux must be hashable.

    >>> class Pair:
    ...     def __init__(self, a, b): self.a, self.b = a, b
    >>> register(Pair, lambda p: ((p.a, p.b), None), lambda _, c: Pair(*c))
    >>> flatten(Pair(1, 2))[0]
    [1, 2]
    """
    _registry[cls] = (flatten, unflatten)
    _leaves.clear()


register(defaultdict, lambda d: (list(d.values()), (d.default_factory, *d)), lambda aux, c: defaultdict(aux[0], zip(aux[1:], c, strict=True)))


def _entry(tree: Any) -> Any:
    for cls in type(tree).__mro__:
        if cls in _registry:
            return _registry[cls]
    return None


def _children(tree: Any) -> tuple[Any, Any, Sequence[Any]] | None:
    """(kind, aux, children), or None for a leaf."""
    if tree is None:
        return type(None), None, ()
    t = type(tree)
    if t is tuple or t is list:
        return t, None, tree
    if t is dict:
        keys = order = tuple(tree)
        try:
            keys = tuple(sorted(order))
        except TypeError:
            return dict, order, list(tree.values())
        if keys != order:
            keys = _Keys(keys)
            keys.order = order
        return dict, keys, [tree[k] for k in keys]
    entry = _entry(tree)
    if entry is not None:
        children, aux = entry[0](tree)
        return t, aux, children
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return t, None, tree
    if isinstance(tree, dict):
        return t, tuple(tree), list(tree.values())
    if hasattr(t, "__dataclass_fields__"):
        import dataclasses

        names = tuple(f.name for f in dataclasses.fields(tree))
        return t, names, [getattr(tree, n) for n in names]
    if len(_leaves) < 256:
        _leaves.add(t)
    return None


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], Structure]:
    """The leaves from left to right, and the structure that puts them back.

    >>> flatten({"b": 1, "a": (2, None)})[0]
    [2, 1]
    """
    leaves: list[Any] = []
    return leaves, _walk(tree, is_leaf, leaves)


def _walk(tree: Any, is_leaf: Callable[[Any], bool] | None, leaves: list[Any]) -> Structure:
    found = None if type(tree) in _leaves or (is_leaf is not None and is_leaf(tree)) else _children(tree)
    if found is None:
        leaves.append(tree)
        return LEAF
    kind, aux, children = found
    return Structure(kind, aux, tuple([_walk(c, is_leaf, leaves) for c in children]))


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Any:
    """The pytree of that structure with these leaves."""
    return _build(structure, iter(leaves))


def _build(s: Structure, it: Iterator[Any]) -> Any:
    # no closure: one that calls itself is a cycle, and would keep the leaves (a program's results) alive until the collector runs
    kind = s.kind
    if kind is None:
        return next(it)
    if kind is type(None):
        return None
    children = [_build(c, it) for c in s.children]
    if kind is list:
        return children
    if kind is tuple:
        return tuple(children)
    if kind is dict:
        return ordered(s.aux, children)
    for cls in kind.__mro__:
        if cls in _registry:
            return _registry[cls][1](s.aux, children)
    if issubclass(kind, tuple):
        return kind(*children)
    if issubclass(kind, dict):
        return kind(dict(zip(s.aux, children, strict=True)))  # pairs would be counted by a Counter
    return kind(**dict(zip(s.aux, children, strict=True)))


def ordered(keys: tuple[Any, ...], values: Iterable[Any]) -> dict[Any, Any]:
    """The dict of sorted keys, in the order that they came in."""
    made = dict(zip(keys, values, strict=True))
    return {k: made[k] for k in keys.order} if type(keys) is _Keys else made


def source(structure: Structure, leaves: Iterable[str]) -> str | None:
    """Python text that builds the pytree from the texts of its leaves; None where a container has no display of its own.

    >>> source(flatten({"a": 1, "b": (2, [3], None)})[1], "xyz")
    "{'a': x, 'b': (y, [z, ], None, )}"
    """
    return _text(structure, iter(leaves))


def _text(s: Structure, leaves: Iterator[str]) -> str | None:
    kind = s.kind
    if kind is None:
        return next(leaves)
    if kind is type(None):
        return "None"
    parts = [_text(c, leaves) for c in s.children]
    if None in parts or kind not in (tuple, list, dict) or not all(type(k) in (str, int) for k in s.aux or ()):
        return None
    if kind is dict:
        return "{" + ", ".join(f"{k!r}: {p}" for k, p in ordered(s.aux, parts).items()) + "}"
    inside = "".join(f"{p}, " for p in parts)
    return f"[{inside}]" if kind is list else f"({inside})"


def map(function: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """Apply function to corresponding leaves; what is_leaf says yes to is one. Raises ValueError where the structures differ.

    >>> md.tree.map(lambda a, b: a + b, (1, [2]), (10, [20]))
    (11, [22])
    """
    leaves, structure = flatten(tree, is_leaf)
    columns = [leaves]
    for other in rest:
        others, s = flatten(other, is_leaf)
        if s != structure:
            raise ValueError(f"tree.map: the pytrees differ in structure: {structure} and {s}")
        columns.append(others)
    return unflatten(structure, [function(*row) for row in zip(*columns, strict=True)])


def leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves from left to right."""
    return flatten(tree, is_leaf)[0]


def broadcast_prefix(name: str, prefix: Any, tree: Any) -> list[Any]:
    """One value of `prefix` per leaf of `tree`, where prefix may stop at any container (as vmap's in_axes do)."""
    out: list[Any] = []

    def walk(p: Any, t: Any) -> None:
        if p is None or not isinstance(p, (tuple, list, dict)):
            out.extend([p] * len(leaves(t)))
            return
        found = _children(t)
        parts = list(p.values()) if isinstance(p, dict) else list(p)
        if found is None or len(found[2]) != len(parts):
            raise ValueError(f"{name}: {p!r} does not match the structure of its argument")
        if isinstance(p, dict) and found[0] is dict:
            parts = [p[k] for k in found[1]]
        for a, b in zip(parts, found[2], strict=True):
            walk(a, b)

    walk(prefix, tree)
    return out


def matched(name: str, given: Any, tree: Any) -> list[Any]:
    """What `given` has for each leaf of `tree`: None for all below a None of its own. Raises ValueError where else the structures differ."""
    found = _children(tree)
    if found is None:
        return [given]
    if given is None:
        return [None] * len(leaves(tree))
    other = _children(given)
    kinds = {found[0], other[0]} if other is not None else {None}
    if other is None or len(other[2]) != len(found[2]) or other[1] != found[1] or (len(kinds) > 1 and kinds != {tuple, list}):
        raise ValueError(f"{name}: a {type(given).__name__} where a {type(tree).__name__} of {len(found[2])} is wanted")
    return [g for a, b in zip(other[2], found[2], strict=True) for g in matched(name, a, b)]


def __getattr__(name: str) -> Any:
    """More of jax.tree's names."""
    if name.startswith("_"):
        raise AttributeError(name)
    from minidl.ops.methods import idiom

    return idiom(globals(), "tree", f"module 'minidl.tree' has no attribute {name!r}", name)
