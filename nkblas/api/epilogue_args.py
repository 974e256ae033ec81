"""The epilogue arguments of `gemm` (bias, activation, residual), converted for the kernels."""

from typing import Any, NamedTuple

import numpy as np

from nkblas.base.epilogues import ACTIVATIONS, Epilogue, apply

from .operands import Array, DType, padded_vector


class EpilogueArgs(NamedTuple):
    """An epilogue and its arguments.

    Attributes
    ----------
    epilogue : Epilogue
        Its `kind` is unused: alpha and beta are in `GemmCall`.
    dtype : dtype or None
        C's dtype that the arguments were converted for; None in `NO_EPILOGUE`.
    bias : ndarray or None
        One number for each column or row in the accumulators' dtype, and padding that is ignored.
    residual : ndarray or None
        C's shape and dtype, C-contiguous.
    clip_bounds : (float, float)
        Lower and upper bound of the activation "clip".
    scales : ndarray or None
        One float32 for each column of a quantized product, and padding.
    zero_point : float
        The 8-bit integer that represents 0 in a quantized result.
    """

    epilogue: Epilogue = Epilogue()
    dtype: DType | None = None
    bias: Array | None = None
    residual: Array | None = None
    clip_bounds: tuple[float, float] = (0.0, 0.0)
    scales: Array | None = None
    zero_point: float = 0.0

    @property
    def code(self) -> int:
        """The epilogue's code for the engine."""
        return 0 if self is NO_EPILOGUE else self.epilogue.fused_code

    def runs_in_kernels(self, dtype: DType) -> bool:
        """Whether kernels that store a C of `dtype` can apply it.

        Kernels accumulate narrow integers in wider ones, which wrap only when they are stored: an
        activation would be applied to other numbers than NumPy's.
        """
        if self is NO_EPILOGUE or self.epilogue.scales:
            return True
        if dtype != self.dtype:
            return False
        if dtype.name in ("float16", "bfloat16", "float32", "float64"):
            return True
        activation = ACTIVATIONS[self.epilogue.activation]
        is_exact = activation.on_integers and not activation.has_bounds
        return is_exact and dtype.name in ("int32", "int64")

    def apply(self, sums: Array, dtype: DType) -> Array:
        """Apply it with NumPy to the sums, in the accumulators' dtype, of a C of `dtype`.

        The values are not yet cast to `dtype`; those of a quantized product are in its range.
        """
        if not self.epilogue.is_fused:
            return sums
        residual = self.residual
        if residual is not None:
            residual = residual.astype(accumulator_dtype(residual.dtype), copy=False)
        values = apply(self.epilogue, sums, self.bias, residual, self.clip_bounds, self.scales)
        if not self.epilogue.scales:
            return values.astype(sums.dtype, copy=False)
        if dtype.kind == "f":
            return values
        limits = np.iinfo(dtype)
        clipped: Array = np.clip(np.rint(values) + self.zero_point, limits.min, limits.max)
        return clipped


NO_EPILOGUE = EpilogueArgs()


def accumulator_dtype(dtype: DType) -> DType:
    """The dtype of the sums that a C of `dtype` is rounded from."""
    is_narrow_float = dtype.itemsize < 4 and dtype.kind not in "iub"
    return np.dtype(np.float32) if is_narrow_float else dtype


def to_epilogue_args(
    bias: Any, activation: Any, residual: Any, shape: tuple[int, int], dtype: DType
) -> EpilogueArgs:
    """Convert the arguments of `gemm` for a C of this shape and dtype.

    Raises
    ------
    ValueError
        A shape does not fit, or there is no such activation.
    TypeError
        A dtype cannot be cast to C's, or C's dtype does not have the activation.
    """
    if bias is None and activation is None and residual is None:
        return NO_EPILOGUE
    name, clip_bounds = _to_activation(activation, dtype)
    bias_kind = ""
    if bias is not None:
        bias_kind, bias = _to_bias(bias, shape, accumulator_dtype(dtype))
    if residual is not None:
        residual = np.asarray(residual)
        if residual.shape != shape:
            raise ValueError(f"residual: got shape {residual.shape}, expected {shape}")
        residual = np.ascontiguousarray(_cast("residual", residual, dtype))
    epilogue = Epilogue("", bias_kind, name, residual is not None)
    return EpilogueArgs(epilogue, dtype, bias, residual, clip_bounds)


def _to_activation(value: Any, dtype: DType) -> tuple[str, tuple[float, float]]:
    """The name and the bounds of an `activation` argument."""
    has_bounds = isinstance(value, tuple) and len(value) == 3
    name = (value[0] if has_bounds else value) or ""
    activation = ACTIVATIONS.get(name) if isinstance(name, str) else None
    if activation is None or activation.has_bounds != has_bounds:
        forms = [
            f"('{x}', low, high)" if ACTIVATIONS[x].has_bounds else x for x in ACTIVATIONS if x
        ]
        raise ValueError(
            f"activation: got {value!r}, expected one of {', '.join(forms[:-1])} or {forms[-1]}"
        )
    clip_bounds = 0.0, 0.0
    if has_bounds:
        try:
            clip_bounds = float(value[1]), float(value[2])
        except (TypeError, ValueError):
            raise TypeError(f"activation: got {value!r}, expected numbers as bounds") from None
    if dtype.kind == "c" and name:
        raise TypeError(f"activation: got {name} for {dtype}, expected real numbers")
    if dtype.kind in "iub" and not activation.on_integers:
        raise TypeError(f"activation: got {name} for {dtype}, expected floats; see out_dtype")
    return name, clip_bounds


def _to_bias(value: Any, shape: tuple[int, int], dtype: DType) -> tuple[str, Array]:
    """The kind of a bias ("columns" or "rows") and its padded vector."""
    array = np.asarray(value)
    m, n = shape
    if array.shape in ((), (1,), (n,), (1, n), (1, 1)):
        kind, count = "columns", n
    elif array.shape == (m, 1):
        kind, count = "rows", m
    else:
        raise ValueError(
            f"bias: got shape {array.shape}, expected ({n},) for columns or ({m}, 1) for rows"
        )
    return kind, padded_vector(_cast("bias", array.ravel(), dtype), count, dtype)


def _cast(name: str, array: Array, dtype: DType) -> Array:
    if array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"{name}: got {array.dtype}, expected a dtype that can be cast to {dtype}")
    return array.astype(dtype)
