"""Every case of the gradient law (minidl/testing/kinks.py), on every backend, in every way of differentiating."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl.testing import KINKS, law
from minidl.testing.trial import MODES, complaints, derivatives

BACKENDS = [name for name, there in md.backends().items() if there is True]
#: XLA compiles each eager kernel for each shape and dtype; what the left-out modes would add is the same rules on shapes that "traced vmap" has.
CASES = [(b, m) for b in BACKENDS for m in MODES if b != "jax" or m not in ("vmap", "narrow")]
#: One run of a backend in a mode serves all tests.
results = functools.cache(derivatives)


@pytest.mark.parametrize(("backend", "mode"), CASES)
def test_every_case(backend: str, mode: str):
    got, raised = results(backend, mode)
    found = [f"{name}: raised {type(e).__name__}: {e}" for name, e in raised.items()]
    found += [f"{k.name}: {what}" for k in KINKS if k.name in got for what in complaints(k, mode, got[k.name])]
    assert not found, f"{len(found)} complaints about {len(KINKS)} cases\n" + "\n".join(found)


def test_a_backend_that_breaks_the_law_is_named():
    from minidl.backends.numpy_backend import NumpyBackend

    class Wrong(NumpyBackend):
        name = "wrong"
        sign = staticmethod(lambda x: np.where(x >= 0, 1.0, -1.0).astype(x.dtype))  # abs has slope 1 at 0

        @staticmethod
        def lgamma(x: Any) -> Any:
            raise NotImplementedError("lgamma: the wrong backend cannot do this")

    some = [k for k in KINKS if k.name in ("abs(0)", "lgamma(0)", "relu(0)")]
    wrong = law(Wrong(), ("tape", "functional"), some)
    assert wrong["abs(0)"] and all("wanted 0.0" in line or "forward mode" in line for line in wrong["abs(0)"]), wrong
    assert "tape: raised NotImplementedError: lgamma: the wrong backend cannot do this" in wrong["lgamma(0)"]
    assert "relu(0)" not in wrong and law("numpy", ("tape", "functional"), some) == {}


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b in ("numpy", "torch")])
def test_captured_is_raw_to_the_bit(backend: str):
    raw, captured = results(backend, "functional")[0], results(backend, "traced")[0]
    for name, eager in raw.items():
        for a, b in zip(md.tree.leaves(eager), md.tree.leaves(captured[name]), strict=True):
            assert np.array_equal(a, b, equal_nan=True), f"{name}: {a} eager, {b} traced"


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
