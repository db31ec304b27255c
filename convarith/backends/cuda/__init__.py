"""CUDA kernels for CuPy arrays: every product of real numbers and integers in up to three axes.

The kernels are CUDA C++ in this folder, one a file, compiled on first use by NVRTC (`compile`).
Launches go to CuPy's current stream and take memory from its pool; nothing here waits for the
device but the look at a kernel's structure when a `ConvOperator` is made.
"""

from .plan import plan

__all__ = ["plan"]
