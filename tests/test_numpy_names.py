"""NumPy's functions of minidl.idioms.of_numpy: values, shapes and dtypes as NumPy's, eager and traced; derivatives as those of jax.numpy."""

from __future__ import annotations

import re

import numpy as np
import pytest

import minidl as md

CALLS = """
nanmax(n) | nanmax(n,axis=1) | nanmin(n,axis=0,keepdims=True) | nanargmax(m,axis=1) | nanargmin(n) | nanprod(n,axis=0) | nancumsum(n)
nancumsum(n,axis=1) | nancumprod(n,axis=0) | nanvar(n) | nanvar(n,axis=1,ddof=1) | nanvar(n,axis=(0,1),keepdims=True) | nanstd(n,axis=0)
nanstd(n,ddof=1) | nanmax(i) | nanvar(i) | nanquantile(m,.3) | nanquantile(m,[.2,.7],axis=1,keepdims=True)
nanquantile(n,.3,axis=0,method='lower') | nanquantile(n,.3,axis=0,method='higher') | nanquantile(m,.5,axis=0,method='nearest')
nanquantile(m,.3,axis=0,method='midpoint') | nanpercentile(m,[30],axis=0) | nanmedian(m,axis=1) | nanmedian(x,(0,1)) | nansum(n,axis=1)
nanmean(n,axis=0,keepdims=True) | average(x) | average(x,axis=1,weights=w) | average(x,axis=1,weights=w,returned=True) | average(x,0,x*x)
ptp(x,axis=1) | ptp(i,axis=0,keepdims=True) | interp(x,s,f) | interp(v,s,f,left=-9.,right=9.) | interp(s,s,f) | interp(v,s,f,period=1.5)
interp(n,s,f) | interp(v,s[:1],f[:1]) | interp(0.3,s,f) | convolve(v,w) | convolve(v,w,'same') | convolve(w,v,'valid')
convolve(v,w[:3],'same') | convolve(j,k,'same') | convolve(z,w) | correlate(v,w) | correlate(w,v,'full') | correlate(v,w[:3],'same')
correlate(z,z[:3],'full') | correlate(z[:3],z,'same') | digitize(x,s) | digitize(s,s,right=True) | digitize(s,s[::-1])
digitize(s,s[::-1],right=True) | histogram(x) | histogram(x,5,(-1.,1.)) | histogram(x,s) | histogram(i,4) | histogram(x,4,weights=x*x)
histogram(x,s,density=True) | histogram(x[:0],3) | histogram(c,3) | gradient(v) | gradient(x) | gradient(v,0.5) | gradient(v,t)
gradient(x,2.,.5) | gradient(v,t,edge_order=2) | gradient(x,axis=(0,1),edge_order=2) | gradient(v[:2]) | polyval(w,x) | polyval(k,i)
array_equal(x,x) | array_equal(n,n,equal_nan=True) | array_equal(n,n) | array_equal(x,v) | diagonal(x)
""".replace("\n", "|").strip(" |").split("|")
G = np.random.default_rng(0)
DATA = {
    "x": G.normal(size=(3, 4)), "n": G.normal(size=(3, 4)), "m": G.normal(size=(3, 4)), "i": G.integers(0, 4, (3, 4)), "v": G.normal(size=7),
    "w": G.normal(size=4), "s": np.sort(G.normal(size=5)), "f": G.normal(size=5), "j": G.integers(-3, 4, 6), "k": G.integers(-3, 4, 3),
    "z": G.normal(size=6) + 1j * G.normal(size=6), "t": np.sort(G.normal(size=7)), "c": np.full(4, 2.0),
}  # fmt: skip
DATA["n"][0, 1] = DATA["n"][2] = np.nan
DATA["n"][1, 0] = np.inf
DATA["m"][0, 1] = DATA["m"][2, 0] = np.nan


def called(call: str, space):
    names = sorted(k for k in DATA if re.search(rf"\b{k}\b(?!=)", call))
    return names, lambda *a: md.tree.leaves(eval(f"space.{call}", {"space": space, **dict(zip(names, a, strict=True))}))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_values_are_numpys_eager_and_traced():
    programs = []
    for call in CALLS:
        names, theirs = called(call.strip(), np)
        ours = called(call.strip(), md)[1]
        programs.append((call, names, ours, [np.asarray(v) for v in theirs(*(DATA[k] for k in names))]))
    data = {k: md.tensor(v) for k, v in DATA.items()}
    traced = md.jit(lambda data: [ours(*(data[k] for k in names)) for _, names, ours, _ in programs])(data)
    for (call, names, ours, want), compiled in zip(programs, traced, strict=True):
        for got in (ours(*(data[k] for k in names)), compiled):
            for a, b in zip(got, want, strict=True):
                assert a.shape == b.shape, call
                exact = not any(k in "ijk" for k in names) or a.numpy().dtype.kind == "i"  # integers become float32, where NumPy's become float64
                assert a.numpy().dtype == b.dtype or not exact, call
                np.testing.assert_allclose(a.numpy(), b, rtol=1e-12 if exact else 1e-6, atol=1e-12 if exact else 1e-6, err_msg=call)


def test_derivatives_are_those_of_jax():
    jax = pytest.importorskip("jax")
    calls = """nanmax(m,axis=1) | nanprod(m,axis=0) | nanvar(m,axis=1) | nanstd(m,ddof=1) | nanquantile(m,.2,axis=1) | nanmedian(m) |
    average(x,1,w) | ptp(x) | interp(x,s,f) | interp(v,s,f,period=1.5) | convolve(v,w,'same') | correlate(v,w) | gradient(v,t) |
    polyval(w,x) | histogram(x,4,(-9.,9.),weights=x*x)"""
    programs = [(c, *called(c.strip(), md), called(c.strip(), jax.numpy)[1]) for c in calls.replace("\n", " ").split("|")]
    total = lambda outs: sum((o * o).sum() for o in outs if "int" not in str(o.dtype))
    with jax.enable_x64(True):
        want = [jax.grad(lambda *a, f=theirs: total(f(*a)), range(len(names)))(*(DATA[k] for k in names)) for _, names, _, theirs in programs]
    data = {k: md.tensor(v) for k, v in DATA.items()}
    slopes = lambda f, n, data: md.grad(lambda *a: total(f(*a)), argnums=tuple(range(len(n))))(*(data[k] for k in n))
    ours = md.jit(lambda data: [slopes(f, n, data) for _, n, f, _ in programs])
    for (call, *_), got, wanted in zip(programs, ours(data), want, strict=True):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a.numpy(), np.nan_to_num(b), rtol=1e-9, atol=1e-9, err_msg=call)  # never nan where something else is finite


@pytest.mark.parametrize(("call", "message"), [
    (lambda: md.interp(md.ones(2), md.ones(2), md.ones(3)), r"interp: xp of shape \(2,\) and fp of shape \(3,\)"),
    (lambda: md.convolve(md.ones(2), md.ones(0)), "convolve: two vectors with elements"),
    (lambda: md.convolve(md.ones(2), md.ones(2), "most"), 'convolve: mode is "full", "same" or "valid"'),
    (lambda: md.average(md.ones((2, 3)), 1, md.ones(2)), "average: weights of shape"),
    (lambda: md.gradient(md.ones(1)), "gradient: 1 samples along axis 0"),
    (lambda: md.gradient(md.ones((2, 2)), 1.0, 1.0, 1.0), "gradient: 3 distances for 2 axes"),
    (lambda: md.histogram(md.ones(2), 0), "histogram: 0 bins"),
    (lambda: md.nanquantile(md.ones(0), 0.5), "nanquantile: an array of shape"),
    (lambda: md.nanquantile(md.ones(2), 0.5, method="x"), "nanquantile: method is one of"),
])  # fmt: skip
def test_what_cannot_be_computed_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
