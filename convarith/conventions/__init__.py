"""Each framework's own convolution calls on arrays, and the way from one to another.

``conventions.torch.conv_transpose2d(...)`` is ``torch.nn.functional.conv_transpose2d`` without
torch, to the argument names, defaults, layouts and refusals; `tensorflow`, `keras`, `jax` and
`onnx` likewise. In each module ``geometry_of`` gives the `ConvGeometry` of a call's arguments,
``arguments`` the call's arguments for a geometry (or `Inexpressible`), and `translate` takes a
layer from one to another. None of the frameworks is needed.

Arrays are those that `convarith.conv` takes: NumPy's, CuPy's (of real numbers, up to three axes),
and tensors of torch, JAX and others that speak DLPack, whose results are tensors again.
"""

from . import jax, keras, onnx, tensorflow, torch
from .inexpressible import Inexpressible
from .translation import Translation, translate

__all__ = [
    "Inexpressible",
    "Translation",
    "jax",
    "keras",
    "onnx",
    "tensorflow",
    "torch",
    "translate",
]
