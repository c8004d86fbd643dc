"""From a trained model to what is shipped: a model with its constants computed beforehand, and a Python file that needs NumPy alone.

>>> import minidl as md
>>> from minidl import nn
>>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()).eval()
>>> fast = freeze(model)
>>> fast(md.ones((2, 4))).shape
(2, 8)
"""

from __future__ import annotations

from minidl.deploy.exporting import export
from minidl.deploy.freezing import freeze
from minidl.deploy.onnx_file import export_onnx
from minidl.deploy.reporting import Report, compare

__all__ = ["Report", "compare", "export", "export_onnx", "freeze"]
