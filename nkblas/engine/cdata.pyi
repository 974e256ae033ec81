"""Types of what `nkblas._engine` returns beside its structs; a stub without a module."""

from collections.abc import Sequence

class CData:
    """A value of C: a pointer, an array or a function."""

    def __int__(self) -> int: ...
    def __call__(self, *args: object) -> None: ...

class CArray(CData):
    """An array of anything but structs."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int | slice) -> CArray: ...
    def __setitem__(self, index: int | slice, value: object) -> None: ...

class CType:
    """A type of C."""

    kind: str
    cname: str
    item: CType
    args: Sequence[CType]
    result: CType
    fields: Sequence[tuple[str, CField]] | None

class CField:
    """A field of a struct."""

    type: CType
