"""Graph passes, shared by all backends: a pass takes a Graph and returns a new one.

Promises: a rewrite keeps every bit of the values; `rewriting` merges what is equal and applies the rules that rooms beside the core bring, above
all those of minidl.rewrites.
"""

from minidl.passes.basic import dead_code, inlined
from minidl.passes.rewriting import simplify

__all__ = ["dead_code", "inlined", "simplify"]
