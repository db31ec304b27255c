"""`fcn.optimizers`: PyTorch's steps, and the formulas written out in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn import optimizers
from fcn.optimizers import BLOCK, OPTIMIZERS, SGD, Adam

#: Of one entry, and below, at and above the length of a block and of two.
SHAPES = {
    "bias": (1,),
    "kernel": (3, 3, 2, 5),
    "below": (BLOCK - 1,),
    "at": (2, BLOCK // 2),
    "above": (BLOCK + 1,),
    "more": (3, BLOCK - 5),
}
RATES = {name: 0.002 * (number + 1) for number, name in enumerate(SHAPES)}
DECAYS = {"kernel": 0.03, "above": 0.01}
STEPS = 12


def drawn(seed=0, shapes=SHAPES, largest=1):
    """Parameters near 1, and the gradients of every step, of sizes from 1e-9 to 10**largest."""
    rng = np.random.default_rng(seed)
    parameters = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    sizes = {name: 10 ** rng.uniform(-9, largest, shape) for name, shape in shapes.items()}
    gradients = [
        {
            name: (size * (rng.normal(size=size.shape) + 0.5)).astype(np.float32)
            for name, size in sizes.items()
        }
        for _ in range(STEPS)
    ]
    return parameters, gradients


def trained(optimizer, parameters, gradients, decays=None, rates=RATES):
    """Return copies of the parameters after the steps, and the state."""
    parameters = {name: array.copy() for name, array in parameters.items()}
    state = optimizer.start(parameters)
    for step, each in enumerate(gradients, 1):
        optimizer.update(parameters, each, state, step, rates, decays)
    return parameters, state


def distance(ours, theirs):
    """The largest difference of any entry; parameters are of the order of one."""
    assert ours.keys() == theirs.keys()
    return max(abs(ours[name] - theirs[name]).max() for name in ours)


#: A rounding of a parameter a step, and some of what is taken off it.
TOLERANCE = 5 * STEPS * 2.0**-24


def in_torch(torch, kind, parameters, gradients, decays=None, **settings):
    """The same steps by `torch.optim`, in float64, with a parameter group each."""
    tensors = {
        name: torch.tensor(array, dtype=torch.float64, requires_grad=True)
        for name, array in parameters.items()
    }
    decays = decays or {}
    groups = [
        {"params": [tensor], "lr": RATES[name], "weight_decay": decays.get(name, 0.0)}
        for name, tensor in tensors.items()
    ]
    optimizer = kind(groups, **settings)
    for each in gradients:
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(each[name], dtype=torch.float64)
        optimizer.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_is_torchs(torch, momentum):
    parameters, gradients = drawn(largest=-1)
    ours, _ = trained(SGD(momentum), parameters, gradients, DECAYS)
    theirs = in_torch(torch, torch.optim.SGD, parameters, gradients, DECAYS, momentum=momentum)
    assert distance(ours, theirs) < TOLERANCE
    other = in_torch(torch, torch.optim.SGD, parameters, gradients, {}, momentum=momentum)
    for name in SHAPES:
        difference = distance({name: ours[name]}, {name: other[name]})
        assert (difference > 100 * TOLERANCE) == (name in DECAYS)


@pytest.mark.parametrize("settings", [(0.9, 0.999, 1e-8), (0.5, 0.9, 1e-4), (0.0, 0.99, 1e-8)])
def test_adam_is_torchs(torch, settings):
    *betas, epsilon = settings
    parameters, gradients = drawn()
    ours, _ = trained(Adam(*settings), parameters, gradients)
    theirs = in_torch(torch, torch.optim.Adam, parameters, gradients, betas=betas, eps=epsilon)
    assert distance(ours, theirs) < TOLERANCE


def adam_in_float64(parameters, gradients, wrong=None, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """Kingma & Ba's algorithm 1, or what it is mistaken for."""
    ended = {}
    for name, start in parameters.items():
        p = start.astype(np.float64)
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t, each in enumerate(gradients, 1):
            g = each[name].astype(np.float64)
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            mean = m if wrong == "biased mean" else m / (1 - beta1**t)
            square = v if wrong == "biased square" else v / (1 - beta2**t)
            if wrong == "step from 0" and t > 1:
                mean, square = m / (1 - beta1 ** (t - 1)), v / (1 - beta2 ** (t - 1))
            if wrong == "epsilon before the correction":  # as TensorFlow has it
                root = (np.sqrt(v) + epsilon) / np.sqrt(1 - beta2**t)
            elif wrong == "epsilon inside the root":
                root = np.sqrt(square + epsilon)
            elif wrong == "no epsilon":
                root = np.sqrt(square)
            else:
                root = np.sqrt(square) + epsilon
            p -= RATES[name] * mean / root
        ended[name] = p
    return ended


def test_adam_is_the_papers():
    parameters, gradients = drawn(1)
    ours, state = trained(Adam(), parameters, gradients)
    assert distance(ours, adam_in_float64(parameters, gradients)) < TOLERANCE
    assert state.keys() == {f"{slot}/{name}" for slot in ("mean", "square") for name in SHAPES}


@pytest.mark.parametrize(
    "wrong",
    [
        "biased mean",
        "biased square",
        "step from 0",
        "epsilon before the correction",
        "epsilon inside the root",
        "no epsilon",
    ],
)
def test_the_tolerance_tells_formulas_apart(wrong):
    parameters, gradients = drawn(1)
    ours, _ = trained(Adam(), parameters, gradients)
    assert distance(ours, adam_in_float64(parameters, gradients, wrong)) > 100 * TOLERANCE


def sgd_in_float64(parameters, gradients, wrong=None, momentum=0.9):
    ended = {}
    for name, start in parameters.items():
        p, v, rate = start.astype(np.float64), 0.0, RATES[name]
        decay = DECAYS.get(name, 0.0)
        for each in gradients:
            g = each[name].astype(np.float64)
            if wrong == "decay after momentum":
                v = momentum * v + g
                p = p - rate * (v + decay * p)
                continue
            if wrong == "damped":
                v = momentum * v + (1 - momentum) * (g + decay * p)
            else:
                v = momentum * v + g + decay * p
            p = p - rate * (g + momentum * v if wrong == "Nesterov" else v)
        ended[name] = p
    return ended


def test_sgd_is_the_formula():
    """And no other of those that go by its name."""
    parameters, gradients = drawn(2, largest=-1)
    ours, state = trained(SGD(), parameters, gradients, DECAYS)
    assert state.keys() == {f"velocity/{name}" for name in SHAPES}
    assert distance(ours, sgd_in_float64(parameters, gradients)) < TOLERANCE
    for wrong in ("decay after momentum", "damped", "Nesterov"):
        others = sgd_in_float64(parameters, gradients, wrong)
        assert distance(ours, others) > 100 * TOLERANCE, wrong


@given(
    st.sampled_from([SGD(), SGD(0.0), Adam(), Adam(0.3, 0.6, 0.5)]),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_bits_do_not_depend_on_the_blocks(optimizer, shape, length, random):
    """Nor on what is updated beside it."""
    rng = np.random.default_rng(random.getrandbits(32))

    def array():
        return rng.normal(size=shape).astype(np.float32)

    parameters = {"a": array(), "b": array()}
    gradients = [{"a": array(), "b": array()} for _ in range(4)]
    rates = {"a": 0.1, "b": 0.2}
    decays = {"a": 0.5} if isinstance(optimizer, SGD) else {}
    whole = trained(optimizer, parameters, gradients, decays, rates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "BLOCK", length)
        cut = trained(optimizer, parameters, gradients, decays, rates)
    only = [{"a": each["a"]} for each in gradients]
    alone = trained(optimizer, {"a": parameters["a"]}, only, decays, rates)
    for ours, theirs, lone in zip(whole, cut, alone, strict=True):
        assert {name: each.tobytes() for name, each in ours.items()} == {
            name: each.tobytes() for name, each in theirs.items()
        }
        for name, each in lone.items():
            assert each.tobytes() == ours[name].tobytes()


EACH = pytest.mark.parametrize("optimizer", [SGD(), Adam()], ids=["sgd", "adam"])


@EACH
def test_what_has_no_gradient_stays(optimizer):
    parameters, gradients = drawn(3)
    state = optimizer.start(parameters)
    optimizer.update(parameters, gradients[0], state, 1, RATES)
    before = {name: array.copy() for name, array in (parameters | state).items()}
    part = {name: gradients[1][name] for name in ("kernel", "at")}
    optimizer.update(parameters, part, state, 2, RATES)
    for name, array in (parameters | state).items():
        assert (array.tobytes() == before[name].tobytes()) == (name.split("/")[-1] not in part)
    optimizer.update(parameters, {}, state, 3, {})


@EACH
def test_arrays_are_changed_in_place(optimizer):
    parameters, gradients = drawn(4)
    state = optimizer.start(parameters)
    assert all(array.dtype == np.float32 and not array.any() for array in state.values())
    kept = dict(parameters), dict(state)
    gradient = {name: array.copy() for name, array in gradients[0].items()}
    optimizer.update(parameters, gradients[0], state, 1, RATES)
    for each, before in zip((parameters, state), kept, strict=True):
        assert each.keys() == before.keys()
        assert all(array is before[name] for name, array in each.items())
    for name, array in gradients[0].items():
        assert array.tobytes() == gradient[name].tobytes()


@EACH
def test_the_state_is_all_there_is(optimizer):
    """Whoever goes on with copies of it comes to the same bits."""
    parameters, gradients = drawn(5, {"a": (50,)})
    rates = {"a": 0.1}
    whole, _ = trained(optimizer, parameters, gradients, rates=rates)
    half, state = trained(optimizer, parameters, gradients[:5], rates=rates)
    half, state = ({name: a.copy() for name, a in each.items()} for each in (half, state))
    other = type(optimizer)()
    for step, each in enumerate(gradients[5:], 6):
        other.update(half, each, state, step, rates)
    assert half["a"].tobytes() == whole["a"].tobytes()


@EACH
def test_gradients_that_are_zero(optimizer):
    """No 0/0, and nothing moves."""
    parameters = {"a": np.array([1, -0.0, 1e-38], np.float32), "none": np.ones((0, 3), np.float32)}
    zeros = {name: np.zeros_like(array) for name, array in parameters.items()}
    ended, _ = trained(optimizer, parameters, [zeros] * 3, rates={"a": 1.0, "none": 1.0})
    np.testing.assert_array_equal(ended["a"], parameters["a"])


@EACH
@pytest.mark.parametrize("argument", ["parameters", "gradients", "state"])
@pytest.mark.parametrize(
    "array, got",
    [
        (np.ones((6, 3), np.float32)[::2], r"float32 of shape \(3, 3\), not C-contiguous"),
        (np.ones((3, 3), np.float32).T.copy().T, r"float32 of shape \(3, 3\), not C-contiguous"),
        (np.ones((3, 3)), r"float64 of shape \(3, 3\)"),
        (np.ones((4, 3), np.float32), r"float32 of shape \(4, 3\)"),
        (np.ones((1, 3), np.float32), r"float32 of shape \(1, 3\)"),
    ],
)
def test_arrays_that_do_not_fit(optimizer, argument, array, got):
    """All are refused, rather than updated as a copy, in part, or over and over."""
    parameters = {"p": np.ones((3, 3), np.float32)}
    gradients, state = {"p": np.ones((3, 3), np.float32)}, optimizer.start(parameters)
    {"parameters": parameters, "gradients": gradients}.get(argument, {})["p"] = array
    if argument == "state":
        state[f"{optimizer.slots[-1]}/p"] = array
    before = {name: each.copy() for name, each in (parameters | state).items()}
    # Where the parameter has another shape, whatever comes first does not fit to it.
    named = "parameters|gradients" if argument == "parameters" else argument
    with pytest.raises(ValueError, match=f"^({named}): p: expected C-contiguous float32 of shape"):
        optimizer.update(parameters, gradients, state, 1, {"p": 0.1})
    if argument != "parameters":
        with pytest.raises(ValueError, match=rf"shape \(3, 3\), got {got}$"):
            optimizer.update(parameters, gradients, state, 1, {"p": 0.1})
    for name, each in (parameters | state).items():
        np.testing.assert_array_equal(each, before[name])


@pytest.mark.parametrize(
    "make, error, said",
    [
        (lambda: SGD(1), ValueError, "momentum: expected less than 1, got 1"),
        (lambda: SGD(-0.1), ValueError, "momentum: expected a number from 0 to 1, got -0.1"),
        (lambda: SGD(float("nan")), ValueError, "momentum: expected a number from 0 to 1, got nan"),
        (lambda: SGD("0.9"), TypeError, "momentum: expected a number from 0 to 1, got '0.9'"),
        (lambda: SGD(True), TypeError, "momentum: expected a number from 0 to 1, got True"),
        (lambda: Adam(beta1=1.0), ValueError, "beta1: expected less than 1, got 1.0"),
        (lambda: Adam(beta1=None), TypeError, "beta1: expected a number"),
        (lambda: Adam(beta2=1), ValueError, "beta2: expected less than 1, got 1"),
        (lambda: Adam(beta2=2), ValueError, "beta2: expected a number from 0 to 1, got 2"),
        (lambda: Adam(epsilon=-1e-8), ValueError, "epsilon: expected a number from 1e-30 to 1"),
        (lambda: Adam(epsilon=0), ValueError, "epsilon: expected a number from 1e-30 to 1, got 0"),
        (lambda: Adam(epsilon=1e-50), ValueError, "epsilon: expected a number from 1e-30 to 1"),
    ],
)
def test_settings_that_are_refused(make, error, said):
    with pytest.raises(error, match=f"^{said}"):
        make()


def test_adam_refuses_decays_and_step_0():
    p = {"p": np.ones(2, np.float32)}
    adam = Adam()
    state = adam.start(p)
    with pytest.raises(ValueError, match="^decays: expected none for Adam, use SGD$"):
        adam.update(p, p, state, 1, {"p": 0.1}, {"p": 0.01})
    with pytest.raises(ValueError, match="^step: expected an integer from 1 to .*, got 0"):
        adam.update(p, p, state, 0, {"p": 0.1})
    assert (p["p"] == 1).all() and not any(array.any() for array in state.values())
    adam.update(p, {"p": np.ones(2, np.float32)}, state, 1, {"p": 0.1}, {"p": 0.0})


def test_the_names():
    assert {name: type(kind()) for name, kind in OPTIMIZERS.items()} == {"adam": Adam, "sgd": SGD}


@pytest.mark.cuda
@EACH
def test_on_a_gpu_as_on_the_cpu(optimizer):
    cupy = pytest.importorskip("cupy")
    parameters, gradients = drawn(6)
    decays = DECAYS if isinstance(optimizer, SGD) else None
    ours, state = trained(optimizer, parameters, gradients, decays)
    theirs, their_state = trained(
        optimizer,
        {name: cupy.asarray(array) for name, array in parameters.items()},
        [{name: cupy.asarray(array) for name, array in each.items()} for each in gradients],
        decays,
    )
    assert their_state.keys() == state.keys()
    for name, array in (theirs | their_state).items():
        assert isinstance(array, cupy.ndarray) and array.dtype == np.float32
        expected = (ours | state)[name]
        scale = max(1, abs(expected).max())
        np.testing.assert_allclose(array.get(), expected, rtol=1e-5, atol=TOLERANCE * scale)
