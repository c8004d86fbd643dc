"""Layers, losses and optimizers with drawn arguments and shapes against torch's, in float64: values, gradients of first and second order, state.

Each draw is of the mathematical domain: strides, dilations, groups, borders that crop, empty batches, inputs without a batch, masks of both kinds,
ignored classes, smoothing. A draw that torch refuses is refused here, too, by an error that names the operation. Eager every draw runs, and every
third one traced; a seed names its case, so that `draw(name, seed)` gives it again.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import pytest

import minidl as md
from minidl import nn

torch = pytest.importorskip("torch")
SEEDS = 16


class Case(NamedTuple):
    args: tuple
    options: dict[str, Any]
    inputs: list[Any]
    call: dict[str, Any] = {}  # noqa: RUF012  (a NamedTuple has no other defaults)
    train: bool = True
    fixed: tuple[int, ...] = ()  # inputs that are floats, and data


class Draws(random.Random):
    """What the arguments of layers are drawn from."""

    def several(self, n: int, low: int, high: int) -> Any:
        return self.randint(low, high) if self.random() < 0.5 else tuple(self.randint(low, high) for _ in range(n))

    def some(self, **values: Any) -> dict[str, Any]:
        return {k: v() if callable(v) else self.choice(v) for k, v in values.items() if self.random() < 0.5}

    def sizes(self, n: int, low: int = 1, high: int = 4) -> tuple[int, ...]:
        return tuple(self.randint(low, high) for _ in range(n))

    def batch(self) -> int:
        return self.choice((0, 1, 2, 2, 3, 3))

    def array(self, *shape: int, low: float | None = None, high: float = 1.0) -> np.ndarray:
        g = np.random.default_rng(self.randrange(2**31))
        return g.normal(size=shape) if low is None else g.uniform(low, high, size=shape)

    def integers(self, shape: Any, low: int, high: int) -> np.ndarray:
        return np.random.default_rng(self.randrange(2**31)).integers(low, high, shape)

    def image(self, channels: int, n: int, low: int = 2, high: int = 6) -> np.ndarray:
        lead = (channels,) if self.random() < 0.25 else (self.batch(), channels)
        return self.array(*lead, *self.sizes(n, low, high if n < 3 else min(high, 4)))


def conv(r: Draws, n: int) -> Case:
    groups = r.choice((1, 1, 2))
    options = r.some(stride=lambda: r.several(n, 1, 3), dilation=lambda: r.several(n, 1, 2), bias=(True, False), padding=lambda: r.several(n, 0, 2))
    options |= r.some(padding_mode=("zeros", "reflect", "replicate", "circular"))
    return Case((2 * groups, groups * r.randint(1, 2), r.several(n, 1, 3)), options | {"groups": groups}, [r.image(2 * groups, n, 3)])


def transposed(r: Draws, n: int) -> Case:
    groups = r.choice((1, 1, 2))
    options = r.some(stride=lambda: r.several(n, 1, 3), dilation=lambda: r.several(n, 1, 3), padding=lambda: r.several(n, 0, 2))
    options |= r.some(output_padding=lambda: r.several(n, 0, 2), bias=(True, False))
    x = r.image(2 * groups, n)
    return Case((2 * groups, 2 * groups, r.several(n, 1, 3)), options | {"groups": groups}, [x if x.size else r.array(1, *x.shape[1:])])


def pool(r: Draws, n: int, kind: str) -> Case:
    options = r.some(stride=lambda: r.several(n, 1, 3), ceil_mode=(True, False))
    if kind == "LP":
        window = r.randint(1, 3) if n == 1 else r.several(n, 1, 2)
        return Case((r.choice((1, 2, 3, np.inf)), window), options, [np.abs(r.image(2, n, 3)) + 0.1])
    if n < 3 or kind == "Max":  # torch forgets the padding of three axes
        options |= r.some(padding=lambda: r.several(n, 0, 1))
    options |= r.some(dilation=lambda: r.several(n, 1, 2), return_indices=(True,)) if kind == "Max" else r.some(count_include_pad=(False,))
    return Case((r.several(n, 1, 3),), options, [r.image(2, n)])


def unpool(r: Draws) -> Case:
    x = torch.tensor(r.array(2, 2, r.randint(4, 8)))
    found, places = torch.nn.functional.max_pool1d(x, 2, return_indices=True)
    places = places + (r.random() < 0.3) * 3
    return Case((2,), {}, [found.numpy(), places.numpy()], {"output_size": [x.shape[-1]]} if r.random() < 0.7 else {})


def normal(r: Draws, kind: str, n: int) -> Case:
    c = r.randint(1, 3)
    options = r.some(eps=(1e-5, 0.1), affine=(True, False), track_running_stats=(True, False))
    options |= r.some(momentum=(0.1, 0.5, None) if kind == "Batch" else (0.1, 0.5))
    x = r.array(r.choice((0, 2, 3)), c, *r.sizes(n, 2, 3))
    x = x if kind == "Batch" or x.size or not options.get("affine") else r.array(2, *x.shape[1:])  # of nothing torch's affine ones fail
    return Case((c,), options, [x], train=r.random() < 0.6)


def over_last(r: Draws) -> Case:
    shape = r.sizes(r.randint(1, 3))
    return Case((shape,), r.some(eps=(1e-5, 0.1), elementwise_affine=(True, False)), [r.array(*r.sizes(r.randint(0, 2), 0, 3), *shape)])


def border(r: Draws, n: int, *values: float) -> Case:
    widths = r.randint(0, 3) if r.random() < 0.3 else tuple(r.randint(-1, 3) for _ in range(2 * n))
    return Case((widths, *values), {}, [r.array(2, 2, *r.sizes(n, 3, 5))])


def resized(r: Draws) -> Case:
    n = r.randint(1, 3)
    mode = r.choice(("nearest", "nearest-exact", "area", *(("linear",), ("bilinear", "bicubic"), ("trilinear",))[n - 1]))
    options: dict[str, Any] = {"mode": mode, **({"size": r.several(n, 1, 7)} if r.random() < 0.5 else {"scale_factor": r.choice((2, 0.6, 1.7))})}
    if mode.endswith(("linear", "cubic")):
        options |= r.some(align_corners=(True, False))
    return Case((), options, [r.array(r.randint(1, 2), 2, *r.sizes(n, 2, 5))])


def recurrent(r: Draws, name: str) -> Case:
    i, h, length, batch, single = r.randint(1, 3), r.randint(2, 4), r.randint(1, 4), r.randint(1, 3), r.random() < 0.3
    options = r.some(num_layers=(2,), bias=(True, False), batch_first=(True,), bidirectional=(True,))
    if name == "LSTM":
        options |= r.some(proj_size=(1,))
    shape = (length, i) if single else (batch, length, i) if options.get("batch_first") else (length, batch, i)
    state = (options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1), *(() if single else (batch,)))
    start: Any = (r.array(*state, options.get("proj_size", h)), r.array(*state, h)) if name == "LSTM" else r.array(*state, h)
    return Case((i, h), options, [r.array(*shape), *([start] if r.random() < 0.6 else [])])


def mask(r: Draws, *shape: int) -> np.ndarray:
    hidden = r.array(*shape, low=0.0) < 0.4
    hidden[..., 0] = False
    return hidden if r.random() < 0.5 else np.where(hidden, -np.inf, 0.0)


def attention(r: Draws) -> Case:
    heads = r.randint(1, 2)
    e, q, k, batch = 2 * heads, r.randint(1, 3), r.randint(1, 4), r.randint(1, 2)
    options = r.some(bias=(True, False), add_bias_kv=(True,), add_zero_attn=(True,))
    call = r.some(need_weights=(True, False), average_attn_weights=(True, False))
    call |= r.some(attn_mask=lambda: mask(r, *r.choice(((q, k), (heads * batch, q, k)))), key_padding_mask=lambda: mask(r, batch, k))
    return Case((e, heads), options, [r.array(q, batch, e), r.array(k, batch, e), r.array(k, batch, e)], call, fixed=(3, 4))


def layer(r: Draws) -> Case:
    options = r.some(norm_first=(True,), batch_first=(True,), activation=("relu", "gelu"), bias=(True, False)) | {"dropout": 0.0}
    a, b = r.randint(1, 3), r.randint(1, 2)
    shape = (b, a, 4) if options.get("batch_first") else (a, b, 4)
    return Case((4, 2, 3), options, [r.array(*shape)], r.some(src_mask=lambda: mask(r, a, a), src_key_padding_mask=lambda: mask(r, b, a)))


def classes(r: Draws, name: str) -> Case:
    c, n = r.randint(1, 4), r.batch()
    spatial = r.sizes(r.randint(0, 2), 1, 3)
    options = r.some(reduction=("mean", "sum", "none"), weight=lambda: r.array(c, low=0.1, high=2.0), ignore_index=lambda: r.choice((-1, 0, c - 1)))
    x, target = r.array(n, c, *spatial), r.integers((n, *spatial), 0, c)
    if name == "CrossEntropyLoss":
        options |= r.some(label_smoothing=(0.1, 1.0, 1.5))
        if "ignore_index" not in options and r.random() < 0.3:
            target = r.array(*x.shape, low=0.1)
    if "ignore_index" in options:
        target = np.where(r.array(*target.shape, low=0.0) < 0.5, options["ignore_index"], target)
    return Case((), options, [x, target], fixed=(1,))


def pair(r: Draws, signs: bool = False, unit: bool = False, **more: Any) -> Case:
    shape = r.sizes(r.randint(1, 3), 1, 3)
    x = r.array(*shape, low=0.02, high=0.98) if unit else r.array(*shape)
    y = r.integers(shape, 0, 2) * 2.0 - 1 if signs else r.array(*shape, low=0.02, high=0.98) if unit else r.array(*shape)
    return Case((), r.some(reduction=("mean", "sum", "none"), **more), [x, y], fixed=(1,))


def rows(r: Draws, name: str) -> Case:
    n, d = r.randint(1, 3), r.randint(1, 4)
    if name == "CosineSimilarity":
        return Case((), r.some(dim=(0, 1), eps=(1e-8,)), [r.array(n, d), r.array(*r.choice(((n, d), (1, d), (d,), (1, 1))))])
    if name == "TripletMarginLoss":
        options = r.some(reduction=("mean", "sum", "none"), margin=(1.0, 3.0), p=(1.0, 2.0, 3.0), swap=(True,))
        return Case((), options, [r.array(n, d) for _ in range(3)])
    options = r.some(reduction=("mean", "sum", "none"), margin=(0.0, -0.4))
    return Case((), options, [r.array(n, d), r.array(n, d), r.integers(n, 0, 2) * 2.0 - 1], fixed=(2,))


def table(r: Draws) -> Case:
    n = r.randint(2, 6)
    shape = r.sizes(r.randint(0, 3), 0, 3)
    return Case((n, 3), r.some(padding_idx=lambda: r.randint(-n, n - 1)), [r.integers(shape, 0, n)])


def plain(r: Draws, **more: Any) -> Case:
    return Case((), r.some(**more), [np.asarray(r.array(*r.sizes(r.randint(0, 3), 1, 4)) * r.choice((1, 30)))])


LAYERS: dict[str, Any] = {
    **{f"Conv{n}d": lambda r, n=n: conv(r, n) for n in (1, 2)},
    **{f"ConvTranspose{n}d": lambda r, n=n: transposed(r, n) for n in (1, 2, 3)},
    **{f"{k}Pool{n}d": lambda r, n=n, k=k: pool(r, n, k) for k in ("Max", "Avg", "LP") for n in (1, 2)},
    "MaxPool3d": lambda r: pool(r, 3, "Max"),
    "MaxUnpool1d": unpool,
    **{f"BatchNorm{n}d": lambda r, n=n: normal(r, "Batch", n) for n in (1, 2)},
    **{f"InstanceNorm{n}d": lambda r, n=n: normal(r, "Instance", n) for n in (1, 2)},
    "LayerNorm": over_last,
    "RMSNorm": over_last,
    "GroupNorm": lambda r: Case((2, 4), r.some(eps=(0.1,), affine=(True, False)), [r.array(r.batch(), 4, *r.sizes(r.randint(0, 2), 1, 3))]),
    "LocalResponseNorm": lambda r: Case((r.randint(1, 4),), r.some(alpha=(0.3,), k=(2.0,)), [r.array(r.batch(), 3, *r.sizes(r.randint(1, 2)))]),
    **{f"{k}Pad{n}d": lambda r, n=n: border(r, n) for k in ("Reflection", "Replication", "Zero") for n in (1, 2)},
    "ConstantPad2d": lambda r: border(r, 2, 2.5),
    "Upsample": resized,
    "Fold": lambda r: Case(((4, 5), 2), r.some(stride=(1,)), [r.array(r.batch(), 8, 12)]),
    "Unfold": lambda r: Case((r.several(2, 1, 3),), r.some(stride=(2,), dilation=(2,), padding=(1, 2)), [r.array(2, 2, *r.sizes(2, 3, 6))]),
    "Flatten": lambda r: Case((), r.some(start_dim=lambda: r.randint(-3, 3), end_dim=lambda: r.randint(-3, 3)), [r.array(*r.sizes(r.randint(0, 3)))]),
    **{name: lambda r, name=name: recurrent(r, name) for name in ("RNN", "LSTM", "GRU")},
    "MultiheadAttention": attention,
    "TransformerEncoderLayer": layer,
    "CrossEntropyLoss": lambda r: classes(r, "CrossEntropyLoss"),
    "NLLLoss": lambda r: classes(r, "NLLLoss"),
    "HuberLoss": lambda r: pair(r, delta=(1.0, 0.3, 0.0)),
    "SmoothL1Loss": lambda r: pair(r, beta=(1.0, 0.3, -1.0)),
    "BCELoss": lambda r: pair(r, unit=True),
    "BCEWithLogitsLoss": lambda r: pair(r, unit=True),
    "HingeEmbeddingLoss": lambda r: pair(r, signs=True, margin=(1.0, 0.3)),
    "SoftMarginLoss": lambda r: pair(r, signs=True),
    **{name: lambda r, name=name: rows(r, name) for name in ("CosineSimilarity", "TripletMarginLoss", "CosineEmbeddingLoss")},
    "Embedding": table,
    "GELU": lambda r: plain(r, approximate=("none", "tanh")),
    "Softplus": lambda r: plain(r, beta=(2.0, 0.3), threshold=(0.5, 20.0)),
    "PReLU": lambda r: plain(r, init=(0.4,)),
    **dict.fromkeys(("SiLU", "Mish", "SELU", "LogSigmoid", "Softsign"), plain),
}  # fmt: skip
#: Draws where torch or minidl is meant to be different, and why.
DIFFERENT: dict[str, Any] = {
    "MaxUnpool1d": lambda case: len(np.unique(case.inputs[1][0, 0])) < case.inputs[1].shape[2],  # of two values for one place the last has the slope
}


def draw(name: str, seed: int) -> Case:
    return LAYERS[name](Draws(f"{name} {seed}"))


def leaves(out: Any) -> list[Any]:
    return [v for x in out for v in leaves(x)] if isinstance(out, (tuple, list)) else [] if out is None else [out]


def worked(lib: Any, layer: Any, case: Case, traced: bool = False) -> list[list[np.ndarray | None]]:
    """Outputs, gradients of a combination of them, and gradients of a combination of these."""
    def given(v: Any, data: bool = False) -> Any:
        if isinstance(v, tuple):
            return tuple(given(x) for x in v)
        if not isinstance(v, np.ndarray):
            return v
        return lib.tensor(v, requires_grad=v.dtype.kind == "f" and not data)

    xs = [given(v, i in case.fixed) for i, v in enumerate(case.inputs)]
    call = {k: given(v, True) for k, v in case.call.items()}
    params = list(layer.parameters())

    def combined(outs: list[Any], start: int) -> Any:
        found = [(o * lib.tensor(np.random.default_rng(start + i).normal(size=tuple(o.shape)))).sum() for i, o in enumerate(outs)]
        return sum(found[1:], found[0]) if found else None

    def all_of(*xs: Any) -> Any:
        outs = leaves(layer(*xs, **call))
        wanted = [x for x in leaves(list(xs)) if hasattr(x, "requires_grad") and x.requires_grad] + params
        total = combined([o for o in outs if o.requires_grad], 0)
        first = [] if total is None else list(lib.autograd.grad(total, wanted, create_graph=True, allow_unused=True))
        again = combined([g for g in first if g is not None and g.requires_grad], 9)
        second = [] if again is None or not again.requires_grad else list(lib.autograd.grad(again, wanted, allow_unused=True))
        return outs, first, second

    if traced:
        moving = [x.detach() if isinstance(x, md.Tensor) else x for x in xs]
        live = [isinstance(x, md.Tensor) and x.requires_grad for x in xs]
        outs = md.jit(lambda *v: all_of(*((+x).requires_grad_() if m else x for x, m in zip(v, live, strict=True))))(*moving)
    else:
        outs = all_of(*xs)
    return [[None if v is None else v.detach().numpy() if lib is md else v.detach().numpy(force=True) for v in part] for part in outs]


def close(got: list[Any], want: list[Any], tolerance: float, what: str) -> None:
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if a is None or b is None:  # None and zeros are one
            assert a is None or not np.any(a), f"{what} {i}"
            assert b is None or not np.any(b), f"{what} {i}"
            continue
        assert a.shape == b.shape and a.dtype == b.dtype, f"{what} {i}: {a.shape} {a.dtype}, torch's {b.shape} {b.dtype}"
        size = np.abs(b[np.isfinite(b)]).max(initial=1e-2) if b.dtype.kind == "f" else 0
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * size, err_msg=f"{what} {i}")


def built(lib: Any, rooms: Any, name: str, case: Case, weights: Any = None) -> Any:
    tensor = lambda v: lib.tensor(v) if isinstance(v, np.ndarray) else v
    return getattr(rooms, name)(*case.args, **{k: tensor(v) for k, v in case.options.items()}).double().train(case.train)


@pytest.fixture(autouse=True)
def attention_with_second_derivatives():
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # its other kernels have none
        yield


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.cpu
def test_a_drawn_layer_is_torchs(name):
    for seed in range(SEEDS):
        case = draw(name, seed)
        try:
            theirs = built(torch, torch.nn, name, case)
            want = worked(torch, theirs, case)
        except (RuntimeError, ValueError, IndexError) as error:
            with pytest.raises((ValueError, IndexError, TypeError)) as refused:
                worked(md, built(md, nn, name, case), case)
            assert ":" in str(refused.value), f"{name} {seed}: {refused.value} (torch: {error})"
            continue
        state = {k: md.tensor(v.numpy()) for k, v in built(torch, torch.nn, name, case).state_dict().items()}
        state |= {k: md.tensor(v.detach().numpy()) for k, v in theirs.named_parameters()}
        for traced in (False, True)[: 1 + (seed % 3 == 0)]:
            what = f"{name}, seed {seed}{', traced' if traced else ''}: {case}"
            try:
                ours = built(md, nn, name, case)
                ours.load_state_dict(state)
                got = worked(md, ours, case, traced)
                skipped = name in DIFFERENT and DIFFERENT[name](case)
                for part, a, b in zip(("output", "gradient", "second gradient")[: 1 if skipped else 3], got, want, strict=False):
                    close(a, b if a else [], 1e-6 if part != "output" else 1e-9, part)
                close([v.numpy() for v in ours.state_dict().values()], [v.numpy() for v in theirs.state_dict().values()], 1e-9, "state")
            except Exception as error:
                raise AssertionError(f"{what}: {error}") from error


# ---- optimizers -------------------------------------------------------------------------------------------------------------------------
OPTIMIZERS: dict[str, dict[str, list[Any]]] = {
    "SGD": {"momentum": [0.9], "weight_decay": [0.1], "maximize": [True]},
    "AdamW": {"betas": [(0.5, 0.6)], "weight_decay": [0.1], "amsgrad": [True]},
    "NAdam": {"momentum_decay": [1e-2], "decoupled_weight_decay": [True]},
    "RMSprop": {"alpha": [0.5], "momentum": [0.9], "centered": [True]},
    "Rprop": {"etas": [(0.4, 1.3)], "step_sizes": [(1e-3, 0.05)]},
    "ASGD": {"lambd": [1e-2], "alpha": [0.5], "t0": [2.0]},
    "Adagrad": {"lr_decay": [0.1], "initial_accumulator_value": [0.5]},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 2, "gamma": 0.5}, "LinearLR": {"start_factor": 0.3, "total_iters": 3}, "CosineAnnealingLR": {"T_max": 4},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2, "cycle_momentum": False},
    "OneCycleLR": {"max_lr": 0.2, "total_steps": 9, "cycle_momentum": False},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_drawn_optimizer_under_a_schedule_is_torchs(name):
    for seed in range(6):
        r = Draws(f"{name} {seed}")
        options, kind = r.some(**OPTIMIZERS[name]), r.choice(list(SCHEDULES))
        start, goal = r.array(3, 2), r.array(3, 2)
        found = []
        for lib, traced in ((torch, False), (md, False), (md, True)):
            p, a = lib.tensor(start, requires_grad=True), lib.tensor(goal)
            optimizer = getattr(lib.optim, name)([p], lr=0.05, **options)
            schedule = getattr(lib.optim.lr_scheduler, kind)(optimizer, **SCHEDULES[kind])

            def step(p=p, a=a, optimizer=optimizer):
                optimizer.zero_grad()
                (((p - a) ** 2).sum() + (p**4).sum() * 0.1).backward()
                optimizer.step()

            step, path = md.jit(step) if traced else step, []
            for _ in range(5):
                step()
                schedule.step()
                path.append(p.detach().numpy().copy())
            found.append(path)
        for path in found[1:]:
            np.testing.assert_allclose(path, found[0], rtol=1e-6, atol=1e-7, err_msg=f"{options} {kind}")  # torch keeps some numbers in float32
