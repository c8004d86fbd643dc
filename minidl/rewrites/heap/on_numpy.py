"""What programs ask of the heap that NumPy and the other libraries share: that what a call makes on its way is there again for the next call.

A C library gives freed memory back to the system, or not, as the heap happens to lie; the next call then pays a page fault for every 4 KB. glibc's
thresholds for that follow what is freed, up to 32 MB: loading this file moves them there. Promises: what the user has set for the heap stays as it
is, and with another C library nothing happens.
"""

from __future__ import annotations

import contextlib

import numpy as np

with contextlib.suppress(MemoryError):  # where memory is limited, so is what could stay
    np.empty(31 << 20, np.uint8)  # and given back, untouched: from then on glibc keeps freed memory up to twice as much
