"""md.extend.fused: a composition that becomes one program and one node of the tape once it is called again and again with small tensors."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

BACKENDS = ["numpy", "torch", "jax", "numba"]


def plain(x, y, /, by, how):
    z = md.tanh(x) * by if y is None else md.tanh(x @ y) * by
    return (z - z.mean(axis=0)) if how == "centred" else z, z.detach() + 1.0


def arguments(backend="numpy", n=4, dtype=md.float64, tracked=True):
    r = np.random.default_rng(0)
    return [md.asarray(r.normal(size=s), backend=backend, dtype=dtype).requires_grad_(tracked) for s in ((n, 3), (3, 3))]


def counted():
    """plain, fused, and how often its Python ran."""
    calls = []

    def function(x, y, /, by, how):
        calls.append(md.extend.home().name)
        return plain(x, y, by, how)

    return md.extend.fused(function), calls


def values(out):
    return [v.detach().numpy() for v in md.tree.leaves(out)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_derivatives_are_the_same_before_and_after_it_is_compiled(backend):
    f, calls = counted()
    x, y = arguments(backend)
    found = []
    for _ in range(4):
        out = f(x, y, 0.3, "centred")
        assert [v.requires_grad for v in out] == [True, False]
        first = md.autograd.grad((out[0] * out[0]).sum(), (x, y), create_graph=True)
        second = md.autograd.grad(sum((g * g).sum() for g in first), (x, y))
        found.append(values((out, first, second)))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    assert len(calls) == (3 if backend in ("numpy", "torch") else 4), "compiled at the third call, where that takes no time"


def test_every_kind_of_call_has_a_program_of_its_own():
    f, calls = counted()
    x, y = arguments()
    kinds = [
        (x, y, 0.0, ""), (x, y, -0.0, ""), (x, y, 1, ""), (x, y, True, ""), (x, None, 1, ""), (x.detach(), y, 1, ""), (x, y, 1, "centred"),
        (*arguments(n=5), 1, ""), (*arguments(dtype=md.float32), 1, ""), (*arguments("torch"), 1, ""),
    ]  # fmt: skip
    for _ in range(4):
        for args in kinds:
            for a, b in zip(f(*args), plain(*args), strict=True):
                np.testing.assert_array_equal(np.signbit(a.detach().numpy()), np.signbit(b.detach().numpy()))
                np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-6)
                assert (a.dtype, a.shape, a.backend, a.requires_grad) == (b.dtype, b.shape, b.backend, b.requires_grad)
    assert len(calls) == 3 * len(kinds)


def test_large_tensors_and_shapes_that_are_new_each_time_are_not_compiled():
    f, calls = counted()
    large = md.ones((5000, 3), dtype=md.float64, backend="numpy"), arguments()[1]
    for _ in range(5):
        f(*large, 1.0, "")
    assert len(calls) == 5
    for n in range(1, 600):
        f(*arguments(n=1 + n % 7 + 7 * n), 1.0, "")
    assert len(calls) == 604


def test_what_is_in_force_is_seen():
    f, calls = counted()
    x, y = arguments()
    wanted = values(plain(x, y, 0.5, "centred"))
    for _ in range(4):
        with md.no_grad():
            out = f(x, y, 0.5, "centred")
            assert not any(v.requires_grad for v in out)
        assert f(x, y, 0.5, "centred")[0].requires_grad
        for a, b in zip(values(out), wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    before = len(calls)
    single = lambda v: (f(v, y.detach(), 0.5, "")[0] ** 2).sum()
    start = x.detach()
    jitted, mapped = md.jit(md.grad(single))(start), md.vmap(md.grad(lambda v: single(v[None])))(start)
    along = md.jvp(single, (start,), (start,))[1]
    np.testing.assert_allclose(jitted.numpy(), mapped.numpy(), rtol=1e-12)
    np.testing.assert_allclose(along.item(), (jitted * start).sum().item(), rtol=1e-12)
    assert len(calls) > before
    with md.autocast("cpu", md.bfloat16):
        assert f(*arguments(dtype=md.float32), 1.0, "")[0].dtype is md.bfloat16


def test_tensors_that_change_between_calls_are_read_anew_and_results_are_values():
    f, _ = counted()
    x, y = arguments("torch", tracked=False)
    kept = []
    for k in range(5):
        x.assign(x + 1.0)
        kept.append((f(x, y, 1.0, "")[0], plain(x, y, 1.0, "")[0].numpy().copy(), k))
    for out, wanted, _ in kept:
        np.testing.assert_allclose(out.numpy(), wanted, rtol=1e-12)


def test_errors_are_those_of_the_operations():
    f, _ = counted()
    x, y = arguments()
    said = []
    for _ in range(4):
        with pytest.raises(ValueError, match="matmul: inner dimensions differ") as e:
            f(x, x, 1.0, "")
        said.append(str(e.value))
    assert len(set(said)) == 1
    with pytest.raises(TypeError):
        f(x, y, 1.0)


def test_hooks_and_strong_zeros():
    f, _ = counted()
    x, y = arguments()
    for _ in range(4):
        out, seen = f(x, y, 1.0, "")[0], []
        out.register_hook(lambda g, seen=seen: seen.append(g.numpy()) or g * 2.0)
        (out * 3.0).sum().backward()
        assert (seen[0] == 3.0).all()
    np.testing.assert_allclose(x.grad.numpy(), 4 * 6.0 * md.autograd.grad(plain(x, y, 1.0, "")[0].sum(), x)[0].numpy(), rtol=1e-12)
    bad = md.extend.fused(lambda v, /: md.where(v > 0, md.sqrt(v), 0.0))
    v = md.zeros(2, dtype=md.float64, backend="numpy").requires_grad_()
    for _ in range(4):
        assert np.isnan(md.autograd.grad(bad(v).sum(), v)[0].numpy()).all()
        with md.strong_zero():
            assert (md.autograd.grad(bad(v).sum(), v)[0].numpy() == 0).all()
        out = bad(v).sum()
        with md.strong_zero():
            assert (md.autograd.grad(out, v)[0].numpy() == 0).all()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_draws_are_the_same_as_operations_and_as_a_program(backend):
    key = md.random.key(md.tensor(7, backend=backend))
    for draw in (lambda: md.random.normal(key, (3, 5)), lambda: md.random.bernoulli(key, 0.3, (9,)), lambda: md.random.split(key, 3)):
        first, *others = (draw().numpy() for _ in range(5))
        for other in others:
            np.testing.assert_array_equal(first, other)
    md.random.manual_seed(3)
    drawn = [md.random.uniform(md.random.default_generator.next_key(md.zeros((), backend=backend)), (2,)).numpy() for _ in range(6)]
    assert len({d.tobytes() for d in drawn}) == 6
    md.random.manual_seed(3)
    with md.no_grad():
        again = [md.random.uniform(md.random.default_generator.next_key(md.zeros((), backend=backend)), (2,)).numpy() for _ in range(6)]
    np.testing.assert_array_equal(drawn, again)


WORDS = [((), (), (), (256,)), ((2, 1), (2, 1), (1, 3), ()), ((), (), (), ()), ((0,), (), (), (0,)), ((5,), (), (5,), (1,))]


@pytest.mark.parametrize("shapes", WORDS)
def test_the_words_of_few_elements_are_those_of_many(shapes):
    from minidl.random import on_numpy as threefry

    r = np.random.default_rng(0)
    given = [r.integers(0, 2**32, s, dtype=np.uint32) for s in shapes]
    given[0][...] |= 2**32 - 2  # with carries
    shape = np.broadcast_shapes(*shapes)
    few, many = [np.empty((*shape, n), np.uint32) for n in (1, 1)], [np.empty((*shape, 300), np.uint32) for _ in range(2)]
    threefry.rounds(*(v[..., None] for v in given), *few)
    threefry.rounds(*(v[..., None] for v in given), *many)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(np.broadcast_to(a, b.shape), b)


def test_no_backends_compete_for_it_and_what_cannot_be_compiled_stays_operations(monkeypatch):
    from minidl import auto

    monkeypatch.setattr(auto, "choose", lambda *args: pytest.fail("a contest"))
    x, y = arguments()
    with md.use_backend("auto"):
        f, calls = counted()
        for _ in range(4):
            np.testing.assert_array_equal(f(x, y, 0.5, "")[0].detach().numpy(), plain(x, y, 0.5, "")[0].detach().numpy())
    assert len(calls) == 3
    g, calls = counted()
    with monkeypatch.context() as patched:
        patched.setattr(type(md.extend.get_backend("numpy")), "compile", lambda *args: 1 / 0)
        for _ in range(4):
            np.testing.assert_array_equal(g(x, y, 0.5, "")[0].detach().numpy(), plain(x, y, 0.5, "")[0].detach().numpy())
    assert g(x, y, 0.5, "")[0].requires_grad


class Named:
    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return "Named()"


def test_statics_are_told_apart_by_type_and_value():
    f = md.extend.fused(lambda x, /, how: x * how.value)
    one, five, x = Named(1.0), Named(5.0), md.ones(2)
    for _ in range(4):
        assert f(x, one).tolist() == [1.0, 1.0]
        assert f(x, five).tolist() == [5.0, 5.0]
    g = md.extend.fused(lambda x, /, pair: x * pair[0])
    for value in (0.0, -0.0, 0, False, np.float32(0.0), np.float32(-0.0)):
        for _ in range(4):
            found = g(x, (value,))
        assert str(found.tolist()[0]) == str((x * value).tolist()[0]) and found.dtype is (x * value).dtype
    draws = md.extend.whole(lambda x, /, pair: x * pair[0])
    with md.use_backend("jax"):
        y = md.ones(2)
        assert [str(draws(y, (v,)).tolist()[0]) for v in (0.0, -0.0, 0.0)] == ["0.0", "-0.0", "0.0"]


def test_what_cannot_be_a_key_is_refused_by_name():
    def scaled(x, /, by):
        return x * float(by.sum())

    with pytest.raises(TypeError, match="scaled: the arguments behind / are hashable, not ndarray"):
        md.extend.fused(scaled)(md.ones(2), np.arange(2000.0))


def test_none_may_come_first_and_alone():
    f, x = md.extend.fused(lambda a, b, /, n: n if b is None else b * n), md.ones(2)
    for _ in range(4):
        assert f(None, None, 2) == 2
        assert f(None, x, 2).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("f", [lambda x, /: x, lambda x, /: x[0], lambda x, /: (x, x.reshape(4)), lambda x, /: x.T])
def test_results_are_values_of_their_own_from_the_first_call_on(f):
    call = md.extend.fused(f)
    for _ in range(4):
        x = md.ones((2, 2))
        for v in md.tree.leaves(call(x)):
            v.zero_()
        assert x.tolist() == [[1.0, 1.0], [1.0, 1.0]]
