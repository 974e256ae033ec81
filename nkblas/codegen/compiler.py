"""The compiler as seen from the user's process: a helper process that makes shared libraries.

What happens to the helper can't happen to the user. It starts at the first kernel that is not in
the store, serves until it has been idle for a while, and ends with its parent.
"""

import contextlib
import json
import os
import select
import sys
import threading
from typing import IO, Any

from .spec import KernelSpec, to_dict

TIMEOUT = 120.0
"""Seconds that one kernel may take; they take about 0.05."""


class CompileError(RuntimeError):
    """A kernel could not be made; the message says why."""


class NotLinkedError(CompileError):
    """Compiled and checked, but no shared library can be made of it here."""


class Compiler:
    """The helper process, started when needed."""

    def __init__(self) -> None:
        self._process: Any = None  # a `subprocess.Popen`
        self._errors: IO[bytes] | None = None  # what the helper writes there
        self._end = ""  # how it ended
        self._lock = threading.Lock()

    def compile(self, spec: KernelSpec) -> bytes:
        """The shared library of one kernel, checked against a plain reference.

        Raises
        ------
        NoLibraryError
            The machine has no linker, or no place for its files.
        CompileError
            Anything else, the helper's death included.
        """
        with self._lock:
            reply, library = self._ask(spec)
            if reply is None:  # it has just left for idleness, or somebody has killed it
                reply, library = self._ask(spec)
        if reply is None:
            raise CompileError(f"the compiler died: {self._last_words()}")
        if "error" in reply:
            kind = NotLinkedError if reply.get("not_linked") else CompileError
            raise kind(reply["error"])
        return library

    def _ask(self, spec: KernelSpec) -> tuple[dict[str, Any] | None, bytes]:
        """One request and its reply; None if the helper is no more."""
        try:
            self.start()
            self._process.stdin.write(json.dumps(to_dict(spec)).encode() + b"\n")
            reply = json.loads(self._read_line())
            return reply, self._read(reply.get("size", 0))
        except (EOFError, OSError, ValueError) as error:
            self._end = f"{type(error).__name__}: {error}"
            self.close()
            return None, b""
        except BaseException:  # an interrupt: the reply still to come is nobody's
            self.close()
            raise

    def start(self) -> None:
        """Start the helper, if it is not there; it needs a moment until it can compile."""
        if self._process is not None:
            return
        import atexit
        import subprocess

        self._errors = os.fdopen(os.memfd_create("nkblas"), "w+b")  # it needs no disk
        # The helper sees the modules that this process sees, whatever its path is or was.
        path = [entry for entry in sys.path if isinstance(entry, str)]
        path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
        program = (
            f"import sys; sys.path[:] = {path!r}; "
            "from nkblas.codegen import compile_server; compile_server.main()"
        )
        self._process = subprocess.Popen(
            [python(), "-I", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,  # an interrupt from the keyboard is for the user's process
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        atexit.unregister(self.close)
        atexit.register(self.close)

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            line += self._read(1)
        return line

    def _read(self, size: int) -> bytes:
        """Exactly `size` bytes, unbuffered, each part within `TIMEOUT`."""
        descriptor = self._process.stdout.fileno()
        parts = []
        while size:
            if not select.select([descriptor], [], [], TIMEOUT)[0]:
                raise EOFError(f"no answer for {TIMEOUT:.0f} s")
            part = os.read(descriptor, size)
            if not part:
                raise EOFError("the helper has ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _last_words(self) -> str:
        """The end of what the helper wrote to its standard error."""
        if self._errors is None:
            return self._end
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"{self._end}; {lines[-1]}" if lines else self._end

    def close(self) -> None:
        """End the helper."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        process.kill()
        process.wait()

    def forget(self) -> None:
        """After a fork, in the child: the helper is the parent's."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        if process is not None:
            process.stdin.close()
            process.stdout.close()
            process.returncode = 0  # not ours to wait for


def python() -> str:
    """The interpreter to run the helper with, also where Python is embedded in a program."""
    if sys.executable and "python" in os.path.basename(sys.executable):
        return sys.executable
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix):
        for name in (f"python{version}", "python3"):
            candidate = os.path.join(prefix, "bin", name)
            if os.path.exists(candidate):
                return candidate
    raise CompileError("no Python interpreter to run the compiler with (sys.executable is unset)")
