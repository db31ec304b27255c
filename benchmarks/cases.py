"""What is measured: named cases, in groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from convarith import ConvGeometry


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes
    ----------
    group, name : str
        ``--cases`` takes either, or ``group/name``.
    geometry : ConvGeometry
        Of the convolution, also where its transpose is what is timed.
    dtype : str
    batch : int
    layer : str
        What ``--cases`` takes too: it stands for the layer's dense and bilinear kernels, and for
        its kernel gradient.
    bilinear : bool
        Whether the kernel is the bilinear one, dense as it is, instead of random numbers.
    """

    group: str
    name: str
    geometry: ConvGeometry
    dtype: str = "float32"
    batch: int = 1
    layer: str = ""
    bilinear: bool = False

    @property
    def path(self) -> str:
        """The name that no other case has."""
        return f"{self.group}/{self.name}"

    def answers_to(self, name: str) -> bool:
        """Return whether ``--cases`` means this one by `name`."""
        names = [self.group, self.name, self.path]
        if self.layer:
            names += [self.layer, f"{self.group}/{self.layer}"]
        return name in names


#: Transposed layers: n, h, w, c_in -> c_out, k, s; the output has h*s by w*s entries.
TRANSPOSED = {
    "fcn32_up": (1, 10, 15, 21, 21, 64, 32),
    "fcn8_up": (1, 40, 60, 21, 21, 16, 8),
    "fcn2x_up": (1, 20, 30, 21, 21, 4, 2),
    "img2x": (1, 561, 728, 3, 3, 4, 2),
    "seed": (1, 32, 32, 10, 3, 4, 2),
    "dcgan": (8, 16, 16, 256, 128, 4, 2),
    "unet_up": (1, 64, 64, 128, 64, 2, 2),
}
#: Those that enlarge every channel by itself, so that a bilinear kernel has a meaning.
UPSAMPLING = ("fcn32_up", "fcn8_up", "fcn2x_up", "img2x")

#: Forward layers: n, h, w, c_in -> c_out, k, s, groups; padded by k // 2 on every side.
FORWARD = {
    "stem": (1, 320, 480, 3, 64, 7, 2, 1),
    "r64": (1, 80, 120, 64, 64, 3, 1, 1),
    "r128": (1, 40, 60, 128, 128, 3, 1, 1),
    "r256": (1, 20, 30, 256, 256, 3, 1, 1),
    "r512": (1, 10, 15, 512, 512, 3, 1, 1),
    "p64_256": (1, 80, 120, 64, 256, 1, 1, 1),
    "p1024_256": (1, 20, 30, 1024, 256, 1, 1, 1),
    "p512_2048": (1, 10, 15, 512, 2048, 1, 1, 1),
    "score": (1, 10, 15, 2048, 21, 1, 1, 1),
    "depthwise": (1, 80, 120, 144, 144, 3, 1, 144),
}


#: Filters of grey and coloured pictures, channel by channel, as FORWARD has its layers.
PICTURES = {
    "gray3": (1, 1024, 1024, 1, 1, 3, 1, 1),
    "gray7": (1, 1024, 1024, 1, 1, 7, 1, 1),
    "rgb3": (1, 1024, 1024, 3, 3, 3, 1, 3),
    "rgb7": (1, 1024, 1024, 3, 3, 7, 1, 3),
}


def _products() -> Iterator[Case]:
    """Yield every layer, then the kernel gradient of every layer, then filters of pictures."""
    gradients, pictures = [], []
    for layer, (n, h, w, c_in, c_out, k, s) in TRANSPOSED.items():
        geometry = ConvGeometry.of_transpose(
            (h, w),
            k,
            output_size=(h * s, w * s),
            strides=s,
            padding=(k - s) // 2,
            in_channels=c_in,
            out_channels=c_out,
        )
        if layer in UPSAMPLING:
            yield Case("transposed", f"{layer}_dense", geometry, batch=n, layer=layer)
            yield Case(
                "transposed", f"{layer}_bilinear", geometry, batch=n, layer=layer, bilinear=True
            )
        else:
            yield Case("transposed", layer, geometry, batch=n, layer=layer)
        gradients.append(Case("kernel_gradient", layer, geometry, batch=n, layer=layer))
    for layer, (n, h, w, c_in, c_out, k, s, groups) in (FORWARD | PICTURES).items():
        geometry = ConvGeometry(
            (h, w),
            k,
            strides=s,
            padding=k // 2,
            groups=groups,
            in_channels=c_in,
            out_channels=c_out,
        )
        case = Case("forward", layer, geometry, batch=n, layer=layer)
        if layer in PICTURES:
            pictures.append(case)
            continue
        yield case
        gradients.append(Case("kernel_gradient", layer, geometry, batch=n, layer=layer))
    yield from (*gradients, *pictures)


_R64 = ConvGeometry((80, 120), 3, padding=1, in_channels=64, out_channels=64)
_TINY = ConvGeometry((4, 4), 3, padding=1)

CASES = (
    *_products(),
    # Building W.
    Case("matrix", "64x64", ConvGeometry((64, 64), 3, padding="SAME")),
    Case("matrix", "320x480", ConvGeometry((320, 480), 3, padding="SAME")),
    Case(
        "matrix",
        "32x32x16->16",
        ConvGeometry((32, 32), 3, padding="SAME", in_channels=16, out_channels=16),
    ),
    # What a call costs besides its arithmetic.
    Case("calls", "cold_first_call", _R64),
    Case("calls", "warm_first_call", _R64),
    Case("calls", "operator_overhead", _TINY),
    Case("calls", "conv_overhead", _TINY),
)


def select(names: list[str] | None, among: Sequence[Case] = CASES) -> list[Case]:
    """Return the cases that the names stand for, all of them for None.

    Raises
    ------
    ValueError
        Where a name stands for none.
    """
    if names is None:
        return list(among)
    chosen: list[Case] = []
    for name in names:
        found = [case for case in among if case.answers_to(name)]
        if not found:
            known = ", ".join(dict.fromkeys(case.group for case in among))
            raise ValueError(f"--cases: no case {name!r}; groups: {known}")
        chosen += [case for case in found if case not in chosen]
    return chosen
