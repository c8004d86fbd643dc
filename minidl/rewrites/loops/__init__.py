"""Large regions of a program as loops over blocks that fit the cache, for the backends that have no compiler to make them."""
