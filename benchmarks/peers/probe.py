"""Whether a peer that may end the process does: it is asked in a process of its own.

``python -m peers.probe PEER THREADS`` reads a case's path a line, and answers each by ``ok``.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
from pathlib import Path

#: How often a spelling runs there: what goes wrong does so now and then.
TIMES = 20

_processes: dict[str, subprocess.Popen[str]] = {}


def survives(peer: str, path: str, threads: int) -> bool:
    """Return whether the peer still lives when it has run the case several times."""
    process = _processes.get(peer)
    if process is None:
        process = subprocess.Popen(
            [sys.executable, "-m", "peers.probe", peer, str(threads)],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        _processes[peer] = process
        atexit.register(_close, process)
    assert process.stdin and process.stdout
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    alive = process.stdout.readline() == "ok\n"
    if not alive:
        _close(_processes.pop(peer))  # the next question goes to a new one
    return alive


def _close(process: subprocess.Popen[str]) -> None:
    """End a process that has nothing to do any more, or has ended itself."""
    assert process.stdin and process.stdout
    try:
        process.stdin.close()
    except BrokenPipeError:
        pass
    process.wait()
    process.stdout.close()


def main(peer: str, threads: str) -> None:
    """Answer the cases on stdin until it ends."""
    import cases
    from problem import Problem

    from peers import PEERS, spell

    for line in sys.stdin:
        (case,) = cases.select([line.strip()])
        try:
            for way in spell(PEERS[peer], Problem.of(case), int(threads)).values():
                for _ in range(TIMES):
                    way.run()
        except Exception:  # a refusal: whoever asked will meet it, too
            pass
        print("ok", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
