"""From a model to its quantized copy: which layers are swapped, and for what."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl import nn
from minidl.nn.utils import prune
from minidl.quantize.layers import QuantizedConv, QuantizedEmbedding, QuantizedLinear
from minidl.quantize.observing import Observed

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _swapped(model: nn.Module, swap: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """A copy of the model in which every layer for which `swap` gives another is that one; one layer in two places stays one."""
    done: dict[int, nn.Module] = {}

    def walk(module: nn.Module) -> nn.Module:
        if id(module) not in done:
            new = swap(module)
            done[id(module)] = module if new is None else new
            if new is None:
                for name, child in list(module.named_children()):
                    module._modules[name] = walk(child)
        return done[id(module)]

    return walk(copy.deepcopy(model))


def _check(name: str, model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name}: a Module is wanted, not {type(model).__name__}")


def _unmasked(layer: nn.Module) -> nn.Module:
    """The layer with its masks made permanent: 8 bits hold the zeros as they are."""
    for key in [k.removesuffix("_orig") for k in list(layer._parameters) if prune.is_pruned(layer, k.removesuffix("_orig"))]:
        prune.remove(layer, key)
    return layer


def dynamic(model: nn.Module, types: tuple[type, ...] = (nn.Linear, nn.Embedding), per_channel: bool = True) -> nn.Module:
    """A copy of the model for inference in which layers of `types` (Linear, Embedding, convolutions) have int8 weights; inputs are rounded as they
    come. per_channel: a scale for each output channel or row, else one for the weight. Layers with other padding than zeros stay as they are.

    Raises TypeError for a type that has no quantized form.

    >>> from minidl import nn
    >>> dynamic(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)))
    Sequential(
      (0): QuantizedEmbedding(10, 4)
      (1): QuantizedLinear(in_features=4, out_features=2, dynamic)
    )
    """
    _check("dynamic", model)
    for t in types:
        if not issubclass(t, (nn.Linear, nn.Embedding, *_CONVOLUTIONS)):
            raise TypeError(f"dynamic: {t.__name__} has no quantized form; Linear, Embedding and Conv1d to Conv3d have one")

    def swap(module: nn.Module) -> nn.Module | None:
        return _quantized(module, per_channel, None) if isinstance(module, types) else None

    return _swapped(model, swap).eval()


def _quantized(layer: nn.Module, per_channel: bool, input_scale: md.Tensor | None) -> nn.Module | None:
    layer = _unmasked(layer)
    if isinstance(layer, nn.Linear):
        return QuantizedLinear(layer, per_channel, input_scale)
    if isinstance(layer, nn.Embedding):
        return QuantizedEmbedding(layer, per_channel)
    return QuantizedConv(layer, per_channel, input_scale) if getattr(layer, "padding_mode", "zeros") == "zeros" else None


def prepare(model: nn.Module, aware: bool = False, per_channel: bool = True, averaging: float = 0.1) -> nn.Module:
    """A copy of the model whose Linear and convolution layers measure their inputs: run typical data through it, then convert it.

    aware: the copy computes as if in 8 bits and is trained further (quantization-aware training), the ranges following the batches with momentum
    `averaging`. Fold batch normalisation before, or leave it between the layers, in floats. Raises ValueError for a model that was prepared already.

    >>> import minidl as md
    >>> from minidl import nn
    >>> observed = prepare(nn.Sequential(nn.Linear(4, 2)).eval())
    >>> _ = observed(md.ones((8, 4)))
    >>> convert(observed)
    Sequential(
      (0): QuantizedLinear(in_features=4, out_features=2, static)
    )
    """
    _check("prepare", model)
    if any(isinstance(m, Observed) for m in model.modules()):
        raise ValueError("prepare: the model has observed layers already; run data through it, or prepare the model that it was made of")

    def swap(module: nn.Module) -> nn.Module | None:
        if isinstance(module, (nn.Linear, *_CONVOLUTIONS)) and getattr(module, "padding_mode", "zeros") == "zeros":
            return Observed(_unmasked(module), per_channel, aware, averaging)
        return None

    return _swapped(model, swap)


def convert(observed: nn.Module) -> nn.Module:
    """The quantized copy of a model from prepare, for inference; Embedding layers are quantized, too.

    Raises ValueError where there is nothing to convert, and where a layer has seen no data.

    >>> observed = md.quantize.prepare(md.nn.Sequential(md.nn.Linear(4, 2)).eval())
    >>> _ = observed(md.ones((8, 4)))
    >>> md.quantize.convert(observed)(md.ones((1, 4))).shape
    (1, 2)
    """
    _check("convert", observed)
    found = [(name, m) for name, m in observed.named_modules() if isinstance(m, Observed)]
    if not found:
        raise ValueError("convert: the model has no observed layer; prepare(model) makes them")
    unseen = [name for name, m in found if m.input_max.item() == 0]
    if unseen:
        raise ValueError(f"convert: {', '.join(unseen)} saw no data, or zeros only; run typical inputs through the prepared model first")

    def swap(module: nn.Module) -> nn.Module | None:
        if isinstance(module, Observed):
            return _quantized(_plain(module), module.per_channel, module.scale())
        return _quantized(module, True, None) if isinstance(module, nn.Embedding) else None

    return _swapped(observed, swap).eval()


def _plain(observed: Observed) -> nn.Module:
    """The layer with its float weight."""
    from minidl.nn.computed import restore

    layer = observed.layer
    if observed.aware:
        restore(layer, "weight")
        layer.register_parameter("weight", layer._parameters.pop("weight_float"))
    return layer
