"""Creation and rearrangement: linear primitives that move elements and compute nothing."""

from __future__ import annotations

from typing import Any

from minidl import shapes
from minidl.dtypes import bool_
from minidl.primitives.core import Primitive, all_lanes, batch_along, structural

# ---- creation: no array goes in, so batching never happens ----------------------------------------------------------------------------
full = Primitive("full", "", "shape value dtype", infer=lambda *, shape, value, dtype: (shape, dtype), promote="none")
iota = Primitive("iota", "", "size dtype", infer=lambda *, size, dtype: ((size,), dtype), promote="none")


# ---- one array ------------------------------------------------------------------------------------------------------------------------
def _infer_reshape(x: Any, *, shape: tuple[int, ...]) -> Any:
    if shapes.prod(shape) != shapes.prod(x.shape):
        raise ValueError(f"reshape: {shapes.show(x)} has {shapes.prod(x.shape)} elements, shape {shape} wants {shapes.prod(shape)}")
    return shape, x.dtype


def _batch_reshape(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    return call("reshape", xs[0], shape=(size, *params["shape"]))


reshape = structural(
    "reshape", "shape", _infer_reshape, lambda xp, g, x_shape: xp.reshape(g, shape=x_shape), _batch_reshape, check_first=False
)


def _infer_permute(x: Any, *, axes: tuple[int, ...]) -> Any:
    if sorted(axes) != list(range(len(x.shape))):
        raise ValueError(f"permute_dims: axes {axes} are no permutation of the {len(x.shape)} axes of {shapes.show(x)}")
    return tuple(x.shape[a] for a in axes), x.dtype


def _permute_vjp(xp: Any, g: Any, axes: tuple[int, ...]) -> Any:
    return xp.permute(g, axes=tuple(sorted(range(len(axes)), key=axes.__getitem__)))


permute = structural(
    "permute", "axes", _infer_permute, _permute_vjp,
    lambda p, call, size, xs, b, params: call("permute", xs[0], axes=(0, *(a + 1 for a in params["axes"]))), check_first=False,
)  # fmt: skip


def _infer_broadcast(x: Any, *, shape: tuple[int, ...]) -> Any:
    lead = len(shape) - len(x.shape)
    if lead < 0 or any(s not in (1, t) for s, t in zip(x.shape, shape[lead:], strict=True)):
        raise ValueError(f"broadcast_to: {shapes.show(x)} does not broadcast to shape {shape}")
    return shape, x.dtype


def unbroadcast(xp: Any, g: Any, shape: tuple[int, ...]) -> Any:
    """Sum g over the axes along which an operand of this shape was broadcast."""
    have = tuple(g.shape)
    if have == tuple(shape):
        return g
    lead = len(have) - len(shape)
    axis = (*range(lead), *(lead + i for i, s in enumerate(shape) if s == 1 and have[lead + i] != 1))
    if axis:
        g = xp.sum(g, axis=axis, keepdims=False)
    return g if tuple(g.shape) == tuple(shape) else xp.reshape(g, shape=tuple(shape))


def _batch_broadcast(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    (x,), shape = xs, params["shape"]
    rest = tuple(x.shape[1:])
    x = call("reshape", x, shape=(size,) + (1,) * (len(shape) - len(rest)) + rest)
    return call("broadcast_to", x, shape=(size, *shape))


broadcast_to = structural(
    "broadcast_to", "shape", _infer_broadcast, lambda xp, g, x_shape: unbroadcast(xp, g, x_shape), _batch_broadcast, check_first=False
)
flip = structural(
    "flip", "axes", lambda x, *, axes: (x.shape, x.dtype), lambda xp, g, axes: xp.flip(g, axes=axes),
    lambda p, call, size, xs, b, params: call("flip", xs[0], axes=tuple(a + 1 for a in params["axes"])),
)  # fmt: skip


def _sizes(start: Any, stop: Any, step: Any) -> tuple[int, ...]:
    return tuple(max(0, -((b - a) // -s)) for a, b, s in zip(start, stop, step, strict=True))


def _infer_slice(x: Any, *, start: Any, stop: Any, step: Any) -> Any:
    if len(start) != len(x.shape) or any(not 0 <= a <= b <= n or s < 1 for a, b, s, n in zip(start, stop, step, x.shape, strict=True)):
        raise IndexError(f"slice: start {start}, stop {stop}, step {step} do not fit {shapes.show(x)}")
    return _sizes(start, stop, step), x.dtype


def _infer_unslice(x: Any, *, shape: Any, start: Any, stop: Any, step: Any) -> Any:
    if tuple(x.shape) != _sizes(start, stop, step):
        raise ValueError(f"unslice: {shapes.show(x)} does not fill the slice start {start}, stop {stop}, step {step}")
    return shape, x.dtype


def _batch_slice(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    more = {"shape": (size, *params["shape"])} if "shape" in params else {}
    window = {"start": (0, *params["start"]), "stop": (size, *params["stop"]), "step": (1, *params["step"])}
    return call(primitive.name, xs[0], **more, **window)


slice = structural(
    "slice", "start stop step", _infer_slice,
    lambda xp, g, x_shape, start, stop, step: xp.unslice(g, shape=x_shape, start=start, stop=stop, step=step), _batch_slice,
)  # fmt: skip
unslice = structural(
    "unslice", "shape start stop step", _infer_unslice,
    lambda xp, g, start, stop, step: xp.slice(g, start=start, stop=stop, step=step), _batch_slice,
)  # fmt: skip


def _infer_paste(x: Any, v: Any, *, start: Any, stop: Any, step: Any) -> Any:
    if tuple(v.shape) != _infer_slice(x, start=start, stop=stop, step=step)[0]:
        raise ValueError(f"paste: {shapes.show(v)} does not fill the slice start {start}, stop {stop}, step {step} of {shapes.show(x)}")
    return x.shape, x.dtype


def _paste(xp: Any, x: Any, v: Any, **window: Any) -> Any:
    inside = xp.unslice(xp.full(shape=v.shape, value=True, dtype=bool_), shape=x.shape, **window)
    return xp.where(inside, xp.unslice(v, shape=x.shape, **window), x)


def _paste_zeros(xp: Any, g: Any, v_shape: Any, start: Any, stop: Any, step: Any) -> Any:
    return xp.paste(g, xp.full(shape=v_shape, value=0, dtype=xp.dtype_of(g)), start=start, stop=stop, step=step)


#: x with v in the place of a slice.
paste = Primitive(
    "paste", "x v", "start stop step", infer=_infer_paste, decompose=_paste, check_first=True, inline=True,
    vjps=(_paste_zeros, lambda xp, g, start, stop, step: xp.slice(g, start=start, stop=stop, step=step)),
    jvps=(_paste_zeros, lambda xp, t, x_shape, start, stop, step: xp.unslice(t, shape=x_shape, start=start, stop=stop, step=step)),
)  # fmt: skip


def _pad_vjp(xp: Any, g: Any, x_shape: Any, widths: Any) -> Any:
    start = tuple(lo for lo, _ in widths)
    return xp.slice(g, start=start, stop=tuple(a + n for a, n in zip(start, x_shape, strict=True)), step=(1,) * len(start))


def _batch_pad(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    return call("pad", xs[0], widths=((0, 0), *params["widths"]), value=params["value"])


pad = Primitive(
    "pad", "x", "widths value", batch=_batch_pad, check_first=True,
    infer=lambda x, *, widths, value: (tuple(lo + n + hi for (lo, hi), n in zip(widths, x.shape, strict=True)), x.dtype),
    vjps=(_pad_vjp,), jvps=(lambda xp, t, widths: xp.pad(t, widths=widths, value=0),),
)  # fmt: skip


def _triangle(name: str) -> Primitive:
    return structural(
        name, "k", lambda x, *, k: (x.shape, x.dtype), lambda xp, g, k: getattr(xp, name)(g, k=k),
        lambda p, call, size, xs, b, params: call(name, xs[0], **params),
    )  # fmt: skip


tril, triu = _triangle("tril"), _triangle("triu")


def _batch_barrier(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    return call("barrier", *all_lanes(call, size, xs[:1], batched[:1]), xs[1])


#: x itself, as a value of its own that no pass or compiler takes for x: what is computed from it is not merged with what was computed from x, and is
#: not computed before `after` is there.
barrier = Primitive(
    "barrier", "x after", infer=lambda x, after: (x.shape, x.dtype), promote="none", batch=_batch_barrier,
    vjps=(lambda xp, g: g, None), jvps=("linear", None),
)  # fmt: skip

#: x itself, through which no derivative flows: what `detach` leaves in a trace for those who differentiate it later. Programs do without it.
stop = Primitive(
    "stop", "x", infer=lambda x: (x.shape, x.dtype), promote="none", batch=lambda p, call, size, xs, batched, params: call("stop", *xs),
    decompose=lambda xp, x: x,
)  # fmt: skip

#: `value`, with the derivative of x: what a write to x under no_grad leaves in a trace for those who differentiate it later, as on the tape x keeps
#: its place. Programs do without it.
instead = Primitive(
    "instead", "x value", infer=lambda x, value: (value.shape, value.dtype), promote="none", decompose=lambda xp, x, value: value,
    batch=lambda p, call, size, xs, batched, params: call("instead", *all_lanes(call, size, xs, batched)),
    vjps=(lambda xp, g: g, None), jvps=(lambda xp, t: t, None),
)  # fmt: skip


# ---- several arrays -------------------------------------------------------------------------------------------------------------------
def _infer_concat(*xs: Any, axis: int) -> Any:
    first = xs[0]
    for x in xs[1:]:
        if len(x.shape) != len(first.shape) or any(a != b for i, (a, b) in enumerate(zip(x.shape, first.shape, strict=True)) if i != axis):
            raise ValueError(f"concat: shapes differ outside axis {axis}: {shapes.show(*xs)}")
    return tuple(s if i != axis else sum(x.shape[axis] for x in xs) for i, s in enumerate(first.shape)), first.dtype


def _concat_vjp(xp: Any, g: Any, index: int, shapes: Any, axis: int) -> Any:
    start, stop = [0] * len(g.shape), list(shapes[index])
    start[axis] = sum(s[axis] for s in shapes[:index])
    stop[axis] += start[axis]
    return xp.slice(g, start=tuple(start), stop=tuple(stop), step=(1,) * len(start))


def _concat_jvp(xp: Any, t: Any, index: int, shapes: Any, axis: int) -> Any:
    before, after = sum(s[axis] for s in shapes[:index]), sum(s[axis] for s in shapes[index + 1 :])
    return xp.pad(t, widths=tuple((before, after) if i == axis else (0, 0) for i in range(len(t.shape))), value=0)


concat = Primitive("concat", "*xs", "axis", infer=_infer_concat, vjps=(_concat_vjp,), jvps=(_concat_jvp,), batch=batch_along, check_first=True)
