"""From one framework's arguments to another's, with a sentence that says what was done."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any

from ..geometry import ConvGeometry
from ..validate import PerAxis, one_of, spatial_rank
from .inexpressible import Inexpressible, Pairs, amounts, read_back, same_map, written
from .layout import Spelling, permutation

#: Parameters of a module's ``geometry_of`` that are not the framework's arguments.
_SHAPES = ("input_size", "kernel_size", "transposed", "in_channels", "out_channels")
#: How many sizes are tried where none is given: one a remainder by the strides.
MOST_SIZES = 1000
FRAMEWORKS = ("tensorflow", "keras", "torch", "jax", "onnx")


@dataclasses.dataclass(frozen=True)
class Translation:
    """One layer in another framework's words.

    Attributes
    ----------
    function : str
        The function to call there.
    arguments : dict
        Its keyword arguments.
    pad, crop : tuple of (int, int) or None
        What to pad the input by before, or to take off the output after, ``(low, high)`` an
        axis, where the arguments alone cannot say it.
    array_axes, kernel_axes : tuple of int
        ``x.transpose(array_axes)`` and ``kernel.transpose(kernel_axes)`` are the arrays as the
        other framework wants them.
    kernel_flipped : bool
        Whether the kernel's spatial axes are to be reversed as well.
    report : str
        All of it in a sentence; ``str(translation)`` is the same.
    """

    function: str
    arguments: dict[str, Any]
    pad: Pairs | None
    crop: Pairs | None
    array_axes: tuple[int, ...]
    kernel_axes: tuple[int, ...]
    kernel_flipped: bool
    report: str

    def __str__(self) -> str:
        return self.report


def translate(
    source: str,
    target: str,
    *,
    kernel_size: PerAxis | None = None,
    input_size: PerAxis | None = None,
    transposed: bool = False,
    in_channels: int | None = None,
    out_channels: int | None = None,
    **arguments: Any,
) -> Translation:
    """Rewrite a layer of one framework for another.

    Parameters
    ----------
    source, target : {"tensorflow", "keras", "torch", "jax", "onnx"}
    kernel_size : int or tuple of int
        Spatial; an integer alone is one axis. ONNX's ``kernel_shape`` says it too.
    input_size : int or tuple of int, optional
        Spatial. Without it the answer is one for inputs of every size (large enough to be
        more than padding), and where there is none, that is said.
    transposed : bool
        Whether the layer is a transposed convolution.
    in_channels, out_channels : int, optional
        Default: the groups, that is one channel each.
    **arguments
        The layer's own keyword arguments, as `source` names them.

    Returns
    -------
    Translation

    Raises
    ------
    Inexpressible
        Where neither the arguments of `target` nor a pad or crop help.
    TypeError, ValueError
        Where `source` refuses the arguments.

    Examples
    --------
    >>> layer = translate("keras", "torch", kernel_size=(3, 3), padding="same", transposed=True,
    ...                   strides=2)
    >>> layer.function, layer.crop
    ('conv_transpose2d', ((0, 1), (0, 1)))
    """
    for name, value in (("source", source), ("target", target)):
        one_of(name, value, FRAMEWORKS)
    if not isinstance(transposed, bool):
        raise TypeError(f"transposed: expected a bool, got {transposed!r}")
    there, here = _module(source), _module(target)
    known = [n for n in inspect.signature(there.geometry_of).parameters if n not in _SHAPES]
    for name in arguments:
        if name not in known:
            raise TypeError(f"{name}: expected an argument of {source}, {', '.join(known)}")
    if input_size is None and arguments.get("output_shape") is not None:
        raise ValueError("input_size: expected one beside an output_shape, got none")
    if kernel_size is None:
        kernel_size = arguments.get("kernel_shape")
    if kernel_size is None:
        raise ValueError("kernel_size: expected an integer or one a spatial axis, got none")
    groups = arguments.get(
        "groups", arguments.get("group", arguments.get("feature_group_count", 1))
    )
    channels = {
        "in_channels": groups if in_channels is None else in_channels,
        "out_channels": groups if out_channels is None else out_channels,
    }

    def answer(size: PerAxis) -> tuple[Any, ...]:
        geometry = there.geometry_of(
            size, kernel_size, transposed=transposed, **channels, **arguments
        )
        try:
            return geometry, here.arguments(geometry), None, None
        except Inexpressible as error:
            if error.arguments is None:
                raise
            return geometry, error.arguments, error.pad, error.crop

    if input_size is not None:
        geometry, *found = answer(input_size)
        sizes = f"{_times(geometry.input_size)} to {_times(geometry.output_size)}"
    else:
        geometry, *found = _for_every_size(answer, kernel_size, target, here)
        sizes = "every size"
    spellings = (
        there.spelling(geometry.rank, transposed=transposed, **arguments),
        here.spelling(geometry.rank, transposed=geometry.transposed, **found[0]),
    )
    if spellings[0].output not in (None, spellings[0].array):
        raise Inexpressible(
            f"dimension_numbers: {target} gives the axes of its input, this layer others; "
            "translate it with the output's as the input's and transpose what comes out"
        )
    if geometry.transposed and not transposed and geometry.groups > 1:
        raise Inexpressible(
            f"transposed: {source} writes this transpose as a plain call, whose kernel of "
            f"{geometry.groups} groups no order of axes makes that of a transposed one"
        )
    return _reported(spellings, (source, target), geometry, arguments, sizes, *found)


def _module(framework: str) -> Any:
    return importlib.import_module(f".{framework}", __package__)


def _for_every_size(answer: Any, kernel_size: PerAxis, target: str, here: Any) -> tuple[Any, ...]:
    """Return the answer that is the same for every remainder of the size by the strides."""
    rank = spatial_rank(kernel_size=kernel_size)
    geometry = _of_a_large_size(answer, rank)
    steps = geometry.strides
    # Beyond the kernel's span and all paddings only the size modulo the stride enters.
    bases = [
        a.stride * (2 + (a.effective_kernel + abs(a.low) + abs(a.high)) // a.stride)
        for a in geometry.axes
    ]
    if sum(steps) > MOST_SIZES:
        raise Inexpressible(f"input_size: expected one beside strides of {steps}, got none")
    answers = []
    for axis, (base, s) in enumerate(zip(bases, steps, strict=True)):
        for remainder in range(s):
            size = list(bases)
            size[axis] = base + remainder
            answers.append(answer(tuple(size)))
    said_by_words = here.words(geometry) if hasattr(here, "words") else ()
    for found in (*answers, *((geometry, said, None, None) for said in said_by_words)):
        if all(_serves(found[1:], other, here.geometry_of) for other in answers):
            return found
    found, other = answers[0], next(other for other in answers if other[1:] != answers[0][1:])
    ways = [f"{one[0].input_size} ({written(one[1])}{_beside(*one[2:])})" for one in (found, other)]
    raise Inexpressible(
        f"input_size: {target} says it one way for {ways[0]}, another for {ways[1]}; give the size"
    )


def _serves(found: tuple[Any, ...], other: tuple[Any, ...], read: Any) -> bool:
    """Whether what was found for one size does for another, be it said differently there."""
    arguments, pad, crop = found
    if found == other[1:]:
        return True
    if pad or crop:
        return False
    try:
        return same_map(read_back(other[0], arguments, read), other[0])
    except ValueError:
        return False


def _of_a_large_size(answer: Any, rank: int) -> ConvGeometry:
    """Return the geometry of a size that no kernel and no crop exceeds, if there is one."""
    for size in (2**16, 2**32):
        try:
            return answer((size,) * rank)[0]
        except Inexpressible:
            raise
        except ValueError:
            continue
    return answer((2**62,) * rank)[0]


def _beside(pad: Pairs | None, crop: Pairs | None) -> str:
    """Return what is to be done beside the call."""
    if pad is not None:
        return f" of the input padded by {amounts(pad, 'crops')}"
    if crop is not None:
        return f" with its output cropped by {amounts(crop, 'extends by zeros')}"
    return ""


def _reported(
    spellings: tuple[Spelling, Spelling],
    frameworks: tuple[str, str],
    geometry: ConvGeometry,
    given: dict[str, Any],
    sizes: str,
    arguments: dict[str, Any],
    pad: Pairs | None,
    crop: Pairs | None,
) -> Translation:
    """Return the translation with its sentence."""
    (theirs, ours), (source, target) = spellings, frameworks
    flip = theirs.flipped != ours.flipped
    arrays = permutation(theirs.array, ours.array, geometry.rank)
    kernels = permutation(theirs.kernel, ours.kernel, geometry.rank)
    moves = [
        f"{name} becomes {name}.transpose{axes}"
        for name, axes in (("x", arrays), ("kernel", kernels))
        if axes != tuple(range(geometry.rank + 2))
    ]
    if flip:
        moves.append("the kernel's spatial axes are reversed")
    moved = " and ".join(moves) or "the arrays keep their axes"
    report = (
        f"{source} {theirs.function}({written(given)}) with a kernel of "
        f"{_times(geometry.kernel_size)} is, for {sizes}, "
        f"{target} {ours.function}({written(arguments)}){_beside(pad, crop)}; {moved}."
    )
    return Translation(ours.function, arguments, pad, crop, arrays, kernels, flip, report)


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
