"""md.fft: values and dtypes of numpy.fft on every backend, derivatives against torch.autograd and jax.grad, and one text for each error."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as md

rng = np.random.default_rng(5)
ONE = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
SEVERAL = ("fftn", "ifftn", "rfftn", "irfftn")
REAL = ("rfft", "rfftn", "ihfft")
NORMS = ("backward", "ortho", "forward")
UNIT = {"float32": 1e-6, "complex64": 1e-6, "float64": 4e-15, "complex128": 4e-15}


def draw(shape, dtype):
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if dtype.startswith("c") else x).astype(dtype)


def check(name, x, **how):
    """The value and dtype that NumPy gives."""
    want = getattr(np.fft, name)(x, **how)
    got = getattr(md.fft, name)(md.asarray(x), **how)
    assert got.dtype.name == want.dtype.name and got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), want, atol=UNIT[want.dtype.name] * max(1.0, np.abs(want).max(initial=0) * 3), rtol=0)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@settings(max_examples=60)
@given(
    name=st.sampled_from(ONE), shape=st.lists(st.integers(1, 6), min_size=1, max_size=3), dtype=st.sampled_from(list(UNIT)),
    n=st.none() | st.integers(1, 9), axis=st.integers(-3, 2), norm=st.sampled_from(NORMS),
)  # fmt: skip
def test_one_axis_as_numpy(backend, name, shape, dtype, n, axis, norm):
    axis = axis % len(shape) - (len(shape) if axis < 0 else 0)
    dtype = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype) if name in REAL else dtype
    if name in ("irfft", "hfft") and n is None and shape[axis] == 1:
        n = 1
    with md.use_backend(backend):
        check(name, draw(shape, dtype), n=n, axis=axis, norm=norm)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@settings(max_examples=40)
@given(st.sampled_from(SEVERAL), st.data(), st.sampled_from(list(UNIT)), st.sampled_from(NORMS))
def test_several_axes_as_numpy(backend, name, data, dtype, norm):
    shape = data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=3))
    axes = data.draw(st.none() | st.permutations(range(len(shape))).map(lambda p: p[: max(1, len(p) - 1)]))
    s = data.draw(st.none() | st.lists(st.integers(1, 5), min_size=len(axes or shape), max_size=len(axes or shape)))
    dtype = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype) if name in REAL else dtype
    with md.use_backend(backend):
        check(name, draw(shape, dtype), s=s, axes=axes if axes is not None or s is None else list(range(len(shape))), norm=norm)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_backend_keeps_the_precision(backend, dtype, traced):
    """All functions at once, on the backends that compile too."""
    x = draw((3, 4), dtype)

    def every(x):
        return {n: getattr(md.fft, n)(x, norm="ortho") for n in (*ONE, *SEVERAL)}

    for name, got in (md.jit(every) if traced else every)(md.asarray(x)).items():
        want = getattr(np.fft, name)(x, norm="ortho")
        assert got.dtype.name == want.dtype.name, name
        np.testing.assert_allclose(got.numpy(), want, atol=4 * UNIT[want.dtype.name], rtol=0, err_msg=name)


def test_other_dtypes(backend):
    for dtype in ("float16", "bfloat16"):
        x = md.asarray(np.float32([1, 2, 3])).to(md.dtypes.by_name[dtype])
        assert md.fft.rfft(x).dtype is md.complex64 and md.fft.fft(x).dtype is md.complex64
        assert md.grad(lambda x: md.sum(md.abs(md.fft.rfft(x))))(x).dtype is x.dtype
    assert md.fft.fft(md.arange(3)).dtype is md.complex64 and md.fft.rfft(md.arange(3)).tolist()[0] == 3


def test_empty_batches_and_padding_from_nothing(backend):
    empty = md.zeros((0, 4))
    assert md.fft.fft(empty).shape == (0, 4) and md.fft.rfft(empty).shape == (0, 3) and md.fft.irfft(empty).shape == (0, 6)
    assert md.fft.ifftn(md.zeros((2, 0, 3)), axes=(0, 2)).shape == (2, 0, 3)
    assert md.fft.fft(md.zeros((0,)), n=3).tolist() == [0j, 0j, 0j]
    assert md.fft.irfft(md.zeros((0,)), n=3).tolist() == [0.0, 0.0, 0.0]


def test_vmap_is_a_stack(backend):
    x = draw((2, 3, 4), "float64")
    got = md.vmap(lambda x: md.fft.irfftn(md.fft.rfftn(x) * 2.0, s=(3, 4)), in_axes=2)(md.asarray(x.transpose(1, 2, 0)))
    np.testing.assert_allclose(got.numpy(), 2 * x, atol=1e-14)


def test_imaginary_parts_that_are_not_read(backend):
    z = np.array([1 + 5j, 2 + 1j, 3 - 7j])
    np.testing.assert_allclose(md.fft.irfft(md.asarray(z)).numpy(), np.fft.irfft(z), atol=1e-15)
    g = md.grad(lambda z: md.sum(md.fft.irfft(z) * md.asarray([1.0, 2.0, 4.0, 8.0], dtype=md.float64)))(md.asarray(z)).numpy()
    assert g.imag[0] == g.imag[2] == 0 and g.imag[1] != 0


# ---- derivatives ------------------------------------------------------------------------------------------------------------------------
CASES = [("fft", (2, 5), {"axis": 0}), ("ifft", (4, 3), {"n": 6, "axis": 0, "norm": "forward"}), ("fftn", (2, 3, 2), {"norm": "ortho"}),
         ("rfft", (3, 4), {"norm": "ortho"}), ("rfft", (5,), {"n": 3}), ("rfftn", (3, 5), {}), ("irfft", (2, 3), {"n": 5}), ("irfft", (2, 3), {}),
         ("irfftn", (3, 2), {"norm": "forward"}), ("hfft", (4,), {}), ("ihfft", (2, 6), {"norm": "ortho"})]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "how"), CASES)
def test_gradients_are_those_of_torch_and_jax(name, shape, how):
    """Of a real function that every coefficient enters with its own weight, and twice."""
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    x = draw(shape, "float64" if name in REAL else "complex128")
    w = draw(np.shape(getattr(np.fft, name)(x, **how)), "complex128")

    def loss(lib, fft, weights):
        def f(x):
            out = getattr(fft, name)(x, **how)
            d = out * out * weights
            return lib.sum(lib.real(d)) + lib.sum(lib.imag(out * weights))

        return f

    ours = md.grad(loss(md, md.fft, md.asarray(w)))(md.asarray(x)).numpy()
    t = torch.tensor(x, requires_grad=True)
    kwargs = {"dim" if k == "axis" else k: v for k, v in how.items()}
    out = getattr(torch.fft, name)(t, **kwargs)
    ((out * out * torch.tensor(w)).real.sum() + (out * torch.tensor(w)).imag.sum()).backward()
    np.testing.assert_allclose(ours, t.grad.resolve_conj().numpy(), atol=1e-12)
    if name != "ihfft" and "norm" not in how:
        with jax.enable_x64(True):
            theirs = np.conj(jax.grad(loss(jax.numpy, jax.numpy.fft, w))(jax.numpy.asarray(x)))
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_forward_mode_and_second_order(backend):
    x, v = (md.asarray(draw((2, 4), "float64")) for _ in "xv")

    def f(x):
        return md.sum(md.square(md.abs(md.fft.rfftn(x))) * md.asarray(np.arange(6.0).reshape(2, 3)))

    hvp = md.jvp(md.grad(f), (x,), (v,))[1].numpy()
    again = md.grad(lambda x: md.sum(md.grad(f)(x) * v))(x).numpy()
    np.testing.assert_allclose(hvp, again, atol=1e-11)
    np.testing.assert_allclose(hvp, md.grad(f)(v).numpy(), atol=1e-11)  # f is quadratic


# ---- frequencies and shifts -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_frequencies(backend, n):
    for name in ("fftfreq", "rfftfreq"):
        np.testing.assert_array_equal(getattr(md.fft, name)(n, d=0.25, dtype=md.float64).numpy(), getattr(np.fft, name)(n, d=0.25))
        assert getattr(md.fft, name)(n).dtype is md.float32


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.data())
@settings(max_examples=40)
def test_shifts(shape, data):
    x = np.arange(np.prod(shape)).reshape(shape)
    axes = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1) | st.permutations(range(len(shape))).map(lambda p: tuple(p[:2])))
    for name in ("fftshift", "ifftshift"):
        np.testing.assert_array_equal(getattr(md.fft, name)(md.asarray(x), axes=axes).numpy(), getattr(np.fft, name)(x, axes=axes))


# ---- errors -----------------------------------------------------------------------------------------------------------------------------
ERRORS = [
    (lambda x: md.fft.fft(x, axis=2), IndexError, "fft: axis 2 is out of range for 2 dimensions"),
    (lambda x: md.fft.fft(x, n=0), ValueError, "fft: 0 points; one or more are wanted"),
    (lambda x: md.fft.ifft(x, n=1.5), TypeError, "ifft: n must be an integer or None, not 1.5"),
    (lambda x: md.fft.fft(x, norm="half"), ValueError, "fft: norm 'half' is none of backward, ortho, forward"),
    (lambda x: md.fft.fft(x[:, :0]), ValueError, "fft: axis 1 of c64[2,0] is empty; a transform needs one point or more"),
    (lambda x: md.fft.rfft(x[:, :0]), ValueError, "rfft: axis 1 of f32[2,0] is empty; a transform needs one point or more"),
    (lambda x: md.fft.rfft(x + 1j), TypeError, "rfft: dtype c64 is not supported; it wants a real dtype, for complex numbers use fft"),
    (lambda x: md.fft.rfftn(x + 1j), TypeError, "rfftn: dtype c64 is not supported; it wants a real dtype, for complex numbers use fftn"),
    (lambda x: md.fft.irfft(x[:, :1]), ValueError, "irfft: axis 1 of c64[2,1] stands for 0 points; say how many with n"),
    (lambda x: md.fft.fftn(x, s=(2, 2), axes=(0,)), ValueError, "fftn: 2 sizes for 1 axes"),
    (lambda x: md.fft.fftn(x, axes=(0, -2)), ValueError, "fftn: axes (0, -2) name an axis twice"),
    (lambda x: md.fft.ifftn(x, s=(1, 2, 3)), ValueError, "ifftn: 3 sizes for c64[2,3]"),
    (lambda x: md.fft.fftfreq(4, dtype=md.int64), TypeError, "fftfreq: dtype i64 is not supported; it wants a float dtype"),
]


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:30] for e in ERRORS])
def test_errors_read_the_same_everywhere(backend, call, error, text, traced):
    with pytest.raises(error, match=re.escape(text)):
        (md.jit(call) if traced else call)(md.ones((2, 3)))
