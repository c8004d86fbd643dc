"""Graph passes, shared by all backends: a pass takes a Graph and returns a new one.

Promises: a rewrite keeps every bit of the values; `rewriting` merges what is equal and applies the rules that rooms beside the core bring, above
all those of minidl.rewrites.
"""

from minidl.passes.basic import check, dead_code, inlined, lifetimes, memory, peak_memory
from minidl.passes.rewriting import simplify

__all__ = ["check", "dead_code", "inlined", "lifetimes", "memory", "peak_memory", "simplify"]
