"""The updates of optimizers, which libraries have kernels for: what stands in on_<backend>.py is loaded with its first program."""
