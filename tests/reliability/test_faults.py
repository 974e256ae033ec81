"""Each fault of `faults`, a few times: what is broken by hand must not break a product."""

import faults
import pytest


@pytest.mark.parametrize("name", [name for name, fault in faults.FAULTS.items() if fault.quick])
def test_fault(name: str) -> None:
    lost, _ = faults.inject(name, faults.FAULTS[name].quick, seed=1)
    assert not lost, "\n".join(lost)
