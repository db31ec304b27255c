"""`Recipe`: everything that a training run's numbers depend on."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import backbones, heads
from .layers import ConvTranspose
from .layers.layer import check_keys
from .layers.sizes import integer, listed, number, short
from .model import Model, build
from .optimizers import OPTIMIZERS, SGD, Adam
from .palette import Classes
from .voc import Dataset

#: The learning rate where none is given.
RATES = {"adam": 1e-4, "sgd": 1e-2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run was told, but for where it runs and where it writes.

    Attributes
    ----------
    data : str
        The folder, in Pascal VOC's layout.
    split : (str, str)
        The lists of what is trained on and of what is validated on.
    crop : (int, int) or None
        Height and width of a sample; None for whole pictures.
    pad, flip, strict : bool
        As `Dataset` takes them.
    backbone, head, fc, upsampling, weights
        As `fcn.build` takes them.
    epochs, batch : int
    optimizer : {"adam", "sgd"}
    lr : float
        The learning rate.
    lr_backbone, lr_upsampling, lr_bias : float
        What it is multiplied by for the backbone, for the transposed convolutions and for biases.
        0 freezes the first two: batch norms there go by their moving statistics.
    momentum, weight_decay : float or None
        Of sgd alone (default: 0.9 and 0). The decay is that of kernels; biases and batch norms
        have none.
    seed : int
        Of the head, of an untrained backbone, and of order, crops and flips.

    Notes
    -----
    Long, Shelhamer & Darrell (arXiv:1411.4038), section 4.3: momentum 0.9, weight decay 5e-4, and
    the doubled learning rate for biases.
    """

    data: str
    split: tuple[str, str] = ("train", "val")
    crop: tuple[int, int] | None = (320, 480)
    pad: bool = False
    flip: bool = True
    strict: bool = False
    backbone: str = "vgg16"
    head: str = "8s"
    fc: bool = False
    upsampling: str = "bilinear"
    weights: str | None = None
    epochs: int = 10
    batch: int = 4
    optimizer: str = "adam"
    lr: float | None = None
    lr_backbone: float = 1.0
    lr_upsampling: float = 1.0
    lr_bias: float = 1.0
    momentum: float | None = None
    weight_decay: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name, names in (
            ("backbone", backbones.BACKBONES),
            ("head", tuple(heads.HEADS)),
            ("upsampling", heads.UPSAMPLINGS),
            ("optimizer", tuple(OPTIMIZERS)),
        ):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in names:
                expected = f"one of {', '.join(names)}"
                raise ValueError(f"{name}: expected {expected}, got {short(value)}")
        for name in ("pad", "flip", "strict", "fc"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected a bool, got {short(getattr(self, name))}")
        for name in ("data", "weights"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "weights" and value is None):
                raise TypeError(f"{name}: expected a path as text, got {short(value)}")
        if self.fc:
            backbones.names(self.backbone, fc=True)  # which refuses those that have none
        if not _two(self.split) or not all(isinstance(name, str) for name in self.split):
            raise ValueError(f"split: expected two names, got {short(self.split)}")
        put("split", tuple(self.split))
        if self.crop is not None:
            if not _two(self.crop):
                raise ValueError(f"crop: expected height and width, got {short(self.crop)}")
            put("crop", tuple(integer("crop", side, 1, 1 << 20) for side in self.crop))
        put("epochs", integer("epochs", self.epochs, 1, 1 << 20))
        put("batch", integer("batch", self.batch, 1, 1 << 20))
        put("seed", integer("seed", self.seed, 0, 1 << 63))
        put("lr", number("lr", RATES[self.optimizer] if self.lr is None else self.lr, 0, 1e6))
        if not self.lr:
            raise ValueError("lr: expected more than 0, got 0")
        for name in ("lr_backbone", "lr_upsampling", "lr_bias"):
            put(name, number(name, getattr(self, name), 0, 1e6))
        for name, default in (("momentum", 0.9), ("weight_decay", 0.0)):
            value = getattr(self, name)
            if self.optimizer == "sgd":
                put(name, number(name, default if value is None else value, 0, 1))
            elif value is not None:
                raise ValueError(f"{name}: expected none with {self.optimizer}, got {short(value)}")
        self.new_optimizer()  # which refuses a momentum of 1

    def datasets(self, *, progress: bool = False) -> tuple[Dataset, Dataset]:
        """Return what is trained on and what is validated on, the second in whole pictures."""
        train, val = self.split
        reading: dict[str, Any] = {"strict": self.strict, "progress": progress}
        return (
            Dataset(
                self.data,
                train,
                self.crop,
                seed=self.seed,
                pad=self.pad,
                flip=self.flip,
                **reading,
            ),
            Dataset(self.data, val, None, **reading),
        )

    def model(self, classes: Classes) -> Model:
        """Return the network before the first step."""
        return build(
            self.backbone,
            classes.names,
            self.head,
            weights=self.weights,
            seed=self.seed,
            fc=self.fc,
            upsampling=self.upsampling,
        )

    def new_optimizer(self) -> SGD | Adam:
        """Return an optimizer as the recipe has it."""
        return Adam() if self.momentum is None else SGD(self.momentum)

    def frozen(self, model: Model) -> frozenset[str]:
        """Return the nodes that are not trained."""
        return frozenset(
            name
            for name in model.graph.nodes
            if (self.lr_backbone == 0 and self._in_backbone(name))
            or (self.lr_upsampling == 0 and self._upsamples(model, name))
        )

    def rates(self, model: Model) -> dict[str, float]:
        """Return the learning rate of every parameter, by ``"node/parameter"``."""
        rates = {}
        for name in model.graph.parameters():
            node, _, parameter = name.rpartition("/")
            rate = self.lr
            if self._in_backbone(node):
                rate *= self.lr_backbone
            elif self._upsamples(model, node):
                rate *= self.lr_upsampling
            rates[name] = rate * (self.lr_bias if parameter == "bias" else 1.0)
        return rates

    def decays(self, model: Model) -> dict[str, float]:
        """Return the weight decay of the parameters that have one."""
        kernels = (name for name in model.graph.parameters() if name.endswith("/kernel"))
        return dict.fromkeys(kernels, self.weight_decay) if self.weight_decay else {}

    def _in_backbone(self, node: str) -> bool:
        return node in backbones.names(self.backbone, fc=self.fc)

    def _upsamples(self, model: Model, node: str) -> bool:
        return isinstance(model.graph.nodes[node].layer, ConvTranspose)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes, of JSON's types alone."""
        return {name: listed(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, described: Any) -> Recipe:
        """Return the inverse of `to_json`.

        Raises
        ------
        ValueError
            For anything else, naming what.

        >>> recipe = Recipe(data="voc", crop=None)
        >>> Recipe.from_json(recipe.to_json()) == recipe
        True
        """
        check_keys("recipe", described, [field.name for field in dataclasses.fields(cls)])
        try:
            return cls(**described)
        except TypeError as error:
            raise ValueError(str(error)) from None


def _two(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2
