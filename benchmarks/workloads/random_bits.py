"""random_bits: 2**20 words of 32 random bits, against NumPy's Philox, the counter-based generator that its users reach for.

Raw output of Philox, as many bits; jax.random.bits gives the very words of minidl. What is checked is the distribution: mean, spread and parity, on
which two generators agree to a few thousandths.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.timing import Side

N = 1 << 20


def moments(words: np.ndarray) -> list[np.ndarray]:
    """Mean and root mean square as fractions of the range, and how many are odd."""
    x = words / 2**32
    return [np.array([x.mean() * 2, np.sqrt((x * x).mean() * 3), (words & 1).mean() * 2])]


def philox() -> Side:
    """NumPy's, with a state of its own."""
    generator = np.random.Philox(0)
    return Side(lambda: generator.random_raw(N // 2), lambda: moments(generator.random_raw(N // 2).view(np.uint32)))


def with_jax() -> Side:
    """jax.random.bits."""
    import jax

    key, draw = jax.random.key(0), jax.jit(lambda key: jax.random.bits(key, (N,)))
    return Side(lambda: draw(key), lambda: moments(np.asarray(draw(key))), jax.block_until_ready)


def minidl_side(way: sides.Way) -> Side:
    """md.random.bits with the key as an argument."""
    import minidl as md

    with way.inside():
        key = md.random.key(0)
    draw = way.jit(lambda key: md.random.bits(key, (N,)))
    return Side(lambda: draw(key), lambda: moments(draw(key).numpy()), sides.wait)


def run(bench: Any) -> None:
    """All sides."""
    builders: sides.Builders = {"NumPy by hand": philox, "jax.jit": with_jax}
    builders |= {way.label: partial(minidl_side, way) for way in sides.ways(bench)}
    sides.compare(bench, "random_bits", builders, 5e-3)
