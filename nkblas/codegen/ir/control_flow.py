"""Functions, intrinsics, loops and branches."""

from collections.abc import Callable, Sequence

from mlir import ir
from mlir.dialects import scf

from .arithmetic import const_i64
from .types import Type, Value, i64


def create_function(
    name: str, types: Sequence[Type], section: str, attributes: dict[str, str | None]
) -> ir.Block:
    """Add a C function without result to the module; returns its entry block.

    `attributes` are LLVM's function attributes.
    """
    text = ir.StringAttr.get
    passthrough = [
        text(key) if value is None else ir.ArrayAttr.get([text(key), text(value)])
        for key, value in attributes.items()
    ]
    signature = f"!llvm.func<void ({', '.join(str(t) for t in types)})>"
    op = ir.Operation.create(
        "llvm.func",
        attributes={
            "sym_name": text(name),
            "function_type": ir.TypeAttr.get(ir.Type.parse(signature)),
            "linkage": ir.Attribute.parse("#llvm.linkage<external>"),
            "CConv": ir.Attribute.parse("#llvm.cconv<ccc>"),
            "visibility_": ir.IntegerAttr.get(i64(), 0),
            "section": text(section),
            "passthrough": ir.ArrayAttr.get(passthrough),
        },
        regions=1,
    )
    return op.regions[0].blocks.append(*types)


def return_() -> None:
    """Return from the function."""
    ir.Operation.create("llvm.return")


def call_intrinsic(name: str, result: Type | None, *operands: Value) -> Value:
    """Call an LLVM intrinsic; `result` is the type of its result, None if it has none."""
    op = ir.Operation.create(
        "llvm.call_intrinsic",
        results=[] if result is None else [result],
        operands=list(operands),
        attributes={
            "intrin": ir.StringAttr.get(name),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([len(operands), 0]),
            "op_bundle_sizes": ir.DenseI32ArrayAttr.get([]),
        },
    )
    return None if result is None else op.result


def for_loop(
    stop: Value,
    iter_args: Sequence[Value],
    body: Callable[[Value, list[Value]], Sequence[Value]],
    start: Value | None = None,
    step: int = 1,
) -> list[Value]:
    """``for (i = start; i < stop; i += step)``; returns the final `iter_args`.

    `body(i, iter_args)` emits the loop body and returns the `iter_args` of the next iteration.
    """
    first = const_i64(0) if start is None else start
    op = scf.ForOp(first, stop, const_i64(step), list(iter_args))
    with ir.InsertionPoint(op.body):
        scf.yield_(list(body(op.induction_variable, list(op.inner_iter_args))))
    return list(op.results_)


def if_else(
    condition: Value,
    then: Callable[[], Sequence[Value]],
    otherwise: Callable[[], Sequence[Value]],
    types: Sequence[Type] = (),
) -> list[Value]:
    """``condition ? then() : otherwise()``, as a branch; `types` are those of the results."""
    op = scf.IfOp(condition, list(types), has_else=True)
    for block, branch in ((op.then_block, then), (op.else_block, otherwise)):
        with ir.InsertionPoint(block):
            scf.yield_(list(branch()))
    return list(op.results_)


def if_then(
    condition: Value, then: Callable[[], Sequence[Value]], otherwise: Sequence[Value]
) -> list[Value]:
    """``condition ? then() : otherwise``, as a branch around `then`."""
    return if_else(condition, then, lambda: otherwise, [value.type for value in otherwise])
