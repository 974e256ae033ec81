"""Layers of neural networks for inference, with NumPy and nkblas: float32, bfloat16 and int8.

Each class is a fully connected layer. It is created from the float32 weights and bias of a trained
network, and is called with x, which has a row for each sample. It returns ``activation(x @ weights
+ bias) + residual``.
"""

from typing import Any

import numpy as np
from ml_dtypes import bfloat16

import nkblas

Array = np.ndarray[Any, Any]


class NumPyLinear:
    """A layer computed by NumPy, in the dtype of its weights."""

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
    """A float32 layer of nkblas: the weights are packed once, and each call is a single pass."""

    def __init__(self, weights: Array, bias: Array) -> None:
        self.weights, self.bias = nkblas.pack(weights), bias

    def __call__(
        self, x: Array, activation: str | None = None, residual: Array | None = None
    ) -> Array:
        return nkblas.gemm(
            x, self.weights, bias=self.bias, activation=activation, residual=residual
        )


class CalibrationLinear(Linear):
    """A float32 layer that measures the range of its input, to calibrate an `Int8Linear`.

    Attributes
    ----------
    largest : float
        The largest absolute value of any input so far.
    """

    largest = 0.0

    def __call__(
        self, x: Array, activation: str | None = None, residual: Array | None = None
    ) -> Array:
        self.largest = max(self.largest, float(abs(x).max()))
        return super().__call__(x, activation, residual)


class BFloat16Linear:
    """A layer that multiplies x and weights in bfloat16.

    Sums, bias, activation and residual are float32. The result is float32, or bfloat16 for a next
    layer that takes it without conversion; then it is rounded once.
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
    """A layer that multiplies x and weights in int8, with a scale for x and one for each column.

    Sums are exact; bias, activation and residual are float32. The result is float32, or int8 for a
    next layer that takes it without conversion.

    Parameters
    ----------
    weights, bias : ndarray
    largest : float
        The largest absolute value of x; larger values saturate.
    largest_result : float, optional
        The largest absolute value of the result, if it is to be int8. The activation must then be
        None or "relu", since ``relu(x) / scale`` equals ``relu(x / scale)``.
    """

    def __init__(
        self, weights: Array, bias: Array, largest: float, largest_result: float | None = None
    ) -> None:
        scales, self.x_scale = scale_for(abs(weights).max(axis=0)), scale_for(largest)
        self.weights = nkblas.pack(quantize(weights, scales))
        self.out_dtype: Any = np.float32 if largest_result is None else np.int8
        result_scale = 1 if largest_result is None else scale_for(largest_result)
        self.scale, self.bias = scales * self.x_scale / result_scale, bias / result_scale

    def __call__(
        self, x: Array, activation: str | None = None, residual: Array | None = None
    ) -> Array:
        return nkblas.gemm(
            x if x.dtype == np.int8 else quantize(x, self.x_scale),
            self.weights,
            scale=self.scale,
            bias=self.bias,
            activation=activation,
            residual=residual,
            out_dtype=self.out_dtype,
        )


def scale_for(largest: Any) -> Any:
    """The scale with which the largest absolute value becomes 127 in int8."""
    return np.where(largest > 0, largest, 1).astype(np.float32) / 127


def quantize(x: Array, scale: Any) -> Array:
    """Convert floats to int8: divide by `scale`, round, and saturate."""
    y = x * (1 / scale)
    np.rint(y, out=y)
    np.clip(y, -127, 127, out=y)
    return y.astype(np.int8)


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def gelu_tanh(x: Array) -> Array:
    """GELU as in BERT and GPT-2, approximated with tanh."""
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
