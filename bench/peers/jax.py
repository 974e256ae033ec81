"""JAX on the CPU."""

import os
from typing import Any

from bench.operands import Operands, same_dtype

from .contender import AbsentError, Forms, load_module


class JAX:
    """``jax.numpy.matmul``, compiled, on the CPU. Operands are copied once to JAX's own arrays.

    JAX has neither strided arrays nor ``out=``: each call creates an array and waits for it.
    """

    name = "jax"

    def __init__(self, threads: int) -> None:
        self._jax = load_module("jax")
        self._backend = load_module("jax.extend.backend")
        self._jax.config.update("jax_platforms", "cpu")
        self._jax.config.update("jax_enable_x64", True)
        self.version = f"{self._jax.__version__}, jit of jax.numpy.matmul"

    def set_num_threads(self, threads: int) -> None:
        """JAX reads the number from the environment when it creates its thread pool."""
        if os.environ.get("PJRT_NPROC") != str(threads):
            os.environ["PJRT_NPROC"] = str(threads)
            self._backend.clear_backends()

    def bind(self, operands: Operands, use_out: bool) -> Forms:
        a, b, out, _, case = operands
        if case.activation or case.batch_reduce:
            raise AbsentError("is measured on products only")
        jnp = self._jax.numpy
        is_transposed_a, is_transposed_b = (not x.flags.c_contiguous for x in (a, b))
        a, b = (a.mT if is_transposed_a else a), (b.mT if is_transposed_b else b)
        if not (a.flags.c_contiguous and b.flags.c_contiguous):
            raise AbsentError("has no strided arrays")
        x, y = jnp.array(a), jnp.array(b)
        wider_dtype = None if same_dtype(a, b, out) else out.dtype

        def product(x: Any, y: Any) -> Any:
            x, y = (x.mT if is_transposed_a else x), (y.mT if is_transposed_b else y)
            return jnp.matmul(x, y, preferred_element_type=wider_dtype)

        compiled = self._jax.jit(product)
        return {"": lambda: compiled(x, y).block_until_ready()}
