"""Fuzz a backend against the oracles for as long as one likes."""

from __future__ import annotations

import argparse
import math
import random
import time

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, reject, seed, settings
from hypothesis.strategies import SearchStrategy

from .. import backends
from ..backends.protocol import ALGORITHMS, Options
from ..geometry import ConvGeometry
from .device import missing
from .trial import PRODUCTS, Trial, trials

#: Trials a round; a round starts from a seed of its own.
ROUND = 200


class Fuzz:
    """Rounds of trials until the time is over or one fails.

    Parameters
    ----------
    strategy : strategy of Trial
    seed : int
        The first round's; the next ones count up from it.
    verbose : bool
        Print each trial before it runs: the last one is what crashed the interpreter.

    Attributes
    ----------
    count : int
        The trials that agreed.
    failed : tuple of (Trial, Exception), optional
        The smallest that did not.
    flaky : bool
        Whether it agreed when it was run again.

    Examples
    --------
    >>> fuzz = Fuzz(trials(backend="reference", max_batch=1), seed=1)
    >>> fuzz.run(seconds=0.1)
    >>> fuzz.count > 0, fuzz.failed
    (True, None)
    """

    def __init__(self, strategy: SearchStrategy[Trial], seed: int, *, verbose: bool = False):
        self.strategy, self.seed, self.verbose = strategy, seed, verbose
        self.count = 0
        self.failed: tuple[Trial, Exception] | None = None
        self.flaky = False

    def run(self, seconds: float) -> None:
        """Run rounds; hypothesis shrinks what fails, however long that takes."""
        end = time.monotonic() + seconds
        number = self.seed
        while self.failed is None and (number == self.seed or time.monotonic() < end):
            self._round(number, end)
            number += 1

    def _round(self, number: int, end: float) -> None:
        @seed(number)
        @settings(
            max_examples=ROUND,
            deadline=None,
            database=None,
            derandomize=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
            verbosity=Verbosity.quiet,
        )
        @given(self.strategy)
        def each(trial: Trial) -> None:
            if self.failed is None and self.count and time.monotonic() >= end:
                return
            self._one(trial)

        try:
            each()
        except Exception:
            if self.failed is None:
                raise  # the strategy's own
            self.flaky = self._agrees_now()

    def _one(self, trial: Trial) -> None:
        if self.verbose:
            print(trial, flush=True)
        try:
            trial.check()
        except Exception as error:
            if _refused(error):
                reject()
            self.failed = trial, error  # while hypothesis shrinks, and at last the smallest
            raise
        self.count += self.failed is None

    def _agrees_now(self) -> bool:
        assert self.failed is not None
        try:
            self.failed[0].check()
        except Exception:
            return False
        return True


def _refused(error: Exception) -> bool:
    """Whether a backend says that it has no such algorithm or kernel for that geometry or dtype."""
    return isinstance(error, ValueError) and str(error).startswith(("algorithm: ", "backend: "))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    parser.add_argument("--minutes", type=_minutes, default=1.0, metavar="M", help="default: 1")
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help=f"{', '.join(backends.BACKENDS)} (on a GPU, with CuPy); default: the one that NumPy "
        "arrays go to",
    )
    parser.add_argument("--seed", type=_seed, metavar="N", help="default: a random one")
    parser.add_argument("--product", choices=PRODUCTS, help="default: all three")
    parser.add_argument("--algorithm", choices=ALGORITHMS[1:], help="default: as by itself")
    parser.add_argument("--verbose", action="store_true", help="print every case before it runs")


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**64:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to 2**64 - 1, got {text!r}")
    return value


def fuzz(options: argparse.Namespace) -> int:
    """Run the command; return its exit code: 1 where a case failed.

    Raises
    ------
    ValueError
        Where the backend is not there, or does not know the algorithm.
    """
    backend = backends.choose(options.backend)
    if backend == "cuda" and missing():
        raise ValueError(f"backend: 'cuda' {missing()}")
    products = PRODUCTS if options.product is None else (options.product,)
    products = tuple(each for each in products if _knows(backend, each, options.algorithm))
    if not products:
        raise ValueError(f"algorithm: {backend!r} has no {options.algorithm!r}")
    number = random.getrandbits(32) if options.seed is None else options.seed
    print(f"seed {number}, backend {backend}", flush=True)
    strategy = trials(products=products, algorithm=options.algorithm, backend=backend)
    fuzzing = Fuzz(strategy, number, verbose=options.verbose)
    try:
        fuzzing.run(60 * options.minutes)
    except KeyboardInterrupt:
        print(f"\ninterrupted: {_summary(fuzzing, number, backend)}: all agreed so far")
        return 130
    if fuzzing.failed is None:
        print(f"{_summary(fuzzing, number, backend)}: all agreed")
        return 0
    trial, error = fuzzing.failed
    print(f"{_summary(fuzzing, number, backend)}, then one failed; the smallest that does:\n")
    print(trial.snippet())
    print(f"\n{type(error).__name__}: {error}")
    if fuzzing.flaky:
        print("flaky: it agreed when it was run again")
    return 1


def _summary(fuzzing: Fuzz, number: int, backend: str) -> str:
    return f"{fuzzing.count} cases, seed {number}, backend {backend}"


def _knows(backend: str, product: str, algorithm: str | None) -> bool:
    """Whether the backend has the algorithm where it is at home: 3x3, stride 1, float32."""
    geometry = ConvGeometry((8, 8), 3, padding="SAME", in_channels=16, out_channels=16)
    try:
        backends.plan(backend, product, geometry, np.dtype("float32"), Options(algorithm))  # type: ignore[arg-type]
    except ValueError:
        return False
    return True
