"""The table of backends, the hypothesis profiles, and the frameworks that tests ask for."""

import collections
import importlib.util
import os
import re

import hypothesis
import numpy as np
import pytest

from convarith import backends, upsampling
from convarith.testing import device

# TensorFlow takes these kernels by itself on newer processors only, and without them refuses
# dilated transposes and gradients in groups. It reads this when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Beside others of its kind, a process's threads are not to keep a core while they wait.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def installed(*modules):
    return all(importlib.util.find_spec(module) for module in modules)


if installed("numba"):
    from convarith.backends.cpu import vector
else:
    vector = None

#: The vector paths of the CPU's backend that this machine can run, the widest first.
CPU = [f"cpu {path}" for path in vector.available()] if vector else []
#: Every backend that the laws are checked on; tests take the fixture `backend`.
BACKENDS = ["reference", *CPU, pytest.param("cuda", marks=pytest.mark.cuda)]

#: The modules of laws of ours, which hold on every backend and path. The others compare with a
#: framework, and once is enough.
LAWS = {
    f"test_{name}"
    for name in (
        *("products", "epilogue", "operator", "bilinear", "tile_edges"),
        *("depthwise_windows", "non_finite"),
    )
}

#: What test modules import besides NumPy, SciPy, pytest and hypothesis. Where a GPU is, it may be
#: missing, and `pytest -m cuda` needs none of it.
NEEDS = {
    "test_conventions_onnx.py": ("ml_dtypes",),
    "test_compiled.py": ("numba",),
    "test_cpu_plan.py": ("numba",),
    "test_experiments.py": ("PIL", "matplotlib", "tqdm"),
    "test_fcn.py": ("PIL", "skimage"),
    "test_fcn_batches.py": ("PIL", "skimage"),
    "test_fcn_convert.py": ("h5py",),
    "test_fcn_evaluate.py": ("PIL", "skimage", "tqdm", "matplotlib"),
    "test_fcn_keras.py": ("h5py", "keras"),
    "test_fcn_layers.py": ("keras", "tensorflow"),
    "test_fcn_pictures.py": ("PIL", "skimage", "matplotlib"),
    "test_fcn_predict.py": ("PIL", "skimage", "tqdm", "matplotlib"),
    "test_fcn_saved.py": ("safetensors",),
    "test_fcn_tiling.py": ("PIL",),
    "test_fcn_recipe.py": ("PIL", "skimage"),
    "test_fcn_record.py": ("PIL", "matplotlib"),
    "test_fcn_resume.py": ("PIL", "skimage", "tqdm", "matplotlib", "safetensors"),
    "test_fcn_train.py": ("PIL", "skimage", "tqdm", "matplotlib", "safetensors"),
    "test_fcn_train_torch.py": ("PIL", "tqdm"),
    "test_fcn_voc.py": ("PIL",),
    "test_fetch.py": ("pooch", "requests"),
    "test_pretrained.py": ("safetensors", "pooch"),
    "test_readme.py": ("PIL",),
    "test_rowwise.py": ("numba",),
    "test_structure.py": ("numba",),
    "test_winograd.py": ("numba",),
    "test_winograd_gradient.py": ("numba",),
}
#: In CI nothing may be missing: there the imports fail.
collect_ignore = [
    name for name, needs in NEEDS.items() if not os.environ.get("CI") and not installed(*needs)
]

#: Laws with a peer in them, which where a GPU is may be missing too.
PEERS = {
    "test_against_tensorflow": "tensorflow",
    "test_lsqr_deblurs_a_photograph": "skimage",
}

hypothesis.settings.register_profile("default", deadline=None, max_examples=150)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=15)
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


@pytest.fixture(autouse=True)
def on_the_device(request):
    """Give a test of NumPy's arrays that runs on "cuda" products that move them there and back."""
    if parameters(request.node).get("backend") != "cuda":
        yield
        return
    functions = ("conv", "conv_transpose", "conv_kernel_gradient", "upsample_bilinear")
    with pytest.MonkeyPatch.context() as patch:
        for name in functions:
            function = getattr(request.module, name, None)
            if function is not None:
                patch.setattr(request.module, name, device.moved(function))
        patch.setattr(request.module, "ConvOperator", device.moved_operator, raising=False)
        yield


def parameters(item):
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else callspec.params


def pytest_collection_modifyitems(config, items):
    """Leave out what is not for a backend."""
    kept = [item for item in items if belongs(item)]
    config.hook.pytest_deselected(items=list(set(items) - set(kept)))
    items[:] = kept


def belongs(item):
    """Whether a test's backend is to run it."""
    backend, law = parameters(item).get("backend"), item.path.stem in LAWS
    if backend in CPU[1:]:  # the narrower vector paths
        return law
    if backend != "cuda":
        return True
    if str(parameters(item).get("dtype")).startswith("complex"):
        return False  # which it refuses
    # A fence is a page of the host's memory.
    fenced = item.originalname == "test_nothing_beside_an_array_is_touched"
    return not fenced and (law or item.path.stem == "test_fuzz")


def pytest_runtest_setup(item):
    if item.get_closest_marker("cuda") is None:
        return
    reason = device.missing()
    if reason:
        pytest.skip(reason)
    peer = PEERS.get(getattr(item, "originalname", None))
    if peer and not installed(peer):
        pytest.skip(f"needs {peer}, which is not installed")


def forget_plans():
    """Drop what was planned on another vector path."""
    if vector:
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


@pytest.fixture
def labelled_pictures(tmp_path):
    """A data set in Pascal VOC's layout: crops of a photograph, labelled by their brightness."""
    import PIL.Image
    import skimage.data

    root, photograph = tmp_path / "data", skimage.data.astronaut()
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    (root / "classes.txt").write_text("dark\nbright\n")
    for number, (height, width) in enumerate([(40, 48), (48, 40), (44, 44), (40, 40), (64, 40)]):
        top = 40 * number
        image = np.ascontiguousarray(photograph[top : top + height, 100 : 100 + width])
        labels = (image.mean(axis=-1) > 100).astype(np.uint8)
        labels[:2] = 255
        PIL.Image.fromarray(image).save(root / "JPEGImages" / f"p{number}.png")
        PIL.Image.fromarray(labels).save(root / "SegmentationClass" / f"p{number}.png")
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("p0\np1\np2\n")
    (lists / "val.txt").write_text("p3\np4\n")
    return root


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


def pytest_sessionfinish(session):
    """Hand what was counted to the process that the workers run for, where this is one."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["counted"] = examples, [(*key, count) for key, count in agreements.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take over what a worker has counted; one that crashed has told nothing."""
    global examples
    there, agreed = getattr(node, "workeroutput", {}).get("counted", (0, []))
    examples += there
    for framework, kind, count in agreed:
        agreements[framework, kind] += count


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"hypothesis: {examples} examples passed")
    for framework in dict.fromkeys(name for name, _ in agreements):
        results, refusals = (agreements[framework, kind] for kind in ("results", "refusals"))
        terminalreporter.write_line(
            f"{framework}: agreed on {results} results, {refusals} refusals"
        )
