"""`Trainer`: a network, an optimizer, and a step of one by the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

from convarith import argmax_channels

from .graph import INPUT
from .layers import Array, moved, namespace, softmax_cross_entropy
from .model import Model
from .optimizers import SGD, Adam
from .palette import VOID


@dataclasses.dataclass
class Sums:
    """What steps added up to.

    Attributes
    ----------
    loss : float
        Of all labelled pixels.
    right, pixels : int
        Labelled pixels whose largest score is that of their label, and all labelled ones.
    steps : int

    Examples
    --------
    >>> sums = Sums(loss=1.0, right=3, pixels=4, steps=2)
    >>> sums.mean_loss, sums.accuracy
    (0.25, 0.75)
    """

    loss: float = 0.0
    right: int = 0
    pixels: int = 0
    steps: int = 0

    @property
    def mean_loss(self) -> float:
        """The loss of a labelled pixel; NaN without any."""
        return self.loss / self.pixels if self.pixels else float("nan")

    @property
    def accuracy(self) -> float:
        """The share of labelled pixels that were right; NaN without any."""
        return self.right / self.pixels if self.pixels else float("nan")

    def add(self, other: Sums) -> None:
        """Add what another one has."""
        self.loss += other.loss
        self.right += other.right
        self.pixels += other.pixels
        self.steps += other.steps


class Diverged(ValueError):
    """The loss is not finite any more."""


class Trainer:
    """A model in training. Its graph's arrays are changed in place.

    Parameters
    ----------
    model : Model
    optimizer : SGD or Adam
    rates : mapping of str to float
        The learning rate of every parameter that is trained, by ``"node/parameter"``.
    decays : mapping of str to float
        The weight decay of those that have one.
    frozen : collection of str
        Nodes that are not trained, see `Graph.forward`.
    state : mapping of str to ndarray, optional
        What the optimizer has kept so far; default: it begins.
    steps : int
        How many steps there were so far.

    Raises
    ------
    ValueError
        Where nothing is left to train.

    Examples
    --------
    >>> from fcn.model import build
    >>> model = build("mobilenet_v2", 2, "32s")
    >>> rates = dict.fromkeys(model.graph.parameters(), 0.001)
    >>> trainer = Trainer(model, Adam(), rates)
    >>> x, labels = np.ones((1, 32, 32, 3), np.float32), np.ones((1, 32, 32), np.uint8)
    >>> losses = [trainer.step(x, labels).mean_loss for _ in range(3)]
    >>> losses[0] > losses[1] > losses[2]
    True
    """

    def __init__(
        self,
        model: Model,
        optimizer: SGD | Adam,
        rates: Mapping[str, float],
        *,
        decays: Mapping[str, float] | None = None,
        frozen: Collection[str] = (),
        state: Mapping[str, Array] | None = None,
        steps: int = 0,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.rates, self.decays, self.steps = dict(rates), dict(decays or {}), steps
        self.frozen = frozenset({INPUT, *frozen})
        self.parameters = model.graph.parameters(self.frozen)
        if not self.parameters:
            raise ValueError("frozen: expected to leave something to train, got every node")
        self.xp = namespace(next(iter(self.parameters.values())))
        state = optimizer.start(self.parameters) if state is None else state
        self.state = {name: moved(array, self.xp) for name, array in state.items()}

    def step(self, x: np.ndarray, labels: np.ndarray) -> Sums:
        """Take a step on a batch; return the loss and what was right before it.

        Parameters
        ----------
        x : ndarray
            ``(n, h, w, channels)``, float32, preprocessed; on the host.
        labels : ndarray
            ``(n, h, w)``, integers; `VOID` counts for nothing.

        Raises
        ------
        Diverged
            Where the loss is infinite or NaN; the parameters are those it came from.
        """
        graph = self.model.graph
        x, labels = moved(x, self.xp), moved(labels, self.xp)
        scores, saved = graph.forward(x, train=True, until=self.model.scores, frozen=self.frozen)
        del x
        loss, g = softmax_cross_entropy(scores, labels, VOID)
        found = argmax_channels(scores)
        del scores
        if not np.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {self.steps + 1}: a lower --lr may help")
        labelled = labels != VOID
        right, pixels = int((found == labels).sum()), int(labelled.sum())
        _, gradients = graph.backward(saved, g)
        self.steps += 1
        self.optimizer.update(
            self.parameters, gradients, self.state, self.steps, self.rates, self.decays
        )
        return Sums(loss * pixels, right, pixels, 1)
