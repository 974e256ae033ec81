"""The client of the compile server (`compile_server`), a process that makes shared libraries.

A crash or an abort of the compiler ends the server and not the user's process. The server starts
with the first kernel that is not in the store, runs until it has been idle for a while, and ends
with its parent.
"""

import contextlib
import json
import os
import select
import sys
import threading
from typing import IO, TYPE_CHECKING, TypedDict

from .spec import KernelSpec, to_dict

if TYPE_CHECKING:
    import subprocess

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


class Compiler:
    """The compile server, which is started when it is needed. The methods are thread-safe."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None  # that of the process that was started last
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
            raise CompileError(f"the compiler died: {self._failure_message()}")
        reply, library = answer
        if "error" in reply:
            kind = NotLinkedError if reply.get("not_linked") else CompileError
            raise kind(reply["error"])
        return library

    def _request(self, spec: KernelSpec) -> tuple[Reply, bytes] | None:
        """Send one request; returns the reply and the library, or None if the server has ended."""
        try:
            self.start()
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(to_dict(spec)).encode() + b"\n")
            reply: Reply = json.loads(self._read_line())
            return reply, self._read(reply.get("size", 0))
        except (EOFError, OSError, ValueError) as error:
            self._failure = f"{type(error).__name__}: {error}"
            self.close()
            return None
        except BaseException:  # an interrupt: the reply that is still to come must not be read
            self.close()
            raise

    def start(self) -> None:
        """Start the server if it is not running; it is ready to compile after a moment."""
        if self._process is not None:
            return
        # Imported only by processes that compile: the import takes time.
        import atexit
        import subprocess

        self._stderr = os.fdopen(os.memfd_create("nkblas"), "w+b")  # needs no disk
        statement = "from nkblas.codegen import compile_server; compile_server.main()"
        self._process = subprocess.Popen(
            python_command(statement),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            start_new_session=True,  # an interrupt from the keyboard is for the user's process
            env=python_environment(),
        )
        atexit.unregister(self.close)
        atexit.register(self.close)

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            line += self._read(1)
        return line

    def _read(self, size: int) -> bytes:
        """Read exactly `size` bytes, unbuffered, waiting up to `TIMEOUT_SECONDS` for each part."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        parts = []
        while size:
            if not select.select([descriptor], [], [], TIMEOUT_SECONDS)[0]:
                raise EOFError(f"no answer for {TIMEOUT_SECONDS:.0f} s")
            part = os.read(descriptor, size)
            if not part:
                raise EOFError("the compile server has ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _failure_message(self) -> str:
        """How the last request failed, and the last line that the server wrote to stderr."""
        if self._stderr is None:
            return self._failure
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"{self._failure}; {lines[-1]}" if lines else self._failure

    def close(self) -> None:
        """End the server."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        process.kill()
        process.wait()

    def forget(self) -> None:
        """Drop the server in the child of a fork: it belongs to the parent."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
            process.returncode = 0  # the child must not wait for it


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
