"""Filters and JPEG-like compression of images by small matrices.

Images are converted to another colour space, smoothed and sharpened by separable filters, and
compressed by a cosine transform of blocks of 8 x 8 pixels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

IMAGES, SIZE, BLOCK = 16, 512, 8
TO_YCBCR = np.array(
    [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], np.float32
)
FROM_YCBCR = np.linalg.inv(TO_YCBCR)


def smoothing_matrix(size: int, sigma: float) -> Array:
    """The matrix of a Gaussian filter along one axis."""
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    matrix = np.exp(-(distance**2) / (2 * sigma**2))
    matrix /= matrix.sum(axis=1, keepdims=True)
    return np.asarray(matrix, np.float32)


def cosine_matrix(size: int) -> Array:
    """The matrix of the discrete cosine transform."""
    k, x = np.ogrid[:size, :size]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (2 * x + 1) * k / (2 * size))
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)


def compress(channel: Array, step: float) -> tuple[Array, float]:
    """Quantize the cosine transform of blocks; returns the image, and the fraction of zeros."""
    rows, columns = (size // BLOCK for size in channel.shape[-2:])
    blocks = channel.reshape(-1, rows, BLOCK, columns, BLOCK).swapaxes(2, 3)
    cosines = cosine_matrix(BLOCK)
    steps = (step * (1 + np.add.outer(np.arange(BLOCK), np.arange(BLOCK)))).astype(np.float32)
    quantized = np.rint(cosines @ blocks @ cosines.T / steps)
    decoded = cosines.T @ (quantized * steps) @ cosines
    return decoded.swapaxes(2, 3).reshape(channel.shape), float(np.mean(quantized == 0))


rng = np.random.default_rng(10)
rough = rng.random((3 * IMAGES, SIZE // 8, SIZE // 8), np.float32)
smooth = smoothing_matrix(SIZE, 2.0)
blurred = smooth @ rough.repeat(8, axis=1).repeat(8, axis=2) @ smooth.T
images = blurred.reshape(IMAGES, 3, SIZE, SIZE)

pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(-1, 3)
channels = (pixels @ TO_YCBCR.T).reshape(IMAGES, SIZE, SIZE, 3).transpose(0, 3, 1, 2)
wide = smoothing_matrix(SIZE, 4.0)
sharp = channels + np.float32(0.7) * (channels - wide @ channels @ wide.T)
coded, zeros = zip(*(compress(sharp[:, i], 0.01 * (1 + i)) for i in range(3)), strict=True)
decoded = np.stack(coded, axis=-1).reshape(-1, 3) @ FROM_YCBCR.T
original = sharp.transpose(0, 2, 3, 1).reshape(-1, 3) @ FROM_YCBCR.T
error = np.mean((decoded - original).astype(np.float64) ** 2)
print(f"signal-to-noise ratio {-10 * np.log10(error):.4f} dB", end=", ")
print(f"mean {decoded.mean(dtype=np.float64):.5f}, zeros {np.mean(zeros):.4f}")
