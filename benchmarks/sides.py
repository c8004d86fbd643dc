"""The sides of a workload: minidl in each of its ways, and each peer as a good user of it writes a function, its gradient and its compilation.

A functional workload is one text `f(xp, *arrays)` over the names that array libraries share, with an override where a library's user would call
something better (a fused loss, a native recurrent layer). `functional` makes all its sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks.timing import Side

Builders = dict[str, Callable[[], Side]]
#: What `--peers` chooses from, and the sides that each stands for.
PEERS = {
    "numpy": ("NumPy by hand",),
    "torch": ("torch eager", "torch.compile", "torch.compile max-autotune"),
    "jax": ("jax.jit", "jax eager grad"),
    "keras": ("Keras/jax", "Keras/torch"),
    "autograd": ("HIPS autograd",),
    "mygrad": ("MyGrad",),
    "tinygrad": ("tinygrad",),
    "mlx": ("MLX",),
}
DEVICE = ["cpu"]  # where the arrays of torch, jax and minidl lie; run.py sets it


class Absent(Exception):
    """A side that cannot exist here: said in the notes, and no failure."""


# ---- minidl -----------------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Way:
    """One way to run minidl: a backend, eager or jitted, with a mode of that backend or none."""

    backend: str
    jitted: bool = True
    mode: str | None = None

    @property
    def label(self) -> str:
        """`minidl torch jit inductor`, `minidl auto`."""
        if self.backend == "auto":
            return "minidl auto"
        return " ".join(["minidl", self.backend, "jit" if self.jitted else "eager", *([self.mode] if self.mode else [])])

    def inside(self) -> AbstractContextManager[Any]:
        """Where the tensors of this side are made; those of auto belong to numpy."""
        import minidl as md

        name = "numpy" if self.backend == "auto" else self.backend
        return md.use_backend(name, DEVICE[0] if DEVICE[0] != "cpu" and name in ("torch", "jax") else None)

    def tensors(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        """minidl tensors of these arrays."""
        import minidl as md

        with self.inside():
            return [md.tensor(a) for a in arrays]

    def jit(self, f: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """The function as this way runs it."""
        import minidl as md

        if not self.jitted:
            return f
        if self.mode is not None:
            options["mode"] = self.mode
        if self.backend == "auto":
            options["backend"] = "auto"
            probe_auto()
        return md.jit(f, **options)


@cache
def probe_auto() -> None:
    """Raise Absent where md.jit does not choose a backend by itself."""
    import minidl as md

    try:
        md.jit(lambda x: x + 1.0, backend="auto")(md.ones((2,)))
    except Exception as error:
        raise Absent(f'md.jit(backend="auto"): {error}') from error


def ways(bench: Any, eager: bool = True) -> Iterator[Way]:
    """The ways of the chosen backends: eager (numba's is numpy's), jitted, jitted in each other mode of the backend, and auto."""
    import minidl as md

    installed = md.backends()
    for b in bench.backends:
        if b == "auto":
            yield Way("auto")
            continue
        if installed.get(b) is not True:
            bench.note(f"minidl {b}: {installed.get(b)}")
            continue
        try:
            with Way(b).inside() as xp:
                modes = xp.modes
        except ValueError as error:  # it has no such device
            bench.note(f"minidl {b}: {error}")
            continue
        if eager and b != "numba":
            yield Way(b, False)
        yield Way(b)
        yield from (Way(b, True, m) for m in modes if not m.startswith("channels_"))  # between which auto chooses


def wait(out: Any) -> None:
    """Until every array in a result of minidl is there; copies nothing."""
    import minidl as md

    for t in md.tree.leaves(out):
        payload = getattr(t, "payload", None)
        if hasattr(payload, "block_until_ready"):
            payload.block_until_ready()
        elif type(payload).__module__.startswith("torch") and payload.is_cuda:
            synchronize()


def synchronize() -> None:
    """Until torch's work on the device is done."""
    if DEVICE[0] != "cpu":
        import torch

        torch.cuda.synchronize()


def minidl_side(text: Callable[..., Any], arrays: Sequence[np.ndarray], argnums: tuple[int, ...], way: Way) -> Side:
    """The function, or its value and gradients, on minidl."""
    import minidl as md

    args = way.tensors(arrays)
    f: Callable[..., Any] = partial(text, md)
    g = way.jit(md.value_and_grad(f, argnums=argnums) if argnums else f)
    return Side(lambda: g(*args), lambda: [np.asarray(t.numpy()) for t in md.tree.leaves(g(*args))], wait)


# ---- peers ------------------------------------------------------------------------------------------------------------------------------
def torch_array(a: np.ndarray) -> Any:
    """A torch tensor on the device of this run."""
    import torch

    return torch.tensor(a, device=DEVICE[0])


def torch_side(text: Callable[..., Any], arrays: Sequence[np.ndarray], argnums: tuple[int, ...], compiled: bool) -> Side:
    """PyTorch: backward() on leaves; compiled: the function under torch.compile, which compiles its backward pass too."""
    import torch

    args = [torch_array(a) for a in arrays]
    leaves = [args[i].requires_grad_() for i in argnums]
    f: Callable[..., Any] = lambda *args: text(torch, *args)
    f = torch.compile(f) if compiled else f

    def step() -> Any:
        for leaf in leaves:
            leaf.grad = None
        out = f(*args)
        if leaves:
            out.backward()
        return out

    def answer() -> list[Any]:
        out = step()
        outs = out if isinstance(out, (tuple, list)) else [out]
        return [t.detach().cpu().numpy() for t in [*outs, *(leaf.grad for leaf in leaves)]]

    return Side(step, answer, lambda out: synchronize())


@cache
def jax_there() -> bool:
    """Whether jax is installed and has a GPU: on its CPU a step of the large workloads takes minutes."""
    try:
        import jax

        return bool(jax.devices("gpu"))
    except (ImportError, RuntimeError):
        return False


def jax_side(text: Callable[..., Any], arrays: Sequence[np.ndarray], argnums: tuple[int, ...], jitted: bool = True) -> Side:
    """jax.value_and_grad under jax.jit."""
    import jax
    import jax.numpy as jnp

    args = [jnp.asarray(a) for a in arrays]
    f: Callable[..., Any] = partial(text, jnp)
    f = jax.value_and_grad(f, argnums) if argnums else f
    f = jax.jit(f) if jitted else f
    return Side(lambda: f(*args), lambda: [np.asarray(a) for a in jax.tree.leaves(f(*args))], jax.block_until_ready)


def autograd_side(text: Callable[..., Any], arrays: Sequence[np.ndarray], argnums: tuple[int, ...]) -> Side:
    """HIPS autograd."""
    import autograd
    import autograd.numpy as anp

    f: Callable[..., Any] = partial(text, anp)
    f = autograd.value_and_grad(f, argnums) if argnums else f
    return Side(lambda: f(*arrays), lambda: flat(f(*arrays)))


def mygrad_side(text: Callable[..., Any], arrays: Sequence[np.ndarray], argnums: tuple[int, ...]) -> Side:
    """MyGrad."""
    import mygrad as mg

    args = [mg.tensor(a) if i in argnums else a for i, a in enumerate(arrays)]

    def step() -> Any:
        out = text(mg, *args)
        if argnums:
            out.backward()
        return out

    return Side(step, lambda: [np.asarray(step()), *(args[i].grad for i in argnums)])


def mlx_side(text: Callable[..., Any], arrays: Sequence[np.ndarray], argnums: tuple[int, ...]) -> Side:
    """MLX under mx.compile, on its CPU device."""
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    args = [mx.array(a) for a in arrays]
    f: Callable[..., Any] = partial(text, mx)
    f = mx.compile(mx.value_and_grad(f, argnums) if argnums else f)

    def step() -> Any:
        out = f(*args)
        mx.eval(out)
        return out

    return Side(step, lambda: [np.array(a) for a in flat(step())])


class TinyNames:
    """tinygrad's Tensor methods as functions, with NumPy's keyword names."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda x, *args, **kwargs: getattr(x, name)(*args, **{{"keepdims": "keepdim"}.get(k, k): v for k, v in kwargs.items()})


def tinygrad_device() -> Any:
    """The device that tinygrad chooses; its CPU compiles with clang."""
    from tinygrad import Device

    try:
        return Device[Device.DEFAULT]
    except RuntimeError as error:
        raise Absent(f"tinygrad needs a compiler: {error}") from error


def tinygrad_side(text: Callable[..., Any], arrays: Sequence[np.ndarray], argnums: tuple[int, ...]) -> Side:
    """tinygrad under TinyJit."""
    from tinygrad import Tensor, TinyJit

    device = tinygrad_device()
    names = TinyNames()
    args = [Tensor(a).realize() for a in arrays]

    def program(*args: Any) -> Any:
        out = text(names, *args)
        outs = [out, *(out.gradient(*(args[i] for i in argnums)) if argnums else ())]
        Tensor.realize(*outs)
        return tuple(outs)

    f = TinyJit(program)
    return Side(lambda: f(*args), lambda: [t.numpy() for t in f(*args)], lambda _: device.synchronize())


def by_hand(f: Callable[..., Any], arrays: Sequence[np.ndarray]) -> Side:
    """NumPy as written by hand: f returns the value, and the gradients where they are wanted."""
    return Side(lambda: f(*arrays), lambda: flat(f(*arrays)))


def flat(out: Any) -> list[Any]:
    """The leaves of nested tuples and lists."""
    return [leaf for x in out for leaf in flat(x)] if isinstance(out, (tuple, list)) else [out]


# ---- all of them ------------------------------------------------------------------------------------------------------------------------
_MAKERS: dict[str, tuple[str, Callable[..., Side]]] = {
    "torch eager": ("torch", partial(torch_side, compiled=False)),
    "torch.compile": ("torch", partial(torch_side, compiled=True)),
    "jax.jit": ("jax", jax_side),
    "HIPS autograd": ("autograd", autograd_side),
    "MyGrad": ("mygrad", mygrad_side),
    "tinygrad": ("tinygrad", tinygrad_side),
    "MLX": ("mlx", mlx_side),
}


def functional(
    bench: Any,
    text: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    argnums: tuple[int, ...] = (),
    hand: Callable[..., Any] | None = None,
    also: dict[str, Callable[..., Any] | None] | None = None,
    eager: bool = True,
) -> Builders:
    """The sides of one text: every peer, then every way of minidl.

    also: another text for a library ("torch", "jax", "minidl", …) or for one side of it ("torch.compile"); None where it has no such side.
    """
    also = also or {}
    out: Builders = {"NumPy by hand": partial(by_hand, hand, arrays)} if hand is not None else {}
    for label, (library, make) in _MAKERS.items():
        f = also.get(label, also.get(library, text))
        if f is not None:
            out[label] = partial(make, f, arrays, argnums)
    for way in ways(bench, eager):
        out[way.label] = partial(minidl_side, also.get("minidl") or text, arrays, argnums, way)
    return out


def compare(
    bench: Any, label: str, builders: Builders, rtol: float, seconds: float = 30.0, least: float = 0.02, unit: str = "ms", **how: Any
) -> Any:
    """Time the chosen sides of a workload and add its rows: the goals, then the best time of each side."""
    chosen = {s for p in bench.peers for s in PEERS[p]}
    if DEVICE[0] != "cpu" and not jax_there():
        chosen -= {*PEERS["jax"]}
        bench.note(f"{label}: no side of jax's own: it has no GPU here")
    builders = {n: b for n, b in builders.items() if n.startswith("minidl") or n in chosen}
    times = bench.measure(label, builders, rtol, seconds, least, **how)
    bench.goals(label, times)
    bench.each(label, times, unit)
    return times
