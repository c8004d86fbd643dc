"""Loops that several numba kernels share: the stable order, products of small matrices, and copies."""

from __future__ import annotations

import numpy as np

from minidl.backends.numba_machine import as_ptr, call13, jit


@jit
def merge_argsort(key, index, spare, n):
    """The stable order of n unsigned keys: runs of 16 by insertion, then bottom-up merging. Returns whether the answer lies in `spare`."""
    for start in range(0, n, 16):
        for i in range(start, min(start + 16, n)):
            j = i
            while j > start and key[index[j - 1]] > key[i]:
                index[j] = index[j - 1]
                j -= 1
            index[j] = i
    a, b, flipped, width = index, spare, False, 16
    while width < n:
        for start in range(0, n, 2 * width):
            i, middle, end = start, min(start + width, n), min(start + 2 * width, n)
            j = middle
            for k in range(start, end):
                if j >= end or (i < middle and key[a[i]] <= key[a[j]]):
                    b[k] = a[i]
                    i += 1
                else:
                    b[k] = a[j]
                    j += 1
        a, b, flipped, width = b, a, not flipped, 2 * width
    return flipped


@jit
def blas(a, i, x, y, z):
    """z = x @ y by the Fortran gemm described by a[i:i+11]: function, trans, trans, m, n, k, alpha, lda, ldb, beta, ldc."""
    call13(a[i], (a[i + 1], a[i + 2], a[i + 3], a[i + 4], a[i + 5], a[i + 6], x, a[i + 7], y, a[i + 8], a[i + 9], z, a[i + 10]))


@jit
def product(x, y, z, tx, ty, m, n, k, keep, zero):
    """z = x @ y by loops, for integers; zero fixes the type that it accumulates in."""
    for i in range(m):
        for j in range(n):
            s = zero
            if keep:
                s += z[i * n + j]
            for q in range(k):
                s += x[q * m + i if tx else i * k + q] * y[j * k + q if ty else q * n + j]
            z[i * n + j] = s


@jit
def copy_bytes(target, source, n):
    t, s = as_ptr(target, np.uint8), as_ptr(source, np.uint8)
    for i in range(n):
        t[i] = s[i]
