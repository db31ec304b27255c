"""`fcn.recipe`: what a run was told, in and out of JSON, and what it makes of each parameter."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convarith import bilinear_kernel
from fcn import backbones, heads
from fcn.layers import BatchNorm, Conv, ConvTranspose
from fcn.optimizers import SGD, Adam
from fcn.palette import Classes
from fcn.recipe import Recipe

numbers = st.floats(0, 1e6)
names = st.text(max_size=5)
#: What each field may be, but for those that not every backbone or optimizer has.
FIELDS = {
    "split": st.tuples(names, names),
    "crop": st.none() | st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    "pad": st.booleans(),
    "flip": st.booleans(),
    "strict": st.booleans(),
    "head": st.sampled_from(tuple(heads.HEADS)),
    "upsampling": st.sampled_from(heads.UPSAMPLINGS),
    "weights": st.none() | names,
    "epochs": st.integers(1, 10**6),
    "batch": st.integers(1, 10**6),
    "lr": st.none() | st.floats(0, 1e6, exclude_min=True),
    "lr_backbone": numbers,
    "lr_upsampling": numbers,
    "lr_bias": numbers,
    "seed": st.integers(0, 2**63),
}


@st.composite
def recipes(draw):
    given = draw(st.fixed_dictionaries({"data": names}, optional=FIELDS))
    backbone = draw(st.sampled_from(backbones.BACKBONES))
    given |= {"backbone": backbone, "fc": backbone == "vgg16" and draw(st.booleans())}
    if draw(st.booleans()):
        numbers = st.none() | st.floats(0, 1, exclude_max=True)
        given |= {"optimizer": "sgd", "momentum": draw(numbers), "weight_decay": draw(numbers)}
    return Recipe(**given)


@given(recipes())
def test_out_of_json_as_it_went_in(recipe):
    described = recipe.to_json()
    text = json.dumps(described, allow_nan=False)
    assert json.loads(text) == described  # of JSON's types alone: no tuples
    other = Recipe.from_json(json.loads(text))
    assert other == recipe and hash(other) == hash(recipe)
    assert repr(other) == repr(recipe)  # of the same types
    assert other.to_json() == described


def test_what_is_not_given():
    recipe = Recipe(data="voc")
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay) == (
        "adam",
        1e-4,
        None,
        None,
    )
    recipe = Recipe(data="voc", optimizer="sgd")
    assert (recipe.lr, recipe.momentum, recipe.weight_decay) == (1e-2, 0.9, 0.0)
    assert (recipe.crop, recipe.split, recipe.flip) == ((320, 480), ("train", "val"), True)
    assert Recipe(data="voc", split=["a", "b"], crop=[np.int64(3), 4]).crop == (3, 4)
    with pytest.raises(TypeError, match="data"):
        Recipe()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.lr = 1.0


def test_the_optimizer():
    assert Recipe(data="voc").new_optimizer() == Adam()
    assert Recipe(data="voc", optimizer="sgd").new_optimizer() == SGD(0.9)
    assert Recipe(data="voc", optimizer="sgd", momentum=0).new_optimizer() == SGD(0.0)


NAN = float("nan")
BAD = {
    "data": [None, 3, b"voc", ["voc"]],
    "split": ["ab", 3, None, ("train",), ("a", "b", "c"), ("a", 3), {"a": 1, "b": 2}, {"a", "b"}],
    "crop": [3, "ab", (3,), (3, 4, 5), (0, 4), (4.0, 4), (-1, 4), (True, 4), (2**40, 4), {3: 4}],
    "pad": [None, 1, "no"],
    "flip": [None, 0, "yes"],
    "strict": [None, 1],
    "backbone": [None, "vgg19", ["vgg16"], np.ones(3)],
    "head": [None, "4s", 8, {}],
    "fc": [None, 1, "yes"],
    "upsampling": [None, "nearest", ["bilinear"]],
    "weights": [3, ["imagenet"], b"imagenet"],
    "epochs": [0, -1, 1.5, 2.0, "3", None, True, 2**30, 10**400],
    "batch": [0, -1, 1.5, "3", None, True, 2**30],
    "optimizer": [None, "rmsprop", ["adam"], Adam],
    "lr": [0, 0.0, -1e-9, NAN, float("inf"), 1e7, "fast", True, 10**400, 1j],
    "lr_backbone": [-1, NAN, None, "0", False],
    "lr_upsampling": [-1, NAN, None, "0", False],
    "lr_bias": [-1, NAN, None, "0", False],
    "momentum": [0.9, 0, NAN],  # of adam, which has none
    "weight_decay": [5e-4, 0, NAN],
    "seed": [-1, 1.0, None, "0", 2**64, True],
}


def refused(name, error, **given):
    with pytest.raises(error) as caught:
        Recipe(**{"data": "voc", **given})
    assert str(caught.value).startswith(f"{name}: expected ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Recipe)])
def test_values_that_are_refused_by_name(name):
    for value in BAD[name]:
        refused(name, (TypeError, ValueError), **{name: value})
        # From a file it is one kind of error.
        try:
            described = json.loads(json.dumps({**Recipe(data="voc").to_json(), name: value}))
        except (TypeError, ValueError):
            continue
        with pytest.raises(ValueError, match=f"^{name}: expected "):
            Recipe.from_json(described)


def test_values_that_do_not_go_together():
    for momentum in (1, 1.0, -0.1, NAN, "0.9", True):
        refused("momentum", (TypeError, ValueError), optimizer="sgd", momentum=momentum)
    for decay in (1.5, -0.1, NAN, "0", True):
        refused("weight_decay", (TypeError, ValueError), optimizer="sgd", weight_decay=decay)
    refused("fc", ValueError, backbone="mobilenet_v2", fc=True)
    refused("fc", ValueError, backbone="resnet50v2", fc=True)


def test_entries_that_are_missing_or_unknown():
    described = Recipe(data="voc").to_json()
    for wrong, said in [
        (None, "recipe: expected a mapping, got None"),
        ([], "recipe: expected a mapping"),
        ({**described, "dropout": 0.5}, "recipe: .*'dropout' unknown"),
        ({name: described[name] for name in described if name != "lr"}, "recipe: .*lr missing"),
    ]:
        with pytest.raises(ValueError, match=f"^{said}"):
            Recipe.from_json(wrong)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, "vgg16", "8s", "sgd", "xavier", "imagenet"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.data(), json_values)
def test_anything_in_place_of_an_entry(data, value):
    """A recipe comes of it, or one line that names the entry; never anything else."""
    name = data.draw(st.sampled_from(sorted(BAD)))
    described = {**Recipe(data="voc").to_json(), name: value}
    try:
        recipe = Recipe.from_json(described)
    except ValueError as error:
        # Another optimizer may lack what is given beside it.
        assert str(error).startswith(f"{name}: expected ") or name in ("optimizer", "backbone")
        assert "\n" not in str(error) and len(str(error)) < 250
    else:
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


# What it makes of a network.

CLASSES = Classes.of(["road", "sky", "car"])


@pytest.fixture(scope="module", params=["mobilenet_v2", "vgg16"])
def built(request):
    """A recipe's beginning, and its model."""
    given = {"data": "voc", "backbone": request.param, "head": "8s"}
    return given, Recipe(**given).model(CLASSES)


def trunk(model, given):
    """The names of the nodes of the backbone, by the module that has them."""
    own = set(backbones.nodes(given["backbone"], None).nodes)
    assert own < set(model.graph.nodes) and len(own) > 20
    return own


def transposed(model):
    found = {n for n, node in model.graph.nodes.items() if isinstance(node.layer, ConvTranspose)}
    assert found == {"upscore16", "upscore8", "upscore"}
    return found


def of(name):
    node, _, parameter = name.rpartition("/")
    return node, parameter


def test_one_rate_for_all(built):
    given, model = built
    recipe = Recipe(**given)
    rates = recipe.rates(model)
    assert rates.keys() == model.graph.parameters().keys()
    assert set(rates.values()) == {1e-4}
    assert recipe.decays(model) == {} and recipe.frozen(model) == frozenset()


def test_rates_by_groups(built):
    """The paper's doubled biases, a slower backbone and a faster upsampling, one by the other."""
    given, model = built
    recipe = Recipe(**given, lr=0.5, lr_backbone=0.25, lr_upsampling=4, lr_bias=2)
    backbone, up = trunk(model, given), transposed(model)
    kinds = set()
    for name, rate in recipe.rates(model).items():
        node, parameter = of(name)
        group = 0.25 if node in backbone else 4 if node in up else 1
        assert rate == 0.5 * group * (2 if parameter == "bias" else 1), name
        kinds.add((group, parameter))
    assert kinds >= {(1, "kernel"), (1, "bias"), (4, "kernel"), (0.25, "kernel")}
    norms = given["backbone"] == "mobilenet_v2"
    assert ((0.25, "gamma") in kinds) == ((0.25, "beta") in kinds) == norms
    assert ((0.25, "bias") in kinds) != norms


def test_decay_is_of_kernels_alone(built):
    given, model = built
    recipe = Recipe(**given, optimizer="sgd", weight_decay=5e-4, lr_backbone=0)
    decays = recipe.decays(model)
    assert decays == {n: 5e-4 for n in model.graph.parameters() if of(n)[1] == "kernel"}
    convolutions = [
        n for n in model.graph.nodes.values() if isinstance(n.layer, Conv | ConvTranspose)
    ]
    assert len(decays) == len(convolutions)
    assert Recipe(**given, optimizer="sgd").decays(model) == {}


def test_what_a_rate_of_0_freezes(built):
    given, model = built
    backbone, up = trunk(model, given), transposed(model)
    norms = {n for n, node in model.graph.nodes.items() if isinstance(node.layer, BatchNorm)}
    assert bool(norms) == (given["backbone"] == "mobilenet_v2") and norms <= backbone
    assert Recipe(**given, lr_backbone=0).frozen(model) == backbone
    assert Recipe(**given, lr_upsampling=0).frozen(model) == up
    assert Recipe(**given, lr_backbone=0, lr_upsampling=0).frozen(model) == backbone | up
    for kept in ({"lr_bias": 0}, {"lr_backbone": 1e-9, "lr_upsampling": 1e-9}):
        assert Recipe(**given, **kept).frozen(model) == frozenset()
    # What is left to train, and that `Graph.forward` takes the names.
    left = {of(n)[0] for n in model.graph.parameters()} - backbone - up
    assert left == {"score32", "score16", "score8"}
    frozen = Recipe(**given, lr_backbone=0, lr_upsampling=0).frozen(model)
    x = np.zeros((1, 32, 32, 3), np.float32)
    y, saved = model.graph.forward(x, train=True, until=model.scores, frozen={"input", *frozen})
    gx, gradients = model.graph.backward(saved, y)
    assert gx is None and {of(name)[0] for name in gradients} == left


def test_fc_is_of_the_backbone():
    names = backbones.names("vgg16", fc=True) - backbones.names("vgg16")
    assert {"fc6", "fc7"} <= names


def test_the_model(built):
    given, model = built
    assert model.classes == CLASSES.names
    assert model.architecture == {**{"fc": False}, **{n: given[n] for n in ("backbone", "head")}}
    np.testing.assert_array_equal(
        model.graph.nodes["upscore"].layer.kernel, bilinear_kernel(3, 3, 16)
    )


def test_the_model_by_seed_and_upsampling():
    def arrays(**more):
        recipe = Recipe(data="voc", backbone="mobilenet_v2", head="32s", **more)
        return recipe.model(CLASSES).graph.arrays()

    one, same, other, drawn = (
        arrays(),
        arrays(seed=0, lr=1.0, epochs=3),
        arrays(seed=1),
        arrays(upsampling="xavier"),
    )
    for name, array in one.items():
        assert array.tobytes() == same[name].tobytes()
        assert (array.tobytes() == drawn[name].tobytes()) == (name != "upscore/kernel")
    for name in ("features.0.0/kernel", "score32/kernel"):
        assert (one[name] != other[name]).any()


def test_weights_of_a_file_that_is_not_there(tmp_path):
    recipe = Recipe(data="voc", backbone="vgg16", weights=str(tmp_path / "none.h5"))
    with pytest.raises(FileNotFoundError, match="none.h5"):
        recipe.model(CLASSES)


def test_the_data_sets(labelled_pictures):
    """Training is cropped, flipped and drawn by the seed; validation is of whole pictures."""
    data = str(labelled_pictures)
    train, val = Recipe(data=data, crop=(48, 44), pad=True, seed=7).datasets()
    assert (train.names, train.crop, train.pad, train.flip, train.seed) == (
        ["p0", "p1", "p2"],
        (48, 44),
        True,
        True,
        7,
    )
    assert (val.names, val.crop, val.flip) == (["p3", "p4"], None, False)
    assert val[1].labels.shape == (64, 40)
    how = {"crop": (41, 40), "split": ("val", "train")}
    train, val = Recipe(data=data, flip=False, **how).datasets()
    assert (train.names, train.small, train.flip, train.pad) == (["p4"], ["p3"], False, False)
    assert val.names == ["p0", "p1", "p2"]
    (labelled_pictures / "SegmentationClass" / "p0.png").unlink()
    assert list(Recipe(data=data, **how).datasets()[1].skipped) == ["p0"]
    with pytest.raises(ValueError, match="p0.png: No such file"):
        Recipe(data=data, strict=True, **how).datasets()
