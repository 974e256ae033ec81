"""`GemmCall`: one product with normalised arguments, which runs on the engine or else on NumPy.

`gemm`, `brgemm`, products with packed matrices and `nkblas.blas` check and convert their arguments
into a `GemmCall`. Only this module calls the engine's gemm.
"""

from typing import Any, NamedTuple

import numpy as np

from nkblas import _numpy_ext

from .epilogue_args import NO_EPILOGUE, EpilogueArgs, accumulator_dtype
from .gufuncs import matmul
from .operands import Array


class GemmCall(NamedTuple):
    """``C = activation(alpha * A @ B + beta * C + bias) + residual``, written to `c`.

    Arrays are native and aligned (`operands.is_native_aligned`), their shapes fit, and `c` shares
    no memory with the others (see `without_overlap`). Their dtypes are those of a product with
    kernels, or all the same.

    Attributes
    ----------
    a : ndarray
        Shape ``(m, k)``.
    b : ndarray or PackedMatrix
        Shape ``(k, n)``.
    c : ndarray
        Shape ``(m, n)``. It is not read if `beta` is 0.
    alpha, beta : scalar
        Python's own numbers. If `alpha` is 0, `a` and `b` are not read.
    conj_a, conj_b : bool
        Whether the conjugate of a complex operand is multiplied.
    epilogue : EpilogueArgs
    blocks : ndarray or None
        For a batch-reduce product, two rows of addresses of equal length: all blocks of A, and all
        of B. The first ones are `a` and `b`, and the others have their shapes and strides. Such a
        call runs on the engine only.
    """

    a: Array
    b: Array | _numpy_ext.PackedOperand
    c: Array
    alpha: Any = 1
    beta: Any = 0
    conj_a: bool = False
    conj_b: bool = False
    epilogue: EpilogueArgs = NO_EPILOGUE
    blocks: Array | None = None

    def without_overlap(self) -> "GemmCall":
        """The same call, with copies of the operands that may share memory with `c`."""
        call, residual = self, self.epilogue.residual
        if np.may_share_memory(self.a, self.c):
            call = call._replace(a=self.a.copy())
        if isinstance(self.b, np.ndarray) and np.may_share_memory(self.b, self.c):
            call = call._replace(b=self.b.copy())
        if residual is not None and np.may_share_memory(residual, self.c):
            call = call._replace(epilogue=self.epilogue._replace(residual=residual.copy()))
        return call

    def execute(self) -> None:
        """Run on the engine, or on NumPy where that is not possible. No warnings are raised."""
        if not self.run_on_engine():
            with np.errstate(all="ignore"):
                self.c[...] = self.epilogue.apply(self._sums(), self.c.dtype)

    def run_on_engine(self) -> bool:
        """Write `c` and return True; or False if there are no kernels for it."""
        c = self.c
        if self._is_empty:
            return False
        if c.dtype.kind in "iub" and (self.alpha != 1 or self.beta not in (0, 1)):
            return False  # kernels do not scale integers: they only add the product to C
        if self.epilogue.scales is not None and c.shape[1] == 1 and isinstance(self.b, np.ndarray):
            return False  # the engine transposes a C with one column: scales would be for rows
        in_kernels = self.epilogue.runs_in_kernels(c.dtype)
        epilogue = self.epilogue if in_kernels else NO_EPILOGUE
        # A @ conj(B) is computed as conj(conj(A) @ B)
        a_imag_sign = -1 if self.conj_a != self.conj_b else 1
        c_imag_sign = -1 if self.conj_b else 1
        done = _numpy_ext.gemm(
            self.alpha,
            self.a,
            self.b,
            self.beta,
            c,
            a_imag_sign,
            c_imag_sign,
            epilogue.code,
            epilogue.bias,
            epilogue.residual,
            *epilogue.clip_bounds,
            self.blocks,
            epilogue.scales,
            epilogue.zero_point,
        )
        if done and not in_kernels:
            with np.errstate(all="ignore"):
                sums = c.astype(accumulator_dtype(c.dtype))
                c[...] = self.epilogue.apply(sums, c.dtype)
        return done

    @property
    def _is_empty(self) -> bool:
        """Whether there is nothing to multiply."""
        return self.alpha == 0 or self.c.size == 0 or self.a.shape[1] == 0

    def _sums(self) -> Array:
        """``alpha * A @ B + beta * C`` by NumPy, in the accumulators' dtype: C is rounded once."""
        dtype = accumulator_dtype(self.c.dtype)
        if self.epilogue.scales is not None:
            dtype = np.dtype(np.int32)
        alpha, beta = self.alpha, self.beta
        if self._is_empty:
            sums = np.zeros(self.c.shape, dtype)
            if beta != 0:
                sums[...] = self.c
                _scale(sums, beta)
            return sums
        a = self.a.conj() if self.conj_a else self.a
        # the panels of a packed matrix are for results of one dtype
        b: Any = self.b if dtype == self.c.dtype else np.asarray(self.b)
        product = matmul(a, b.conj() if self.conj_b else b, dtype=dtype, casting="unsafe")
        if alpha != 1:
            product = alpha * product
        addend: Any = 0 if beta == 0 else self.c.astype(dtype, copy=False)
        return np.asarray(product + (addend if beta in (0, 1) else beta * addend), dtype)


def _scale(x: Array, factor: Any) -> None:
    """``x *= factor``; a real factor scales the parts of complex numbers: infinities stay so."""
    if x.dtype.kind == "c" and factor.imag == 0:
        _scale(x.real, factor.real)
        _scale(x.imag, factor.real)
    elif factor != 1:
        x *= factor
