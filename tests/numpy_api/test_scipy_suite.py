"""SciPy's own tests of BLAS and of `scipy.linalg`, with all doors open: no new failure."""

import pytest
import suites

pytest.importorskip("scipy.linalg.tests")


def test_scipy_suite(capsys: pytest.CaptureFixture[str]) -> None:
    patched = suites.run("scipy", patched=True)
    assert len(patched.tests) > 3000
    calls = sum(patched.doors.values())
    with capsys.disabled():
        print(f"\nscipy's tests: {len(patched.tests)}, with {calls} calls through doors")
    if patched.failures:  # do they fail without the patch, too?
        stock = suites.run("scipy", patched=False)
        assert patched.failures <= stock.failures, suites.report(stock, patched)
