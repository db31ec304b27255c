"""`Conv` and `ConvTranspose`: each is the other's gradient."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from convarith import ConvGeometry, conv, conv_kernel_gradient, conv_transpose

from .arrays import Array, channel_sums, checked
from .layer import Layer, Shape
from .sizes import Padding, integer, padding_of, pair


@dataclasses.dataclass(eq=False)
class Conv(Layer):
    """A convolution, ``(n, h, w, c_in)`` to ``(n, h', w', c_out)``.

    Attributes
    ----------
    kernel : ndarray
        ``(kh, kw, c_in // groups, c_out)``, float32.
    bias : ndarray or None
        ``(c_out,)``.
    strides, dilations : (int, int)
        Of the rows and of the columns; one integer stands for both.
    padding : {"SAME", "VALID"} or ((int, int), (int, int))
        TensorFlow's words, or ``(low, high)`` of the rows and of the columns; one integer stands
        for all four.
    groups : int
        The channels are split into this many groups that do not mix; ``c_in`` of them make a
        depthwise convolution, output channel ``c*m + q`` of input channel ``c``.

    Examples
    --------
    >>> import numpy as np
    >>> layer = Conv(np.ones((3, 3, 2, 5), np.float32), strides=2)
    >>> layer.output_shape((1, 7, 8, 2))
    (1, 4, 4, 5)
    """

    parameters: ClassVar[tuple[str, ...]] = ("kernel", "bias")

    kernel: Array
    bias: Array | None = None
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "SAME"
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        c_out = checked("kernel", self.kernel, 4).shape[-1]
        self.strides = pair("strides", self.strides, 1)
        self.padding = padding_of(self.padding)
        self.dilations = pair("dilations", self.dilations, 1)
        self.groups = integer("groups", self.groups, 1, c_out)
        if c_out % self.groups:
            raise ValueError(
                f"groups: expected a divisor of the kernel's {c_out} output channels, "
                f"got {self.groups}"
            )
        check_bias(self.bias, c_out)

    def geometry(self, shape: Shape) -> ConvGeometry:
        """Return the arithmetic of this convolution of an input ``(n, h, w, c)``."""
        return ConvGeometry(
            shape[1:3],
            self.kernel.shape[:2],
            strides=self.strides,
            padding=self.padding,
            dilations=self.dilations,
            groups=self.groups,
            in_channels=self.kernel.shape[2] * self.groups,
            out_channels=self.kernel.shape[3],
        )

    def forward(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """See `Layer.forward`; the input is saved."""
        y = conv(
            x,
            self.kernel,
            bias=self.bias,
            strides=self.strides,
            padding=self.padding,
            dilations=self.dilations,
            groups=self.groups,
        )
        return y, x

    def backward(
        self, saved: Array, g: Array, *, inputs: bool = True, parameters: bool = True
    ) -> tuple[tuple[Array | None], dict[str, Array]]:
        """See `Layer.backward`."""
        x = saved
        how = {
            "strides": self.strides,
            "padding": self.padding,
            "dilations": self.dilations,
            "groups": self.groups,
        }
        gradients = {}
        if parameters:
            gradients["kernel"] = conv_kernel_gradient(x, g, self.kernel.shape[:2], **how)
            if self.bias is not None:
                gradients["bias"] = channel_sums(g).astype(g.dtype)
        if not inputs:
            return (None,), gradients
        return (conv_transpose(g, self.kernel, output_size=x.shape[1:3], **how),), gradients

    def output_channels(self, *channels: int) -> int:
        """See `Layer.output_channels`."""
        expected = self.kernel.shape[2] * self.groups
        if channels != (expected,):
            raise ValueError(f"input: expected {expected} channels, got {channels[0]}")
        return self.kernel.shape[3]

    def output_shape(self, *shapes: Shape) -> Shape:
        """See `Layer.output_shape`."""
        channels = self.output_channels(shapes[0][-1])
        return (shapes[0][0], *self.geometry(shapes[0]).output_size, channels)


@dataclasses.dataclass(eq=False)
class ConvTranspose(Layer):
    """The transpose of a convolution, ``(n, h, w, c_in)`` to ``(n, h', w', c_out)``.

    Attributes
    ----------
    kernel : ndarray
        ``(kh, kw, c_out, c_in)``, float32: Keras's and TensorFlow's layout, which is that of the
        convolution it transposes.
    bias : ndarray or None
        ``(c_out,)``.
    strides : (int, int)
        Of the rows and of the columns; one integer stands for both.
    padding : {"SAME", "VALID"} or ((int, int), (int, int))
        That of the convolution, as `Conv` takes it. Of a size ``n`` SAME makes ``n*s``, VALID
        ``(n - 1)*s + max(k, s)``, as Keras's Conv2DTranspose; pairs make
        ``(n - 1)*s + k - low - high``.

    Notes
    -----
    Long, Shelhamer & Darrell, arXiv:1411.4038, section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> layer = ConvTranspose(np.ones((64, 64, 21, 21), np.float32), strides=32)
    >>> layer.output_shape((1, 10, 15, 21))
    (1, 320, 480, 21)
    """

    parameters: ClassVar[tuple[str, ...]] = ("kernel", "bias")

    kernel: Array
    bias: Array | None = None
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "SAME"

    def __post_init__(self) -> None:
        c_out = checked("kernel", self.kernel, 4).shape[2]
        self.strides = pair("strides", self.strides, 1)
        self.padding = padding_of(self.padding)
        check_bias(self.bias, c_out)

    def geometry(self, shape: Shape) -> ConvGeometry:
        """Return the arithmetic of this transposed convolution of an input ``(n, h, w, c)``."""
        return ConvGeometry.of_transpose(
            shape[1:3],
            self.kernel.shape[:2],
            output_size=self._size(shape),
            strides=self.strides,
            padding=self.padding,
            in_channels=self.kernel.shape[3],
            out_channels=self.kernel.shape[2],
        ).adjoint

    def _size(self, shape: Shape) -> tuple[int, ...] | None:
        """Return the size of the result, None for what is the smallest."""
        if self.padding != "VALID":
            return None
        axes = zip(shape[1:3], self.kernel.shape[:2], self.strides, strict=True)
        return tuple((n - 1) * s + max(k, s) if n else 0 for n, k, s in axes)

    def forward(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """See `Layer.forward`; the input is saved."""
        y = conv_transpose(
            x,
            self.kernel,
            bias=self.bias,
            strides=self.strides,
            padding=self.padding,
            output_size=self._size(x.shape),
        )
        return y, x

    def backward(
        self, saved: Array, g: Array, *, inputs: bool = True, parameters: bool = True
    ) -> tuple[tuple[Array | None], dict[str, Array]]:
        """See `Layer.backward`."""
        how = {"strides": self.strides, "padding": self.padding}
        gradients = {}
        if parameters:
            gradients["kernel"] = conv_kernel_gradient(g, saved, self.kernel.shape[:2], **how)
            if self.bias is not None:
                gradients["bias"] = channel_sums(g).astype(g.dtype)
        return (conv(g, self.kernel, **how) if inputs else None,), gradients

    def output_channels(self, *channels: int) -> int:
        """See `Layer.output_channels`."""
        expected = self.kernel.shape[3]
        if channels != (expected,):
            raise ValueError(f"input: expected {expected} channels, got {channels[0]}")
        return self.kernel.shape[2]

    def output_shape(self, *shapes: Shape) -> Shape:
        """See `Layer.output_shape`."""
        channels = self.output_channels(shapes[0][-1])
        return (shapes[0][0], *self.geometry(shapes[0]).output_size, channels)


def check_bias(bias: Array | None, channels: int) -> None:
    """Refuse a bias that is not one number an output channel."""
    if bias is not None and checked("bias", bias, 1).shape != (channels,):
        raise ValueError(
            f"bias: expected shape ({channels},), as the kernel has output channels, "
            f"got {bias.shape}"
        )
