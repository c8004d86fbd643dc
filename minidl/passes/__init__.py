"""Graph passes, shared by all backends: a pass takes a Graph and returns a new one.

Promises: a rewrite holds for every element, nan, infinities and signed zeros included, so a pass never changes a value convention; the order in
which floats are summed is never changed either, so a program gives to the bit what its equations gave one by one (the sign of a nan aside). The
rules are tables: `arithmetic` for functions of single elements, `movement` for what moves, reduces or contracts them; `rewriting` applies them.

What is left undone, because it would break the promise: x + 0.0 (changes -0.0), 0 * x of floats (nan), x / c as x * (1/c) unless c is a power of
two, the sum of float sums over one axis and then another, n * x for a sum of n equal floats, (A @ B).T as B.T @ A.T (BLAS rounds differently),
gather after scatter at the same places (which may be equal, or out of range).
"""

from minidl.passes import arithmetic, movement
from minidl.passes.basic import check, dead_code, inlined, lifetimes, memory, peak_memory
from minidl.passes.rewriting import simplify

__all__ = ["arithmetic", "check", "dead_code", "inlined", "lifetimes", "memory", "movement", "peak_memory", "simplify"]
