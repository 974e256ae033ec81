"""The compile server: a process that reads specifications and writes shared libraries.

`compiler_client` starts it. A request is a line of JSON, a specification. A reply is a line of
JSON: ``{"size": bytes}``, followed by the library, or ``{"error": message}``.
"""

import contextlib
import json
import os
import select
import signal

from nkblas.system.priority import lower_priority

from .compiler_client import Reply
from .loader import load_kernel
from .spec import from_dict

IDLE_SECONDS = 5.0
"""Time without a request after which the server ends, to free its 260 MB of memory."""

MAX_COMPILE_SECONDS = 150
"""Time for one kernel after which the server ends: more than the client waits."""


def main(in_background: bool) -> None:
    """Serve until the client closes the pipe, or for `IDLE_SECONDS` without a request."""
    if in_background:
        lower_priority()
    replies = os.dup(1)
    os.dup2(2, 1)  # output that a library prints must not mix with the replies
    poll = select.poll()
    poll.register(0, select.POLLIN)
    pending = b""
    with contextlib.suppress(BrokenPipeError):  # the client has ended
        while True:
            while b"\n" not in pending:
                if not poll.poll(1000 * IDLE_SECONDS):
                    return
                part = os.read(0, 1 << 16)
                if not part:
                    return
                pending += part
            line, _, pending = pending.partition(b"\n")
            signal.alarm(MAX_COMPILE_SECONDS)
            reply, library = serve(line)
            signal.alarm(0)
            answer = json.dumps(reply).encode() + b"\n" + library
            while answer:
                answer = answer[os.write(replies, answer) :]


def serve(line: bytes) -> tuple[Reply, bytes]:
    """Compile and verify one kernel; returns the reply and the library."""
    try:
        # Imported here, so that a failure to import `mlir` is a reply.
        from nkblas.codegen.lowering import pipeline, verify

        spec = from_dict(json.loads(line))
        try:
            library = pipeline.shared_library(spec)
        except pipeline.NotLinkedError as error:
            address, _engine = pipeline.in_memory(spec)
            verify.check(spec, address)
            return {"error": str(error), "not_linked": True}, b""
        verify.check(spec, load_kernel(spec, library))
        return {"size": len(library)}, library
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}, b""
