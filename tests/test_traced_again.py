"""Who traces a function again and again is told once, with the reason; what can be one program is one."""

from __future__ import annotations

import warnings

import pytest

import minidl as md
from minidl.jitting import MANY, JitWarning


def times(f, arguments):
    """How often f was traced for these arguments, and what was said of it."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for a in arguments:
            f(a)
    assert all(w.category is JitWarning and w.filename == __file__ for w in found)
    return f.compiles, [str(w.message) for w in found]


@pytest.mark.parametrize("shapes, said", [(MANY, 0), (MANY + 1, 1), (MANY + 5, 1)])
def test_many_shapes_are_told_once(shapes, said):
    compiles, texts = times(md.jit(lambda x: x.sum()), [md.ones((n + 1,)) for n in range(shapes)] * 2)
    assert compiles == shapes and len(texts) == said
    for text in texts:
        assert f"({MANY},) no longer holds; now it is ({MANY + 1},)" in text and "pad to a few shapes" in text


def test_a_global_that_counts_is_named():
    held = {"n": 0.0}
    f = md.jit(lambda x: x * held["n"])

    def calls():
        for _ in range(MANY + 1):
            held["n"] += 1.0
            yield md.ones(2)

    _, (text,) = times(f, calls())
    assert f"dict['n'] == {MANY}.0 no longer holds; now it is {MANY + 1}.0" in text


def test_a_program_that_fits_one_call_says_why():
    hidden = {i: md.ones(2) for i in range(5000)}
    compiles, (text,) = times(md.jit(lambda x: x * hidden[3]), [md.ones(2)] * 12)
    assert compiles == 12 and "fits one call only: it read f32[2] from where guards do not look" in text


def test_a_dtype_is_named():
    f = md.jit(lambda x: x + 1)
    f(md.ones(2))
    assert any("a0.dtype is float32 no longer holds; now it is minidl.int32" in t for t in f.programs[0].why((md.ones(2, dtype=md.int32),), {}))


def behind_a_copy(x):
    return x.permute(1, 0).reshape(-1)


@pytest.mark.parametrize("write", [lambda v: v.add_(1.0), lambda v: v[1:].mul_(2.0), lambda v: v.detach().add_(1.0)], ids=["add", "piece", "detach"])
@pytest.mark.parametrize("middle", [True, False], ids=["held", "gone"])
def test_writes_behind_a_copy_are_one_program(write, middle):
    def f(v):
        write(v)
        return v.sum()

    compiled, base = md.jit(f), md.arange(6.0).reshape(2, 3) + 0.0
    for _ in range(4):
        between = base.permute(1, 0)
        v, w = between.reshape(-1), behind_a_copy(base)
        if not middle:
            del between
        assert compiled(v).item() == f(w).item() and v.tolist() == w.tolist()
        assert base.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert compiled.compiles == 1
    alone, row = md.arange(6.0) + 0.0, md.zeros((2, 6))
    v = row[1]
    assert compiled(alone).item() == f(md.arange(6.0) + 0.0).item() and compiled.compiles == 1
    compiled(v)  # which does reach its base
    w = md.zeros((2, 6))
    f(w[1])
    assert row.tolist() == w.tolist() and v.tolist() == w[1].tolist() and compiled.compiles == 2
    before = base.tolist()
    compiled(v := behind_a_copy(base))
    assert base.tolist() == before and compiled.compiles == 2


def test_a_symbol_that_escaped_says_so_wherever_it_is_used():
    kept, outside = [], md.ones(2, 3)
    row = outside[0]

    def f(x):
        kept.extend([x[0], x * 2.0, row.detach()])
        return x

    md.jit(f)(outside)
    for symbol in kept:
        for use in (lambda s: s + 1.0, lambda s: md.ones(3) + s, lambda s: s.add_(1.0), lambda s: outside[0].copy_(s), lambda s: row.add_(s)):
            with pytest.raises(RuntimeError, match="symbolic tensor was used after its trace ended"):
                use(symbol)


@pytest.mark.parametrize("transform", [md.jit, md.vmap], ids=["jit", "vmap"])
def test_a_tensor_stays_on_its_backend_inside(transform):
    pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match=r"to: inside md.jit, md.vmap or a loop's body a tensor stays .* move it to torch \(cpu\) before the call"):
        transform(lambda x: x.to(backend="torch"))(md.ones((2, 3), backend="numpy"))
