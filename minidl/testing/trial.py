"""The gradient law tried on a backend: every case of the table of kinks, in each way of differentiating.

A case fails by its own name; one whose computation raises does not stop the others. Traced modes compile all cases as one program.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

import minidl as md
from minidl.data.bars import bar
from minidl.extend import Backend, get_backend, using
from minidl.testing.kinks import KINKS, Kink

#: backward() and create_graph; the transforms eager, under jit, under vmap, both; in single precision.
MODES = ("tape", "functional", "traced", "vmap", "traced vmap", "narrow")
#: What cotangents and tangents are multiplied by, so that no rule passes that leaves out a factor of one; a power of two rounds nothing.
TWICE = 2.0
NARROW = {"float64": "float32", "complex128": "complex64"}


def law(
    backend: str | Backend, modes: Iterable[str] = MODES, kinks: Sequence[Kink] | None = None, progress: bool = False
) -> dict[str, list[str]]:
    """What a backend makes of the cases of the gradient law: {case: [what is wrong, in which mode]}, empty where the law holds.

    backend: a name or an instance. modes: of "tape" (backward, create_graph), "functional" (the transforms), "traced" (under jit), "vmap",
    "traced vmap" and "narrow" (single precision). kinks: of md.testing.KINKS; None for all. Values, gradients, tangents and second derivatives are
    compared; those that the table gives as exact must be the same numbers. progress shows a bar.

    >>> md.testing.law("numpy", ["tape", "traced"], md.testing.KINKS[:3])
    {}
    """
    wrong: dict[str, list[str]] = {}
    xp, kinks = get_backend(backend) if isinstance(backend, str) else backend, KINKS if kinks is None else kinks
    for mode in bar(list(modes), desc=f"{xp.name}: the gradient law", delay=2, disable=not progress):
        got, raised = derivatives(xp, mode, kinks)
        for kink in kinks:
            if kink.name in raised:
                error = raised[kink.name]
                wrong.setdefault(kink.name, []).append(f"{mode}: raised {type(error).__name__}: {error}")
            elif found := complaints(kink, mode, got[kink.name]):
                wrong.setdefault(kink.name, []).extend(f"{mode}: {what}" for what in found)
    return wrong


def derivatives(backend: str | Backend, mode: str, kinks: Sequence[Kink] = KINKS) -> tuple[dict[str, Any], dict[str, Exception]]:
    """({case: value and derivatives as NumPy}, {case: what it raised}) of a backend in one mode.

    >>> derivatives("numpy", "tape", KINKS[:1])[0]["abs(0)"]["vjp"]
    [array(0.)]
    """
    xp = get_backend(backend) if isinstance(backend, str) else backend
    one = _on_tape if mode == "tape" else _by_transforms
    raised: dict[str, Exception] = {}

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        out = {}
        for kink in kinks:
            try:
                f = functools.partial(one, kink)
                out[kink.name] = md.vmap(f)(inputs[kink.name]) if "vmap" in mode else f(inputs[kink.name])
            except Exception as error:
                raised[kink.name] = error
        return out

    with using(xp):
        inputs = {kink.name: [md.asarray(x) for x in _points(kink, mode)] for kink in kinks}
        out = (md.jit(run) if "traced" in mode else run)(inputs)
        return md.tree.map(lambda t: t.numpy() if isinstance(t, md.Tensor) else t, out), raised


# ---- a case, differentiated -----------------------------------------------------------------------------------------------------------------
def _points(kink: Kink, mode: str) -> list[np.ndarray]:
    """The case's arguments; under vmap the point between two others' worth of lanes."""
    xs = [np.asarray(a, NARROW[kink.dtype] if mode == "narrow" else kink.dtype) for a in kink.args]
    return [np.stack([x, x + 0.25, x]) for x in xs] if "vmap" in mode else xs


def _directions(kink: Kink) -> list[np.ndarray]:
    """One tangent per argument whose elements cannot stand in for each other."""
    return [TWICE * 2.0 ** np.arange(np.size(a)).reshape(np.shape(a)) for a in kink.args]


def _seed(kink: Kink, out: Any) -> Any:
    """The cotangent w, TWICE, like the output."""
    if kink.w is None:
        return md.full_like(out, TWICE)
    return md.asarray(TWICE * np.asarray(kink.w, out.dtype.numpy))


def _total(gradients: Any) -> Any:
    """The sum of the real parts of all gradients."""
    return functools.reduce(md.add, [md.sum(md.real(g)) for g in gradients])


def _by_transforms(kink: Kink, xs: Any) -> dict[str, Any]:
    """Value, vjp, jvp in each argument, and both second orders, by the functional transforms."""

    def gradients(*at: Any) -> Any:
        out, pull = md.vjp(kink.f, *at)
        return pull(_seed(kink, out))

    out = {"value": kink.f(*xs), "vjp": list(gradients(*xs)), "jvp": []}
    for i, v in enumerate(_directions(kink)):
        along = lambda x, i=i: kink.f(*(x if k == i else a for k, a in enumerate(xs)))
        out["jvp"].append(md.jvp(along, (xs[i],), (md.asarray(v.astype(xs[i].dtype.numpy)),))[1])
    if kink.second is not None:
        out["second"] = list(md.vjp(lambda *at: _total(gradients(*at)), *xs)[1](md.full((), TWICE, dtype=out["vjp"][0].dtype.real)))
        twos = tuple(md.full_like(x, TWICE) for x in xs)
        out["second forward"] = list(md.jvp(lambda *at: list(gradients(*at)), tuple(xs), twos)[1])
    return out


def _on_tape(kink: Kink, xs: Any) -> dict[str, Any]:
    """Value, backward() and create_graph, as a PyTorch user writes them."""
    leaves = [x.requires_grad_() for x in xs]
    value = kink.f(*leaves)
    if not value.requires_grad:  # piecewise constant by construction
        return {"value": value, "vjp": [None] * len(leaves)}
    value.backward(_seed(kink, value), retain_graph=True)
    out = {"value": value.detach(), "vjp": [x.grad for x in leaves]}
    found = md.autograd.grad(value, leaves, _seed(kink, value), create_graph=True, allow_unused=True)
    out["create_graph"] = [g.detach() if g is not None else None for g in found]
    if kink.second is not None:
        tracked = [g for g in found if g is not None and g.requires_grad]
        again = md.autograd.grad(_total(tracked) * TWICE, leaves, allow_unused=True) if tracked else [None] * len(leaves)
        out["second"] = list(again)
    return out


# ---- what it should have been ---------------------------------------------------------------------------------------------------------------
def close(got: Any, want: Any, ulp: float) -> bool:
    """Equal numbers (nan is nan, zeros of both signs are one), or within so many units in the last place; never of another shape.

    >>> close([1.0, float("nan")], [1.0, float("nan")], 0), close(1.0, 1.5, 2)
    (True, False)
    """
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return False
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    if ulp:
        with np.errstate(all="ignore"):
            same |= np.abs(got - want) <= ulp * np.spacing(np.abs(want))
    return bool(same.all())


def complaints(kink: Kink, mode: str, got: dict[str, Any]) -> list[str]:
    """What the results of one case break, in words.

    >>> zero = md.testing.KINKS[0]
    >>> complaints(zero, "tape", {"value": 0.0, "vjp": [1.0]})
    ['vjp in argument 0 is 1.0, wanted 0.0']
    """
    found = []

    def check(what: str, have: Any, want: Any, like: np.ndarray) -> None:
        want = np.zeros_like(like) if want is None else np.asarray(want, like.dtype)
        have = np.zeros_like(like) if have is None else np.asarray(have)
        for lane in (have[0], have[2]) if "vmap" in mode else (have,):
            if not close(lane, want, kink.ulp):
                found.append(f"{what} is {lane.tolist()}, wanted {want.tolist()}")

    xs = [np.asarray(a, NARROW[kink.dtype] if mode == "narrow" else kink.dtype) for a in kink.args]
    lane = got["value"][0] if "vmap" in mode else got["value"]
    check("value", got["value"], kink.value, np.asarray(lane))
    for kind in ("vjp", "create_graph", "second", "second forward"):
        wanted, factor = (kink.second or (), TWICE**2) if "second" in kind else (kink.vjp, TWICE)
        for i, g in enumerate(got.get(kind, [])):
            with np.errstate(invalid="ignore"):
                check(f"{kind} in argument {i}", g, None if wanted[i] is None else factor * np.asarray(wanted[i], xs[i].dtype), xs[i])
    w = np.ones_like(lane) if kink.w is None else np.asarray(kink.w)
    for i, (t, v) in enumerate(zip(got.get("jvp", []), _directions(kink), strict=False)):
        with np.errstate(all="ignore"):
            t = t[0] if "vmap" in mode else t
            forward = np.sum(np.real(np.conj(t) * w))
            reverse = np.sum(np.real(np.conj(v) * np.asarray(kink.vjp[i]))) if kink.forward is None else TWICE * kink.forward
        if not np.allclose(forward, reverse, rtol=1e-6 if mode == "narrow" else 1e-13, atol=0, equal_nan=True):
            found.append(f"forward mode gives {forward} where reverse mode gives {reverse} (argument {i})")
    return found
