"""Corners of PyTorch's methods, as PyTorch has them: what is empty, not finite, without arguments or of another dtype."""

from __future__ import annotations

import asyncio

import pytest

import minidl as md

torch = pytest.importorskip("torch")
F, INF, NAN = md.nn.functional, float("inf"), float("nan")


def test_an_empty_axis_is_an_error_of_the_word_that_was_called():
    for name in ("max", "min"):
        with pytest.raises(ValueError, match=rf"{name}: the reduction of f32\[2,0\] over axis \(1,\) is empty"):
            getattr(md.zeros((2, 0)), name)(dim=1)
    assert md.zeros((0, 2)).max(dim=1).values.shape == md.zeros((0, 2)).sort(dim=0).indices.shape[:1] == (0,)


@pytest.mark.parametrize("row", [[INF, NAN], [INF, 1.0], [NAN, 1.0], [0.0, 0.0], [3e-13, 4e-13], [-INF, 0.0]])
def test_normalize(row):
    found = F.normalize(md.tensor(row), dim=0).tolist()
    assert repr(found) == repr(torch.nn.functional.normalize(torch.tensor(row), dim=0).tolist())


def test_random_integers_without_a_range_are_all_that_the_dtype_has():
    md.manual_seed(0)
    for name in ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"):
        x = md.zeros(2000, dtype=name).random_()
        lowest, highest = (int(v) for v in (x.to(md.int64).min(), x.to(md.int64).max()))
        top = int(torch.zeros(2000, dtype=getattr(torch, name)).random_().max())  # drawn likewise: neither is far from the largest
        assert lowest >= 0 and (0.9 < highest / top < 1.1 or name == "bool")
    assert set(md.zeros(99, dtype=bool).random_().tolist()) == {True, False}
    assert set(md.zeros(99).random_(2, 4).tolist()) == {2.0, 3.0}


def test_logical_functions_store_numbers_in_numbers():
    for a, b in (
        ([0.0, 1.0, 2.0, NAN, -0.0], [1.0, 0.0, 2.0, 0.0, 0.0]),
        ([0, 1, 2, 3, 0], [1, 0, 2, 0, 0]),
        ([True, False] * 2, [True, True, False, False]),
    ):
        for name in ("logical_and_", "logical_or_", "logical_xor_", "logical_not_"):
            others = () if name == "logical_not_" else (b,)
            x, y = md.tensor(a), torch.tensor(a)
            dtype = x.dtype
            getattr(x, name)(*map(md.tensor, others)), getattr(y, name)(*map(torch.tensor, others))
            assert x.tolist() == y.tolist() and x.dtype is dtype
    with pytest.raises(TypeError, match="logical_not: dtype f32 is not supported"):
        md.logical_not(md.ones(2))


def test_a_class_that_is_called_names_the_functions_that_make_tensors():
    for args in ((), ([1.0, 2.0],), (2, 3), (2, 3, 4)):
        with pytest.raises(TypeError, match=r"Tensor: make one of data with md.tensor\(data\)"):
            md.Tensor(*args)


def switched(m):
    """A gradient while requires_grad is off and after it is on again; hooks stay, too."""
    x, seen = m.tensor([1.0, 2.0], requires_grad=True), []
    x.register_hook(lambda g: seen.append(g.tolist()))
    (x * x).sum().backward()
    x.requires_grad_(False)
    off = x.grad.tolist(), (x * 2.0).requires_grad
    x.requires_grad_(True)
    (x * 3.0).sum().backward()
    on = x.grad.tolist()
    x.requires_grad = False
    x.grad = None
    x.requires_grad = True
    plain = m.zeros(2)
    plain.grad = m.ones(2)
    return off, on, seen, x.grad, plain.grad.tolist(), plain.requires_grad


def test_a_gradient_is_kept_while_requires_grad_is_off():
    assert switched(md) == switched(torch)
    with pytest.raises(RuntimeError, match="grad: the result of an operation"):
        (md.ones(2, requires_grad=True) * 2).grad = md.ones(2)


def frozen(m, jit):
    """Steps over a parameter that is frozen from the second one on, with the gradient of the first, and thawed for the last."""
    a, b = (m.tensor([v], requires_grad=True) for v in (1.0, 2.0))
    optimizer = m.optim.SGD([a, b], lr=0.1)

    def step(x):
        (a * x + (b * x * x).detach() * a + b).sum().backward()
        optimizer.step()
        a.grad = None

    step, out = jit(step), []
    for i in range(5):
        if i in (1, 4):
            b.requires_grad_(i == 4)
        if i == 3:
            b.grad = None
        step(m.tensor([1.0 + i]))
        out += [a.item(), b.item(), None if b.grad is None else b.grad.item()]
    return out


def test_a_frozen_parameter_with_a_gradient_is_stepped_as_in_pytorch():
    wanted = frozen(torch, lambda f: f)
    for jit in (lambda f: f, md.jit):
        for found, value in zip(frozen(md, jit), wanted, strict=True):
            assert found == (value if value is None else pytest.approx(value, rel=1e-6))


def test_a_program_looks_at_the_gradient_of_what_is_not_tracked():
    read = md.jit(lambda x: x * 2.0 if x.grad is None else x.grad * 3.0)
    x, y = md.ones(2), md.ones(2)
    assert read(x).tolist() == read(y).tolist() == [2.0, 2.0]
    y.grad = md.ones(2)
    assert (read(x).tolist(), read(y).tolist(), read(x).tolist()) == ([2.0, 2.0], [3.0, 3.0], [2.0, 2.0])
    y.grad = y.grad * 2.0
    assert read(y).tolist() == [6.0, 6.0]


def generators(m):
    """What a decorated generator sees, sent to, thrown into and closed; and what is left in force outside."""
    seen = []

    @m.no_grad()
    def f(n):
        for i in range(n):
            try:
                seen.append((yield m.is_grad_enabled(), i))
            except KeyError:
                seen.append(("caught", m.is_grad_enabled()))
            finally:
                seen.append(m.is_grad_enabled())
        return "end"

    steps = f(5)
    seen += [next(steps), m.is_grad_enabled(), steps.send("sent"), steps.throw(KeyError("x"))]
    steps.close()
    seen += [m.is_grad_enabled(), list(f(2)), m.is_grad_enabled()]
    try:
        raising = f(1)
        next(raising), raising.throw(ValueError("mine"))
    except ValueError as error:
        seen.append(str(error))

    def outer():
        seen.append((yield from f(1)))

    on = m.set_grad_enabled(True)(lambda: m.is_grad_enabled())
    bare = m.no_grad(lambda: m.is_grad_enabled())
    with m.no_grad():
        seen += [list(outer()), on(), m.enable_grad(lambda: m.is_grad_enabled())(), bare(), m.is_grad_enabled()]
    return [*seen, on(), bare(), m.is_grad_enabled()]


def test_a_generator_is_decorated_step_by_step():
    assert generators(md) == generators(torch)
    assert md.is_grad_enabled()
    with pytest.raises(TypeError):
        md.no_grad(False)
    for m in (md, torch):
        modes = m.inference_mode, m.inference_mode(), m.inference_mode(True), m.inference_mode(False)
        assert [mode(m.is_grad_enabled)() for mode in modes] == [False, False, False, True]


def tasks(m):
    """Which tasks of a loop see the block of one of them that awaits in it."""
    seen = []

    async def blocked():
        with m.no_grad():
            await asyncio.sleep(0)
            seen.append(("inside", m.is_grad_enabled()))
        seen.append(("behind", m.is_grad_enabled()))

    async def beside():
        seen.append(("beside", m.is_grad_enabled()))

    async def both():
        await asyncio.gather(blocked(), beside())

    asyncio.run(both())
    return seen, m.is_grad_enabled()


def test_a_block_is_the_threads_where_a_coroutine_awaits_in_it():
    assert tasks(md) == tasks(torch) == ([("beside", False), ("inside", False), ("behind", True)], True)
