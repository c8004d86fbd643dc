"""Graphs as Python files that need NumPy alone: every kernel of the numpy backend, from the table's own rows."""

from __future__ import annotations

import numpy as np
import pytest
from domains import ROWS

import minidl as md
from minidl.backends import get
from minidl.backends.numpy_backend import KERNELS
from minidl.deploy.on_numpy import Definitions
from minidl.testing.checks import from_arrays, study

CASES = [pytest.param(r, t, id=f"{r}-{t}") for r in ROWS for t in r.dtypes if t not in ("float16", "bfloat16")]


def run(text: str, name: str):
    assert "minidl" not in text
    names: dict = {}
    exec(compile(text, "<exported>", "exec"), names)
    return names[name]


@pytest.mark.parametrize(("row", "dtype"), CASES)
def test_a_file_computes_what_the_backend_does(row, dtype):
    case, xp = study(row, dtype), get("numpy")
    graph = md.trace(case.program)(*from_arrays(case.inputs, xp))
    inputs = [*case.inputs, *(np.asarray(c.numpy()) for c in graph.captured)]
    with np.errstate(all="ignore"):
        want = xp.callable(graph)(*inputs)
    got = run(graph.to_python("f"), "f")(*inputs)
    for g, w in zip(got, want, strict=True):
        assert np.asarray(g).dtype == np.asarray(w).dtype and np.array_equal(g, w, equal_nan=np.asarray(w).dtype.kind in "fc")
        if np.asarray(w).dtype.kind == "f":
            assert np.array_equal(np.signbit(g), np.signbit(w))


def test_no_two_definitions_share_a_name():
    found = Definitions()
    for name in KERNELS:
        found.kernel(name)
    names = [name for _, name in found.texts]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)


def test_half_precision_is_carried_and_bfloat16_refused():
    graph = md.trace(lambda x: md.softmax(x, axis=-1))(md.ones((2, 3), dtype=md.float16, backend="numpy"))
    assert run(graph.to_python("f"), "f")(np.ones((2, 3), np.float16))[0].dtype == np.float16
    with pytest.raises(TypeError, match="bfloat16, which NumPy alone does not have"):
        md.trace(lambda x: x * 2)(md.ones((2,), dtype=md.bfloat16)).to_python()


def test_a_graph_for_any_number_of_examples():
    def f(x):
        y = md.reshape(x, (x.shape[0] * 2, 3))
        return md.concat([y, md.zeros((x.shape[0], 3))]), md.map(lambda row: row * 2, x)

    small, *larger = (md.trace(f)(md.ones((n, 6), backend="numpy")) for n in (4, 5, 6))
    file = run(small.to_python("f", ("x",), larger), "f")
    for n in (1, 7):
        x = np.arange(n * 6.0, dtype=np.float32).reshape(n, 6)
        for g, w in zip(file(x), f(md.tensor(x)), strict=True):
            assert np.array_equal(g, w.numpy())
    others = [md.trace(lambda x: f(x * x.shape[0]))(md.ones((n, 6), backend="numpy")) for n in (5, 6)]
    with pytest.raises(ValueError, match="depends on the number of examples in more than sizes"):
        small.to_python("f", ("x",), others)


def test_a_graph_runs_on_tensors(backend):
    w = md.tensor([2.0, 3.0])
    graph = md.trace(lambda x: (md.sin(x) * w).sum())(md.ones((2,)))
    assert [c is w for c in graph.captured] == [True]
    x = md.tensor([0.5, 1.0])
    want = (md.sin(x) * w).sum()
    for f in (graph, md.jit(graph.__call__)):
        assert abs(f(x, w)[0].item() - want.item()) < 1e-6
    assert md.grad(lambda x: graph(x, w)[0])(x).shape == (2,)
    with pytest.raises(ValueError, match=r"the graph was traced for f32\[2\], f32\[2\], and f32\[3\], f32\[2\] came"):
        graph(md.ones((3,)), w)
