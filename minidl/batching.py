"""vmap: the interpreter whose payloads are batches.

Inside a level a payload is a `Batched`: a Tensor of the level outside with its batch on axis 0, or one that is the same for all lanes
(`mapped` False). A primitive's batching rule runs one level up, so nesting, tapes of outer levels and traces need no care here.

Promises: the number of primitive calls does not depend on the batch size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from minidl import tree
from minidl.backends import using
from minidl.context import Symbolic, grad_mode, interpreting, levels, state
from minidl.dtypes import DType
from minidl.primitives import table
from minidl.primitives.core import Interpreter, Primitive
from minidl.tape import count
from minidl.tensors import Tensor, batch_call, bind, describe, home, promoted, scalar_payload, write_grad


class Batched(Symbolic):
    """A Tensor of the level outside: one value per lane along its first axis, or (mapped False) the same value for all."""

    __slots__ = ("inner", "mapped")

    def __init__(self, inner: Tensor, mapped: bool = True):
        self.inner, self.mapped = inner, mapped

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """The shape of one lane."""
        return self.inner.shape[1:] if self.mapped else self.inner.shape

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        """The dtype."""
        return self.inner.dtype


class Level(Interpreter):
    """One vmap: an xp whose functions apply batching rules in the context outside."""

    name = "vmap"

    def __init__(self, size: int, parent: Any, home: Any):
        super().__init__()
        self.size, self.parent, self.home, self.device = size, parent, home, home.device
        self.root = getattr(parent, "root", None)  # the trace outside, where numbers and constants are entered
        self.born, self.closed = next(count), False
        self.grads: dict[Any, Any] = {}  # of leaves made inside

    def gone(self) -> None:
        """Complain about a tensor that left its vmap."""
        raise RuntimeError("vmap: a tensor of a finished vmap was used outside it; return it from the function instead")

    def scalar(self, value: Any, dtype: DType) -> Any:
        """A Python number, the same for all lanes, in the dtype that the operation has: a rule that sees it alone must not ask for the default."""
        xp = self.home if self.parent is None else self.parent
        payload = scalar_payload(xp, value, dtype) if self.parent is None else xp.scalar(value, dtype)
        return Batched(Tensor(payload, xp, dtype), False)

    def call(self, primitive: Primitive, payloads: Sequence[Any], params: dict[str, Any]) -> Any:
        """Apply a primitive to payloads of this level."""
        batched = [isinstance(p, Batched) and p.mapped for p in payloads]
        inner = [p.inner if isinstance(p, Batched) else p for p in payloads]
        mapped = any(batched)
        with interpreting(self.parent), using(self.home):  # batching rules make constants too
            if not mapped:
                out: Any = bind(primitive, inner, params)
            elif primitive.batch is None:
                raise NotImplementedError(f"vmap: primitive {primitive.name} has no batching rule; give it one, or pass it to md.extend.define")
            else:
                inner, _ = promoted(primitive, inner, self.parent or self.home)
                out = primitive.batch(primitive, batch_call(self.parent), self.size, inner, batched, params)
        return tuple(Batched(o, mapped) for o in out) if primitive.multiple else Batched(out, mapped)

    def lift(self, t: Tensor) -> tuple[Any, Any]:
        """A Tensor as a payload of this level: its own, or one of an outer level, the same for all lanes and constant here."""
        return (t.payload, t.node) if t.xp is self else (Batched(t, False), None)

    def constant(self, t: Tensor) -> None:
        """A Tensor was made from host data; a trace outside may want to know."""
        if self.parent is not None:
            self.parent.constant(t)

    def detach(self, t: Tensor) -> Tensor:
        """No derivative flows through the result, at this level or outside."""
        payload = self.lift(t)[0]
        with interpreting(self.parent):
            payload = Batched(payload.inner.detach(), payload.mapped)
        return Tensor(payload, self, t.dtype)

    def assign(self, target: Tensor, value: Tensor) -> None:
        """In-place update: of a tensor of this level, or of an outer one by a value that is the same for all lanes."""
        payload, node = self.lift(value)
        if target.xp is self:
            if not state.grad and target.dtype.inexact:
                with grad_mode(True):  # the derivative of before, also for who differentiates outside
                    payload = self.call(table["instead"], (target.payload, payload), {})
            target.payload = payload
            if state.grad and target.leaf is None:
                target.node = node
        elif payload.mapped:
            raise RuntimeError(f"vmap: {describe(target)} from outside cannot take a value that differs between lanes; return the value instead")
        else:
            with interpreting(self.parent):
                target.assign(payload.inner)

    def read_grad(self, leaf: Any) -> Any:
        """The gradient of a leaf: what was written here, or what the level outside sees."""
        if leaf.born < self.born:
            return self.grads.get(leaf)
        return leaf.grad if self.parent is None else self.parent.read_grad(leaf)

    def write_grad(self, leaf: Any, value: Tensor | None) -> None:
        """Set a leaf's gradient. One that differs between lanes can only belong to a leaf made inside, and is gone when the level ends."""
        if leaf.born < self.born:  # these numbers fall
            self.grads[leaf] = value
            return
        payload = None if value is None else self.lift(value)[0]
        if payload is not None and payload.mapped:
            raise RuntimeError("vmap: the gradient of a leaf from outside cannot differ between lanes; return it (md.grad) and sum it outside")
        with interpreting(self.parent):
            write_grad(leaf, None if payload is None else payload.inner)

    def concretize(self, t: Tensor, what: str) -> Any:
        """Batched values have no single Python value."""
        payload = self.lift(t)[0]
        if payload.mapped:
            raise TypeError(
                f"{what}: the value {describe(t)} is batched by md.vmap and differs between lanes; use md.where, md.while_loop or md.cond"
                " for control flow, or keep the argument out of vmap with in_axes=None"
            )
        return payload.inner


def per_lane(make: Callable[[int], Tensor]) -> Tensor | None:
    """Inside md.vmap: `make(number of lanes)`, called once outside it, as a Tensor that holds one row of the result for each lane. Elsewhere None.

    >>> md.vmap(lambda x: x * md.extend.per_lane(md.arange))(md.ones((3,))).tolist()
    [0.0, 1.0, 2.0]
    """
    level = state.interpreter
    if not isinstance(level, Level):
        return None
    with interpreting(level.parent), using(level.home):
        rows = make(level.size)
    return Tensor(Batched(rows), level, rows.dtype)


def lanes_around(own: bool = False) -> Any:
    """The level of vmap that what is traced now runs in, such as the body of a loop in a mapped function; None elsewhere. own: also where the level
    is the interpreter itself.

    >>> def twice(x):
    ...     return md.scan(lambda c, _: (c + (md.extend.lanes_around() is not None), ()), x, None, length=2)[0]
    >>> md.vmap(twice)(md.zeros(3)).tolist(), md.jit(twice)(md.tensor(0.0)).item()
    ([2.0, 2.0, 2.0], 0.0)
    """
    level = next((level for level in levels() if isinstance(level, Level)), None)
    return None if level is state.interpreter and not own else level


def _to_front(t: Tensor, axis: int) -> Tensor:
    from minidl.ops import moveaxis

    return t if axis == 0 else moveaxis(t, axis, 0)


def vmap(f: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0, **dims: Any) -> Callable[..., Any]:
    """Map f over axes of its arguments, as one batched computation.

    in_axes: an integer or None (not mapped) for all arguments, or a pytree prefix of the tuple of arguments; out_axes likewise for the result.
    in_dims and out_dims are PyTorch's words for them; randomness="different" is what always holds, so "error" forbids nothing, and chunk_size
    changes no value. Raises ValueError where the mapped sizes differ or nothing is mapped, TypeError for randomness="same".

    >>> md.vmap(lambda x, y: x @ y, in_axes=(0, None))(md.ones((3, 2)), md.ones((2,))).tolist()
    [2.0, 2.0, 2.0]
    """
    in_axes, out_axes = dims.pop("in_dims", in_axes), dims.pop("out_dims", out_axes)
    if dims.pop("randomness", "error") == "same" or dims.keys() - {"chunk_size"}:
        word = next(iter(dims.keys() - {"chunk_size"}), "randomness='same'")
        raise TypeError(f"vmap: got an unexpected keyword argument {word!r}; it takes in_axes and out_axes, and lanes draw different numbers")

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from minidl.ops import asarray

        axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        if isinstance(axes, tuple) and len(axes) != len(args):
            raise ValueError(f"vmap: in_axes has {len(axes)} entries for {len(args)} arguments")
        leaves, structure = tree.flatten((args, kwargs))
        where = tree.broadcast_prefix("vmap", axes, args) + [0] * len(tree.leaves(kwargs))
        leaves = [asarray(v) if w is not None and not isinstance(v, Tensor) else v for v, w in zip(leaves, where, strict=True)]
        sizes = {}
        for v, w in zip(leaves, where, strict=True):
            if w is not None:
                if not -v.ndim <= w < v.ndim:
                    raise ValueError(f"vmap: axis {w} is out of range for the argument {describe(v)}")
                sizes[v.shape[w]] = v
        if len(sizes) != 1:
            if not sizes:
                raise ValueError("vmap: no argument is mapped; give at least one in_axes that is not None")
            raise ValueError(f"vmap: the mapped axes differ in size: {', '.join(describe(v) for v in sizes.values())} along in_axes {in_axes}")
        (size,) = sizes
        parent = state.interpreter
        level = Level(size, parent, home(next(iter(sizes.values())).xp))
        inside = [
            Tensor(Batched(_to_front(v, w % v.ndim)), level, v.dtype) if w is not None else v for v, w in zip(leaves, where, strict=True)
        ]
        a, k = tree.unflatten(structure, inside)
        with interpreting(level):
            out = f(*a, **k)
            outs, out_structure = tree.flatten(out)
            payloads = [level.lift(o)[0] if isinstance(o, Tensor) else o for o in outs]
        level.closed = True
        return _collect(payloads, tree.broadcast_prefix("vmap", out_axes, out), size, out_structure)

    return wrapped


def _collect(payloads: Sequence[Any], out_axes: Sequence[Any], size: int, structure: tree.Structure) -> Any:
    from minidl.ops import asarray, broadcast_to, moveaxis

    results = []
    for p, w in zip(payloads, out_axes, strict=True):
        if isinstance(p, Batched) and p.mapped:
            if w is None:
                raise ValueError(f"vmap: an output {describe(p)} differs between lanes, but out_axes is None for it")
            results.append(p.inner if w == 0 else moveaxis(p.inner, 0, w))
        elif w is None:
            results.append(p.inner if isinstance(p, Batched) else p)
        else:
            t = p.inner if isinstance(p, Batched) else asarray(p)
            t = broadcast_to(t, (size, *t.shape))
            results.append(t if w == 0 else moveaxis(t, 0, w))
    return tree.unflatten(structure, results)
