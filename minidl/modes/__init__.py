"""Other ways to compile a graph than a backend's first choice, for md.jit(mode=...): a backend loads its own, in on_<backend>.py, when one is asked
for."""
