"""From a `KernelSpec` to machine code: `spec` → `microkernel`/`packing` (of nanokernels) → `compile`.

Nothing here knows of plans, stores or engines. Only `ir` and `compile` import ``mlir``, and only
when a kernel is really built.
"""
