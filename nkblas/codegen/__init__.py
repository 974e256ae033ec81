"""From a `KernelSpec` to machine code.

`spec` → `microkernel` (of nanokernels) or `packing` → `compile`, in the process of `helper`.

Nothing here knows of plans or stores. Only `ir` and `compile` import ``mlir``, and only
when a kernel is really built.
"""
