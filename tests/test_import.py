"""What an import costs, and what it does not load."""

import subprocess
import sys

import pytest

HEAVY = ("numba", "cupy", "scipy", "tensorflow", "torch", "jax", "hypothesis", "PIL", "matplotlib")


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_import_loads_no_heavy_module():
    loaded = run("import sys, convarith; print(*{m.partition('.')[0] for m in sys.modules})")
    assert "convarith" in loaded.split() and "numpy" in loaded.split()
    assert not set(HEAVY) & set(loaded.split())


def test_the_reference_loads_no_heavy_module():
    code = (
        "import sys, numpy as np, convarith as c\n"
        "op = c.ConvOperator(np.ones((3, 3)), (5, 5), backend='reference')\n"
        "op.T(op(np.ones((5, 5)))); c.upsample_bilinear(np.ones((3, 3)), 2, backend='reference')\n"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    assert not set(HEAVY) & set(run(code).split())


def test_the_conventions_need_no_framework():
    code = (
        "import sys, numpy as np\n"
        "from convarith import conventions as c\n"
        "c.torch.conv1d(np.ones((1, 1, 4)), np.ones((1, 1, 3)))\n"
        "c.translate('keras', 'jax', kernel_size=3); c.translate('torch', 'onnx', kernel_size=3)\n"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    numbas = {"numba", "scipy"}  # Numba loads SciPy where it finds it
    heavy = {*HEAVY, "keras", "onnx", "onnxruntime", "ml_dtypes"} - numbas
    assert not heavy & set(run(code).split())


def test_it_works_where_numba_is_missing():
    """NumPy arrays go to the reference then."""
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy as np, convarith as c\n"
        "print(c.conv(np.ones(3), np.ones(3)), c.ConvOperator(np.ones(3), 3).plan)"
    )
    assert run(code).startswith("[3.] reference")


@pytest.mark.parametrize("name", ["conv", "conv_transpose", "ConvOperator", "conv_as_matmul"])
def test_public_names(name):
    import convarith

    assert name in convarith.__all__ and getattr(convarith, name).__doc__
