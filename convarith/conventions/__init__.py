"""Each framework's own convolution calls on arrays, and the way from one to another.

``conventions.torch.conv_transpose2d(...)`` is ``torch.nn.functional.conv_transpose2d`` without
torch, to the argument names, defaults, layouts and refusals; `tensorflow`, `keras`, `jax` and
`onnx` likewise. In each module ``geometry_of`` gives the `ConvGeometry` of a call's arguments,
``arguments`` the call's arguments for a geometry (or `Inexpressible`), and `translate` takes a
layer from one to another. None of the frameworks is needed.

Arrays are those that `convarith.conv` takes: NumPy's, CuPy's (of real numbers, up to three axes),
and tensors of torch, JAX and others that speak DLPack, whose results are tensors again; of
TensorFlow's, which have no such way back, and of ``keras.Variable`` hand over ``x.numpy()``.

Inf and NaN go where `convarith.conv` says: those of a kernel meet no padding, with which the
frameworks multiply them, and those of an input may spread to its neighbours by Winograd's
algorithm.
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
