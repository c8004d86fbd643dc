"""What programs become in XLA: the formulations that it compiles well are there, seen in what it compiled and not in how long it took."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import minidl as md  # noqa: E402

RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def compiled(f, *arrays):
    """XLA's own text of a traced function after its passes."""
    with md.use_backend("jax"):
        tensors = [md.tensor(a) for a in arrays]
        graph = md.trace(f)(*tensors)
        xp = tensors[0].xp
        with xp.scope():
            natives = [jax.ShapeDtypeStruct(v.shape, v.dtype.numpy) for v in graph.inputs]
            return jax.jit(xp.callable(graph)).lower(*natives).compile().as_text()


@pytest.mark.parametrize("row", [lambda x: x, lambda x: x[None]], ids=["a vector", "a batch of one"])
def test_gradients_of_single_examples_are_products_in_their_final_order(row):
    def loss(p, x):
        return (md.relu(row(x) @ p["w"]) @ p["v"]).sum()

    weights = {"w": array(5, 7), "v": array(7, 11)}
    f = md.vmap(lambda w, v, x: md.grad(loss)({"w": w, "v": v}, x), in_axes=(None, None, 0))
    text = compiled(f, weights["w"], weights["v"], array(3, 5))
    made = [line for line in text.splitlines() if "= f32[3,5,7]" in line or "= f32[3,7,11]" in line]
    assert made, text
    assert not [line for line in made if " transpose(" in line or " copy(" in line or " dot(" in line], text
