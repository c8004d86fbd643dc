"""Loops that several numba kernels share: the stable order, products of small matrices, copies, and the columns of a convolution."""

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


@jit
def columns(x, col, g, zero, back):
    """im2col of one example, x [C, D, H, W] → col [C, K, P], or its transpose (back), which adds into x.

    g: C, then three each of the sizes of x, of the kernel, of the result, strides, low paddings, dilations.
    """
    height, width, k2, o1, o2, s2 = g[2], g[3], g[6], g[8], g[9], g[12]
    row = 0
    for c in range(g[0]):
        for i0 in range(g[4]):
            for i1 in range(g[5]):
                for i2 in range(k2):
                    first = i2 * g[18] - g[15]  # x position of the first result column
                    lo = min(max(0, -((first) // s2)), o2)
                    hi = max(min(o2, (width - 1 - first) // s2 + 1), lo)
                    for p0 in range(g[7]):
                        y0 = p0 * g[10] - g[13] + i0 * g[16]
                        for p1 in range(o1):
                            y1 = p1 * g[11] - g[14] + i1 * g[17]
                            inside = y0 >= 0 and y0 < g[1] and y1 >= 0 and y1 < height
                            source = ((c * g[1] + y0) * height + y1) * width + first
                            if back:
                                if inside:
                                    for q in range(lo, hi):
                                        x[source + q * s2] += col[row + q]
                            elif inside:
                                for q in range(lo):
                                    col[row + q] = zero
                                for q in range(lo, hi):
                                    col[row + q] = x[source + q * s2]
                                for q in range(hi, o2):
                                    col[row + q] = zero
                            else:
                                for q in range(o2):
                                    col[row + q] = zero
                            row += o2
