"""NumPy's own tests of products, with nkblas under NumPy: nothing fails that passed before."""

import pytest
import suites

# Left out: vectors of 8 GiB, and one product 200 times over, each compared with what it should be
# (test_threads has the bits of many).
SMALL = "not huge and not openblas_threading"


def test_numpy_suite(capsys: pytest.CaptureFixture[str]) -> None:
    patched = suites.run("numpy", "-k", SMALL, patched=True)
    assert len(patched.tests) > 5000
    products = patched.stats["calls"] - patched.stats["fallbacks"]
    assert products > 100_000
    with capsys.disabled():
        print(f"\nnumpy's tests: {len(patched.tests)}, with {products} products on nkblas")
    if patched.failures:  # do they with NumPy as it is?
        stock = suites.run("numpy", "-k", SMALL, patched=False)
        assert patched.failures <= stock.failures, suites.report(stock, patched)
