"""Rewrites of the fused regions of a program, which then keeps less and moves less: for the backends that make loops of regions."""
