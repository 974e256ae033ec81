"""The products that are measured, by suite. Plain data: nothing here needs NumPy."""

from itertools import chain
from typing import Any, NamedTuple, TypeAlias

PEERS = ("numpy", "mkl", "torch", "jax")
"""In the order in which they are shown."""

REAL_PART = ("float32", "float64")

DTYPES = (
    *REAL_PART,
    *("complex64", "complex128"),
    *("float16", "bfloat16", "float16_float32", "bfloat16_float32"),
    *("int8", "uint8", "int8_int32", "uint8_int8_int32"),
    *("int16", "int32", "int64", "bool"),
)
"""What `types` takes apart, as far as it is measured."""

ACTIVATIONS = ("relu", "gelu", "gelu_tanh")
"""Of layers: gelu is the one with erf."""


class Types(NamedTuple):
    """The element types of A, B and C."""

    a: str
    b: str
    c: str

    def __str__(self) -> str:
        operands = self.a if self.a == self.b else f"{self.a}, {self.b}"
        return operands if self.a == self.b == self.c else f"{operands} -> {self.c}"


def types(dtype: str) -> Types:
    """The types that a text names: "int8", "int8_int32" (C's last), "uint8_int8_int32"."""
    names = dtype.split("_")
    return Types(names[0], names[1] if len(names) == 3 else names[0], names[-1])


class Case(NamedTuple):
    """One product ``C[m, n] = A[m, k] @ B[k, n]``, or a stack of them; or what is made of it.

    Where m (n) is 1, the left (right) operand is a vector: it has one dimension.

    Attributes
    ----------
    m, n, k : int
    batch : int
        Items of a stack, whose operands are arrays of three dimensions; 0 for a single product.
    a, b : str
        What is written behind the operand's name, a contiguous array in C order: nothing, or one
        of ".T" (of a stack: ".mT"), "[::2]" and "[:, ::2]".
    activation : str
        Of a layer, ``activation(A @ B + bias)`` of matrices: of `ACTIVATIONS`.
    packed : bool
        Whether B is packed before, by a contender that is measured with it.
    batch_reduce : bool
        Whether the products of the stack are added up: C is one matrix ("batch-reduce").
    """

    m: int
    n: int
    k: int
    batch: int = 0
    a: str = ""
    b: str = ""
    activation: str = ""
    packed: bool = False
    batch_reduce: bool = False

    def flops(self, dtype: str) -> int:
        """Operations of the products: a multiply and an add for each of m * n * k; four of each if
        complex."""
        each = 8 if dtype.startswith("complex") else 2
        return each * (self.batch or 1) * self.m * self.n * self.k

    @property
    def elements(self) -> int:
        """Elements of A, B and C: the least that has to go through memory."""
        items = self.batch or 1
        results = 1 if self.batch_reduce else items
        return items * (self.m * self.k + self.k * self.n) + results * self.m * self.n

    @property
    def product(self) -> "Case":
        """The product of a layer, or the one whose B is not packed; else the case itself."""
        return self._replace(activation="", packed=False)

    @property
    def size(self) -> str:
        size = f"{self.m}x{self.n}x{self.k}"
        return f"{self.batch} of {size}" if self.batch else size

    @property
    def expression(self) -> str:
        """What is made, as a user writes it; empty if it is the plain product."""
        b = f"pack(b{self.b})" if self.packed else f"b{self.b}"
        text = f"a{self.a} @ {b}"
        if self.batch:
            text = text.replace(".T", ".mT")
        if self.batch_reduce:
            text = f"sum({text})"
        if self.activation:
            text = f"{self.activation}({text} + bias)"
        return "" if text == "a @ b" else text

    def __str__(self) -> str:
        return f"{self.size}  {self.expression}".rstrip()


Cases: TypeAlias = tuple[Case, ...]


class Suite(NamedTuple):
    """Cases that are shown together.

    Attributes
    ----------
    about : str
        What they are, in a few words.
    groups : dict of str to tuple of Case
        The cases, by what else they have in common; no name where there is one group.
    out : bool
        Whether the result goes into a given array (``out=``), or into a new one: ``a @ b``.
    in_memory : bool
        Whether memory may be what bounds the cases: its bandwidth is measured as well.
    note : str
        What one has to know to read the figures.
    dtypes : tuple of str
        As for `types`.
    peers : tuple of str
        Of `PEERS`.
    by_dtype : bool
        Whether a table has a row for each dtype of one case, rather than for each case of one
        dtype.
    """

    about: str
    groups: dict[str, Cases]
    out: bool = True
    in_memory: bool = False
    note: str = ""
    dtypes: tuple[str, ...] = REAL_PART
    peers: tuple[str, ...] = ("numpy", "mkl", "torch")
    by_dtype: bool = False

    @property
    def cases(self) -> Cases:
        return tuple(chain.from_iterable(self.groups.values()))


def cases(*sizes: tuple[int, int, int], **others: Any) -> Cases:
    """Cases that differ in size alone."""
    return tuple(Case(*size, **others) for size in sizes)


def squares(*sides: int) -> Cases:
    return cases(*((side, side, side) for side in sides))


def stack(case: Case) -> Case:
    """As many as fill 256 KB in float32: more than L1, and still in L2 in float64."""
    return case._replace(batch=(256 << 10) // 4 // case.elements)


LARGE = ((1024, 1024), (2048, 4096))
"""The two large dimensions of a skinny product: an operand that fits L3, and one beyond."""

FEW = (2, 3, 4, 8, 16)

MATRICES = (
    *((side, side) for side in (256, 512, 1024, 2048, 4096, 8192)),
    (512, 8192),
    (8192, 512),
)
"""Rows and columns of what a vector is multiplied by."""

SIZES = ((256, 256, 256), (1024, 1024, 1024), (128, 768, 3072))
"""Of products that are the same in several layouts."""

LAYERS = (
    (1024, 1024, 512),
    (1024, 2560, 1024),
    (1024, 352, 512),
    (1024, 512, 256),
    (128, 1024, 1024),
    (128, 1024, 4096),
    (128, 3072, 768),
    (128, 4096, 1024),
    (128, 768, 2304),
    (128, 768, 3072),
    (128, 768, 768),
    (256, 1024, 1024),
    (256, 1024, 4096),
    (256, 3072, 768),
    (256, 4096, 1024),
    (256, 768, 3072),
    (256, 768, 768),
)
"""From the evaluation in "Library Liberation" (arXiv 2511.13764)."""

WEIGHTS = ((768, 3072), (3072, 768), (1024, 1024), (1024, 4096))
"""Rows and columns of a matrix that is packed once, for few rows at a time."""

SUITES = {
    "square": Suite(
        "square matrices",
        {"": squares(8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)},
    ),
    "paper": Suite("layers of neural networks", {"": cases(*LAYERS)}),
    "small": Suite(
        "sides of 2 to 64",
        {
            "square": squares(2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 56, 64),
            "uneven": cases(
                (3, 3, 8),
                (2, 2, 64),
                (7, 5, 11),
                (4, 4, 32),
                (4, 64, 4),
                (8, 32, 16),
                (17, 13, 31),
                (33, 31, 33),
                (64, 8, 64),
            ),
        },
        out=False,
        note="Whole calls, with the new array for the result, unless --out gives one. MKL makes "
        "none: it is called by its bare address, with arguments that are prepared once.",
    ),
    "batched": Suite(
        "stacks of matrices",
        {
            "256 KB in float32": tuple(map(stack, squares(4, 5, 6, 8, 12, 16, 24, 32))),
            "attention, 96 heads": (
                *cases((64, 64, 32), (128, 128, 64), batch=96, b=".T"),
                *cases((64, 32, 64), (128, 64, 128), batch=96),
                *cases((64, 64, 32), (128, 128, 64), batch=96),
            ),
        },
        note="MKL: gemm_batch_strided. PyTorch: bmm.",
    ),
    "skinny": Suite(
        "one dimension small, two large",
        {
            **{f"m x {n} x {k}": cases(*((m, n, k) for m in FEW)) for k, n in LARGE},
            **{f"{m} x n x {k}": cases(*((m, n, k) for n in FEW)) for m, k in LARGE},
            **{f"{m} x {n} x k": cases(*((m, n, k) for k in (1, *FEW))) for m, n in LARGE},
        },
        in_memory=True,
    ),
    "gemv": Suite(
        "matrix times vector and vector times matrix",
        {
            "a @ vector": cases(*((rows, 1, columns) for rows, columns in MATRICES)),
            "a.T @ vector": cases(*((columns, 1, rows) for rows, columns in MATRICES), a=".T"),
            "vector @ b": cases(*((1, columns, rows) for rows, columns in MATRICES)),
            "vector @ b.T": cases(*((1, rows, columns) for rows, columns in MATRICES), b=".T"),
        },
        in_memory=True,
        note="MKL: gemv. PyTorch: mv.",
    ),
    "transposed": Suite(
        "transposed and strided operands",
        {
            "a.T @ b": cases(*SIZES, a=".T"),
            "a @ b.T": cases(*SIZES, b=".T"),
            "a.T @ b.T": cases(*SIZES, a=".T", b=".T"),
            "a[::2] @ b": cases(*SIZES, a="[::2]"),
            "a[:, ::2] @ b": cases(*SIZES, a="[:, ::2]"),
        },
        note="No call of MKL takes a[:, ::2]: it is copied inside of the timed call, into a buffer "
        "that is there. NumPy and PyTorch copy by themselves.",
    ),
    "dtypes": Suite(
        "every type of element",
        {
            "": (
                *squares(128, 256, 512, 1024),
                *cases((128, 768, 768), (1, 4096, 4096)),
            )
        },
        note="MKL has int8 only as uint8 x int8: where A is int8, the call shifts it. JAX has "
        "arrays of its own, and makes a new one for each result.",
        dtypes=DTYPES,
        peers=PEERS,
        by_dtype=True,
    ),
    "layers": Suite(
        "activation(a @ b + bias)",
        {name: cases(*LAYERS, activation=name) for name in ACTIVATIONS},
        note="Operations are those of the product. NumPy: matmul, add, and maximum or what gelu is "
        "made of, in place. PyTorch: the fastest of some forms, weights that it packed among them. "
        "nkblas: gemm with the weights as they are, or packed.",
        dtypes=("float32",),
        peers=("numpy", "torch"),
    ),
    "packed": Suite(
        "weights that nkblas packed before",
        {
            f"m x {n} x {k}": cases(*((m, n, k) for m in (1, 2, 4, 8, 16, 32)), packed=True)
            for k, n in WEIGHTS
        },
        in_memory=True,
        note="The others, and nkblas's own product, have the weights as they are.",
        dtypes=("float32", "bfloat16_float32", "bfloat16", "int8_int32"),
    ),
    "brgemm": Suite(
        "sums over a stack of products",
        {"16 blocks": tuple(x._replace(batch=16, batch_reduce=True) for x in squares(32, 64, 128))},
        note="NumPy: matmul of the blocks side by side, put there before. MKL, PyTorch: that, or "
        "one by one, or what adds up a stack: the fastest.",
    ),
}
