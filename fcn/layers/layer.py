"""`Layer`: what all layers have in common, and how they go into a file and come out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from .arrays import Array, moved
from .sizes import listed, short

Shape = tuple[int, ...]


@dataclasses.dataclass(eq=False)
class Layer:
    """A map of arrays ``(n, h, w, c)`` to one such array, and its derivative.

    A layer has no state but its arrays: what `backward` needs, `forward` hands out.

    Attributes
    ----------
    parameters, statistics : tuple of str
        The names of the attributes that are arrays: those that are trained, and those that
        are kept but not trained. One that is None does not exist.
    arity : (int, int or None)
        The least and the greatest number of inputs; None where there is no greatest.
    """

    parameters: ClassVar[tuple[str, ...]] = ()
    statistics: ClassVar[tuple[str, ...]] = ()
    arity: ClassVar[tuple[int, int | None]] = (1, 1)

    def arrays(self) -> dict[str, Array]:
        """Return the arrays there are, by name, those that are trained first."""
        named = ((name, getattr(self, name)) for name in self.parameters + self.statistics)
        return {name: array for name, array in named if array is not None}

    def trained(self) -> dict[str, Array]:
        """Return the parameters there are, by name."""
        return {name: array for name, array in self.arrays().items() if name in self.parameters}

    def config(self) -> dict[str, Any]:
        """Return everything but the entries of the arrays, as JSON has it.

        ``"shapes"``, of a layer that may have arrays, are the shapes of those there are.
        """
        kept = self.parameters + self.statistics
        fields = (field.name for field in dataclasses.fields(self))
        config = {name: listed(getattr(self, name)) for name in fields if name not in kept}
        if kept:
            config["shapes"] = {name: list(array.shape) for name, array in self.arrays().items()}
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Return the layer of a `config` and its arrays.

        Parameters
        ----------
        config : mapping
            As `config` returns it; it may come from a file that nobody vouches for.
        arrays : mapping of str to ndarray
            As `arrays` returns them.

        Raises
        ------
        ValueError
            Where a name, type, value or shape is not what it should be.
        """
        kept = cls.parameters + cls.statistics
        names = [field.name for field in dataclasses.fields(cls) if field.name not in kept]
        check_keys("config", config, names + (["shapes"] if kept else []))
        shapes = config["shapes"] if kept else {}
        if not isinstance(shapes, Mapping) or not set(shapes) <= set(kept):
            raise ValueError(f"shapes: expected some of {', '.join(kept)}, got {short(shapes)}")
        check_keys("arrays", arrays, list(shapes))
        for name, array in arrays.items():
            shape = getattr(array, "shape", None)
            if not isinstance(shape, tuple) or list(shape) != shapes[name]:
                raise ValueError(f"{name}: expected shape {short(shapes[name])}, got {shape}")
        absent = {name: None for name in kept if name not in arrays}
        try:
            return cls(**absent, **arrays, **{name: config[name] for name in names})
        except TypeError as error:
            raise ValueError(str(error)) from None

    def to(self, xp: Any) -> Self:
        """Return the layer with arrays of `xp`, numpy or cupy, copied only where they are not."""
        arrays = {name: moved(array, xp) for name, array in self.arrays().items()}
        return dataclasses.replace(self, **arrays)

    def forward(self, *xs: Array, train: bool = False) -> tuple[Array, Any]:
        """Return the result, which may be an input itself, and what `backward` needs to know.

        Parameters
        ----------
        *xs : ndarray
            ``(n, h, w, c)``, float32.
        train : bool
            Whether `backward` is to follow at once, and batch norms go by the batch. `backward`
            works after either; with `train` it has less left to find out.
        """
        raise NotImplementedError

    def backward(
        self, saved: Any, g: Array, *, inputs: bool = True, parameters: bool = True
    ) -> tuple[tuple[Array | None, ...], dict[str, Array]]:
        """Return the gradients in the inputs and in the parameters.

        Parameters
        ----------
        saved
            What `forward` returned beside its result.
        g : ndarray
            The gradient in that result, of its shape. It is not written to.
        inputs, parameters : bool
            Which of the gradients are wanted. Layers without parameters need not look.

        Returns
        -------
        tuple of ndarray
            One an input; None for one that only lends its size, and where they are not wanted.
            They may be `g` itself.
        dict of str to ndarray
            One a parameter there is, by name; none where they are not wanted.
        """
        raise NotImplementedError

    def output_channels(self, *channels: int) -> int:
        """Return the channels of a result of inputs with these channels.

        Raises
        ------
        ValueError
            Where the layer takes no such inputs.
        """
        return channels[0]

    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of a result of inputs ``(n, h, w, c)``, nothing computed.

        Raises
        ------
        ValueError
            Where the layer takes no such inputs.
        """
        n, h, w, _ = shapes[0]
        return n, h, w, self.output_channels(*(shape[-1] for shape in shapes))


def check_keys(what: str, mapping: object, expected: list[str]) -> None:
    """Refuse all but a mapping with exactly the expected keys.

    >>> check_keys("config", {"a": 1, "c": 1}, ["a", "b"])
    Traceback (most recent call last):
    ...
    ValueError: config: expected the entries a, b, got b missing, 'c' unknown
    """
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{what}: expected a mapping, got {short(mapping)}")
    wrong = [f"{name} missing" for name in expected if name not in mapping]
    wrong += [f"{short(name)} unknown" for name in mapping if name not in expected]
    if wrong:
        entries = f"the entries {', '.join(expected)}" if expected else "no entries"
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"{what}: expected {entries}, got {', '.join(wrong[:5])}{more}")
