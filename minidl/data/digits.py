"""The handwritten digits of UCI's optical-digits test set (E. Alpaydin and C. Kaynak, 1998; CC BY 4.0, see DIGITS.md), as images for a network."""

from __future__ import annotations

import importlib.resources
from typing import Any

import numpy as np

import minidl as md
from minidl.data.dataset import TensorDataset


def digits_arrays() -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [1797, 8, 8] with values 0 to 16, labels uint8 [1797]) as published.

    >>> images, labels = md.data.digits_arrays()
    >>> images.shape, labels.shape
    ((1797, 8, 8), (1797,))
    """
    with importlib.resources.files("minidl.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        return arrays["images"], arrays["labels"]


def digits(dtype: Any = None) -> tuple[TensorDataset, TensorDataset]:
    """(train, test) of images [3, 32, 32] in [0, 1] and labels int64, on the default backend.

    Each pixel is repeated 4 × 4 times and over three channels. The test set is every fifth scan of each digit: fixed, stratified, 355 of 1,797.

    >>> train, test = digits()
    >>> len(train), len(test), train[0][0].shape
    (1442, 355, (3, 32, 32))
    """
    images, labels = digits_arrays()
    rank = np.empty(len(labels), np.int64)  # the number of a scan among those of its digit
    for digit in range(10):
        which = labels == digit
        rank[which] = np.arange(which.sum())
    test = rank % 5 == 4
    large = (images / 16.0).repeat(4, axis=1).repeat(4, axis=2)[:, None].repeat(3, axis=1)
    x, y = large.astype(md.asarray(0.0, dtype).dtype.numpy), labels.astype(np.int64)
    train_set, test_set = (TensorDataset(md.asarray(x[part]), md.asarray(y[part])) for part in (~test, test))
    return train_set, test_set
