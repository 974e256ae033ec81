"""NumPy's own tests of products with NumPy patched: no test fails that passes without it."""

import pytest
import suites

# Left out: vectors of 8 GiB, and one product repeated 200 times and compared with the expected
# result (test_threads checks the bits of many products).
SELECTION = "not huge and not openblas_threading"


def test_numpy_suite(capsys: pytest.CaptureFixture[str]) -> None:
    patched = suites.run("numpy", "-k", SELECTION, patched=True)
    assert len(patched.tests) > 5000
    products = patched.stats["calls"] - patched.stats["fallbacks"]
    assert products > 100_000
    with capsys.disabled():
        print(f"\nnumpy's tests: {len(patched.tests)}, with {products} products on nkblas")
    if patched.failures:  # do they fail without the patch, too?
        stock = suites.run("numpy", "-k", SELECTION, patched=False)
        assert patched.failures <= stock.failures, suites.report(stock, patched)
