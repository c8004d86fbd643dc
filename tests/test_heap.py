"""What a program makes on its way stays with the heap from call to call."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

import minidl as md

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is freed moves thresholds of glibc's alone")
COUNT = """
import resource

def faults(call):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

"""


def last(text: str, **environment: str) -> int:
    """What the text prints in a process of its own."""
    there = os.environ | environment
    return int(subprocess.run([sys.executable, "-c", COUNT + text], env=there, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_what_a_call_makes_on_its_way_faults_in_the_first_calls_only(backend):
    pytest.importorskip(backend)
    text = f"""
import numpy as np
import minidl as md
md.jit(lambda x: x + 1.0, backend={backend!r})(md.ones(3))
print([faults(lambda: [np.ones(2**18) for _ in range(8)]) for _ in range(8)][-1])
"""
    assert last(text) < 100, "of 4096 pages"


def test_temporary_memory_of_an_xla_program_is_asked_for_in_parts():
    pytest.importorskip("jax")
    text = """
import os
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
import minidl as md
md.set_backend("jax")
x = md.ones((2048, 1024))

def f(x):  # products, which XLA does not fuse: five matrices of 8 MB are alive at once
    made = [x]
    for k in range(5):
        made.append((made[-1][:1024] @ x.T)[:, :1024] @ x[:1024] / 1024.0)
        made[-1] = md.concat([made[-1], made[-1]])
    return sum((a * b).sum() for a, b in zip(made, made[::-1]))

g = md.jit(f)
print(min(faults(lambda: g(x).item()) for _ in range(6)))
"""
    assert last(text) < 1000, "of more than 8192 pages"


def test_what_a_user_has_set_for_the_heap_stays():
    text = """
import numpy as np
import minidl as md
md.jit(lambda x: x + 1.0)(md.ones(3, backend="numpy"))
print([faults(lambda: [np.ones(2**18) for _ in range(8)]) for _ in range(8)][-1])
"""
    assert last(text, MALLOC_MMAP_THRESHOLD_="131072") > 1000, "it gives all back, as it was told to"


def test_where_so_much_is_not_to_be_had_the_heap_stays_as_it_is(monkeypatch):
    def refused(*args):
        raise MemoryError

    room = importlib.import_module("minidl.rewrites.heap.on_numpy")
    monkeypatch.setattr(np, "empty", refused)
    importlib.reload(room)


def test_an_xla_without_that_option_compiles_as_ever(monkeypatch):
    pytest.importorskip("jax")
    room = importlib.import_module("minidl.rewrites.heap.on_jax")
    monkeypatch.setattr(room, "HEAPS", {"xla_option_of_another_year": 1})
    x = md.ones((3,), backend="jax")
    assert md.jit(lambda x: x + 1.0)(x).tolist() == [2.0] * 3
    monkeypatch.setattr(room, "HEAPS", {"xla_multiheap_size_constraint_per_heap": "much"})
    with pytest.raises(Exception, match="much"):
        md.jit(lambda x: x + 2.0)(x)
