"""Every layer of nn against torch.nn with the same weights in float64: a generated test over option grids.

LAYERS is the table: a layer, its arguments, the options that are combined with each other, and the shapes of its inputs. For each combination the
state_dict is taken over by name, and outputs, buffers, and the gradients of inputs and parameters are compared, in training and in evaluation.
The first combination of each layer also runs under vmap, and in test_nn_backends.py on every backend. Names, order and defaults of constructors and
functions are PyTorch's.
"""

from __future__ import annotations

import inspect
import itertools
import re
from typing import Any, NamedTuple

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.nn import functional as F

torch = pytest.importorskip("torch")
tnn, TF = torch.nn, torch.nn.functional


@pytest.fixture(autouse=True)
def seeded():
    md.manual_seed(0)


class Ints(NamedTuple):
    """An integer input: its shape, and the range of its values."""

    shape: tuple[int, ...]
    high: int
    low: int = 0


class Unit(NamedTuple):
    """A float input between 0 and 1: its shape, and whether the last axis sums to 1."""

    shape: tuple[int, ...]
    sums: bool = False


class Signs(NamedTuple):
    """A float input of 1 and -1."""

    shape: tuple[int, ...]


class Mask(NamedTuple):
    """A bool input, of which the first of the last axis is always False."""

    shape: tuple[int, ...]


def draw(spec: Any, g: np.random.Generator) -> np.ndarray:
    """A float64, int64 or bool array of a spec; a plain shape is normal."""
    if isinstance(spec, Ints):
        return g.integers(spec.low, spec.high, spec.shape)
    if isinstance(spec, Unit):
        x = g.uniform(0.05, 0.95, spec.shape)
        return x / x.sum(-1, keepdims=True) if spec.sums else x
    if isinstance(spec, Signs):
        return g.choice([-1.0, 1.0], spec.shape)
    if isinstance(spec, Mask):
        x = g.uniform(size=spec.shape) < 0.4
        x[..., 0] = False
        return x
    return g.normal(size=spec)


class Row(NamedTuple):
    name: str
    args: tuple
    grid: dict[str, list[Any]]
    inputs: tuple
    rtol: float = 1e-11


def grid(name: str, args: tuple, inputs: tuple, rtol: float = 1e-11, **options: list[Any]) -> Row:
    return Row(name, args, options, inputs, rtol)


def loss(name: str, *inputs: Any, args: tuple = (), **options: list[Any]) -> Row:
    return Row(name, args, {"reduction": ["mean", "sum", "none"], **options}, inputs)


WEIGHT = np.array([0.5, 2.0, 1.0, 0.1])
SAMPLES = np.random.default_rng(9).uniform(size=(2, 4, 2))
X1, X2, X3 = (2, 4, 9), (2, 4, 7, 8), (1, 4, 5, 4, 6)
LAYERS = [
    # linear maps and look-up
    grid("Identity", (), ((2, 3),)),
    grid("Linear", (3, 5), ((4, 3),), bias=[True, False]),
    grid("Linear", (3, 5), ((3,),)),
    grid("Linear", (3, 5), ((2, 4, 3),)),
    grid("Bilinear", (3, 4, 5), ((6, 3), (6, 4)), bias=[True, False]),
    grid("Bilinear", (3, 4, 5), ((2, 6, 3), (2, 6, 4))),
    grid("Embedding", (10, 4), (Ints((3, 2), 10),), padding_idx=[None, 3, -1], scale_grad_by_freq=[False, True]),
    grid("Embedding", (10, 4), (Ints((5,), 10),), max_norm=[1.0], norm_type=[2.0, 1.0]),
    grid("EmbeddingBag", (10, 4), (Ints((3, 5), 10),), mode=["mean", "sum", "max"], padding_idx=[None, 2]),
    # convolution
    grid("Conv1d", (4, 6, 3), (X1,), stride=[1, 2], padding=[0, 1], groups=[1, 2], bias=[True, False]),
    grid("Conv1d", (4, 6, 3), ((4, 9),), padding=["same", "valid"], dilation=[1, 2]),
    grid("Conv2d", (4, 6, 3), (X2,), stride=[1, (2, 1)], padding=[0, (1, 2)], dilation=[1, 2], groups=[1, 2]),
    grid("Conv2d", (4, 6, (3, 2)), (X2,), padding=["same", "valid", (2, 1)], padding_mode=["zeros", "reflect", "replicate", "circular"]),
    grid("Conv2d", (4, 2, 2), ((4, 7, 8),), bias=[False]),
    grid("Conv3d", (4, 2, 2), (X3,), stride=[1, 2], padding=[0, 1], groups=[1, 2]),
    grid("ConvTranspose1d", (4, 6, 3), (X1,), stride=[1, 3], padding=[0, 2], output_padding=[0], groups=[1, 2], bias=[True, False]),
    grid("ConvTranspose2d", (4, 6, 3), (X2,), stride=[2, (3, 2)], padding=[0, (1, 0)], output_padding=[0, 1], dilation=[1, 2]),
    grid("ConvTranspose2d", (4, 6, (3, 2)), ((4, 7, 8),), groups=[1, 2], padding=[0, 3]),
    grid("ConvTranspose3d", (4, 2, 2), (X3,), stride=[1, 2], padding=[0, 1], groups=[1, 2]),
    grid("Unfold", (3,), (X2,), dilation=[1, 2], padding=[0, 1], stride=[1, 2]),
    grid("Fold", ((6, 7), (3, 2)), ((2, 12, 24),)),
    grid("Fold", ((6, 7), (3, 2)), ((12, 6),), stride=[2], padding=[0], dilation=[1]),
    grid("Fold", ((6, 7), 2), ((2, 8, 12),), stride=[2], padding=[1], dilation=[2]),
    # pooling
    grid("MaxPool1d", (3,), (X1,), stride=[None, 2], padding=[0, 1], dilation=[1, 2], ceil_mode=[False, True]),
    grid("MaxPool2d", (3,), (X2,), stride=[None, (2, 1)], padding=[0, 1], dilation=[1, 2], ceil_mode=[False, True], return_indices=[False, True]),
    grid("MaxPool2d", ((2, 3),), ((4, 7, 8),), padding=[(1, 0)]),
    grid("MaxPool3d", (2,), (X3,), stride=[None, 1], padding=[0, 1], ceil_mode=[False, True], return_indices=[False, True]),
    grid("AvgPool1d", (3,), (X1,), stride=[None, 2], padding=[0, 1], ceil_mode=[False, True], count_include_pad=[True, False]),
    grid("AvgPool2d", (3,), (X2,), stride=[None, 2], padding=[0, 1], ceil_mode=[False, True], count_include_pad=[True, False],
         divisor_override=[None, 5]),
    grid("AvgPool2d", ((2, 3),), ((4, 7, 8),)),
    grid("AvgPool3d", (2,), (X3,), stride=[None, 1], padding=[0, 1], ceil_mode=[False, True], count_include_pad=[True, False]),
    grid("LPPool1d", (2, 3), (Unit(X1),), stride=[None, 2], ceil_mode=[False]),
    grid("LPPool2d", (3, 2), (Unit(X2),), stride=[None, 1], ceil_mode=[False]),
    grid("LPPool3d", (2, 2), (Unit(X3),), stride=[None, 1], ceil_mode=[False]),
    grid("AdaptiveAvgPool1d", (4,), (X1,)),
    grid("AdaptiveAvgPool2d", (), (X2,), output_size=[1, 4, (3, None), (7, 8), (10, 3)]),
    grid("AdaptiveAvgPool2d", (2,), ((4, 7, 8),)),
    grid("AdaptiveAvgPool3d", ((2, 3, 3),), (X3,)),
    grid("AdaptiveMaxPool1d", (4,), (X1,), return_indices=[False, True]),
    grid("AdaptiveMaxPool2d", (), (X2,), output_size=[1, 4, (3, None), (10, 3)], return_indices=[False, True]),
    grid("AdaptiveMaxPool3d", ((2, 3, 3),), (X3,), return_indices=[False, True]),
    grid("FractionalMaxPool2d", (2,), (X2,), output_size=[3, (2, 5), (1, 7)], return_indices=[False, True], _random_samples=[SAMPLES]),
    grid("FractionalMaxPool2d", ((3, 2),), (X2,), output_ratio=[0.5, (0.4, 0.7)], _random_samples=[SAMPLES]),
    grid("FractionalMaxPool3d", (2,), (X3,), output_size=[(3, 2, 3)], return_indices=[False, True], _random_samples=[SAMPLES[:1, :, [0, 1, 1]]]),
    # normalisation
    grid("BatchNorm1d", (4,), ((6, 4),), momentum=[0.1, None], affine=[True, False], track_running_stats=[True, False], eps=[1e-5, 1e-2]),
    grid("BatchNorm1d", (4,), ((3, 4, 5),)),
    grid("BatchNorm2d", (4,), ((3, 4, 2, 3),), momentum=[0.1, None, 0.5], affine=[True, False], track_running_stats=[True, False]),
    grid("BatchNorm3d", (2,), ((2, 2, 2, 2, 3),), affine=[True, False]),
    grid("InstanceNorm1d", (4,), ((3, 4, 5),), affine=[False, True], track_running_stats=[False, True]),
    grid("InstanceNorm1d", (4,), ((4, 5),), affine=[True]),
    grid("InstanceNorm2d", (4,), ((3, 4, 2, 3),), affine=[False, True], track_running_stats=[False, True], momentum=[0.1, 0.3]),
    grid("InstanceNorm3d", (2,), ((2, 2, 2, 2, 3),), affine=[False, True]),
    grid("LayerNorm", (5,), ((4, 5),), eps=[1e-5, 1e-2], elementwise_affine=[True, False], bias=[True, False]),
    grid("LayerNorm", ((3, 5),), ((4, 3, 5),)),
    grid("GroupNorm", (2, 4), ((3, 4, 5),), eps=[1e-5, 1e-2], affine=[True, False]),
    grid("GroupNorm", (1, 4), ((3, 4),)),
    grid("GroupNorm", (4, 4), ((3, 4, 2, 3),)),
    grid("RMSNorm", (5,), ((4, 5),), eps=[None, 1e-2], elementwise_affine=[True, False]),
    grid("RMSNorm", ((3, 5),), ((4, 3, 5),)),
    grid("LocalResponseNorm", (3,), ((2, 5, 4),), alpha=[1e-4, 0.3], beta=[0.75, 0.5], k=[1.0, 2.0]),
    grid("LocalResponseNorm", (2,), ((2, 5, 3, 4),), alpha=[0.3]),
    # dropout at its ends, where nothing is drawn
    *(grid(name, (), (X2,), p=[0.0, 1.0], inplace=[False]) for name in ("Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout")),
    grid("Dropout1d", (), (X1,), p=[0.0, 1.0]),
    grid("Dropout3d", (), (X3,), p=[0.0, 1.0]),
    # activations
    *(grid(n, (), ((4, 5),)) for n in ("ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Hardswish", "Tanh", "Sigmoid", "LogSigmoid", "Softsign")),
    grid("Tanhshrink", (), ((4, 5),)),
    grid("Hardsigmoid", (), ((4, 5),), rtol=1e-7),  # torch rounds 1/6 to float32
    grid("LeakyReLU", (), ((4, 5),), negative_slope=[0.01, 0.3]),
    grid("ELU", (), ((4, 5),), alpha=[1.0, 1.3]),
    grid("CELU", (), ((4, 5),), rtol=1e-7, alpha=[1.0, 1.3]),  # torch rounds 1/alpha to float32
    grid("GELU", (), ((4, 5),), approximate=["none", "tanh"]),
    grid("GLU", (), ((4, 6),), dim=[-1, 0]),
    grid("PReLU", (), ((3, 4, 5),), num_parameters=[1, 4], init=[0.25, 0.4]),
    grid("RReLU", (0.2, 0.2), ((4, 5),)),  # no room to draw from
    grid("Hardshrink", (), ((4, 5),), lambd=[0.5, 1.0]),
    grid("Softshrink", (), ((4, 5),), lambd=[0.5, 1.0]),
    grid("Hardtanh", (), ((4, 5),), min_val=[-1.0, -0.5], max_val=[1.0, 0.7]),
    grid("Softplus", (), ((4, 5),), beta=[1.0, 2.0], threshold=[20.0, 0.5]),
    grid("Threshold", (0.1, -3.0), ((4, 5),)),
    *(grid(n, (), ((4, 5),), dim=[1, 0, -1]) for n in ("Softmax", "LogSoftmax", "Softmin")),
    grid("Softmax2d", (), (X2,)),
    # axes, padding, resampling
    grid("Flatten", (), ((2, 3, 4, 5),), start_dim=[1, 0], end_dim=[-1, 2]),
    grid("Unflatten", (1, (2, 3)), ((2, 6, 4),)),
    grid("Unflatten", (-1, (2, -1)), ((2, 6),)),
    grid("PixelShuffle", (2,), ((2, 8, 3, 4),)),
    grid("PixelUnshuffle", (2,), ((2, 2, 4, 6),)),
    grid("ChannelShuffle", (2,), (X2,)),
    *(grid(f"{kind}Pad{n}d", (), (x,), padding=[1, p])
      for kind in ("Reflection", "Replication", "Circular", "Zero")
      for n, x, p in ((1, X1, (2, 3)), (2, X2, (1, 0, 2, 3)), (3, X3, (1, 0, 2, 3, 1, 1)))),
    *(grid(f"ConstantPad{n}d", (), (x,), padding=[1, p], value=[2.5]) for n, x, p in ((1, X1, (2, -1)), (2, X2, (1, 0, 2, 3)), (3, X3, (1,) * 6))),
    *(grid("Upsample", (), (x,), mode=modes, **more)
      for x, modes in ((X1, ["nearest", "nearest-exact", "linear"]), (X2, ["nearest", "nearest-exact", "bilinear", "bicubic", "area"]),
                       (X3, ["nearest", "trilinear"]))
      for more in ({"scale_factor": [2, 1.7, 0.6], "recompute_scale_factor": [None, True]}, {"size": [5, 11]})),
    grid("Upsample", (), (X1,), mode=["linear"], align_corners=[True, False], size=[1, 4, 13]),
    grid("Upsample", (), (X2,), mode=["bilinear", "bicubic"], align_corners=[True, False], scale_factor=[2.0, (1.3, 2.6)]),
    grid("Upsample", (), (X3,), mode=["trilinear"], align_corners=[True, False], scale_factor=[1.6]),
    grid("UpsamplingNearest2d", (), (X2,), scale_factor=[2]),
    grid("UpsamplingBilinear2d", (), (X2,), size=[(9, 5)]),
    # recurrent
    grid("RNN", (3, 5), ((6, 2, 3),), nonlinearity=["tanh", "relu"], num_layers=[1, 2], bidirectional=[False, True], bias=[True, False]),
    grid("RNN", (3, 5), ((6, 2, 3), (1, 2, 5))),
    grid("LSTM", (3, 5), ((6, 2, 3),), num_layers=[1, 2], bidirectional=[False, True], bias=[True, False], proj_size=[0, 2]),
    grid("LSTM", (3, 5), ((2, 6, 3),), batch_first=[True], bidirectional=[False, True]),
    grid("LSTM", (3, 5), ((6, 3),)),
    grid("GRU", (3, 5), ((6, 2, 3),), num_layers=[1, 3], bidirectional=[False, True], bias=[True, False]),
    grid("GRU", (3, 5), ((2, 6, 3), (4, 2, 5)), batch_first=[True], bidirectional=[True], num_layers=[2]),
    grid("GRU", (3, 5), ((6, 3), (1, 5))),
    grid("RNNCell", (3, 5), ((2, 3), (2, 5)), nonlinearity=["tanh", "relu"], bias=[True, False]),
    grid("RNNCell", (3, 5), ((3,),)),
    grid("LSTMCell", (3, 5), ((2, 3),), bias=[True, False]),
    grid("GRUCell", (3, 5), ((2, 3), (2, 5)), bias=[True, False]),
    grid("GRUCell", (3, 5), ((3,), (5,))),
    # attention: query, key, value, and masks by position
    grid("MultiheadAttention", (6, 2), ((4, 3, 6), (5, 3, 6), (5, 3, 6)), bias=[True, False], add_bias_kv=[False, True], add_zero_attn=[False, True]),
    grid("MultiheadAttention", (6, 3), ((3, 4, 6), (3, 5, 2), (3, 5, 7), Mask((3, 5))), batch_first=[True], kdim=[2], vdim=[7],
         add_bias_kv=[False, True]),
    grid("MultiheadAttention", (6, 3), ((4, 6), (5, 6), (5, 6), Mask((5,)))),
    grid("TransformerEncoderLayer", (6, 2, 8, 0.0), ((4, 3, 6),), norm_first=[False, True], bias=[True, False], activation=["relu", "gelu"],
         batch_first=[False, True]),
    grid("TransformerEncoderLayer", (6, 2, 8, 0.0), ((4, 3, 6), Mask((4, 4)), Mask((3, 4)))),
    grid("TransformerDecoderLayer", (6, 2, 8, 0.0), ((4, 3, 6), (5, 3, 6)), norm_first=[False, True], bias=[True, False]),
    grid("TransformerDecoderLayer", (6, 2, 8, 0.0), ((3, 4, 6), (3, 5, 6), Mask((4, 4)), Mask((4, 5)), Mask((3, 4)), Mask((3, 5))),
         batch_first=[True]),
    grid("Transformer", (6, 2, 2, 1, 8, 0.0), ((4, 3, 6), (5, 3, 6)), norm_first=[False, True]),
    # distances and losses
    grid("CosineSimilarity", (), ((3, 4, 5), (3, 4, 5)), dim=[1, -1]),
    grid("PairwiseDistance", (), ((3, 4), (3, 4)), p=[2.0, 1.0, 3.0], keepdim=[False, True], eps=[1e-6, 0.1]),
    loss("CrossEntropyLoss", (6, 4), Ints((6,), 4), label_smoothing=[0.0, 0.1], ignore_index=[-100, 1], weight=[None, WEIGHT]),
    loss("CrossEntropyLoss", (6, 4), Unit((6, 4), True), label_smoothing=[0.0, 0.1], weight=[None, WEIGHT]),
    loss("CrossEntropyLoss", (2, 4, 3, 2), Ints((2, 3, 2), 4)),
    loss("NLLLoss", (6, 4), Ints((6,), 4), ignore_index=[-100, 2], weight=[None, WEIGHT]),
    loss("BCELoss", Unit((5, 3)), Unit((5, 3)), weight=[None, np.array([0.5, 2.0, 1.0])]),
    loss("BCEWithLogitsLoss", (5, 3), Unit((5, 3)), weight=[None, np.array([0.5, 2.0, 1.0])], pos_weight=[None, np.array([0.5, 2.0, 1.0])]),
    loss("MSELoss", (5, 3), (5, 3)),
    loss("L1Loss", (5, 3), (5, 3)),
    loss("HuberLoss", (5, 3), (5, 3), delta=[1.0, 0.7]),
    loss("SmoothL1Loss", (5, 3), (5, 3), beta=[1.0, 0.3, 0.0]),
    Row("KLDivLoss", (), {"reduction": ["batchmean", "sum", "none", "mean"], "log_target": [False]}, ((5, 3), Unit((5, 3), True))),
    Row("KLDivLoss", (), {"reduction": ["batchmean", "none"], "log_target": [True]}, ((5, 3), (5, 3))),
    loss("PoissonNLLLoss", Unit((5, 3)), Ints((5, 3), 6), log_input=[True, False], full=[False, True], eps=[1e-8, 0.1]),
    loss("GaussianNLLLoss", (5, 3), (5, 3), Unit((5, 3)), full=[False, True], eps=[1e-6, 0.4]),
    loss("GaussianNLLLoss", (5, 3), (5, 3), Unit((5,))),
    loss("CosineEmbeddingLoss", (5, 3), (5, 3), Signs((5,)), margin=[0.0, -0.4]),
    loss("HingeEmbeddingLoss", (5, 3), Signs((5, 3)), margin=[1.0, 0.3]),
    loss("SoftMarginLoss", (5, 3), Signs((5, 3))),
    loss("MarginRankingLoss", (5,), (5,), Signs((5,)), margin=[0.0, 0.4]),
    loss("MultiMarginLoss", (5, 3), Ints((5,), 3), p=[1, 2], margin=[1.0, 0.4], weight=[None, np.array([0.5, 2.0, 1.0])]),
    loss("MultiLabelMarginLoss", (5, 3), Ints((5, 3), 3, -1)),
    loss("MultiLabelSoftMarginLoss", (5, 3), Ints((5, 3), 2), weight=[None, np.array([0.5, 2.0, 1.0])]),
    loss("TripletMarginLoss", (5, 3), (5, 3), (5, 3), margin=[1.0, 0.4], p=[2.0, 1.0], swap=[False, True]),
    grid("AdaptiveLogSoftmaxWithLoss", (9, 10), ((20, 9), Ints((20,), 10)), cutoffs=[[3, 6], [4], [2, 4, 7]], div_value=[4.0, 1.5],
         head_bias=[False, True]),
    loss("TripletMarginWithDistanceLoss", (5, 3), (5, 3), (5, 3), swap=[False, True]),
]  # fmt: skip


def combinations(row: Row) -> list[dict[str, Any]]:
    return [dict(zip(row.grid, values, strict=True)) for values in itertools.product(*row.grid.values())]


def pair(row: Row, options: dict[str, Any]) -> tuple[Any, Any]:
    """minidl's layer and torch's, float64, with the same random weights."""
    to = lambda wrap: {k: wrap(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    ours, theirs = getattr(nn, row.name)(*row.args, **to(md.asarray)), getattr(tnn, row.name)(*row.args, **to(torch.tensor))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other and p.shape == tuple(q.shape) and p.dtype is md.float32
    theirs = theirs.double()
    g = np.random.default_rng(1)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(g.normal(size=p.shape)))
    ours.double().load_state_dict(theirs.state_dict())
    return ours, theirs


def leaves(out: Any) -> list[Any]:
    return [v for x in out for v in leaves(x)] if isinstance(out, (tuple, list)) else [] if out is None else [out]


def number(x: Any) -> np.ndarray:
    return x.detach().numpy()


def close(got: Any, want: Any, rtol: float, what: str) -> None:
    a, b = number(got), number(want)
    assert a.shape == b.shape and a.dtype == b.dtype, what
    if a.size and a.dtype.kind == "f":
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.abs(b).max(), 1e-2), err_msg=what)
    else:
        np.testing.assert_array_equal(a, b, err_msg=what)


def compare(ours: Any, theirs: Any, row: Row, seed: int) -> None:
    """Outputs, and the gradients of a random combination of them."""
    g = np.random.default_rng(seed)
    arrays = [draw(s, g) for s in row.inputs]
    floats = [not isinstance(s, (Ints, Signs, Mask)) for s in row.inputs]
    mine = [md.tensor(a, requires_grad=f) for a, f in zip(arrays, floats, strict=True)]
    other = [torch.tensor(a, requires_grad=f) for a, f in zip(arrays, floats, strict=True)]
    a, b = leaves(ours(*mine)), leaves(theirs(*other))
    assert len(a) == len(b)
    cts = [g.normal(size=tuple(v.shape)) for v in b]
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        close(x, y, row.rtol, f"output {i}")
    pairs = [(x, y, c) for x, y, c in zip(a, b, cts, strict=True) if y.dtype.is_floating_point and y.requires_grad]
    if not pairs:
        return
    sum((x * md.asarray(c)).sum() for x, _, c in pairs).backward()
    sum((y * torch.tensor(c)).sum() for _, y, c in pairs).backward()
    for i, (x, y) in enumerate(zip(mine, other, strict=True)):
        if y.grad is not None:
            close(x.grad, y.grad, row.rtol, f"gradient of input {i}")
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if q.grad is not None:
            close(p.grad, q.grad, row.rtol, f"gradient of {name}")


@pytest.mark.parametrize("row", LAYERS, ids=lambda r: r.name)
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_layer_equals_torch_over_its_options(row):
    for options in combinations(row):
        ours, theirs = pair(row, options)
        try:
            if row.name in PRINTED_ALIKE and not any(isinstance(v, np.ndarray) for v in options.values()):
                # newer versions of torch print the bias of norms, too
                assert repr(ours) == re.sub(r"(?<=affine=True|ffine=False), bias=(True|False)", "", repr(theirs))
            for seed in range(3):  # running statistics move
                ours.zero_grad()
                theirs.zero_grad()
                compare(ours, theirs, row, seed)
                for (key, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
                    close(a, b, row.rtol, key)
                if not ours.state_dict():
                    break
            ours.zero_grad()
            theirs.zero_grad()
            compare(ours.eval(), theirs.eval(), row, 7)
        except AssertionError as error:
            raise AssertionError(f"{row.name}{row.args} with {options}: {error}") from error


#: Layers that print what torch prints (LayerNorm and RNNs too where the version of torch agrees with itself).
PRINTED_ALIKE = {r.name for r in LAYERS if "Transformer" not in r.name} - {"LayerNorm", "MultiheadAttention", "AvgPool3d"}


def test_steps_equal_torchs():
    g = np.random.default_rng(0)
    x, h, c = (g.normal(size=s) for s in ((2, 3), (2, 5), (2, 5)))
    for name, gates in (("rnn_tanh_cell", 1), ("rnn_relu_cell", 1), ("gru_cell", 3), ("lstm_cell", 4)):
        weights = [g.normal(size=s) for s in ((5 * gates, 3), (5 * gates, 5), (5 * gates,), (5 * gates,))]
        state = (h, c) if gates == 4 else h
        a = getattr(F, name)(md.asarray(x), md.tree.map(md.asarray, state), *map(md.asarray, weights))
        b = getattr(torch, name)(torch.tensor(x), md.tree.map(torch.tensor, state), *map(torch.tensor, weights))
        for p, q in zip(leaves(a), leaves(b), strict=True):
            close(p, q, 1e-12, name)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("lengths", [[6, 4, 1], [2, 6, 5]])
def test_sequences_of_unequal_lengths_equal_torchs(name, lengths):
    row = Row(name, (3, 5), {}, ())
    ours, theirs = pair(row, {"num_layers": 2, "bidirectional": True})
    x = np.random.default_rng(0).normal(size=(6, 3, 3))
    found = []
    for lib, layer, tensor in ((nn, ours, md.tensor), (tnn, theirs, torch.tensor)):
        t = tensor(x, requires_grad=True)
        packed = lib.utils.rnn.pack_padded_sequence(t, tensor(lengths), enforce_sorted=False)
        out, last = layer(packed)
        out, n = lib.utils.rnn.pad_packed_sequence(out, padding_value=0.5)
        sum((v * v).sum() for v in [out, *leaves(last)]).backward()
        found.append([out, *leaves(last), t.grad, n, *(p.grad for p in layer.parameters())])
    for i, (a, b) in enumerate(zip(*found, strict=True)):
        close(a, b, 1e-10, str(i))


def test_padding_of_sequences_equals_torchs():
    parts = [np.arange(6.0).reshape(3, 2), np.ones((1, 2)), np.ones((2, 2))]
    for options in ({}, {"batch_first": True}, {"padding_value": 7.0}, {"padding_side": "left", "batch_first": True}):
        ours = nn.utils.rnn.pad_sequence([md.asarray(p) for p in parts], **options)
        close(ours, tnn.utils.rnn.pad_sequence([torch.tensor(p) for p in parts], **options), 0, str(options))
    back = nn.utils.rnn.unpad_sequence(nn.utils.rnn.pad_sequence([md.asarray(p) for p in parts]), [3, 1, 2])
    assert all((a.numpy() == b).all() for a, b in zip(back, parts, strict=True))
    packed = nn.utils.rnn.pack_sequence([md.asarray(p) for p in parts])
    assert packed.lengths.tolist() == [3, 1, 2] and nn.utils.rnn.pad_packed_sequence(packed, total_length=5)[0].shape == (5, 3, 2)
    with pytest.raises(ValueError, match="total_length"):
        nn.utils.rnn.pad_packed_sequence(packed, total_length=2)
    with pytest.raises(ValueError, match="3 integer lengths"):
        nn.utils.rnn.pack_padded_sequence(md.ones((4, 3, 2)), md.asarray([1, 2]))


def attention(**options):
    return pair(Row("MultiheadAttention", (6, 2), {}, ()), options)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("masks", ["", "attn", "heads", "padding", "both", "float", "causal"])
def test_attention_equals_torch_with_every_mask(masks, average, need_weights):
    ours, theirs = attention()
    g = np.random.default_rng(0)
    x, other = g.normal(size=(4, 3, 6)), g.normal(size=(4, 3, 6))
    more = {"need_weights": need_weights, "average_attn_weights": average}
    arrays = {}
    if masks in ("attn", "both"):
        arrays["attn_mask"] = draw(Mask((4, 4)), g)
    if masks == "heads":
        arrays["attn_mask"] = draw(Mask((6, 4, 4)), g)
    if masks in ("padding", "both"):
        arrays["key_padding_mask"] = draw(Mask((3, 4)), g)
    if masks == "float":
        arrays["attn_mask"], arrays["key_padding_mask"] = g.normal(size=(4, 4)), g.normal(size=(3, 4))
    if masks == "causal":
        arrays["attn_mask"] = np.triu(np.full((4, 4), -np.inf), 1)
        more["is_causal"] = True
    for key in (x, other):  # self-attention, and attention to another sequence
        found = []
        for layer, tensor in ((ours, md.tensor), (theirs, torch.tensor)):
            q = tensor(x, requires_grad=True)
            k = q if key is x else tensor(key, requires_grad=True)
            outs = layer(q, k, k, **{n: tensor(v) for n, v in arrays.items()}, **more)
            sum((o * o).sum() for o in leaves(outs)).backward()
            found.append([*leaves(outs), q.grad, k.grad])
        for i, (a, b) in enumerate(zip(*found, strict=True)):
            close(a, b, 1e-11, str(i))


def test_attention_of_a_row_that_may_look_nowhere_is_finite():
    ours, _ = attention()
    x = md.tensor(np.random.default_rng(0).normal(size=(4, 2, 6)), requires_grad=True)
    for need in (True, False):
        out, _ = ours(x, x, x, key_padding_mask=md.asarray([[False] * 4, [True] * 4]), need_weights=need)
        (out * out).sum().backward()
        assert np.isfinite(out.detach().numpy()).all() and np.isfinite(x.grad.numpy()).all()
        np.testing.assert_allclose(out.detach().numpy()[:, 1], np.broadcast_to(ours.out_proj.bias.detach().numpy(), (4, 6)))


def test_causal_needs_no_mask_and_sees_no_future():
    ours, _ = attention(batch_first=True)
    x = md.asarray(np.random.default_rng(0).normal(size=(2, 5, 6)))
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=md.float64)
    np.testing.assert_array_equal(mask.numpy(), tnn.Transformer.generate_square_subsequent_mask(5).numpy())
    want = ours(x, x, x, attn_mask=mask)[0].detach().numpy()
    for more in ({}, {"need_weights": False}, {"key_padding_mask": md.zeros((2, 5), dtype=md.bool)}):
        np.testing.assert_allclose(ours(x, x, x, is_causal=True, **more)[0].detach().numpy(), want, rtol=1e-12)
    np.testing.assert_allclose(ours(x[:, :3], x[:, :3], x[:, :3], is_causal=True)[0].detach().numpy(), want[:, :3], rtol=1e-12)


def test_attention_refuses_shapes_that_do_not_fit():
    ours, x = nn.MultiheadAttention(6, 2), md.ones((4, 3, 6))
    for call in (lambda: nn.MultiheadAttention(6, 4), lambda: ours(x, x[..., :5], x), lambda: ours(x, x[:2], x), lambda: ours(x, x, x[0]),
                 lambda: ours(x, x, x, key_padding_mask=md.zeros((4, 3), dtype=md.bool)), lambda: nn.RotaryEmbedding(5),
                 lambda: ours(x, x, x, attn_mask=md.zeros((3, 4))), lambda: ours(x, x, x, attn_mask=md.zeros((4, 4), dtype=md.int64))):  # fmt: skip
        with pytest.raises(ValueError, match="ttention|RotaryEmbedding"):
            call()


@pytest.mark.parametrize("kind", ["Encoder", "Decoder"])
def test_stacks_equal_torchs(kind):
    """TransformerEncoder and Decoder: names of weights, final norm, masks, training by dropout 0."""
    found = []
    for lib, wrap in ((nn, md.tensor), (tnn, torch.tensor)):
        layer = getattr(lib, f"Transformer{kind}Layer")(6, 2, 8, 0.0, batch_first=True, norm_first=True)
        more = {"enable_nested_tensor": False} if kind == "Encoder" else {}
        found.append((getattr(lib, f"Transformer{kind}")(layer, 3, lib.LayerNorm(6), **more).double(), wrap))
    (ours, _), (theirs, _) = found
    assert list(ours.state_dict()) == list(theirs.state_dict())
    g = np.random.default_rng(2)
    ours.load_state_dict({k: g.normal(size=v.shape) for k, v in ours.state_dict().items()})
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    x, memory = g.normal(size=(3, 4, 6)), g.normal(size=(3, 5, 6))
    padding, causal = draw(Mask((3, 4)), g), np.triu(np.full((4, 4), -np.inf), 1)
    results = []
    for net, tensor in found:
        t = tensor(x, requires_grad=True)
        if kind == "Encoder":
            out = net(t, mask=tensor(causal != 0), src_key_padding_mask=tensor(padding))
        else:
            out = net(t, tensor(memory), tgt_mask=tensor(causal != 0), tgt_key_padding_mask=tensor(padding))
        (out * out).sum().backward()
        results.append([out, t.grad, *(p.grad for p in net.parameters())])
    for i, (a, b) in enumerate(zip(*results, strict=True)):
        close(a, b, 1e-9, str(i))


def test_dropout_of_attention_drops_weights_in_training_only():
    md.manual_seed(0)
    layer = nn.MultiheadAttention(4, 1, dropout=0.5)
    x = md.ones((200, 1, 4))
    weights = layer(x, x, x)[1].detach().numpy() * 200
    assert set(np.round(np.unique(weights), 4)) == {0.0, 2.0} and abs(weights.mean() - 1) < 0.02
    fast = [layer(x, x, x, need_weights=False)[0].detach().numpy() for _ in range(2)]
    assert (fast[0] != fast[1]).any()
    layer.eval()
    np.testing.assert_allclose(layer(x, x, x)[1].detach().numpy() * 200, 1, rtol=1e-5)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_positions(interleaved):
    """Scores depend on the distance of places alone; the turn is that of complex numbers; derivatives are turned back."""
    g = np.random.default_rng(0)
    x = g.normal(size=(2, 3, 5, 8))
    layer = nn.RotaryEmbedding(6, base=100.0, interleaved=interleaved)
    got = layer(md.asarray(x)).numpy()
    first, second = (x[..., 0:6:2], x[..., 1:6:2]) if interleaved else (x[..., :3], x[..., 3:6])
    turned = (first + 1j * second) * np.exp(1j * np.arange(5)[:, None] * 100.0 ** (-np.arange(0, 6, 2) / 6))
    parts = np.stack((turned.real, turned.imag), -1).reshape(2, 3, 5, 6) if interleaved else np.concatenate((turned.real, turned.imag), -1)
    np.testing.assert_allclose(got[..., :6], parts, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(got[..., 6:], x[..., 6:])
    q, k = md.asarray(g.normal(size=6)), md.asarray(g.normal(size=6))
    at = lambda v, place: layer(md.broadcast_to(v, (1, 6)), md.asarray([place]))[0]
    near, far = md.sum(at(q, 3) * at(k, 1)).item(), md.sum(at(q, 1003) * at(k, 1001)).item()
    assert abs(near - far) < 1e-9
    both = md.jit(lambda v: layer(v))(md.asarray(x)).numpy()
    np.testing.assert_allclose(both, got, rtol=1e-12)


# ---- vmap: the first combination of each layer (test_nn_backends.py has the other backends) ----------------------------------------
FIRST = {}
for _row in LAYERS:
    FIRST.setdefault(_row.name, _row)
def first(name: str) -> tuple[Any, dict[str, Any]]:
    row = FIRST[name]
    return row, combinations(row)[0]


@pytest.mark.parametrize("name", FIRST)
def test_first_combination_under_vmap(name):
    """A stack of inputs, mapped, gives the stack of the single results; and so do its gradients."""
    row, options = first(name)
    layer = getattr(nn, row.name)(*row.args, **{k: md.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}).double().eval()
    g = np.random.default_rng(3)
    stacks = [np.stack([draw(s, g) for _ in range(3)]) for s in row.inputs]
    live = tuple(i for i, s in enumerate(row.inputs) if not isinstance(s, (Ints, Signs, Mask)))
    run = lambda *xs: md.stack([(o * md.cos(md.arange(o.size, dtype=md.float64)).reshape(o.shape)).sum() for o in leaves(layer(*xs))]).sum()
    both = md.grad(run, argnums=live) if live else run
    got = md.tree.leaves(md.vmap(both)(*map(md.asarray, stacks)))
    want = [md.tree.leaves(both(*(md.asarray(s[i]) for s in stacks))) for i in range(3)]
    for k, lane in enumerate(zip(*want, strict=True)):
        np.testing.assert_allclose(number(got[k]), np.stack([number(v) for v in lane]), rtol=1e-11, atol=1e-12)


# ---- names, order and defaults ----------------------------------------------------------------------------------------------------------
DEPRECATED = {"size_average", "reduce", "_stacklevel", "out", "min_value", "max_value"}


def arguments(f: Any) -> list[tuple[str, Any]]:
    """(name, default) in order; those of a built-in function from the first line of its text."""
    try:
        found = [(p.name, p.default) for p in inspect.signature(f).parameters.values() if p.name != "self"]
    except ValueError:
        text = re.search(r"\((.*?)\)\s*->", f.__doc__.replace("\n", " ")).group(1)
        found = [(n.strip(), eval(d) if eq else inspect.Parameter.empty) for n, eq, d in (part.partition("=") for part in text.split(","))]
    return [(n, getattr(d, "__name__", d)) for n, d in found if n not in DEPRECATED]


def same_arguments(ours: Any, theirs: Any) -> None:
    mine, other = arguments(ours), arguments(theirs)
    assert [n for n, _ in mine][: len(other)] == [n for n, _ in other]
    for (name, a), (_, b) in zip(mine, other, strict=False):
        assert a == b, name
    assert all(d is not inspect.Parameter.empty for _, d in mine[len(other) :])  # what newer versions of torch have besides


LAYER_NAMES = [n for n in dir(tnn) if isinstance(getattr(tnn, n), type) and issubclass(getattr(tnn, n), tnn.Module)]


@pytest.mark.parametrize("name", sorted(n for n in LAYER_NAMES if hasattr(nn, n) and n != "Module"))  # test_torch_names.py has the others
def test_constructor_has_torchs_arguments(name):
    ours, theirs = getattr(nn, name).__init__, getattr(tnn, name).__init__
    if "args" in dict(arguments(theirs)):
        assert name in ("Identity", "Sequential", "RNN", "LSTM", "GRU") or not arguments(ours)
    else:
        same_arguments(ours, theirs)


FUNCTION_NAMES = [n for n in F.__all__ if hasattr(TF, n)]


@pytest.mark.parametrize("name", FUNCTION_NAMES)
def test_function_has_torchs_arguments(name):
    theirs = getattr(TF, f"{name}_with_indices", None) or getattr(TF, name)
    if name == "scaled_dot_product_attention":
        assert [n for n, _ in arguments(F.scaled_dot_product_attention)] == [
            "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"]  # fmt: skip
        return
    same_arguments(getattr(F, name), theirs)


def test_recurrent_layers_have_torchs_arguments():
    base = arguments(tnn.RNNBase.__init__)[1:]  # without mode
    same = arguments(nn.LSTM.__init__)
    assert same == base
    without = [(n, d) for n, d in base if n != "proj_size"]
    assert arguments(nn.GRU.__init__) == without
    assert arguments(nn.RNN.__init__) == [*without[:3], ("nonlinearity", "tanh"), *without[3:]]


def test_initialisers_have_torchs_arguments():
    for name in nn.init.__all__:
        same_arguments(getattr(nn.init, name), getattr(tnn.init, name))
