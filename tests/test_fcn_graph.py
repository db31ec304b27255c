"""`fcn.graph`: a whole network's gradient, what it keeps in memory, and how it goes into a file."""

import copy
import gc
import json
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn.graph import INPUT, Graph, Node
from fcn.layers import (
    LAYERS,
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
    moved,
    softmax_cross_entropy,
)


def network(seed=0):
    """A small net of every layer: branches that meet, scores that meet, cut to the input."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def norm(channels):
        statistics = normal(channels), 1 + abs(normal(channels))
        return BatchNorm(normal(channels), normal(channels), *statistics)

    nodes = {
        "pad": Node(ZeroPadding(1), (INPUT,)),
        "conv1/conv": Node(Conv(normal(3, 3, 3, 4), normal(4), 2, "VALID"), ("pad",)),
        "conv1/norm": Node(norm(4), ("conv1/conv",)),
        "conv1/relu": Node(ReLU(), ("conv1/norm",)),
        "left": Node(Conv(normal(3, 3, 1, 4), groups=4, dilations=(1, 2)), ("conv1/relu",)),
        "left/norm": Node(norm(4), ("left",)),
        "right": Node(Conv(normal(1, 1, 4, 4)), ("conv1/relu",)),
        "join": Node(Add(), ("left/norm", "right", "conv1/relu")),
        "relu6": Node(ReLU(6), ("join",)),
        "pool": Node(MaxPool(3, 2, "SAME"), ("relu6",)),
        "score32": Node(Conv(normal(1, 1, 4, 2), normal(2)), ("pool",)),
        "up": Node(ConvTranspose(normal(4, 4, 2, 2), None, 2), ("score32",)),
        "score16": Node(Conv(normal(1, 1, 4, 2)), ("relu6",)),
        "up/crop": Node(Crop(), ("up", "score16")),
        "sum": Node(Add(), ("up/crop", "score16")),
        "up2": Node(ConvTranspose(normal(4, 4, 2, 2), normal(2), 2), ("sum",)),
        "crop": Node(Crop(), ("up2", INPUT)),
        "softmax": Node(Softmax(), ("crop",)),
    }
    return Graph(nodes, 3)


def in_tensorflow(x, p):
    """The same network in TensorFlow's own words, on parameters by name."""
    import tensorflow as tf

    def norm(y, name):
        moments = tf.nn.moments(y, (0, 1, 2))
        return tf.nn.batch_normalization(
            y, *moments, p[f"{name}/beta"], p[f"{name}/gamma"], variance_epsilon=1e-3
        )

    def up(y, name):
        n, h, w, c = y.shape
        return tf.nn.conv2d_transpose(y, p[f"{name}/kernel"], (n, 2 * h, 2 * w, c), 2, "SAME")

    y = tf.nn.conv2d(
        tf.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), p["conv1/conv/kernel"], 2, "VALID"
    )
    y = tf.nn.relu(norm(y + p["conv1/conv/bias"], "conv1/norm"))
    kernel = tf.transpose(p["left/kernel"], (0, 1, 3, 2))
    left = norm(
        tf.nn.depthwise_conv2d(y, kernel, (1, 1, 1, 1), "SAME", dilations=(1, 2)), "left/norm"
    )
    y = tf.nn.relu6(left + tf.nn.conv2d(y, p["right/kernel"], 1, "SAME") + y)
    pool = tf.nn.max_pool2d(y, 3, 2, "SAME")
    score = tf.nn.conv2d(pool, p["score32/kernel"], 1, "SAME") + p["score32/bias"]
    finer = tf.nn.conv2d(y, p["score16/kernel"], 1, "SAME")
    y = up(score, "up")[:, : finer.shape[1], : finer.shape[2]] + finer
    y = up(y, "up2") + p["up2/bias"]
    return tf.nn.softmax(y[:, : x.shape[1], : x.shape[2]])


# Of one seed: where a relu bends, or two entries of a window are nearly equal, rounding decides.
@pytest.mark.parametrize(("h", "w"), [(3, 3), (4, 8), (7, 5), (12, 13)])
def test_the_gradient_of_a_whole_network(h, w):
    """Every gradient of the network, in training, is TensorFlow's."""
    import tensorflow as tf

    graph, rng = network(), np.random.default_rng(h)
    x = rng.normal(size=(2, h, w, 3)).astype(np.float32)
    g = rng.normal(size=(2, h, w, 2)).astype(np.float32)
    inputs = tf.Variable(x, dtype=tf.float64)
    parameters = {
        name: tf.Variable(value, dtype=tf.float64) for name, value in graph.parameters().items()
    }
    with tf.GradientTape() as tape:
        expected = in_tensorflow(inputs, parameters)
    y, saved = graph.forward(x, train=True)
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-3, atol=1e-4)
    gx, gradients = graph.backward(saved, g)
    assert gradients.keys() == parameters.keys()
    theirs = tape.gradient(expected, {"x": inputs} | parameters, tf.constant(g, tf.float64))
    for name, gradient in {"x": gx, **gradients}.items():
        wanted = theirs[name].numpy()
        assert gradient.dtype == np.float32
        error = abs(gradient - wanted).max() / max(1, abs(wanted).max())
        assert error < 2e-3, (name, error)
    assert graph.shapes(x.shape)["softmax"] == y.shape


def test_shapes_are_the_results():
    graph = network()
    shape = (2, 11, 6, 3)
    shapes = graph.shapes(shape)
    assert list(shapes) == list(graph.nodes)
    for name in graph.nodes:
        y, saved = graph.forward(np.ones(shape, np.float32), until=name)
        assert y.shape == shapes[name] and saved is None, name


def test_the_arrays_by_name():
    graph = network()
    parameters, arrays = graph.parameters(), graph.arrays()
    assert parameters.keys() < arrays.keys()
    assert {name.rsplit("/")[-1] for name in arrays.keys() - parameters.keys()} == {
        "moving_mean",
        "moving_variance",
    }
    assert arrays["conv1/norm/gamma"] is graph.nodes["conv1/norm"].layer.gamma
    moved = graph.to(np)
    assert moved is not graph
    assert all(array is arrays[name] for name, array in moved.arrays().items())


class Watched(Layer):
    """Adds 1; counts how many results of its kind are alive when it runs, either way."""

    results: list = []
    alive: list = []

    def count(self):
        self.alive.append(sum(result() is not None for result in self.results))

    def forward(self, *xs, train=False):
        self.count()
        y = xs[0] + 1
        self.results.append(weakref.ref(y))
        return y, None

    def backward(self, saved, g, **wanted):
        self.count()
        gx = g + 1
        self.results.append(weakref.ref(gx))
        return (gx,), {}


class Keeping(Watched):
    """Saves its result."""

    def forward(self, *xs, train=False):
        y, _ = super().forward(*xs, train=train)
        return y, y


class KeepingInput(Watched):
    """Saves what came in."""

    def forward(self, *xs, train=False):
        y, _ = super().forward(*xs, train=train)
        return y, xs[0]


@pytest.fixture
def watched():
    """A chain of five, and the counts; without the garbage collector, which might come by."""
    Watched.results, Watched.alive = [], []

    def chain(kind):
        names = [INPUT, *"abcde"]
        return Graph(
            {name: Node(kind(), (before,)) for before, name in zip(names, names[1:], strict=False)},
            1,
        )

    gc.disable()
    yield chain
    gc.enable()


X = np.zeros((1, 2, 2, 1), np.float32)


@pytest.mark.parametrize("train", [False, True])
def test_a_result_lives_until_its_last_reader(watched, train):
    y, _ = watched(Watched).forward(X.copy(), train=train)
    assert Watched.alive == [0, 1, 1, 1, 1] and y[0, 0, 0, 0] == 5


def test_a_branch_lives_until_they_meet(watched):
    graph = watched(Watched)
    nodes = graph.nodes | {"sum": Node(Add(), ("b", "e")), "f": Node(Watched(), ("sum",))}
    Graph(nodes, 1).forward(X.copy())
    # c reads b, d keeps b and c, e keeps b and d; f reads the sum, which is not counted.
    assert Watched.alive == [0, 1, 1, 2, 2, 0]


@pytest.mark.parametrize("kind", [Keeping, KeepingInput])
def test_nothing_is_kept_for_a_backward_that_will_not_come(watched, kind):
    watched(kind).forward(X.copy())
    assert Watched.alive == [0, 1, 1, 1, 1]


def test_the_input_goes_like_any_result(watched):
    def counted():
        x = X.copy()
        Watched.results.append(weakref.ref(x))
        return x

    watched(Watched).forward(counted())
    assert Watched.alive == [1, 1, 1, 1, 1]


def test_backward_lets_go_as_it_goes(watched):
    graph = watched(Keeping)
    y, saved = graph.forward(X.copy(), train=True)
    assert Watched.alive == [0, 1, 2, 3, 4]
    del y
    Watched.alive.clear()
    gx, _ = graph.backward(saved, X.copy())
    # Of the five results one is let go a step, and one gradient is on its way.
    assert Watched.alive == [5, 5, 4, 3, 2]
    assert not saved.layers and gx[0, 0, 0, 0] == 5


def test_saved_is_used_up():
    graph = network()
    y, saved = graph.forward(np.ones((1, 8, 8, 3), np.float32), train=True)
    with pytest.raises(
        ValueError, match=r"g: expected float32 of the output's shape \(1, 8, 8, 2\)"
    ):
        graph.backward(saved, y[:, :1])
    with pytest.raises(ValueError, match="g: .*got float64 of shape"):
        graph.backward(saved, y.astype(float))
    graph.backward(saved, y)
    with pytest.raises(ValueError, match="saved: expected that of a forward with train=True, not"):
        graph.backward(saved, y)
    _, saved = graph.forward(np.ones((1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="saved: expected that of a forward with train=True"):
        graph.backward(saved, y)


def test_gradients_are_summed_and_the_callers_kept():
    """The same array may be the gradient of several inputs: none of them is written to."""
    nodes = {
        "relu": Node(ReLU(), (INPUT,)),
        "twice": Node(Add(), ("relu", "relu")),
        "all": Node(Add(), ("twice", "relu", INPUT, "twice")),
    }
    x = np.ones((1, 2, 2, 1), np.float32)
    y, saved = Graph(nodes, 1).forward(x, train=True)
    g = np.ones_like(y)
    gx, gradients = Graph(nodes, 1).backward(saved, g)
    assert (y == 6).all() and (gx == 6).all() and (g == 1).all() and gradients == {}


def test_what_only_lends_its_size_has_no_gradient():
    kernel = np.ones((1, 1, 1, 1), np.float32)
    nodes = {
        "size": Node(Conv(kernel, strides=2), (INPUT,)),
        "score": Node(Conv(kernel), (INPUT,)),
        "crop": Node(Crop(), ("score", "size")),
    }
    graph = Graph(nodes, 1)
    y, saved = graph.forward(np.ones((1, 4, 4, 1), np.float32), train=True)
    gx, gradients = graph.backward(saved, np.ones_like(y))
    assert gradients["size/kernel"].tolist() == [[[[0]]]]
    assert gradients["score/kernel"].tolist() == [[[[4]]]] and gx.sum() == 4
    only = Graph({"conv": nodes["score"], "crop": Node(Crop(), (INPUT, "conv"))}, 1)
    y, saved = only.forward(np.ones((1, 4, 4, 1), np.float32), train=True)
    assert only.backward(saved, y)[0].sum() == 16


def test_until_runs_what_it_needs(watched):
    graph = watched(Watched)
    y, saved = graph.forward(X.copy(), until="b", train=True)
    assert y[0, 0, 0, 0] == 2 and list(saved.layers) == ["a", "b"]
    gx, _ = graph.backward(saved, X.copy())
    assert gx[0, 0, 0, 0] == 2
    with pytest.raises(ValueError, match="until: expected the name of a node, got 'z'"):
        graph.forward(X, until="z")


@pytest.mark.parametrize(
    ("x", "error", "said"),
    [
        (np.ones((1, 4, 4, 1), np.float32), ValueError, r"x: .*\(n, h, w, 3\)"),
        (np.ones((4, 4, 3), np.float32), ValueError, "x: expected float32 of shape"),
        (np.ones((1, 4, 4, 3)), ValueError, "x: .*got float64"),
        ([[1]], TypeError, "x: expected an array of NumPy or CuPy, got list"),
    ],
)
def test_inputs_that_do_not_fit(x, error, said):
    with pytest.raises(error, match=said):
        network().forward(x)


KERNEL = np.ones((1, 1, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ({}, "nodes: expected at least one"),
        ({"a": Node(ReLU(), ("b",)), "b": Node(ReLU(), ("a",))}, "node 'a': reads 'b'"),
        ({"a": Node(ReLU(), ("a",))}, "node 'a': reads 'a'"),
        ({"a": Node(ReLU(), ())}, "node 'a': expected 1 inputs, got 0"),
        ({"a": Node(Add(), (INPUT,))}, "node 'a': expected 2 or more inputs, got 1"),
        ({"input": Node(ReLU(), (INPUT,))}, "node 'input': expected another name"),
        ({"": Node(ReLU(), (INPUT,))}, "node '': expected another name"),
        (
            {"a": Node(Conv(KERNEL), (INPUT,)), "b": Node(Conv(KERNEL), ("a",))},
            "node 'b': input: expected 3 channels, got 4",
        ),
        (
            {"a": Node(Conv(KERNEL), (INPUT,)), "b": Node(Add(), ("a", INPUT))},
            r"node 'b': inputs: expected equal channels, got \(4, 3\)",
        ),
    ],
)
def test_graphs_that_are_none(nodes, said):
    with pytest.raises(ValueError, match=said):
        Graph(nodes, 3)


def test_sizes_that_do_not_fit_name_the_node():
    nodes = {
        "half": Node(MaxPool(2, 2, "SAME"), (INPUT,)),
        "crop": Node(Crop(), ("half", INPUT)),
    }
    for call in (
        lambda graph: graph.forward(np.ones((1, 4, 4, 3), np.float32)),
        lambda graph: graph.shapes((1, 4, 4, 3)),
    ):
        with pytest.raises(ValueError, match="node 'crop': inputs: expected the first at least as"):
            call(Graph(nodes, 3))


def test_a_result_too_large_names_the_node():
    kernel = np.ones((1, 1, 3, 3), np.float32)
    nodes, before = {}, INPUT
    for name in "abcde":
        nodes[name] = Node(ConvTranspose(kernel, strides=4096), (before,))
        before = name
    graph = Graph(nodes, 3)
    assert graph.shapes((1, 1, 1, 3))["e"] == (1, 2**60, 2**60, 3)
    with pytest.raises(ValueError, match="node 'a': the result of shape .* bytes"):
        graph.forward(np.ones((1, 64, 64, 3), np.float32))


def test_out_of_a_file_as_it_went_in():
    graph = network()
    written = json.dumps(graph.description())
    assert json.loads(written) == graph.description()  # lists, not tuples
    other = Graph.from_description(json.loads(written), graph.arrays())
    assert json.dumps(other.description()) == written
    assert {type(node.layer) for node in other.nodes.values()} == set(LAYERS.values())
    x = np.random.default_rng(1).normal(size=(1, 9, 7, 3)).astype(np.float32)
    assert other.forward(x)[0].tobytes() == graph.forward(x)[0].tobytes()


def node_of(description, name):
    return next(node for node in description["nodes"] if node["name"] == name)


def changed(*path, to):
    """A change of one entry of a description: of a node, or of its config."""

    def change(description, arrays):
        name, *keys, last = path
        entry = node_of(description, name)
        for key in keys:
            entry = entry[key]
        entry[last] = to

    return change


def without(*names):
    def change(description, arrays):
        for name in names:
            del arrays[name]

    return change


def with_array(name, array):
    return lambda description, arrays: arrays.__setitem__(name, array)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed("left", "layer", to="os.system"), "node 'left': layer: expected one of Conv, "),
        (changed("left", "layer", to=["Conv"]), "node 'left': layer: expected one of Conv, "),
        (changed("left", "layer", to="Layer"), "node 'left': layer: expected one of Conv, "),
        (changed("left", "inputs", to=["join"]), "node 'left': reads 'join', which is no node be"),
        (changed("left", "inputs", to=["nowhere"]), "node 'left': reads 'nowhere'"),
        (changed("left", "inputs", to="input"), "node 'left': inputs: expected a list of names"),
        (changed("left", "inputs", to=[["pad"]]), "node 'left': inputs: expected a list of names"),
        (changed("left", "inputs", to=["pad", "pad"]), "node 'left': expected 1 inputs, got 2"),
        (changed("left", "name", to="right"), "node 'right': kernel: expected shape"),
        (
            changed("right", "name", to="pad"),
            r"nodes\[6\]: name: expected one of its own, got 'pad'",
        ),
        (changed("right", "name", to=None), r"nodes\[6\]: name: expected one of its own, got None"),
        (changed("left", "more", to=1), r"nodes\[4\]: entry: .*'more' unknown"),
        (changed("left", "config", to=None), "node 'left': config: expected a mapping, got None"),
        (changed("left", "config", "hook", to="x"), "node 'left': config: .*'hook' unknown"),
        (changed("left", "config", "strides", to=0), "'left': strides: .*1 to 4096, got 0"),
        (changed("left", "config", "strides", to=10**30), "'left': strides: .*1 to 4096, got 1000"),
        (changed("left", "config", "strides", to=True), "'left': strides: .*got True"),
        (changed("left", "config", "strides", to=[1, 2, 3]), "'left': strides: .*integer or two"),
        (changed("left", "config", "padding", to="same"), "'left': padding: expected 'SAME', "),
        (changed("left", "config", "padding", to=[[0, -1], [0, 0]]), "'left': padding.*got -1"),
        (changed("left", "config", "groups", to=3), "'left': groups: expected a divisor"),
        (changed("left", "config", "groups", to=1), "'left': input: expected 1 channels, got 4"),
        (changed("left", "config", "shapes", to={}), "'left': arrays: .*'kernel' unknown"),
        (changed("left", "config", "shapes", to={"x": [1]}), "'left': shapes: expected some of"),
        (changed("left", "config", "shapes", to={"kernel": [3]}), "'left': kernel: expected shape"),
        (changed("conv1/norm", "config", "epsilon", to=float("nan")), "'conv1/norm': epsilon: "),
        (changed("conv1/norm", "config", "epsilon", to=-1), "'conv1/norm': epsilon: .*0 to 1, "),
        (changed("conv1/norm", "config", "momentum", to="1"), "'conv1/norm': momentum: "),
        (changed("relu6", "config", "maximum", to=3), "'relu6': maximum: expected None or 6"),
        (changed("pool", "config", "window", to=10**9), "'pool': window: "),
        (changed("pool", "config", "padding", to=[[3, 0], [0, 0]]), "'pool': padding: .*window"),
        (changed("pad", "config", "padding", to=10**9), "'pad': padding"),
        (without("left/kernel"), "node 'left': arrays: .*kernel missing"),
        (without("conv1/norm/gamma", "conv1/norm/beta"), "node 'conv1/norm': .*gamma missing, bet"),
        (with_array("nowhere/kernel", KERNEL), "arrays: .*got 'nowhere/kernel'"),
        (with_array("left/extra", KERNEL), "node 'left': arrays: .*'extra' unknown"),
        (with_array("relu6/kernel", KERNEL), "node 'relu6': arrays: expected no entries, got 'ker"),
        (with_array("left/kernel", KERNEL), r"node 'left': kernel: expected shape \[3, 3, 1, 4\]"),
        (with_array("left/kernel", [1.0]), "node 'left': kernel: expected shape .*got None"),
        (with_array("left/kernel", np.ones((3, 3, 1, 4))), "node 'left': kernel: .*got float64"),
        (with_array("conv1/conv/bias", KERNEL[0, 0, 0, :3]), r"'conv1/conv': bias: .*\(3,\)"),
        (lambda description, arrays: description.update(nodes={}), "nodes: expected a list"),
        (lambda description, arrays: description.update(nodes=[]), "arrays: expected none but the"),
        (
            lambda description, arrays: description.update(nodes=[1]),
            r"nodes\[0\]: entry: expected a ma",
        ),
        (lambda description, arrays: description.update(channels=2), "'conv1/conv': input: expect"),
        (lambda description, arrays: description.update(channels=None), "channels: expected an in"),
        (lambda description, arrays: description.update(version=1), "description: .*'version' unk"),
        (lambda description, arrays: description.pop("channels"), "description: .*channels miss"),
    ],
)
def test_descriptions_that_are_none(change, said):
    graph = network()
    description, arrays = copy.deepcopy(graph.description()), graph.arrays()
    change(description, arrays)
    with pytest.raises(ValueError, match=said) as caught:
        Graph.from_description(description, arrays)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(2**63), 4097, 6, deep(900)])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["input", "conv1/relu", "kernel", "SAME", "Conv", "Crop"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["kernel"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.data(), json_values)
def test_anything_in_place_of_a_part(data, value):
    """A graph comes of it, or one line that says why not; never anything else."""
    graph = network()
    description = copy.deepcopy(graph.description())
    entry = data.draw(st.sampled_from(description["nodes"])) if data.draw(st.booleans()) else None
    entry = description if entry is None else entry
    while True:
        keys = list(entry) if isinstance(entry, dict) else list(range(len(entry)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(entry[key], (dict, list)) or not entry[key] or data.draw(st.booleans()):
            break
        entry = entry[key]
    entry[key] = value
    try:
        other = Graph.from_description(description, graph.arrays())
    except ValueError as error:
        assert len(str(error)) < 400 and "\n" not in str(error)
    else:
        json.dumps(other.description())


@pytest.mark.cuda
@pytest.mark.parametrize("train", [False, True])
def test_on_a_gpu_as_on_the_cpu(train):
    """The network of every layer: results, gradients and moving statistics."""
    cupy = pytest.importorskip("cupy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 12, 13, 3)).astype(np.float32)
    labels = rng.integers(0, 2, x.shape[:3])
    labels[:, 3] = 255

    def run(xp):
        graph = network().to(xp)
        logits, saved = graph.forward(xp.asarray(x), train=train, until="crop")
        loss, g = softmax_cross_entropy(logits, xp.asarray(labels))
        found = {"logits": logits, "g": g, "probabilities": graph.forward(xp.asarray(x))[0]}
        if train:
            found["gx"], gradients = graph.backward(saved, g)
            found |= gradients
        found |= graph.arrays()
        assert {type(array) for array in found.values()} == {xp.ndarray}
        back = graph.to(np).arrays()
        assert all(isinstance(array, np.ndarray) for array in back.values())
        return {"loss": np.asarray(loss)} | {name: moved(a, np) for name, a in found.items()}

    theirs = run(cupy)
    for name, ours in run(np).items():
        scale = max(1e-3, abs(ours).max())
        np.testing.assert_allclose(theirs[name], ours, rtol=1e-3, atol=1e-4 * scale, err_msg=name)


def test_batches_of_nothing():
    """No picture: no result, and gradients that are zero."""
    graph = network()
    x = np.ones((0, 8, 8, 3), np.float32)
    assert graph.forward(x)[0].shape == (0, 8, 8, 2)
    nodes = {
        "conv": Node(graph.nodes["conv1/conv"].layer, ("pad",)),
        "pool": Node(MaxPool(2, 2, "SAME"), ("conv",)),
    }
    graph = Graph({"pad": graph.nodes["pad"]} | nodes, 3)
    y, saved = graph.forward(x, train=True)
    gx, gradients = graph.backward(saved, y)
    assert gx.shape == x.shape and not gradients["conv/kernel"].any()
