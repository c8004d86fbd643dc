"""Collectives of jax.lax in functions that vmap maps with axis_name: what the lanes of one axis know of each other.

A collective is a function of the whole batch. So there is one primitive, `across`: at the level of vmap that it belongs to it applies a function to
the stacked lanes, outside of which nothing is left of it; any other level maps that function. Its derivative is the function's own, again across the
lanes, so that all orders, both modes, loops and nested axes follow. Which level it belongs to says an argument that only that one maps: the lanes'
numbers, kept under the axis' name while the mapped function runs.
"""

from __future__ import annotations

import contextvars
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import minidl as md

#: Name of an axis -> the numbers of its lanes, one in each, and how many there are.
_AXES: contextvars.ContextVar[dict[Any, tuple[Any, int]]] = contextvars.ContextVar("axes", default={})  # noqa: B039  # never written to


def vmap(
    fun: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0, axis_name: Any = None, axis_size: int | None = None,
    spmd_axis_name: Any = None,
) -> Callable[..., Any]:  # fmt: skip
    """md.vmap; axis_name: what collectives inside call the axis. axis_size: of so many lanes, where no argument is mapped.

    >>> vmap(lambda x: x / psum(x, "i"), axis_name="i")(md.tensor([1.0, 3.0])).tolist()
    [0.25, 0.75]
    """

    if axis_name is None and axis_size is None:
        return md.vmap(fun, in_axes, out_axes)

    @functools.wraps(fun)
    def named(*args: Any, **kwargs: Any) -> Any:
        lanes = md.extend.per_lane(md.arange), md.extend.lanes_around(own=True).size
        token = _AXES.set(_AXES.get() | {axis_name: lanes})
        try:
            return fun(*args, **kwargs)
        finally:
            _AXES.reset(token)

    if axis_size is None:
        return md.vmap(named, in_axes, out_axes)
    axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    whole = md.vmap(lambda _, args, kwargs: named(*args, **kwargs), (0, axes, 0), out_axes)
    return functools.wraps(fun)(lambda *args, **kwargs: whole(md.arange(axis_size), args, kwargs))


class _Linear(NamedTuple):
    """A linear function of the stacked values of n lanes."""

    name: str
    pairs: tuple[tuple[int, int], ...] = ()

    def shape(self, n: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What a lane gets where each has this shape."""
        return (n, *shape) if self.name == "gather" else shape[1:] if self.name == "scatter" else shape

    def transposed(self) -> _Linear:
        """The function that cotangents go through."""
        names = {"gather": "scatter", "scatter": "gather"}
        return _Linear(names.get(self.name, self.name), tuple((b, a) for a, b in self.pairs))

    def __call__(self, x: md.Tensor) -> md.Tensor:
        n = x.shape[0]
        if self.name == "sum":
            return md.broadcast_to(md.sum(x, axis=0, keepdims=True), x.shape)
        if self.name == "gather":
            return md.broadcast_to(x[None], (n, *x.shape))
        if self.name == "scatter":  # lane i gets the sum of what all have for it
            return md.sum(x, axis=0)
        if self.name == "swap":  # lane i gets part i of every lane
            return md.swapaxes(x, 0, 1)
        source = {b: a for a, b in self.pairs}
        return md.stack([x[source[i]] if i in source else md.zeros_like(x[0]) for i in range(n)])


class _Mapped(NamedTuple):
    """Such a function for each lane of another axis, which comes behind the lanes of its own."""

    of: Any

    def shape(self, n: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What a lane gets where each has this shape."""
        return (shape[0], *self.of.shape(n, shape[1:]))

    def transposed(self) -> _Mapped:
        """The function that cotangents go through."""
        return _Mapped(self.of.transposed())

    def __call__(self, x: md.Tensor) -> md.Tensor:
        return md.vmap(self.of, 1, 1)(x)


def _batch(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    (lane, x), (own, mapped) = xs, batched
    if not own:
        return call("across", lane, x, f=_Mapped(params["f"]), n=params["n"])
    return params["f"](x if mapped else md.broadcast_to(x[None], (size, *x.shape)))


def _alone(xp: Any, lane: Any, x: Any, f: Any, n: int) -> Any:
    raise RuntimeError("a collective was computed outside of the vmap with axis_name= that it belongs to; return what it needs from the function")


_across = md.extend.define(
    md.extend.Primitive(
        "across", "lane x", "f n",
        infer=lambda lane, x, f, n: (f.shape(n, x.shape), x.dtype),
        vjps=(None, lambda xp, g, lane, f, n: xp.across(lane, g, f=f.transposed(), n=n)), jvps=(None, "linear"),
        batch=_batch, decompose=_alone, promote="none",
    )
)  # fmt: skip


def _axes(name: Any) -> list[tuple[md.Tensor, int]]:
    names = name if isinstance(name, (tuple, list)) else (name,)
    known = _AXES.get()
    if unknown := [n for n in names if n not in known]:
        raise NameError(f"the axis {unknown[0]!r} is not mapped here; vmap(f, axis_name={unknown[0]!r}) names it, and {sorted(map(str, known))} are")
    return [known[n] for n in names]


def _applied(f: _Linear, x: Any, axes: Sequence[tuple[md.Tensor, int]]) -> md.Tensor:
    x = md.asarray(x)
    for lane, n in axes:
        x = _across(lane, x, f=f, n=n)
    return x


def axis_index(axis_name: Any) -> md.Tensor:
    """The number of the lane; of several axes, of the lane among all, the last axis running fastest.

    >>> vmap(lambda x: x * axis_index("i"), axis_name="i")(md.ones(3)).tolist()
    [0.0, 1.0, 2.0]
    """
    out: Any = 0
    for lane, n in _axes(axis_name):
        out = out * n + lane
    return out


def axis_size(axis_name: Any) -> int:
    """How many lanes there are."""
    return functools.reduce(operator.mul, (n for _, n in _axes(axis_name)), 1)


def psum(x: Any, axis_name: Any) -> Any:
    """The sum over all lanes, of a pytree; of a Python number it is one. Raises NameError for an axis that is not mapped, as all of these.

    >>> vmap(lambda x: psum(x, "i"), axis_name="i")(md.arange(4)).tolist()
    [6, 6, 6, 6]
    """
    axes, n = _axes(axis_name), axis_size(axis_name)
    return md.tree.map(lambda v: v * n if isinstance(v, (int, float, complex)) else _applied(_Linear("sum"), v, axes), x)


def pmean(x: Any, axis_name: Any) -> Any:
    """The mean over all lanes."""
    n = axis_size(axis_name)
    return md.tree.map(lambda v: v / n, psum(x, axis_name))


def _extreme(f: Callable[..., md.Tensor], name: str) -> Callable[..., Any]:
    def function(x: Any, axis_name: Any) -> Any:
        axes = _axes(axis_name)

        def of(v: Any) -> md.Tensor:
            for axis in axes:
                v = f(_applied(_Linear("gather"), v, [axis]), axis=0)
            return v

        return md.tree.map(of, x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{f.__name__} over all lanes."
    return function


pmax, pmin = _extreme(md.max, "pmax"), _extreme(md.min, "pmin")


def all_gather(x: Any, axis_name: Any, *, axis: int = 0, tiled: bool = False) -> Any:
    """The values of all lanes along a new axis; tiled: along an axis that there is.

    >>> vmap(lambda x: all_gather(x, "i"), axis_name="i")(md.arange(2)).tolist()
    [[0, 1], [0, 1]]
    """
    axes = _axes(axis_name)

    def of(v: Any) -> md.Tensor:
        v = md.asarray(v)
        out = _applied(_Linear("gather"), v, axes[::-1])
        out = md.reshape(out, (-1, *v.shape))
        if not tiled:
            return md.moveaxis(out, 0, axis)
        at = axis % v.ndim
        return md.reshape(md.moveaxis(out, 0, at), (*v.shape[:at], -1, *v.shape[at + 1 :]))

    return md.tree.map(of, x)


def psum_scatter(x: Any, axis_name: Any, *, scatter_dimension: int = 0, tiled: bool = False) -> Any:
    """Of the sum over all lanes the part that belongs to the lane along an axis of as many parts; tiled: of parts of any size.

    >>> vmap(lambda x: psum_scatter(x, "i"), axis_name="i")(md.ones((2, 2))).tolist()
    [2.0, 2.0]
    """
    axes = _axes(axis_name)
    n = axis_size(axis_name)

    def of(v: Any) -> md.Tensor:
        v = md.asarray(v)
        d = scatter_dimension % v.ndim
        if v.shape[d] % n or (v.shape[d] != n and not tiled):
            raise ValueError(f"psum_scatter: axis {d} of shape {v.shape} has not the size {n}{' times something' if tiled else ''}")
        parts = md.moveaxis(md.reshape(v, (*v.shape[:d], n, v.shape[d] // n, *v.shape[d + 1 :])), d, 0)
        parts = md.reshape(parts, (*(m for _, m in axes), *parts.shape[1:]))
        out = _applied(_Linear("scatter"), parts, axes)
        return out if tiled else md.squeeze(out, axis=d)

    return md.tree.map(of, x)


def ppermute(x: Any, axis_name: Any, perm: Sequence[tuple[int, int]]) -> Any:
    """The value of the lane from which `perm`, pairs of (from, to), leads here; zeros where none does.

    >>> vmap(lambda x: ppermute(x, "i", [(0, 1), (1, 0)]), axis_name="i")(md.arange(2)).tolist()
    [1, 0]
    """
    axes = _axes(axis_name)
    pairs = tuple((int(a), int(b)) for a, b in perm)
    if len({a for a, _ in pairs}) < len(pairs) or len({b for _, b in pairs}) < len(pairs):
        raise ValueError(f"ppermute: a lane is the source or the target of several pairs of {list(pairs)}")
    return md.tree.map(lambda v: _applied(_Linear("permute", pairs), v, axes), x)


def pshuffle(x: Any, axis_name: Any, perm: Sequence[int]) -> Any:
    """Lane i gets the value of lane perm[i]."""
    return ppermute(x, axis_name, [(source, i) for i, source in enumerate(perm)])


def all_to_all(x: Any, axis_name: Any, split_axis: int, concat_axis: int, *, tiled: bool = False) -> Any:
    """Part i along split_axis of every lane goes to lane i, which has them along concat_axis; tiled: in place of axes of the number of lanes that
    come and go, the sizes of these two change.

    >>> vmap(lambda x: all_to_all(x, "i", 0, 0), axis_name="i")(md.tensor([[1, 2], [3, 4]])).tolist()
    [[1, 3], [2, 4]]
    """
    axes = _axes(axis_name)
    if len(axes) != 1:
        raise ValueError("all_to_all: one axis is wanted")
    n = axes[0][1]

    def of(v: Any) -> md.Tensor:
        v = md.asarray(v)
        split, to = split_axis % v.ndim, concat_axis % v.ndim
        if v.shape[split] % n or (v.shape[split] != n and not tiled):
            raise ValueError(f"all_to_all: axis {split} of shape {v.shape} has not the size {n}{' times something' if tiled else ''}")
        parts = md.reshape(v, (*v.shape[:split], n, v.shape[split] // n, *v.shape[split + 1 :]))
        out = _applied(_Linear("swap"), md.moveaxis(parts, split, 0), axes)
        if not tiled:
            return md.moveaxis(md.squeeze(out, axis=1 + split), 0, to)
        out = md.moveaxis(out, 0, to)
        return md.reshape(out, (*out.shape[:to], -1, *out.shape[to + 2 :]))

    return md.tree.map(of, x)


def pmap(
    fun: Callable[..., Any], axis_name: Any = None, *, in_axes: Any = 0, out_axes: Any = 0, static_broadcasted_argnums: Any = (),
    devices: Any = None, backend: Any = None, axis_size: int | None = None, donate_argnums: Any = (), global_arg_shapes: Any = None,
) -> Callable[..., Any]:  # fmt: skip
    """md.jit of vmap: one program for all lanes on one device, however many there are. static_broadcasted_argnums: arguments that are no arrays.

    >>> pmap(lambda x: psum(x, "i"), axis_name="i")(md.ones(2)).tolist()
    [2.0, 2.0]
    """
    static = (static_broadcasted_argnums,) if isinstance(static_broadcasted_argnums, int) else tuple(static_broadcasted_argnums)
    axes = in_axes
    if static:

        def mapped(*args: Any) -> Any:
            where = axes if isinstance(axes, tuple) else (axes,) * len(args)
            rest = [i for i in range(len(args)) if i not in static]

            def inner(*given: Any) -> Any:
                left = dict(zip(rest, given, strict=True))
                return fun(*(left.get(i, a) for i, a in enumerate(args)))

            return vmap(inner, tuple(where[i] for i in rest), out_axes, axis_name, axis_size)(*(args[i] for i in rest))

        return md.jit(mapped, static_argnums=static)
    return md.jit(vmap(fun, axes, out_axes, axis_name, axis_size))


#: Name -> what it is in jax.lax.
NAMES: dict[str, Any] = {
    f.__name__: f for f in (all_gather, all_to_all, axis_index, axis_size, pmax, pmean, pmin, ppermute, pshuffle, psum, psum_scatter)
}  # fmt: skip
