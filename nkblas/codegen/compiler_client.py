"""The client of the compile server (`compile_server`), a process that makes shared libraries.

A crash or an abort of the compiler ends the server and not the user's process. The server starts
with the first kernel that is not in the store, runs until it has been idle for a while, and ends
with the process that started it. It is not a child of that process, which may wait for all of its
children.
"""

import contextlib
import json
import os
import select
import sys
import threading
from typing import NamedTuple, TypedDict

from .spec import KernelSpec, to_dict

TIMEOUT_SECONDS = 120.0
"""How long one kernel may take to compile; most take about 0.05 s."""


class CompileError(RuntimeError):
    """A kernel could not be compiled; the message says why."""


class NotLinkedError(CompileError):
    """A kernel was compiled and verified, but no shared library can be made on this machine."""


class Reply(TypedDict, total=False):
    """A reply of the server, as JSON.

    Attributes
    ----------
    size : int
        Bytes of the shared library that follows the reply.
    error : str
        Why the request failed.
    not_linked : bool
        Whether the kernel can be compiled in memory.
    """

    size: int
    error: str
    not_linked: bool


class Descriptor(NamedTuple):
    """A file descriptor of nkblas, with what tells it from a file that the program opened later.

    Programs may close descriptors that they do not know, as ``os.closerange`` does; then the number
    can become that of another file.
    """

    number: int
    device: int
    inode: int

    @classmethod
    def of(cls, number: int) -> "Descriptor":
        """The descriptor of an open file."""
        status = os.fstat(number)
        return cls(number, status.st_dev, status.st_ino)

    def check(self) -> int:
        """The number.

        Raises
        ------
        OSError
            The program has closed it.
        """
        if self.of(self.number) != self:
            raise OSError("a descriptor of the compile server was closed")
        return self.number

    def close(self) -> None:
        """Close it, unless the program has done so."""
        with contextlib.suppress(OSError):
            os.close(self.check())


class Server(NamedTuple):
    """A compile server that was started.

    Attributes
    ----------
    pid : int
    requests, replies : Descriptor
        Pipes to it and from it.
    messages : Descriptor
        What it writes to stderr: an anonymous file, which needs no disk.
    """

    pid: int
    requests: Descriptor
    replies: Descriptor
    messages: Descriptor

    @classmethod
    def start(cls, in_background: bool = False) -> "Server":
        """Start one; it is ready to compile after a moment.

        Parameters
        ----------
        in_background : bool
            Whether it has the lowest priority.

        Raises
        ------
        OSError
            No process can be started.
        """
        # imported only by processes that compile: the import takes time
        import subprocess

        statement = (
            f"from nkblas.codegen import compile_server; compile_server.main({in_background})"
        )
        command, environment = detached_python(statement), python_environment()
        numbers: list[int] = []
        try:
            numbers += os.pipe()
            numbers += os.pipe()
            numbers.append(os.memfd_create("nkblas"))
            server_in, requests, replies, server_out, messages = numbers
            subprocess.run(
                command,
                stdin=server_in,
                stdout=server_out,
                stderr=messages,
                start_new_session=True,  # an interrupt from the keyboard is for the user's process
                env=environment,
                check=False,
            )
        except BaseException:
            for number in numbers:
                os.close(number)
            raise
        os.close(server_in)
        os.close(server_out)
        server = cls(0, *map(Descriptor.of, (requests, replies, messages)))
        try:
            return server._replace(pid=int(server.read_line()))
        except BaseException as error:
            message = server.last_message()
            server.close()
            if isinstance(error, (EOFError, ValueError)):
                raise OSError(f"the compile server does not start: {message or error}") from None
            raise

    def send(self, line: bytes) -> None:
        """Write a request.

        Raises
        ------
        OSError
            The server has ended.
        """
        # only a process that compiles imports it; its start has imported it with `subprocess`
        import signal

        # If it has, the signal would end a program that does not ignore it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
        try:
            while line:
                line = line[os.write(self.requests.check(), line) :]
        except BrokenPipeError:
            signal.sigtimedwait({signal.SIGPIPE}, 0)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def read_line(self) -> bytes:
        """Read a line of a reply."""
        line = b""
        while not line.endswith(b"\n"):
            line += self.read(1)
        return line

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes, waiting up to `TIMEOUT_SECONDS` for each part.

        Raises
        ------
        EOFError
            They did not come.
        """
        poll = select.poll()  # select.select has no descriptors above 1023
        poll.register(self.replies.check(), select.POLLIN)
        parts = []
        while size:
            if not poll.poll(1000 * TIMEOUT_SECONDS):
                raise EOFError(f"no answer for {TIMEOUT_SECONDS:.0f} s")
            part = os.read(self.replies.check(), size)
            if not part:
                raise EOFError("the compile server has ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def last_message(self) -> str:
        """The last line that it has written to stderr; empty if there is none."""
        with contextlib.suppress(OSError):
            size = os.fstat(self.messages.check()).st_size
            text = os.pread(self.messages.number, size, 0).decode(errors="replace")
            return text.strip().rpartition("\n")[2]
        return ""

    def close(self) -> None:
        """End it: it stops when its pipes are closed, after the kernel that it is compiling."""
        for descriptor in (self.requests, self.replies, self.messages):
            descriptor.close()


class Compiler:
    """The compile server, which is started when it is needed. The methods are thread-safe.

    Parameters
    ----------
    in_background : bool
        Whether nothing waits for it: the server has the lowest priority.
    """

    def __init__(self, in_background: bool = False) -> None:
        self.in_background = in_background
        self.server: Server | None = None
        self._failure = ""  # how the last request failed
        self._lock = threading.Lock()

    def compile(self, spec: KernelSpec) -> bytes:
        """Compile one kernel to a shared library, verified against a NumPy reference.

        Raises
        ------
        NotLinkedError
            The machine has no linker, or temporary files can't be written.
        CompileError
            Any other failure, including the end of the server.
        """
        with self._lock:
            answer = self._request(spec)
            if answer is None:  # the server has ended because it was idle, or was killed
                answer = self._request(spec)
        if answer is None:
            raise CompileError(f"the compiler died: {self._failure}")
        reply, library = answer
        if "error" in reply:
            kind = NotLinkedError if reply.get("not_linked") else CompileError
            raise kind(reply["error"])
        return library

    def _request(self, spec: KernelSpec) -> tuple[Reply, bytes] | None:
        """Send one request; returns the reply and the library, or None if the server has ended."""
        try:
            server = self.start()
            server.send(json.dumps(to_dict(spec)).encode() + b"\n")
            reply: Reply = json.loads(server.read_line())
            return reply, server.read(reply.get("size", 0))
        except (EOFError, OSError, ValueError) as error:
            message = self.server.last_message() if self.server else ""
            self._failure = "; ".join(filter(None, (f"{type(error).__name__}: {error}", message)))
            self.close()
            return None
        except BaseException:  # an interrupt: the reply that is still to come must not be read
            self.close()
            raise

    def start(self) -> Server:
        """The server, which is started if it is not running."""
        if self.server is None:
            self.server = Server.start(self.in_background)
        return self.server

    def close(self) -> None:
        """End the server."""
        server, self.server = self.server, None
        if server is not None:
            server.close()

    def forget(self) -> None:
        """Drop the server in the child of a fork: it belongs to the parent."""
        self._lock = threading.Lock()
        self.close()


def python_command(statement: str) -> list[str]:
    """The command line of a new interpreter that executes a statement.

    It finds the modules that this process finds, whatever its path is or was.

    Raises
    ------
    CompileError
        No interpreter is found.
    """
    path = [entry for entry in sys.path if isinstance(entry, str)]
    path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    return [python(), "-I", "-c", f"import sys; sys.path[:] = {path!r}; {statement}"]


def detached_python(statement: str) -> list[str]:
    """As `python_command`, for a process that is no child of this one.

    The command ends at once. The interpreter that executes the statement is its child: it writes
    that child's process id to stdout, and a newline.
    """
    command = python_command(statement)
    fork = "import os; pid = os.fork(); pid and (os.write(1, b'%d\\n' % pid), os._exit(0))"
    return [*command[:-1], f"{fork}; {command[-1]}"]


def python_environment() -> dict[str, str]:
    """The environment of a new interpreter: this process's, and no threads for NumPy's products."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1"}


def python() -> str:
    """Path of the interpreter to run the server with, also where Python is embedded in a program.

    Raises
    ------
    CompileError
        None is found.
    """
    if sys.executable and "python" in os.path.basename(sys.executable):
        return sys.executable
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix):
        for name in (f"python{version}", "python3"):
            candidate = os.path.join(prefix, "bin", name)
            if os.path.exists(candidate):
                return candidate
    raise CompileError("no Python interpreter to run the compiler with (sys.executable is unset)")
