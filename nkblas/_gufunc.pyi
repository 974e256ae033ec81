from collections.abc import Callable
from typing import Any

import numpy as np

def bind(gufunc: np.ufunc, name: str, doc: str, gemm: int, counters: int, /) -> np.ufunc: ...
def patch(on: bool, /) -> None: ...
def reimplement(function: Callable[..., Any], implementation: Callable[..., Any], /) -> None: ...
def make_quick(general: Callable[..., Any], rule: str, /) -> Callable[..., Any]: ...
def count_fallbacks(products: int, /) -> None: ...
def gemm(
    alpha: complex,
    a: np.ndarray,
    b: np.ndarray,
    beta: complex,
    c: np.ndarray,
    turn: float,
    sign: float,
    /,
) -> bool: ...
