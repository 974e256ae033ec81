"""The helper process: reads specs, writes shared libraries (see `nkblas.codegen.compiler`).

A request is a line of JSON, a spec. A reply is a line of JSON, ``{"size": bytes}`` and then the
library, or ``{"error": message}``.
"""

import json
import os
import select
from typing import Any

from .loader import open_library
from .spec import from_dict

IDLE = 60.0
"""Seconds without a request after which the helper ends, to give its 100 MB back."""


def main() -> None:
    """Serve until the parent closes the pipe, or for `IDLE` seconds without a request."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the replies
    pending = b""
    while True:
        while b"\n" not in pending:
            if not select.select([0], [], [], IDLE)[0]:
                return
            part = os.read(0, 1 << 16)
            if not part:
                return
            pending += part
        line, _, pending = pending.partition(b"\n")
        reply, library = serve(line)
        replies.write(json.dumps(reply).encode() + b"\n" + library)
        replies.flush()


def serve(line: bytes) -> tuple[dict[str, Any], bytes]:
    """Make and check one kernel."""
    try:
        from nkblas.codegen.lowering import pipeline, verify

        spec = from_dict(json.loads(line))
        try:
            library = pipeline.shared_library(spec)
        except pipeline.NotLinkedError as error:
            address, _engine = pipeline.in_memory(spec)
            verify.check(spec, address)
            return {"error": str(error), "not_linked": True}, b""
        verify.check(spec, open_library(spec, library))
        return {"size": len(library)}, library
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}, b""
