"""Kernels of a program on several threads, for the backends that make kernels of their own."""
