"""Layers of neural networks for inference, in NumPy and nkblas: float32, bfloat16 and int8.

Each class is a fully connected layer. It is made of the float32 weights and bias that training has
left, and called with x, a row for each sample: ``activation(x @ weights + bias) + residual``.
"""

from typing import Any

import numpy as np
from ml_dtypes import bfloat16

import nkblas

Array = np.ndarray[Any, Any]


class NumPyLinear:
    """In the type of its weights, by NumPy."""

    def __init__(self, weights: Array, bias: Array) -> None:
        self.weights, self.bias = weights, bias

    def __call__(
        self, x: Array, activation: str | None = None, residual: Array | None = None
    ) -> Array:
        y = x @ self.weights
        y += self.bias
        if activation is not None:
            y = ACTIVATIONS[activation](y)
        if residual is not None:
            y += residual
        return y


class Linear:
    """In float32, by nkblas: weights are packed once, and a layer is one pass."""

    def __init__(self, weights: Array, bias: Array) -> None:
        self.weights, self.bias = nkblas.pack(weights), bias

    def __call__(
        self, x: Array, activation: str | None = None, residual: Array | None = None
    ) -> Array:
        return nkblas.gemm(
            x, self.weights, bias=self.bias, activation=activation, residual=residual
        )


class WatchedLinear(Linear):
    """One that looks at what comes in, for `Int8Linear` (calibration).

    Attributes
    ----------
    largest : float
        The largest absolute value so far.
    """

    largest = 0.0

    def __call__(
        self, x: Array, activation: str | None = None, residual: Array | None = None
    ) -> Array:
        self.largest = max(self.largest, float(abs(x).max()))
        return super().__call__(x, activation, residual)


class BFloat16Linear:
    """Of x and weights in bfloat16.

    Sums, bias, activation and residual are float32; the result is that, or rounded once to
    bfloat16, for a next layer that takes it as it is.
    """

    def __init__(self, weights: Array, bias: Array, out_dtype: Any = np.float32) -> None:
        self.weights, self.bias = nkblas.pack(weights.astype(bfloat16), dtype=out_dtype), bias

    def __call__(
        self, x: Array, activation: str | None = None, residual: Array | None = None
    ) -> Array:
        x = x.astype(bfloat16, copy=False)
        return nkblas.gemm(
            x, self.weights, bias=self.bias, activation=activation, residual=residual
        )


class Int8Linear:
    """Of x and weights in int8: each column of the weights has a scale, and x has one.

    Sums are exact; bias, activation and residual are float32, and so is the result; or it is int8,
    for a next layer that takes it as it is.

    Parameters
    ----------
    weights, bias : ndarray
    largest : float
        The largest absolute value in x: beyond, it saturates.
    largest_result : float, optional
        That of the result, which is int8 then. The activation is none or "relu", for which
        ``relu(x) / scale`` is ``relu(x / scale)``.
    """

    def __init__(
        self, weights: Array, bias: Array, largest: float, largest_result: float | None = None
    ) -> None:
        scales, self.x_scale = scale_for(abs(weights).max(axis=0)), scale_for(largest)
        self.weights = nkblas.pack(quantized(weights, scales))
        self.out_dtype: Any = np.float32 if largest_result is None else np.int8
        result = 1 if largest_result is None else scale_for(largest_result)
        self.scale, self.bias = scales * self.x_scale / result, bias / result

    def __call__(
        self, x: Array, activation: str | None = None, residual: Array | None = None
    ) -> Array:
        return nkblas.gemm(
            x if x.dtype == np.int8 else quantized(x, self.x_scale),
            self.weights,
            scale=self.scale,
            bias=self.bias,
            activation=activation,
            residual=residual,
            out_dtype=self.out_dtype,
        )


def scale_for(largest: Any) -> Any:
    """What 1 stands for in int8, if the largest absolute value is to be 127."""
    return np.where(largest > 0, largest, 1).astype(np.float32) / 127


def quantized(x: Array, scale: Any) -> Array:
    """Floats in int8: divided by `scale`, rounded, saturated."""
    y = x * (1 / scale)
    np.rint(y, out=y)
    np.clip(y, -127, 127, out=y)
    return y.astype(np.int8)


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def gelu_tanh(x: Array) -> Array:
    """GELU as BERT and GPT-2 have it, with tanh for erf."""
    return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x)))


ACTIVATIONS = {"relu": relu, "gelu_tanh": gelu_tanh}


def softmax(x: Array) -> Array:
    y = x - x.max(axis=-1, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=-1, keepdims=True)
    return y


def layer_norm(x: Array, gain: Array, shift: Array) -> Array:
    y = x - x.mean(axis=-1, keepdims=True)
    variance = np.vecdot(y, y)[..., None] / x.shape[-1]
    y *= 1 / np.sqrt(variance + 1e-5)
    y *= gain
    y += shift
    return y
