"""Every row of the table in test_nn_parity.py on every backend, eager and jitted, against eager NumPy, which was compared with torch there.

Outputs, and the gradients of inputs and parameters, in training mode where nothing is drawn (dropout stands at its ends). A program of many layers
compiles faster than many programs, so the rows run in blocks. XLA compiles longest: it is given one row of each layer, all rows with --nightly, and
its eager operations (each a program of its own) with --nightly alone, but for the layers of EAGER_JAX and the last block, which is losses.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from test_nn_parity import FIRST, LAYERS, Ints, Mask, Row, Signs, combinations, draw, leaves, number

import minidl as md
from minidl import nn

EAGER_JAX = ("Linear", "BatchNorm1d", "LayerNorm", "Embedding", "AvgPool1d", "GELU", "CrossEntropyLoss", "GRUCell")
BLOCK = 20
ROWS = list(range(len(LAYERS)))
ONE_EACH = [LAYERS.index(row) for row in FIRST.values()]


def blocks(rows: list[int]) -> list[list[int]]:
    return [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]


def put(layer: Any, params: dict[str, Any]) -> None:
    for name, value in params.items():
        path, _, last = name.rpartition(".")
        layer.get_submodule(path)._parameters[last] = value


def program(rows: list[Row], backend: str) -> tuple[Any, Any, Any, Any]:
    """(function of inputs and parameters, these, what restores the layers): the sum of a fixed combination of all outputs, and the outputs."""
    layers, inputs, params = [], [], []
    for row in rows:
        options = {k: md.asarray(v, backend=backend) if isinstance(v, np.ndarray) else v for k, v in combinations(row)[0].items()}
        layer = getattr(nn, row.name)(*row.args, **options).double().to(backend=backend)
        g = np.random.default_rng(5)
        layer.load_state_dict({k: g.normal(size=v.shape) ** 2 if v.dtype.inexact else v.numpy() for k, v in layer.state_dict().items()})
        g = np.random.default_rng(6)
        layers.append(layer)
        inputs.append([md.asarray(draw(s, g), backend=backend) for s in row.inputs])
        params.append(dict(layer.named_parameters()))
    live = [
        {i: x for i, (s, x) in enumerate(zip(row.inputs, given, strict=True)) if not isinstance(s, (Ints, Signs, Mask))}
        for row, given in zip(rows, inputs, strict=True)
    ]

    def run(xs: Any, ps: Any) -> Any:
        total, outs = md.zeros((), dtype=md.float64), []
        for layer, given, x, p in zip(layers, inputs, xs, ps, strict=True):
            put(layer, p)
            outs.append(leaves(layer(*(x.get(i, v) for i, v in enumerate(given)))))
            for out in outs[-1]:
                if out.dtype.inexact:
                    total = total + (out * md.cos(md.arange(out.size, dtype=md.float64)).reshape(out.shape)).sum()
        return total, outs

    def restore() -> None:
        for layer, p in zip(layers, params, strict=True):
            put(layer, p)

    return run, live, [{n: p.detach() for n, p in each.items()} for each in params], restore


def results(rows: tuple[int, ...], backend: str, jitted: bool) -> list[list[np.ndarray]]:
    """The gradients and outputs of each row."""
    with md.use_backend(backend):
        run, xs, ps, restore = program([LAYERS[i] for i in rows], backend)
        f = md.grad(run, argnums=(0, 1), has_aux=True)
        (dx, dp), outs = (md.jit(f) if jitted else f)(xs, ps)
        restore()
        return [[number(v) for v in md.tree.leaves(of_row)] for of_row in zip(dx, dp, outs, strict=True)]


@functools.cache
def wanted(row: int) -> list[np.ndarray]:
    return results((row,), "numpy", False)[0]


def check(rows: list[int], backend: str, jitted: bool) -> None:
    for i, got in zip(rows, results(tuple(rows), backend, jitted), strict=True):
        for k, (a, b) in enumerate(zip(got, wanted(i), strict=True)):
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11, err_msg=f"{LAYERS[i].name}, row {i}, value {k}")


@pytest.mark.parametrize("block", blocks(ROWS), ids=lambda b: LAYERS[b[0]].name)
@pytest.mark.parametrize(("backend", "jitted"), [("numpy", True), ("torch", False), ("torch", True), ("numba", False), ("numba", True)])
def test_every_row(backend, jitted, block):
    check(block, backend, jitted)


@pytest.mark.parametrize("block", blocks(ONE_EACH), ids=lambda b: LAYERS[b[0]].name)
def test_one_row_of_every_layer_jitted_on_jax(block):
    check(block, "jax", True)


@pytest.mark.parametrize("name", EAGER_JAX)
def test_eager_on_jax(name):
    check([LAYERS.index(FIRST[name])], "jax", False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "nightly_block" in metafunc.fixturenames:
        nightly = blocks(ROWS) if metafunc.config.getoption("--nightly") else blocks(ROWS)[-1:]
        metafunc.parametrize("nightly_block", nightly, ids=lambda b: LAYERS[b[0]].name)


@pytest.mark.parametrize("jitted", [False, True])
def test_every_row_on_jax(jitted, nightly_block):
    check(nightly_block, "jax", jitted)
