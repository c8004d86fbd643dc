"""tried: what was tried for speed and is kept only where it pays: backward passes replayed as programs, and one graph split over two engines.

Replay: a whole eager step with it over the same without it, on each backend. Split: the gradient of a loss, its equations cut in two at a quarter, a
half and three quarters, each part on another engine, the values that cross handed over; the best such split over the best engine alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np

from benchmarks import sides, timing
from benchmarks.timing import Side
from benchmarks.workloads import cnn, gelu_ln, mlp, tiny100, training

#: Parts of a graph that come first.
CUTS = (0.25, 0.5, 0.75)


def replaying(side: Side, backend: str, on: bool) -> Side:
    """A side whose eager backward passes are replayed, or are not."""
    import minidl as md
    from minidl import replay

    xp = md.extend.get_backend(backend)
    known, ordinary = replay.backward, lambda *_: False
    if not type(xp).fuses:  # who has a fuse of its own is asked for it where a pass is not replayed
        xp.fuse = lambda rule, static: partial(rule, xp.bare)

    def switched(run: Callable[[], Any]) -> Callable[[], Any]:
        def step() -> Any:
            xp.fuses, replay.backward = on or type(xp).fuses, known if on else ordinary
            try:
                return run()
            finally:
                del xp.fuses
                replay.backward = known

        return step

    return Side(switched(side.step), switched(side.answer), side.sync)


def replay(bench: Any, backend: str) -> None:
    """The steps of three workloads."""
    way = sides.Way(backend, False)

    def small() -> Side:
        import minidl as md

        x, w = way.tensors((tiny100.X, tiny100.W))
        x.requires_grad_(), w.requires_grad_()

        def step() -> Any:
            x.grad = w.grad = None
            tiny100.chain(md, x, w).backward()
            return x.grad

        return Side(step, lambda: [np.asarray(step().numpy())], sides.wait)

    make: dict[str, Callable[[], Side]] = {
        "tiny100": small,
        "mlp": lambda: training.minidl_side(mlp.task(), way),
        "cnn": lambda: training.minidl_side(cnn.task(), way),
    }
    for name, build in make.items():
        pair = {("with" if on else "without"): (lambda build=build, on=on: replaying(build(), backend, on)) for on in (True, False)}
        label = f"tried, replay, {name} on {backend}"
        times = bench.measure(label, pair, 1e-3, 3.0)
        bench.ratio(label, times, "with", "without")


def on(graph: Any, engine: Any) -> Callable[[Sequence[Any]], tuple]:
    """A graph on an engine, its arguments handed over from numpy."""
    run, put, taken = engine.compile(graph), engine.ways.put, engine.ways.classes
    return lambda values: run(*[v if v.__class__ in taken else put(v) for v in values])


def halves(graph: Any, cut: float, first: Any, second: Any) -> Callable[[Sequence[Any]], tuple]:
    """The graph in two parts; what crosses goes through NumPy, as arrays do that change hands."""
    import minidl as md

    n = round(len(graph.equations) * cut)
    before, after = graph.equations[:n], graph.equations[n:]
    inside = {v for e in before for v in e.outputs}
    read = dict.fromkeys(a for e in after for a in e.inputs if isinstance(a, md.extend.Var))
    cross = [v for v in dict.fromkeys([*read, *graph.outputs]) if v in inside]
    given = [v for v in graph.inputs if v in read]
    places = [graph.inputs.index(v) for v in given]
    run = on(md.Graph(graph.inputs, before, cross), first)
    rest = on(md.Graph([*cross, *given], after, graph.outputs), second)
    home = first.home
    return lambda values: rest([*(md.extend.handed(v, first.xp, home) for v in run(values)), *(values[k] for k in places)])


def split(bench: Any, label: str, loss: Callable[..., Any], arrays: Sequence[np.ndarray]) -> None:
    """Every pair of engines at every cut, against each engine alone."""
    import minidl as md

    names = [b for b in ("numpy", "numba", "torch", "jax") if b in bench.backends and md.backends().get(b) is True]
    if len(names) < 2:
        return
    home = md.extend.get_backend("numpy")
    graph = md.trace(md.value_and_grad(loss, argnums=tuple(range(len(arrays)))))(*[md.tensor(a, backend="numpy") for a in arrays])
    engines = {name: md.extend.Engine(home, name) for name in names}

    def side(run: Callable[[Sequence[Any]], tuple], last: Any) -> Side:
        return Side(lambda: run(arrays), lambda: [np.asarray(last.to_numpy(o)) for o in run(arrays)], last.wait)

    builders: dict[str, Callable[[], Side]] = {n: (lambda e=e: side(on(graph, e), e.xp)) for n, e in engines.items()}
    for a, b in permutations(names, 2):
        for cut in CUTS:
            builders[f"{a} then {b} at {cut}"] = lambda a=a, b=b, cut=cut: side(halves(graph, cut, engines[a], engines[b]), engines[b].xp)  # type: ignore[misc]
    times = bench.measure(label, builders, 1e-2, 12.0)
    alone, parts = ({n: t for n, t in times.items() if (" then " in n) is apart} for apart in (False, True))
    if alone and parts:
        best, other = (min(found, key=lambda n: found[n].best) for found in (parts, alone))
        bench.ratio(label, times, best, other)


def mlp_loss(x: Any, w: Any, v: Any) -> Any:
    """Two layers."""
    import minidl as md

    return (md.relu(x @ w) @ v).logsumexp(1).mean()


def attention_loss(x: Any, w: Any, v: Any) -> Any:
    """A block of attention with its norm."""
    import minidl as md

    F = md.nn.functional
    q, k, u = ((F.layer_norm(x, x.shape[-1:]) @ w).reshape((x.shape[0], x.shape[1], 3, 4, -1))[:, :, j].swapaxes(1, 2) for j in range(3))
    y = F.scaled_dot_product_attention(q, k, u, is_causal=True).swapaxes(1, 2).reshape(x.shape)
    return (x + F.gelu(y @ v, approximate="tanh")).square().mean()


def run(bench: Any) -> None:
    """Both."""
    for backend in bench.backends:
        if backend in ("numpy", "torch", "jax"):
            replay(bench, backend)
    rng = np.random.default_rng(0)
    w: Callable[..., np.ndarray] = lambda *shape: (rng.normal(size=shape) / 16).astype(np.float32)
    import minidl as md

    split(bench, "tried, split, gelu_ln", lambda x: gelu_ln.with_layers(md, x).sum(), (w(1024, 1024),))
    split(bench, "tried, split, mlp", mlp_loss, (w(128, 784), w(784, 512), w(512, 10)))
    split(bench, "tried, split, attention", attention_loss, (w(8, 128, 128), w(128, 384), w(128, 128)))
    timing.progress("tried: done")
