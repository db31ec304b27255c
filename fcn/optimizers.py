"""`SGD` and `Adam`: from gradients to the next parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from .layers import Array, namespace
from .layers.sizes import integer, number

#: Entries that NumPy updates at a time, so that all that is made of them stays in the cache.
BLOCK = 1 << 14


class _Slots:
    """What optimizers keep: arrays like each parameter, in slots by name."""

    slots: ClassVar[tuple[str, ...]]

    def start(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """Return what is kept from step to step, all zeros: ``"slot/name"``, like parameters."""
        return {
            f"{slot}/{name}": namespace(array).zeros_like(array)
            for slot in self.slots
            for name, array in parameters.items()
        }


@dataclasses.dataclass
class SGD(_Slots):
    """Gradient descent with momentum: ``v = momentum*v + g + decay*p``, ``p -= rate*v``.

    Attributes
    ----------
    momentum : float
        At least 0, below 1.

    Notes
    -----
    As torch has it. Caffe's, which Long et al. trained with, has the rate inside ``v``: the same
    while the rate stays the same.

    Examples
    --------
    >>> import numpy as np
    >>> p, g = np.ones(2, np.float32), np.array([1, -1], np.float32)
    >>> sgd = SGD(momentum=0.5)
    >>> state = sgd.start({"p": p})
    >>> for step in (1, 2):
    ...     sgd.update({"p": p}, {"p": g}, state, step, {"p": 0.1})
    >>> p
    array([0.75, 1.25], dtype=float32)
    """

    slots: ClassVar[tuple[str, ...]] = ("velocity",)

    momentum: float = 0.9

    def __post_init__(self) -> None:
        self.momentum = _fraction("momentum", self.momentum)

    def update(
        self,
        parameters: Mapping[str, Array],
        gradients: Mapping[str, Array],
        state: Mapping[str, Array],
        step: int,
        rates: Mapping[str, float],
        decays: Mapping[str, float] | None = None,
    ) -> None:
        """Move parameters and state in place.

        Parameters
        ----------
        parameters, gradients : mapping of str to ndarray
            float32, C-contiguous. Parameters without a gradient stay.
        state : mapping of str to ndarray
            As `start` returned it and the steps before left it.
        step : int
            The number of this step, from 1.
        rates, decays : mapping of str to float
            The learning rate, and what of a parameter is added to its gradient; default: nothing.

        Raises
        ------
        ValueError
            For arrays that do not fit, naming which.
        """
        decays = decays or {}
        for name, gradient in gradients.items():
            rate, decay = rates[name], decays.get(name, 0.0)
            velocity = state[f"velocity/{name}"]
            for p, g, v, made in _blocks(name, parameters[name], gradient, velocity):
                v *= self.momentum
                v += g
                if decay:
                    namespace(p).multiply(p, decay, out=made)
                    v += made
                namespace(p).multiply(v, rate, out=made)
                p -= made


@dataclasses.dataclass
class Adam(_Slots):
    """Adam: rates that go by the gradients' means and mean squares.

    Attributes
    ----------
    beta1, beta2 : float
        How much of the means stays at a step; at least 0, below 1.
    epsilon : float

    Notes
    -----
    Kingma & Ba, arXiv:1412.6980, algorithm 1: with ``m = beta1*m + (1 - beta1)*g`` and
    ``v = beta2*v + (1 - beta2)*g*g``, both divided by ``1 - beta**step``,
    ``p -= rate*m/(sqrt(v) + epsilon)``.

    Examples
    --------
    >>> import numpy as np
    >>> p, g = np.zeros(2, np.float32), np.array([4, -0.01], np.float32)
    >>> adam = Adam()
    >>> adam.update({"p": p}, {"p": g}, adam.start({"p": p}), 1, {"p": 0.1})
    >>> p.round(4)
    array([-0.1,  0.1], dtype=float32)
    """

    slots: ClassVar[tuple[str, ...]] = ("mean", "square")

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        self.beta1, self.beta2 = _fraction("beta1", self.beta1), _fraction("beta2", self.beta2)
        # Above what float32 rounds to 0, which would make 0/0 of a gradient that is always 0.
        self.epsilon = number("epsilon", self.epsilon, 1e-30, 1)

    def update(
        self,
        parameters: Mapping[str, Array],
        gradients: Mapping[str, Array],
        state: Mapping[str, Array],
        step: int,
        rates: Mapping[str, float],
        decays: Mapping[str, float] | None = None,
    ) -> None:
        """See `SGD.update`; `decays` are refused, since scaled by the gradients they decay nothing.

        Raises
        ------
        ValueError
        """
        if decays and any(decays.values()):
            raise ValueError("decays: expected none for Adam, use SGD")
        step = integer("step", step, 1, 1 << 62)
        first, second = 1 - self.beta1**step, 1 - self.beta2**step
        for name, gradient in gradients.items():
            rate = rates[name] / first
            slots = (state[f"{slot}/{name}"] for slot in self.slots)
            for p, g, m, v, made in _blocks(name, parameters[name], gradient, *slots):
                xp = namespace(p)
                xp.subtract(g, m, out=made)
                made *= 1 - self.beta1
                m += made
                xp.multiply(g, g, out=made)
                made -= v
                made *= 1 - self.beta2
                v += made
                xp.multiply(v, 1 / second, out=made)
                xp.sqrt(made, out=made)
                made += self.epsilon
                xp.divide(m, made, out=made)
                made *= rate
                p -= made


#: By the name that `python -m fcn train --optimizer` takes.
OPTIMIZERS = {"adam": Adam, "sgd": SGD}


def _blocks(
    name: str, parameter: Array, gradient: Array, *state: Array
) -> Iterator[tuple[Array, ...]]:
    """Yield blocks of arrays of one size, as views, and with them one more to write to."""
    arrays = (parameter, gradient, *state)
    for array, of in zip(arrays, ("parameters", "gradients", "state", "state"), strict=False):
        contiguous = array.flags.c_contiguous
        if array.shape != parameter.shape or array.dtype != np.float32 or not contiguous:
            raise ValueError(
                f"{of}: {name}: expected C-contiguous float32 of shape {parameter.shape}, got "
                f"{array.dtype} of shape {array.shape}{'' if contiguous else ', not C-contiguous'}"
            )
    xp: Any = namespace(parameter)
    flat = [array.reshape(-1) for array in arrays]
    size = flat[0].size
    length = min(size, BLOCK) if xp.__name__ == "numpy" else size
    made = xp.empty(length, flat[0].dtype)
    for start in range(0, size, length or 1):
        part = slice(start, min(start + length, size))
        yield *(array[part] for array in flat), made[: part.stop - start]


def _fraction(name: str, value: float) -> float:
    fraction = number(name, value, 0, 1)
    if fraction == 1:
        raise ValueError(f"{name}: expected less than 1, got {value!r}")
    return fraction
