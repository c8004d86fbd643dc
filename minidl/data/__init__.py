"""Data sets, samplers and loaders with PyTorch's names; files of images and texts; transforms; and the digits that the demonstration trains on.

    loader = md.data.DataLoader(dataset, batch_size=32, shuffle=True, num_workers=2)
    md.data.datasets      MNIST, FashionMNIST, CIFAR10, CIFAR100 and folders of images, as torchvision.datasets names them
    md.data.transforms    crop, flip, resize, normalise, as torchvision.transforms names them, random by key
    md.data.text          words and vocabulary, byte pairs, padding; folders and CSV files of texts

All of it raises TypeError for an argument of the wrong kind, ValueError for one of the wrong size or value, IndexError for a number that no item has,
KeyError for a token that is unknown, RuntimeError for a data set that is not on disk, and OSError for a file that cannot be read. The text begins
with the class or function. What the user's own data sets, transforms and functions raise passes unchanged.
"""

from __future__ import annotations

from minidl.data import datasets, text, transforms
from minidl.data.collate import default_collate, default_convert
from minidl.data.dataset import ChainDataset, ConcatDataset, Dataset, IterableDataset, StackDataset, Subset, TensorDataset, random_split
from minidl.data.digits import digits, digits_arrays
from minidl.data.loader import DataLoader
from minidl.data.randomness import sample_key
from minidl.data.reading import get_worker_info
from minidl.data.samplers import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

__all__ = [
    "BatchSampler", "ChainDataset", "ConcatDataset", "DataLoader", "Dataset", "DistributedSampler", "IterableDataset", "RandomSampler", "Sampler",
    "SequentialSampler", "StackDataset", "Subset", "SubsetRandomSampler", "TensorDataset", "WeightedRandomSampler", "datasets", "default_collate",
    "default_convert", "digits", "digits_arrays", "get_worker_info", "random_split", "sample_key", "text", "transforms",
]  # fmt: skip
