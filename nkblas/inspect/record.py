"""`record`: which problems a workload calls, and how often."""

import contextlib
import os
from collections.abc import Iterator, Mapping

from nkblas._engine import ffi, lib
from nkblas.base.problem import Problem, parse
from nkblas.runtime.abi import problem_from_c


class Recording(Mapping[Problem, int]):
    """Problems, and how many products of each were done; `record` makes it.

    A mapping from `Problem` to int, those with the most arithmetic first. As text, and in a file,
    it has a line for each: ``128x768x3072:f32 123``.

    Parameters
    ----------
    counts : mapping of Problem to int, optional

    Attributes
    ----------
    seconds : dict of Problem to float
        How long all products of a problem took, on the clock; empty if it was read from a file.
    """

    def __init__(self, counts: Mapping[Problem, int] | None = None) -> None:
        self._counts: dict[Problem, int] = {}
        self.seconds: dict[Problem, float] = {}
        self._set(counts or {})

    def _set(self, counts: Mapping[Problem, int]) -> None:
        def order(item: tuple[Problem, int]) -> tuple[object, ...]:
            problem, count = item
            return -count * problem.flops, problem

        self._counts = dict(sorted(counts.items(), key=order))

    def __getitem__(self, problem: Problem) -> int:
        return self._counts[problem]

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __str__(self) -> str:
        return "".join(f"{problem} {count}\n" for problem, count in self.items())

    def __repr__(self) -> str:
        return f"<Recording: {len(self)} problems, {sum(self.values())} products>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `load` reads.

        Parameters
        ----------
        path : path_like

        Raises
        ------
        OSError
            It can't be written.
        """
        with open(path, "w", encoding="ascii") as file:
            file.write(str(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recording":
        """Read a file that `save` wrote.

        A problem may have several lines, and lines that begin with ``#`` count for nothing: files
        can be put together and edited.

        Parameters
        ----------
        path : path_like

        Returns
        -------
        Recording

        Raises
        ------
        ValueError
            A line is damaged; the message names the file and the line.
        OSError
            The file can't be read.
        """

        counts: dict[Problem, int] = {}
        with open(path, encoding="ascii", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.startswith("#") or not line.strip():
                    continue
                try:
                    text, count = line.split()
                    problem = parse(text)
                    if not count.isdecimal() or int(count) < 1:
                        raise ValueError
                except ValueError:
                    raise ValueError(
                        f"{os.fspath(path)}, line {number}: got {line.strip()!r}, expected a "
                        "problem and a count such as 128x768x3072:f32 123"
                    ) from None
                counts[problem] = counts.get(problem, 0) + int(count)
        return cls(counts)


@contextlib.contextmanager
def record() -> Iterator[Recording]:
    """Collect the problems that this process calls, in all threads, and how often it does.

    Every product that nkblas does meanwhile counts, each matrix of a stack by itself; what NumPy
    does, also on behalf of nkblas, does not. A problem is what the engine makes of a call: a
    stack of matrices times a single one is one product with more rows, and ``C.T = B.T @ A.T``
    stands for a C with columns. Recordings may be nested, and may run in several threads at a
    time.

    Returns
    -------
    context manager of Recording
        It is filled when the block ends.

    Examples
    --------
    >>> import numpy as np, nkblas
    >>> with nkblas.record() as shapes:
    ...     product = nkblas.matmul(np.ones((2, 3)), np.ones((3, 4)))
    >>> print(shapes)
    2x4x3:f64 1
    <BLANKLINE>
    """
    recording = Recording()
    news: dict[Problem, int] = {}
    lib.nk_start_recording()
    try:
        before = _recorded()
        try:
            yield recording
        finally:
            after = _recorded()
            for problem, (count, nanoseconds) in after.items():
                count_before, nanoseconds_before = before.get(problem, (0, 0))
                if count > count_before:
                    news[problem] = count - count_before
                    recording.seconds[problem] = 1e-9 * (nanoseconds - nanoseconds_before)
            recording._set(news)
    finally:
        lib.nk_stop_recording()


def _recorded() -> dict[Problem, tuple[int, int]]:
    """All that the engine has counted: products, and the nanoseconds that they took."""

    there = room = 0
    while there >= room:  # others may be counting
        room = there + 64
        records = ffi.new("nk_record[]", room)
        there = lib.nk_recorded(records, room)
    return {problem_from_c(r.problem): (r.products, r.nanoseconds) for r in records[0:there]}
