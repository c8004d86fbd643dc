"""What torch's kernels compute eagerly has the values and derivatives of the operations that they stand for."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import minidl as md
from minidl.nn import functional as F

ACTIVATIONS = {
    "silu": F.silu, "mish": F.mish, "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "logsigmoid": F.logsigmoid, "glu": F.glu,
    "leaky": lambda x: F.leaky_relu(x, 0.3), "turned": lambda x: F.leaky_relu(x, -0.5), "flat": lambda x: F.leaky_relu(x, 0), "elu": F.elu,
    "celu": lambda x: F.celu(x, 0.7), "selu": F.selu, "softplus": F.softplus, "sharp": lambda x: F.softplus(x, 2.0, 5.0),
    "late": lambda x: F.softplus(x, 1.0, 1e3), "hardshrink": lambda x: F.hardshrink(x, 3.0), "softshrink": lambda x: F.softshrink(x, 3),
    "unshrunk": lambda x: F.hardshrink(x, -1.0), "unmoved": lambda x: F.softshrink(x, 0.0),
}  # fmt: skip
PLAIN = np.array([-3.0, -2.5, -0.0, 0.0, 0.4, 3.0, 1e-30, -7.0, 30.0, -90.0, 5.5, 2.5])
ODD = np.array([np.inf, -np.inf, np.nan, 3.0, -3.0, 1e30, -1e30, 2e3, -2e3, 0.0, 1.0, -1.0])


def on(backend, values, dtype=md.float32, tracked=True):
    return md.asarray(np.asarray(values), backend=backend, dtype=dtype).requires_grad_(tracked)


def by_torch(t):
    return type(t.node[1]).__name__ in ("Projection", "Single")


def derivatives(f, backend, values, dtype, g=None):
    x = on(backend, values, dtype)
    y = f(x)
    weights = on(backend, np.linspace(0.5, 2.0, y.size) if g is None else g, dtype, False)
    with np.errstate(all="ignore"):
        (first,) = md.autograd.grad(y, x, weights, retain_graph=True)
        (again,) = md.autograd.grad(y, x, weights, create_graph=True)
        (second,) = md.autograd.grad((again * again).sum(), x) if again.requires_grad else (x.detach() * 0.0,)
    return y, [t.detach().numpy().astype(np.float64) for t in (y, first, again, second)]


@pytest.mark.parametrize("dtype", [md.float32, md.float64, md.bfloat16], ids=lambda d: d.name)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_the_operations(name, dtype):
    f, rtol = ACTIVATIONS[name], {32: 2e-6, 64: 1e-13, 16: 1e-2}[dtype.bits]
    with np.errstate(all="ignore"):
        for values in (PLAIN, ODD):
            y, ours = derivatives(f, "torch", values, dtype)
            assert by_torch(y) or values is ODD or dtype.bits == 16 or name in ("silu", "hardswish", "late"), "the kernel computed it"
            for k, (mine, theirs) in enumerate(zip(ours, derivatives(f, "numpy", values, dtype)[1], strict=True)):
                np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * (10 if k == 3 else 0.1))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_infinite_cotangent_meets_the_zeros_of_the_operations(name):
    values, g = [-2e3, -3.0, -5.0, 3.0, 1.0, 2e3], [np.inf, -np.inf, np.nan, np.inf, 1.0, np.inf]
    g = g[:3] if name == "glu" else g
    with np.errstate(all="ignore"):
        (_, first, again, _), (_, wanted, *_) = (derivatives(ACTIVATIONS[name], b, values, md.float32, g)[1] for b in ("torch", "numpy"))
    np.testing.assert_allclose(first, wanted, rtol=2e-6)
    np.testing.assert_allclose(again, wanted, rtol=2e-6)


def test_transforms_see_the_operations():
    x = on("torch", PLAIN, md.float64, False)
    f = lambda v: F.mish(v).sum()
    wanted = md.grad(f)(on("numpy", PLAIN, md.float64, False)).numpy()
    t = md.ones_like(x)
    for got in (
        md.grad(f)(x), md.jit(md.grad(f))(x), md.vmap(md.grad(f))(x), md.jvp(F.mish, (x,), (t,))[1], md.linearize(F.mish, x)[1](t),
    ):  # fmt: skip
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-13)
    hessian = md.grad(lambda v: md.grad(f)(v).sum())(x).numpy()
    np.testing.assert_allclose(md.jvp(md.grad(f), (x,), (t,))[1].numpy(), hessian, rtol=1e-12)
    assert [e.primitive.name for e in md.trace(F.mish)(x).equations].count("tanh") == 1


def test_the_tape_is_kept_released_and_hooked_as_ever():
    x = on("torch", PLAIN)
    with md.no_grad():
        assert F.mish(x).node is None
    assert F.mish(x.detach()).node is None
    y, seen = F.mish(x), []
    y.register_hook(lambda g: seen.append(g.tolist()) or g * 2.0)
    x.register_hook(seen.append)
    before = x.detach().numpy().copy()
    y.sum().backward(retain_graph=True)
    once = x.grad.numpy().copy()
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), once * 2)
    assert seen[0] == [1.0] * x.size and len(seen) == 4
    with pytest.raises(RuntimeError, match="released"):
        y.sum().backward()
    with md.no_grad():
        z = F.mish(x)
    y = F.mish(x)
    with md.no_grad():
        x.assign(x + 1.0)  # what the tape kept is what the operation saw
    x.grad = None
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy() * 2, once)
    np.testing.assert_array_equal(z.numpy(), F.mish(on("torch", before)).detach().numpy())


NORMS = {
    "layer": lambda x, w, b, eps: F.layer_norm(x, (4,), w, b, eps),
    "group": lambda x, w, b, eps: F.group_norm(x, 1, w, b, eps),
    "batch": lambda x, w, b, eps: F.batch_norm(x.T, None, None, w[:1].expand(2), b[:1].expand(2), True, 0.1, eps).T,
    "running": lambda x, w, b, eps: F.batch_norm(x.T, x.mean(1), md.zeros(2), w[:1].expand(2), b[:1].expand(2), False, 0.1, eps)[:, :1].T,
}


@pytest.mark.parametrize("eps", [1e-12, 1e-20])
@pytest.mark.parametrize("kind", NORMS)
def test_what_does_not_vary_is_the_bias_also_with_a_tiny_eps(kind, eps, backend):
    x, weight, bias = md.tensor([[3.0] * 4, [7.3] * 4]), md.tensor([2.0] * 4, requires_grad=True), md.tensor([0.5] * 4, requires_grad=True)
    for wrap in (lambda f: f, md.jit):
        out = wrap(NORMS[kind])(x, weight, bias, eps)
        np.testing.assert_array_equal(out.detach().numpy(), np.full(out.shape, 0.5))
        slope = md.autograd.grad(out.sum(), (weight, bias))
        if kind != "layer" or eps < 1e-12 or backend != "torch":
            assert not slope[0].numpy().any() and slope[1].sum().item() == out.size



def test_batch_normalisation():
    r = np.random.default_rng(0)
    for shape in ((6, 3), (4, 3, 2, 5)):
        found = {}
        for backend in ("torch", "numpy"):
            layer = md.nn.BatchNorm1d(3) if len(shape) == 2 else md.nn.BatchNorm2d(3)
            layer.to(backend=backend)
            r = np.random.default_rng(0)
            layer.load_state_dict({**layer.state_dict(), "weight": on(backend, r.normal(size=3), tracked=False)})
            x, out = on(backend, r.normal(size=shape)), []
            held, first = layer.running_var.detach(), layer.running_var.tolist()
            for training in (True, True, False):
                y = layer.train(training)(x)
                assert backend == "numpy" or by_torch(y)
                grads = md.autograd.grad((y * y * y).sum(), (x, layer.weight, layer.bias), create_graph=True)
                second = md.autograd.grad(sum((g * g).sum() for g in grads), (x, layer.weight), retain_graph=True)
                (y * y * y).sum().backward()
                out += [y, *grads, *second, x.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var]
                out = [t.detach().numpy().copy() if isinstance(t, md.Tensor) else t for t in out]
                x.grad = None
                layer.zero_grad()
            assert held.tolist() == first != layer.running_var.tolist(), "new statistics are another array"
            found[backend] = out
        for mine, theirs in zip(found["torch"], found["numpy"], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    same = md.ones((4, 2), backend="torch")  # a deviation of 0, whose inverse torch takes for 0
    assert np.isnan(F.batch_norm(same, None, None, training=True, eps=0.0).numpy()).all()
    bare = F.batch_norm(on("torch", [[1.0], [3.0]]), None, None, training=True)
    assert by_torch(bare) and np.allclose(bare.tolist(), [[-1], [1]], atol=1e-4)
    mean, var = on("torch", [0.5]), on("torch", [2.0])  # statistics with a derivative
    x = on("torch", [[1.0], [3.0]], tracked=False)
    for g, wanted in zip(md.autograd.grad(F.batch_norm(x, mean, var, eps=1e-7).sum(), (mean, var)), (-1.41421, -0.53033), strict=True):
        np.testing.assert_allclose(g.numpy(), [wanted], rtol=1e-4)


@pytest.mark.parametrize(("bias", "reverse"), [(True, True), (False, False)])
def test_layers_of_lstm(bias, reverse):
    found = []
    for backend, dtype in (("torch", md.float32), ("numpy", md.float64)):
        r = np.random.default_rng(1)
        layer = md.nn.LSTM(3, 4, num_layers=2, bias=bias, bidirectional=reverse, batch_first=True)
        layer.load_state_dict({k: on("numpy", r.normal(size=v.shape), tracked=False) for k, v in layer.state_dict().items()})
        layer.to(backend=backend, dtype=dtype)
        x = on(backend, r.normal(size=(2, 5, 3)), dtype)
        start = [on(backend, r.normal(size=(2 * (1 + reverse), 2, 4)), dtype) for _ in range(2)]
        out, (h, c) = layer(x, start)
        grads = []
        for loss in ((out * out).sum() + c[0].sum(), h.sum(), (c * c).sum()):  # results without influence, too
            grads += md.autograd.grad(loss, (x, *start, *layer.parameters()), allow_unused=True, retain_graph=True)
        first = md.autograd.grad((out * out).sum(), (x, layer.weight_hh_l0), create_graph=True)
        second = md.autograd.grad(sum((g * g).sum() for g in first), (x, layer.weight_ih_l0))
        found.append([t if t is None else t.detach().numpy() for t in (out, h, c, *grads, *first, *second)])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-4)


def test_what_is_wrong_is_said_in_the_terms_of_the_operations():
    messages = []
    for backend in ("torch", "numpy"):
        layer = md.nn.LSTM(3, 4).to(backend=backend)
        layer.weight_hh_l0 = md.nn.Parameter(md.zeros((16, 5), backend=backend))
        with pytest.raises((ValueError, TypeError)) as error:
            layer(md.ones((2, 1, 3), backend=backend))
        messages.append((error.type, str(error.value)))
    assert messages[0] == messages[1]


def test_a_long_sum_in_blocks_is_as_accurate_as_in_float64():
    r = np.random.default_rng(0)
    for n in (2**16, 2**16 + 513, 300_001):
        x = r.normal(size=n).astype(np.float32)
        assert abs(md.asarray(x, backend="torch").sum().item() - x.sum(dtype=np.float64)) <= 2e-7 * np.abs(x).sum(dtype=np.float64) ** 0.5 * 40
    assert md.asarray(x.reshape(1, -1), backend="torch").sum(keepdims=True).shape == (1, 1)
    x[7] = np.nan
    assert np.isnan(md.asarray(x, backend="torch").sum().item())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_of_classes(reduction):
    r = np.random.default_rng(0)
    for shape, ignore in (((5, 4), -100), ((5, 4), 2), ((4,), -100), ((3, 4, 2), 1), ((2, 4, 3, 2), -100)):
        scores, classes, weight = r.normal(size=shape), r.integers(0, 4, shape[:1] + shape[2:] if len(shape) > 1 else ()), r.random(4) + 0.1
        found = {}
        for backend in ("torch", "numpy"):
            x, w = on(backend, scores, md.float64), on(backend, weight, md.float64)
            t, out = md.asarray(classes, backend=backend), []
            for loss, given in ((F.cross_entropy, None), (F.nll_loss, None), (F.nll_loss, w.detach()), (F.nll_loss, w)):
                y = loss(x, t, given, ignore_index=ignore, reduction=reduction)
                assert backend == "numpy" or by_torch(y)
                more = md.autograd.grad(y, w, md.ones_like(y), retain_graph=True) if given is w else (None,)
                first = md.autograd.grad(y, x, md.ones_like(y), create_graph=True)[0]
                second = md.autograd.grad((first * first).sum(), x, allow_unused=True) if first.requires_grad else (None,)
                out += [v if v is None else v.detach().numpy() for v in (y, first, *second, *more)]
            found[backend] = out
        for mine, theirs in zip(found["torch"], found["numpy"], strict=True):
            np.testing.assert_allclose(0 if mine is None else mine, 0 if theirs is None else theirs, rtol=1e-12, atol=1e-15)
    odd = on("torch", [[0.0, -np.inf, 1.0], [np.nan, 0.0, 1.0]])
    (g,) = md.autograd.grad(F.cross_entropy(odd, md.tensor([0, -100], backend="torch")), odd)
    (wanted,) = md.autograd.grad(F.cross_entropy(x := on("numpy", odd.tolist()), md.tensor([0, -100], backend="numpy")), x)
    np.testing.assert_allclose(g.numpy(), wanted.numpy(), rtol=1e-6)
    for bad in (3, -1):
        with pytest.raises(IndexError, match=f"holds class {bad}"):
            F.cross_entropy(odd, md.tensor([0, bad], backend="torch"))


def test_matrices_side_by_side_and_few_maxima():
    r = np.random.default_rng(0)
    a, b, image = r.normal(size=(2, 3, 4, 5)), r.normal(size=(2, 3, 5, 6)), r.integers(0, 3, (1, 2, 5, 6)).astype(float)
    turn = lambda v: v.swapaxes(-1, -2)
    for dtype in (np.float32, np.int32, np.complex64):
        for x, y in ((a, b), (turn(turn(a).copy()), b), (a, turn(turn(b).copy())), (a[:, :, :0], b), (a[..., :0], b[:, :, :0])):
            x, y = (10 * x).astype(dtype), (10 * y).astype(dtype)
            np.testing.assert_allclose(md.matmul(md.asarray(x, backend="torch"), md.asarray(y, backend="torch")).numpy(), x @ y, rtol=2e-4, atol=1e-3)
    found = []
    for backend in ("torch", "numpy"):
        x, y = on(backend, a, md.float64), on(backend, turn(b).copy(), md.float64)
        loss = (md.matmul(x, md.swapaxes(y, -1, -2)) ** 3).sum()
        v = on(backend, image, md.float64)  # with ties
        pooled = [F.max_pool2d(v, 2), F.max_pool2d(v, 3, 1, 1), F.max_pool2d(v, (2, 3), ceil_mode=True), F.max_pool2d(v[0], 2, dilation=2)]
        assert backend == "numpy" or by_torch(pooled[1])
        grads = md.autograd.grad(loss, (x, y)) + sum((md.autograd.grad((p * p).sum(), v) for p in pooled), ())
        odd = on(backend, np.where(image == 1.0, np.nan, image), md.float64)
        grads += md.autograd.grad(F.max_pool2d(odd, 2).sum(), odd)
        found.append([t.detach().numpy() for t in (*pooled, *grads)])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11)


@pytest.mark.parametrize("how", [(2,), ((3, 2),), (3, 2, 1), (2, 2, 0, 2)], ids=["apart", "of two widths", "overlapping", "dilated"])
def test_many_maxima_keep_their_places_as_programs_do(how):
    r = np.random.default_rng(0)
    image = np.round(r.normal(size=(4, 6, 30, 31)).astype(np.float32), 1)  # with ties
    low, odd = image.copy(), image.copy()
    low[0, 0, :6, :6], low[1, 1, 2, 2], odd[2, 2, 2:4, 3] = -np.inf, np.inf, np.nan
    for values in (image, low, odd):
        found = []
        for backend in ("torch", "numpy"):
            x = on(backend, values, md.float32)
            y = F.max_pool2d(x, *how)
            assert backend == "numpy" or by_torch(y)
            g = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
            g[0, 0, 0, 0] = np.inf
            y.backward(md.tensor(g, backend=backend))
            found.append([y.detach().numpy(), F.max_pool2d(x.detach(), *how).numpy(), x.grad.numpy()])
        for mine, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"max_pool: the window \(40, 40\) is larger than the padded input f32\[4,6,30,31\]"):
        F.max_pool2d(on("torch", image, md.float32), 40)


def test_look_up_and_plain_indices():
    places, found = [[3, 0, 3], [-1, 2, 0]], []
    for backend, index in (("torch", np.mod(places, 4)), ("torch", places), ("numpy", places)):
        w, out = on(backend, np.arange(8.0).reshape(4, 2)), []
        for padding in (None, 0, -4):
            y = F.embedding(md.asarray(index, backend=backend), w, padding)
            assert by_torch(y) == (index is not places)
            g = md.autograd.grad((y * y).sum(), w, create_graph=True)[0]
            out += [y, g, md.autograd.grad((g * g).sum(), w)[0]]
        found.append([t.detach().tolist() for t in out])
        with pytest.raises(IndexError, match="out of bounds"):
            F.embedding(md.asarray([4], backend=backend), w)
        with pytest.raises(ValueError, match="padding_idx 4 is no row of 4"):
            F.embedding(md.asarray([0], backend=backend), w, 4)
    assert found[0] == found[1] == found[2]
    r = np.random.default_rng(0)
    ends, steps = [None, 0, 1, 2, -1, -2, 5, -7], [None, 1, 2, -1, -3]
    for k in range(300):  # the second time from what the first one left
        x = np.arange(24.0).reshape(2, 3, 4) if k % 3 else np.arange(5.0)
        kinds = [lambda: int(r.integers(-3, 3)), lambda: slice(*(ends[r.integers(8)] for _ in "ab"), steps[r.integers(5)]), lambda: None, lambda: ...]
        index = tuple(kinds[r.integers(4)]() for _ in range(r.integers(4)))
        t = md.asarray(x.copy(), backend="torch").requires_grad_()
        try:
            wanted = x[index]
        except IndexError:
            with pytest.raises(IndexError):
                t[index]
            continue
        for _ in range(2):
            np.testing.assert_array_equal(t[index].detach().numpy(), wanted)
        u = t.detach()
        u[index].fill_(-1.0)
        x[index] = -1.0
        np.testing.assert_array_equal(u.numpy(), x)


def test_arrays_in_any_order_of_memory():
    r, n = np.random.default_rng(0), 4
    shapes = ((5, 3, 6), (3, n), (3, n), (4 * n, 6), (4 * n, n), (4 * n,), (4 * n,))
    arrays = [r.normal(size=s) for s in shapes]
    scores, classes = r.normal(size=(3, 4, 5)), r.integers(0, 4, (3, 5))

    def losses(backend, dtype, turned):
        order = lambda a: tuple(range(a.ndim))[::-1]
        put = lambda a: md.permute_dims(md.asarray(a.T.copy(), backend=backend), order(a)) if turned else md.asarray(a.copy(), backend=backend)
        given = [put(a.astype(dtype)).detach().requires_grad_() for a in (*arrays, scores)]
        x, h, c, ih, hh, bias_ih, bias_hh, s = given
        out, last = F.recurrence.run("LSTM", x, (h, c), {"ih": ih, "hh": hh, "bias_ih": bias_ih, "bias_hh": bias_hh}, False, None)
        loss = (md.permute_dims(out, (2, 1, 0)) * md.asarray(np.arange(5.0).astype(dtype), backend=backend)).sum() + last[1].sum()
        loss = loss + F.nll_loss(s, put(classes)) + F.cross_entropy(s, put(classes))
        loss.backward()
        return [loss.item(), *(t.grad.numpy() for t in given)]

    wanted = losses("numpy", np.float64, False)
    for turned in (False, True):
        for mine, theirs in zip(losses("torch", np.float32, turned), wanted, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_what_torch_divides_by_is_looked_at_first():
    """Its derivative of a normalisation ends the process for no rows; an infinite weight makes nan of whatever it multiplies."""
    three = [1.0, 2.0, 3.0]
    for shape in ((0, 3), (2, 3, 0), (0, 3, 2)):
        x, w = on("torch", np.zeros(shape)), on("torch", three)
        y = F.batch_norm(x, on("torch", three, tracked=False), on("torch", three, tracked=False), w)
        assert [g.numpy().tolist() for g in md.autograd.grad(y.sum(), (x, w))] == [np.zeros(shape).tolist(), [0.0] * 3]
    for training in (True, False):
        found = [
            F.batch_norm(on(b, [[1.0], [2.0], [4.0]]), on(b, [0.5]).detach(), on(b, [2.0]).detach(), on(b, [np.inf]), training=training).tolist()
            for b in ("torch", "numpy")
        ]
        assert found[0] == found[1] and not np.isnan(found[0]).any()


def test_a_loop_of_no_steps_stays_on_its_backend():
    for layer in (md.nn.LSTM(2, 3), md.nn.GRU(2, 3)):
        out, _ = layer.to(backend="torch")(md.zeros((0, 1, 2), backend="torch"))
        assert out.shape == (0, 1, 3) and out.backend == "torch"
    last, ys = md.scan(lambda c, x: (c + x, c * x), md.zeros(2, backend="torch"), md.zeros((0, 2), backend="torch"))
    assert (last.backend, ys.backend, ys.shape) == ("torch", "torch", (0, 2))


PIXELS = np.linspace(-1.25, 1.25, 24).reshape(2, 3, 2, 2)  # with places on pixels, between them and outside
TIMES = md.nn.functional.log_softmax(md.asarray(np.random.default_rng(5).normal(size=(6, 3, 4)), backend="numpy"), dim=2).numpy()


def ctc(x):
    targets = md.asarray([[1, 2], [3, 3], [2, -7]], backend=x.backend)
    return F.ctc_loss(x, targets, [6, 5, 3], [2, 2, 1], reduction="none")


#: name: (function, shape or values of each array)
SEVERAL = {
    "huber": (lambda x, t: F.huber_loss(x, t, "sum", 0.7), (3, 5), (3, 5)),
    "smooth l1": (lambda x, t: F.smooth_l1_loss(x, t, "none"), (3, 5), np.zeros((3, 5))),
    "kinks of huber": (lambda x, t: F.huber_loss(x, t), np.array([[-1.0, 0.0, 1.0, 0.5, 2.0]]), np.zeros((1, 5))),
    "log_softmax": (lambda x: F.log_softmax(x, 1), (3, 4, 2)), "of one axis": (lambda x: F.log_softmax(x, dim=0, dtype=x.dtype), (5,)),
    "group": (lambda x, w, b: F.group_norm(x, 2, w, b), (2, 4, 3, 5), (4,), (4,)),
    "group strides": (lambda x, w, b: F.group_norm(x, 2, w[::2], md.broadcast_to(b[:1], (4,))), (2, 4, 3, 5), (8,), (2,)),
    "bare group": (lambda x: F.group_norm(x, 3), (2, 6, 4)),
    "adaptive": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (2, 3, 7, 5)),
    "adaptive volume": (lambda x: F.adaptive_avg_pool3d(x, (3, 2, 4)), (1, 2, 4, 3, 5)),
    "reflect": (lambda x: F.pad(x, (2, 1, 0, 3), "reflect"), (2, 3, 4, 5)),
    "replicate": (lambda x: F.pad(x, (2, 1), "replicate"), (2, 3, 4)),
    "replicate volume": (lambda x: F.pad(x, (0, 1, 2, 0, 1, 1), "replicate"), (1, 2, 3, 4, 2)),
    "ctc": (ctc, TIMES),
    "ctc of scores": (ctc, (6, 3, 4)),
    **{
        f"{mode} {outside} {align}": (functools.partial(F.grid_sample, mode=mode, padding_mode=outside, align_corners=align), (2, 3, 5, 3), PIXELS)
        for mode in ("bilinear", "bicubic") for outside in ("zeros", "border", "reflection") for align in (True, False)
    },
    "sampled volume": (functools.partial(F.grid_sample, align_corners=True), (2, 3, 5, 3, 2), PIXELS.reshape(2, 2, 2, 1, 3)),
}  # fmt: skip


def both(f, given, weigh=None, order=None):
    """Values and derivatives on torch and numpy, and whether torch's kernel computed them."""
    out = []
    for backend in ("torch", "numpy"):
        xs = [md.asarray(a if order is None else np.transpose(a).copy(), backend=backend) for a in given]
        xs = [(x if order is None else md.permute_dims(x, tuple(range(x.ndim))[::-1])).requires_grad_() for x in xs]
        with np.errstate(all="ignore"):
            y = f(*xs)
            g = md.asarray(np.linspace(0.5, 2.0, y.size).reshape(y.shape) if weigh is None else np.full(y.shape, weigh), backend=backend)
            first = md.autograd.grad(y, xs, g.to(y.dtype), retain_graph=True)
            again = md.autograd.grad(y, xs, g.to(y.dtype), create_graph=True)
            moving = [v for v in again if v.requires_grad]
            second = md.autograd.grad(sum((v * v).sum() for v in moving), xs[0], allow_unused=True) if moving else [None]
        out.append((y, [0.0 if v is None else v.detach().numpy() for v in (y, *first, *again, *second)]))
    return by_torch(out[0][0]), out[0][1], out[1][1]


@pytest.mark.parametrize("name", SEVERAL)
def test_kernels_of_several_arrays_have_the_derivatives_of_the_operations(name):
    f, *given = SEVERAL[name]
    r = np.random.default_rng(3)
    arrays = [a if isinstance(a, np.ndarray) else r.normal(size=a) for a in given]
    for dtype, order, rtol in ((np.float64, None, 1e-11), (np.float64, "turned", 1e-11), (np.float32, None, 2e-4)):
        kernel, mine, theirs = both(f, [a.astype(dtype) for a in arrays], order=order)
        assert kernel, "the kernel computed it"
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", SEVERAL)
def test_infinities_of_several_arrays_are_left_to_the_operations(name):
    f, *given = SEVERAL[name]
    r = np.random.default_rng(3)
    arrays = [a if isinstance(a, np.ndarray) else r.normal(size=a) for a in given]
    for k, odd in enumerate((np.inf, -np.inf, np.nan)):
        first = arrays[0].copy()
        first.flat[k] = odd
        for some in ([first, *arrays[1:]], [arrays[0], *(np.where(a == a.flat[1], odd, a) for a in arrays[1:])]):
            _, mine, theirs = both(f, some)
            for a, b in list(zip(mine, theirs, strict=True))[:-1]:
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
        _, mine, theirs = both(f, arrays, weigh=odd)
        for a, b in list(zip(mine, theirs, strict=True))[:-1]:
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_places_on_pixels_have_the_slopes_of_the_operations_after_rounding():
    for size in (5, 7, 12):  # what a place is differs by rounding between (x + 1) * size / 2 - 1/2 and ((x + 1) * size - 1) / 2
        line = ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)
        grid = np.stack(np.meshgrid(line, line), -1)[None]
        image = np.random.default_rng(size).normal(size=(1, 2, size, size)).astype(np.float32)
        kernel, mine, theirs = both(functools.partial(F.grid_sample, align_corners=False), [image, grid])
        assert kernel
        for a, b in zip(mine[:3], theirs[:3], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [md.float32, md.float64, md.float16, md.bfloat16, md.complex64, md.complex128], ids=lambda d: d.name)
def test_dropout_takes_away_what_it_drops_whatever_that_is(dtype):
    scaled = functools.partial(F.gates.kept, scale=1.5)
    for shape, of in (((64, 33), (64, 33)), ((5, 8, 6, 7), (5, 8, 1, 1)), ((3,), (3,)), ((), ())):
        found = []
        for backend in ("numpy", "torch"):
            md.manual_seed(3)
            x = md.ones(shape, backend=backend).to(dtype).requires_grad_()
            mask = F.dropouts._drawn(x, 0.25, of)
            odd = md.where(mask, x.detach(), np.nan).requires_grad_()
            with np.errstate(all="ignore"):
                for wrap in (lambda f: f, md.jit):
                    for given in (x, odd):
                        y = wrap(scaled)(mask, given)
                        weight = md.where(mask, md.full_like(x.detach(), -2.0), np.inf)  # an infinite cotangent meets what was dropped
                        (first,) = md.autograd.grad(y, given, weight, create_graph=True)
                        assert y.dtype is first.dtype is dtype and not first.requires_grad
                        found.append([v.detach().to(md.complex64).numpy() for v in (y, first)])
                    turned = md.asarray(x.detach().numpy().T.copy(), backend=backend, dtype=dtype)
                    z = scaled(mask, md.permute_dims(turned, tuple(range(len(shape)))[::-1]))
                    found.append([z.to(md.complex64).numpy(), found[-1][1]])  # of another order in memory
        for y, g in found:
            kept = np.broadcast_to(mask.numpy(), shape)
            np.testing.assert_array_equal(y, np.where(kept, 1.5, 0.0))
            np.testing.assert_array_equal(g, np.where(kept, -3.0, 0.0))
            assert not np.signbit(y.real).any()
    with md.use_backend("torch"):
        x = md.ones((2, 2000)).to(dtype)
        md.manual_seed(1)
        mapped = md.vmap(lambda v: F.dropout(v, 0.5))(x)
        md.manual_seed(1)
        assert md.jit(md.vmap(lambda v: F.dropout(v, 0.5)))(x).tolist() == mapped.tolist() and mapped[0].tolist() != mapped[1].tolist()


def places(x, values):
    return md.asarray(values, backend=x.backend)


CLASSES, LISTS = [3, 0, 1, 0, 2], [[2, 0, -1, 3], [-1, 1, 1, 1], [1, 3, 0, 2], [2, 2, -1, -1], [0, -1, 0, 0]]
#: name → function, shapes of its arrays.
LAYERS = {
    "by_row": (lambda x, w, b: F.layer_norm(x, (4,), w, b), [(5, 4), (4,), (4,)]),
    "by_row of more": (lambda x, w: F.layer_norm(x, (3, 4), w), [(2, 5, 3, 4), (3, 4)]),
    "by_row of all": (lambda x, b: F.layer_norm(x, (3, 4), None, b, 1e-3), [(3, 4), (3, 4)]),
    "by_row bare": (lambda x: F.layer_norm(x, (4,)), [(5, 4)]),
    "prelu": (F.prelu, [(3, 4, 2), (4,)]),
    "prelu of one": (F.prelu, [(3, 4), (1,)]),
    "prelu of a number": (F.prelu, [(), (1,)]),
    "unfold": (lambda x: F.unfold(x, (2, 3), (2, 1), (1, 2), (1, 2)), [(2, 3, 5, 6)]),
    "unfold of one": (lambda x: F.unfold(x[None], 2), [(3, 5, 6)]),
    "fold": (lambda x: F.fold(x, (4, 5), (2, 3), (2, 1), (1, 2), (1, 2)), [(2, 12, 16)]),
    "margins": (lambda x: F.multi_margin_loss(x, places(x, CLASSES)), [(5, 4)]),
    "squares": (lambda x: F.multi_margin_loss(x, places(x, CLASSES), 2, 0.5, places(x, np.array([1.0, 2, 0, 3])).to(x.dtype), "none"), [(5, 4)]),
    "margins of one": (lambda x: F.multi_margin_loss(x, places(x, 2), reduction="sum"), [(4,)]),
    "lists": (lambda x: F.multilabel_margin_loss(x, places(x, LISTS)), [(5, 4)]),
    "lists, each": (lambda x: F.multilabel_margin_loss(x, places(x, LISTS), "none"), [(5, 4)]),
    "list": (lambda x: F.multilabel_margin_loss(x, places(x, LISTS[0])), [(4,)]),
}  # fmt: skip
WAYS = {
    "eager": lambda f: f, "jit": md.jit, "checkpoint": md.checkpoint, "vmap": lambda f: lambda *xs: md.vmap(f)(*(md.stack([x, x]) for x in xs))[1],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_those_of_the_operations(name, way):
    f, shapes = LAYERS[name]
    with np.errstate(all="ignore"):
        for dtype, rtol in ((md.float32, 2e-5), (md.float64, 1e-11), (md.bfloat16, 0.1)):
            for odd in (None, 0.0, np.nan, np.inf):
                r, found = np.random.default_rng(3), {}
                values = [np.round(r.normal(size=s), 1) for s in shapes]  # with margins that are met exactly
                if odd is not None:
                    values[0] = np.where(r.random(shapes[0]) < 0.3, odd, values[0])
                weights = r.normal(size=1000)
                for backend in ("numpy", "torch"):
                    xs = [on(backend, v, dtype) for v in values]
                    if len(shapes[0]) > 1:  # of another order in memory
                        xs[0] = md.asarray(values[0].swapaxes(0, -1).copy(), backend=backend, dtype=dtype).swapaxes(0, -1).detach().requires_grad_()
                    y = WAYS[way](f)(*xs)
                    g = on(backend, weights[: y.size].reshape(y.shape), dtype, False)
                    assert backend == "numpy" or way != "eager" or dtype.bits == 16 or odd or by_torch(y), "the kernel computed it"
                    first = md.autograd.grad(y, xs, g, retain_graph=True)
                    again = md.autograd.grad(y, xs, g, create_graph=True)
                    total = sum(md.sum(v * v) for v in again)
                    second = md.autograd.grad(total, xs, allow_unused=True) if total.requires_grad else []
                    every = [y, *first, *again, *(v for v in second if v is not None)]
                    assert all(v.dtype is dtype for v in every)
                    found[backend] = [v.detach().to(md.float64).numpy() for v in every]
                for mine, theirs in zip(found["torch"], found["numpy"], strict=True):
                    np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_layers_of_nothing(backend):
    empty = lambda *shape: md.zeros(shape, backend=backend).requires_grad_()
    for y in (
        F.layer_norm(empty(0, 4), (4,)), F.prelu(empty(0, 4), empty(4)), F.unfold(empty(0, 2, 3, 3), 2), F.hardshrink(empty(0)),
        F.multilabel_margin_loss(empty(0, 3), md.zeros((0, 3), dtype=md.int64, backend=backend), "none"),
    ):  # fmt: skip
        assert not y.size
        y.sum().backward()
    with pytest.raises(ValueError, match="reduction"):
        F.multi_margin_loss(md.ones((1, 2), backend=backend), md.zeros(1, dtype=md.int64, backend=backend), reduction="median")


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("how", ["plain", "bool", "added", "causal", "masked row"])
def test_attention_that_drops_is_that_of_the_operations(how, p):
    """With the cotangents of what it returns and of its weights, and the second derivatives; a row that may look nowhere is 0."""
    r = np.random.default_rng(5)
    arrays = [r.normal(size=(2, 3, *s)) for s in ((4, 6), (5, 6), (5, 7))]
    mask = {"bool": r.random((4, 5)) > 0.3, "added": r.normal(size=(4, 5)), "masked row": np.arange(4)[:, None] + np.zeros(5) > 0}.get(how)
    found = []
    for backend in ("torch", "numpy"):
        md.manual_seed(1)
        xs = [on(backend, a, md.float64) for a in arrays]
        given = None if mask is None else md.asarray(mask, backend=backend)
        outs = F.attention._weighted(*xs, given, p, how == "causal")
        assert backend == "numpy" or by_torch(outs[0]) is (how != "masked row")
        cts = [md.asarray(np.linspace(0.5, 2.0, o.size).reshape(o.shape), backend=backend) for o in outs]
        first = md.autograd.grad(outs, xs, cts, retain_graph=True)
        again = md.autograd.grad(outs, xs, cts, create_graph=True)
        found.append([*outs, *first, *again, *md.autograd.grad(sum((a * a).sum() for a in again), xs)])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-11, atol=1e-12)
    assert how != "masked row" or not found[0][0].detach().numpy()[..., 0, :].any()


@pytest.mark.parametrize("score", [np.inf, -np.inf, np.nan])
def test_attention_that_drops_and_keys_behind_a_mask_that_are_not_finite(score):
    """-inf is added, as a program does and PyTorch: of an infinite score that leaves nan."""
    r = np.random.default_rng(5)
    q, k, v = (np.abs(r.normal(size=(2, n, 4))) for n in (3, 5, 5))
    k[1, 2, 0], mask = score, np.arange(5) != 2
    found = []
    for backend in ("torch", "numpy"):
        md.manual_seed(1)
        xs = [on(backend, a, md.float64) for a in (q, k, v)]
        outs = F.attention._weighted(*xs, md.asarray(mask, backend=backend), 0.3, False)
        found.append([o.detach().numpy() for o in (*outs, *md.autograd.grad(outs[0].sum(), xs))])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-12)


def test_ones_of_classes_on_torch_are_those_of_the_operations():
    for shape in ((), (5,), (2, 3), (0, 3)):
        i = np.arange(int(np.prod(shape))).reshape(shape) % 4
        for dtype in (md.int64, md.int32, md.uint8):
            mine, theirs = (F.one_hot(md.asarray(i, backend=b, dtype=dtype), 4) for b in ("torch", "numpy"))
            assert (mine.dtype, mine.shape) == (md.int64, (*shape, 4)) and mine.tolist() == theirs.tolist()
    with pytest.raises(IndexError, match="one_hot: the tensor holds 0 to 4; the classes are 0 to 3"):
        F.one_hot(md.tensor([0, 4], backend="torch"), 4)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_running_statistics_that_require_grad_are_stored_without_the_tape(backend):
    with md.use_backend(backend):
        x = md.asarray(np.random.default_rng(0).normal(size=(6, 2)), dtype=md.float64)
        found = []
        for tracked in (False, True):
            mean = md.zeros(2, dtype=md.float64).requires_grad_(tracked)
            var = md.ones(2, dtype=md.float64).requires_grad_(tracked)
            F.batch_norm(x, mean, var, training=True)
            assert mean.requires_grad is tracked and mean.is_leaf
            found.append([mean.tolist(), var.tolist()])
        rate = md.tensor(0.1, dtype=md.float64, requires_grad=True)
        mean, var = md.zeros(2, dtype=md.float64), md.ones(2, dtype=md.float64)
        F.batch_norm(x, mean, var, training=True, momentum=rate)
        assert not mean.requires_grad and not var.requires_grad
        for other in (found[1], [mean.tolist(), var.tolist()]):
            np.testing.assert_allclose(other, found[0], rtol=1e-12)
