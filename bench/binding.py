"""The preparation of a contender for a case: its results are checked, its fastest call is found."""

import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

import nkblas

from .operands import Operands, same_dtype
from .peers import AbsentError, Call, Contender
from .reference import Reference
from .timing import time_interleaved

FORM_ROUNDS = 5
"""Rounds that determine the fastest of a contender's alternative calls."""

MAX_PEER_SECONDS = 2.0
"""A peer whose call takes longer is not measured."""


class Bound(NamedTuple):
    """A contender's call for a case.

    Attributes
    ----------
    call : callable or SampleTimer
        The fastest of its calls.
    forms : dict of str to float
        Seconds of each of its calls, by name; empty if there is only one.
    plan : str
        nkblas's plan, if the case is a plain product of one dtype.
    is_fallback : bool
        Whether nkblas hands the case to NumPy.
    """

    call: Any
    forms: dict[str, float]
    plan: str = ""
    is_fallback: bool = False


def bind_fastest(
    contender: Contender, operands: Operands, reference: Reference, use_out: bool, pause: float
) -> Bound:
    """Bind a contender to a case, check its results, and find the fastest of its calls.

    If B may be packed, it gets its own copy of B: a B that several contenders read in turn would be
    closer in the caches than a packed B, which only one of them reads.

    Raises
    ------
    AbsentError
        It does not support the case, takes more than `MAX_PEER_SECONDS`, or its result is wrong.
    ArithmeticError
        nkblas's result is wrong.
    """
    is_peer = contender.name != "nkblas"
    may_pack = operands.case.plain_product != operands.case
    fallbacks = nkblas.stats()["fallbacks"]
    forms = contender.bind(operands.with_copy_of_b() if may_pack else operands, use_out)
    try:
        seconds = min(map(reference.verify, forms.values()))
    except ArithmeticError as error:
        if is_peer:
            raise AbsentError(f"its result is {error}") from None
        raise
    if is_peer and seconds > MAX_PEER_SECONDS:
        raise AbsentError("takes too long")
    times = median_times(forms, pause) if len(forms) > 1 else dict.fromkeys(forms, seconds)
    fastest = min(times, key=times.__getitem__)
    bound = Bound(forms[fastest], times if fastest else {})
    if is_peer:
        return bound
    is_fallback = nkblas.stats()["fallbacks"] > fallbacks
    return bound._replace(is_fallback=is_fallback, plan="" if is_fallback else plan_of(operands))


def plan_of(operands: Operands) -> str:
    """The plan of nkblas for a plain product of one dtype; empty for other cases."""
    a, b, out, _, case = operands
    is_plain = case.plain_product == case and not case.batch_reduce
    return str(nkblas.explain(a, b).plan) if is_plain and same_dtype(a, b, out) else ""


def median_times(forms: Mapping[str, Call], pause: float) -> dict[str, float]:
    """Median seconds of each of several alternative calls, from a few rounds."""
    times = time_interleaved(forms, 0, pause, FORM_ROUNDS)
    return {form: statistics.median(values) for form, values in times.items()}
