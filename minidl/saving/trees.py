"""Pytrees in a safetensors file: tensors by name, and in the header, as JSON, the tree that they hang on.

A node of the tree is null, true, a number or a text for itself, a list for a list, and otherwise an object with one kind of a closed list: tensor,
array, scalar, tuple, dict (ordered, counter), float, complex, bytes, dtype, or node for a container of the user's own. Nothing is looked up by a
name from the file. Checksums (CRC-32) over the tree and over each tensor with its dtype and shape make damage to any byte that matters an error.
"""

from __future__ import annotations

import base64
import copy
import json
import math
import os
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import minidl as md
from minidl.saving.files import array, opened, write

DEPTH = 100  # of nested containers
_TREE, _CHECK = "minidl", "minidl_crc32"
_DTYPES = {d.name: d for d in list(vars(md).values()) if isinstance(d, md.DType)}
_KEYS = (str, int, bool, float, type(None))
_DICTS: dict[type, str] = {dict: "dict", OrderedDict: "ordered", Counter: "counter"}


def save(path: str | os.PathLike[str], tree: Any, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a pytree to a safetensors file, whole or not at all (see `atomic`).

    tree: dicts, lists, tuples, Tensors, NumPy arrays and scalars, numbers, texts, bytes, dtypes and None, up to 100 deep. Keys of dicts are
    texts, numbers, None or tuples of these. A Tensor that hangs at two places is stored once, and is one when it is loaded. Containers of the
    user's own (namedtuples, dataclasses, registered ones) are stored too, and need `like` to be loaded. Tensors are named by their path
    ("model.0.weight"), so that any reader of safetensors finds them. metadata: texts for the header.

    Raises TypeError, with the place in the tree, for anything else; what has a state_dict (a Module, an optimizer) is saved as that.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/tree.safetensors"
    >>> save(path, {"layers": [(md.ones((2,)), None)], "lr": 0.1})
    >>> load(path)["layers"][0][0].tolist()
    [1.0, 1.0]
    """
    writer = _Writer()
    text = json.dumps(writer.node(tree, (), 0), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    own = {_TREE: text, _CHECK: str(zlib.crc32(text.encode()))}
    for k, v in (metadata or {}).items():
        if not isinstance(k, str) or not isinstance(v, str) or k in own:
            raise TypeError(f"save: metadata is a dict of texts without {_TREE!r} and {_CHECK!r}, not {k!r}: {v!r}")
    write(path, writer.arrays, {**(metadata or {}), **own})


def load(path: str | os.PathLike[str], *, like: Any = None, backend: str | None = None, device: str | None = None) -> Any:
    """The pytree that `save` wrote, with its tensors on the default backend, or on the one named; none of them requires grad.

    like: a pytree of the same form; the values come in its containers (also namedtuples, dataclasses and registered ones), its Tensors' backends and
    devices. Raises ValueError, with the file's name and the reason, for a file that is damaged, truncated or hostile, that holds no tree
    (`load_tensors` reads those), or whose form is not that of `like`. Never runs code from a file.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/state.safetensors"
    >>> md.saving.save(path, {"w": md.ones(2), "step": 3})
    >>> state = md.saving.load(path)
    >>> state["w"].tolist(), state["step"]
    ([1.0, 1.0], 3)
    """
    with opened(path) as reader:
        return _tree(path, reader, like, backend, device)


def _tree(path: Any, reader: Any, like: Any, backend: str | None, device: str | None) -> Any:
    metadata = reader.metadata() or {}
    if _TREE not in metadata:
        raise ValueError(f"{path}: a safetensors file without a tree of minidl's; md.saving.load_tensors reads its tensors by name")
    text = metadata[_TREE]
    if metadata.get(_CHECK) != str(zlib.crc32(text.encode())):
        raise ValueError(f"{path}: damaged: the checksum of the tree is not that of its text")
    try:
        node = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: the tree is no JSON that can be read: {error}") from None
    held = _Reader(path, reader, backend, device)
    out = held.value(node, (), 0) if like is None else held.into(node, like, (), 0)
    left = sorted(set(reader.keys()) - held.read.keys())
    if left:
        raise ValueError(f"{path}: damaged or hostile: tensors that the tree does not name: {left[:10]}")
    return out


def metadata_of(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts that were saved beside the tree."""
    with opened(path) as reader:
        return {k: v for k, v in (reader.metadata() or {}).items() if k not in (_TREE, _CHECK)}


def _check(a: np.ndarray) -> int:
    """The checksum of an array: its bytes with its dtype and shape."""
    flat = np.asarray(a, order="C").reshape(-1).view(np.uint8)
    return zlib.crc32(f"{a.dtype.name}{list(a.shape)}".encode(), zlib.crc32(flat.data))


def _place(path: tuple) -> str:
    return "".join(f"[{p!r}]" for p in path) or "the root"


def _children(value: Any) -> tuple[list[Any], Any] | None:
    """The children of a container of the user's own and the structure that puts them back; None for what is no container."""
    children, structure = md.tree.flatten(value, is_leaf=lambda v: v is not value)
    return None if structure.kind is None else (children, structure)


def _names(structure: Any, n: int) -> list[Any]:
    aux = structure.aux
    fields = aux if isinstance(aux, tuple) and len(aux) == n and all(isinstance(k, str) for k in aux) else getattr(structure.kind, "_fields", ())
    return list(fields) if len(fields) == n else list(range(n))


def _title(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class _Writer:
    """Turns a tree into JSON and collects its arrays."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.known: dict[int, dict[str, Any]] = {}
        self.alive: list[Any] = []

    def node(self, value: Any, path: tuple, depth: int) -> Any:
        t = type(value)
        if value is None or t in (bool, int, str):
            return value
        if t is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if depth > DEPTH:
            raise ValueError(f"save: more than {DEPTH} containers inside each other at {_place(path)}")
        if isinstance(value, md.Tensor):
            return self._stored("tensor", value, path)
        if isinstance(value, np.ndarray):
            return self._stored("array", value, path)
        if isinstance(value, np.generic):
            return self._stored("scalar", value, path)
        if t is list:
            return [self.node(v, (*path, i), depth + 1) for i, v in enumerate(value)]
        if t is tuple:
            return {"tuple": [self.node(v, (*path, i), depth + 1) for i, v in enumerate(value)]}
        if t in _DICTS:
            return {_DICTS[t]: [[self._key(k, path), self.node(v, (*path, k), depth + 1)] for k, v in value.items()]}
        if t is complex:
            return {"complex": [repr(value.real), repr(value.imag)]}
        if t is bytes:
            return {"bytes": base64.b64encode(value).decode()}
        if isinstance(value, md.DType):
            return {"dtype": value.name}
        if callable(getattr(value, "state_dict", None)):
            raise TypeError(f"save: {_place(path)} is a {t.__name__}; save its state_dict(), or use md.saving.save_checkpoint(path, name=object)")
        found = _children(value)
        if found is None:
            raise TypeError(f"save: {_place(path)} is a {_title(t)}, which no file holds; save its numbers and arrays in dicts, lists and tuples")
        children, structure = found
        names = _names(structure, len(children))
        return {"node": [_title(t), [self.node(c, (*path, n), depth + 1) for n, c in zip(names, children, strict=True)]]}

    def _key(self, key: Any, path: tuple) -> Any:
        if type(key) is tuple and all(type(k) in _KEYS for k in key):
            return {"tuple": [self._key(k, path) for k in key]}
        if type(key) not in _KEYS:
            raise TypeError(f"save: a key of {_place(path)} is {key!r}; texts, numbers, None and tuples of these can be saved")
        return self.node(key, path, 0)

    def _stored(self, kind: str, value: Any, path: tuple) -> dict[str, Any]:
        if id(value) in self.known:
            return self.known[id(value)]
        a = value.detach().numpy() if isinstance(value, md.Tensor) else np.asarray(value)
        if a.dtype.name not in _DTYPES:
            raise TypeError(f"save: {_place(path)} is an array of dtype {a.dtype}; only numbers and Booleans can be saved")
        a = a.astype(a.dtype.newbyteorder("="), copy=False)
        name = base = ".".join(str(p) for p in path) or kind
        i = 1
        while name in self.arrays or name == "__metadata__":
            i += 1
            name = f"{base}#{i}"
        found: dict[str, Any] = {kind: name, "crc32": _check(a)}
        if a.dtype == np.complex128:
            a = np.stack([a.real, a.imag], axis=-1)
            found = {kind: name, "crc32": _check(a), "complex": True}
        self.arrays[name] = a
        self.known[id(value)] = found
        self.alive.append(value)  # an id is only good while its object lives
        return found


class _Reader:
    """Turns JSON back into a tree. Every node is checked before it is believed."""

    def __init__(self, path: Any, reader: Any, backend: str | None, device: str | None):
        self.path, self.reader, self.backend, self.device = path, reader, backend, device
        self.names = set(reader.keys())
        self.read: dict[str, tuple[str, Any]] = {}

    def wrong(self, what: str, path: tuple) -> ValueError:
        return ValueError(f"{self.path}: {what} at {_place(path)}")

    def value(self, node: Any, path: tuple, depth: int) -> Any:
        """The value of a node; checks that it is one of those that are known."""
        if depth > DEPTH:
            raise self.wrong(f"hostile: more than {DEPTH} containers inside each other", path[:3])
        if node is None or type(node) in (bool, int, str) or (type(node) is float and math.isfinite(node)):
            return node
        if type(node) is list:
            return [self.value(v, (*path, i), depth + 1) for i, v in enumerate(node)]
        kind = next(iter(node)) if type(node) is dict and node else None
        body = node[kind] if kind is not None else None
        if kind in ("tensor", "array", "scalar") and type(body) is str:
            return self._array(kind, node, body, path)
        if kind is not None and len(node) == 1:
            if kind == "tuple" and type(body) is list:
                return tuple([self.value(v, (*path, i), depth + 1) for i, v in enumerate(body)])
            if kind in _DICTS.values() and type(body) is list and all(type(e) is list and len(e) == 2 for e in body):
                made: dict[Any, Any] = next(t for t, k in _DICTS.items() if k == kind)()
                for k, v in self._entries(body, path):
                    made[k] = self.value(v, (*path, k), depth + 1)
                return made
            if kind == "node" and type(body) is list and len(body) == 2 and type(body[0]) is str:
                raise ValueError(f"{self.path}: holds a {body[0][:100]} at {_place(path)}; give md.saving.load a tree of the same form as like=")
            simple = _SIMPLE.get(kind)
            if simple is not None:
                try:
                    return simple(body)
                except (ValueError, TypeError, KeyError):
                    pass
        raise self.wrong(f"damaged or hostile: {str(node)[:60]} is no node of a tree", path)

    def _entries(self, body: list, path: tuple) -> Iterator[tuple[Any, Any]]:
        seen = set()
        for k, v in body:
            key = self.value(k, path, DEPTH - 1)
            flat = key if type(key) is tuple else (key,)
            if not all(type(p) in _KEYS for p in flat) or (type(key), key) in seen:
                raise self.wrong(f"damaged or hostile: the key {str(key)[:60]!r}", path)
            seen.add((type(key), key))
            yield key, v

    def _array(self, kind: str, node: dict[str, Any], name: str, path: tuple) -> Any:
        if name in self.read:
            if self.read[name][0] != kind:
                raise self.wrong(f"damaged or hostile: {name!r} is a {self.read[name][0]} and a {kind}", path)
            return self.read[name][1]
        if name not in self.names:
            raise self.wrong(f"damaged: the file has no tensor {name!r}", path)
        a = array(self.path, self.reader, name)
        if node.get("crc32") != _check(a):
            raise self.wrong(f"damaged: the checksum of {name!r} is not that of its bytes", path)
        if node.get("complex"):
            if a.dtype != np.float64 or a.shape[-1:] != (2,):
                raise self.wrong(f"damaged or hostile: {name!r} holds no complex numbers", path)
            a = a.view(np.complex128).reshape(a.shape[:-1])
        out: Any = a.copy() if kind == "array" else a[()] if kind == "scalar" else md.asarray(a, backend=self.backend, device=self.device)
        self.read[name] = kind, out
        return out

    def into(self, node: Any, like: Any, path: tuple, depth: int) -> Any:
        """The values of a node in the containers of `like`."""
        if isinstance(like, md.Tensor):
            found = self.value(node, path, depth)
            if not isinstance(found, md.Tensor) or found.shape != like.shape or found.dtype is not like.dtype:
                raise self.wrong(f"the file has {_short(found)}, like= has {_short(like)},", path)
            out = copy.copy(like)
            with md.no_grad():
                out.assign(found.to(backend=like.backend, device=like.device))
            return out
        found_children = None if like is None or isinstance(like, (np.ndarray, np.generic)) else _children(like)
        if found_children is None:
            found = self.value(node, path, depth)
            if type(found) is not type(like):
                raise self.wrong(f"the file has {_short(found)}, like= has {_short(like)},", path)
            return found
        children, structure = found_children
        nodes = self._parts(node, like, structure, len(children), path)
        names = _names(structure, len(children))
        parts = [self.into(n, c, (*path, k), depth + 1) for n, c, k in zip(nodes, children, names, strict=True)]
        return md.tree.unflatten(structure, parts)

    def _parts(self, node: Any, like: Any, structure: Any, n: int, path: tuple) -> list[Any]:
        """The nodes below one, in the order of the structure of `like`."""
        body: Any = None
        if type(node) is list and type(like) is list:
            body = node
        elif type(node) is dict and len(node) == 1:
            kind, inner = next(iter(node.items()))
            if kind == "tuple" and type(like) is tuple:
                body = inner
            elif kind == "node" and type(inner) is list and len(inner) == 2 and inner[0] == _title(type(like)):
                body = inner[1]
            elif type(like) in _DICTS and kind == _DICTS[type(like)] and type(inner) is list:
                if all(type(e) is list and len(e) == 2 for e in inner):
                    by_key = dict(self._entries(inner, path))
                    if by_key.keys() == set(structure.aux):
                        return [by_key[k] for k in structure.aux]
                    theirs, ours = sorted(map(str, by_key))[:20], sorted(map(str, structure.aux))[:20]
                    raise self.wrong(f"the file has the keys {theirs}, like= has {ours},", path)
        if type(body) is not list or len(body) != n:
            raise self.wrong(f"the file has {str(node)[:60]}, like= has a {_title(type(like))} of {n}", path)
        return body


def _short(value: Any) -> str:
    return f"{value.dtype.short}[{','.join(map(str, value.shape))}]" if isinstance(value, md.Tensor) else f"a {type(value).__name__}"


def _float(body: Any) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[body]


def _complex(body: Any) -> complex:
    real, imaginary = body
    if not isinstance(real, str) or not isinstance(imaginary, str):
        raise TypeError
    return complex(float(real), float(imaginary))


#: What each of the plain kinds means.
_SIMPLE: dict[str, Callable[[Any], Any]] = {
    "float": _float, "complex": _complex, "bytes": lambda body: base64.b64decode(body, validate=True), "dtype": lambda body: _DTYPES[body],
}  # fmt: skip
