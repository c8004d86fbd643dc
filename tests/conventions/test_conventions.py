"""Every row of the gradient conventions, on every backend, in every way of differentiating.

All rows of one (backend, mode) run together: traced modes compile one program. A row fails by its own name; a row whose computation raises does not
stop the others.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import minidl as md
from conventions.rows import ROWS, Row

BACKENDS = [name for name, there in md.backends().items() if there is True]
MODES = ("tape", "functional", "traced", "vmap", "traced vmap", "narrow")
#: XLA compiles each eager kernel for each shape and dtype; what the left-out modes would add is the same rules on shapes that "traced vmap" has.
CASES = [(b, m) for b in BACKENDS for m in MODES if b != "jax" or m not in ("vmap", "narrow")]
#: What cotangents and tangents are multiplied by, so that no rule passes that leaves out a factor of one; a power of two rounds nothing.
TWICE = 2.0
NARROW = {"float64": "float32", "complex128": "complex64"}


def points(row: Row, mode: str) -> list[np.ndarray]:
    """The row's arguments; under vmap the point between two others' worth of lanes."""
    xs = [np.asarray(a, NARROW[row.dtype] if mode == "narrow" else row.dtype) for a in row.args]
    return [np.stack([x, x + 0.25, x]) for x in xs] if "vmap" in mode else xs


def directions(row: Row) -> list[np.ndarray]:
    """One tangent per argument whose elements cannot stand in for each other."""
    return [TWICE * 2.0 ** np.arange(np.size(a)).reshape(np.shape(a)) for a in row.args]


def seed(row: Row, out: Any) -> Any:
    """The cotangent w, TWICE, like the output."""
    if row.w is None:
        return md.full_like(out, TWICE)
    return md.asarray(TWICE * np.asarray(row.w, out.dtype.numpy))


def total(gradients: Any) -> Any:
    """The sum of the real parts of all gradients."""
    parts = [md.sum(md.real(g)) for g in gradients]
    return functools.reduce(md.add, parts)


def derive(row: Row, xs: Any) -> dict[str, Any]:
    """Value, vjp, jvp in each argument, and both second orders, by the functional transforms."""

    def gradients(*at: Any) -> Any:
        out, pull = md.vjp(row.f, *at)
        return pull(seed(row, out))

    out = {"value": row.f(*xs), "vjp": list(gradients(*xs)), "jvp": []}
    for i, v in enumerate(directions(row)):
        along = lambda x, i=i: row.f(*(x if k == i else a for k, a in enumerate(xs)))
        out["jvp"].append(md.jvp(along, (xs[i],), (md.asarray(v.astype(xs[i].dtype.numpy)),))[1])
    if row.second is not None:
        out["second"] = list(md.vjp(lambda *at: total(gradients(*at)), *xs)[1](md.full((), TWICE, dtype=out["vjp"][0].dtype.real)))
        twos = tuple(md.full_like(x, TWICE) for x in xs)
        out["second forward"] = list(md.jvp(lambda *at: list(gradients(*at)), tuple(xs), twos)[1])
    return out


def on_tape(row: Row, xs: Any) -> dict[str, Any]:
    """Value, backward() and create_graph, as a PyTorch user writes them."""
    leaves = [x.requires_grad_() for x in xs]
    value = row.f(*leaves)
    if not value.requires_grad:  # piecewise constant by construction
        return {"value": value, "vjp": [None] * len(leaves)}
    value.backward(seed(row, value), retain_graph=True)
    out = {"value": value.detach(), "vjp": [x.grad for x in leaves]}
    found = md.autograd.grad(value, leaves, seed(row, value), create_graph=True, allow_unused=True)
    out["create_graph"] = [g.detach() if g is not None else None for g in found]
    if row.second is not None:
        tracked = [g for g in found if g is not None and g.requires_grad]
        again = md.autograd.grad(total(tracked) * TWICE, leaves, allow_unused=True) if tracked else [None] * len(leaves)
        out["second"] = list(again)
    return out


@functools.cache
def raised(backend: str, mode: str) -> dict[str, Exception]:
    """What rows raised; not a variable that the traced function closes over, since it is written while tracing."""
    return {}


@functools.cache
def results(backend: str, mode: str) -> dict[str, Any]:
    """{row: what it gave, as NumPy}."""
    one = on_tape if mode == "tape" else derive

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        out = {}
        for row in ROWS:
            try:
                f = functools.partial(one, row)
                out[row.name] = md.vmap(f)(inputs[row.name]) if "vmap" in mode else f(inputs[row.name])
            except Exception as error:
                raised(backend, mode)[row.name] = error
        return out

    with md.use_backend(backend):
        inputs = {row.name: [md.asarray(x) for x in points(row, mode)] for row in ROWS}
        out = (md.jit(run) if "traced" in mode else run)(inputs)
        return md.tree.map(lambda t: t.numpy() if isinstance(t, md.Tensor) else t, out)


def close(got: np.ndarray, want: np.ndarray, ulp: float) -> bool:
    """Equal numbers (nan is nan, zeros of both signs are one), or within so many units in the last place."""
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return False
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    if ulp:
        with np.errstate(all="ignore"):
            same |= np.abs(got - want) <= ulp * np.spacing(np.abs(want))
    return bool(same.all())


def complaints(row: Row, mode: str, got: dict[str, Any]) -> list[str]:
    """What one row's results break, in words."""
    found = []

    def check(what: str, have: Any, want: Any, like: np.ndarray) -> None:
        want = np.zeros_like(like) if want is None else np.asarray(want, like.dtype)
        have = np.zeros_like(like) if have is None else have
        for lane in (have[0], have[2]) if "vmap" in mode else (have,):
            if not close(lane, want, row.ulp):
                found.append(f"{row.name}: {what} is {lane.tolist()}, wanted {want.tolist()}")

    xs = [np.asarray(a, NARROW[row.dtype] if mode == "narrow" else row.dtype) for a in row.args]
    lane = got["value"][0] if "vmap" in mode else got["value"]
    check("value", got["value"], row.value, np.asarray(lane))
    for kind in ("vjp", "create_graph", "second", "second forward"):
        wanted, factor = (row.second, TWICE**2) if "second" in kind else (row.vjp, TWICE)
        for i, g in enumerate(got.get(kind, [])):
            with np.errstate(invalid="ignore"):
                check(f"{kind} in argument {i}", g, None if wanted[i] is None else factor * np.asarray(wanted[i], xs[i].dtype), xs[i])
    w = np.ones_like(lane) if row.w is None else np.asarray(row.w)
    for i, (t, v) in enumerate(zip(got.get("jvp", []), directions(row), strict=False)):
        with np.errstate(all="ignore"):
            t = t[0] if "vmap" in mode else t
            forward = np.sum(np.real(np.conj(t) * w))
            reverse = np.sum(np.real(np.conj(v) * np.asarray(row.vjp[i]))) if row.forward is None else TWICE * row.forward
        if not np.allclose(forward, reverse, rtol=1e-6 if mode == "narrow" else 1e-13, atol=0, equal_nan=True):
            found.append(f"{row.name}: forward mode gives {forward} where reverse mode gives {reverse} (argument {i})")
    return found


@pytest.mark.parametrize(("backend", "mode"), CASES)
def test_every_row(backend: str, mode: str):
    got = results(backend, mode)
    found = [f"{name}: raised {type(e).__name__}: {e}" for name, e in raised(backend, mode).items()]
    for row in ROWS:
        if row.name in got:
            found += complaints(row, mode, got[row.name])
    assert not found, f"{len(found)} complaints about {len(ROWS)} rows\n" + "\n".join(found)


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b in ("numpy", "torch")])
def test_captured_is_raw_to_the_bit(backend: str):
    raw, captured = results(backend, "functional"), results(backend, "traced")
    for row in ROWS:
        for a, b in zip(md.tree.leaves(raw[row.name]), md.tree.leaves(captured[row.name]), strict=True):
            assert np.array_equal(a, b, equal_nan=True), f"{row.name}: {a} eager, {b} traced"


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unused_input_has_no_gradient_on_the_tape(backend: str):
    with md.use_backend(backend):
        x, unused = md.tensor(1.0, requires_grad=True), md.tensor(5.0, requires_grad=True)
        out = x * 2.0
        assert md.autograd.grad(out, (x, unused), allow_unused=True, retain_graph=True)[1] is None
        out.backward()
        assert x.grad.item() == 2.0 and unused.grad is None
        assert md.grad(lambda x, y: x * 2.0, argnums=1)(x.detach(), unused.detach()).item() == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_complex_outputs_and_cotangents(backend: str):
    """Law 6: a complex output has no gradient unless it is holomorphic, and then f'(z); a custom_vjp sees the conjugated cotangent."""
    seen = []

    @md.custom_vjp
    def times(z: Any) -> Any:
        return z * 2j

    def pull(residuals: Any, g: Any) -> Any:
        seen.append(g.item())
        return (g * -2j,)

    times.defvjp(lambda z: (times(z), None), pull)
    with md.use_backend(backend):
        z, f = md.tensor(1 + 2j, dtype=md.complex128), lambda z: z * z * 1j
        with pytest.raises(TypeError, match="complex"):
            md.grad(f)(z)
        for derivative in (md.grad, md.jacfwd, md.jacrev):
            assert derivative(f, holomorphic=True)(z).item() == -4 + 2j
        assert md.vjp(times, z)[1](md.tensor(1 + 1j, dtype=md.complex128))[0].item() == 2 - 2j
        assert seen == [1 + 1j]
        assert md.grad(lambda z: md.imag(times(z)))(z).item() == 2  # imag(2j z) = 2 real(z)
        assert seen[1] == 1j
