"""Replayed backward passes: whatever changes beside the values of a structure, gradients are those of the ordinary pass."""

import contextlib

import numpy as np
import pytest

import minidl as md

pytest.importorskip("jax")

DTYPES = ("float32", "float64", "float16", "bfloat16", "complex64")
SHAPES = ((4,), (2, 3))


def total(x):
    return (md.real(x) if x.dtype.is_complex else x).sum()


#: The first ones keep no array on the tape, so nothing but the result says what dtype the pass is in.
LOSSES = {
    "sum": total,
    "scaled": lambda x: total(x.reshape(-1, 1)) * 2.0,
    "product": lambda x: total(x * x * 0.5),
    "cast": lambda x: total(x.to(md.complex64 if x.dtype.is_complex else md.float32)),
}


def loss_of(x, w):
    h = md.tanh(md.matmul(x, w)) + x[:, :2] * 0.5
    return (h * h).sum() + w.sum() * 2.0


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    return [md.tensor(rng.normal(size=s), requires_grad=True) for s in ((3, 4), (4, 2))]  # float64, which jax must not cut


@pytest.fixture
def passes(monkeypatch):
    """Whether each pass was replayed; the backend is jax."""
    from minidl import replay, tape

    with md.use_backend("jax"):  # the very first use of an operation in a process may record it in another way
        loss_of(*inputs()).backward()
    done: list[bool] = []
    whole = replay.backward
    monkeypatch.setattr(replay, "_known", {})
    monkeypatch.setattr(tape, "crossed", set())  # another test of this process may have let a graph cross backends
    monkeypatch.setattr(replay, "backward", lambda *args: done.append(whole(*args)) or done[-1])
    with md.use_backend("jax"):
        yield done


def draw(seed, dtype, shape):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype == "complex64" else 0.0)
    return values.astype(np.complex64 if dtype == "complex64" else np.float32)


def gradient(loss, values, dtype, backend, before=None):
    """The gradient, added to one that is there already."""
    with md.use_backend(backend):
        x = md.tensor(values).to(getattr(md, dtype)).detach().requires_grad_()
        if before is not None:
            x.grad = md.full(x.shape, before, dtype=x.dtype)
        loss(x).backward()
        return x.grad


def agree(loss, seed, dtype, shape, before=None):
    values = draw(seed, dtype, shape)
    got, want = (gradient(loss, values, dtype, b, before) for b in ("jax", "numpy"))
    assert got.dtype is want.dtype is getattr(md, dtype) and got.shape == shape
    kind = np.complex128 if dtype == "complex64" else np.float64
    eps = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-15}.get(dtype, 1e-7)
    np.testing.assert_allclose(got.numpy().astype(kind), want.numpy().astype(kind), rtol=4 * eps, atol=4 * eps)


@pytest.mark.parametrize("name", LOSSES)
def test_dtypes_and_shapes_alternate_over_one_structure(passes, name):
    for seed in range(5):
        for dtype in DTYPES:
            for shape in SHAPES:
                agree(LOSSES[name], seed, dtype, shape, before=1.0 if seed % 2 else None)
    each = len(DTYPES) * len(SHAPES)
    assert not any(passes[: 2 * each]) and all(passes[-each:])


def test_settings_alternate_over_one_structure(passes):
    default = md.get_default_dtype()

    @contextlib.contextmanager
    def default_dtype(d):
        md.set_default_dtype(d)
        try:
            yield
        finally:
            md.set_default_dtype(default)

    settings = (
        contextlib.nullcontext, lambda: default_dtype(md.float64), md.strict_promotion, md.strong_zero, lambda: md.out_of_bounds("fill"),
        lambda: md.autocast(dtype="bfloat16"), lambda: md.out_of_bounds("raise-later"),
    )  # fmt: skip

    def loss(x):
        y = md.where(x > 0, md.sqrt(x), 0.0) * x  # sqrt has an infinite derivative at 0, which strong zeros annihilate
        return (y[md.tensor([0, 2])] * 3.0).sum() + md.matmul(x, x).sum()

    values = np.array([4.0, 1.0, 0.0, 9.0], np.float32)
    found = []
    for _ in range(5):
        for setting in settings:
            with setting():
                got, want = (gradient(loss, values, "float32", b) for b in ("jax", "numpy"))
            assert got.dtype is want.dtype
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-2)
            found.append(got.numpy()[2])
    assert np.isnan(found[0]) and not np.isnan(found[3]) and any(passes)


@pytest.mark.parametrize("values", [(0.0, -0.0), (1.0, 3.0), (1, 1.0), (2, True)])
def test_numbers_alternate_over_one_structure(passes, values):
    for seed in range(5):
        for value in values:
            agree(lambda x: (1.0 / md.maximum(x * value, 1e-3)).sum() + (x**2 * value).sum(), seed, "float32", (4,))  # noqa: B023
    assert not any(passes[:2]) and all(passes[-2:])


def test_params_are_told_apart():
    from minidl.graph import told

    params = [(0.0,), (-0.0,), (0,), (False,), (1, 2), (1, True), ((1, 0.0),), ((1, -0.0),), 0j, -0.0j, None, "0"]
    assert len({(p.__class__, told(p)) for p in params}) == len(params)
    assert told((float("nan"),)) == told((float("nan"),))


@pytest.mark.parametrize("where", ["capture", "run"])
def test_a_structure_that_cannot_be_captured_is_left_to_the_ordinary_pass(passes, monkeypatch, where):
    from minidl import replay

    tried = []

    def fail(*args):
        tried.append(args)
        raise ValueError("no such program")

    if where == "capture":
        monkeypatch.setattr(replay, "finish", fail)
    else:
        captured = replay._captured
        monkeypatch.setattr(replay, "_captured", lambda *args: replay._Program(fail, (p := captured(*args)).keep, p.leaves))
    for seed in range(6):
        agree(LOSSES["product"], seed, "float32", (4,), before=1.0)
    assert len(tried) == 1 and not any(passes) and list(replay._known.values())[-1] is None


def test_replayed_gradients_follow_the_values(passes):
    for seed in range(5):
        x, w = inputs(seed)
        want = md.autograd.grad(loss_of(x, w), (x, w))
        loss_of(x, w).backward()
        for t, g in zip((x, w), want, strict=True):
            assert t.grad.dtype is md.float64
            np.testing.assert_allclose(t.grad.numpy(), g.numpy(), rtol=1e-13)
    assert passes == [False, False, True, True, True]


def test_replay_accumulates_and_releases(passes):
    x, w = inputs()
    for i in range(4):
        loss = loss_of(x, w)
        loss.backward(retain_graph=True)
        once = x.grad.numpy()
        loss.backward()
        np.testing.assert_allclose(x.grad.numpy(), once * 2 if i == 0 else once * (2 * i + 2) / (2 * i + 1), rtol=1e-12)
        with pytest.raises(RuntimeError, match="already differentiated"):
            loss.backward()
    assert passes.count(True) == 6


def test_replay_leaves_hooks_and_higher_orders_to_the_ordinary_pass(passes):
    x, w = inputs()
    for _ in range(3):
        loss_of(x, w).backward()
    assert passes[-1]
    x.grad = w.grad = None
    seen = []
    h = md.matmul(x, w)
    h.register_hook(lambda g: seen.append(g) or g * 2.0)
    (h * h).sum().backward()
    assert len(seen) == 1 and not passes[-1]
    x.grad = w.grad = None
    remove = x.register_hook(lambda g: g * 3.0)
    loss_of(x, w).backward()
    assert passes[-1]  # the hooks of leaves are called when a gradient arrives, whoever made it
    hooked = x.grad.numpy()
    remove()
    x.grad = w.grad = None
    loss_of(x, w).backward(create_graph=True)
    np.testing.assert_allclose(hooked, 3 * x.grad.detach().numpy(), rtol=1e-12)
    second = md.autograd.grad(x.grad.sum(), w)[0]
    assert np.isfinite(second.numpy()).all() and second.numpy().any()


def test_replay_sees_what_the_forward_pass_saw(passes):
    x, w = inputs()
    for _ in range(4):
        loss, before = loss_of(x, w), md.autograd.grad(loss_of(x, w), x)[0].numpy()
        with md.no_grad():
            w *= 0.5
        x.grad = None
        loss.backward()
        np.testing.assert_allclose(x.grad.numpy(), before, rtol=1e-12)
    assert passes[-1]


def test_structures_that_differ_in_a_param_are_two(passes):
    x = inputs()[0]
    for eps in (1e-5, 1e-1) * 4:
        x.grad = None
        one = md.ones(4, dtype=md.float64)
        out = md.nn.functional.layer_norm(x, (4,), one, one, eps)
        (out * out * out).sum().backward()
        cubes = lambda v, eps=eps, one=one: (md.nn.functional.layer_norm(v, (4,), one, one, eps) ** 3).sum()
        np.testing.assert_allclose(x.grad.numpy(), md.grad(cubes)(x.detach()).numpy(), rtol=1e-9)
    assert passes.count(True) == 4
    with md.strong_zero():
        (x * x).sum().backward()
    assert len(passes) == 8  # strong zeros are the ordinary pass's
