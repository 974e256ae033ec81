"""The benchmark's cases, by suite. This module is data: it does not import NumPy."""

from itertools import chain
from typing import Any, Literal, NamedTuple, TypeAlias

PEER_NAMES = ("numpy", "openblas", "aocl", "mkl", "torch", "jax")
"""The libraries that nkblas is compared with, in the order of the columns and legends."""

REAL_DTYPES = ("float32", "float64")

DTYPES = (
    *REAL_DTYPES,
    *("complex64", "complex128"),
    *("float16", "bfloat16", "float16_float32", "bfloat16_float32"),
    *("int8", "uint8", "int8_int32", "uint8_int8_int32"),
    *("int16", "int32", "int64", "bool"),
)
"""The combinations of element types that the suites measure; `parse_dtypes` reads them."""

Layout: TypeAlias = Literal["", ".T", "[::2]", "[:, ::2]"]
"""Memory layout of an operand: the expression that turns a C-contiguous array into it."""

Activation: TypeAlias = Literal["", "relu", "gelu", "gelu_tanh"]
"""Activation function of a layer; "gelu" is the definition with erf."""

ACTIVATIONS: tuple[Activation, ...] = ("relu", "gelu", "gelu_tanh")


class OperandDtypes(NamedTuple):
    """The element types of A, B and C."""

    a: str
    b: str
    c: str

    def __str__(self) -> str:
        operands = self.a if self.a == self.b else f"{self.a}, {self.b}"
        return operands if self.a == self.b == self.c else f"{operands} -> {self.c}"


def parse_dtypes(dtype: str) -> OperandDtypes:
    """Element types from their abbreviation.

    The abbreviation is one type ("int8"), the type of A and B and that of C ("int8_int32"), or all
    three ("uint8_int8_int32").
    """
    names = dtype.split("_")
    return OperandDtypes(names[0], names[1] if len(names) == 3 else names[0], names[-1])


class Case(NamedTuple):
    """One product ``C[m, n] = A[m, k] @ B[k, n]``, a batch of products, or a fused layer.

    If m is 1 the left operand is a vector (one dimension); if n is 1 the right operand is.

    Attributes
    ----------
    m, n, k : int
    batch : int
        Number of products in a batch, whose operands are arrays of three dimensions; 0 for a
        single product.
    a, b : {"", ".T", "[::2]", "[:, ::2]"}
        Layout of the operand. (In a batch, ".T" is printed as ".mT".)
    activation : {"", "relu", "gelu", "gelu_tanh"}
        If not empty, the case is the layer ``activation(A @ B + bias)``.
    packed : bool
        Whether nkblas packs B in advance, outside the measured call.
    batch_reduce : bool
        Whether the products of the batch are summed, so that C is a single matrix.
    """

    m: int
    n: int
    k: int
    batch: int = 0
    a: Layout = ""
    b: Layout = ""
    activation: Activation = ""
    packed: bool = False
    batch_reduce: bool = False

    def flops(self, dtype: str) -> int:
        """Number of arithmetic operations of the products.

        A multiplication and an addition for each of the m * n * k terms; four of each for complex
        numbers.
        """
        flops_per_term = 8 if dtype.startswith("complex") else 2
        return flops_per_term * (self.batch or 1) * self.m * self.n * self.k

    @property
    def elements(self) -> int:
        """Number of elements of A, B and C: the minimum of the memory traffic."""
        items = self.batch or 1
        results = 1 if self.batch_reduce else items
        return items * (self.m * self.k + self.k * self.n) + results * self.m * self.n

    @property
    def plain_product(self) -> "Case":
        """The same product without activation and with an unpacked B."""
        return self._replace(activation="", packed=False)

    @property
    def size(self) -> str:
        """The sizes as a label: "7x9x8", or "5 of 7x9x8" for a batch."""
        size = f"{self.m}x{self.n}x{self.k}"
        return f"{self.batch} of {size}" if self.batch else size

    @property
    def expression(self) -> str:
        """The case as a Python expression; empty for ``a @ b``."""
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
    """Cases that are reported together.

    Attributes
    ----------
    description : str
        The cases in a few words, for titles.
    groups : dict of str to tuple of Case
        The cases, by the heading that they share in a figure; an empty heading for a single group.
    uses_out : bool
        Whether results are written to an existing array (``out=``) or to a new one (``a @ b``).
    may_be_memory_bound : bool
        Whether memory bandwidth may limit the cases; if so, it is measured as well.
    note : str
        A remark that is printed below the title.
    dtypes : tuple of str
        Abbreviations that `parse_dtypes` reads.
    peers : tuple of str
        The peers that are measured by default, of `PEER_NAMES`.
    rows_are_dtypes : bool
        Whether a table has a row for each dtype of one case, instead of a row for each case of one
        dtype.
    """

    description: str
    groups: dict[str, Cases]
    uses_out: bool = True
    may_be_memory_bound: bool = False
    note: str = ""
    dtypes: tuple[str, ...] = REAL_DTYPES
    peers: tuple[str, ...] = ("numpy", "openblas", "aocl", "mkl", "torch")
    rows_are_dtypes: bool = False

    @property
    def cases(self) -> Cases:
        """The cases of all groups."""
        return tuple(chain.from_iterable(self.groups.values()))


def make_cases(*sizes: tuple[int, int, int], **options: Any) -> Cases:
    """Cases of several sizes (m, n, k) that share all other options of `Case`."""
    return tuple(Case(*size, **options) for size in sizes)


def square_cases(*sides: int) -> Cases:
    """Products of square matrices."""
    return make_cases(*((side, side, side) for side in sides))


def batch_of_256_kb(case: Case) -> Case:
    """A batch of as many products as fit 256 KB in float32: beyond L1, in L2 even in float64."""
    return case._replace(batch=(256 << 10) // 4 // case.elements)


LARGE_DIMENSIONS = ((1024, 1024), (2048, 4096))
"""The two large dimensions of a skinny product: an operand that fits L3, and one beyond L3."""

SMALL_DIMENSIONS = (2, 3, 4, 8, 16)
"""The small dimension of a skinny product."""

GEMV_SHAPES = (
    *((side, side) for side in (256, 512, 1024, 2048, 4096, 8192)),
    (512, 8192),
    (8192, 512),
)
"""Rows and columns of the matrix in a matrix-vector product."""

LAYOUT_SIZES = ((256, 256, 256), (1024, 1024, 1024), (128, 768, 3072))
"""(m, n, k) of the products that are measured with several layouts."""

PAPER_SIZES = (
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
"""(m, n, k) of the layers in the evaluation of "Library Liberation" (arXiv 2511.13764)."""

PACKED_SHAPES = ((768, 3072), (3072, 768), (1024, 1024), (1024, 4096))
"""Rows and columns of a weight matrix that is packed once and multiplied by few rows at a time."""

SUITES = {
    "square": Suite(
        "square matrices",
        {"": square_cases(8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)},
    ),
    "paper": Suite("layers of neural networks", {"": make_cases(*PAPER_SIZES)}),
    "small": Suite(
        "sides of 2 to 64",
        {
            "square": square_cases(2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 56, 64),
            "uneven": make_cases(
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
        uses_out=False,
        note="Times include the allocation of the result, unless --out is given. MKL allocates "
        "no result: its C function is called directly, with arguments that were converted once.",
    ),
    "batched": Suite(
        "batches of matrices",
        {
            "256 KB in float32": tuple(
                map(batch_of_256_kb, square_cases(4, 5, 6, 8, 12, 16, 24, 32))
            ),
            "attention, 96 heads": (
                *make_cases((64, 64, 32), (128, 128, 64), batch=96, b=".T"),
                *make_cases((64, 32, 64), (128, 64, 128), batch=96),
                *make_cases((64, 64, 32), (128, 128, 64), batch=96),
            ),
        },
        note="MKL: gemm_batch_strided. PyTorch: bmm.",
    ),
    "skinny": Suite(
        "one dimension small, two large",
        {
            **{
                f"m x {n} x {k}": make_cases(*((m, n, k) for m in SMALL_DIMENSIONS))
                for k, n in LARGE_DIMENSIONS
            },
            **{
                f"{m} x n x {k}": make_cases(*((m, n, k) for n in SMALL_DIMENSIONS))
                for m, k in LARGE_DIMENSIONS
            },
            **{
                f"{m} x {n} x k": make_cases(*((m, n, k) for k in (1, *SMALL_DIMENSIONS)))
                for m, n in LARGE_DIMENSIONS
            },
        },
        may_be_memory_bound=True,
    ),
    "gemv": Suite(
        "matrix times vector and vector times matrix",
        {
            "a @ vector": make_cases(*((rows, 1, columns) for rows, columns in GEMV_SHAPES)),
            "a.T @ vector": make_cases(
                *((columns, 1, rows) for rows, columns in GEMV_SHAPES), a=".T"
            ),
            "vector @ b": make_cases(*((1, columns, rows) for rows, columns in GEMV_SHAPES)),
            "vector @ b.T": make_cases(
                *((1, rows, columns) for rows, columns in GEMV_SHAPES), b=".T"
            ),
        },
        may_be_memory_bound=True,
        note="MKL: gemv. PyTorch: mv.",
    ),
    "transposed": Suite(
        "transposed and strided operands",
        {
            "a.T @ b": make_cases(*LAYOUT_SIZES, a=".T"),
            "a @ b.T": make_cases(*LAYOUT_SIZES, b=".T"),
            "a.T @ b.T": make_cases(*LAYOUT_SIZES, a=".T", b=".T"),
            "a[::2] @ b": make_cases(*LAYOUT_SIZES, a="[::2]"),
            "a[:, ::2] @ b": make_cases(*LAYOUT_SIZES, a="[:, ::2]"),
        },
        note="MKL has no function for a[:, ::2]: the timed call copies it into an existing "
        "buffer first. NumPy and PyTorch copy internally.",
    ),
    "dtypes": Suite(
        "all element types",
        {
            "": (
                *square_cases(128, 256, 512, 1024),
                *make_cases((128, 768, 768), (1, 4096, 4096)),
            )
        },
        note="MKL multiplies 8-bit integers only as uint8 x int8: an int8 A is shifted in the "
        "timed call. JAX has its own array type, and allocates each result.",
        dtypes=DTYPES,
        peers=PEER_NAMES,
        rows_are_dtypes=True,
    ),
    "layers": Suite(
        "activation(a @ b + bias)",
        {name: make_cases(*PAPER_SIZES, activation=name) for name in ACTIVATIONS},
        note="Only the operations of the product are counted. NumPy: matmul, add, and the ufuncs "
        "of the activation, in place. PyTorch: the fastest of several calls, some of which use "
        "packed weights. nkblas: gemm with packed or unpacked weights, whichever is faster.",
        dtypes=("float32",),
        peers=("numpy", "torch"),
    ),
    "packed": Suite(
        "weights that nkblas packs in advance",
        {
            f"m x {n} x {k}": make_cases(*((m, n, k) for m in (1, 2, 4, 8, 16, 32)), packed=True)
            for k, n in PACKED_SHAPES
        },
        may_be_memory_bound=True,
        note="The peers, and nkblas's a @ b, multiply by the unpacked weights.",
        dtypes=("float32", "bfloat16_float32", "bfloat16", "int8_int32"),
    ),
    "brgemm": Suite(
        "batch-reduce: the sum of a batch of products",
        {
            "16 blocks": tuple(
                x._replace(batch=16, batch_reduce=True) for x in square_cases(32, 64, 128)
            )
        },
        note="NumPy: matmul of the blocks, which are concatenated in advance. MKL, PyTorch: the "
        "fastest of that, one call for each block, and (PyTorch) functions that sum a batch.",
    ),
}
