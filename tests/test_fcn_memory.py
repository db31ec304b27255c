"""What a step of training needs, what there is, and the refusal of what does not fit."""

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fcn
from fcn import memory
from fcn.costs import FLOAT, KEPT, PIXEL, SPARE, training_bytes, training_parts
from fcn.graph import INPUT, Graph, Node
from fcn.layers import Conv, MaxPool, ReLU

GIB = 1 << 30


def small():
    """Return a network whose arrays are easily counted."""

    def conv(c_in, c_out):
        return Conv(np.ones((1, 1, c_in, c_out), np.float32), np.ones(c_out, np.float32))

    return Graph(
        {
            "one": Node(conv(3, 8), (INPUT,)),
            "relu": Node(ReLU(), ("one",)),
            "pool": Node(MaxPool((2, 2), (2, 2), "SAME"), ("relu",)),
            "two": Node(conv(8, 4), ("pool",)),
            "beyond": Node(ReLU(), ("two",)),
        },
        3,
    )


def test_parts_by_hand():
    graph, shape, pixels = small(), (2, 10, 12, 3), 2 * 10 * 12
    parts = training_parts(graph, shape, until="two", frozen={INPUT}, slots=2)
    x, full, half, scores = 3 * pixels, 8 * pixels, 8 * pixels // 4, 4 * pixels // 4
    parameters = 3 * 8 + 8 + 8 * 4 + 4
    # As the gradient comes back through the rectifier: its own result, the gradients before and
    # behind it, and of the second convolution's parameters.
    through_relu = FLOAT * (x + full + 2 * full + 8 * 4 + 4)
    # As the result of the rectifier is made: the convolution's is still there.
    making_relu = FLOAT * (x + 2 * full)
    assert through_relu > making_relu and through_relu > FLOAT * (x + full + 2 * half + scores)
    assert parts == {
        "weights": FLOAT * parameters,
        "optimizer": FLOAT * 2 * parameters,
        "activations": through_relu,
        "work": through_relu + 2 * FLOAT * 8 * 4 + PIXEL * pixels + SPARE,
    }
    assert sum(parts.values()) == training_bytes(graph, shape, until="two", frozen={INPUT}, slots=2)


def test_frozen_parts_by_hand():
    """Nothing is saved before the first node that is trained, and no gradient goes there."""
    graph, shape, pixels = small(), (2, 10, 12, 3), 2 * 10 * 12
    parts = training_parts(graph, shape, until="two", frozen={INPUT, "one"}, slots=1)
    full = 8 * pixels
    assert parts["optimizer"] == FLOAT * (8 * 4 + 4)
    assert parts["activations"] == FLOAT * (3 * pixels + 2 * full)  # as the rectifier runs


SEEN = """
import sys
from pathlib import Path
import numpy as np
import fcn
from fcn import backbones
from fcn.costs import training_parts
from fcn.optimizers import Adam
from fcn.training import Trainer

shape = (2, 160, 192, 3)
model = fcn.build("mobilenet_v2", 21, "8s")
frozen = backbones.names("mobilenet_v2") if sys.argv[1] == "frozen" else ()
trainer = Trainer(model, Adam(), dict.fromkeys(model.graph.parameters(), 1e-4), frozen=frozen)
x = np.random.default_rng(0).standard_normal(shape, np.float32)
labels = np.ones(shape[:3], np.uint8)
parts = training_parts(
    model.graph, shape, until=model.scores, frozen=trainer.frozen, slots=len(Adam.slots)
)

def most():  # of this program alone: getrusage knows of the one that started it
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

before = most()
trainer.step(x, labels)
trainer.step(x, labels)
print(sum(parts.values()) - parts["weights"], most() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory as Linux tells it")
@pytest.mark.parametrize("kind", ["trained", "frozen"])
def test_steps_take_no_more(kind):
    for _ in range(2):  # the first may have kernels to compile, which takes more, once
        done = subprocess.run(
            [sys.executable, "-c", SEEN, kind], capture_output=True, text=True, check=True
        )
    said, seen = map(int, done.stdout.split())
    assert 0.4 * said < seen < said


@given(st.integers(1, 2000), st.integers(0, 500), st.integers(0, 1 << 21))
def test_the_largest_batch(each, fixed, have):
    def need(batch):
        return fixed + each * batch

    largest = memory.largest_batch(need, have)
    assert largest == 0 or need(largest) <= have
    assert largest >= memory.MOST or need(largest + 1) > have


def test_what_does_not_fit(monkeypatch):
    def need(batch):
        return GIB + batch * GIB // 2

    memory.check(need, 4, (320, 480), 3 * GIB)
    for batch, have, expected in [
        (
            5,
            3 * GIB,
            "batch: expected at most 4 of 320 x 480 pixels, which need 3.0 GiB of the 3.0 GiB "
            "available, got 5, which need 3.5 GiB",
        ),
        (
            1,
            GIB,
            "batch: expected smaller pictures for the 1.0 GiB available, got 1 of 320 x 480 "
            "pixels, which needs 1.5 GiB",
        ),
        (
            2,
            GIB,
            "batch: expected smaller pictures for the 1.0 GiB available, got 2 of 320 x 480 "
            "pixels, which need 2.0 GiB, and 1.5 GiB a single one",
        ),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
            memory.check(need, batch, (320, 480), have)


def test_in_words(monkeypatch):
    model = fcn.build("mobilenet_v2", 2, "32s")
    monkeypatch.setattr(memory, "available", lambda device: 2 * GIB)

    def words(batch):
        return memory.checked_step(
            model.graph, (batch, 64, 96, 3), "cpu", until=model.scores, frozen={INPUT}, slots=2
        )

    assert re.fullmatch(
        r"a step of 2 x 64 x 96 pixels needs \d+ MiB \(weights 9 MiB, optimizer 18 MiB, "
        r"activations \d+ MiB, work \d+ MiB\), 2\.0 GiB available",
        words(2),
    )
    with pytest.raises(ValueError) as caught:
        words(1000)
    largest = int(re.match(r"batch: expected at most (\d+) of 64 x 96", str(caught.value))[1])
    assert words(largest)
    with pytest.raises(ValueError):
        words(largest + 1)


LIMITED = """
import resource
from pathlib import Path
from fcn.memory import available

free = available("cpu")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), resource.RLIM_INFINITY))
print(free, available("cpu"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux has them")
def test_a_limit_on_the_address_space():
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True
    )
    free, limited = map(int, done.stdout.split())
    assert 150 << 20 < limited <= 200 << 20 < free


def test_what_is_kept_is_what_the_pool_keeps():
    pool = pytest.importorskip("convarith.backends.cpu.pool")
    assert pool.MOST_BYTES == KEPT
