"""The table of backends, the hypothesis profiles, and the frameworks that tests ask for."""

import collections
import os
import re

import hypothesis
import numpy as np
import pytest

from convarith import backends, upsampling
from convarith.backends.cpu import vector

# TensorFlow takes these kernels by itself on newer processors only, and without them refuses
# dilated transposes and gradients in groups. It reads this when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

#: Every backend that the laws are checked on, and every vector path of the CPU's that this machine
#: can run, the widest first; tests take the fixture `backend`.
BACKENDS = ["reference", *(f"cpu {path}" for path in vector.available())]

hypothesis.settings.register_profile("default", deadline=None, max_examples=150)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=5000)
hypothesis.settings.load_profile("default")

examples = 0
agreements = collections.Counter()
#: How each of our refusals begins: with the argument, perhaps with an index; or Python's own.
NAMED = re.compile(r"[A-Za-z_]+(\[\d+\])?: |\w+\(\) got an unexpected keyword argument")


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request):
    name, _, path = request.param.partition(" ")
    with pytest.MonkeyPatch.context() as patch:
        if path:
            patch.setenv("CONVARITH_VECTOR", path)
        forget_plans()
        yield name
    forget_plans()


def pytest_collection_modifyitems(config, items):
    """Run on the narrower vector paths the laws alone, not the frameworks once more."""
    laws = {f"test_{name}" for name in ("products", "epilogue", "operator", "bilinear")}
    laws.add("test_tile_edges")
    narrower = tuple(BACKENDS[2:])
    kept = [
        item
        for item in items
        if item.path.stem in laws
        or getattr(item, "callspec", None) is None
        or item.callspec.params.get("backend") not in narrower
    ]
    config.hook.pytest_deselected(items=list(set(items) - set(kept)))
    items[:] = kept


def forget_plans():
    """Drop what was planned on another vector path."""
    vector.path.cache_clear()
    backends.plan.cache_clear()
    upsampling._operator.cache_clear()


@pytest.fixture(scope="session")
def agree():
    """Compare a framework's call with ours: both give the same array, or both refuse."""

    def agree(framework, theirs, ours, refusals):
        """Compare two functions without arguments; `refusals` are what the framework raises."""
        try:
            expected = np.asarray(theirs())
        except refusals as error:
            with pytest.raises((TypeError, ValueError)) as caught:
                pytest.fail(f"{framework} refuses ({error}), we give shape {ours().shape}")
            assert NAMED.match(str(caught.value)), f"names no argument: {caught.value}"
            agreements[framework, "refusals"] += 1
            return
        actual = ours()
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(actual, expected)
        agreements[framework, "results"] += 1

    return agree


@pytest.fixture(scope="session")
def torch():
    """PyTorch, an optional peer."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def mobilenet_weights():
    """torchvision's MobileNetV2, fetched once into the user's cache."""
    from fcn import weights

    try:
        return weights.fetch(weights.MOBILENET_V2)
    except weights.Unavailable as error:
        pytest.skip(str(error))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Count hypothesis's examples; in CI let nothing be skipped but what needs a GPU."""
    global examples
    outcome = yield
    if call.when == "call":
        statistics = getattr(item, "hypothesis_statistics", "")
        examples += sum(map(int, re.findall(r"(\d+) passing", statistics)))
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not item.get_closest_marker("cuda"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"hypothesis: {examples} examples passed")
    for framework in dict.fromkeys(name for name, _ in agreements):
        results, refusals = (agreements[framework, kind] for kind in ("results", "refusals"))
        terminalreporter.write_line(
            f"{framework}: agreed on {results} results, {refusals} refusals"
        )
