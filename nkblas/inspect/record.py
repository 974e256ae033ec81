"""`nkblas.record`: count the products of a program by their problems."""

import contextlib
import os
from collections.abc import Iterator, Mapping

from nkblas._engine import ffi, lib
from nkblas.base.problem import Problem, parse
from nkblas.runtime.abi import problem_from_c


class Recording(Mapping[Problem, int]):
    """Number of products by problem; `record` returns it.

    A mapping from `Problem` to int, in descending order of arithmetic (product of count and
    flops). Its text, which `save` writes, has a line for each problem: ``128x768x3072:f32 123``.

    Parameters
    ----------
    counts : mapping of Problem to int, optional

    Attributes
    ----------
    seconds : dict of Problem to float
        Wall-clock time of all products of a problem, in seconds. Empty if the recording was read
        from a file.

    See Also
    --------
    nkblas.record
    nkblas.warmup : tune and compile for the problems of a recording.
    """

    def __init__(self, counts: Mapping[Problem, int] | None = None) -> None:
        self._counts: dict[Problem, int] = {}
        self.seconds: dict[Problem, float] = {}
        self._set_counts(counts or {})

    def _set_counts(self, counts: Mapping[Problem, int]) -> None:
        def descending_flops(item: tuple[Problem, int]) -> tuple[object, ...]:
            problem, count = item
            return -count * problem.flops, problem

        self._counts = dict(sorted(counts.items(), key=descending_flops))

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

    def plus(self, counts: Mapping[Problem, int], seconds: Mapping[Problem, float]) -> "Recording":
        """The sum of this recording and other products, whose times are given in seconds."""
        sums = {problem: self.get(problem, 0) + counts.get(problem, 0) for problem in self}
        total = Recording({**counts, **sums})
        for times in (self.seconds, seconds):
            for problem, time in times.items():
                total.seconds[problem] = total.seconds.get(problem, 0.0) + time
        return total

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recording to a text file, for `load`.

        Parameters
        ----------
        path : path_like

        Raises
        ------
        OSError
            The file can't be written.

        See Also
        --------
        load
        """
        with open(path, "w", encoding="ascii") as file:
            file.write(str(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recording":
        """Read a recording from a text file.

        Files can be concatenated and edited: the counts of a problem with several lines are added
        up, and lines that begin with ``#`` are comments.

        Parameters
        ----------
        path : path_like

        Returns
        -------
        Recording

        Raises
        ------
        ValueError
            A line is neither a comment nor a problem with a count; the message names the file and
            the line.
        OSError
            The file can't be read.

        See Also
        --------
        save
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
    """Count the products that this process calls in a block, in all threads, by their problems.

    Each product that nkblas does is counted, each matrix of a stack by itself. Products that NumPy
    does are not counted, even if nkblas calls NumPy. A problem describes a product as the engine
    sees it: a stack of matrices times a single matrix is one product with more rows, and a product
    whose result is column-major is recorded as its transpose, ``C.T = B.T @ A.T``. Recordings may
    be nested, and may run in several threads at a time.

    Returns
    -------
    context manager of Recording
        The recording is filled at the end of the block.

    See Also
    --------
    nkblas.warmup : tune and compile for the problems of a recording.
    nkblas.explain : the plan of one product.

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
    counts: dict[Problem, int] = {}
    lib.nk_start_recording()
    try:
        before = _read_counters()
        try:
            yield recording
        finally:
            for problem, (count, nanoseconds) in _read_counters().items():
                count_before, nanoseconds_before = before.get(problem, (0, 0))
                if count > count_before:
                    counts[problem] = count - count_before
                    recording.seconds[problem] = 1e-9 * (nanoseconds - nanoseconds_before)
            recording._set_counts(counts)
    finally:
        lib.nk_stop_recording()


def _read_counters() -> dict[Problem, tuple[int, int]]:
    """The engine's counters by problem: the number of products, and their nanoseconds."""
    count = capacity = 0
    while count >= capacity:  # other threads may add problems between two calls
        capacity = count + 64
        records = ffi.new("nk_record[]", capacity)
        count = lib.nk_recorded(records, capacity)
    return {problem_from_c(r.problem): (r.products, r.nanoseconds) for r in records[0:count]}
