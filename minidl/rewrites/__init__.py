"""Rules that make programs smaller and quicker, as tables: `arithmetic` for functions of single elements, `movement` for what moves, reduces or
contracts them. They are loaded when the first graph is simplified. The core works without them: it merges equals, and drops what nobody reads.

Promises: each rule holds for every element, nan, infinities and signed zeros included, and never changes the order in which floats are summed, so a
program gives to the bit what its equations gave one by one (the sign of a nan aside).

What is left undone, because it would break the promise: x + 0.0 (changes -0.0), 0 * x of floats (nan), x / c as x * (1/c) unless c is a power of
two, the sum of float sums over one axis and then another, n * x for a sum of n equal floats, (A @ B).T as B.T @ A.T (BLAS rounds differently),
gather after scatter at the same places (which may be equal, or out of range). And what no program of the benchmarks and of the suite was smaller
for: flips of flips, pads of pads, maximum(x, x), not(x < y) as x >= y, integer sums of sums.
"""

from minidl.rewrites import arithmetic, movement

__all__ = ["arithmetic", "movement"]
