"""What NumPy programs return begins on a boundary of 64 bytes, so jax shares its memory; and NumPy's choice of memory stays the program's own."""

import contextvars
import ctypes
import ctypes.util
import gc
import importlib.util
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import minidl as md
from minidl.backends import get, numpy_backend, numpy_memory
from minidl.handover import handed

room = pytest.importorskip("minidl.rewrites.boundaries.on_numpy")
if room.SETTING is None:
    pytest.skip("this C library has no memalign", allow_module_level=True)
pytestmark = pytest.mark.usefixtures("on_numpy")
SMALL, LEAST = numpy_memory.SMALL, numpy_memory.LEAST


def many(x, y):
    """Results of ufuncs, products, reductions and moves, of loops and their carry, and what would share memory with an argument."""
    a = md.tanh(x * y)
    last, stack = md.scan(lambda c, row: (c * 0.5 + row, c), x[0], y)
    moved = (x.T, md.concat([x, y]), md.where(x > y, x, y), md.cumsum(x, axis=0), x.astype(md.float64), md.argsort(x, axis=1))
    return [a, a @ y, a.sum(1, keepdims=True) * x, md.softmax(x, axis=1), x, *moved, last, stack]


def address(t):
    return t.payload.ctypes.data


@pytest.mark.parametrize("n", [4, 32, 40, 100, 181, 182, 300, 800])
def test_results_begin_on_boundaries_and_jax_shares_them(n):
    x, y = (md.tensor(np.random.default_rng(k).normal(size=(n, n)).astype(np.float32)) for k in range(2))
    f = md.jit(many)
    for _ in range(2):
        found = [t for t in f(x, y) if t.payload.nbytes >= SMALL]
        assert bool(found) == (n >= 32)
        assert all(t.payload.nbytes >= room.LARGE_PAGES or address(t) % 64 == 0 for t in found)
    for t in found if pytest.importorskip("jax") and n in (32, 100, 300) else ():
        assert handed(t.payload, get("numpy"), get("jax")).unsafe_buffer_pointer() == address(t)
    for a, b in zip(f(x, y), many(x, y), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


def test_every_array_of_a_program_of_small_ones_begins_there(monkeypatch):
    seen = []
    monkeypatch.setitem(numpy_backend.KERNELS, "cumsum", lambda x, **how: seen.append(x.ctypes.data) or np.cumsum(x, 0))
    f = md.jit(lambda x: md.cumsum(md.exp(md.sin(x) + x * x), axis=0) * 2.0)
    x = md.tensor(np.ones(5000, np.float32))
    results = [f(x) for _ in range(8)]
    assert len(seen) == 8 and all(a % 64 == 0 for a in [*seen, *map(address, results)])


def test_state_and_inputs_begin_there():
    with md.use_backend("numpy"):
        arrays = [md.zeros(1500), md.full((40, 40), 2.0), md.tensor(np.ones(3000, np.float32)), md.ones(40_000)]
    assert all(address(t) % 64 == 0 for t in arrays)


def chosen():
    """The names of the settings in this thread's context, but for those of other libraries."""
    return {v.name: value for v, value in contextvars.copy_context().items() if v is room.SETTING[0]}


def test_nothing_is_left_set():
    before, old = chosen(), np.geterr()
    x = md.tensor(np.ones((40, 40), np.float32))
    f = md.jit(lambda x: md.log(x - 1.0) @ x)
    assert np.isinf(f(x).numpy()).all()
    assert chosen() == before and np.geterr() == old
    run = get("numpy").compile(md.trace(lambda x: md.sin(x) @ x)(x))
    for bad in (np.ones((40, 41), np.float32), "x"):
        with pytest.raises((ValueError, TypeError)):
            run(bad)
        assert chosen() == before and np.geterr() == old
    with pytest.raises(np.linalg.LinAlgError):
        room.on_boundary(np.linalg.cholesky, np.zeros((40, 40)))
    assert chosen() == before


def test_arrays_outlive_what_made_them_and_their_thread():
    kept, fs = [], [md.jit(lambda x: md.exp(x) * 2.0)]

    def work(n):
        x = md.tensor(np.full(2000 + n, 0.0, np.float32))
        for _ in range(50):
            kept.append(fs[0](x).numpy())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    fs.clear()
    gc.collect()
    grown = [np.concatenate([a, a]) for a in kept]
    for a in kept[::2]:
        a.resize(10 * a.size, refcheck=False)  # the C library moves it
    assert all((a[:2000] == 2.0).all() for a in (*kept, *grown))


def no_library(name):
    raise TypeError("a name is wanted")  # as on Windows


OTHERS = {
    "Windows": (ctypes, "CDLL", no_library), "macOS": (ctypes, "CDLL", lambda name: object()), "32 bits": (ctypes, "sizeof", lambda kind: 4),
    "PyPy": (ctypes, "pythonapi", None), "another NumPy": (np._core._multiarray_umath, "_ARRAY_API", object()),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_elsewhere_nothing_is_set(name, monkeypatch):
    monkeypatch.setattr(*OTHERS[name])
    spec = importlib.util.spec_from_file_location("elsewhere", room.__file__)
    elsewhere = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(elsewhere)
    assert elsewhere.SETTING is None


def test_arrays_are_freed_where_glibc_checks_malloc():
    library = ctypes.util.find_library("c_malloc_debug")
    if library is None:
        pytest.skip("this C library has no such check")
    text = "import minidl as md; f = md.jit(lambda x: md.exp(x) * 2.0); print([f(md.ones(5000)).shape for _ in range(3)])"
    there = os.environ | {"LD_PRELOAD": library, "MALLOC_CHECK_": "3"}
    assert "5000" in subprocess.run([sys.executable, "-c", text], env=there, capture_output=True, text=True, check=True).stdout


def test_without_memalign_programs_are_the_same(monkeypatch):
    x = md.tensor(np.random.default_rng(0).normal(size=(60, 60)).astype(np.float32))
    wanted = [t.numpy() for t in md.jit(many)(x, x * 2)]
    for module in (numpy_memory, numpy_backend):
        monkeypatch.setattr(module, "boundaries", lambda: None)
    for a, b in zip(md.jit(lambda x, y: many(x, y))(x, x * 2), wanted, strict=True):
        assert np.array_equal(a.numpy(), b)
