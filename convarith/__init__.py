"""Convolution as arithmetic: its shapes, its matrix, its exact adjoint, its kernels."""

from .filters import bilinear_kernel
from .geometry import ConvGeometry
from .matrix import conv_as_matmul
from .operator import ConvOperator
from .ops import conv, conv_kernel_gradient, conv_transpose
from .upsampling import upsample_bilinear

__all__ = [
    "ConvGeometry",
    "ConvOperator",
    "bilinear_kernel",
    "conv",
    "conv_as_matmul",
    "conv_kernel_gradient",
    "conv_transpose",
    "upsample_bilinear",
]

__version__ = "0.1.0"
