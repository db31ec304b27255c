"""Numba kernels for the CPU: every product of real numbers and integers in up to three axes."""

from .plan import plan

__all__ = ["plan"]
