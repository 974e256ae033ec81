"""From a `KernelSpec` to machine code: MLIR passes, LLVM, the linker, verification."""
