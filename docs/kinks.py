"""`python docs/kinks.py` writes docs/kinks.md: the derivative at each kink, pole and tie in minidl, and what PyTorch and JAX give there.

minidl's numbers are its table (md.testing.KINKS, which its suite proves on every backend); the others come from running the same function, spelled in
each library's words, under torch.autograd and jax.vjp. A function that a library does not have is left out.
"""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "kinks.md"
sys.path.insert(0, str(ROOT))

import minidl as md  # noqa: E402
from minidl.testing import KINKS, Kink  # noqa: E402

INTRODUCTION = """# The derivative at a kink

What a gradient is where the textbook does not say: at ties, corners, poles, infinities and in degenerate matrices. One row per case: the value, and
the derivative in each argument in minidl (the same on NumPy, Numba, PyTorch and JAX, eager, traced and under vmap; `python -m minidl check` tries it
on your machine), and of the same function in {torch} and {jax} by their own differentiation, in float64. Numbers other than minidl's
are bold, "error" is a derivative that the library refuses, and a dash a function that it does not have. Complex gradients are in PyTorch's
convention, of which JAX's are the conjugates. The law behind minidl's column, and the functions, are in `minidl/testing/kinks.py`.
`python docs/kinks.py` writes this page.

{summary}

| case | value | minidl | PyTorch | JAX |
|---|---|---|---|---|
"""


# ---- the same functions in other libraries' words -------------------------------------------------------------------------------------------
class Words:
    """A namespace that answers to minidl's names with another library's functions; AttributeError where it has none."""

    def __init__(self, *places: Any, **own: Any):
        self._places, self._own = places, own

    def __getattr__(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        for place in self._places:
            if hasattr(place, name):
                return getattr(place, name)
        raise AttributeError(name)


def in_torch() -> tuple[Words, Words]:
    """`md` and `F` as PyTorch says them."""
    import torch
    import torch.nn.functional as tf

    class At:  # x.at[index].add(v), as jax and minidl write it
        def __init__(self, x: Any, index: Any = None):
            self.x, self.index = x, index

        def __getitem__(self, index: Any) -> At:
            return At(self.x, index)

        def set(self, v: Any) -> Any:
            return self.x.index_put((self.index,), v)

        def add(self, v: Any) -> Any:
            return self.x.index_put((self.index,), v, accumulate=True)

        def multiply(self, v: Any) -> Any:
            return self.x.scatter_reduce(0, self.index, v, "prod")

        def max(self, v: Any) -> Any:
            return self.x.scatter_reduce(0, self.index, v, "amax")

        def min(self, v: Any) -> Any:
            return self.x.scatter_reduce(0, self.index, v, "amin")

    functions = Words(tf)
    words = Words(
        torch, torch.special, torch.linalg, tf, At=At,
        linalg=torch.linalg, nn=Words(torch.nn, functional=functions),
        clip=torch.clamp,
        heaviside=lambda x, h: torch.heaviside(x, torch.as_tensor(h, dtype=x.dtype)),
        xlogy=lambda x, y: torch.xlogy(torch.as_tensor(x, dtype=torch.float64), y),
        max=lambda x, axis=None: torch.max(x) if axis is None else torch.max(x, axis).values,
        min=lambda x: torch.min(x),
        maximum=lambda x, y: torch.maximum(x, torch.as_tensor(y, dtype=x.dtype)),
        std=lambda x: torch.std(x, correction=0),
        var=lambda x: torch.var(x, correction=0),
        cumulative_prod=lambda x: torch.cumprod(x, 0),
        cumulative_max=lambda x: torch.cummax(x, 0).values,
        cumulative_min=lambda x: torch.cummin(x, 0).values,
        cumulative_logsumexp=lambda x: torch.logcumsumexp(x, 0),
        sort=lambda x, descending=False: torch.sort(x, descending=descending, stable=True).values,
        argmax=lambda x, axis: torch.argmax(x, axis), argmin=lambda x, axis: torch.argmin(x, axis),
        logsumexp=lambda x: torch.logsumexp(x, 0),
        softmax=lambda x: torch.softmax(x, -1),
        log_softmax=lambda x, at=None: torch.log_softmax(x, -1) if at is None else torch.log_softmax(x, -1)[at],
        max_pool=tf.max_pool2d,
    )  # fmt: skip
    return words, functions


def in_jax() -> tuple[Words, Words]:
    """`md` and `F` as JAX says them."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    functions = Words(
        jax.nn, hardtanh=jax.nn.hard_tanh, hardsigmoid=jax.nn.hard_sigmoid, hardswish=jax.nn.hard_swish,
        gelu=lambda x, approximate="none": jax.nn.gelu(x, approximate=approximate == "tanh"),
    )  # fmt: skip
    words = Words(
        jnp, jax.nn, jnp.linalg, jax.scipy.special,
        linalg=jnp.linalg, lgamma=jax.scipy.special.gammaln, logsumexp=jax.scipy.special.logsumexp,
        topk=lambda x, k: Words(values=lax.top_k(x, k)[0]),
        cumulative_max=lambda x: lax.cummax(x), cumulative_min=lambda x: lax.cummin(x), cumulative_logsumexp=lambda x: lax.cumlogsumexp(x),
        log_softmax=lambda x, at=None: jax.nn.log_softmax(x) if at is None else jax.nn.log_softmax(x)[at],
        max_pool=lambda x, k: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, *k), (1, 1, *k), "VALID"),
    )  # fmt: skip
    return words, functions


def said(f: Callable[..., Any], words: Words, functions: Words) -> Callable[..., Any]:
    """The function of a case with other meanings of `md` and `F`; AttributeError where one is missing."""
    for home, there in ((md, words), (md.linalg, words.linalg), (md.nn.functional, functions)):
        name = getattr(f, "__name__", "")
        if getattr(home, name, None) is f:
            return getattr(there, name)
    if not isinstance(f, types.FunctionType) or f.__module__ != Kink.__module__:
        raise AttributeError(str(f))
    return types.FunctionType(f.__code__, {**f.__globals__, "md": words, "F": functions}, f.__name__, f.__defaults__, f.__closure__)


# ---- what they give -------------------------------------------------------------------------------------------------------------------------
Found = tuple[Any, tuple[Any, ...]] | str | None


def by_torch(kink: Kink, words: tuple[Words, Words]) -> Found:
    """Value and derivatives by torch.autograd; what it raised; None without the function."""
    import torch

    leaves = [torch.tensor(a, dtype=getattr(torch, kink.dtype), requires_grad=True) for a in kink.args]
    torch.Tensor.at = property(words[0].At)  # type: ignore[attr-defined]
    try:
        out = said(kink.f, *words)(*leaves)
    except (AttributeError, TypeError):
        return None
    finally:
        del torch.Tensor.at  # type: ignore[attr-defined]
    w = torch.ones_like(out) if kink.w is None else torch.tensor(kink.w, dtype=out.dtype)
    try:
        found = torch.autograd.grad(out, leaves, w, allow_unused=True) if out.requires_grad else [None] * len(leaves)
    except (RuntimeError, NotImplementedError):
        return "error"
    native = lambda t: t.detach().resolve_conj().numpy()
    return native(out), tuple(np.zeros(x.shape) if g is None else native(g) for g, x in zip(found, leaves, strict=True))


def by_jax(kink: Kink, words: tuple[Words, Words]) -> Found:
    """Value and derivatives by jax.vjp; what it raised; None without the function."""
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        args = [jnp.asarray(a, kink.dtype) for a in kink.args]
        try:
            f = said(kink.f, *words)
            f(*args)
        except (AttributeError, TypeError):
            return None
        try:
            out, pull = jax.vjp(f, *args)
            w = jnp.ones_like(out) if kink.w is None else jnp.asarray(kink.w, out.dtype)
            return np.asarray(out), tuple(np.asarray(jnp.conj(g)) for g in pull(jnp.conj(w)))
        except (TypeError, NotImplementedError):
            return "error"


def same(a: Any, b: Any) -> bool:
    """Alike but for rounding; nan is nan."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-6, atol=1e-12, equal_nan=True))


def alike(kink: Kink, found: Found) -> bool:
    return isinstance(found, tuple) and all(same(np.asarray(w, g.dtype), g) for w, g in zip(kink.vjp, found[1], strict=True))


# ---- the page -------------------------------------------------------------------------------------------------------------------------------
def number(value: Any) -> str:
    """A number or nested list, short."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(number, value))}]"
    if isinstance(value, complex):
        real, imag = number(value.real), number(value.imag)
        return real if value.imag == 0 else f"{imag}j" if value.real == 0 else f"{real}{'' if imag[0] == '-' else '+'}{imag}j"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}" if abs(value) > 1e-15 else "0"
    return str(value)


def cell(kink: Kink, found: Found) -> str:
    if found is None:
        return "—"
    if isinstance(found, str):
        return f"**{found}**"
    text = ", ".join(map(number, found[1]))
    apart = "" if same(np.asarray(kink.value, found[0].dtype), found[0]) else f" (value {number(found[0])})"
    return (text if alike(kink, found) else f"**{text}**") + apart


def line(kink: Kink, torch: Found, jax: Found) -> str:
    """The row of a case."""
    name = kink.name.replace("|", "\\|")
    return f"| {name} | {number(kink.value)} | {', '.join(map(number, kink.vjp))} | {cell(kink, torch)} | {cell(kink, jax)} |"


def summary(found: list[tuple[Kink, Found, Found]]) -> str:
    """How often the libraries agree."""
    both = [r for r in found if isinstance(r[1], tuple) and isinstance(r[2], tuple)]
    agree = sum(alike(k, t) and alike(k, j) for k, t, j in both)
    apart = sum(not all(same(a, b) for a, b in zip(t[1], j[1], strict=True)) for _, t, j in both)

    def nans(which: int) -> int:
        """Cases in which a library gives nan and minidl a number."""
        pairs = [zip(r[0].vjp, r[which][1], strict=True) for r in found if isinstance(r[which], tuple)]
        return sum(any(np.any(np.isnan(g) & ~np.isnan(w)) for w, g in pair) for pair in pairs)

    return (
        f"Of {len(found)} cases, {len(both)} can be said and differentiated in both libraries. All three agree in {agree} of these, and PyTorch and "
        f"JAX differ from each other in {apart}.\nWhere minidl has a number, PyTorch gives nan in {nans(1)} cases and JAX in {nans(2)}."
    )


def page() -> str:
    """The text of docs/kinks.md."""
    import jax
    import torch

    words = in_torch(), in_jax()
    found = [(k, by_torch(k, words[0]), by_jax(k, words[1])) for k in KINKS]
    head = INTRODUCTION.format(torch=f"PyTorch {torch.__version__.split('+')[0]}", jax=f"JAX {jax.__version__}", summary=summary(found))
    return head + "\n".join(line(*r) for r in found) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
