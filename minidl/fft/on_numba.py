"""numba: transforms call NumPy between two compiled stretches of a program."""

from __future__ import annotations

from minidl.backends.numba_lower import object_mode

object_mode.update(dict.fromkeys(("fft", "rfft", "irfft"), "NumPy's FFT (pocketfft) has no address that machine code could call"))
