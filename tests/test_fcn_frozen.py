"""Frozen nodes of `fcn.graph`, and the gradients that `fcn.layers` leave out."""

import gc
import itertools
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn.graph import INPUT, Graph, Node
from fcn.layers import (
    Add,
    BatchNorm,
    Conv,
    ConvTranspose,
    Crop,
    Layer,
    MaxPool,
    ReLU,
    Softmax,
    ZeroPadding,
)

C = 2
SHAPE = (2, 4, 5, C)


def layer_of(kind, rng):
    """A layer that keeps the shape, or a `Crop` that may cut what is larger."""

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def norm(gamma, beta):
        return BatchNorm(gamma, beta, normal(C), 1 + abs(normal(C)))

    return {
        "conv": lambda: Conv(normal(3, 3, C, C), normal(C)),
        "depthwise": lambda: Conv(normal(3, 1, 1, C), groups=C, dilations=(2, 1)),
        "transposed": lambda: ConvTranspose(normal(3, 3, C, C)),
        "norm": lambda: norm(normal(C), normal(C)),
        "bare norm": lambda: norm(None, None),
        "relu": ReLU,
        "pool": lambda: MaxPool(3, 1, "SAME"),
        "softmax": Softmax,
        "padding": lambda: ZeroPadding(((0, 1), (1, 0))),
        "crop": Crop,
        "add": Add,
    }[kind]()


KINDS = ["conv", "depthwise", "transposed", "norm", "bare norm", "relu", "pool", "softmax"]


@st.composite
def graphs(draw):
    """Up to ten nodes that read any before them; what is padded is cropped at once."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    nodes, names = {}, [INPUT]
    for number in range(draw(st.integers(1, 10))):
        name, source = f"n{number}", draw(st.sampled_from(names))
        kind = draw(st.sampled_from([*KINDS, "crop", "add"]))
        inputs = (source,)
        if kind == "crop":
            padded = f"{name} padded"
            nodes[padded] = Node(layer_of("padding", rng), (source,))
            inputs = (padded, draw(st.sampled_from(names)))
        elif kind == "add":
            more = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2))
            inputs = (source, *more)
        nodes[name] = Node(layer_of(kind, rng), inputs)
        names.append(name)
    return Graph(nodes, C)


def has_to_train(graph, name, frozen):
    """Whether a gradient is wanted at a node or before it, as `Graph.forward` says in words."""
    if name == INPUT:
        return INPUT not in frozen
    node = graph.nodes[name]
    trained = name not in frozen and any(p in node.layer.arrays() for p in node.layer.parameters)
    return trained or any(has_to_train(graph, source, frozen) for source in node.inputs)


def moving(graph):
    return {
        name: array.copy()
        for name, array in graph.arrays().items()
        if name.endswith(("moving_mean", "moving_variance"))
    }


def at_length(graph, x, g, frozen):
    """Everything kept, every gradient found, and those that are not wanted thrown away."""
    values, kept = {INPUT: x}, {}
    for name, node in graph.needed().items():
        inputs = (values[source] for source in node.inputs)
        values[name], kept[name] = node.layer.forward(*inputs, train=name not in frozen)
    arriving, gradients = {graph.output: g}, {}
    for name, node in reversed(graph.needed().items()):
        if name in arriving:
            into, own = node.layer.backward(kept[name], arriving[name])
        else:  # it lends its size
            into, own = (), {p: np.zeros_like(a) for p, a in node.layer.trained().items()}
        for source, gradient in zip(node.inputs, into, strict=False):
            if gradient is not None:
                before = arriving.get(source)
                arriving[source] = gradient if before is None else before + gradient
        if name not in frozen:
            gradients |= {f"{name}/{parameter}": each for parameter, each in own.items()}
    gx = arriving.get(INPUT, np.zeros_like(x))
    return values[graph.output], None if INPUT in frozen else gx, gradients


def to_bits(arrays):
    return {name: (array.shape, array.tobytes()) for name, array in arrays.items()}


@given(graphs(), st.data())
def test_frozen_nodes(graph, data):
    """Gradients are those of a backward that knows of no frozen ones, bit for bit."""
    frozen = data.draw(st.sets(st.sampled_from([INPUT, *graph.nodes])))
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=SHAPE).astype(np.float32) for _ in range(2))
    needed = graph.needed()
    expected = {name for name in graph.nodes if has_to_train(graph, name, frozen)}
    assert graph.active(frozen) - {INPUT} == expected
    assert (INPUT in graph.active(frozen)) == (INPUT not in frozen)
    before = moving(graph)
    if graph.output not in expected:
        with pytest.raises(
            ValueError, match="^frozen: expected to leave something with a gradient, got"
        ):
            graph.forward(x, train=True, frozen=frozen)
        assert to_bits(moving(graph)) == to_bits(before)
        return
    y, saved = graph.forward(x, train=True, frozen=frozen)
    assert set(saved.layers) == expected & needed.keys()
    after = moving(graph)
    for name, array in after.items():
        node = name.rpartition("/")[0]
        kept = array.tobytes() == before[name].tobytes()
        assert kept == (node in frozen or node not in needed), name
    for name, array in before.items():
        graph.arrays()[name][...] = array
    if frozen >= needed.keys():
        np.testing.assert_array_equal(y, graph.forward(x)[0])
    gx, gradients = graph.backward(saved, g)
    theirs_y, theirs_gx, theirs = at_length(graph, x, g, frozen)
    assert y.tobytes() == theirs_y.tobytes()
    assert to_bits(gradients) == to_bits(theirs)
    assert (gx is None) == (INPUT in frozen)
    if gx is not None:
        assert to_bits({INPUT: gx}) == to_bits({INPUT: theirs_gx})
    assert to_bits(moving(graph)) == to_bits(after)  # the same batch moved them again


@settings(max_examples=60)
@given(graphs(), st.data())
def test_without_frozen_norms_the_gradients_of_the_rest_are_as_ever(graph, data):
    """The forward is the same then, and so is every bit of the gradients that are left."""
    norms = {name for name, node in graph.nodes.items() if isinstance(node.layer, BatchNorm)}
    may = [name for name in (INPUT, *graph.nodes) if name not in norms]
    frozen = data.draw(st.sets(st.sampled_from(may)))
    rng = np.random.default_rng(1)
    x, g = (rng.normal(size=SHAPE).astype(np.float32) for _ in range(2))
    if graph.output not in graph.active(frozen):
        return
    y, saved = graph.forward(x, train=True)
    gx, gradients = graph.backward(saved, g)
    same, saved = graph.forward(x, train=True, frozen=frozen)
    part_gx, part = graph.backward(saved, g)
    assert same.tobytes() == y.tobytes()
    wanted = {name: a for name, a in gradients.items() if name.rpartition("/")[0] not in frozen}
    assert to_bits(part) == to_bits(wanted)
    assert part_gx is None if INPUT in frozen else part_gx.tobytes() == gx.tobytes()


def chain(*names, kind="conv", seed=0):
    rng = np.random.default_rng(seed)
    before, nodes = INPUT, {}
    for name in names:
        nodes[name] = Node(layer_of(kind, rng), (before,))
        before = name
    return Graph(nodes, C)


X = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)


def test_what_is_refused():
    graph = chain("a", "b")
    for frozen in ({"a", "z"}, ["z"], ("a", "b", "z")):
        for train in (False, True):
            with pytest.raises(ValueError, match="^frozen: expected names of nodes, got 'z'$"):
                graph.forward(X, train=train, frozen=frozen)
    with pytest.raises(ValueError, match="^frozen: expected names of nodes, got "):
        graph.forward(X, frozen="ab c")
    for until, frozen in ((None, {INPUT, "a", "b"}), ("a", [INPUT, "a"])):
        with pytest.raises(
            ValueError, match="^frozen: expected to leave something with a gradient, got"
        ):
            graph.forward(X, train=True, until=until, frozen=frozen)
        y, saved = graph.forward(X, until=until, frozen=frozen)  # there is nothing to train
        assert saved is None and y.tobytes() == graph.forward(X, until=until)[0].tobytes()


def test_only_the_gradient_in_the_input():
    """Frozen nodes all, as for a picture that is to please a network."""
    graph = chain("a", "b")
    _, saved = graph.forward(X, train=True, frozen={"a", "b"})
    gx, gradients = graph.backward(saved, X)
    _, saved = graph.forward(X, train=True)
    assert gradients == {} and gx.tobytes() == graph.backward(saved, X)[0].tobytes()


def test_nodes_that_do_not_run_may_be_frozen():
    graph = chain("a", "b", "c")
    _, saved = graph.forward(X, train=True, until="b", frozen={INPUT, "a", "c"})
    assert list(saved.layers) == ["b"]
    gx, gradients = graph.backward(saved, X)
    assert gx is None and gradients.keys() == {"b/kernel", "b/bias"}


def test_frozen_norms_go_by_what_they_have_learned():
    graph = chain("a", "norm", "b", kind="norm")
    whole = moving(graph)
    y, saved = graph.forward(X, train=True, frozen={INPUT, "a", "norm"})
    for name, array in moving(graph).items():
        assert (array.tobytes() == whole[name].tobytes()) == (not name.startswith("b/"))
    learned, _ = graph.forward(X, until="norm")
    theirs, _ = graph.nodes["b"].layer.forward(learned, train=True)
    assert y.tobytes() == theirs.tobytes()


class Kept(Layer):
    """Adds a parameter, saves its input, and counts the results of its kind that are alive."""

    parameters = ("shift",)
    results: list = []

    def __init__(self):
        self.shift = np.ones(C, np.float32)

    def forward(self, x, train=False):
        y = x + self.shift
        self.results.append(weakref.ref(y))
        return y, x

    def backward(self, saved, g, *, inputs=True, parameters=True):
        assert parameters or inputs
        own = {"shift": g.sum(axis=(0, 1, 2))} if parameters else {}
        return ((g.copy(),) if inputs else (None,)), own

    @classmethod
    def alive(cls):
        return [result() is not None for result in cls.results]


@pytest.mark.parametrize("frozen", range(6))
def test_nothing_is_kept_of_what_has_nothing_to_train_before_it(frozen):
    """Of six in a row: only inputs of those that are trained, and the result."""
    Kept.results = []
    names = "abcdef"
    graph = Graph(
        {name: Node(Kept(), (before,)) for before, name in itertools.pairwise([INPUT, *names])},
        C,
    )
    gc.disable()
    try:
        y, saved = graph.forward(X.copy(), train=True, frozen={INPUT, *names[:frozen]})
        assert Kept.alive() == [number >= frozen - 1 for number in range(6)]
        assert "".join(saved.layers) == names[frozen:]
        gx, gradients = graph.backward(saved, y)
        assert gx is None and gradients.keys() == {f"{name}/shift" for name in names[frozen:]}
        assert Kept.alive() == [False] * 5 + [True]
    finally:
        gc.enable()


def test_a_layer_is_asked_for_no_gradient_in_what_is_frozen(monkeypatch):
    """The kernel's or the input's is left out, not found and thrown away."""
    graph, asked = chain("a", "b", "c", "d"), {}
    for name, node in graph.nodes.items():

        def backward(*given, name=name, backward=node.layer.backward, **wanted):
            asked[name] = wanted
            return backward(*given, **wanted)

        monkeypatch.setattr(node.layer, "backward", backward)
    _, saved = graph.forward(X, train=True, frozen={INPUT, "a", "c"})
    graph.backward(saved, X)
    assert asked == {
        "d": {"inputs": True, "parameters": True},
        "c": {"inputs": True, "parameters": False},
        "b": {"inputs": False, "parameters": True},
    }


# What layers leave out.


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "transposed", "norm", "bare norm"])
def test_gradients_that_are_not_wanted(kind, train):
    rng = np.random.default_rng(3)
    layer, g = layer_of(kind, rng), rng.normal(size=SHAPE).astype(np.float32)

    def backward(**wanted):
        _, saved = layer.forward(X, train=train)
        return layer.backward(saved, g, **wanted)

    (gx,), gradients = backward()
    assert gradients.keys() == layer.trained().keys()
    for inputs in (False, True):
        for parameters in (False, True):
            (found,), own = backward(inputs=inputs, parameters=parameters)
            assert to_bits(own) == (to_bits(gradients) if parameters else {})
            assert (None if found is None else found.tobytes()) == (
                gx.tobytes() if inputs else None
            )


@pytest.mark.parametrize("kind", ["conv", "transposed"])
def test_and_take_no_time(kind, monkeypatch):
    """No product runs whose result is not wanted."""
    import fcn.layers.convolution as module

    names, ran = ("conv", "conv_transpose", "conv_kernel_gradient"), []
    products = {name: getattr(module, name) for name in names}
    for name in names:

        def counted(*given, name=name, **more):
            ran.append(name)
            return products[name](*given, **more)

        monkeypatch.setattr(module, name, counted)
    layer = layer_of(kind, np.random.default_rng(4))
    _, saved = layer.forward(X)
    gradient = {"conv": "conv_transpose", "transposed": "conv"}[kind]
    for inputs, parameters, expected in (
        (True, False, [gradient]),
        (False, True, ["conv_kernel_gradient"]),
        (False, False, []),
    ):
        ran.clear()
        layer.backward(saved, X, inputs=inputs, parameters=parameters)
        assert ran == expected
