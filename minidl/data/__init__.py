"""Data sets and loaders with PyTorch's names, and the handwritten digits that the demonstration trains on."""

from __future__ import annotations

from minidl.data.datasets import Dataset, Subset, TensorDataset, random_split
from minidl.data.digits import digits, digits_arrays
from minidl.data.loader import DataLoader, default_collate

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "default_collate", "digits", "digits_arrays", "random_split"]
