"""freeze, export and compare: what is shipped computes what the model computes."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

import numpy as np
import pytest

import minidl as md
from minidl import nn


class Net(nn.Module):
    """Layers whose graphs have windows, products, statistics and a choice of rows."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.pool, self.drop = nn.MaxPool2d(2, 2), nn.Dropout(0.5)
        self.fc1, self.norm2, self.fc2 = nn.Linear(4 * 4 * 4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.pool(nn.functional.relu(self.norm1(self.conv1(x))))
        x = nn.functional.relu(self.norm2(self.fc1(x.reshape((x.shape[0], -1)))))
        return nn.functional.softmax(self.fc2(self.drop(x)), dim=-1)


def trained(dtype=md.float32):
    """A Net whose statistics are no longer 0 and 1, in evaluation mode."""
    md.manual_seed(0)
    net = Net().to(dtype)
    for i in range(3):
        net(md.random.normal(md.random.key(i), (16, 1, 8, 8), dtype) * 2 + 1)
    return net.eval()


def inputs(n, dtype=md.float32):
    return md.random.normal(md.random.key(7), (n, 1, 8, 8), dtype)


# ---- freeze -------------------------------------------------------------------------------------------------------------------------------
def test_a_frozen_model_computes_the_same_with_less(backend):
    net, x = trained(md.float64), inputs(5, md.float64)
    fast = md.freeze(net)
    assert abs(fast(x) - net(x)).max().item() < 1e-13
    names = [e.primitive.name for e in fast.graph(x).equations]
    assert not {"rsqrt", "sub", "permute"} & set(names) and names.count("conv") == 1 and names.count("add") == 3
    assert fast(inputs(2, md.float64)).shape == (2, 3)
    inside = md.freeze(net)  # whose first call is inside jit
    assert abs(md.jit(lambda x: inside(x) * 2.0)(x) - net(x) * 2.0).max().item() < 1e-13
    before = fast(x)
    with md.no_grad():
        for p in net.parameters():
            p.assign(p * 0.0)
    assert (fast(x) == before).all().item() and (inside(x) == before).all().item()


@pytest.mark.cpu
def test_scales_and_shifts_in_any_order_go_into_the_weight():
    w = md.random.normal(md.random.key(0), (4, 3, 2), md.float64)
    c = md.random.normal(md.random.key(1), (4, 1), md.float64)
    x = md.random.normal(md.random.key(2), (2, 3, 6), md.float64)

    def conv(x):
        return nn.functional.conv1d(x, w)

    cases = {
        "chain": (lambda x: -((conv(x) - c) * c / (c + 3.0) + 1.0), ["conv", "add"]),
        "scale": (lambda x: conv(x) * c, ["conv"]),
        "one shift": (lambda x: conv(x) + c, ["conv", "add"]),
        "from the left": (lambda x: 2.0 * conv(x) + c, ["conv", "add"]),
        "over the constant": (lambda x: c / (conv(x) * c), ["conv", "div"]),
        "subtracted from": (lambda x: c - conv(x) * c, ["conv", "sub"]),
        "along another axis": (lambda x: conv(x) * md.arange(5.0, dtype=md.float64), ["conv", "mul"]),
        "used twice": (lambda x: (lambda y: y * c + y)(conv(x)), ["conv", "mul", "add"]),
        "with itself": (lambda x: (lambda y: y * y)(conv(x)), ["conv", "square"]),
    }
    for name, (f, want) in cases.items():
        fast = md.freeze(f)
        assert abs(fast(x) - f(x)).max().item() < 1e-12, name
        assert [e.primitive.name for e in fast.graph(x).equations] == want, name
    there = nn.Linear(3, 2).to(backend="torch")  # which is not the default
    for f in (lambda z: -there(z), lambda z: there(z) * 2.0 + 1.0, lambda z: (there(z), z * 0.0)):
        z = md.ones((4, 3), backend="torch")
        for a, b in zip(md.tree.leaves(md.freeze(f)(z)), md.tree.leaves(f(z)), strict=True):
            np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-5)
    y = md.random.normal(md.random.key(3), (5, 4), md.float64)
    row = md.random.normal(md.random.key(4), (6,), md.float64)
    v = md.random.normal(md.random.key(5), (6, 4), md.float64)
    for f in (lambda y: (y @ v.T + row) * row, lambda y: (y @ v.mT) * row - row * 2.0):
        fast = md.freeze(f)
        assert abs(fast(y) - f(y)).max().item() < 1e-12
        assert [e.primitive.name for e in fast.graph(y).equations] == ["dot_general", "add"]


def test_a_broadcast_constant_stays_small():
    row = md.arange(4.0)
    fast = md.freeze(lambda x: x + md.broadcast_to(row, (100_000, 4)))
    assert fast(md.zeros((100_000, 4))).shape == (100_000, 4) and fast.nbytes == 16


def test_a_function_that_draws_or_counts_is_refused(tmp_path):
    x, calls = md.ones((2, 3)), md.zeros(())

    def counts(x):
        calls.assign(calls + 1)
        return x * calls

    for f in (lambda x: nn.functional.dropout(x, 0.5, training=True), counts):
        with pytest.raises(ValueError, match=r"freeze: the function changes (uint32|float32)\["):
            md.freeze(f)(x)
        with pytest.raises(ValueError, match="export: the function changes"):
            md.export(f, (x,), tmp_path / "model.py")
    assert calls.item() == 0 and not list(tmp_path.iterdir())
    key = md.random.key(0)
    drawn = md.freeze(lambda x, key: x + md.random.normal(key, (2, 3)))
    assert drawn(x, key).tolist() != drawn(x, md.random.fold_in(key, 1)).tolist()


def test_what_is_frozen_has_its_dtypes_whoever_calls_it():
    model, x = nn.Linear(3, 2).eval(), md.ones((2, 3))
    want = model(x).detach().tolist()
    fast = md.freeze(model)
    graph = md.trace(lambda x: model(x).detach())(x)
    with md.autocast():
        assert fast(x).tolist() == want == md.freeze(model)(x).tolist() == graph(x, *graph.captured)[0].detach().tolist()
        assert model(x).dtype is md.bfloat16
    assert fast(x).tolist() == want
    low = md.freeze(md.autocast()(model))
    assert low(x).dtype is md.bfloat16 and len([e for e in low.graph(x).equations if e.primitive.name == "cast"]) == 1  # the input's


def test_a_training_model_is_refused():
    net = Net()
    for f in (md.freeze, lambda net: md.export(net, (inputs(2),), "x.py")):
        with pytest.raises(ValueError, match=r"the model is in training mode.*call model\.eval\(\) first"):
            f(net)


# ---- export -------------------------------------------------------------------------------------------------------------------------------
SCRIPT = """
import sys
import numpy as np
from model import predict
x = np.load("x.npy")
np.save("out.npy", predict(x))
assert not {"minidl", "torch", "jax", "numba", "scipy", "ml_dtypes"} & {m.partition(".")[0] for m in sys.modules}
"""


@pytest.mark.parametrize("where", ["numpy", "torch", "jax"])
def test_an_exported_model_needs_numpy_alone(tmp_path, where):
    with md.use_backend(where):
        net, x = trained(), inputs(4)
        file, npz = md.export(net, (x,), tmp_path / "model.py", dynamic_batch=True)
    stored = np.load(npz)
    assert {"conv1.weight", "norm1.running_var", "fc2.bias"} <= set(stored.files)
    assert np.array_equal(stored["fc1.weight"], net.fc1.weight.detach().numpy())
    text = file.read_text()
    assert "conv(x, conv1_weight" in text and "takes\n    x: float32[n, 1, 8, 8]" in text
    more = inputs(9)
    np.save(tmp_path / "x.npy", more.numpy())
    (tmp_path / "run.py").write_text(SCRIPT)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-W", "error", "run.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    want = net.to(backend="numpy")(more).detach().numpy()
    assert np.array_equal(np.load(tmp_path / "out.npy"), want)


def test_kernels_of_libraries_are_exported_where_numpy_is_not_in_use(tmp_path):
    script = """
import sys
import minidl as md
f = lambda x: (md.linalg.inv(x @ x.T + md.eye(3)), md.linalg.cholesky(x @ x.T + md.eye(3)), md.abs(md.fft.rfft(x)))
md.export(f, (md.asarray([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0], [3.0, 0.0, 1.0]]),), sys.argv[1])
"""
    path = tmp_path / "model.py"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, env={**os.environ, "MINIDL_BACKEND": "torch"})
    x = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0], [3.0, 0.0, 1.0]], np.float32)
    product = x @ x.T + np.eye(3, dtype=np.float32)
    wanted = np.linalg.inv(product), np.linalg.cholesky(product), abs(np.fft.rfft(x))
    for got, want in zip(runpy.run_path(str(path))["predict"](x), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_structures_names_and_wrong_arguments(tmp_path):
    w = md.tensor([1.0, 2.0])

    def both(pair, mask):
        return {"sum": pair["a"] * w + pair["b"][0], "kept": [md.where(mask, pair["a"], 0.0)]}

    args = ({"a": md.ones((2,)), "b": (md.zeros((2,)),)}, md.tensor([True, False]))
    file, _ = md.export(both, args, tmp_path / "both", name="run")
    assert file.name == "both.py"
    run = runpy.run_path(str(file))["run"]
    given = {"a": np.array([3.0, 4.0], np.float32), "b": (np.ones(2, np.float32),)}
    out = run(given, np.array([True, False]))
    assert out["sum"].tolist() == [4.0, 9.0] and out["kept"][0].tolist() == [3.0, 0.0]
    with pytest.raises(ValueError, match=r"run: a\['b'\]\[0\] is float64\[2\], and float32\[2\] is wanted"):
        run({**given, "b": (np.ones(2),)}, np.array([True, False]))
    with pytest.raises(TypeError, match="example arguments are tensors, and a float came"):
        md.export(both, (1.0,), tmp_path / "x.py")
    with pytest.raises(ValueError, match="could not be imported"):
        md.export(both, args, tmp_path / "my-model.py")
    with pytest.raises(ValueError, match="25, 36 and 49 for 5, 6 and 7 examples, which is not linear in their number"):
        md.export(lambda x: md.arange(x.shape[0] ** 2), (md.ones((2,)),), tmp_path / "x.py", dynamic_batch=True)
    with pytest.raises(ValueError, match=r"one first axis, and \(2,\), \(3,\) came"):
        md.export(lambda a, b: (a, b), (md.ones((2,)), md.ones((3,))), tmp_path / "x.py", dynamic_batch=True)


def test_one_tensor_as_two_arguments_and_namedtuples_as_tuples(tmp_path):
    x = md.tensor([[1.0, 5.0, 3.0], [3.0, 4.0, 0.5]])
    file, _ = md.export(lambda a, b: {"best": md.topk((a - b) * x, 2)}, (x, x), tmp_path / "best.py")
    other = md.ones((2, 3))
    got = runpy.run_path(str(file))["predict"]((x * 2).numpy(), other.numpy())["best"]
    assert type(got) is tuple and all(np.array_equal(g, w.numpy()) for g, w in zip(got, md.topk((x * 2 - other) * x, 2), strict=True))
    layer = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="export: the function returns tuple; return tensors in tuples, lists and dicts"):
        md.export(lambda x: (layer, x), (x,), tmp_path / "bad.py")


def test_products_and_writes_of_every_form_are_exported(tmp_path):
    """Two matrices with each axis of each in each place; and a write under no_grad, also to nothing."""
    x, y = (md.random.normal(md.random.key(i), (3, 3)) for i in range(2))
    forms = "ab,bc->ac ab,cb->ac ab,ac->bc ba,cb->ac ab,ab->a ab,ab->b ab,ba->a ab,ab-> ab,cd->abcd ab,ac->abc ab,b->a".split()

    def written(x):
        w = x * 1.0
        w.detach().mul_(2.0)
        return w

    def f(x, y):
        return [md.einsum(form, x, y[0] if form == "ab,b->a" else y) for form in forms] + [written(x)]

    file, _ = md.export(f, (x, y), tmp_path / "products.py")
    for got, want in zip(runpy.run_path(str(file))["predict"](x.numpy(), y.numpy()), f(x, y), strict=True):
        assert got.shape == want.shape and np.allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)
    file, _ = md.export(written, (x[:0],), tmp_path / "nothing.py")
    assert runpy.run_path(str(file))["predict"](x[:0].numpy()).shape == (0, 3)


def test_loops_and_frozen_models_are_exported(tmp_path):
    w = md.random.normal(md.random.key(0), (3, 3)) * 0.5

    def recur(h, xs):
        h, ys = md.scan(lambda h, x: (md.tanh(h @ w + x), h.sum()), h, xs)
        return md.while_loop(lambda v: v.sum() < 10.0, lambda v: v + 1.0, md.abs(h)), ys

    h, xs = md.zeros((3,)), md.random.normal(md.random.key(1), (5, 3))
    file, _ = md.export(recur, (h, xs), tmp_path / "recur.py")
    got = runpy.run_path(str(file))["predict"](h.numpy(), xs.numpy())
    for g, v in zip(got, recur(h, xs), strict=True):
        assert np.allclose(g, v.numpy(), rtol=1e-6)
    net, x = trained(), inputs(3)
    fast = md.freeze(net)
    file, _ = md.export(fast, (x,), tmp_path / "fast.py", dynamic_batch=True)
    got = runpy.run_path(str(file))["predict"](inputs(6).numpy())
    assert np.allclose(got, net(inputs(6)).detach().numpy(), atol=1e-6) and "rsqrt" not in file.read_text()


@pytest.mark.parametrize("name", ["sizes", "writes", "products", "positions", "numbers", "last", "nested", "running"])
def test_sizes_follow_the_number_of_examples(name, tmp_path):
    from test_onnx import SIZED, normal

    file, _ = md.export(SIZED[name], (normal(0, 3, 4),), tmp_path / "sized.py", dynamic_batch=True)
    predict = runpy.run_path(str(file))["predict"]
    for n in (2, 4, 7):
        x = normal(n, n, 4)
        for got, want in zip(md.tree.leaves(predict(x.numpy())), md.tree.leaves(SIZED[name](x)), strict=True):
            assert got.dtype == want.numpy().dtype
            np.testing.assert_allclose(got, want.numpy(), rtol=0 if want.backend == "numpy" else 1e-5)


def test_what_depends_on_the_number_of_examples_is_no_constant(tmp_path):
    """Neither what freeze would compute beforehand (zeros to begin with, a broadcast row), nor what the function makes of a size by itself."""
    cells = md.freeze(nn.LSTM(4, 5, batch_first=True).eval())
    row = md.freeze(lambda x: md.broadcast_to(md.arange(3.0), (x.shape[0], 3)) * 2.0 + x)
    for fast, small, large in ((cells, md.ones((2, 3, 4)), md.ones((5, 3, 4))), (row, md.ones((2, 3)), md.ones((5, 3)))):
        file, _ = md.export(fast, (small,), tmp_path / "fast.py", dynamic_batch=True)
        got = md.tree.leaves(runpy.run_path(str(file))["predict"](large.numpy()))
        assert all(np.allclose(g, w.detach().numpy(), atol=1e-6) for g, w in zip(got, md.tree.leaves(fast(large)), strict=True))
    weights = lambda x: x * md.asarray(np.full(x.shape[0], 0.5, np.float32))[:, None]
    with pytest.raises(ValueError, match=r"export: the constant f32\[5\] depends on the number of examples"):
        md.export(weights, (md.ones((2, 3)),), tmp_path / "x.py", dynamic_batch=True)
    md.export(weights, (md.ones((2, 3)),), tmp_path / "x.py")


def test_a_failing_export_leaves_the_files_that_were_there(tmp_path, monkeypatch):
    w, x = md.ones((2,)), md.ones((2,))
    file, npz = md.export(lambda x: x * w, (x,), tmp_path / "model.py")
    before = file.read_text(), npz.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            md.export(lambda x: x + w, (x,), tmp_path / "model.py")
    assert (file.read_text(), npz.read_bytes()) == before and sorted(os.listdir(tmp_path)) == ["model.npz", "model.py"]
    zeros = md.zeros((2,))
    md.export(lambda x: x * zeros, (x,), tmp_path / "other.py")
    npz.write_bytes((tmp_path / "other.npz").read_bytes())  # as a crash between the two files would leave them
    with pytest.raises(ValueError, match="not the constants of this program"):
        runpy.run_path(str(file))


# ---- compare ------------------------------------------------------------------------------------------------------------------------------
def test_a_report_says_size_time_and_accuracy():
    from minidl.deploy import compare

    net, x = trained(), inputs(4)
    found = compare(net, md.freeze(net), x, metric=lambda f: f(x).max().item(), repeat=2)
    assert found.nbytes[1] < found.nbytes[0] and found.largest_difference < 1e-5 and abs(found.metric[0] - found.metric[1]) < 1e-5
    lines = str(found).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["size", "time of a call", "metric", "largest difference"]


@pytest.mark.parametrize("before, after, wanted", [
    (lambda x: (x, x), lambda x: (x + 0.5, x * np.nan), np.nan), (lambda x: (x * np.nan, x), lambda x: (x, x + 0.5), np.nan),
    (lambda x: x * np.inf, lambda x: x * np.inf, 0.0), (lambda x: x * np.inf, lambda x: x, np.inf), (lambda x: x * np.nan, lambda x: x * np.nan, 0.0),
    (lambda x: x[:0], lambda x: x[:0], 0.0), (lambda x: x + 0j, lambda x: x + 1j, 1.0), (lambda x: x, lambda x: (x - 2.0).to(backend="torch"), 2.0),
    (lambda x: x > 0, lambda x: x < 0, 1.0), (lambda x: x.to(md.bfloat16), lambda x: x.to(md.int32) * 3, 2.0), (lambda x: (), lambda x: (), 0.0),
])  # fmt: skip
def test_a_difference_of_any_outputs_is_seen(before, after, wanted):
    from minidl.deploy import compare

    np.testing.assert_equal(compare(before, after, md.ones((2, 3)), repeat=1).largest_difference, wanted)


class Named(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name
        self.register_buffer(name, md.full((3, 3), 2.0))

    def forward(self, x):
        return md.where(md.softmax(md.matmul(x, self.get_buffer(self.name)), axis=-1) > 0.1, x, md.empty((2, 3)) * 0.0) + md.tanh(x).max()


@pytest.mark.parametrize("name", ["where", "softmax", "np", "len", "empty", "lambda", "x", "out0", "_program"])
def test_a_buffer_may_have_the_name_of_a_kernel(name, tmp_path):
    net, x = Named(name).eval(), md.arange(6.0).reshape(2, 3)
    file, _ = md.export(net, (x,), tmp_path / "model.py")
    np.testing.assert_allclose(runpy.run_path(str(file))["predict"](x.numpy()), net(x).numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["np", "len", "_taken", "_program", "_constants", "zlib", "softmax", "lambda"])
def test_a_name_that_the_file_needs_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="export: .*name"):
        md.export(lambda x: md.softmax(x, axis=-1), (md.ones(3),), tmp_path / "model.py", name=name)
    assert not list(tmp_path.iterdir())
    file, _ = md.export(lambda x: md.tanh(x) + 1.0, (md.ones(3),), tmp_path / "model.py", name="tanh")
    np.testing.assert_allclose(runpy.run_path(str(file))["tanh"](np.ones(3, np.float32)), np.tanh(np.float32(1.0)) + 1.0)
