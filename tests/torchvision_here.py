"""The real torchvision beside a CPU build of torch: `from torchvision_here import torchvision`, or the test is skipped where it is not installed.

torchvision's published wheels are compiled for CUDA builds of torch, so beside a CPU build their compiled operators do not load, and the import
fails where it describes two of them to torch's tracer. Naming the two is enough: data sets, transforms, models and weights are Python alone.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

try:
    import torchvision
except RuntimeError:
    NAMED = torch.library.Library("torchvision", "DEF")  # held: torch forgets the names with the object
    for _operator in ("nms", "qnms"):
        NAMED.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
except ImportError:
    torchvision = pytest.importorskip("torchvision")


class FakeData(torchvision.datasets.FakeData):
    """torchvision's own, by a name that brings a worker process here first."""


__all__ = ["FakeData", "torchvision"]
