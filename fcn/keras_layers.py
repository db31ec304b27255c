"""Keras's layers by class name: from their options and arrays to ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .layers import (
    Add,
    BatchNorm,
    Conv,
    ConvTranspose,
    Layer,
    MaxPool,
    ReLU,
    Softmax,
    ZeroPadding,
)
from .layers.sizes import short

#: The layers that one of Keras's is, in order, each with what is put behind its name. None of
#: them: it changes nothing at inference.
Made: TypeAlias = list[tuple[str, Layer]]
#: Returns arrays by the names of the layer's variables.
Arrays: TypeAlias = Callable[..., dict[str, np.ndarray]]

#: What says how a layer came to be and how it is trained, not what it does.
WITHOUT_EFFECT = ("_initializer", "_regularizer", "_constraint")
NAMES = frozenset({"name", "trainable", "dtype", "batch_input_shape"})
#: Types to compute in; mixed ones keep float32 arrays, and are computed in float32 here.
DTYPES = ("float32", "mixed_float16", "mixed_bfloat16")


class Options:
    """A layer's configuration, of which each entry is asked for, has no effect or is refused."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.left = {
            key: value
            for key, value in config.items()
            if key not in NAMES and not key.endswith(WITHOUT_EFFECT)
        }
        dtype = config.get("dtype")
        if isinstance(dtype, dict):
            policy = dtype.get("config")
            dtype = policy.get("name") if isinstance(policy, dict) else dtype
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {short(dtype)}")
        if "data_format" in self.left:
            self.only("data_format", "channels_last")

    def take(self, key: str) -> Any:
        """Return an entry that must be there."""
        if key not in self.left:
            raise ValueError(f"no {key} in its configuration")
        return self.left.pop(key)

    def only(self, key: str, *supported: Any) -> Any:
        """Return an entry where it is one of those supported; the first where it is missing."""
        value = self.left.pop(key, supported[0])
        if not any(type(value) is type(one) and value == one for one in supported):
            expected = ", ".join(map(repr, supported))
            raise ValueError(f"{key}: expected {expected}, got {short(value)}")
        return value

    def flag(self, key: str) -> bool:
        """Return an entry that is true or false."""
        return self.only(key, True, False)

    def refuse_the_rest(self) -> None:
        """Refuse entries that nobody asked for, unless they are off."""
        for key, value in self.left.items():
            if value is not None and value is not False:
                raise ValueError(f"option {short(key)}: {short(value)} is not supported")


def _activation(options: Options) -> Made:
    name = options.only("activation", "linear", None, "relu", "relu6", "softmax")
    if name in ("linear", None):
        return []
    made = {"relu": ReLU(), "relu6": ReLU(6.0), "softmax": Softmax()}
    return [(name, made[name])]


def _padding(options: Options) -> str:
    return options.only("padding", "valid", "same").upper()


def _shaped(
    options: Options, arrays: Arrays, kernel: str, bias: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return kernel and bias, with the kernel's size as configured."""
    found = arrays(kernel, "bias") if bias else arrays(kernel)
    size, shape = options.take("kernel_size"), found[kernel].shape
    size = [size, size] if type(size) is int else size
    if not isinstance(size, list) or len(shape) != 4 or list(shape[:2]) != size:
        raise ValueError(f"{kernel}: expected size {short(size)}, got shape {shape}")
    return found[kernel], found.get("bias")


def _channels(what: str, expected: Any, got: int) -> None:
    if type(expected) is not int or got != expected:
        raise ValueError(f"kernel: expected {short(expected)} {what}, got {got}")


def _conv(options: Options, arrays: Arrays) -> Made:
    kernel, bias = _shaped(options, arrays, "kernel", options.flag("use_bias"))
    _channels("filters", options.take("filters"), kernel.shape[3])
    layer = Conv(
        kernel,
        bias,
        strides=_pair(options.take("strides")),
        padding=_padding(options),
        dilations=_pair(options.left.pop("dilation_rate", 1)),
        groups=options.left.pop("groups", 1),
    )
    return [("", layer), *_activation(options)]


def _depthwise_conv(options: Options, arrays: Arrays) -> Made:
    name = "kernel"
    try:
        arrays(name)
    except ValueError:
        name = "depthwise_kernel"  # as it was called before Keras 3
    kernel, bias = _shaped(options, arrays, name, options.flag("use_bias"))
    height, width, c_in, multiplier = kernel.shape
    _channels("channels an input channel", options.take("depth_multiplier"), multiplier)
    layer = Conv(
        kernel.reshape(height, width, 1, c_in * multiplier),
        bias,
        strides=_pair(options.take("strides")),
        padding=_padding(options),
        dilations=_pair(options.left.pop("dilation_rate", 1)),
        groups=c_in,
    )
    return [("", layer), *_activation(options)]


def _conv_transpose(options: Options, arrays: Arrays) -> Made:
    options.only("output_padding", None)
    options.only("dilation_rate", [1, 1], 1)
    options.only("groups", 1)
    kernel, bias = _shaped(options, arrays, "kernel", options.flag("use_bias"))
    _channels("filters", options.take("filters"), kernel.shape[2])
    strides = _pair(options.take("strides"))
    layer = ConvTranspose(kernel, bias, strides=strides, padding=_padding(options))
    return [("", layer), *_activation(options)]


def _batch_norm(options: Options, arrays: Arrays) -> Made:
    axis = options.take("axis")
    if axis not in (-1, 3, [-1], [3]):
        raise ValueError(f"axis: expected that of the channels, -1 or 3, got {short(axis)}")
    options.left.pop("synchronized", None)  # over devices, in training; there is one
    if not options.only("renorm", False):
        for key in ("renorm_clipping", "renorm_momentum"):
            options.left.pop(key, None)
    names = ["gamma"] * options.flag("scale") + ["beta"] * options.flag("center")
    found = arrays(*names, "moving_mean", "moving_variance")
    layer = BatchNorm(
        found.get("gamma"),
        found.get("beta"),
        found["moving_mean"],
        found["moving_variance"],
        epsilon=options.take("epsilon"),
        momentum=options.take("momentum"),
    )
    return [("", layer)]


def _just_activation(options: Options, _: Arrays) -> Made:
    return [("", layer) for _, layer in _activation(options)]


def _relu(options: Options, _: Arrays) -> Made:
    maximum = options.only("max_value", None, 6, 6.0)
    for key in ("negative_slope", "threshold"):
        options.only(key, 0.0, 0)
    return [("", ReLU(None if maximum is None else 6.0))]


def _softmax(options: Options, _: Arrays) -> Made:
    options.only("axis", -1, 3, [-1], [3])
    return [("", Softmax())]


def _zero_padding(options: Options, _: Arrays) -> Made:
    return [("", ZeroPadding(options.take("padding")))]


def _max_pool(options: Options, _: Arrays) -> Made:
    window = _pair(options.take("pool_size"))
    strides = options.left.pop("strides", None)
    strides = window if strides is None else _pair(strides)
    return [("", MaxPool(window, strides, _padding(options)))]


def _add(*_: Any) -> Made:
    return [("", Add())]


def _nothing(options: Options, _: Arrays) -> Made:
    """Return no layer: its options are of training alone."""
    options.left.clear()
    return []


def _pair(value: Any) -> tuple[Any, Any]:
    if type(value) is int:
        return value, value
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"expected an integer or two, got {short(value)}")
    return value[0], value[1]


#: By Keras's class name: what makes ours of the options and arrays of one.
LAYERS: dict[str, Callable[[Options, Arrays], Made]] = {
    "Activation": _just_activation,
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Conv2D": _conv,
    "Conv2DTranspose": _conv_transpose,
    "DepthwiseConv2D": _depthwise_conv,
    "MaxPooling2D": _max_pool,
    "ReLU": _relu,
    "Softmax": _softmax,
    "ZeroPadding2D": _zero_padding,
    **dict.fromkeys(
        (
            *("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout"),
            *("GaussianNoise", "Identity", "SpatialDropout2D"),
        ),
        _nothing,
    ),
}
