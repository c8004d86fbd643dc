"""Quantization to 8 bits: weights as int8 with a scale for each channel, inputs rounded as they come (dynamic), by a range that was measured
beforehand (static), or with the rounding learned in training (quantization-aware).

    dynamic(model)                      nothing to measure: Linear and Embedding
    observed = prepare(model); ...      run data through it, then
    convert(observed)                   static: Linear and convolutions
    prepare(model, aware=True); ...     train it further, then convert

>>> import minidl as md
>>> from minidl import nn
>>> model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
>>> small = dynamic(model)
>>> x = md.random.normal(md.random.key(0), (8, 16))
>>> float(md.abs(small(x) - model(x)).max()) < 0.05
True
"""

from __future__ import annotations

from minidl.quantize.layers import QuantizedConv, QuantizedEmbedding, QuantizedLinear
from minidl.quantize.observing import Observed
from minidl.quantize.product import matmul_int8
from minidl.quantize.rounding import dequantize, fake_quantize, quantize, scale_of
from minidl.quantize.workflow import convert, dynamic, prepare

__all__ = [
    "Observed", "QuantizedConv", "QuantizedEmbedding", "QuantizedLinear", "convert", "dequantize", "dynamic", "fake_quantize", "matmul_int8",
    "prepare", "quantize", "scale_of",
]  # fmt: skip
