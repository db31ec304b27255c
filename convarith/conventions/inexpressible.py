"""What a framework's arguments cannot say, and the explicit pad or crop that can."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from ..geometry import ConvGeometry

Pairs = tuple[tuple[int, int], ...]


class Inexpressible(ValueError):
    """No arguments of the framework express the geometry by themselves.

    Attributes
    ----------
    pad : tuple of (int, int) or None
        What to pad the input by before the call, ``(low, high)`` an axis; a negative amount
        crops. None where no padding is needed, or none helps.
    crop : tuple of (int, int) or None
        What to take off the transposed call's output, ``(low, high)`` an axis; a negative
        amount extends by zeros.
    arguments : dict or None
        The arguments that do it together with `pad` or `crop`; None where nothing does.
    """

    def __init__(
        self,
        reason: str,
        *,
        pad: Pairs | None = None,
        crop: Pairs | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self.pad, self.crop, self.arguments = pad, crop, arguments
        if arguments is not None:
            way = f"pad the input by {amounts(pad, 'crops')}"
            if crop is not None:
                way = f"crop the output by {amounts(crop, 'extends by zeros')}"
            reason = f"{reason}; {way} and pass {written(arguments)}"
        super().__init__(reason)


def amounts(pairs: Pairs | None, negative: str) -> str:
    """Return pads or crops with what they mean.

    >>> amounts(((0, 1), (0, -1)), "crops")
    '((0, 1), (0, -1)) (low, high an axis; a negative amount crops)'
    """
    below = pairs is not None and min(map(min, pairs)) < 0
    return f"{pairs} (low, high an axis{f'; a negative amount {negative}' if below else ''})"


def written(arguments: dict[str, Any]) -> str:
    """Return arguments as they stand in a call.

    >>> written({"stride": (2, 2), "padding": "same"})
    "stride=(2, 2), padding='same'"
    """
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def expressed(
    geometry: ConvGeometry,
    transposed: bool,
    candidate: Callable[[ConvGeometry], dict[str, Any]],
    read: Callable[..., ConvGeometry],
) -> dict[str, Any]:
    """Return the arguments of a framework that express `geometry`, or raise `Inexpressible`.

    Parameters
    ----------
    geometry : ConvGeometry
    transposed : bool
        Whether the transposed call is asked for, as it is by a transposed geometry anyway.
    candidate : callable
        Gives the arguments for a geometry, or raises `Inexpressible` with the reason.
    read : callable
        The framework's ``geometry_of``: the candidate must read back as the same map.
    """
    if not isinstance(geometry, ConvGeometry):
        raise TypeError(f"geometry: expected a ConvGeometry, got {geometry!r}")
    if not isinstance(transposed, bool):
        raise TypeError(f"transposed: expected a bool, got {transposed!r}")
    wanted = geometry.convolution.adjoint if transposed else geometry
    try:
        return _checked(wanted, candidate, read)
    except Inexpressible as error:
        reason = str(error)
    plain, pad, crop = _without_padding(wanted)
    if plain is None:
        raise Inexpressible(reason)
    try:
        arguments = _checked(plain, candidate, read)
    except Inexpressible:
        raise Inexpressible(reason) from None
    raise Inexpressible(reason, pad=pad, crop=crop, arguments=arguments)


def _checked(
    geometry: ConvGeometry,
    candidate: Callable[[ConvGeometry], dict[str, Any]],
    read: Callable[..., ConvGeometry],
) -> dict[str, Any]:
    arguments = candidate(geometry)
    try:
        again = read_back(geometry, arguments, read)
    except ValueError as error:
        raise Inexpressible(str(error)) from None
    if not same_map(again, geometry):
        raise Inexpressible(f"{written(arguments)} is another map: {again} for {geometry}")
    return arguments


def read_back(
    geometry: ConvGeometry, arguments: dict[str, Any], read: Callable[..., ConvGeometry]
) -> ConvGeometry:
    """Return the geometry of a framework's arguments on the sizes and channels of `geometry`."""
    if "groups" in inspect.signature(read).parameters:  # others have it under another name
        arguments = {"groups": geometry.groups} | arguments
    return read(
        geometry.input_size,
        geometry.kernel_size,
        transposed=geometry.transposed,
        in_channels=geometry.in_channels,
        out_channels=geometry.out_channels,
        **arguments,
    )


def in_words(
    geometry: ConvGeometry,
    arguments: dict[str, Any],
    words: Iterable[str],
    read: Callable[..., ConvGeometry],
) -> dict[str, Any] | None:
    """Return the arguments with the first word as padding that expresses `geometry`, or None."""
    for word in words:
        said = arguments | {"padding": word}
        try:
            if same_map(read_back(geometry, said, read), geometry):
                return said
        except ValueError:  # the framework refuses the word here
            continue
    return None


def same_map(a: ConvGeometry, b: ConvGeometry) -> bool:
    """Whether two geometries of the same kernel, strides and input have the same matrix."""
    return (a.output_shape, a.crops) == (b.output_shape, b.crops)


def _without_padding(
    geometry: ConvGeometry,
) -> tuple[ConvGeometry | None, Pairs | None, Pairs | None]:
    """Return the geometry with the padding (or the crop) done apart, and that padding or crop."""
    options: dict[str, Any] = {
        name: getattr(geometry, name)
        for name in ("strides", "dilations", "groups", "in_channels", "out_channels")
    }
    if geometry.transposed:
        full = ConvGeometry.of_transpose(geometry.input_size, geometry.kernel_size, **options)
        crop = tuple(
            (low - had_low, high - had_high)  # the uncropped one has some where it is empty
            for (low, high), (had_low, had_high) in zip(geometry.crops, full.crops, strict=True)
        )
        return (full.adjoint if any(map(any, crop)) else None), None, crop
    pad = geometry.padding
    size = [i + low + high for i, (low, high) in zip(geometry.input_size, pad, strict=True)]
    if min(size) < 0 or not any(map(any, pad)):
        return None, None, None
    return ConvGeometry(size, geometry.kernel_size, **options), pad, None
