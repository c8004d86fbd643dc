"""What nobody reads of a jitted call has no part in its backward pass: as eagerly, where its cotangent does not exist, and is not 0."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

INF = float("inf")


def several(x, w):
    far = x * md.where(md.arange(2) == 0, INF, 1.0)
    both = x * 3.0
    return {"plain": x * 2.0, "far": far, "shared": both + far, "both": both, "w": md.concat([w, w * far]), "floor": md.floor(w) + both}


def gradients(f, names, how):
    x, w = (md.tensor(v, requires_grad=True) for v in ([1.0, 2.0], [3.0]))
    out = f(x, w)
    total = sum(out[n][-1] for n in names)
    if how == "backward":
        total.backward()
        found = x.grad, w.grad
    else:
        found = md.autograd.grad(total, (x, w), allow_unused=True, create_graph=how == "create_graph")
    return [None if g is None else g.tolist() for g in found]


NAMES = [["plain"], ["both"], ["plain", "both"], ["shared"], ["far", "plain"], ["floor"], ["w"], ["w", "plain"]]


def test_a_result_that_nobody_reads_adds_nothing_to_the_gradients(backend):
    jitted = md.jit(several)
    for how in ("backward", "grad", "create_graph"):
        for names in NAMES if backend in ("numpy", "torch") else NAMES[2:4]:
            np.testing.assert_equal(gradients(jitted, names, how), gradients(several, names, how))
    assert jitted.compiles == 1


def test_a_parameter_that_no_read_result_depends_on_has_no_gradient():
    model = md.nn.ModuleDict({"a": md.nn.Linear(2, 2), "b": md.nn.Linear(2, 2)})
    heads = md.jit(lambda x: (model["a"](x), model["b"](x)))
    x = md.ones((1, 2))
    heads(x)[0].sum().backward()
    assert model["b"].weight.grad is None and model["a"].weight.grad is not None
    second = heads(x)[1]
    second.sum().backward()
    assert model["b"].weight.grad is not None
    with pytest.raises(RuntimeError, match="was not used"):
        md.autograd.grad(heads(x)[0].sum(), [model["a"].weight, model["b"].weight])
    assert md.autograd.grad(heads(x)[1].sum(), [model["a"].weight], allow_unused=True) == (None,)


def test_results_that_are_read_later_bring_their_own_part():
    f = md.jit(lambda x: (x * 2.0, x * x))
    x = md.tensor([1.0, 2.0], requires_grad=True)
    first, second = f(x)
    first.sum().backward(retain_graph=True)
    assert x.grad.tolist() == [2.0, 2.0]
    second.sum().backward(retain_graph=True)
    assert x.grad.tolist() == [4.0, 6.0]
    (first + second).sum().backward()
    assert x.grad.tolist() == [8.0, 12.0]


def test_one_backward_pass_releases_the_whole_call_as_that_of_torch_compile():
    x = md.tensor([1.0, 2.0], requires_grad=True)
    first, second = md.jit(lambda x: (x * 2.0, x * x))(x)
    first.sum().backward()
    with pytest.raises(RuntimeError, match=r"already differentiated .* backward\(retain_graph=True\) the first time"):
        second.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_a_derivative_of_eigenvalues_alone_is_finite_where_vectors_have_none():
    a = md.eye(2, dtype=md.float64).requires_grad_()
    values, _ = md.jit(md.linalg.eigh)(a)
    values.sum().backward()
    assert a.grad.tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("effects", [False, True])
@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_a_rule_of_several_results_of_which_none_is_read_has_no_part(backend, effects):
    """It was traced with zeros for the result that the function drops, whose product with an infinity is nan."""
    f = md.custom_vjp(lambda x: (x * 2.0, x * 3.0, x * INF), effects=effects)
    f.defvjp(lambda x: (f.f(x), None), lambda _, g: (g[0] * 2.0 + g[1] * 3.0 + g[2] * INF,))

    def partly(x):
        first, second, _ = f(x)
        return first, second, x * 5.0, first + x

    jitted = md.jit(partly)
    with md.use_backend(backend):
        for read in ([2], [0], [0, 1], [2, 3]):
            found = []
            for g in (partly, jitted):
                x = md.tensor([1.0, 2.0], requires_grad=True)
                sum(g(x)[i].sum() for i in read).backward()
                found.append(x.grad.tolist())
            np.testing.assert_equal(found[1], found[0])
            assert read != [2] or found[1] == [5.0, 5.0]
