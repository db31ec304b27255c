"""The layers of a network: each maps arrays to an array, and a gradient back."""

from .activation import ReLU, Softmax
from .arrays import Array, check_numbers, moved, namespace
from .convolution import Conv, ConvTranspose
from .joining import Add, Crop
from .layer import Layer, Shape
from .loss import softmax_cross_entropy
from .normalisation import BatchNorm
from .padding import ZeroPadding
from .pooling import MaxPool

#: The layers by the name that files call them.
LAYERS: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in (
        Conv,
        ConvTranspose,
        BatchNorm,
        ReLU,
        ZeroPadding,
        MaxPool,
        Add,
        Crop,
        Softmax,
    )
}

__all__ = [
    "LAYERS",
    "Add",
    "Array",
    "BatchNorm",
    "Conv",
    "ConvTranspose",
    "Crop",
    "Layer",
    "MaxPool",
    "ReLU",
    "Shape",
    "Softmax",
    "ZeroPadding",
    "check_numbers",
    "moved",
    "namespace",
    "softmax_cross_entropy",
]
