"""JAX's modules under their names: a program that is written for JAX changes its imports and runs.

    from minidl.idioms import jax                      import jax
    from minidl.idioms.jax import numpy as jnp, lax    import jax.numpy as jnp; from jax import lax
    from minidl.idioms.jax.tree_util import tree_map   from jax.tree_util import tree_map

Functions here have JAX's arguments where those of md are others, and mean what JAX's mean; most of them are md's own. It computes as JAX does with
64-bit types enabled: integers are int64; the float of Python numbers and of what is created is md.get_default_dtype(), which
`jax.config.update("jax_enable_x64", True)` sets to float64. Narrow integers become that float, too, where JAX makes float32 of them; places are
int64, those of searchsorted and digitize among them; rint of integers is themselves. What JAX has for several devices, for XLA's shapes and for its
own machinery is not here; a name that is missing says what there is for it.

>>> from minidl.idioms import jax
>>> from minidl.idioms.jax import numpy as jnp
>>> jax.jit(jax.grad(lambda x: jnp.sum(x**2)))(jnp.arange(3.0)).tolist()
[0.0, 2.0, 4.0]
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import minidl as md
from minidl.idioms import of_jax, of_lax
from minidl.idioms.jax.abstract import ShapeDtypeStruct, closure_convert, eval_shape, jit, make_jaxpr
from minidl.idioms.jax.callbacks import io_callback, pure_callback
from minidl.idioms.jax.collectives import pmap, vmap
from minidl.idioms.jax.spelling import room, spelled

Array = md.Tensor


class _Config:
    """jax.config: what of it means something here. Raises ValueError for other settings."""

    def update(self, name: str, value: Any) -> None:
        """jax_enable_x64: the default float is float64 then, else float32. jax_platform_name and jax_platforms: "cpu" alone.
        jax_default_matmul_precision changes nothing."""
        if name == "jax_enable_x64":
            md.set_default_dtype(md.float64 if value else md.float32)
        elif name != "jax_default_matmul_precision" and (name not in ("jax_platform_name", "jax_platforms") or value != "cpu"):
            raise ValueError(f"config: {name}={value!r} has no counterpart; see md.set_default_dtype, md.set_backend, md.checked and md.eagerly")

    @property
    def jax_enable_x64(self) -> bool:
        """Whether the default float is float64."""
        return md.get_default_dtype() is md.float64

    x64_enabled = jax_enable_x64


config = _Config()


@contextlib.contextmanager
def enable_x64(new_val: bool = True) -> Iterator[None]:
    """The default float is float64 inside the block, or float32.

    >>> with enable_x64(True):
    ...     md.ones(2).dtype
    minidl.float64
    """
    before = md.get_default_dtype()
    config.update("jax_enable_x64", new_val)
    try:
        yield
    finally:
        md.set_default_dtype(before)


def checkpoint(fun: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """md.checkpoint; its options change no value."""
    return of_lax.remat(fun)


def hessian(fun: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, holomorphic: bool = False) -> Callable[..., Any]:
    """md.hessian, with an aux if fun returns one."""
    if not has_aux and not holomorphic:
        return md.hessian(fun, argnums)
    return md.jacfwd(md.jacrev(fun, argnums, has_aux=has_aux, holomorphic=holomorphic), argnums, has_aux=has_aux, holomorphic=holomorphic)


def linearize(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """md.linearize; has_aux: fun returns (out, aux), and aux comes third."""
    if not has_aux:
        return md.linearize(fun, *primals)
    kept: list[Any] = []

    def first(*args: Any) -> Any:
        out, aux = fun(*args)
        kept.append(md.tree.map(md.stop_gradient, aux))
        return out

    out, push = md.linearize(first, *primals)
    return out, push, kept[0]


def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False, reduce_axes: Any = ()) -> Any:
    """md.vjp, whose pullback takes numbers for cotangents, too.

    >>> vjp(lambda x: x * 3.0, md.tensor(1.0))[1](1.0)[0].item()
    3.0
    """
    out, pull, *aux = md.vjp(fun, *primals, has_aux=has_aux)
    dtypes = md.tree.leaves(md.tree.map(lambda x: x.dtype if isinstance(x, md.Tensor) else None, out))

    def pulled(cotangent: Any) -> Any:
        leaves, structure = md.tree.flatten(cotangent)
        if len(leaves) == len(dtypes):
            leaves = [v if isinstance(v, md.Tensor) else md.asarray(v, dtype=d) for v, d in zip(leaves, dtypes, strict=True)]
        return pull(md.tree.unflatten(structure, leaves))

    return out, pulled, *aux


def linear_transpose(fun: Callable[..., Any], *primals: Any) -> Callable[[Any], Any]:
    """The transpose of a linear function of arguments like these, which may be numbers and ShapeDtypeStructs.

    >>> linear_transpose(lambda x: 3.0 * x, md.ones(2))(md.ones(2))[0].tolist()
    [3.0, 3.0]
    """
    arrays = md.tree.map(lambda x: x if hasattr(x, "shape") else md.asarray(x), primals)  # numbers, too
    zeros = md.tree.map(lambda x: md.zeros(tuple(x.shape), dtype=x.dtype), arrays)
    pull = vjp(fun, *zeros)[1]
    plain = lambda x: (md.conj(x) if x.dtype.is_complex else x) if isinstance(x, md.Tensor) else x.conjugate()
    return lambda g: md.tree.map(plain, pull(md.tree.map(plain, g)))


def custom_gradient(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns its result and the function from its cotangent to those of its arguments.

    >>> f = custom_gradient(lambda x: (x * x, lambda g: (g * 7.0,)))
    >>> md.grad(f)(md.tensor(3.0)).item()
    7.0
    """

    @md.custom_vjp
    def wrapped(*args: Any) -> Any:
        return fun(*args)[0]

    def backward(res: Any, g: Any) -> Any:
        found = fun(*res)[1](g)
        return found if isinstance(found, tuple) else (found,)

    wrapped.defvjp(lambda *args: (fun(*args)[0], args), backward)
    return functools.wraps(fun)(wrapped)


def value_and_grad(
    fun: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, holomorphic: bool = False, allow_int: bool = False,
    reduce_axes: Any = (),
) -> Callable[..., Any]:  # fmt: skip
    """md.value_and_grad."""
    return md.value_and_grad(fun, argnums, has_aux, holomorphic)


def grad(
    fun: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, holomorphic: bool = False, allow_int: bool = False,
    reduce_axes: Any = (),
) -> Callable[..., Any]:  # fmt: skip
    """md.grad."""
    return md.grad(fun, argnums, has_aux, holomorphic)


def device_put(x: Any, device: Any = None, **options: Any) -> Any:
    """Tensors of the arrays and numbers in a pytree, on a device if one is named."""
    return md.tree.map(lambda v: md.asarray(v) if device is None else md.asarray(v).to(device=str(device)), x)


def device_get(x: Any) -> Any:
    """NumPy arrays of the tensors in a pytree."""
    return md.tree.map(lambda v: v.numpy() if isinstance(v, md.Tensor) else v, x)


def devices(backend: Any = None) -> list[Any]:
    """The device on which what is created is: one program runs on one."""
    return [md.zeros(()).device]


def device_count(backend: Any = None) -> int:
    """How many devices a program runs on."""
    return 1


def default_backend() -> str:
    """The kind of the device."""
    return str(md.zeros(()).device).partition(":")[0]


class _Policies:
    """jax.checkpoint_policies: their names, as checkpoint computes everything again; md.jit(f, memory=0.5) chooses by itself what is kept."""

    dots_saveable = everything_saveable = nothing_saveable = checkpoint_dots = dots_with_no_batch_dims_saveable = None

    def save_only_these_names(self, *names: str) -> None:
        """Nothing: the option changes no value."""


checkpoint_policies = _Policies()


class named_scope(contextlib.nullcontext):
    """A name for what is computed inside, which graphs do not keep."""

    def __init__(self, name: str):
        super().__init__()


class custom_jvp(md.custom_jvp):
    """md.custom_jvp with JAX's defjvps."""

    def defjvps(self, *jvps: Callable[..., Any] | None) -> None:
        """One rule for each argument: (tangent, out, *primals) -> its part of the tangent, None for none.

        >>> f = custom_jvp(lambda x, y: x * y)
        >>> f.defjvps(lambda t, out, x, y: t * y * 5.0, None)
        >>> md.grad(f, (0, 1))(md.tensor(2.0), md.tensor(3.0))[0].item()
        15.0
        """

        def rule(primals: Any, tangents: Any) -> Any:
            out = self(*primals)
            parts = [jvp(t, out, *primals) for jvp, t in zip(jvps, tangents, strict=True) if jvp is not None]
            total = functools.reduce(lambda a, b: md.tree.map(lambda u, v: u + v, a, b), parts) if parts else md.tree.map(md.zeros_like, out)
            return out, total

        self.defjvp(lambda primals, tangents: rule(primals, tangents))


_jacrev = spelled(md.jacrev, "fun / argnums has_aux holomorphic allow_int:")
_ROOMS = frozenset("debug flatten_util image lax nn numpy ops random scipy tree tree_util".split())
NAMES: dict[str, Any] = {
    "jacfwd": spelled(md.jacfwd, "fun / argnums has_aux holomorphic"), "jacrev": _jacrev, "jacobian": _jacrev, "remat": checkpoint,
    "local_devices": devices, "local_device_count": device_count, "process_count": device_count, "process_index": lambda: 0,
    "block_until_ready": of_jax.block_until_ready, "clear_caches": lambda: None, "named_call": lambda fun, **options: fun,
    "ensure_compile_time_eval": md.eagerly,
}  # fmt: skip
_ABSENT = {
    "shard_map": "jax.vmap with axis_name=; one program runs on one device",
    "disable_jit": "what jit made has the function itself in __wrapped__",
    "make_mesh": "one program runs on one device", "debug_nans": "md.checked", "live_arrays": "md.profile",
    "Device": "devices are texts",
}  # fmt: skip
__all__ = [
    "Array", "ShapeDtypeStruct", "checkpoint", "closure_convert", "config", "custom_gradient", "custom_jvp", "default_backend", "device_count",
    "device_get", "device_put", "devices", "enable_x64", "eval_shape", "grad", "hessian", "io_callback", "jit", "linear_transpose", "linearize",
    "make_jaxpr", "named_scope", "pmap", "pure_callback", "value_and_grad", "vjp", "vmap",
]  # fmt: skip
_find = room(__name__, NAMES, (md,), "custom_vjp jvp", _ABSENT)


def __getattr__(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}") if name in _ROOMS else _find(name)


def __dir__() -> list[str]:
    return sorted({*__all__, *NAMES, *_ROOMS, "custom_vjp", "jvp"})
