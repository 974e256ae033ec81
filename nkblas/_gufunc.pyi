from collections.abc import Callable
from typing import Any

import numpy as np

class Panels:
    _panels: np.ndarray

    def __init__(
        self, panels: np.ndarray, product: int, a: int, c: int, k: int, n: int, /
    ) -> None: ...

def bind(gufunc: np.ufunc, name: str, doc: str, gemm: int, counters: int, /) -> np.ufunc: ...
def make_mixed() -> np.ufunc: ...
def ask(
    new_types: Callable[[], None], given_types: Callable[..., Any], activations: dict[str, int], /
) -> None: ...
def adopt_new_types(
    types: tuple[int, ...], numbers: bytes, gufuncs: tuple[np.ufunc, ...], /
) -> None: ...
def patch(on: bool, /) -> None: ...
def reimplement(function: Callable[..., Any], implementation: Callable[..., Any], /) -> None: ...
def make_quick(general: Callable[..., Any], rule: str, /) -> Callable[..., Any]: ...
def count_fallbacks(products: int, /) -> None: ...
def gemm(
    alpha: complex,
    a: np.ndarray,
    b: np.ndarray | Panels,
    beta: complex,
    c: np.ndarray,
    turn: float,
    sign: float,
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
