"""Every dtype means one thing on every backend: the same dtype and values, or the same error, from functions that arithmetic does not cover."""

from __future__ import annotations

import numpy as np
import pytest
from conventions.test_conventions import BACKENDS

import minidl as md

F = md.nn.functional
#: Where libraries have gaps: bools, unsigned integers, half precision and complex numbers; and one dtype that they all have.
DTYPES = ["bool", "uint8", "uint16", "uint64", "int8", "bfloat16", "complex64"]
FUNCTIONS = {
    "max_pool": lambda x, i: md.max_pool(x, (2, 2), padding=1, return_indices=True),
    "avg_pool": lambda x, i: md.avg_pool(x, 2),
    "conv": lambda x, i: md.conv(x, x[:, :, :2, :2]),
    "conv2d with a bias": lambda x, i: F.conv2d(x, x[:, :, :2, :2], x[0, 0, 0, :1]),
    "linear": lambda x, i: F.linear(x, x[0, 0], x[0, 0, 0]),
    "interpolate": lambda x, i: F.interpolate(x, size=(3, 5), mode="bilinear"),
    "pad": lambda x, i: F.pad(x, (1, 2), mode="reflect"),
    "cumulative_sum": lambda x, i: md.cumulative_sum(x, axis=-1),
    "cumulative_max": lambda x, i: md.cumulative_max(x, axis=-1),
    "cumulative_min, reversed": lambda x, i: md.cumulative_min(x, axis=-1, reverse=True),
    "sort": lambda x, i: md.sort(x, descending=True),
    "topk": lambda x, i: md.topk(x, 2),
    "argmin": lambda x, i: md.argmin(x, axis=-1),
    "median": lambda x, i: md.median(x, axis=-1),
    "one_hot": lambda x, i: F.one_hot(x, 4),
    "embedding": lambda x, i: F.embedding(x, md.ones((4, 2))),
    "rows of a table": lambda x, i: F.embedding(i, x[0, 0]),
    "set": lambda x, i: x.at[:, :, i].set(x[:, :, :2]),
    "add": lambda x, i: x.at[:, :, i].add(x[:, :, :2]),
    "multiply": lambda x, i: x[0, 0].at[i].multiply(x[0, 0, :2]),
    "at max": lambda x, i: x[0, 0].at[i].max(x[0, 0, 1:3]),
    "at min": lambda x, i: x[0, 0].at[i].min(x[0, 0, 1:3]),
    "sum in bool": lambda x, i: md.sum(x, dtype=md.bool),
    "mean in bool": lambda x, i: md.mean(x, dtype=md.bool),
    "cumulative_prod in bool": lambda x, i: md.cumulative_prod(x, axis=0, dtype=md.bool),
    "clip": lambda x, i: md.clip(x, 0, 1),
    "softmax": lambda x, i: md.softmax(x, axis=-1),
    "tril": lambda x, i: md.tril(x, k=1),
    "roll": lambda x, i: md.roll(x, 1),
}
#: What has no answer, and why it raises.
REFUSED = {
    ("max_pool", "bool"): "max_pool: dtype bool is not supported; it wants a real number dtype",
    ("at max", "complex64"): "scatter: mode 'max' of dtype c64, which has no order; take abs or real first",
    ("sum in bool", "int8"): "sum: dtype bool is no number dtype; any and all are what sums and products of bools would be",
}


def outcome(name: str, dtype: str, backend: str) -> tuple:
    with md.use_backend(backend):
        numbers = md.tensor([[[[0, 1, 2, 3], [3, 1, 0, 2], [1, 1, 1, 0], [2, 3, 1, 1]]]])
        try:
            found = FUNCTIONS[name](numbers.to(getattr(md, dtype)), md.tensor([0, 0]))
        except Exception as error:  # which one it is, is what is compared
            return type(error), str(error)
        leaves = [v for v in md.tree.leaves(found) if isinstance(v, md.Tensor)]
        return tuple((v.dtype.name, v.shape, v.to(md.complex128 if v.dtype.is_complex else md.float64).numpy()) for v in leaves)


#: jax compiles each function for each dtype: it has those alone with which it is known to differ.
CASES = [(b, d) for b in BACKENDS if b != "numpy" for d in DTYPES if b != "jax" or d in ("bool", "uint16", "complex64")]


@pytest.mark.parametrize(("backend", "dtype"), CASES)
def test_a_function_does_the_same_with_a_dtype_on_every_backend(backend, dtype):
    for name in FUNCTIONS:
        wanted, found = outcome(name, dtype, "numpy"), outcome(name, dtype, backend)
        if (name, dtype) in REFUSED:
            assert wanted == (TypeError, REFUSED[name, dtype])
        assert len(wanted) == len(found), (name, wanted, found)
        for a, b in zip(wanted, found, strict=True):
            if not isinstance(a, tuple):
                assert a == b, (name, wanted, found)
                continue
            assert a[:2] == b[:2], name
            np.testing.assert_allclose(a[2], b[2], rtol=2e-2 if dtype == "bfloat16" else 1e-5, atol=1e-6, err_msg=name)
