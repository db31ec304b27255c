"""Convolution as arithmetic: its shapes, its matrix, its exact adjoint, its kernels."""

from .coordinates import CoordinateMap, Window
from .filters import bilinear_kernel
from .geometry import ConvGeometry
from .labels import argmax_channels
from .lints import checkerboard, partition_of_unity
from .matrix import conv_as_matmul
from .operator import ConvOperator
from .ops import conv, conv_kernel_gradient, conv_transpose
from .threads import get_num_threads, set_num_threads
from .upsampling import upsample_bilinear

__all__ = [
    "ConvGeometry",
    "ConvOperator",
    "CoordinateMap",
    "Window",
    "argmax_channels",
    "bilinear_kernel",
    "checkerboard",
    "conv",
    "conv_as_matmul",
    "conv_kernel_gradient",
    "conv_transpose",
    "get_num_threads",
    "partition_of_unity",
    "set_num_threads",
    "upsample_bilinear",
]

__version__ = "0.1.0"
