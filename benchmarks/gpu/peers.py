"""Who is beside us on a GPU, and the quickest way of each to say a problem."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from peers import Cannot, Peer, Spelling
from problem import Problem

from gpu import first_line
from gpu.clocks import Candidate, quickest

_TORCH = (("torch",), ("torch",))
_JAX = (("jax",), ("jax",))

PEERS = {
    peer.name: peer
    for peer in (
        Peer("torch channels-last", "peers.torch_cuda", "channels_last", *_TORCH),
        Peer("torch NCHW", "peers.torch_cuda", "channels_first", *_TORCH),
        Peer("JAX", "peers.jax_cuda", "spellings", *_JAX),
        Peer(
            "F.interpolate channels-last", "peers.torch_cuda", "resize_channels_last", *_TORCH, True
        ),
        Peer("F.interpolate NCHW", "peers.torch_cuda", "resize_channels_first", *_TORCH, True),
    )
}
#: Those of single groups, which `--peers` takes too.
OTHERS = ("CuPy", "torch")


def check(wanted: list[str] | None) -> None:
    """Raise a `ValueError` for a peer that there is not on a GPU."""
    known = (*PEERS, *OTHERS)
    for name in wanted or ():
        if name not in known:
            raise ValueError(f"--peers: no peer {name!r}; peers: {', '.join(map(repr, known))}")


@functools.cache
def loaded_torch() -> Any:
    """Return our module of torch on the GPU, None where torch is missing or of no use there."""
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        if importlib.import_module("torch").cuda.is_available():
            return importlib.import_module("peers.torch_cuda")
    except Exception as error:  # a library of its own is missing: its cells will say so
        print(f"benchmarks/run.py: torch: {first_line(error)}", file=sys.stderr)
    return None  # it may also be a build without CUDA


class Prepared(NamedTuple):
    """A peer's quickest spelling.

    Attributes
    ----------
    spelling : str
    candidate : Candidate
        Runs the problem and its copies in turn.
    array : callable
        A result as a CuPy array in our layout.
    first : object
        The framework's own result of the problem itself.
    interior : int
        How far from the border it is the same map's.
    """

    spelling: str
    candidate: Candidate
    array: Callable[[Any], Any]
    first: Any
    interior: int


def prepare(peer: Peer, precision: str, problem: Problem, copies: list[Problem]) -> Prepared:
    """Return the peer's quickest way, on the problem itself and on each of its copies.

    Raises
    ------
    Cannot
        With the reason, whatever it is: a peer's failure is a cell of the table and not the end
        of the run.
    """
    if peer.interpolates and not problem.bilinear:
        raise Cannot("bilinear only")
    if peer.missing:
        raise Cannot(peer.missing)
    try:
        module = importlib.import_module(peer.module)
        module.use(precision)
        clock = module.clock()
        ways, failure = spellings(peer, problem)
        if not ways:
            raise failure
        name = next(iter(ways))
        if len(ways) > 1:
            name = quickest({each: Candidate(way.run, clock) for each, way in ways.items()})
        way = ways[name]
        runs = [way.run, *(spellings(peer, copy)[0][name].run for copy in copies)]
        first = way.run()
    except Cannot:
        raise
    except Exception as error:
        raise Cannot(f"{type(error).__name__}: {first_line(error)}") from error
    interior = problem.geometry.strides[0] // 2 if peer.interpolates else 0
    return Prepared(name, Candidate(in_turn(runs), clock), way.array, first, interior)


def spellings(peer: Peer, problem: Problem) -> tuple[dict[str, Spelling], Exception]:
    """Return all ways that work, those with a group a channel too where no channels mix.

    And the last failure, for where none does.
    """
    offer = getattr(importlib.import_module(peer.module), peer.function)
    found = dict(offer(problem))
    if problem.bilinear and not peer.interpolates:
        found |= {f"{name}, grouped": way for name, way in offer(problem.grouped()).items()}
    working: dict[str, Spelling] = {}
    failure: Exception = Cannot("no way to say it")
    for name, way in found.items():
        try:
            way.run()
        except Exception as error:
            failure = error
        else:
            working[name] = way
    return working, failure


def in_turn(runs: list[Callable[[], Any]]) -> Callable[[], Any]:
    """Return what calls them one after the other, one a call.

    The last result of each is kept: an allocator that gives out what was freed last would write
    every result to the same place, which is in the cache.
    """
    if len(runs) == 1:
        return runs[0]
    kept: list[Any] = [None] * len(runs)
    last = -1

    def run() -> Any:
        nonlocal last
        last = (last + 1) % len(runs)
        kept[last] = runs[last]()
        return kept[last]

    return run
