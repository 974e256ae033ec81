"""BLAS level 3, with the signatures of `scipy.linalg.blas`.

`ROUTINES` is the table of all routines. One function converts the arguments of each of them
(`_execute`); the routine's form checks their shapes, and turns them into calls of the engine.
"""

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from typing import Any, Literal, NamedTuple

import numpy as np

from .blas_arguments import Arguments, named, with_ndim
from .gemm_call import GemmCall
from .level3_call import Level3Call
from .level3_docs import document
from .operands import Array, apply_trans

# ---- forms: from converted arguments to calls ----


class Values(NamedTuple):
    """The converted arguments of any routine; those that it does not have keep these values."""

    alpha: Any
    a: Array
    b: Any = None
    beta: Any = 0
    trans: int = 0
    trans_a: int = 0
    trans_b: int = 0
    side: int = 0
    lower: int = 0
    diag: int = 0


class Form(NamedTuple):
    """What a routine does: the shape of its result, and the calls that write it to an array."""

    shape: tuple[int, ...]
    calls: Callable[[Array], Sequence[GemmCall | Level3Call]]


def _gemm(x: Values, routine: "Routine", convert: Arguments) -> Form:
    left, conj_a = apply_trans(x.a, x.trans_a)
    right, conj_b = apply_trans(x.b, x.trans_b)
    if left.shape[1] != right.shape[0]:
        raise convert.error("b", f"op(b) of shape {right.shape}", f"({left.shape[1]}, n)")
    factors = x.alpha, x.beta, conj_a, conj_b
    shape = left.shape[0], right.shape[1]
    return Form(shape, lambda c: [GemmCall(left, right, c, *factors)])


def _gemmt(x: Values, routine: "Routine", convert: Arguments) -> Form:
    left, conj_a = apply_trans(x.a, x.trans_a)
    right, conj_b = apply_trans(x.b, x.trans_b)
    n, k = left.shape
    if right.shape != (k, n):
        raise convert.error("b", f"op(b) of shape {right.shape}", f"({k}, {n})")
    options = bool(x.lower), x.alpha, x.beta, conj_a, conj_b, routine.is_hermitian
    return Form((n, n), lambda c: [Level3Call("gemmt", left, right, c, *options)])


def _rank_k(x: Values, routine: "Routine", convert: Arguments) -> Form:
    """A gemmt of A and its transpose."""
    x = x._replace(b=x.a)
    if routine.is_hermitian:
        x = x._replace(alpha=x.alpha.real, beta=x.beta.real)
    return _gemmt(_with_transposed_operand(x, routine), routine, convert)


def _rank_2k(x: Values, routine: "Routine", convert: Arguments) -> Form:
    """Two gemmt, of A and B and of B and A; as in SciPy, more rows of ``op(b)`` are ignored."""
    n, k = (x.a.T if x.trans else x.a).shape
    rows, columns = (x.b.T if x.trans else x.b).shape
    if rows < n or columns != k:
        raise convert.error("b", f"op(b) of shape {(rows, columns)}", f"({n}, {k})")
    x = x._replace(b=x.b[:, :n] if x.trans else x.b[:n])
    swapped = x._replace(a=x.b, b=x.a, beta=1)
    if routine.is_hermitian:
        x = x._replace(beta=x.beta.real)
        swapped = swapped._replace(alpha=x.alpha.conjugate())
    first, second = (
        _gemmt(_with_transposed_operand(y, routine), routine, convert) for y in (x, swapped)
    )
    return Form(first.shape, lambda c: [first.calls(c)[0], second.calls(c)[0]])


def _with_transposed_operand(x: Values, routine: "Routine") -> Values:
    """With `trans` the left operand is transposed, otherwise the right one."""
    transpose = 2 if routine.is_hermitian else 1
    trans_a, trans_b = (transpose, 0) if x.trans else (0, transpose)
    return x._replace(trans_a=trans_a, trans_b=trans_b)


def _symm(x: Values, routine: "Routine", convert: Arguments) -> Form:
    """As in SciPy, what `a` has beyond a square is ignored, and what `b` has for it."""
    n = x.a.shape[1 if x.side else 0]
    inner = x.a.shape[0 if x.side else 1]
    rows_of_b = x.b.shape[1 if x.side else 0]
    if inner != rows_of_b or inner < n:
        raise convert.error("a", f"shape {x.a.shape}", f"({rows_of_b}, {rows_of_b})")
    a, b = x.a[:n, :n], x.b[:, :n] if x.side else x.b[:n]
    return Form(b.shape, lambda c: [_with_square("symm", x, a, b, c, routine)])


def _triangular(x: Values, routine: "Routine", convert: Arguments) -> Form:
    """As in SciPy, trmm ignores rows and columns of a larger `a`."""
    n = x.b.shape[1 if x.side else 0]
    rows, columns = x.a.shape
    if not (rows == columns == n or (routine.kind == "trmm" and rows >= columns >= n)):
        raise convert.error("a", f"shape {x.a.shape}", f"({n}, {n})")
    operation: Literal["trmm", "trsm"] = "trmm" if routine.kind == "trmm" else "trsm"
    a = x.a[:n, :n]
    return Form(x.b.shape, lambda c: [_with_square(operation, x, a, None, c, routine)])


def _with_square(
    operation: Literal["symm", "trmm", "trsm"],
    x: Values,
    a: Array,
    b: Array | None,
    c: Array,
    routine: "Routine",
) -> Level3Call:
    """A call with the square on the left: ``C = B @ op(A)`` is ``C.T = op(A).T @ B.T``."""
    a, conj_a = apply_trans(a, x.trans_a)
    is_transposed = bool(x.trans_a) != bool(x.side)
    if x.side:
        a, b, c = a.T, None if b is None else b.T, c.T
    return Level3Call(
        operation,
        a,
        b,
        c,
        bool(x.lower) != is_transposed,
        x.alpha,
        x.beta,
        conj_a,
        is_hermitian=routine.is_hermitian,
        is_unit=bool(x.diag),
    )


# ---- the table ----

_DEFAULTS = {"alpha": Parameter.empty, "a": Parameter.empty, "b": Parameter.empty, "c": None}
"""Of parameters whose default is not 0."""


class Routine(NamedTuple):
    """A routine of BLAS.

    Attributes
    ----------
    kind : str
        Its name without the letter of the dtype.
    letters : str
        The dtypes that it exists for.
    parameters : str
        Their names, in order; the last one says whether an argument may be overwritten.
    form : callable
        Checks the shapes of converted arguments, and makes the calls.
    is_hermitian : bool
        Whether its symmetric matrix is Hermitian.
    """

    kind: str
    letters: str
    parameters: str
    form: Callable[[Values, "Routine", Arguments], Form]
    is_hermitian: bool = False

    def signature(self) -> Signature:
        """The signature of its functions."""
        return Signature(
            [
                Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=_DEFAULTS.get(name, 0))
                for name in self.parameters.split()
            ]
        )

    def choices(self, dtype: np.dtype[Any]) -> dict[str, tuple[int, ...]]:
        """The values that its options can have."""
        choices: dict[str, tuple[int, ...]]
        choices = dict.fromkeys(("side", "lower", "diag"), (0, 1))
        choices |= dict.fromkeys(("trans", "trans_a", "trans_b"), (0, 1, 2))
        if dtype.kind == "c":  # A @ A.T is symmetric, A @ A.conj().T is Hermitian
            choices["trans"] = (0, 2) if self.is_hermitian else (0, 1)
        return {name: choices[name] for name in self.parameters.split() if name in choices}


_RANK_K = "alpha a beta c trans lower overwrite_c"
_RANK_2K = "alpha a b beta c trans lower overwrite_c"
_SYMM = "alpha a b beta c side lower overwrite_c"
_TRIANGULAR = "alpha a b side lower trans_a diag overwrite_b"

ROUTINES = {
    routine.kind: routine
    for routine in (
        Routine("gemm", "sdcz", "alpha a b beta c trans_a trans_b overwrite_c", _gemm),
        Routine("gemmt", "sdcz", "alpha a b beta c trans_a trans_b lower overwrite_c", _gemmt),
        Routine("syrk", "sdcz", _RANK_K, _rank_k),
        Routine("herk", "cz", _RANK_K, _rank_k, is_hermitian=True),
        Routine("syr2k", "sdcz", _RANK_2K, _rank_2k),
        Routine("her2k", "cz", _RANK_2K, _rank_2k, is_hermitian=True),
        Routine("symm", "sdcz", _SYMM, _symm),
        Routine("hemm", "cz", _SYMM, _symm, is_hermitian=True),
        Routine("trmm", "sdcz", _TRIANGULAR, _triangular),
        Routine("trsm", "sdcz", _TRIANGULAR, _triangular),
    )
}
"""By kind. `numpy_ext/fast_level3.c` has the same table for calls without Python."""


def make_functions(kind: str) -> tuple[Callable[..., Array], ...]:
    """The functions of a routine, in the order of its letters."""
    routine = ROUTINES[kind]
    return tuple(_make_function(routine, letter + kind) for letter in routine.letters)


def _make_function(routine: Routine, name: str) -> Callable[..., Array]:
    signature = routine.signature()
    convert = Arguments(name, signature)
    choices = routine.choices(convert.dtype)

    def function(*args: Any, **kwargs: Any) -> Array:
        return _execute(routine, convert, choices, convert.bind(args, kwargs))

    function.__signature__ = signature  # type: ignore[attr-defined]
    return named(function, name, document(routine.kind, convert, choices.get("trans", ())))


def _execute(
    routine: Routine,
    convert: Arguments,
    choices: dict[str, tuple[int, ...]],
    given: dict[str, Any],
) -> Array:
    """Convert the arguments of a call, and do it; `choices` are the values of its options."""
    overwrite_option = convert.optional[-1]
    overwrite = convert.flag(overwrite_option, given.pop(overwrite_option, 0))
    for option in choices.keys() & given:
        given[option] = convert.choice(option, given[option], choices[option])
    given["alpha"] = convert.factor("alpha", given["alpha"])
    if given.get("beta") is None:
        given["beta"] = 0
    else:
        given["beta"] = convert.factor("beta", given["beta"])
    given["a"] = convert.array(given["a"], 2)
    result = None
    if overwrite_option == "overwrite_b":
        result = convert.result(given["b"], overwrite)
        given["b"] = with_ndim(result, 2)
    elif "b" in given:
        given["b"] = convert.array(given["b"], 2)
    c = given.pop("c", None)
    if c is not None:
        result = convert.result(c, overwrite)
    elif result is None:
        given["beta"] = 0
    shape, calls = routine.form(Values(**given), routine, convert)
    if result is None:
        result = np.zeros(shape, convert.dtype, order="F")
    target = with_ndim(result, 2)
    if target.shape != shape:
        raise ValueError(f"{convert.name}: c: got shape {np.shape(c)}, expected {shape}")
    for call in [x.without_overlap() for x in calls(target)]:  # before the first writes to it
        call.execute()
    return result
