"""Autocast on every backend and in every mode, GradScaler step by step against torch.amp.GradScaler, policies, and training in low precision."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from test_nn_parity import FIRST, combinations, draw, leaves

import minidl as md
import minidl.testing.domains  # the rooms beside the core, whose primitives the tables name, too
from minidl import nn
from minidl.data.digits import digits_arrays
from minidl.nn import functional as F
from minidl.precision import FULL, LOW
from minidl.primitives import table

torch = pytest.importorskip("torch")
BACKENDS = ["numpy", "numba", "torch", "jax"]
HALF = [md.bfloat16, md.float16]


@pytest.fixture(params=BACKENDS)
def backend(request):
    pytest.importorskip(request.param)
    with md.use_backend(request.param):
        yield request.param


def data(*shape, dtype="float32", seed=0):
    return md.asarray(np.random.default_rng(seed).normal(size=shape).astype(dtype))


# ---- which dtype an operation computes in ---------------------------------------------------------------------------------------------------
def test_the_tables_name_primitives_and_nothing_twice():
    assert set(table) >= LOW | FULL and not LOW & FULL


OPERATIONS = {  # name: (function of a float32 and a low tensor of [4, 4], of torch; the dtype that comes out: "low", "full", or "wide")
    "matmul": (lambda m, x, h: x @ h, "low"),
    "matmul of two wide ones": (lambda m, x, h: x @ x, "low"),
    "linear": (lambda m, x, h: m.nn.functional.linear(x, x, x[0]), "low"),
    "conv2d": (lambda m, x, h: m.nn.functional.conv2d(x.reshape(1, 1, 4, 4), x[:2, :2].reshape(1, 1, 2, 2)), "low"),
    "conv_transpose2d": (lambda m, x, h: m.nn.functional.conv_transpose2d(x.reshape(1, 1, 4, 4), x[:2, :2].reshape(1, 1, 2, 2)), "low"),
    "attention": (lambda m, x, h: m.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]), "low"),
    "softmax": (lambda m, x, h: m.nn.functional.softmax(h, 0), "full"),
    "log_softmax": (lambda m, x, h: m.nn.functional.log_softmax(h, 0), "full"),
    "layer_norm": (lambda m, x, h: m.nn.functional.layer_norm(h, (4,)), "full"),
    "exp": (lambda m, x, h: m.exp(h), "full"),
    "log": (lambda m, x, h: m.log(h * h + 1), "full"),
    "pow": (lambda m, x, h: (h * h) ** 1.5, "full"),
    "sum": (lambda m, x, h: h.sum(), "full"),
    "mean": (lambda m, x, h: h.mean(), "own"),
    "cumsum": (lambda m, x, h: m.cumulative_sum(h, axis=0) if m is md else m.cumsum(h, 0), "full"),
    "qr": (lambda m, x, h: m.linalg.qr(h)[1], "full"),
    "svdvals": (lambda m, x, h: m.linalg.svdvals(h), "full"),
    "mse_loss": (lambda m, x, h: m.nn.functional.mse_loss(h, h * 0.5), "full"),
    "smooth_l1_loss": (lambda m, x, h: m.nn.functional.smooth_l1_loss(h, h * 0.5), "full"),
    "cross_entropy": (lambda m, x, h: m.nn.functional.cross_entropy(h, m.asarray([0, 1, 2, 3])), "full"),
    "kl_div": (lambda m, x, h: m.nn.functional.kl_div(h, h * h, reduction="sum"), "full"),
    "cosine_similarity": (lambda m, x, h: m.nn.functional.cosine_similarity(h, h), "full"),
    "add": (lambda m, x, h: h + h, "own"),
    "relu": (lambda m, x, h: m.nn.functional.relu(h), "own"),
    "tanh": (lambda m, x, h: m.tanh(h), "own"),
    "gelu": (lambda m, x, h: m.nn.functional.gelu(h), "own"),
    "max": (lambda m, x, h: h.max(), "own"),
    "mixed add": (lambda m, x, h: x + h, "full"),
    "where": (lambda m, x, h: m.where(h > 0, x, h), "full"),
}


@pytest.mark.parametrize("low", HALF)
def test_each_operation_computes_in_the_dtype_that_torch_chooses(low):
    """torch's choice for CUDA, which is the complete list, is read from its documentation; on the CPU its own answer is compared where it has one."""
    native = getattr(torch, low.name)
    x, h = data(4, 4), data(4, 4, seed=1).to(low)
    tx, th = torch.tensor(x.numpy()), torch.tensor(h.to(md.float32).numpy()).to(native)
    for name, (f, kind) in OPERATIONS.items():
        want, outside = md.float32 if kind == "full" else low, f(md, x, h).dtype
        with md.autocast(dtype=low):
            got = f(md, x, h)
            inside = md.jit(lambda x, h, f=f: f(md, x, h))(x, h)
        assert got.dtype is want and inside.dtype is want, name
        with torch.autocast("cpu", native):
            theirs = f(torch, tx, th)
        tolerance = 2e-2 if low is md.bfloat16 else 3e-3
        np.testing.assert_allclose(got.to(md.float32).numpy(), theirs.float().numpy(), rtol=tolerance, atol=tolerance, err_msg=name)
        assert f(md, x, h).dtype is outside, name  # nothing is left on


def test_products_inside_a_factorisation_are_exact():
    x = data(2, 5)
    want = md.linalg.qr(x)[1].numpy()
    with md.autocast():
        np.testing.assert_array_equal(md.linalg.qr(x)[1].numpy(), want)
        assert md.linalg.qr(x.to(md.float16))[1].dtype is md.float32


def test_powers_of_matrices_are_as_exact_as_inverses_for_every_exponent():
    x = data(3, 3) + 2 * md.eye(3)
    for n in (-3, -1, 0, 1, 2, 5):
        want = md.linalg.matrix_power(x, n).numpy()
        with md.autocast():
            np.testing.assert_array_equal(md.linalg.matrix_power(x, n).numpy(), want)
            assert md.linalg.matrix_power(x.to(md.bfloat16), n).dtype is md.float32
            assert md.jit(lambda x, n=n: md.linalg.matrix_power(x, n))(x).dtype is md.float32
            slope = md.grad(lambda x, n=n: md.sum(md.linalg.matrix_power(x, n)))(x).numpy()
        np.testing.assert_array_equal(slope, md.grad(lambda x, n=n: md.sum(md.linalg.matrix_power(x, n)))(x).numpy())


def test_gradients_of_many_steps_are_added_up_in_the_dtype_of_the_parameter():
    w, x = md.ones((1, 1)), md.ones((600, 1, 1))
    grad = md.grad(lambda w: md.scan(lambda c, v: (c + md.sum(v @ w), None), md.tensor(0.0), x)[0])
    with md.autocast(dtype=md.bfloat16):  # in which 256 + 1 is 256
        assert grad(w).item() == md.jit(grad)(w).item() == 600.0


def test_other_dtypes_are_left_alone():
    wide, whole = data(3, 3, dtype="float64"), md.arange(9).reshape((3, 3))
    with md.autocast():
        assert (wide @ wide).dtype is md.float64 and md.exp(wide).dtype is md.float64 and (whole @ whole).dtype is md.int64
        assert (wide @ wide.to(md.float32)).dtype is md.float64 and md.sum(whole).dtype is md.int64
        z = md.asarray([[1j]])
        assert (z @ z).dtype is z.dtype


@pytest.mark.cpu
def test_blocks_nest_switch_off_decorate_and_end_with_errors():
    x = data(2, 2)

    @md.autocast(dtype=md.float16)
    def product(x):
        assert md.is_autocast_enabled()
        with md.autocast(enabled=False):
            assert (x @ x).dtype is md.float32 and not md.is_autocast_enabled()
            with md.autocast():
                assert (x @ x).dtype is md.bfloat16
        return x @ x

    assert product(x).dtype is md.float16 and product(x).dtype is md.float16
    block = md.autocast()
    with block, block:
        pass
    with pytest.raises(ZeroDivisionError), block:
        raise ZeroDivisionError
    assert not md.is_autocast_enabled() and (x @ x).dtype is md.float32
    with md.autocast("cuda"):
        assert (x @ x).dtype is md.float32  # which lies elsewhere
    with md.autocast("cpu"):
        assert (x @ x).dtype is md.bfloat16
    seen = []
    with md.autocast():  # a block is its thread's
        t = threading.Thread(target=lambda: seen.append((x @ x).dtype))
        t.start()
        t.join()
    assert seen == [md.float32]
    for call, error in ((lambda: md.autocast(dtype=md.float32), TypeError), (lambda: md.autocast("bfloat16"), ValueError)):
        with pytest.raises(error, match="autocast"):
            call()


def loss_of(w, v, x, y):
    return F.cross_entropy(F.relu(x @ w) @ v, y)


def test_gradients_arrive_in_float32_whatever_way_they_are_taken(backend):
    """Eager, functional, jitted, inside the block and outside: one answer; forward mode and second order too."""
    w, v, x, y = data(5, 6), data(6, 3, seed=1), data(7, 5, seed=2), md.asarray(np.arange(7) % 3)

    def f(w, v):
        with md.autocast():
            return loss_of(w, v, x, y)

    p, q = (md.tensor(a.numpy(), requires_grad=True) for a in (w, v))
    f(p, q).backward()
    want = p.grad.numpy(), q.grad.numpy()
    exact = md.grad(lambda w: loss_of(w, v, x, y))(w).numpy()
    assert p.grad.dtype is md.float32 and 0 < np.abs(want[0] - exact).max() < 0.03
    with md.autocast():
        inner = loss_of(p, q, x, y)
        p.grad = None
        inner.backward()
    found = [p.grad, md.jit(md.grad(f))(w, v)]
    if backend in ("numpy", "torch"):  # on the others each takes a second to compile, and the way is the same
        found += [md.grad(f)(w, v), md.autograd.grad(f(p, q), p, create_graph=True)[0]]
        found += inside_the_block(w, v, x, y, p, q, want[0])
    for g in found:
        assert g.dtype is md.float32
        np.testing.assert_allclose(g.detach().numpy(), want[0], rtol=2e-2, atol=2e-3)


def inside_the_block(w, v, x, y, p, q, want):
    with md.autocast():
        found = [md.grad(lambda w: loss_of(w, v, x, y))(w), md.jit(md.grad(lambda w: loss_of(w, v, x, y)))(w)]
        found.append(md.autograd.grad(loss_of(p, q, x, y), p, create_graph=True)[0])
    t = data(5, 6, seed=3)
    with md.autocast():
        _, slope = md.jvp(lambda w: loss_of(w, v, x, y), (w,), (t,))
    assert slope.dtype is md.float32 and abs(slope.item() - (want * t.numpy()).sum()) < 0.05
    each = md.vmap(lambda a, b: md.grad(lambda w: loss_of(w, v, a[None], b[None]))(w))
    with md.autocast():
        per = each(x, y)
    np.testing.assert_allclose(per.mean(axis=0).numpy(), want, rtol=3e-2, atol=3e-3)
    return found


def test_checkpoint_computes_again_in_the_dtype_of_the_first_time():
    w = md.tensor(data(4, 4).numpy(), requires_grad=True)
    seen = []

    def f(x):
        h = x @ w
        seen.append(h.dtype)
        return md.exp(h).sum()

    with md.autocast():
        out = md.checkpoint(f)(data(3, 4))
    out.backward()
    assert seen == [md.bfloat16, md.bfloat16] and w.grad.dtype is md.float32


def test_a_jitted_function_has_one_program_for_each_setting():
    f, x = md.jit(lambda x: (x @ x, md.exp(x))), data(3, 3)
    for _ in range(2):
        assert f(x)[0].dtype is md.float32
        with md.autocast():
            assert f(x)[0].dtype is md.bfloat16
            with md.autocast(dtype=md.float16):
                assert f(x)[0].dtype is md.float16
            with md.autocast(enabled=False):
                assert f(x)[0].dtype is md.float32
    assert f.compiles == 3
    with md.autocast():
        assert "bfloat16" not in repr(f.explain(x)) and f.compiles == 3


@pytest.mark.parametrize(("make", "shape"), [
    (lambda: nn.LSTM(3, 4), (5, 2, 3)), (lambda: nn.GRU(3, 4), (5, 2, 3)), (lambda: nn.LSTMCell(3, 4), (2, 3)),
    (lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (2, 3, 4)),
    (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)), (2, 1, 4, 4)),
    (lambda: nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(2, 8), nn.GELU(), nn.RMSNorm(8), nn.Linear(8, 2)), (6, 4)),
], ids=["lstm", "gru", "cell", "transformer", "cnn", "norms"])  # fmt: skip
@pytest.mark.parametrize("low", HALF)
def test_layers_run_and_stay_near(make, shape, low):
    md.manual_seed(0)
    net, x = make(), data(*shape)

    def run(x):
        out = net(x)
        return out[0] if isinstance(out, tuple) else out

    exact = run(x)
    for f in (run, md.jit(run)):
        with md.autocast(dtype=low):
            out = f(x)
        np.testing.assert_allclose(out.detach().to(md.float32).numpy(), exact.detach().numpy(), rtol=0.05, atol=0.05)
        out.to(md.float32).sum().backward()
        assert all(p.grad.dtype is md.float32 for p in net.parameters() if p.grad is not None)


# ---- GradScaler -------------------------------------------------------------------------------------------------------------------------
def scaled_run(lib, jit, losses, **kwargs):
    """Scales, parameters and trackers of a run whose gradients are given; inf among them."""
    p = lib.tensor(np.ones(2), requires_grad=True)
    opt = lib.optim.SGD([p], lr=0.1, momentum=0.9)
    scaler = lib.amp.GradScaler("cpu", **kwargs)

    def step(slope):
        opt.zero_grad()
        loss = (p * slope).sum()
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        return loss

    step, seen = jit(step), []
    for slope in losses:
        step(lib.asarray(slope, dtype=lib.float64))
        s = scaler.state_dict()
        seen.append((s["scale"], s["_growth_tracker"], *p.detach().numpy()))
    return np.array(seen), step


@pytest.mark.cpu
def test_the_scaler_takes_the_steps_of_torch():
    inf, nan = float("inf"), float("nan")
    slopes = [[1.0, 2.0], [0.5, inf], [1.0, 1.0], [nan, 1.0], [1.0, 0.0], [2.0, 1.0], [1.0, 1.0], [inf, nan], [1.0, 1.0], [3.0, 1.0], [1.0, 2.0]]
    settings = (
        {"init_scale": 8.0, "growth_interval": 2},
        {"init_scale": 2.0**127, "growth_factor": 4.0, "growth_interval": 1},
        {"backoff_factor": 0.25},
    )
    for kwargs in settings:
        theirs, _ = scaled_run(torch, lambda f: f, slopes, **kwargs)
        for jit in (lambda f: f, md.jit):
            ours, step = scaled_run(md, jit, slopes, **kwargs)
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, err_msg=str(kwargs))
        assert step.compiles <= 2


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_the_scaler_runs_on_every_backend(name):
    slopes = [[1.0, 2.0], [0.5, float("inf")], [1.0, 1.0]]
    want, _ = scaled_run(md, lambda f: f, slopes, init_scale=8.0, growth_interval=2)
    with md.use_backend(name):
        got, _ = scaled_run(md, md.jit, slopes, init_scale=8.0, growth_interval=2)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_unscaling_clipping_and_two_optimizers():
    p, q = (md.tensor([1.0], requires_grad=True) for _ in range(2))
    a, b, scaler = md.optim.SGD([p], lr=1.0), md.optim.SGD([q], lr=1.0), md.amp.GradScaler(init_scale=4.0, growth_interval=1)
    scaler.scale((p * 30.0 + q * float("inf")).sum()).backward()
    scaler.unscale_(a)
    assert p.grad.item() == 30.0
    nn.utils.clip_grad_norm_([p], 0.5)
    assert scaler.step(a) is None
    scaler.step(b)
    assert abs(p.item() - 0.5) < 1e-5 and q.item() == 1.0
    with pytest.raises(RuntimeError, match="step: called for the second time"):
        scaler.step(a)
    with pytest.raises(RuntimeError, match="after step"):
        scaler.unscale_(a)
    scaler.update()
    assert scaler.get_scale() == 2.0  # one of the two had overflowed
    with pytest.raises(RuntimeError, match="no step"):
        scaler.update()
    scaler.update(16.0)
    assert scaler.get_scale() == 16.0
    losses = scaler.scale({"a": p.sum(), "b": [q.sum()]})
    assert losses["b"][0].item() == 16.0
    with pytest.raises(RuntimeError, match="no gradients"):
        scaler.step(md.optim.SGD([md.tensor([1.0], requires_grad=True)]))


def test_a_scaler_saves_loads_copies_and_can_be_off():
    scaler = md.amp.GradScaler(init_scale=32.0)
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=7)
    scaler.load_state_dict(theirs.state_dict())
    assert scaler.state_dict() == theirs.state_dict() and scaler.get_growth_interval() == 7
    theirs.load_state_dict(scaler.state_dict())
    assert pickle.loads(pickle.dumps(scaler)).get_scale() == copy.deepcopy(scaler).get_scale() == 2.0
    off = md.amp.GradScaler(enabled=False)
    p = md.tensor([1.0], requires_grad=True)
    opt = md.optim.SGD([p], lr=1.0)
    off.scale(p.sum()).backward()
    off.step(opt)
    off.update()
    assert p.item() == 0.0 and off.state_dict() == {} and off.get_scale() == 1.0 and not off.is_enabled()
    with pytest.raises(RuntimeError, match="enabled=False"):
        scaler.load_state_dict({})
    for bad in ({"growth_factor": 1.0}, {"backoff_factor": 1.0}):
        with pytest.raises(ValueError, match="factor"):
            md.amp.GradScaler(**bad)
    with pytest.raises(TypeError, match="wanted Tensors, got float"):
        scaler.scale([2.0])
    half = md.tensor(np.ones(1, np.float16), requires_grad=True)
    scaler.scale(half.sum()).backward()
    with pytest.raises(ValueError, match="float16"):
        scaler.step(md.optim.SGD([half]))


# ---- policies ---------------------------------------------------------------------------------------------------------------------------
def test_a_policy_holds_for_a_model_or_one_layer():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    seen = {}
    for name, layer in net.named_children():
        layer.register_forward_hook(lambda m, args, out, name=name: seen.update({name: (args[0].dtype, out.dtype)}))
    off = md.amp.apply_policy(net, "params=float32,compute=bfloat16,output=float32")
    precise = md.amp.apply_policy(net[2], md.amp.Policy(compute_dtype=md.float32))
    x = data(5, 3)
    out = net(x)
    assert out.dtype is md.float32 and seen["0"] == (md.bfloat16, md.bfloat16) and seen["2"] == (md.float32, md.float32)
    out.sum().backward()
    assert all(p.dtype is p.grad.dtype is md.float32 for p in net.parameters())
    f = md.jit(net.forward.__self__)
    np.testing.assert_allclose(f(x).detach().numpy(), out.detach().numpy(), rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match="axis|inner|features|shape|dimension"):
        net(data(5, 7))
    assert not md.is_autocast_enabled()  # the block ends with an error too
    precise()
    off()
    net(x)
    assert seen["0"] == (md.float32, md.float32)
    half = nn.Linear(3, 4)
    md.amp.apply_policy(half, "bfloat16")
    assert half.weight.dtype is md.bfloat16 and half(x).dtype is md.bfloat16


def test_policies_have_names():
    of, P = md.amp.Policy.of, md.amp.Policy
    assert of("float32") == P(md.float32, md.float32, md.float32) and of("float64") == P(md.float64, md.float64, md.float64)
    assert of("mixed_float16") == P(md.float32, md.float16) and of("mixed_bfloat16") == P(md.float32, md.bfloat16, None)
    assert of("params=float64, compute=float16,output=bfloat16") == P(md.float64, md.float16, md.bfloat16)
    for bad in ("int8", "mixed_float32", "ones", "params=float99", "params=ones", "compute=int8", "params=float32,computes=float16"):
        with pytest.raises(ValueError, match="Policy"):
            of(bad)


# ---- training ---------------------------------------------------------------------------------------------------------------------------
def accuracy_of(low, backend="numpy", epochs=12):
    """A perceptron on the real digits, jitted."""
    images, labels = digits_arrays()
    x, y = images.reshape(-1, 64).astype(np.float32) / 16, labels.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:1400], order[1400:]
    md.manual_seed(0)
    with md.use_backend(backend):
        net = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 10))
        opt = md.optim.AdamW(net.parameters(), lr=3e-3)
        scaler = md.amp.GradScaler(enabled=low is md.float16, growth_interval=20)

        @md.jit
        def step(a, b):
            opt.zero_grad()
            with md.autocast(dtype=low or md.bfloat16, enabled=low is not None):
                loss = F.cross_entropy(net(a), b)
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()
            return loss

        for _ in range(epochs):
            for i in range(0, 1400, 100):
                step(md.asarray(x[train[i : i + 100]]), md.asarray(y[train[i : i + 100]]))
        assert all(p.dtype is md.float32 for p in net.parameters())
        return (net(md.asarray(x[test])).argmax(axis=1).numpy() == y[test]).mean()


def test_the_digits_train_as_well_in_low_precision():
    full = accuracy_of(None)
    assert full > 0.94
    for low in HALF:
        assert accuracy_of(low) > full - 0.01
    assert accuracy_of(md.bfloat16, "torch") > full - 0.01


@pytest.mark.parametrize("low", HALF)
def test_norms_by_running_statistics_give_back_the_dtype_of_their_input(low):
    """As torch's do, so that what stands between convolutions is low; statistics are float32, and those of a half module are updated, too."""
    native, x = getattr(torch, low.name), data(4, 3, 5).to(low)
    tx = torch.tensor(x.to(md.float32).numpy()).to(native)
    for name, options in (("BatchNorm1d", {}), ("InstanceNorm1d", {"affine": True, "track_running_stats": True})):
        ours, theirs = getattr(nn, name)(3, **options), getattr(torch.nn, name)(3, **options)
        for training in (True, False):
            ours.train(training), theirs.train(training)
            with torch.autocast("cpu", native):
                want = theirs(tx)
            with md.autocast(dtype=low):
                got = ours(x)
            assert got.dtype is low and want.dtype is native
            np.testing.assert_allclose(got.detach().to(md.float32).numpy(), want.detach().float().numpy(), rtol=2e-2, atol=2e-2)
        for (k, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-2 if low is md.bfloat16 else 1e-3, atol=1e-3, err_msg=k)
        half = getattr(nn, name)(3, **options).to(low)
        with md.autocast(dtype=low):
            assert half(x).dtype is low and md.jit(half)(x).dtype is low
        assert half.running_mean.dtype is low and (half.running_mean != 0).any().item()
        with md.autocast("cuda", low):
            assert ours(data(4, 3, 5)).dtype is md.float32


@pytest.mark.parametrize("low", HALF)
def test_activations_give_back_the_dtype_of_their_input(low):
    native, x = getattr(torch, low.name), data(4, 5).to(low)
    tx = torch.tensor(x.to(md.float32).numpy()).to(native)
    for name in ("elu", "selu", "celu", "mish", "logsigmoid", "silu", "gelu", "relu", "leaky_relu", "hardswish", "tanh", "sigmoid"):
        with torch.autocast("cpu", native):
            want = getattr(torch.nn.functional, name)(tx)
        with md.autocast(dtype=low):
            for f in (getattr(F, name), md.jit(getattr(F, name))):
                got = f(x)
                assert got.dtype is low and want.dtype is native, name
                np.testing.assert_allclose(got.to(md.float32).numpy(), want.float().numpy(), rtol=1e-2, atol=1e-2, err_msg=name)


def test_bilinear_maps_compute_in_the_widest_dtype():
    layer, a, b = nn.Bilinear(3, 4, 2), data(5, 3), data(5, 4, seed=1)
    want = layer(a, b).detach().numpy()
    with md.autocast():
        assert (layer(a, b).detach().numpy() == want).all() and layer(a.to(md.bfloat16), b).dtype is md.float32
        assert layer.bfloat16()(a.to(md.bfloat16), b.to(md.bfloat16)).dtype is md.bfloat16


#: What torch leaves in float32 on the CPU, and computes in the low dtype on CUDA.
ONLY_ON_CUDA = {"GRU", "GRUCell", "LSTMCell"}


@pytest.mark.parametrize("name", [n for n in FIRST if n != "AdaptiveLogSoftmaxWithLoss"])  # which torch's autocast cannot run
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.cpu
def test_every_layer_gives_the_dtypes_that_torchs_gives(name):
    """Eager and jitted, with the same values to a low dtype's precision; gradients of parameters are finite and stay in float32."""
    row = FIRST[name]
    options = combinations(row)[0]
    ours, theirs = (
        getattr(lib, name)(*row.args, **{k: wrap(v.astype("float32")) if isinstance(v, np.ndarray) else v for k, v in options.items()})
        for lib, wrap in ((nn, md.asarray), (torch.nn, torch.tensor))
    )
    ours.load_state_dict(theirs.state_dict())
    g = np.random.default_rng(0)
    arrays = [a.astype(np.float32) if a.dtype == np.float64 else a for a in (draw(s, g) for s in row.inputs)]
    with torch.autocast("cpu", torch.bfloat16):
        want = leaves(theirs(*map(torch.tensor, arrays)))
    inputs = [md.asarray(a) for a in arrays]
    kept = ours.state_dict()

    def run(*xs):
        with md.autocast("cpu", md.bfloat16):
            return leaves(ours(*xs))

    for f in (run, md.jit(run)):
        ours.load_state_dict(kept)
        got = f(*inputs)
        for a, b in zip(got, want, strict=True):
            if name not in ONLY_ON_CUDA:
                assert a.dtype.name == str(b.dtype).removeprefix("torch.")
            low, high = (np.asarray(v.detach().float().tolist()) if v is b else v.detach().to(md.float64).numpy() for v in (a, b))
            np.testing.assert_allclose(low, high, rtol=3e-2, atol=3e-2 * max(np.abs(high).max(initial=0), 1e-3))
    ours.load_state_dict(kept)
    if outs := [o for o in run(*inputs) if o.dtype.is_float and o.requires_grad]:
        sum((o.to(md.float32) ** 2).sum() for o in outs).backward()
        for p in ours.parameters():
            assert p.grad is None or (p.grad.dtype is md.float32 and np.isfinite(p.grad.numpy()).all())


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.cpu
def test_the_scale_follows_torchs_over_a_script_of_overflows(jitted):
    """Two optimizers, one of them clipped after unscale_; sixty steps with inf, nan and what overflows by the scale."""
    kinds = np.random.default_rng(0).choice(["fine", "inf", "nan", "big"], size=60, p=[0.8, 0.08, 0.06, 0.06])

    def path(lib):
        p, q = (lib.tensor(np.ones(n, np.float32), requires_grad=True) for n in (3, 2))
        first, second = lib.optim.Adam([p], lr=0.1), lib.optim.SGD([q], lr=0.1, momentum=0.9)
        scaler = lib.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4, growth_factor=3.0, backoff_factor=0.25)

        def step(x, y):
            first.zero_grad()
            second.zero_grad()
            scaler.scale((p * x).sum() ** 2 + (q * y).sum()).backward()
            scaler.unscale_(first)
            lib.nn.utils.clip_grad_norm_([p], 1.0)
            scaler.step(first)
            scaler.step(second)
            scaler.update()

        run, g, out = md.jit(step) if jitted and lib is md else step, np.random.default_rng(1), []
        for kind in kinds:
            x, y = g.normal(size=3).astype(np.float32), g.normal(size=2).astype(np.float32)
            x[0], y[1], y[0] = (np.inf if kind == "inf" else x[0]), (np.nan if kind == "nan" else y[1]), (3e38 if kind == "big" else y[0])
            run(lib.asarray(x), lib.asarray(y))
            state = scaler.state_dict()
            out.append((state["scale"], state["_growth_tracker"], *p.detach().tolist(), *q.detach().tolist()))
        return np.array(out)

    ours, theirs = path(md), path(torch)
    np.testing.assert_array_equal(ours[:, :2], theirs[:, :2])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert len(set(theirs[:, 0])) > 10 and np.isfinite(theirs).all()
