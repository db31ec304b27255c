"""Winograd's algorithms in exact fractions: matrices, and the fewer steps that apply them.

F(m, r) computes m results ``y[i] = sum over t of g[t] * d[i + t]`` of r taps g and the n = m +
r - 1 sources d by n products instead of ``m*r``:

    y = A ((G g) * (B d))

for matrices that come from evaluating polynomials at n - 1 points and at infinity (Cook-Toom;
transposed, as Winograd has it). On two axes it is nested, ``y = A ((G g G^T) * (B d B^T)) A^T``.

The gradient with respect to g, for gradients ``u`` of the results, is its adjoint

    dg = G^T ((A^T u) * (B d))

and on two axes ``G^T ((A^T u A) * (B d B^T)) G``: as many products, and what they are summed over,
all squares and images, is summed before G^T.

Nothing here rounds. The points decide how much the rest does: each pair +-p shares its work, and
points around one keep the entries small (Barabasz, Anderson, Soodhalter and Gregg, "Error
analysis and improving the accuracy of Winograd convolution for deep neural networks",
arXiv:1803.10986).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

Matrix: TypeAlias = tuple[tuple[Fraction, ...], ...]
Terms: TypeAlias = list[tuple[Fraction, Any]]

_ONE, _HALF = Fraction(1), Fraction(1, 2)
#: The finite points of F(m, r): binary fractions, since few of their products are rounded. For
#: (4, 2), +-1/2 and +-5/4 lost least of what was tried; for (4, 3), pairs close to the root of 1/2
#: and twice as far, whose growth is the smallest of such.
POINTS: dict[tuple[int, int], tuple[Fraction, ...]] = {
    (2, 2): (_ONE, -_ONE),
    (3, 2): (Fraction(0), _ONE, -_ONE),
    (4, 2): (_HALF, -_HALF, Fraction(5, 4), -Fraction(5, 4)),
    (2, 3): (Fraction(0), _ONE, -_ONE),
    (4, 3): (Fraction(0), *(s * Fraction(45, p) for p in (64, 32) for s in (1, -1))),
}


class Program(NamedTuple):
    """A matrix times a vector in steps, each a sum of ``coefficient * value`` over its terms.

    Values are numbered: first the entries of the vector, then the steps in order.
    """

    steps: tuple[tuple[tuple[Fraction, int], ...], ...]
    results: tuple[int, ...]

    def run(self, values: Sequence[Any], add_up: Callable[[Terms], Any]) -> list[Any]:
        """Return the matrix times `values`, where ``add_up(terms)`` sums (coefficient, value)."""
        known = list(values)
        for step in self.steps:
            known.append(add_up([(coefficient, known[at]) for coefficient, at in step]))
        return [known[at] for at in self.results]


class Algorithm(NamedTuple):
    """F(m, r).

    Attributes
    ----------
    output, kernel, source : Matrix
        A (m x n), G (n x r) and B (n x n).
    """

    m: int
    r: int
    output: Matrix
    kernel: Matrix
    source: Matrix

    @property
    def n(self) -> int:
        """The sources that m results read, and the products that they take."""
        return self.m + self.r - 1

    @property
    def growth(self) -> Fraction:
        """How much larger what is summed up on two axes may be than ``|g| |d|``.

        It is what the rounding of every step is multiplied by in the worst case.
        """
        return _growth(self.output, self.kernel, self.source)

    @property
    def gradient_growth(self) -> Fraction:
        """`growth` of the kernel gradient: than ``|u| |d|``."""
        return _growth(transposed(self.kernel), transposed(self.output), self.source)


def transposed(matrix: Matrix) -> Matrix:
    """Return a matrix's transpose."""
    return tuple(zip(*matrix, strict=True))


def _growth(result: Matrix, left: Matrix, right: Matrix) -> Fraction:
    """Return the most that ``|result| ((|left| 1) * (|right| 1))`` has, on two axes."""
    parts = [sum(map(abs, a)) * sum(map(abs, b)) for a, b in zip(left, right, strict=True)]
    sums = [sum(abs(a) * part for a, part in zip(row, parts, strict=True)) for row in result]
    return Fraction(max(sums)) ** 2


@functools.cache
def algorithm(m: int, r: int) -> Algorithm:
    """Return F(m, r) on its points.

    Examples
    --------
    >>> [[str(entry) for entry in row] for row in algorithm(2, 3).output]
    [['1', '1', '1', '0'], ['0', '1', '-1', '1']]
    """
    points = POINTS[m, r]
    others = [[p for p in points if p != point] for point in points]
    zero = Fraction(0)
    scales = [
        math.prod((point - p for p in rest), start=_ONE)
        for point, rest in zip(points, others, strict=True)
    ]
    return Algorithm(
        m,
        r,
        tuple(
            (*(point**power for point in points), Fraction(power == m - 1)) for power in range(m)
        ),
        (
            *(
                tuple(point**power / scale for power in range(r))
                for point, scale in zip(points, scales, strict=True)
            ),
            tuple(Fraction(power == r - 1) for power in range(r)),
        ),
        (*((*_with_roots(rest), zero) for rest in others), _with_roots(points)),
    )


def _with_roots(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """Return the coefficients of the product of ``x - root``, the constant first."""
    result = [_ONE]
    for root in roots:
        shifted, scaled = [Fraction(0), *result], [root * c for c in result] + [Fraction(0)]
        result = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return tuple(result)


@functools.cache
def program(matrix: Matrix) -> Program:
    """Return the steps of a matrix, what its rows share computed once.

    Two rows that belong to points +-p are ``u + v`` and ``u - v`` for shorter sums u and v; of
    two such columns each row needs the sum or the difference alone.

    Examples
    --------
    >>> [[(str(c), at) for c, at in step] for step in program(algorithm(2, 3).output).steps]
    [[('1', 1), ('1', 2)], [('1', 1), ('-1', 2)], [('1', 0), ('1', 4)], [('1', 3), ('1', 5)]]
    """
    width = len(matrix[0])
    steps: list[tuple[tuple[Fraction, int], ...]] = []

    def value(terms: dict[int, Fraction]) -> int:
        """Return the number of a sum, of a new step where none has it."""
        if list(terms.values()) == [1]:
            return next(iter(terms))
        step = tuple((coefficient, at) for at, coefficient in sorted(terms.items()))
        if step not in steps:
            steps.append(step)
        return width + steps.index(step)

    rows = [{at: entry for at, entry in enumerate(row) if entry} for row in matrix]
    for a, b in _mirrored(matrix):
        parts = [
            {at: entry for at, entry in rows[a].items() if rows[b][at] == sign * entry}
            for sign in (1, -1)
        ]
        lasts = [part[max(part)] for part in parts]
        u, v = (
            value({at: entry / last for at, entry in part.items()})
            for part, last in zip(parts, lasts, strict=True)
        )
        rows[a], rows[b] = ({u: lasts[0], v: sign * lasts[1]} for sign in (1, -1))
    for a, b in _mirrored(transposed(matrix)):
        both = [value({a: _ONE, b: sign * _ONE}) for sign in (1, -1)]
        for row in rows:
            if entry := row.pop(a, None):
                row[both[0] if row.pop(b) == entry else both[1]] = entry
    results = tuple(value(row) for row in rows)
    return Program(tuple(steps), results)


def _mirrored(vectors: Matrix) -> list[tuple[int, int]]:
    """Return the pairs of vectors that agree up to the signs of some, not all, entries."""
    pairs = []
    for a, b in itertools.combinations(range(len(vectors)), 2):
        both = [(x, y) for x, y in zip(vectors[a], vectors[b], strict=True) if x or y]
        if all(abs(x) == abs(y) for x, y in both) and len({x == y for x, y in both}) == 2:
            pairs.append((a, b))
    return pairs
