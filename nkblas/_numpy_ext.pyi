from collections.abc import Callable
from typing import Any

import numpy as np

class PackedOperand:
    _panels: np.ndarray

    def __init__(
        self, panels: np.ndarray, dtype: int, a_type: int, c_type: int, k: int, n: int, /
    ) -> None: ...

def make_gufunc(
    gufunc: np.ufunc, name: str, doc: str, gemm: int, counters: int, pass_through: int, /
) -> np.ufunc: ...
def make_mixed_gufunc() -> np.ufunc: ...
def register_callbacks(
    register_user_dtypes: Callable[[], None],
    mixed_product: Callable[..., Any],
    float_activations: dict[str, int],
    integer_activations: dict[str, int],
    /,
) -> None: ...
def register_user_dtypes(
    descriptions: list[tuple[int, int, bytes]], gufuncs: tuple[np.ufunc, ...], /
) -> None: ...
def set_patched(on: bool, /) -> None: ...
def replace_implementation(
    function: Callable[..., Any], implementation: Callable[..., Any], /
) -> None: ...
def make_fast_path(
    general: Callable[..., Any], name: str | None, numpy: Callable[..., Any] | None, /
) -> Callable[..., Any]: ...
def register_planner(
    make_recipe: Callable[..., Any], numpy_functions: dict[str, Callable[..., Any]], /
) -> None: ...
def count_fallbacks(products: int, /) -> None: ...
def gemm(
    alpha: complex,
    a: np.ndarray,
    b: np.ndarray | PackedOperand,
    beta: complex,
    c: np.ndarray,
    a_imag_sign: float,
    c_imag_sign: float,
    fused: int = 0,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    clip_low: float = 0.0,
    clip_high: float = 0.0,
    blocks: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    zero_point: float = 0.0,
    /,
) -> bool: ...
def register_level3(gemmt: int, symm: int, trmm: int, trsm: int, /) -> None: ...
def level3(
    operation: int,
    alpha: complex,
    a: np.ndarray,
    b: np.ndarray | None,
    beta: complex,
    c: np.ndarray,
    is_lower: bool,
    is_hermitian: bool,
    is_unit: bool,
    a_imag_sign: float,
    c_imag_sign: float,
    /,
) -> bool: ...
