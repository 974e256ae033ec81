"""The suite "api": a random call, what it comes to, and what is wrong with that."""

import operator
import warnings
from contextlib import nullcontext
from typing import Any

import numpy as np

import nkblas
from nkblas.base.dtypes import product
from nkblas.runtime import dispatch

from . import numpys, own
from .case import Wrong
from .draw import Draw, Theme
from .numpys import Failed, outcome
from .recipe import Call, Fences, is_numpys

BATCH = 40_000
"""Cases that have a theme in common, and a process."""


FUNCTIONS = {
    name: (getattr(np, name), getattr(nkblas, name)) for name in numpys.CALLS if hasattr(np, name)
}
FUNCTIONS["multi_dot"] = np.linalg.multi_dot, nkblas.multi_dot
FUNCTIONS["matrix_power"] = np.linalg.matrix_power, nkblas.matrix_power

_flags: list[str] = []
_defects: list[str] = []


def _listen() -> None:
    """Note what nkblas logs of its own defects: NumPy does such a product, and it is right."""
    log = dispatch.log

    def heard(level: str, message: str, **options: Any) -> None:
        if level == "error":
            _defects.append(message)
        log(level, message, **options)

    dispatch.log = heard


class Cases:
    """Runs cases of a batch."""

    def __init__(self, seed: int, batch: int) -> None:
        self.seed = seed
        self.theme = Theme.of(seed, batch)
        self.fences = Fences()
        calls = {name: x for name, x in numpys.CALLS.items() if name in FUNCTIONS}
        self.calls = {**calls, **own.CALLS}
        self.names = list(self.calls)
        self.weights = [weight for weight, _ in self.calls.values()]
        np.seterr(all="call")
        np.seterrcall(lambda kind, flag: _flags.append(kind))
        warnings.simplefilter("ignore")
        _listen()

    def draw(self, number: int) -> tuple[Call, int]:
        draw = Draw(f"{self.seed}/{number}", self.theme)
        name = draw.random.choices(self.names, self.weights)[0]
        call = self.calls[name][1](draw)
        return call, draw.random.getrandbits(16)

    def run(self, number: int) -> Wrong | None:
        """One case."""
        call, chance = self.draw(number)
        _defects.clear()
        if call.function in FUNCTIONS:
            why = self.same_as_numpy(call, chance)
        else:
            memories = self.fences.hold(call.memories, chance)
            why = own.as_said(call, memories) or self.memory(call, memories)
        why = why or "".join(_defects)
        if not why:
            return None
        return Wrong(f"api {self.seed} {number}", f"{call.function}: {why}", call.code())

    def same_as_numpy(self, call: Call, chance: int) -> str:
        numpy, ours = FUNCTIONS[call.function]
        patched = chance >> Fences.COUNT & 7 == 0
        if patched:
            arrays = all(x.kind not in ("list", "arrayish", "scalar") for x in call.arrays())
            if call.function == "matmul" and len(call.args) == 2 and not call.kwargs and arrays:
                numpy = operator.matmul
            ours = numpy
        new = any(not is_numpys(x.dtype) for x in call.arrays())
        if new and any(x.kind == "list" for x in call.arrays()):
            return ""  # Python's numbers beside types that are not NumPy's: it has many rules
        safe, out = numpys.with_dense_out(call)
        if out is not None and out.kind == "masked":
            return ""  # the mask of its result is not that of another array
        for_numpy = [bytearray(memory) for memory in safe.memories]
        args, kwargs = safe.arguments(for_numpy)
        _flags.clear()
        want = outcome(numpy, args, kwargs)
        is_out = any(want is x for x in given_as_out(args, kwargs))
        wanted_flags = set(_flags)
        if out is not None and is_out:
            values, want = want, out.live(for_numpy)
            np.copyto(np.asarray(want), np.asarray(values))
        memories = self.fences.hold(call.memories, chance)
        args, kwargs = call.arguments(memories)
        _flags.clear()
        with nkblas.patched() if patched else nullcontext():
            got = outcome(ours, args, kwargs)
        flags = set(_flags)
        if isinstance(want, Failed) or isinstance(got, Failed):
            return self.same_failure(call, got, want)
        why = numpys.form(got, want)
        if why:
            return why
        if any(got is x for x in given_as_out(args, kwargs)) != is_out:
            return "the result is `out`, or is not"
        if not hasattr(want, "dtype"):
            # Python's numbers, of objects; some of it may have been made in other types
            same = call.mode != "exact" or got == want or (got != got and want != want)
            return "" if same else f"{got!r}, expected {want!r}"
        if not self.same_values(call, numpy, got, want):
            contents = [bytearray(memory) for memory in call.memories]
            why = numpys.reference(
                call, FUNCTIONS[call.function][0], np.asarray(got), np.asarray(want), contents
            )
            if why:
                return why
        if flags - wanted_flags and call.mode in ("exact", "rounded"):
            return f"it warns of {flags}, NumPy of {wanted_flags or 'nothing'}"
        return self.memory(call, memories)

    @staticmethod
    def same_failure(call: Call, got: Any, want: Any) -> str:
        """Where one of the two fails."""
        if call.kwargs.get("casting") in ("no", "equiv"):
            types = [x.dtype.name for x in call.arrays()[:2]]
            asked = np.dtype(call.kwargs.get("dtype", "f4")).name
            if product(types[0], types[-1], asked):
                return ""  # there is a loop for these types, where NumPy would cast to another
        asks = {"dtype", "signature", "sig"}.intersection(call.kwargs)
        if asks and isinstance(want, Failed) and numpys.is_more(call):
            return ""
        kinds = [x.kind for x in (got, want) if isinstance(x, Failed)]
        if len(kinds) == 2 and (issubclass(*kinds) or issubclass(*kinds[::-1])):
            return ""
        return f"{describe(got)}, expected {describe(want)}"

    @staticmethod
    def same_values(call: Call, numpy: Any, got: Any, want: Any) -> bool:
        if isinstance(want, np.ma.MaskedArray):
            if not np.array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(want)):
                return False
            got, want = np.ma.getdata(got), np.ma.getdata(want)
        return numpys.equal(np.asarray(got), np.asarray(want))

    @staticmethod
    def memory(call: Call, memories: list[Any]) -> str:
        """What is wrong around the results."""
        outs = own.outs(call)
        for i, (before, after) in enumerate(zip(call.memories, memories, strict=True)):
            if not numpys.outside(call, before, after, i, outs):
                return f"it changes memory m{i} outside of its result"
        return ""


def given_as_out(args: list[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    out = kwargs.get("out")
    return (*args[2:], *(out if isinstance(out, tuple) else (out,)))


def describe(value: Any) -> str:
    return repr(value) if isinstance(value, Failed) else numpys.describe(value)
