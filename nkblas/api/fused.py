"""What `gemm` does to a product beside alpha and beta: its arguments, as the kernels take them."""

from typing import Any, NamedTuple

import numpy as np

from nkblas.base.epilogues import ACTIVATIONS, Epilogue, apply

from .operands import padded


class Fused(NamedTuple):
    """A bias, an activation and a residual, each of them or none.

    Attributes
    ----------
    epilogue : Epilogue
    bias : ndarray or None
        A number for each column or row, of the sums' type; more follow that mean nothing.
    residual : ndarray or None
        Of C's shape and type, in rows.
    bounds : (float, float)
        Of the activation.
    """

    epilogue: Epilogue = Epilogue()
    bias: np.ndarray | None = None
    residual: np.ndarray | None = None
    bounds: tuple[float, float] = (0.0, 0.0)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """As ``_numpy_ext.gemm`` takes them after all others."""
        return self.epilogue.fused_code, self.bias, self.residual, *self.bounds

    def in_kernels(self, dtype: np.dtype[Any]) -> bool:
        """Whether kernels for a C of some dtype can do this.

        They add up narrow integers modulo more than these hold.
        """
        if dtype.name in ("float16", "bfloat16", "float32", "float64"):
            return True
        activation = ACTIVATIONS[self.epilogue.activation]
        is_exact = activation.on_integers and not activation.has_bounds
        return is_exact and dtype.name in ("int32", "int64")

    def apply(self, c: np.ndarray) -> None:
        """Do it by NumPy, to a C that holds the rest."""
        if self.epilogue.is_fused:
            wide = c.astype(accumulator_dtype(c.dtype))
            residual = None if self.residual is None else self.residual.astype(wide.dtype)
            with np.errstate(all="ignore"):
                c[...] = apply(self.epilogue, wide, self.bias, residual, self.bounds)


NO_EPILOGUE = Fused()


def accumulator_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of the sums of which a C of some dtype is made."""
    narrow = dtype.itemsize < 4 and dtype.kind not in "iub"
    return np.dtype(np.float32) if narrow else dtype


def fused(
    bias: Any, activation: Any, residual: Any, shape: tuple[int, int], dtype: np.dtype[Any]
) -> Fused:
    """From the arguments of `gemm`, for a C of some shape and dtype.

    Raises
    ------
    ValueError
        A shape does not fit, or there is no such activation.
    TypeError
        A type can't be cast.
    """
    if bias is None and activation is None and residual is None:
        return NO_EPILOGUE
    name, bounds = _activation(activation, dtype)
    which = ""
    if bias is not None:
        which, bias = _bias(bias, shape, accumulator_dtype(dtype))
    if residual is not None:
        residual = np.asarray(residual)
        if residual.shape != shape:
            raise ValueError(f"residual: got shape {residual.shape}, expected {shape}")
        residual = np.ascontiguousarray(_cast("residual", residual, dtype))
    return Fused(Epilogue("", which, name, residual is not None), bias, residual, bounds)


def _activation(value: Any, dtype: np.dtype[Any]) -> tuple[str, tuple[float, float]]:
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
    bounds = 0.0, 0.0
    if has_bounds:
        try:
            bounds = float(value[1]), float(value[2])
        except (TypeError, ValueError):
            raise TypeError(f"activation: got {value!r}, expected numbers as bounds") from None
    if dtype.kind == "c" and name:
        raise TypeError(f"activation: got {name} for {dtype}, expected real numbers")
    if dtype.kind in "iub" and not activation.on_integers:
        raise TypeError(f"activation: got {name} for {dtype}, expected floats; see out_dtype")
    return name, bounds


def _bias(value: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> tuple[str, np.ndarray]:
    """Which it is, and the numbers with room behind them."""
    array = np.asarray(value)
    m, n = shape
    if array.shape in ((), (1,), (n,), (1, n), (1, 1)):
        which, count = "columns", n
    elif array.shape == (m, 1):
        which, count = "rows", m
    else:
        raise ValueError(
            f"bias: got shape {array.shape}, expected ({n},) for columns or ({m}, 1) for rows"
        )
    return which, padded(_cast("bias", array.ravel(), dtype), count, dtype)


def _cast(name: str, array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"{name}: got {array.dtype}, expected what can be cast to {dtype}")
    return array.astype(dtype)
