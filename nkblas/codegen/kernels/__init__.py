"""Builders: each emits the body of one kind of `nkblas.codegen.spec.KernelSpec` as MLIR."""
