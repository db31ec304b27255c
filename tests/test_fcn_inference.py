"""Fused inference: what the graph computes, in fewer steps and less memory."""

import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fcn
from convarith import ConvGeometry, set_num_threads
from fcn import blocks, half
from fcn.fusion import steps
from fcn.graph import INPUT, Graph, Node
from fcn.inference import Program
from fcn.layers import (
    Add,
    BatchNorm,
    Conv,
    ConvTranspose,
    Crop,
    MaxPool,
    ReLU,
    Softmax,
    ZeroPadding,
)
from fcn.model import Model, graph_of
from fcn.preprocess import Preprocess
from fcn.receptive import halo

rng = np.random.default_rng(0)
seeds = st.integers(0, 2**32 - 1)


def normal(*shape, rng=rng):
    return rng.standard_normal(shape).astype(np.float32)


def norm(channels, rng=rng):
    return BatchNorm(
        rng.uniform(0.5, 1.5, channels).astype(np.float32),
        normal(channels, rng=rng),
        normal(channels, rng=rng),
        rng.uniform(0.5, 1.5, channels).astype(np.float32),
    )


def conv(c_in, c_out, size=3, rng=rng, **arguments):
    kernel = normal(size, size, c_in, c_out, rng=rng) / np.float32(size * math.sqrt(c_in))
    return Conv(kernel, normal(c_out, rng=rng), **arguments)


def chain(*layers, channels=4):
    """A graph of layers one after another."""
    nodes, last = {}, INPUT
    for number, layer in enumerate(layers):
        nodes[f"n{number}"] = Node(layer, (last,))
        last = f"n{number}"
    return Graph(nodes, channels)


def check(graph, size=(7, 9), batch=2, *, count=None):
    """The program's result is the graph's, from as many steps; return the program."""
    x = normal(batch, *size, graph.channels)
    kept = x.copy()
    expected, _ = graph.forward(x)
    program = Program(graph)
    y = program(x)
    assert y.shape == expected.shape and y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max(initial=1))
    np.testing.assert_array_equal(x, kept)
    if count is not None:
        assert len(program.steps) == count
    return program


# What becomes one step.


def test_what_follows_a_convolution_is_part_of_it():
    for activation in (ReLU(), ReLU(6)):
        check(chain(conv(4, 5), activation), count=1)
        check(chain(conv(4, 5), norm(5), activation), count=1)
        check(chain(ZeroPadding(1), conv(4, 5, padding="VALID"), norm(5), activation), count=1)
    check(chain(conv(4, 5), norm(5)), count=1)
    check(chain(conv(4, 5), norm(5), norm(5)), count=2)
    check(chain(conv(4, 5), ReLU(), norm(5), ReLU()), count=2)
    check(chain(norm(4), ReLU(), conv(4, 4)), count=2)
    check(chain(ReLU(), ReLU(6)), count=2)
    without_bias = Conv(normal(1, 1, 4, 5))
    check(chain(without_bias, BatchNorm(None, None, normal(5), np.ones(5, "f4")), ReLU()), count=1)


@pytest.mark.parametrize("order", [("conv", INPUT), (INPUT, "conv")])
def test_a_sum_is_part_of_the_convolution_before_it(order):
    nodes = {
        "conv": Node(conv(4, 4), (INPUT,)),
        "sum": Node(Add(), order),
        "relu": Node(ReLU(), ("sum",)),
    }
    program = check(Graph(nodes, 4), count=1)
    assert program.steps[0].nodes == ["conv", "sum", "relu"]


def test_a_sum_goes_to_the_later_of_two_convolutions():
    nodes = {
        "short": Node(conv(4, 4, 1), (INPUT,)),
        "one": Node(conv(4, 6), (INPUT,)),
        "two": Node(conv(6, 4), ("one",)),
        "norm": Node(norm(4), ("two",)),
        "sum": Node(Add(), ("norm", "short")),
    }
    program = check(Graph(nodes, 4), count=3)
    assert program.steps[-1].nodes == ["two", "norm", "sum"]
    # A sum with what comes later waits for it.
    nodes = {
        "conv": Node(conv(4, 4, 1), (INPUT,)),
        "pool": Node(MaxPool(1, 1, "VALID"), (INPUT,)),
        "sum": Node(Add(), ("conv", "pool")),
    }
    program = check(Graph(nodes, 4), count=2)
    assert [step.name for step in program.steps] == ["pool", "sum"]


def test_what_others_read_is_not_taken_in():
    nodes = {
        "conv": Node(conv(4, 4), (INPUT,)),
        "relu": Node(ReLU(), ("conv",)),
        "norm": Node(norm(4), ("conv",)),
        "sum": Node(Add(), ("relu", "norm")),
    }
    program = check(Graph(nodes, 4), count=3)
    assert [step.nodes for step in program.steps] == [["conv"], ["relu"], ["norm", "sum"]]
    check(Graph({"conv": nodes["conv"], "sum": Node(Add(), ("conv", "conv"))}, 4), count=2)
    nodes = {"pad": Node(ZeroPadding(1), (INPUT,)), "conv": Node(conv(4, 4), ("pad",))}
    check(Graph(nodes | {"relu": Node(ReLU(), ("conv",))}, 4), count=1)
    nodes |= {"relu": Node(ReLU(), ("pad",)), "sum": Node(Add(), ("conv", "relu"))}
    check(Graph(nodes, 4), count=3)


def test_sums_of_many():
    nodes = {f"conv{i}": Node(conv(4, 4), (INPUT,)) for i in range(3)}
    check(Graph(nodes | {"sum": Node(Add(), (*nodes, INPUT))}, 4), count=4)
    nodes = {"sum": Node(Add(), (INPUT, INPUT)), "relu": Node(ReLU(), ("sum",))}
    check(Graph(nodes, 4), count=1)


def test_a_crop_is_part_of_the_transposed_convolution():
    for size in ((5, 7), (6, 8), (1, 1), (8, 3)):
        nodes = {
            "down": Node(conv(4, 3, strides=2), (INPUT,)),
            "up": Node(ConvTranspose(normal(4, 4, 4, 3), normal(4), strides=2), ("down",)),
            "crop": Node(Crop(), ("up", INPUT)),
            "norm": Node(norm(4), ("crop",)),
            "sum": Node(Add(), ("crop", INPUT)),
        }
        del nodes["norm"]
        check(Graph(nodes, 4), size, count=2)
        nodes["norm"] = Node(norm(4), ("sum",))
        check(Graph(nodes, 4), size, count=3)
    # Here it crops something else, or lends its size.
    nodes = {
        "up": Node(ConvTranspose(normal(2, 2, 4, 4), strides=2), (INPUT,)),
        "small": Node(conv(4, 4, strides=2), (INPUT,)),
        "crop": Node(Crop(), ("up", "small")),
        "other": Node(Crop(), (INPUT, "small")),
        "sum": Node(Add(), ("crop", "other")),
    }
    check(Graph(nodes, 4), count=3)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (0, 1))])
@pytest.mark.parametrize("strides", [1, 2, (3, 1)])
def test_zeros_become_padding(padding, strides):
    layer = conv(4, 5, strides=strides, padding=padding)
    check(chain(ZeroPadding(((2, 1), (0, 3))), layer), count=1)
    check(chain(ZeroPadding(((2, 1), (0, 3))), layer), (2, 1), count=1)


@pytest.mark.parametrize("window", [(1, 1), (2, 2), (3, 3), (3, 2), (5, 1)])
@pytest.mark.parametrize("strides", [1, 2, (3, 1)])
def test_poolings(window, strides):
    for padding in ("SAME", "VALID"):
        check(chain(MaxPool(window, strides, padding)), (8, 11), count=1)
        check(chain(MaxPool(window, strides, padding)), (5, 5), count=1)
    # Zeros before it compete with negative numbers, padding of its own does not.
    negative = Conv(-np.eye(4, dtype=np.float32)[None, None], np.full(4, -9, np.float32))
    zeros = ZeroPadding(((1, 2), (2, 1)))
    for size in ((8, 11), (5, 5), (1, 2)):
        check(chain(negative, zeros, MaxPool(window, strides, "VALID")), size, count=2)
        check(chain(negative, zeros, MaxPool(window, strides, "SAME")), size, count=3)
        check(chain(negative, MaxPool(window, strides, "SAME")), size, count=2)


def test_large_poolings_run_on_several_threads():
    x = normal(2, 70, 90, 16)
    layer = MaxPool(3, 2, "SAME")
    expected, _ = layer.forward(x)
    for count in (1, 2, 3):
        set_num_threads(count)
        out = np.full_like(expected, np.nan)
        blocks.max_pool(x, layer.geometry(x.shape), -math.inf, out)
        np.testing.assert_array_equal(out, expected)
    set_num_threads(None)


def test_networks_take_one_step_a_convolution():
    """And one a pre-activation and a pooling; the softmax is the model's."""
    for backbone in ("vgg16", "resnet50v2", "resnet101v2", "mobilenet_v2"):
        for head in ("32s", "8s"):
            graph = graph_of(backbone, 3, head)
            found = steps(graph, graph.nodes["softmax"].inputs[0])
            kinds = [type(step.layer).__name__ for step in found]
            layers = [type(node.layer).__name__ for node in graph.nodes.values()]
            for kind in ("Conv", "ConvTranspose", "MaxPool"):
                assert kinds.count(kind) == layers.count(kind)
            blocks_before = {"resnet50v2": 16, "resnet101v2": 33}.get(backbone, -1)
            assert kinds.count("BatchNorm") == blocks_before + 1
            assert not {"Add", "ReLU", "Crop", "ZeroPadding", "Softmax"} & set(kinds)
            assert sum(len(set(step.nodes)) for step in found) >= len(graph.nodes) - 1


@st.composite
def graphs(draw):
    """Small networks in which anything may follow anything."""
    random = np.random.default_rng(draw(seeds))
    channels = draw(st.sampled_from((1, 3, 8)))
    nodes, shapes = {}, {INPUT: (channels, 0)}  # channels and halvings of each
    for number in range(draw(st.integers(1, 9))):
        source = draw(st.sampled_from(list(shapes)[-3:]))
        c, level = shapes[source]
        alike = [name for name, shape in shapes.items() if shape == (c, level)]
        kind = draw(st.sampled_from(("conv", "conv", "norm", "norm", "relu", "sum", "pool", "up")))
        inputs, shape, extra = (source,), (c, level), None
        if kind == "conv":
            strides = draw(st.sampled_from((1, 1, 2)))
            groups = draw(st.sampled_from((1, c)))
            width = c if groups > 1 else draw(st.sampled_from((1, c)))
            kernel = normal(3, 3, c // groups, width, rng=random) / np.float32(3)
            bias = normal(width, rng=random) if draw(st.booleans()) else None
            layer = Conv(kernel, bias, strides=strides, padding="SAME", groups=groups)
            shape = (width, level + strides - 1)
            if draw(st.booleans()):
                layer.padding, extra = "VALID", ZeroPadding(1)
        elif kind == "norm":
            layer = norm(c, rng=random)
        elif kind == "relu":
            layer = ReLU(draw(st.sampled_from((None, 6))))
        elif kind == "sum":
            layer = Add()
            others = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=2))
            inputs = (source, *others)
        elif kind == "pool":
            layer = MaxPool(draw(st.sampled_from((2, 3))), 2, "SAME")
            shape = (c, level + 1)
        else:
            finer = [name for name, shape in shapes.items() if shape[1] == level - 1]
            if not finer:
                continue
            kernel = normal(4, 4, c, c, rng=random) / np.float32(4)
            nodes[f"up{number}"] = Node(ConvTranspose(kernel, strides=2), (source,))
            layer, inputs = Crop(), (f"up{number}", draw(st.sampled_from(finer)))
            shape = (c, level - 1)
        if extra:
            nodes[f"pad{number}"] = Node(extra, inputs)
            inputs = (f"pad{number}",)
        nodes[f"n{number}"] = Node(layer, inputs)
        shapes[f"n{number}"] = shape
    if not nodes:
        nodes["relu"] = Node(ReLU(), (INPUT,))
    if draw(st.booleans()):
        nodes["softmax"] = Node(Softmax(), (list(nodes)[-1],))
    return Graph(nodes, channels)


@given(graph=graphs(), size=st.tuples(*[st.integers(1, 12)] * 2), batch=st.integers(1, 3))
@settings(max_examples=150)
def test_any_graph(graph, size, batch):
    program = check(graph, size, batch)
    made = [step.name for step in program.steps]
    order = list(graph.nodes)
    assert made == sorted(made, key=order.index) and made[-1] == graph.output
    for step in program.steps:  # what it reads is there
        ready = made[: made.index(step.name)]
        assert all(source == INPUT or source in ready for source in step.inputs)


# Buffers, sizes and threads.


def test_results_are_the_caller_s_own():
    program = Program(chain(conv(4, 5), MaxPool(2, 2, "SAME"), conv(5, 4)))
    x = normal(1, 8, 8, 4)
    one = program(x)
    kept = one.copy()
    two = program(-x)
    assert not np.shares_memory(one, two) and one.flags.owndata
    np.testing.assert_array_equal(one, kept)
    only_softmax = Model(
        chain(Softmax()), classes=list("abcd"), preprocess=Preprocess.tf(), architecture={}
    )
    assert not np.shares_memory(only_softmax.logits(x), x)
    np.testing.assert_allclose(only_softmax(x).sum(axis=-1), 1, rtol=1e-6)


def test_a_result_may_be_written_where_the_caller_says():
    program = Program(chain(conv(4, 5)))
    x = normal(2, 8, 8, 4)
    out = np.empty((2, 8, 8, 5), np.float32)
    assert program(x, out) is out
    np.testing.assert_array_equal(out, program(x))
    for wrong in (np.empty((2, 8, 8, 4), np.float32), np.empty((2, 8, 8, 5))):
        with pytest.raises(ValueError, match="^out: expected float32 of shape"):
            program(x, wrong)


def test_buffers_serve_again():
    layers = [conv(4, 4) for _ in range(10)]
    program = Program(chain(*layers))
    lengths, places = program.buffers((1, 8, 8, 4))
    assert len(lengths) == 2 and set(places.values()) == {0, 1}
    # Two maps of the first stage are the most that VGG16 holds, and what the skips need.
    model = fcn.build("vgg16", 2, "8s")
    lengths, places = model.program.buffers((1, 64, 64, 3))
    assert sum(lengths) < 2.2 * 64 * 64 * 64


@given(graph=graphs())
@settings(max_examples=50)
def test_no_buffer_is_written_to_while_it_is_needed(graph):
    program = Program(graph)
    shape = (1, 12, 12, graph.channels)
    lengths, places = program.buffers(shape)
    shapes = program.shapes(shape)
    holds = {}
    for step in program.steps:
        for source in step.inputs:
            assert source == INPUT or holds[places[source]] == source
        if step.name in places:
            place = places[step.name]
            later = program.steps[program.steps.index(step) :]
            assert not any(holds.get(place) in reader.inputs for reader in later)
            holds[place] = step.name
            assert lengths[place] >= math.prod(shapes[step.name])


def test_sizes_and_batches_one_after_another():
    graph = chain(conv(4, 5), MaxPool(2, 2, "SAME"), norm(5), ReLU())
    program = Program(graph, sizes=2)
    for batch, size in (
        (1, (8, 8)),
        (3, (8, 8)),
        (2, (5, 9)),
        (1, (4, 4)),
        (1, (8, 8)),
        (0, (4, 4)),
    ):
        x = normal(batch, *size, 4)
        np.testing.assert_allclose(program(x), graph.forward(x)[0], rtol=1e-4, atol=1e-5)
        assert len(program._plans) <= 2


def test_plans_of_large_networks_are_few():
    """Each has the kernels once more: of most sizes none is kept, but one at least."""
    kept = {name: Program(graph_of(name, 2, "32s"))._sizes for name in ("vgg16", "resnet101v2")}
    assert kept == {"vgg16": 3, "resnet101v2": 1}
    assert Program(graph_of("mobilenet_v2", 2, "32s"))._sizes == 16
    assert Program(graph_of("vgg16", 2, "32s"), algorithm="direct")._sizes == 9
    assert Program(graph_of("vgg16", 2, "32s", fc=True))._sizes == 1


def test_weights_are_those_of_the_time_of_compiling():
    model = fcn.build("mobilenet_v2", 2, "32s")
    x = normal(1, 32, 32, 3)
    before = model.logits(x)
    for name, array in model.graph.parameters().items():
        if name.split("/")[0] in ("features.0.0", "features.0.1", "score32"):
            array += 1
    np.testing.assert_array_equal(model.logits(x), before)
    after = model.compiled().logits(x)
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after, model.graph.forward(x, until="crop")[0], rtol=1e-3, atol=1e-3)


def test_frozen_models_share_their_kernels():
    model = fcn.build("mobilenet_v2", 2, "8s")
    x = normal(1, 32, 32, 3)
    expected = model(x)
    layer = model.graph.nodes["features.0.0"].layer
    assert layer.kernel.flags.writeable
    frozen = model.frozen()
    np.testing.assert_array_equal(frozen(x), expected)
    assert not layer.kernel.flags.writeable
    (plan,) = frozen.program._plans.values()
    (operator,) = (
        cell.cell_contents
        for cell in plan.runs[0].__closure__
        if hasattr(cell.cell_contents, "plan")
    )
    assert np.shares_memory(operator.kernel, layer.kernel)
    np.testing.assert_array_equal(frozen.compiled()(normal(1, 64, 32, 3)).shape, (1, 64, 32, 2))
    np.testing.assert_array_equal(frozen.compiled()(x), expected)


def operators(program):
    """The operators of each plan, by the kernel that the graph has for them."""
    found = []
    for plan in program._plans.values():
        cells = [cell for run in plan.runs for cell in run.__closure__ or ()]
        found += [c.cell_contents for c in cells if hasattr(c.cell_contents, "with_kernel")]
    return [op for op in found if op.geometry.groups == 1]


def test_frozen_models_hold_large_kernels_once():
    """Neither copied for another size, nor transformed by Winograd; and no bit changes."""
    graph = chain(conv(4, 192), conv(192, 224), ReLU(), conv(224, 192, 1), conv(192, 200))
    model = Model(graph, classes=[str(c) for c in range(200)], preprocess=Preprocess.tf())
    xs = [normal(n, *size, 4) for n, size in ((1, (20, 24)), (2, (24, 28)), (1, (20, 24)))]
    expected = [model.logits(x) for x in xs]
    given = {name: array.copy() for name, array in graph.arrays().items()}
    frozen = model.frozen()
    for x, y in zip(xs, expected, strict=True):
        np.testing.assert_array_equal(frozen.logits(x), y)
    kernels = [node.layer.kernel for node in graph.nodes.values() if hasattr(node.layer, "kernel")]
    ours = operators(frozen.program)
    assert len(ours) == 2 * len(kernels)
    for op in ours:
        assert any(op.kernel is kernel for kernel in kernels)
    large = [op for op in ours if str(op.plan).startswith("cpu: winograd")]
    for op in large:
        if op.geometry.in_channels > 4:
            assert op._core.prepared("forward", op.dtype)[1].kernel.base is op.kernel
    for name, array in graph.arrays().items():
        np.testing.assert_array_equal(array, given[name])
    gx, gradients = graph.backward(graph.forward(xs[0], train=True)[1], expected[0])
    assert gx.shape == xs[0].shape and gradients.keys() == graph.parameters().keys()


def test_frozen_models_can_be_saved(tmp_path):
    model = fcn.build("mobilenet_v2", 2, "8s")
    x = normal(1, 32, 32, 3)
    expected = model(x)
    frozen = model.frozen()
    frozen(x)
    frozen.save(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(fcn.load(tmp_path / "model.safetensors")(x), expected)


def test_steps_can_be_timed():
    program = Program(chain(conv(4, 5), ReLU(), norm(5)))
    seen = []
    program(normal(1, 4, 4, 4), each=seen.append)
    assert seen == program.steps


def test_several_threads():
    model = fcn.build("mobilenet_v2", 3, "8s")
    xs = [normal(1, 32, 32 + 32 * (i % 2), 3) for i in range(6)]
    expected = [model.compiled()(x) for x in xs]
    found = [None] * len(xs)

    def work(i):
        for _ in range(3):
            found[i] = model(xs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 4, 4, 4)),
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.float32),
        np.zeros((1, 0, 4, 4), np.float32),
    ],
)
def test_inputs_that_do_not_fit(x):
    with pytest.raises(ValueError, match=r"^x: expected float32 of shape \(n, h, w, 4\)"):
        Program(chain(conv(4, 5)))(x)
    with pytest.raises(TypeError, match="array"):
        Program(chain(conv(4, 5)))([[1.0]])


def test_options_that_do_not_fit():
    graph = chain(conv(4, 4))
    for name, value in (("precision", "tf32"), ("dtype", "bfloat16")):
        with pytest.raises(ValueError, match=f"^{name}: expected 'float32' on the CPU, got"):
            Program(graph, **{name: value})
    with pytest.raises(ValueError, match="^until: expected the name of a node, got 'n7'"):
        Program(graph, "n7")
    for name, value in (("precision", "tf16"), ("dtype", "float64"), ("algorithm", "winograd")):
        with pytest.raises(ValueError, match=f"^{name}: expected one of .*, got '{value}'"):
            Program(graph, **{name: value})


# The algorithm, and tiles.


def test_the_bilinear_upsampling_is_known_as_such():
    """A diagonal kernel that is rows times columns takes neither a dense product."""
    model = fcn.build("mobilenet_v2", 21, "8s")
    model(normal(1, 64, 64, 3))
    (plan,) = model.program._plans.values()
    operators = {
        step.name: run.__closure__
        for step, run in zip(model.program.steps, plan.runs, strict=True)
        if isinstance(step.layer, ConvTranspose)
    }
    assert len(operators) == 3
    for closure in operators.values():
        (operator,) = (c.cell_contents for c in closure if hasattr(c.cell_contents, "plan"))
        assert "separable" in str(operator.plan) or "depthwise" in str(operator.plan)


@pytest.mark.parametrize("backbone", ["vgg16", "mobilenet_v2"])
def test_a_tile_with_its_halo_is_the_whole_to_the_bit(backbone):
    model = fcn.build(backbone, 2, "8s").compiled(algorithm="direct")
    score = model.graph.nodes["score8"].layer
    score.kernel[...] = normal(*score.kernel.shape)
    x = normal(1, 32, 640, 3)
    whole = model.logits(x)
    before, after = halo(model.graph)
    assert 0 < before < 320 and 0 < after < 320
    start, stop = 320, 352
    low, high = (start - before) // 32 * 32, -(-(stop + after) // 32) * 32
    tile = model.logits(x[:, :, low:high])
    inside = tile[:, :, start - low : stop - low]
    np.testing.assert_array_equal(inside, whole[:, :, start:stop])
    # The halo is not much more than what is seen.
    changed = x.copy()
    changed[:, :, : start - before + 32] += 100
    assert (model.logits(changed)[:, :, start:stop] != whole[:, :, start:stop]).any()


# Blocks.


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 30)),
    scale=st.sampled_from((1e-3, 1.0, 30.0, 1e4, 1e30)),
    seed=seeds,
)
def test_softmax(shape, scale, seed):
    x = normal(*shape, rng=np.random.default_rng(seed)) * np.float32(scale)
    with np.errstate(over="ignore"):
        expected, _ = Softmax().forward(x)
    given, out = x.copy(), np.empty_like(x)
    assert blocks.softmax(given, out=out) is out
    np.testing.assert_array_equal(given, x)
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=1e-30)
    np.testing.assert_array_equal(blocks.softmax(given, out=given), out)


def test_softmax_in_any_memory_layout():
    program, x = Program(chain(Softmax())), normal(1, 6, 5, 4)
    expected, _ = Softmax().forward(x)
    for source in (x, np.asfortranarray(x)):
        for out in (np.zeros_like(x), np.zeros_like(x, order="F"), np.zeros((1, 6, 10, 4), "f4")):
            found = program(source, out[:, :, :5])
            np.testing.assert_allclose(found, expected, rtol=2e-5)
        np.testing.assert_array_equal(source, x)


def test_softmax_of_many_pixels_and_extremes():
    x = normal(2, 100, 130, 7)
    x[0, 3, 4] = -85
    x[1, 50, 50, 2] = 1e38
    x[1, 60, 50] = [-1e38, 0, 0, 0, 0, 0, 3e38]
    x[1, 70, 70, 0] = -np.inf
    with np.errstate(over="ignore"):
        expected, _ = Softmax().forward(x)
    for count in (1, 2):
        set_num_threads(count)
        found = blocks.softmax(x, out=np.empty_like(x))
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-30)
    set_num_threads(None)
    x[0, 0, 0, 0] = np.nan
    found = blocks.softmax(x, out=np.empty_like(x))
    assert np.isnan(found[0, 0, 0]).all() and np.isnan(found).sum() == 7


def test_pools_whose_windows_lie_outside():
    x = -np.abs(normal(1, 2, 2, 3)) - 1
    geometry = ConvGeometry(
        (2, 2), 2, strides=2, padding=((3, 3), (3, 3)), groups=3, in_channels=3, out_channels=3
    )
    for outside in (0.0, -math.inf):
        padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), constant_values=outside)
        expected = padded.reshape(1, 4, 2, 4, 2, 3).max(axis=(2, 4))
        out = np.empty_like(expected)
        blocks.max_pool(x, geometry, outside, out)
        np.testing.assert_array_equal(out, expected)


def test_half_types():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.concatenate([normal(10_000), [0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-42]])
    x = x.astype(np.float32)
    for name in ("bfloat16", "float16"):
        with np.errstate(over="ignore"):
            narrow, theirs = half.narrowed(x, name), x.astype(half.dtype_of(name))
        assert narrow.dtype.name == name
        np.testing.assert_array_equal(narrow.astype(np.float32), theirs.astype(np.float32))
        np.testing.assert_array_equal(half.widened(narrow), theirs.astype(np.float32))
    assert half.narrowed(x, "float32") is x and half.widened(x) is x
    assert half.dtype_of("bfloat16") == ml_dtypes.bfloat16


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
@given(graph=graphs())
@settings(max_examples=30)
def test_half_programs(name, graph):
    """As on a GPU, where alone they are allowed: the library computes so on the CPU as well."""
    program = Program(graph)
    program._settings = program._settings._replace(dtype=name)
    x = normal(1, 7, 9, graph.channels)
    expected, _ = graph.forward(x)
    found = program(x)
    assert found.dtype == np.float32
    most = max(np.abs(graph.forward(x, until=node)[0]).max(initial=1) for node in graph.nodes)
    np.testing.assert_allclose(found, expected, atol=0.1 * most)
    (plan,) = program._plans.values()
    assert all(buffer.dtype.name == name for buffer in plan._bound.buffers)
