"""Contenders in processes of their own.

With several threads, idle threads of one library busy-wait on cores that the next one needs, and
two OpenMP runtimes in a process disturb each other. Each contender then has a process of its own;
the processes take turns, and times are measured inside of them.
"""

import multiprocessing
from typing import Any

from .binding import Bound, bind_fastest
from .operands import make_operands
from .peers import NKBLAS, PEERS, AbsentError, Contender
from .reference import Reference
from .suites import Case
from .timing import SampleTimer


class Worker:
    """A process that has one contender.

    Parameters
    ----------
    name : str
        Key of `bench.peers.PEERS`, or "nkblas".
    threads : int
        The largest number of threads.
    tune : bool
        As for `NKBLAS`.

    Attributes
    ----------
    name, version : str
        As of the contender.

    Raises
    ------
    AbsentError
        As the contender's constructor.
    """

    def __init__(self, name: str, threads: int, tune: bool) -> None:
        self.name = name
        # A forked child would share thread pools that are gone in it.
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        arguments = other, name, threads, tune
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        other.close()
        self.version: str = self._receive()

    def set_num_threads(self, threads: int) -> None:
        """Set the number of threads of all further calls."""
        self.request("set_num_threads", threads)

    def bind_fastest(self, case: Case, dtype: str, use_out: bool, pause: float) -> Bound:
        """As `bench.measure.bind_fastest`, with operands of the process."""
        bound: Bound
        call, bound = self.request("bind", case, dtype, use_out, pause)
        return bound._replace(call=RemoteTimer(self, call))

    def request(self, method: str, *arguments: object) -> Any:
        """Call a method of `_Server` in the process."""
        self._connection.send((method, arguments))
        return self._receive()

    def _receive(self) -> Any:
        try:
            result = self._connection.recv()
        except EOFError:
            self._process.join()
            raise AbsentError(f"its process ended with code {self._process.exitcode}") from None
        if isinstance(result, Exception):
            raise result
        return result


class RemoteTimer(SampleTimer):
    """A timer of a call in a worker's process.

    Parameters
    ----------
    worker : Worker
    call : int
        The number of the call.
    """

    def __init__(self, worker: Worker, call: int) -> None:
        super().__init__()
        self._worker, self._call = worker, call

    def timeit(self, number: int = 1) -> float:
        """Seconds that `number` calls take."""
        return self.time_after_pause(number, 0)

    def time_after_pause(self, number: int, pause: float) -> float:
        """As of `SampleTimer`; the process pauses, since its threads have slept."""
        seconds: float = self._worker.request("time", self._call, number, pause)
        return seconds


class _Server:
    """The methods that a worker's parent calls."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.timers: list[SampleTimer] = []
        self.case: tuple[Case, str] | None = None

    def set_num_threads(self, threads: int) -> None:
        self.contender.set_num_threads(threads)

    def bind(self, case: Case, dtype: str, use_out: bool, pause: float) -> tuple[int, Bound]:
        """Bind the contender: the index of its call in `timers`, and a `Bound` without the call."""
        if self.case and self.case != (case.plain_product, dtype):
            self.timers.clear()  # frees the operands of the last case
        operands = make_operands(case, dtype)
        self.case = case.plain_product, dtype
        bound = bind_fastest(self.contender, operands, Reference(operands), use_out, pause)
        self.timers.append(SampleTimer(bound.call))
        return len(self.timers) - 1, bound._replace(call=None)

    def time(self, call: int, number: int, pause: float) -> float:
        return self.timers[call].time_after_pause(number, pause)


def _serve(connection: Any, name: str, threads: int, tune: bool) -> None:
    """Answer requests until the parent ends."""
    try:
        contender = NKBLAS(threads, tune) if name == "nkblas" else PEERS[name](threads)
    except AbsentError as error:
        connection.send(error)
        return
    connection.send(contender.version)
    server = _Server(contender)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(getattr(server, method)(*arguments))
        except (AbsentError, ArithmeticError) as error:
            connection.send(error)
