"""Each fault of `faults`, injected a few times: no product is wrong, and no process fails."""

import faults
import pytest


@pytest.mark.parametrize("name", [name for name, x in faults.FAULTS.items() if x.test_times])
def test_fault(name: str) -> None:
    failures, _ = faults.inject(name, faults.FAULTS[name].test_times, seed=1)
    assert not failures, "\n".join(failures)
