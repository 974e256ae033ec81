"""NumPy's own tests of products, with nkblas under NumPy: nothing fails that passed before."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import suites

# Left out here, where two processes run at once: vectors of 8 GiB, and one product 200 times over,
# each compared with what it should be (test_threads has the bits of many).
SMALL = ("-k", "not huge and not openblas_threading")


def test_numpy_suite(capsys: pytest.CaptureFixture[str]) -> None:
    def run(patched: bool) -> suites.Outcome:
        return suites.run("numpy", *SMALL, patched=patched)

    with ThreadPoolExecutor() as pool:
        stock, patched = pool.map(run, (False, True))
    with capsys.disabled():
        print("\nnumpy's tests:", suites.report(stock, patched))
    assert patched.failures <= stock.failures
    assert patched.tests.keys() == stock.tests.keys()
    assert len(patched.tests) > 5000
    products = patched.stats["calls"] - patched.stats["fallbacks"]
    assert products > 100_000
    assert patched.seconds < 2 * stock.seconds
