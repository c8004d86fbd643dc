"""Array functions that are made of others: `md.quantile`, `md.conv`, `md.eye`. They stand beside the core, which works without them.

windows, composites, special, sorting, sets, statistics, grids, products, elementwise and shaping hold them by topic. Each is a name of minidl, and a
method of Tensor where its first argument is one, and is loaded when it is first asked for.
"""
