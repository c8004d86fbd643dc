"""ONNX files: onnxruntime computes what the model computes, operation by operation and model by model."""

from __future__ import annotations

import math
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

import minidl as md
from minidl import nn
from minidl.deploy import export_onnx
from minidl.deploy.onnx_operations import OPERATIONS
from minidl.nn import functional as F


def run(file, *arrays):
    """What onnxruntime computes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a.numpy() for i, a in zip(session.get_inputs(), arrays, strict=True)})


def same(f, args, folder, more=None, tolerance=2e-6):
    """Export f for args, run the file on `more` (default: args), compare shapes, dtypes and values; the file's nodes."""
    file = export_onnx(f, args, folder / "model.onnx", dynamic_batch=more is not None)
    with md.no_grad():
        want = [w.numpy() for w in md.tree.leaves(f(*(more or args)))]
    for g, w in zip(run(file, *(more or args)), want, strict=True):
        assert g.dtype == w.dtype and g.shape == w.shape
        g, w = (v.astype(np.float64) if v.dtype == np.float16 else v for v in (g, w))
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance * max(1.0, np.abs(w[np.isfinite(w)]).max(initial=0.0)))
    return [n.op_type for n in onnx.load(file).graph.node]


def normal(seed, *shape):
    return md.random.normal(md.random.key(seed), shape)


def reduced(name):
    f = getattr(md, name)
    return lambda x: (f(x, axis=1), f(x, axis=(0, 2), keepdims=True), f(x))


# ---- operations -----------------------------------------------------------------------------------------------------------------------------
X = md.tensor([-2.5, -1.5, -0.5, -1e-4, 0.0, 1e-4, 0.3, 0.5, 1.5, 2.5, 60.0, -60.0])
P, U, B = md.abs(X) + 0.25, md.tanh(X) * 0.9, X > 0.2
I, J, K = md.tensor([-7, 7, -8, 5, 0]), md.tensor([2, -2, 3, -5, 4]), md.tensor([7, 4_294_967_295, 65_536, 5, 0], dtype=md.uint32)
M, T = normal(0, 3, 4, 5), normal(1, 2, 3, 6, 6)
INF = float("inf")
ENDS = md.tensor([1.0, -1.0, 0.0, 5.0, INF, -INF, INF - INF])
LOW = md.tensor([-(2**31), -7, -1, 0, 1, 7, 2**31 - 1], dtype=md.int32)
SIGNED = md.tensor([0.0, -0.0, 1.5, -2.5, INF, -INF, INF - INF, 1e30, 1e-30, -1e30])
FAR = [s * (2.0**n + d) for n in (7, 8, 15, 16, 31, 32, 63, 64) for d in (-1.5, 0) for s in (1, -1)]
FAR = md.tensor([INF, -INF, INF - INF, *FAR], dtype=md.float64)
MASKED = md.tensor([[0.5, -INF, 2.0], [-INF, -INF, -INF], [1.0, 2.0, 3.0]])

#: For each primitive that can be written: functions and arguments whose programs have it.
CASES: dict[str, list] = {
    **{n: [(getattr(md, n), X)]
    for n in "exp sin cos tan atan sinh cosh tanh asinh sigmoid erf relu floor ceil round abs sign expm1 isfinite".split()},
    **{n: [(getattr(md, n), P)] for n in "log sqrt rsqrt log2 log10 log1p".split()},
    **{n: [(getattr(md, n), U)] for n in "asin acos atanh".split()},
    **{n: [(getattr(md, n), X), (getattr(md, n), ENDS), (getattr(md, n), U.to(md.float64))] for n in "erfc erfinv lgamma digamma".split()},
    "acosh": [(lambda x: md.acosh(x + 1.0), P)], "neg": [(lambda x: -x, X), (lambda i: -i, I), (lambda k: -k, K)], "trunc": [(md.trunc, X)],
    "softplus": [(F.softplus, X)],
    "isnan": [(md.isnan, X / X), (md.isnan, I)], "isinf": [(md.isinf, ENDS), (md.isinf, ENDS.to(md.float16)), (md.isinf, K)],
    "gelu": [(F.gelu, X), (lambda x: F.gelu(x, "tanh"), X)],
    "add": [(lambda x, y: x + y, X, P), (lambda i, j: i + j, I, J), (lambda k: k + k, K), (lambda x: x + 1.5, M)],
    "sub": [(lambda x, y: x - y, X, P), (lambda k: 5 - k, K)], "mul": [(lambda x, y: x * y, X, P), (lambda k: k * k[::-1], K), (lambda i: i * 2, I)],
    "square": [(lambda i: i.to(md.int8) ** 2, I * 3), (md.square, X)],
    "div": [(lambda x, y: x / y, X, P)], "pow": [(lambda x, y: y**x, U, P), (lambda x: x**3, X)],
    "maximum": [(md.maximum, X, U)], "minimum": [(md.minimum, X, U)], "clip": [(lambda x: md.clip(x, -1.0, 2.0), X), (lambda i: md.clip(i, 0, 5), I),
    (lambda x: md.clip(x, 0.5), X)],
    "remainder": [(lambda i, j: i % j, I, J), (lambda x, y: x % y, X, md.where(B, 0.7, -0.7)), (lambda i, j: i % j, LOW[:, None], LOW)],
    "floor_divide": [(lambda i, j: i // j, I, J),
    (lambda x: x // 0.75, X), (lambda x, y: x // y, ENDS[:, None], ENDS), *((lambda i, j: i // j, v[:, None], v) for v in (LOW, LOW.to(md.int16), K)),
    (lambda i: (i // 3, i // -1, i // 0), LOW)],
    "atan2": [(md.atan2, SIGNED[:, None], SIGNED)], "hypot": [(md.hypot, SIGNED[:, None], SIGNED), (md.hypot, P * 1e30, P * 1e30)],
    "logaddexp": [(md.logaddexp, ENDS[:, None], ENDS), (md.logaddexp, X[:, None], X)], "xlogy": [(md.xlogy, SIGNED[:, None], md.abs(SIGNED))],
    "fmax": [(md.fmax, ENDS[:, None], ENDS), (md.fmax, I.to(md.int16), J.to(md.int16))], "fmin": [(md.fmin, ENDS[:, None], ENDS)],
    "copysign": [(md.copysign, P, X)], "signbit": [(md.signbit, md.tensor([1.0, -0.0, 0.0, -2.0, INF, -INF])), (md.signbit, I), (md.signbit, K)],
    **{n: [(getattr(md, m), X, U)] for n, m in (("eq", "equal"), ("ne", "not_equal"), ("lt", "less"), ("le", "less_equal"), ("gt", "greater"),
                                                ("ge", "greater_equal"))},
    "logical_and": [(md.logical_and, B, X < 1)], "logical_or": [(md.logical_or, B, X < 0)], "logical_xor": [(md.logical_xor, B, X < 1)],
    "logical_not": [(md.logical_not, B)],
    "bitwise_and": [(lambda i, j: i & j, I, J)], "bitwise_or": [(lambda i, j: i | j, I, J)], "bitwise_xor": [(lambda i, j: i ^ j, I, J)],
    "bitwise_invert": [(lambda i: ~i, I)], **{f"shift_{n}": [(f, K), (f, I), (f, I.to(md.int8)), (f, K.to(md.uint16))]
    for n, f in (("left", lambda k: k << md.full_like(k, 3)), ("right", lambda k: k >> md.full_like(k, 3)))},
    "where": [(lambda b, x: md.where(b, x, -x), B, X), (lambda b, c: md.where(b, c, ~c), B, X < 0), (lambda k: md.where(k > 9, k, 2), K)],
    "cast": [(lambda x: tuple(x.to(d) for d in md.dtypes.all_dtypes if d.is_integer), v) for v in (FAR, FAR.to(md.float32), FAR.to(md.float16))]
    + [(lambda x: x.to(md.int32), X), (lambda x: x.to(md.bool), X), (lambda b: b.to(md.float64), B), (lambda x: x.to(md.float16), X)],
    "full": [(lambda x: (x + 1, md.full((2, 3), 7.0)), X)], "iota": [(lambda x: (x, md.arange(5)), X)],
    "reshape": [(lambda x: x.reshape(5, -1), M), (lambda x: x[:0].reshape(5, 0), M)], "permute": [(lambda x: md.permute_dims(x, (2, 0, 1)), M)],
    "broadcast_to": [(lambda x: md.broadcast_to(x[:, None], (12, 3)), X)], "flip": [(lambda x: md.flip(x, axis=(0, 2)), M)],
    "slice": [(lambda x: x[1:, ::2, -1:], M)], "pad": [(lambda x: F.pad(x, (1, 2, 0, 1), value=3.0), M)],
    "concat": [(lambda x: md.concat([x, x[:, :1]], axis=1), M)],
    "tril": [(lambda x: md.tril(x, k=1), M)], "triu": [(lambda x: md.triu(x, k=-1), M)],
    "dot_general": [(lambda x: x @ x.mT, M), (lambda x: md.tensordot(x, x, axes=((0, 2), (0, 2))), M), (lambda x: x[0, 0] @ x[0, 1], M),
    (lambda x: md.einsum("abc,bd->adc", x, md.ones((4, 2))), M), (lambda x: x @ md.ones((5, 2)), M), (lambda x: x[0, 0] @ md.ones((5, 2)), M),
    (lambda x: md.einsum("abc,abd->bdc", x, x), M)],
    "dot_int8": [(md.matmul_int8, md.tensor([[127, -128]], dtype=md.int8), md.tensor([[-128, -128], [127, 3]], dtype=md.int8))],
    "conv": [(lambda t: F.conv2d(t, md.ones((4, 3, 3, 2)), None, (2, 1), (1, 0), (1, 2)), T),
    (lambda t: F.conv2d(t, t[0, :, None, :2, :2], groups=3), T),
    (lambda t: F.conv1d(t[0], md.ones((2, 6, 3))), T)],
    "conv_dx": [(lambda t: F.conv_transpose2d(t, md.ones((3, 2, 3, 3)), None, 2, 1, 1), T),
    (lambda t: F.conv_transpose1d(t[0], md.ones((6, 1, 2)), groups=6), T)],
    "max_pool": [(lambda t: F.max_pool2d(t, 2), T), (lambda t: F.max_pool2d(t, 3, 2, 1), T), (lambda t: F.max_pool1d(t[0], 2), T)],
    **{n: [(reduced(n), M)] for n in ("sum", "max", "min", "prod")},
    "any": [(lambda x: (md.any(x > 1, axis=1), md.any(x[:, :0] > 1, axis=1)), M)],
    "all": [(lambda x: (md.all(x < 1, axis=-1, keepdims=True), md.all(x[:, :0] < 1, axis=1)), M)],
    "argmax": [(lambda x: md.argmax(x, axis=1), M), (md.argmax, I)], "argmin": [(lambda x: md.argmin(x, axis=1, keepdims=True), M)],
    "argsort": [(lambda x: (md.sort(x, axis=1), md.argsort(x, axis=-1, descending=True)), M), (lambda i: md.argsort(i // 4, stable=True), I)],
    "cumsum": [(lambda x: md.cumulative_sum(x, axis=1), M)], "softmax": [(lambda x: F.softmax(x, -1), MASKED), (lambda x: F.softmax(x, 0), M)],
    "log_softmax": [(lambda x: F.log_softmax(x, -1), MASKED)],
    "layer_norm": [(lambda x: F.layer_norm(x, (4, 5), md.ones((4, 5)) * 2, md.ones((4, 5))), M), (lambda x: F.layer_norm(x, (5,)), M)],
    "gather": [(lambda x, i: x[i], X, I), (lambda x, i: x[i, 1:], M, md.tensor([[2, -1], [0, 0]]))],
    **{f"cum{n}": [(lambda x, f=f: (f(x, axis=1), f(x * 2, axis=0)), M), (f, X[:4])]
       for n, f in (("prod", md.cumulative_prod), ("max", md.cumulative_max), ("min", md.cumulative_min), ("logsumexp", md.cumulative_logsumexp))},
    "put_along": [(md.grad(lambda x: (md.take_along_axis(x, md.tensor([[[1, 1, 0, -1, 2]]]), axis=1) ** 2).sum()), M)],
    "take_along": [(lambda x: md.take_along_axis(x, md.argsort(x, axis=1), axis=1), M)],
    "scatter": [(lambda x: x.at[md.tensor([1, 0, 1])].add(1.0), M), (lambda x: x.at[md.tensor([0, 0])].max(9.0), M)],
    "unslice": [(lambda x: x.at[1].set(0.5), M), (lambda x: x.at[:, 1:3, -1].add(2.0), M)],
    "scan": [(lambda x: md.scan(lambda c, r: (c * 0.5 + r, c.sum()), md.zeros((4, 5)), x, reverse=True), M),
             (lambda x: md.fori_loop(0, 4, lambda i, v: v * 0.5 + i, x), M)],
    "while_loop": [(lambda x: md.while_loop(lambda v: v.sum() < 50.0, lambda v: v + md.abs(x), x), M)],
    "cond": [(lambda i, x: md.switch(i, [lambda v: v + 1, lambda v: v * 2, lambda v: (v * x).sum() + v], x), md.tensor(i), M)
    for i in (-1, 0, 1, 2, 5)]
    + [(lambda x: md.cond(x.sum() > 0, lambda v: (v, v * 2), lambda v: (v - 1, v), x), M)],
}  # fmt: skip


def test_the_tails_of_erfc_and_the_ends_of_erfinv_keep_their_digits(tmp_path):
    x = md.tensor([0.6, 3.0, 6.0, 9.0, 25.0], dtype=md.float64)
    y = md.tensor([1e-20, 0.3, 0.9, -0.999999, 1 - 1e-12], dtype=md.float64)
    file = export_onnx(lambda x, y: (md.erfc(x), md.erfinv(y)), (x, y), tmp_path / "f.onnx")
    for got, want, digits in zip(run(file, x, y), (md.erfc(x), md.erfinv(y)), (2e-7, 1e-12), strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=digits, atol=0)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_each_operation(name, tmp_path):
    for f, *args in CASES[name]:
        traced = md.trace(f)(*args).expand(OPERATIONS)
        assert any(e.primitive.name == name for e in traced.walk()), f"the case has no {name}: {traced}"
        same(f, tuple(args), tmp_path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int16"])
def test_narrow_integers_are_negated_around_their_ends(dtype, tmp_path):
    x = md.tensor([0, 1, 100, 127, 3], dtype=getattr(md, dtype))
    same(lambda v: (-v, -(v + v)), (x,), tmp_path)


def test_dtypes_that_the_runtime_has_no_kernels_for(tmp_path):
    """As onnxruntime computes them: bool, and integers of 8, 16 and unsigned 64 bits, also around their ends."""
    b, c = md.tensor([True, False, True, False]), md.tensor([True, True, False, False])
    two = (md.add, md.multiply, md.maximum, md.minimum, md.less, md.less_equal, md.greater, md.greater_equal, md.equal)
    same(lambda b, c: ([f(b, c) for f in two], md.sort(b), md.argsort(b), b[None] @ c[:, None], md.isnan(b), md.signbit(b)), (b, c), tmp_path)
    for name in ("int8", "int16", "uint8", "uint16", "uint32", "uint64"):
        dtype = getattr(md, name)
        top = md.iinfo(dtype).max
        x, y = md.asarray(np.array([0, 1, 7, top], dtype=name)), md.asarray(np.array([3, 0, 2, 1], dtype=name))
        z = -x if name.startswith("int") else x
        parts = [lambda x, y: (md.sum(x), md.prod(x), md.cumulative_sum(x), md.where(x > y, x, y), md.maximum(x, y), md.relu(x), x // y, x % y)]
        parts += [lambda x, y: (x[None] @ y[:, None],)] * (name not in ("uint32", "uint64")) + [lambda x, y: (md.sort(x),)] * (name != "uint64")
        parts += [lambda x, y: (y**y,)]
        for f in parts:
            same(f, (x, y), tmp_path)
            same(f, (z, y), tmp_path)


def test_half_precision_at_its_ends(tmp_path):
    x = md.tensor([6e4, -6e4, 100.0, -100.0, 11.0, INF, -INF, INF - INF, 0.0, -0.5])
    for dtype in (md.float16, md.float64):
        same(lambda x: (F.softplus(x), md.isinf(x), md.isfinite(x), md.isnan(x), md.logaddexp(x, x)), (x.to(dtype),), tmp_path, tolerance=1e-3)


def test_signs_of_zeros_stay(tmp_path):
    y = SIGNED[~md.isnan(SIGNED)]
    x = y[:, None]
    file = export_onnx(lambda x, y: (md.copysign(x, y), md.atan2(x, y)), (x, y), tmp_path / "f.onnx")
    for got, want in zip(run(file, x, y), (md.copysign(x, y), md.atan2(x, y)), strict=True):
        assert np.array_equal(np.signbit(got), np.signbit(want.numpy()))
    whole, by = md.tensor([[-0.0], [0.0], [0.5], [-0.5], [3.0]]), md.tensor([1.0, -1.0, 0.5, -0.25])
    file = export_onnx(lambda x, y: (md.trunc(x), x % y), (whole, by), tmp_path / "f.onnx")
    for got, want in zip(run(file, whole, by), (md.trunc(whole), whole % by), strict=True):
        assert np.array_equal(np.signbit(got), np.signbit(want.numpy()))


def test_small_numbers_keep_their_digits(tmp_path):
    x = md.tensor([1e-7, -1e-7, 3e-4, -0.3, 0.9, 5.0, 80.0, -20.0, 0.0])
    file = export_onnx(lambda x: (md.expm1(x), md.log1p(md.abs(x)), F.softplus(x)), (x,), tmp_path / "f.onnx")
    for got, want in zip(run(file, x), (np.expm1, lambda v: np.log1p(abs(v)), lambda v: np.logaddexp(0, v)), strict=True):
        np.testing.assert_allclose(got, want(x.numpy().astype(np.float64)).astype(np.float32), rtol=1e-6)


# ---- models ---------------------------------------------------------------------------------------------------------------------------------
class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm, self.conv2, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1), nn.Linear(54, 5)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.5)

    def forward(self, x):
        x = self.conv2(F.relu(self.norm(self.pool(self.conv1(x)))))
        return F.softmax(self.fc(self.drop(x.view(-1, 54))), dim=1)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.fc = nn.Embedding(50, 8, padding_idx=0), nn.Linear(8, 3)

    def forward(self, x):
        count = (x != 0).sum(axis=1, keepdims=True).to(md.float32)
        return self.fc(F.relu((self.embedding(x) * (x != 0)[..., None]).sum(axis=1) / count**0.5))


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.embedding, self.cells = nn.Embedding(50, 4), kind(4, 5, batch_first=True, **options)

    def forward(self, x):
        return self.cells(self.embedding(x))[0]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(50, 8), nn.Embedding(7, 8)
        self.block, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), nn.Linear(8, 50)

    def forward(self, x):
        x = self.token(x) + self.position(md.arange(x.shape[1]))
        q = x.reshape((x.shape[0], 7, 2, 4)).permute(0, 2, 1, 3)
        y = F.scaled_dot_product_attention(q, q, q, is_causal=True)
        return self.head(self.block(x + y.permute(0, 2, 1, 3).reshape((x.shape[0], 7, 8))))


def words(n):
    return md.asarray(np.random.default_rng(n).integers(1, 50, (n, 7)))


def images(n):
    return normal(n, n, 1, 8, 8)


def drawn(x, key):
    return x + md.random.normal(key, (x.shape[0], 7)), md.random.bernoulli(key, 0.3, (4,)), md.random.permutation(key, 6)


def calibrated():
    observed = md.quantize.prepare(Convolutional().eval())
    observed(images(8))
    return md.quantize.convert(observed)


MODELS = {
    "convolutional": (Convolutional, images, {"Conv", "MaxPool", "MatMul"}), "frozen": (lambda: md.freeze(Convolutional().eval()), images, {"Conv"}),
    "8 bits": (lambda: md.quantize.dynamic(Convolutional().eval(), (nn.Linear, nn.Conv2d)), images, {"MatMulInteger"}),
    "8 bits, static": (calibrated, images, {"MatMulInteger"}),
    "words": (Words, words, {"Gather"}), "words in 8 bits": (lambda: md.quantize.dynamic(Words().eval()), words, {"MatMulInteger", "Gather"}),
    "LSTM": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), words, {"Scan"}), "GRU": (lambda: Recurrent(nn.GRU), words, {"Scan"}),
    "frozen LSTM": (lambda: md.freeze(Recurrent(nn.LSTM).eval()), words, {"Scan"}),
    "frozen attention": (lambda: md.freeze(Attention().eval()), words, {"Softmax"}),
    "attention": (Attention, words, {"Softmax", "LayerNormalization"}),
    "resampling": (lambda: nn.Sequential(nn.ConvTranspose2d(1, 4, 3, 2), nn.Upsample(scale_factor=2), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(5)),
                   images,
                   {"ConvTranspose"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_for_any_number_of_examples(name, tmp_path):
    md.manual_seed(0)
    make, examples, operations = MODELS[name]
    model = make()
    model = model.eval() if isinstance(model, nn.Module) else model
    assert operations <= set(same(model, (examples(2),), tmp_path, more=(examples(5),)))
    same(model, (examples(3),), tmp_path)


#: Programs in which sizes that depend on the number of examples come in other places than the first axis.
SIZED = {
    "sizes": lambda x: (x.reshape(-1, 2), x.T, md.concat([x, x]), md.stack([x, x]), x[:, None] * x, md.repeat(x, 3, axis=0), md.flip(x), x[1:-1]),
    "writes": lambda x: (x.at[0].add(1.0), x.at[1:, 1].set(0.0), x.at[-1].set(2.0), x.at[:-1].add(x[1:])), "products": lambda x: md.tril(x @ x.T),
    "positions": lambda x: (x + md.arange(x.shape[0])[:, None], md.eye(x.shape[0]), md.argsort(x, axis=0), x[md.argmax(x, axis=1) % x.shape[0]]),
    "numbers": lambda x: (x.mean(), x.mean(axis=0), x.std(axis=0), x * x.shape[0], x - 2 * x.shape[0], F.mse_loss(x, x[::-1]), x[:, :2].var(),
                          md.full((2,), float(x.shape[0])), md.arange(x.shape[0]) // x.shape[0]),
    "last": lambda x: (x[md.arange(x.shape[0]), md.argmax(x, axis=1) - 1], x[md.argmin(x, axis=1) % x.shape[0] - 1],
                       md.take_along_axis(x, md.argsort(x), axis=1)),
    "nested": lambda x: md.map(lambda r: md.concat([r, r]).reshape(-1) * r.mean() + r.shape[0], md.stack([x, x * 2.0, x - 1.0])),
    "running": lambda x: (md.cumulative_prod(x, axis=1), md.cumulative_max(x, axis=0), md.scan(lambda c, r: (c + r, c), md.zeros(4), x)[1]),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZED)
def test_sizes_follow_the_number_of_examples(name, tmp_path):
    for n in (2, 4, 7):
        same(SIZED[name], (normal(0, 3, 4),), tmp_path, more=(normal(n, n, 4),))


def test_no_examples_at_all(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)).eval()
    same(lambda x: (model(x), md.cumulative_prod(model(x), axis=1)), (images(2),), tmp_path, more=(images(2)[:0],))


ACTIVATIONS = """ReLU ReLU6 ELU SELU CELU SiLU Mish Hardswish Hardsigmoid Hardtanh Hardshrink Softshrink Tanhshrink LeakyReLU LogSigmoid PReLU
Softsign Softmin GLU""".split()
LINE, PLANE, SPACE = (3, 4, 8), (3, 4, 8, 8), (3, 2, 4, 4, 4)
LAYERS = {
    **{n: (lambda n=n: getattr(nn, n)(*((-1,) if n == "Softmin" else ())), LINE) for n in ACTIVATIONS},
    "circular": (lambda: nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), LINE), "Conv3d": (lambda: nn.Conv3d(2, 3, 3, 2, 1), SPACE),
    "reflected": (lambda: nn.Conv2d(4, 6, 3, padding="same", padding_mode="reflect"), PLANE), "MaxPool3d": (lambda: nn.MaxPool3d(2), SPACE),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, output_padding=1), LINE), "MaxPool1d": (lambda: nn.MaxPool1d(2), LINE),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2), PLANE), "dilated": (lambda: nn.MaxPool2d(3, 1, 1, dilation=2), PLANE),
    "ceil": (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), PLANE), "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), PLANE),
    "AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d(3), PLANE), "BatchNorm3d": (lambda: nn.BatchNorm3d(2), SPACE),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True), PLANE), "RMSNorm": (lambda: nn.RMSNorm(8), LINE),
    "bicubic": (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), PLANE), "PixelShuffle": (lambda: nn.PixelShuffle(2), PLANE),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 2)), PLANE), "RNN": (lambda: nn.RNN(8, 5, nonlinearity="relu", batch_first=True), LINE),
    "projected": (lambda: nn.LSTM(8, 6, proj_size=3, batch_first=True), LINE), "padded": (lambda: nn.ReflectionPad2d(1), PLANE),
    "MultiheadAttention": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), LINE),
}  # fmt: skip


def test_layers_for_any_number_of_examples(tmp_path):
    md.manual_seed(0)
    for make, shape in LAYERS.values():
        x = normal(5, *shape)
        same(make().eval(), (x[:2],), tmp_path, more=(x,), tolerance=5e-6)


@pytest.mark.parametrize("where", ["numba", "torch", "jax"])
def test_the_file_of_every_backend(where, tmp_path):
    md.manual_seed(0)
    with md.use_backend(where):
        same(Words().eval(), (md.asarray(words(3).numpy()),), tmp_path)


def test_random_numbers_are_minidls(tmp_path):
    x, key = md.zeros((3, 7)), md.random.key(11)
    file = export_onnx(drawn, (x, key), tmp_path / "draws.onnx")
    for k in (key, md.random.key(12)):
        got, (noise, coins, order) = run(file, x, k), drawn(x, k)
        np.testing.assert_allclose(got[0], noise.numpy(), rtol=1e-5, atol=1e-6)
        assert got[1].tolist() == coins.tolist() and got[2].tolist() == order.tolist()


def test_names_sizes_and_weights_of_the_file(tmp_path):
    def both(pair, y):
        return {"sum": pair["a"] + y, "rows": md.arange(y.shape[0]), "next": [y.reshape((-1,))]}

    args = ({"a": md.ones((2, 3))}, md.zeros((2, 3)))
    file = export_onnx(both, args, tmp_path / "both", dynamic_batch=True)
    assert file.name == "both.onnx"
    graph = onnx.load(file).graph
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)}
    assert shapes == {"a_a": ["n", 3], "b": ["n", 3], "out0": ["3 * n"], "out1": ["n"], "out2": ["n", 3]}
    got = run(file, md.ones((4, 3)), md.ones((4, 3)))
    assert [g.shape for g in got] == [(12,), (4,), (4, 3)] and got[1].tolist() == [0, 1, 2, 3]
    model = md.quantize.dynamic(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)))
    small = export_onnx(model, (md.ones((1, 64)),), tmp_path / "small.onnx")
    held = {i.name: i.data_type for i in onnx.load(small).graph.initializer}
    assert held["0.weight_int8"] == held["2.weight_int8"] == onnx.TensorProto.INT8 and small.stat().st_size < 0.35 * 4 * 2 * 64 * 64


def test_names_that_the_user_gives(tmp_path):
    model = nn.Linear(3, 2).eval()
    file = export_onnx(model, (md.ones((1, 3)),), tmp_path / "f.onnx", input_names=["pixels"], output_names=["shape_1"], dynamic_batch=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [v.name for v in (*session.get_inputs(), *session.get_outputs())] == ["pixels", "shape_1"]
    x = normal(0, 4, 3)
    np.testing.assert_allclose(session.run(["shape_1"], {"pixels": x.numpy()})[0], model(x).detach().numpy(), rtol=1e-5)
    for names, text in (
        ({"input_names": ["a", "b"]}, r"input_names: 1 different names are wanted, and \['a', 'b'\] came"),
        ({"output_names": [""]}, "output_names: 1 different names"), ({"output_names": ["x"]}, "output_names: 'x' is the name of"),
        ({"input_names": ["weight"]}, "input_names: 'weight' is the name of a constant"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            export_onnx(model, (md.ones((1, 3)),), tmp_path / "g.onnx", **names)
    with pytest.raises(ValueError, match="export_onnx: the function returns no tensor"):
        export_onnx(lambda x: None, (x,), tmp_path / "g.onnx")


def test_one_tensor_as_two_arguments_and_as_a_constant(tmp_path):
    x = md.tensor([[1.0, 2.0], [3.0, 4.0]])
    file = export_onnx(lambda a, b: (a - b) * x, (x, x), tmp_path / "f.onnx")
    other = md.ones((2, 2))
    assert np.array_equal(run(file, x * 2, other)[0], ((x * 2 - other) * x).numpy())


# ---- what cannot be written -----------------------------------------------------------------------------------------------------------------
def test_what_onnx_does_not_have_is_named(tmp_path, monkeypatch):
    x = normal(0, 2, 2)
    for f, error, text in (
        (lambda x: md.linalg.qr(x), NotImplementedError, r"ONNX has no operation for qr.*md\.export writes any program"),
        (lambda x: md.grad(lambda v: F.max_pool1d(v[None], 2).sum())(x), NotImplementedError, "the places of maxima"),
        (lambda x: F.max_pool1d(md.while_loop(lambda v: v.sum() < 9.0, lambda v: v + 1.0, x)[None], 2, return_indices=True), NotImplementedError,
         "the places of maxima"),
        (lambda x: F.max_pool1d(md.switch(md.tensor(0), [lambda v: v + 1.0], x)[None], 2, return_indices=True), NotImplementedError,
         "the places of maxima"),
        (lambda x: md.concat([x, x]).at[::2].set(0.0), NotImplementedError, "writes every other element"),
        (lambda x: md.real(md.fft.fft(x)), TypeError, "complex"),
        (Convolutional(), ValueError, r"call model\.eval\(\) first"),
        (lambda x: F.dropout(x, 0.5, training=True), ValueError, "export_onnx: the function changes"),
        (lambda x: x + 1.0, TypeError, "export_onnx: example arguments are tensors, and a float came"),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            export_onnx(f, (1.0,) if error is TypeError and "float" in text else (x,), tmp_path / "x.onnx")
    for f, text in (
        (lambda x: x * md.asarray(np.ones(x.shape[0], np.float32))[:, None], r"the constant f32\[5\] depends on the number of examples"),
        (lambda x: x * 0.1 * x.shape[0] ** 0.5, r"in more than sizes: mul by 2\.236\d+:f32 for 5 examples, by 2\.449"),
        (lambda x: x * x.shape[0] ** 2, r"in more than sizes: mul by 25\.0:f32 for 5 examples, by 36\.0"),
        (lambda x: md.arange(x.shape[0] ** 2), "25, 36 and 49 for 5, 6 and 7 examples"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            export_onnx(f, (x,), tmp_path / "x.onnx", dynamic_batch=True)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "minidl\[onnx\]"'):
        export_onnx(lambda x: x, (x,), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_a_failing_export_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    file = export_onnx(lambda x: x * 2, (md.ones(2),), tmp_path / "model.onnx")
    before = file.read_bytes()
    monkeypatch.setattr(onnx, "save_model", lambda model, path: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        export_onnx(lambda x: x + 1, (md.ones(2),), tmp_path / "model.onnx")
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file] and math.isfinite(run(file, md.ones(2))[0].sum())
