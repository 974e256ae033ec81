from collections.abc import Callable
from typing import Any

import numpy as np

class PackedOperand:
    _panels: np.ndarray

    def __init__(
        self, panels: np.ndarray, product: int, a: int, c: int, k: int, n: int, /
    ) -> None: ...

def make_gufunc(gufunc: np.ufunc, name: str, doc: str, gemm: int, counters: int, /) -> np.ufunc: ...
def make_mixed_gufunc() -> np.ufunc: ...
def register_callbacks(
    new_types: Callable[[], None],
    given_types: Callable[..., Any],
    float_activations: dict[str, int],
    integer_activations: dict[str, int],
    /,
) -> None: ...
def register_user_dtypes(
    types: tuple[int, ...], numbers: bytes, gufuncs: tuple[np.ufunc, ...], /
) -> None: ...
def set_patched(on: bool, /) -> None: ...
def replace_implementation(
    function: Callable[..., Any], implementation: Callable[..., Any], /
) -> None: ...
def make_fast_path(general: Callable[..., Any], rule: str, /) -> Callable[..., Any]: ...
def count_fallbacks(products: int, /) -> None: ...
def gemm(
    alpha: complex,
    a: np.ndarray,
    b: np.ndarray | PackedOperand,
    beta: complex,
    c: np.ndarray,
    a_imag_sign: float,
    c_imag_sign: float,
    epilogue: int = 0,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    low: float = 0.0,
    high: float = 0.0,
    blocks: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    zero: float = 0.0,
    /,
) -> bool: ...
