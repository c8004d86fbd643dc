"""Attention on a GPU by torch's kernels and a repair of ours, on a device that pretends (pretended_cuda.py, pretended_attention.py): the values and
gradients of the decomposition, special values included, and the decomposition where the kernels are not to be had."""

from __future__ import annotations

import itertools

import numpy as np
import pretended_attention
import pytest
import torch
from pretended_cuda import Capture, pretended_cuda

import minidl as md
from minidl.arrays.composites import on_torch_cuda as attention
from minidl.nn.functional import scaled_dot_product_attention

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, on which the suite runs with MINIDL_DEVICE=cuda")
inf, nan = np.inf, np.nan


@pytest.fixture
def cuda():
    with pretended_cuda() as mode:
        yield mode
        md.manual_seed(0)


@pytest.fixture
def kernels(cuda, monkeypatch):
    return pretended_attention.patch(monkeypatch)


def _given(dtype, lead=(2, 3), rows=5, keys=7, width=8, depth=8, special=None):
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.normal(size=(*lead, n, w)) for n, w in ((rows, width), (keys, width), (keys, depth), (rows, depth)))
    mask = rng.normal(size=(rows, keys))
    match special:
        case "+inf":
            q[..., 1, 0] = inf
        case "-inf":  # every score of one key, and of others +inf
            k[0, ..., 2, 1] = -inf
        case "nan":
            q[1, ..., 3, 2] = nan
        case "large":  # the product overflows
            q[0, ..., 0, :], k[0, ..., 0, :] = 1e30, 1e30
        case "hidden":
            mask[2], mask[:, 1] = -inf, -inf
        case "mask":
            mask[1, 3:5] = inf
    return q, k, v, g, mask


def _run(place, dtype, arrays, masked, causal, how):
    """The result and the gradients of q, k and v."""
    with md.use_backend("torch", place):
        q, k, v, g, mask = (md.tensor(a, dtype=dtype) for a in arrays)
        f = lambda q, k, v: md.scaled_dot_product_attention(q, k, v, mask if masked else None, is_causal=causal)
        both = lambda q, k, v, g: (f(q, k, v), md.vjp(f, q, k, v)[1](g))
        if how == "eager":
            out, grads = both(q, k, v, g)
        else:
            out, grads = md.jit(both, mode=how)(q, k, v, g)
        return [x.to(md.float32).numpy() for x in (out, *grads)]


CASES = [*itertools.product((md.float32, md.bfloat16, md.float16), ("plain", "causal", "masked"), (None, "+inf", "-inf", "nan"))]
CASES += [(md.float32, "plain", "large"), (md.bfloat16, "causal", "large")]
CASES += [(d, "masked", s) for d in (md.float32, md.bfloat16) for s in ("hidden", "mask")]


@pytest.mark.parametrize(("dtype", "kind", "special"), CASES, ids=str)
def test_the_kernels_and_their_repair_have_the_values_of_the_definition(dtype, kind, special, kernels, cuda):
    causal = kind == "causal"
    arrays = _given(dtype, keys=5 if causal else 7, special=special)
    want = _run("cpu", dtype, arrays, kind == "masked", causal, "eager")
    got = _run("cuda", dtype, arrays, kind == "masked", causal, "eager")
    name = "efficient_attention" if dtype is md.float32 or kind == "masked" else "flash_attention"
    assert set(kernels.calls) == {name, f"{name}_backward"} and all(attention._trials.values())
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype is md.float32 else {"rtol": 0.02, "atol": 0.02}
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, **close)
    cuda.waits.clear()
    _run("cuda", dtype, arrays, kind == "masked", causal, "eager")
    assert set(cuda.waits) <= {"_to_copy"}  # what the test reads


@pytest.mark.parametrize("how", [None, "cudagraph"])
@pytest.mark.parametrize("special", [None, "+inf"])
def test_programs_and_replays_call_them_too(how, special, kernels, cuda):
    """The gradients are never put together; heads in one axis, queries and keys of different numbers and widths."""
    arrays = _given(md.float32, lead=(3,), depth=16, special=special)
    for a, b in zip(_run("cuda", md.float32, arrays, False, False, how), _run("cpu", md.float32, arrays, False, False, "eager"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert kernels.calls["efficient_attention_backward"] and Capture.made == (how is not None)


def test_heads_of_one_packed_product_are_read_where_they_lie(kernels, cuda):
    x = np.random.default_rng(0).normal(size=(2, 5, 72)).astype(np.float32)
    found = []
    for place in ("cpu", "cuda"):
        with md.use_backend("torch", place):
            packed = md.tensor(x, requires_grad=True)
            q, k, v = (packed.reshape((2, 5, 3, 3, 8))[:, :, j].swapaxes(1, 2) for j in range(3))
            out = scaled_dot_product_attention(q, k, v, is_causal=True)
            md.sin(out).sum().backward()
            found.append((out.detach().numpy(), packed.grad.numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert kernels.calls["efficient_attention"] == 2 and kernels.calls["efficient_attention_backward"] == 2  # a trial and a call each


@pytest.mark.parametrize("why", ["refused", "missing", "wrong", "no compiler", "no repair"])
def test_where_the_kernels_are_not_to_be_had_the_decomposition_runs(why, kernels, cuda, monkeypatch):
    def refuse(*args, **how):
        raise RuntimeError("no such kernel for this device")

    original = attention._KERNELS["efficient_attention"]
    other = {"refused": refuse, "missing": None, "wrong": lambda *args, scale: original(*args, scale=scale * 1.01)}
    if why in other:
        monkeypatch.setitem(attention._KERNELS, "efficient_attention", other[why])
    elif why == "no compiler":
        monkeypatch.undo()
        monkeypatch.setattr(attention, "_trials", {})
    else:
        monkeypatch.setattr(attention, "_repair", lambda *args, **how: None)
    arrays = _given(md.float32, special="+inf")
    for a, b in zip(_run("cuda", md.float32, arrays, False, False, "eager"), _run("cpu", md.float32, arrays, False, False, "eager"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert [*attention._trials.values()] == [False]


def test_a_call_that_torch_refuses_after_the_trial_is_computed_all_the_same(kernels, cuda, monkeypatch):
    arrays = _given(md.float32)
    want = _run("cuda", md.float32, arrays, False, False, "eager")
    for name in ("efficient_attention", "efficient_attention_backward"):
        monkeypatch.setitem(attention._KERNELS, name, lambda *args, **how: torch.ones(2) @ torch.ones(3))
    for a, b in zip(_run("cuda", md.float32, arrays, False, False, "eager"), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", [{"width": 6}, {"width": 264, "depth": 264}, {"depth": 10}], ids=str)
def test_widths_that_no_kernel_takes_are_not_tried(how, kernels, cuda):
    _run("cuda", md.float32, _given(md.float32, **how), False, False, "eager")
    assert not kernels.calls


def test_the_second_derivative_is_that_of_the_definition(kernels, cuda):
    arrays = _given(md.float32, lead=(1, 1))
    found = []
    for place in ("cpu", "cuda"):
        with md.use_backend("torch", place):
            q, k, v, g, _ = (md.tensor(a, dtype=md.float32) for a in arrays)
            f = lambda q: (md.scaled_dot_product_attention(q, k, v) * g).sum()  # noqa: B023
            found.append(md.grad(lambda q: (md.grad(f)(q) ** 2).sum())(q).numpy())  # noqa: B023
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-5)


def test_an_empty_batch_and_a_width_of_none_are_the_decompositions(kernels, cuda):
    for lead in ((0, 2), (1, 1)):
        arrays = _given(md.float32, lead=lead, keys=0 if lead[0] else 3)
        for a, b in zip(_run("cuda", md.float32, arrays, False, False, "eager"), _run("cpu", md.float32, arrays, False, False, "eager"), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not kernels.calls


def test_numbers_of_sixteen_bits_are_read_and_written_as_torch_rounds_them(cuda):
    """By the kernels of ours: a row of one key hands its value through."""
    drawn = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-10, 10).repeat(10)
    values = np.concatenate([drawn, [0.0, -0.0, inf, -inf, nan, 65504.0, 6e-8]])
    for dtype in (torch.bfloat16, torch.float16):
        kernel = pretended_attention.Loaded("attention_rows", dtype, cuda)
        v = torch.tensor(values, dtype=dtype, device="cuda").reshape(1, 1, 1, -1)
        out, q, lse = torch.zeros_like(v), torch.zeros((1, 1, 1, 8), dtype=dtype, device="cuda"), torch.full((1, 1, 1), nan, device="cuda")
        strided = [part for x in (out, lse, q, q, v, q) for part in (x, *x.stride()[: 2 if x is lse else 3])]
        kernel((1, 1, 1), (1, 1, 1), [*strided, 1, 0, 0, 1, 1, 1, 8, v.shape[-1], 1.0, inf])
        np.testing.assert_array_equal(out.double().cpu().numpy(), (v + 0.0).double().cpu().numpy())
        assert lse.cpu().item() == 0.0
