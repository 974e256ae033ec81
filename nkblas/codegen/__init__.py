"""From a `KernelSpec` to machine code.

Stages: `kernels` builds MLIR with the helpers in `ir`, `lowering` makes machine code of it and
verifies that, `compile_server` does both in a process of its own, `compiler_client` is the caller's
side of that process, and `loader` loads the result.

Nothing here knows of plans or of the store. Only `ir`, `kernels` and `lowering` import ``mlir``,
and they are imported only when a kernel is compiled.
"""
