"""What engines do to a graph by themselves, on random graphs: each gives what the equations give one by one, unchanged, on NumPy.

The graphs are made of what the engines' own rewrites look for (images between convolutions, pooling and its gradients beside relu, biases, choices by
sign, places in rows, transposed and outer products, updates, packed gradients), joined at random, so that a value which a rewrite would like to have
for itself is read by somebody else as often as not. Numbers are small integers, of which every sum and product is exact in float32: ties and zeros
are common, and results are equal to the bit, but for those of exponentials, roots and quotients, which nothing else reads.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from minidl.backends import get
from minidl.dtypes import float32, int64
from minidl.graph import Graph, Literal, Var
from minidl.lowering import Recorder
from minidl.testing.wellformed import check

EXACT = 2.0**22  # below it every integer is a float32, and so is twice the sum of two
ZERO = Literal(0.0, float32)
N, C, SIDE, ROWS, WIDTH = 2, 8, 8, 4, 40
WINDOW = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
SAME = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
UPDATE = (0.99, 0.1, 0.9, 0.1, 0.5, 1e-3, 0.02)


class Drawn:
    """A graph under construction. values: (variable, the largest number that may be in it) of what is exact;
    rounded: what is not exact."""

    def __init__(self, seed: int):
        self.rng, self.xp = np.random.default_rng(seed), Recorder(None)
        self.inputs: list[Var] = []
        self.arrays: list[np.ndarray] = []
        self.values: list[tuple[Var, float]] = []
        self.rounded: set[Var] = set()
        for shape in ((N, C, SIDE, SIDE), (N, C, SIDE, SIDE), (N, 3, SIDE, SIDE), (N, 3, SIDE, SIDE), (N, C, SIDE // 2, SIDE // 2)):
            self.given(shape, 2)
        for shape in ((ROWS, WIDTH), (ROWS, WIDTH), (WIDTH, ROWS), (N, ROWS, WIDTH), (ROWS, 1), (N, 1, ROWS), (N, 1, WIDTH)):
            self.given(shape, 2)
        for _ in range(int(self.rng.integers(6, 16))):
            count, motif = len(self.xp.recorded), self.pick(MOTIFS)
            getattr(self, motif)()
            if motif in ROUNDED:
                self.rounded.update(v for e in self.xp.recorded[count:] for v in e.outputs)
        read = {a for e in self.xp.recorded for a in e.inputs}
        made = [v for e in self.xp.recorded for v in e.outputs]
        last = [v for v in made if v not in read]
        seen = lambda v: self.rng.random() < (0.8 if v in last else 0.02 if v in self.rounded else 0.1)
        outputs = [v for v in made if seen(v)] or last[-1:]
        self.graph = Graph(self.inputs, self.xp.recorded, outputs)

    def given(self, shape: tuple[int, ...], most: int, dtype: Any = float32, least: int | None = None) -> Var:
        v = Var(shape, dtype)
        self.inputs.append(v)
        self.arrays.append(self.rng.integers(-most if least is None else least, most, shape, endpoint=True).astype(dtype.numpy))
        if dtype is float32:
            self.values.append((v, float(most)))
        return v

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def value(self, fits: Any) -> tuple[Var, float]:
        """One of the exact values of such a shape, recent ones rather."""
        found = [pair for pair in self.values if fits(pair[0].shape)]
        return self.pick(found[-3:] if self.rng.random() < 0.7 else found)

    def image(self, channels: Any = (C, 3, 2 * C), side: int | None = None) -> tuple[Var, float]:
        return self.value(lambda s: len(s) == 4 and s[1] in channels and (s[2:] == (side, side) if side else min(s[2:]) >= 4))

    def like(self, v: Var) -> tuple[Var, float]:
        return self.value(lambda s: s == v.shape)

    def keep(self, v: Var, bound: float) -> Var:
        """bound: so large may the numbers be; a graph does not go on with what may not be exact."""
        if bound < EXACT:
            self.values.append((v, bound))
        else:
            self.rounded.add(v)
        return v

    # ---- images ------------------------------------------------------------------------------------------------------------------------
    def conv(self) -> None:
        x, bound = self.image()
        if bound * x.shape[1] * 9 >= EXACT:
            return
        w = self.given((self.pick((C, C, 3)), x.shape[1], 3, 3), 1)
        y, bound = self.keep(self.xp.conv(x, w, **SAME), bound * x.shape[1] * 9), bound * x.shape[1] * 9
        if self.rng.random() < 0.5:
            b = self.given(w.shape[:1], 3)
            y = self.keep(self.xp.add(*self.pick(((y, r := self.xp.reshape(b, shape=(w.shape[0], 1, 1))), (r, y)))), bound + 3)

    def conv_transposed(self) -> None:
        g, bound = self.image()
        if bound * g.shape[1] * 9 < EXACT:
            w, shape = self.given((g.shape[1], C, 3, 3), 1), (N, C, *g.shape[2:])
            self.keep(self.xp.conv_dx(g, w, x_shape=shape, **SAME), bound * g.shape[1] * 9)

    def conv_of_weights(self) -> None:
        (x, bound), (g, size) = self.image(), self.image()
        bound *= size * N * math.prod(x.shape[2:])
        if x.shape[2:] == g.shape[2:] and bound < EXACT:
            self.keep(self.xp.conv_dw(x, g, w_shape=(g.shape[1], x.shape[1], 3, 3), **SAME), bound)

    def pooled(self) -> None:
        """relu and max pooling, or pooling alone, and the gradient of both."""
        x, bound = self.image()
        h = self.keep(self.xp.relu(x), bound) if self.rng.random() < 0.7 else x
        y, places = self.xp.max_pool(h, **WINDOW)
        self.keep(y, bound)
        g, size = self.like(y)
        if self.rng.random() < 0.3:
            g = self.xp.where(self.xp.gt(y, ZERO), g, ZERO)
        how = self.rng.random()
        if how < 0.7:
            back = self.keep(self.xp.pool_scatter(g, places, x_shape=x.shape, **WINDOW), size)
            self.keep(self.xp.where(self.xp.gt(h, ZERO), back, ZERO), size)
        elif how < 0.85:
            self.keep(self.xp.pool_gather(self.like(x)[0], places, **WINDOW), self.like(x)[1])

    def enlarged(self) -> None:
        (x, bound), k = self.image(side=self.pick((4, SIDE))), self.pick((2, 3))
        (n, c, h, w) = x.shape
        wide = self.xp.broadcast_to(self.xp.reshape(x, shape=(n, c, h, 1, w, 1)), shape=(n, c, h, k, w, k))
        self.keep(self.xp.reshape(wide, shape=(n, c, h * k, w * k)), bound)

    def moved(self) -> None:
        (x, bound), how = self.image(), self.pick(("flip", "pad", "slice", "concat", "sum", "mean", "transpose", "rows"))
        if how == "flip":
            self.keep(self.xp.flip(x, axes=self.pick(((2, 3), (1,)))), bound)
        elif how == "pad":
            self.keep(self.xp.pad(x, widths=((0, 0), (0, 0), (0, 2), (1, 1)), value=0.0), bound)
        elif how == "slice":
            self.keep(self.xp.slice(x, start=(0, 0, 0, 0), stop=(N, x.shape[1], 4, 4), step=(1, 1, 1, 1)), bound)
        elif how == "concat" and x.shape[1] == C:
            y, other = self.like(x)
            self.keep(self.xp.concat(x, y, axis=1), max(bound, other))
        elif how == "sum":
            axis = self.pick(((2, 3), (1,), (0, 2, 3)))
            self.keep(self.xp.sum(x, axis=axis, keepdims=True), bound * math.prod(x.shape[a] for a in axis))
        elif how == "mean":  # and back over the image, as normalisation has it
            total = self.xp.sum(x, axis=(0, 2, 3), keepdims=True)
            self.keep(self.xp.sub(x, total), bound * (1 + N * x.shape[2] * x.shape[3]))
        elif how == "transpose":
            self.keep(self.xp.permute(x, axes=self.pick(((0, 2, 3, 1), (1, 0, 2, 3)))), bound)
        elif how == "rows":
            self.keep(self.xp.sum(self.xp.reshape(x, shape=(N, math.prod(x.shape[1:]))), axis=(1,), keepdims=True), bound * math.prod(x.shape[1:]))

    # ---- any shape ---------------------------------------------------------------------------------------------------------------------
    def joined(self) -> None:
        x, bound = self.value(lambda s: len(s) > 1)
        y, other = self.like(x)
        name = self.pick(("add", "sub", "maximum"))
        self.keep(getattr(self.xp, name)(x, y), bound + other)

    def scaled(self) -> None:
        x, bound = self.value(lambda s: len(s) > 1)
        self.keep(self.xp.add(self.xp.mul(x, Literal(2.0, float32)), Literal(-1.0, float32)), 2 * bound + 1)

    def cut(self) -> None:
        """A choice by the sign of another value, or by where that lies."""
        x, _ = self.value(lambda s: len(s) > 1)
        g, bound = self.like(x)
        if self.rng.random() < 0.5:
            test = self.xp.gt(x, ZERO)
        else:
            test = self.xp.logical_and(self.xp.gt(x, Literal(-1.0, float32)), self.xp.lt(x, Literal(2.0, float32)))
        self.keep(self.xp.where(test, g, ZERO), bound)

    # ---- rows --------------------------------------------------------------------------------------------------------------------------
    def matrix(self) -> tuple[Var, float]:
        return self.value(lambda s: len(s) == 2 and min(s) > 1)

    def product(self) -> None:
        """Of rows with a matrix and a bias; of two matrices, turned or not; of what is one long, over nothing."""
        kind = self.pick(("rows", "matrices", "turned", "outer", "nothing", "example"))
        if kind in ("outer", "example"):
            x, y = self.value(lambda s: s == (N, 1, ROWS)), self.value(lambda s: s == (N, 1, WIDTH))
            self.keep(self.xp.dot_general(x[0], y[0], contract=((1,), (1,)), batch=((0,), (0,))), x[1] * y[1])
        elif kind == "nothing":
            x, y = self.matrix(), self.matrix()
            total = self.xp.dot_general(x[0], y[0], contract=((), ()), batch=((), ()))
            self.keep(self.xp.sum(total, axis=(2, 3), keepdims=False), x[1] * y[1] * math.prod(y[0].shape))
        elif kind == "rows":
            x, bound = self.value(lambda s: s == (N, ROWS, WIDTH))
            if bound * WIDTH >= EXACT:
                return
            w, b = self.given((ROWS, WIDTH), 1), self.given((ROWS,), 3)
            y = self.xp.dot_general(x, w, contract=((2,), (1,)), batch=((), ()))
            self.keep(self.xp.add(y, b), bound * WIDTH + 3)
        else:
            (x, bound), (y, other) = self.matrix(), self.matrix()
            pairs = [(i, k) for i, n in enumerate(x.shape) for k, m in enumerate(y.shape) if n == m]
            if not pairs:
                return
            i, k = self.pick(pairs)
            bound *= other * x.shape[i]
            z = self.keep(self.xp.dot_general(x, y, contract=((i,), (k,)), batch=((), ())), bound)
            if kind == "turned" and bound < EXACT:
                z = self.xp.add(z, Literal(1.0, float32)) if self.rng.random() < 0.5 else z
                self.keep(self.xp.permute(z, axes=(1, 0)), bound + 1)

    def placed(self) -> None:
        """A value at one place of each row, and what a row is elsewhere."""
        (y, bound), i = self.value(lambda s: s == (ROWS, WIDTH)), self.given((ROWS, 1), WIDTH - 1, int64, 0)
        g, size = self.value(lambda s: s == (ROWS, 1))
        hot = self.xp.where(self.xp.eq(i, self.xp.iota(size=WIDTH, dtype=int64)), g, ZERO)
        self.keep(self.pick((self.xp.sub, self.xp.add))(*self.pick(((hot, y), (y, hot)))), bound + size)

    def chances(self) -> None:
        """softmax of rows, and the logarithm at a place of the same."""
        x, _ = self.value(lambda s: s == (ROWS, WIDTH))
        i = self.given((ROWS,), WIDTH - 1, int64, 0)
        names = [("softmax", (x,)), ("log_softmax_at", (x, i)), ("log_softmax", (x,))]
        for k in self.rng.permutation(3)[: int(self.rng.integers(1, 4))]:
            getattr(self.xp, names[k][0])(*names[k][1], axis=1)

    def attention(self) -> None:
        q, k, v, g = (self.given((N, 2, 4, 4), 1) for _ in range(4))
        mask, causal = ZERO, bool(self.rng.random() < 0.5)
        out, lse = self.xp.attention(q, k, v, mask, scale=0.5, causal=causal)
        packed = self.xp.attention_grad(g, q, k, v, mask, out, lse, scale=0.5, causal=causal)
        for j in self.rng.permutation(3)[: int(self.rng.integers(1, 4))]:
            part = self.xp.slice(packed, start=(0, 0, 16 * int(j)), stop=(N, 2, 16 * int(j) + 16), step=(1, 1, 1))
            self.xp.reshape(part, shape=(N, 2, 4, 4))

    def update(self) -> None:
        """A step of Adam's, or of momentum, as minidl.optim writes it; somebody may read the new means, before or after."""
        shape = self.pick(((ROWS, WIDTH), (N, ROWS, WIDTH)))
        p, mean, square = self.given(shape, 3), self.given(shape, 2), self.given(shape, 2, least=0)
        g, bound = self.value(lambda s: s == shape)
        xp, (keep, less, decay, more, root, eps, size) = self.xp, (Literal(v, float32) for v in UPDATE)
        if bound > 1e3:
            return
        if self.rng.random() < 0.4:
            xp.sub(p, xp.mul(xp.add(xp.mul(mean, decay), g), size))
        else:
            new, squares = xp.add(mean, xp.mul(xp.sub(g, mean), less)), xp.add(xp.mul(square, decay), xp.mul(xp.square(g), more))
            if self.rng.random() < 0.2:
                xp.sum(new, axis=(0,), keepdims=False)
            move = xp.div(new, xp.add(xp.div(xp.sqrt(squares), root), eps))
            xp.sub(xp.mul(p, keep) if self.rng.random() < 0.7 else p, xp.mul(move, size))


ROUNDED = ("chances", "attention", "update")
MOTIFS = (
    "conv conv conv conv_transposed conv_of_weights pooled pooled enlarged moved moved joined joined scaled cut cut product product placed chances"
    " attention update"
).split()


def unchanged(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Equation by equation."""
    xp = get("numpy")
    with np.errstate(all="ignore"):
        return graph.run(lambda p, inputs, params: getattr(xp, p.name)(*inputs, **params), arrays, lambda a: xp.scalar(a.value, a.dtype))


@pytest.fixture
def everywhere(monkeypatch):
    """What pays for large arrays only is done for these, too."""
    names = {
        "backends.numpy_backend": {"_MULTIPLIED": 1, "_SWAPPED": 1, "LEAST": 1},
        "backends.numpy_memory": {"LEAST": 1},
        "backends.torch_backend": {"_MULTIPLIED": 1, "LARGE": 1},
        "rewrites.on_numpy": {"LEAST": 1},
        "rewrites.on_torch": {"MANY": 1},
        "rewrites.loops.on_numpy": {"LEAST": 64, "BLOCK": 512},
        "arrays.windows.on_torch": {"MANY": 1, "_ROW": 1},
    }
    for module, values in names.items():
        for name, value in values.items():
            monkeypatch.setattr(importlib.import_module(f"minidl.{module}"), name, value)
    monkeypatch.setattr(get("numba"), "fuse_least", 1)


def agrees(name: str, seed: int) -> tuple[Drawn, Any]:
    drawn = Drawn(seed)
    check(drawn.graph)
    xp, want = get(name), unchanged(drawn.graph, drawn.arrays)
    run = xp.compile(drawn.graph)
    given = [xp.asarray(a.copy(), v.dtype) for a, v in zip(drawn.arrays, drawn.inputs, strict=True)]
    for _ in range(2):  # memory is used again
        outs = run(*given)
        for k, (got, right, v) in enumerate(zip(outs, want, drawn.graph.outputs, strict=True)):
            got, said = np.array(xp.to_numpy(got)), f"seed {seed}, output {k} of\n{drawn.graph}"
            if v not in drawn.rounded:
                np.testing.assert_array_equal(got, right, err_msg=said)
            else:
                np.testing.assert_allclose(got, right, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(right).max(initial=0)), err_msg=said)
        for a, before in zip(given, drawn.arrays, strict=True):
            np.testing.assert_array_equal(xp.to_numpy(a), before)
    return drawn, run


#: How a program for torch shows that a rewrite was made, and how one for NumPy does.
SIGNS = {
    "torch": "keep_positive keep_inside conv_affine( affine( pool_masks( spread( enlarged( attention_grads( adam_step( sgd_step( put_along( flat=True"
    " work_ block_ .clear()",
    "numpy": "for_i0 put_along empty( matmul(",
}


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_an_engine_gives_what_the_equations_give(name, everywhere):
    """And every rewrite of its own is made somewhere."""
    texts = [inspect.getsource(agrees(name, seed)[1]) for seed in range(120)]
    made = Counter(sign for text in texts for sign in SIGNS[name].split() if sign.replace("_i0", " i0") in text)
    assert set(SIGNS[name].split()) == made.keys(), made


@pytest.mark.parametrize("name", ["numba", "jax"])
def test_an_engine_that_compiles_gives_what_the_equations_give(name, everywhere):
    for seed in range(200, 208):
        agrees(name, seed)
