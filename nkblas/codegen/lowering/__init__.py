"""From MLIR to verified machine code, in the compiler's process."""
