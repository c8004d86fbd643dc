"""Arrays of NumPy's subclasses and of other libraries, in every form that they lie in memory: right values, or a clear error; nothing of their class,
their history or their memory is in a tensor that was not promised."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

import minidl as md

torch = pytest.importorskip("torch")


class Odd(np.ndarray):
    def __mul__(self, other):
        return "not a product"


BASE = np.arange(1.0, 13.0, dtype=np.float32).reshape(3, 4)
FORMS = {
    "reversed": BASE[::-1, ::-2], "in Fortran's order": np.asfortranarray(BASE), "broadcast": np.broadcast_to(BASE[:1], (3, 4)),
    "a matrix": BASE.view(np.matrix), "of a subclass": BASE.view(Odd), "masked nowhere": np.ma.MaskedArray(BASE),
    "in the other byte order": BASE.astype(BASE.dtype.newbyteorder()),
    "unaligned": np.frombuffer(b"x" + BASE.tobytes(), np.uint8)[1:].view(np.float32).reshape(3, 4), "no element": BASE[:0, ::-1],
}  # fmt: skip
WAYS = {
    "asarray": md.asarray, "copy=True": lambda v: md.asarray(v, copy=True), "copy=False": lambda v: md.asarray(v, copy=False),
    "from_dlpack": md.from_dlpack, "from_dlpack, copy=True": lambda v: md.from_dlpack(v, copy=True), "operand": lambda v: md.zeros(v.shape) + v,
    "a batch": lambda v: md.data.default_collate([v])[0],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_numpy_arrays_of_every_form(form, backend):
    given = FORMS[form]
    want = np.array(given).astype(np.float32)
    for name, way in WAYS.items():
        try:
            x = way(given)
        except ValueError as error:
            assert name == "copy=False" and "cannot share memory" in str(error), name
            continue
        for y, w in ((x, want), (x * x, want * want), (x.flatten(), want.reshape(-1))):
            got = y.numpy()
            assert type(got) is np.ndarray and got.dtype == np.float32 and got.dtype.isnative
            np.testing.assert_array_equal(got, w, err_msg=name)
        assert type(x.payload) is type(md.zeros(1).payload)


def test_masked_elements_are_refused(backend):
    masked = np.ma.MaskedArray([1.0, 2.0], [False, True])
    for name, way in WAYS.items():
        with pytest.raises((TypeError, ValueError), match="cannot share" if name == "copy=False" else r"masked elements.*\.filled"):
            way(masked)
    with pytest.raises(TypeError, match="masked elements"):
        md.jit(lambda x: x + 1.0)(masked)


LEAF = torch.arange(6.0).reshape(2, 3).requires_grad_()
COMPLEX = torch.complex(torch.arange(6.0), torch.arange(6.0) + 1).reshape(2, 3)
TENSORS = {
    "a leaf": lambda: LEAF, "a result": lambda: LEAF * 2, "a parameter": lambda: torch.nn.Parameter(torch.ones(2, 3)),
    "transposed": lambda: LEAF.detach().T, "expanded": lambda: torch.ones(1, 3).expand(2, 3), "conjugated": lambda: COMPLEX.conj(),
    "negated": lambda: COMPLEX.conj().imag,
    "of inference_mode": lambda: torch.inference_mode()(torch.ones)(2, 3), "bfloat16": lambda: LEAF.bfloat16().T,
}  # fmt: skip


@pytest.mark.parametrize("form", TENSORS)
def test_torch_tensors_of_every_form(form, backend):
    given = TENSORS[form]()
    plain = given.detach().resolve_conj().resolve_neg()
    for name, way in {n: w for n, w in WAYS.items() if n != "operand"}.items():
        try:
            x = way(given)
        except ValueError as error:
            assert name == "copy=False" and "cannot share memory" in str(error), name
            continue
        assert x.dtype.name == str(plain.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(x.tolist(), plain.tolist(), err_msg=name)
        np.testing.assert_array_equal((x + x).tolist(), (plain + plain).tolist(), err_msg=name)
        if isinstance(x.payload, torch.Tensor):
            p = x.payload
            assert type(p) is torch.Tensor and not (p.requires_grad or p.is_conj() or p.is_neg() or p.is_inference()), name


def test_torch_tensors_without_rows_are_refused(backend):
    x = torch.ones(2, 3)
    for given in (x.to_sparse(), torch.empty(2, device="meta")):
        for way in (md.asarray, md.from_dlpack, md.data.default_convert):
            with pytest.raises(TypeError, match="sparse or without data"):
                way(given)
    with pytest.raises(TypeError, match="no dtype for torch's torch.float8"):
        md.asarray(x.to(torch.float8_e4m3fn))


def test_jit_refuses_foreign_arrays_rather_than_keeping_what_they_held(backend):
    x = torch.ones(3)
    with pytest.raises(TypeError, match="convert it with md.asarray"):
        md.jit(lambda x: x * 2)(x)


def test_float64_scalars_are_floats_among_the_arguments_of_jit_as_in_operations(backend):
    f = md.jit(lambda x, s, more: x * s + more["a"])
    x = md.ones(2)
    for s in (2.0, 3.0, 0.0):
        out = f(x, np.float64(s), {"a": np.float64(1.0)})
        assert out.dtype is (x * np.float64(s)).dtype is md.float32 and out.tolist() == [s + 1.0] * 2
    assert f.compiles == 1
    choose = md.jit(lambda x, s: x * s if s else x)
    assert [choose(md.ones(1), np.float64(s)).item() for s in (2.0, 0.0, 3.0, 0.0)] == [2.0, 1.0, 3.0, 1.0] and choose.compiles == 2


def test_jax_arrays_keep_no_weak_type_and_are_not_given_away():
    jax = pytest.importorskip("jax")
    weak, plain = jax.numpy.asarray(2.0), jax.numpy.arange(6.0)
    with md.use_backend("jax"):
        with pytest.raises(ValueError, match="cannot share"):
            md.asarray(weak, copy=False)
        x = md.from_dlpack(weak)
        assert not x.payload.weak_type and (x + x).dtype is x.dtype is md.float32 and (x * 1.5).dtype is md.float32
        md.jit(lambda x: x * 3.0, donate=(0,))(md.asarray(plain, copy=False))
        assert plain.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_scalars_of_numpy_are_items_of_a_loader_like_arrays():
    out = md.data.default_convert({"x": np.float32(1.5), "n": np.int64(3), "name": np.str_("a"), "y": 2.0})
    assert out["x"].dtype is md.float32 and out["n"].dtype is md.int64 and out["name"] == "a" and out["y"] == 2.0


def test_torch_is_not_loaded_for_arrays_of_others():
    import subprocess

    code = "import numpy, minidl as md, sys; md.asarray(numpy.ones(2)); md.asarray(memoryview(b'a')); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"MINIDL_BACKEND": "numpy"})
