"""Layers and optimizers say what they cannot take: the layer, the argument, what came and what is wanted, alike on every backend.

Every argument of every constructor, and every input of every layer, is replaced by things of the wrong kind. Much of it is refused, and then by an
exception that a `raise` statement of minidl's made, never by an accident of Python's with the argument.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.errors import own
from minidl.shapes import shown

CLASSES = (TypeError, ValueError, IndexError)
ACCIDENT = re.compile(
    r"object has no attribute|object is not|not supported between|unsupported operand|must be real number|has no len|expected at least|'NoneType'"
    r"|not subscriptable|cannot unpack|values to unpack|positional argument|unexpected keyword|local variable|cannot be interpreted|bad operand"
    r"|bad argument|unhashable|can't multiply|concatenate|not iterable|index out of range|invalid literal|convert string"
)
#: Constructor arguments of each layer that wants some, by the beginning of its name; the longest that fits counts.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "Linear": (3, 4), "Bilinear": (3, 3, 4), "Conv": (3, 4, 2), "BatchNorm": (3,), "InstanceNorm": (3,), "GroupNorm": (1, 3), "LayerNorm": (3,),
    "LocalResponseNorm": (2,), "RMSNorm": (3,), "MaxPool": (2,), "MaxUnpool": (2,), "AvgPool": (2,), "LPPool": (2, 2), "Adaptive": (1,),
    "Embedding": (5, 3), "RNN": (3, 4), "LSTM": (3, 4), "GRU": (3, 4), "MultiheadAttention": (4, 2), "RotaryEmbedding": (4,),
    "TransformerEncoderLayer": (4, 2, 8), "TransformerDecoderLayer": (4, 2, 8), "Transformer": (4, 2, 1, 1, 8), "Threshold": (1.0, 2.0),
    "ReflectionPad": (1,), "ReplicationPad": (1,), "ZeroPad": (1,), "ConstantPad": (1, 0.0), "CircularPad": (1,), "Upsample": (None, 2),
    "UpsamplingNearest2d": (2,), "UpsamplingBilinear2d": (2,), "Unfold": (2,), "Fold": ((2, 2), (2, 2)), "Unflatten": (1, (1, 3)),
    "Softmax": (0,), "AdaptiveLogSoftmaxWithLoss": (3, 4, [1, 2]), "FractionalMaxPool": (2, 1), "LazyConv": (4, 2),
    "LazyLinear": (4,), "LazyBatchNorm": (), "LazyInstanceNorm": (), "RNNBase": ("GRU", 3, 4),
    "RNNCellBase": (3, 4, True, 1), "Softmax2d": (), "LogSoftmax": (0,),
    "Softmin": (0,), "PixelShuffle": (1,), "PixelUnshuffle": (1,), "ChannelShuffle": (1,),
}  # fmt: skip
HOLDERS = ("ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "Sequential", "Identity")


class Odd:
    """Nothing that a layer takes."""


WRONG_SETTINGS = ["abc", None, 1.5, -1, [1, 2, 3, 4, 5, 6, 7], Odd(), {}]


def wrong_inputs() -> list[Any]:
    return [
        5, "abc", None, 1.5, Odd(), [1.0], np.ones((2, 2), "float32"), md.tensor(1.0), md.ones((2,) * 6), md.ones((2, 3), dtype=md.int32),
        md.ones((2, 3), dtype=md.complex64), md.ones((7,)),
    ]  # fmt: skip


def arguments(name: str) -> tuple[Any, ...]:
    if name in ("TransformerEncoder", "TransformerDecoder"):
        return getattr(nn, name + "Layer")(4, 2, 8), 1
    found = [k for k in ARGUMENTS if name.startswith(k)]
    return ARGUMENTS[max(found, key=len)] if found else ()


def layers(only: Any = None) -> Iterator[tuple[str, Any]]:
    """Every class of nn that computes something."""
    for name in nn.__all__:
        kind = getattr(nn, name)
        if inspect.isclass(kind) and issubclass(kind, nn.Module) and kind is not nn.Module and name not in HOLDERS and (only is None or name in only):
            yield name, kind


def raised(f: Any, *args: Any, **params: Any) -> Exception | None:
    try:
        f(*args, **params)
    except Exception as error:
        return error
    return None


def constructions(only: Any = None) -> Iterator[tuple[str, str, Any, Exception | None]]:
    """(layer, parameter, what it is given, what is raised)."""
    for name, kind in layers(only):
        given = dict(zip(inspect.signature(kind).parameters, arguments(name), strict=False))
        for parameter in inspect.signature(kind).parameters.values():
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                for value in WRONG_SETTINGS[parameter.name == "device" :]:  # which devices there are, each backend says itself
                    yield name, parameter.name, value, raised(kind, **{**given, parameter.name: value})


def calls(only: Any = None) -> Iterator[tuple[str, str, Any, Exception | None]]:
    """(layer, input, what it is given, what is raised), the other inputs being ones."""
    for name, kind in layers(only):
        layer = kind(*arguments(name))
        inputs = [p for p in inspect.signature(layer.forward).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        given = {p.name: md.ones((2, 3)) for p in inputs if p.default is p.empty}
        for p in inputs:
            for value in wrong_inputs():
                yield name, p.name, value, raised(layer, **{**given, p.name: value})


def complaint(error: Exception, named: str) -> str:
    """What is wrong with an error, "" if nothing."""
    if not isinstance(error, CLASSES) or not own(error) or not re.match(named, str(error)) or ACCIDENT.search(str(error)):
        return f"{type(error).__name__}: {error}"
    return ""


def said(error: Exception | None, backend: str = "numpy") -> tuple[str, str]:
    """Class and text, with the backend's name neutral."""
    return type(error).__name__, re.sub(rf"\b(backend[ =]|the ){backend}\b", r"\1B", str(error))


def table(found: Iterator[tuple[str, str, Any, Exception | None]]) -> list[tuple[Any, Exception | None]]:
    return [((name, parameter, shown(value)), error) for name, parameter, value, error in found]


@pytest.fixture(scope="module")
def reference() -> tuple[list[Any], list[Any]]:
    with md.use_backend("numpy"):
        return table(constructions()), table(calls())


def test_nothing_is_an_accident(reference):
    for rows, named in zip(reference, (r"[A-Z]\w*: ", r"[A-Za-z_][\w.]*(\(\))?: "), strict=True):
        bad = [f"{case}: {text}" for case, e in rows if e is not None and (text := complaint(e, named))]
        assert not bad, f"{len(bad)}\n" + "\n".join(bad)
        assert sum(e is not None for _, e in rows) > len(rows) // 3  # these are wrong
        assert sum(e is None for _, e in rows) > len(rows) // 20  # and some are right


@pytest.mark.parametrize("where", ["torch", "jax"])
def test_alike_everywhere(reference, where):
    """Some constructors, and on torch the calls of all layers; of few on jax, where each right call would compile."""
    few = ("Linear", "Conv2d", "LayerNorm", "LSTM", "MaxPool2d", "TransformerEncoderLayer")
    with md.use_backend(where):
        for rows, only, f in zip(reference, (few, None if where == "torch" else few[:3]), (constructions, calls), strict=True):
            wanted = [(case, said(e)) for case, e in rows if only is None or case[0] in only]
            got = [(case, said(e, where)) for case, e in table(f(only))]
            differ = [f"{w}\n   {g}" for w, g in zip(wanted, got, strict=True) if w[1] != g[1]]
            assert not differ, f"{len(differ)}\n" + "\n".join(differ[:20])


MESSAGES = [
    (lambda: nn.Linear(3, 4)(5), TypeError, "Linear: input must be a Tensor, not 5; md.asarray makes one"),
    (lambda: nn.Linear(3, 4)("abc"), TypeError, "Linear: input must be a Tensor, not 'abc'"),
    (lambda: nn.Sequential(nn.ReLU(), nn.Linear(3, 4))(md.ones((2, 5))), ValueError, "matmul: inner dimensions differ: f32[2,5] @ f32[3,4] (5 != 3)"),
    (lambda: nn.Linear(3, 4)(), TypeError, "Linear: missing a required argument: 'input'; it is Linear(input)"),
    (lambda: nn.Linear(3), TypeError, "Linear: missing a required argument: 'out_features'; it is Linear(in_features, out_features, bias=True, "),
    (lambda: nn.Linear(3, -1), ValueError, "Linear: "),
    (lambda: nn.Conv2d("a", 3, 3), TypeError, "Conv2d: in_channels must be an integer, not 'a'"),
    (lambda: nn.Conv2d(3, 3, [1, 2, 3]), ValueError, "Conv2d: kernel_size: [1, 2, 3] should be one integer or 2 of them"),
    (lambda: nn.LayerNorm(None), TypeError, "LayerNorm: normalized_shape must be an integer or a sequence of integers, not None"),
    (lambda: nn.TransformerEncoderLayer("a", 2), TypeError, "TransformerEncoderLayer: d_model must be an integer, not 'a'"),
    (lambda: nn.Sequential(nn.ReLU())["a"], TypeError, "Sequential: index must be an integer or a slice, not 'a'"),
    (lambda: nn.ModuleList(5), TypeError, "ModuleList: modules must be an iterable or None, not 5"),
    (lambda: nn.Embedding.from_pretrained(5), TypeError, "Embedding.from_pretrained: embeddings must be a Tensor, not int; md.asarray makes one"),
    (lambda: nn.Linear(3, 4, foo=1), TypeError, "Linear: got an unexpected keyword argument 'foo'; it is Linear(in_features, out_features, "),
    (lambda: nn.Dropout(2.0), ValueError, "Dropout: p is a probability, not 2.0"),  # a layer's own words
]  # fmt: skip


def test_the_messages():
    for f, kind, text in MESSAGES:
        with pytest.raises(kind) as error:
            f()
        assert str(error.value).startswith(text), str(error.value)
        assert own(error.value) and error.value.__cause__ is None


class Users(nn.Module):
    """A module whose forward has an accident of its own."""

    def forward(self, x: Any) -> Any:
        return x.nothing


class Wider(nn.Linear):
    """A layer of the user's that hands on arguments."""

    def __init__(self, size: Any):
        super().__init__(size, 4)


def test_what_is_the_user_s_passes_unchanged():
    x = md.ones((2, 3))
    for module in (Users(), nn.Sequential(nn.ReLU(), Users()), nn.Sequential(nn.Sequential(Users()))):
        with pytest.raises(AttributeError, match=r"no attribute 'nothing'"):
            module(x)
    with pytest.raises(TypeError, match=r"Users\.forward\(\) takes 2 positional arguments but 3 were given"):
        Users()(x, x)
    with pytest.raises(TypeError, match=r"Users\.forward\(\) missing 1 required"):
        nn.Sequential(WithoutInput())(x)
    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda module, args, output: {}["mine"])
    with pytest.raises(KeyError, match="mine"):
        hooked(x)
    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda module: None)
    with pytest.raises(TypeError, match="takes 1 positional argument but 3 were given"):
        hooked(x)
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation=lambda v: v.nothing)
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'"):
        layer(md.ones((2, 1, 4)))


class WithoutInput(nn.Module):
    """It hands on nothing to a module that wants something."""

    def forward(self, x: Any) -> Any:
        return Users()()


def test_classes_of_the_user_s_that_derive_from_layers():
    with pytest.raises(TypeError, match=r"^Linear: in_features must be an integer, not 'a'$"):
        Wider("a")
    with pytest.raises(TypeError, match=r"^Linear: input must be a Tensor, not 5"):
        Wider(3)(5)
    with pytest.raises(TypeError, match=r"^Wider\.__init__\(\) missing 1 required positional argument: 'size'$"):
        Wider()  # type: ignore[call-arg]
    assert Wider(3)(md.ones((2, 3))).shape == (2, 4)


def test_nothing_else_about_a_layer_changes():
    assert list(inspect.signature(nn.Linear).parameters) == ["in_features", "out_features", "bias", "device", "dtype"]
    assert nn.Linear.__init__.__qualname__ == "Linear.__init__" and nn.Linear.__init__.__annotations__["bias"] == "bool"
    layer, x = nn.Linear(3, 4), md.ones((2, 3))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin(x).tolist() == layer(x).tolist()
    run = md.jit(layer)
    np.testing.assert_allclose(run(x).detach().numpy(), layer(x).detach().numpy(), rtol=1e-6)
    with pytest.raises(TypeError, match=r"Linear: input must be a Tensor, not 'a'"):
        md.jit(lambda v: layer("a") + v)(x)


class Doubled(nn.Linear):
    """Hands on to the layer that it derives from something that it does not take."""

    def forward(self, input):
        return super().forward(input if isinstance(input, md.Tensor) else [input])


def test_a_layer_explains_itself_to_a_subclass_of_the_user_s():
    layer = Doubled(3, 4)
    with pytest.raises(TypeError, match=r"^Linear: input must be a Tensor, not \[5\]; md.asarray makes one$") as error:
        layer(5)
    assert any(frame.path.name == "test_nn_errors.py" and frame.name == "forward" for frame in error.traceback)
    with pytest.raises(TypeError, match=r"^Linear: input must be a Tensor, not \[5\]"):
        nn.Sequential(nn.ReLU(), Doubled(3, 4))[1](5)
    with pytest.raises(ValueError, match=r"^matmul: inner dimensions differ: f32\[2,5\] @ f32\[3,4\] \(5 != 3\)"):
        layer(md.ones((2, 5)))

    class Own(nn.Linear):
        def forward(self, input):
            return {}["missing"] if input is None else super().forward(input)

    with pytest.raises(KeyError, match="^'missing'$"):
        Own(3, 4)(None)


def optimizers() -> Iterator[tuple[str, Any]]:
    for name in md.optim.__all__:
        kind = getattr(md.optim, name)
        if inspect.isclass(kind) and issubclass(kind, md.optim.Optimizer) and kind is not md.optim.Optimizer:
            yield name, kind


def test_no_optimizer_has_an_accident_when_it_is_made():
    """Every argument of every constructor, those that the constructor computes with too."""
    refused = 0
    for name, kind in optimizers():
        for parameter in inspect.signature(kind).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD or parameter.name == "params":
                continue
            for value in [*WRONG_SETTINGS, (), ("a", "b"), ("a", "b", "c"), (None, None), 1j]:
                error = raised(kind, [md.ones((1, 2)).requires_grad_()], **{parameter.name: value})
                assert error is None or not complaint(error, rf"{name}: "), f"{name}({parameter.name}={shown(value)}): {error!r}"
                assert error is None or parameter.name in str(error), str(error)
                refused += error is not None
        for params in (3, None, "abc", [3], [None], [{"params": 3}], [{"lr": 1}], [md.ones(2), 3], {"a": 1}, [{"params": [md.ones(2)]}, 3]):
            error = raised(kind, params)
            assert error is None or not complaint(error, rf"{name}: "), f"{name}({params}): {error!r}"
    assert refused > 600
    assert str(raised(md.optim.Adafactor, eps=3.0)) == "Adafactor: eps must be 2 numbers, not 3.0"
    assert raised(md.optim.Adafactor, eps=(None, 1e-3)) is None
    assert raised(md.optim.Muon, ns_coefficients=[3.0, -4.0, 2.0]) is None
