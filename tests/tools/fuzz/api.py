"""The suite "api": random calls, and the comparison of their results."""

import operator
import warnings
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

import nkblas
from nkblas.base.dtypes import product
from nkblas.runtime import dispatch

from . import nkblas_functions, numpy_functions, sharing
from .case import Wrong
from .draw import Draw, Theme
from .numpy_functions import Failed, outcome
from .recipe import Array, Call, Fences, is_numpys

BATCH = 40_000
"""Cases that share a theme and a process."""


FUNCTIONS = {
    name: (getattr(np, name), getattr(nkblas, name))
    for name in numpy_functions.CALLS
    if hasattr(np, name)
}
FUNCTIONS["multi_dot"] = np.linalg.multi_dot, nkblas.multi_dot
FUNCTIONS["matrix_power"] = np.linalg.matrix_power, nkblas.matrix_power

_flags: list[str] = []
"""Floating-point warnings of the last call."""

_defects: list[str] = []
"""Errors that nkblas has logged in this case."""


def _record_defects() -> None:
    """Record the errors that nkblas logs: NumPy does these products, whose results are right."""
    module: Any = dispatch
    log = module.log

    def record(level: str, message: str, **options: Any) -> None:
        if level == "error":
            _defects.append(message)
        log(level, message, **options)

    module.log = record


class Cases:
    """Runs the cases of a batch."""

    def __init__(self, seed: int, batch: int) -> None:
        self.seed = seed
        self.theme = Theme.of(seed, batch)
        self.fences = Fences()
        calls = {name: x for name, x in numpy_functions.CALLS.items() if name in FUNCTIONS}
        self.calls = {**calls, **nkblas_functions.CALLS}
        self.names = list(self.calls)
        self.weights = [weight for weight, _ in self.calls.values()]
        np.seterr(all="call")
        np.seterrcall(lambda kind, flag: _flags.append(kind))
        warnings.simplefilter("ignore")
        _record_defects()

    def draw(self, number: int) -> tuple[Call, int]:
        """A random call, and random bits for the way in which it is made."""
        draw = Draw(f"{self.seed}/{number}", self.theme)
        name = draw.random.choices(self.names, self.weights)[0]
        call = self.calls[name][1](draw)
        return call, draw.random.getrandbits(16)

    def run(self, number: int) -> Wrong | None:
        """Run one case."""
        call, bits = self.draw(number)
        _defects.clear()
        if call.function in FUNCTIONS:
            why = self.compare_with_numpy(call, bits)
        else:
            memories = self.fences.hold(call.memories, bits)
            why = nkblas_functions.check(call, memories) or self.check_memory(call, memories)
            why = why or sharing.check(call, nkblas_functions.function_of(call))
        why = why or "".join(_defects)
        if not why:
            return None
        return Wrong(f"api {self.seed} {number}", f"{call.function}: {why}", call.code())

    def compare_with_numpy(self, call: Call, bits: int) -> str:
        """The fault of a call of a function that NumPy has too; empty: none."""
        is_patched = bits >> Fences.COUNT & 7 == 0
        has_list = any(x.kind == "list" for x in call.arrays())
        if has_list and not all(is_numpys(x.dtype) for x in call.arrays()):
            return ""  # NumPy has many rules for Python numbers beside dtypes of ml_dtypes
        call_of_numpy, out = numpy_functions.with_dense_out(call)
        if out is not None and out.kind == "masked":
            return ""  # the mask of its result differs from that of another array
        numpy, ours = functions_of(call, is_patched)
        wanted = call_numpy(numpy, call_of_numpy, out)
        memories = self.fences.hold(call.memories, bits)
        args, kwargs = call.arguments(memories)
        _flags.clear()
        with nkblas.patched() if is_patched else nullcontext():
            got = outcome(ours, args, kwargs)
        flags = set(_flags)
        if isinstance(wanted.result, Failed) or isinstance(got, Failed):
            return self.compare_failures(call, got, wanted.result)
        why = numpy_functions.compare_form(got, wanted.result)
        if why:
            return why
        if any(got is x for x in given_as_out(args, kwargs)) != wanted.is_out:
            return "the result is `out`, or is not"
        why = self.compare_values(call, got, wanted.result)
        if why or not hasattr(wanted.result, "dtype"):
            return why
        with nkblas.patched() if is_patched else nullcontext():
            why = sharing.check(call, ours)
        if why:
            return why
        if numpy_functions.overflows_alone(got, wanted.result):
            flags -= {"overflow", "invalid"}
        if flags - wanted.flags and call.mode in ("exact", "rounded"):
            return f"it warns of {flags}, NumPy of {wanted.flags or 'nothing'}"
        return self.check_memory(call, memories)

    @staticmethod
    def compare_failures(call: Call, got: Any, want: Any) -> str:
        """The fault of two outcomes of which at least one is an error; empty: none."""
        if call.kwargs.get("casting") in ("no", "equiv"):
            types = [x.dtype.name for x in call.arrays()[:2]]
            requested = np.dtype(call.kwargs.get("dtype", "f4")).name
            if types and product(types[0], types[-1], requested):
                return ""  # nkblas has a loop for these types, NumPy would cast them
        has_dtype_option = {"dtype", "signature", "sig"}.intersection(call.kwargs)
        if has_dtype_option and isinstance(want, Failed) and numpy_functions.may_have_no_loop(call):
            return ""
        kinds = [x.kind for x in (got, want) if isinstance(x, Failed)]
        if len(kinds) == 2 and (issubclass(*kinds) or issubclass(*kinds[::-1])):
            return ""
        return f"{describe(got)}, expected {describe(want)}"

    @staticmethod
    def compare_values(call: Call, got: Any, want: Any) -> str:
        """The fault of the values of a result; empty: none."""
        if not hasattr(want, "dtype"):
            # Python numbers, from objects; NumPy may have used other types for a part of them
            same = call.mode != "exact" or got == want or (got != got and want != want)
            return "" if same else f"{got!r}, expected {want!r}"
        if same_values(got, want):
            return ""
        contents = [bytearray(memory) for memory in call.memories]
        return numpy_functions.compare_with_reference(
            call, FUNCTIONS[call.function][0], np.asarray(got), np.asarray(want), contents
        )

    @staticmethod
    def check_memory(call: Call, memories: list[Any]) -> str:
        """The fault if memory outside the results has changed; empty: none."""
        outs = nkblas_functions.outs(call)
        for i, (before, after) in enumerate(zip(call.memories, memories, strict=True)):
            if not numpy_functions.is_unchanged_outside(call, before, after, i, outs):
                return f"it changes memory m{i} outside of its result"
        return ""


class NumpyOutcome(NamedTuple):
    """The outcome of a call of NumPy's function.

    Attributes
    ----------
    result
        The result, or a `Failed`.
    is_out : bool
        Whether the result is the `out` argument.
    flags : set of str
        Floating-point warnings.
    """

    result: Any
    is_out: bool
    flags: set[str]


def functions_of(call: Call, is_patched: bool) -> tuple[Any, Any]:
    """NumPy's function and the one to compare with it: nkblas's, or NumPy's to be patched."""
    numpy, ours = FUNCTIONS[call.function]
    if is_patched:
        arrays = all(x.kind not in ("list", "arrayish", "scalar") for x in call.arrays())
        if call.function == "matmul" and len(call.args) == 2 and not call.kwargs and arrays:
            numpy = operator.matmul
        ours = numpy
    return numpy, ours


def call_numpy(numpy: Any, call: Call, out: Array | None) -> NumpyOutcome:
    """Call NumPy's function; the result is copied to `out`, if that was replaced in the call."""
    memories = [bytearray(memory) for memory in call.memories]
    args, kwargs = call.arguments(memories)
    _flags.clear()
    result = outcome(numpy, args, kwargs)
    is_out = any(result is x for x in given_as_out(args, kwargs))
    flags = set(_flags)
    if out is not None and is_out:
        values, result = result, out.make(memories)
        np.copyto(np.asarray(result), np.asarray(values))
    return NumpyOutcome(result, is_out, flags)


def same_values(got: Any, want: Any) -> bool:
    """Whether two results have the same values, and the same mask if they are masked."""
    if isinstance(want, np.ma.MaskedArray):
        if not np.array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(want)):
            return False
        got, want = np.ma.getdata(got), np.ma.getdata(want)
    return numpy_functions.equal(np.asarray(got), np.asarray(want))


def given_as_out(args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of a call that may be its `out`."""
    out = kwargs.get("out")
    return (*args[2:], *(out if isinstance(out, tuple) else (out,)))


def describe(value: Any) -> str:
    return repr(value) if isinstance(value, Failed) else numpy_functions.describe(value)
