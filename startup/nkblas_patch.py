"""Patches NumPy in this process once it is imported, as the variable ``NKBLAS_PATCH`` requests.

The line in ``nkblas_patch.pth`` imports this module when Python starts. It must not import NumPy,
and must not fail: a process without NumPy never notices it. So it has no base classes of
`importlib.abc`, and no annotations that need an import: these would take 8 ms.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class _NumPyFinder:
    """A meta path finder that finds NumPy by the other finders, and has it patched.

    It stays in the path, and finds nothing more once NumPy is imported: an import in another
    thread, which goes through the path, would miss a finder after it if it left.
    """

    is_waiting = True

    def find_spec(
        self, name: str, path: "Any" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """The spec of NumPy; None for all other modules."""
        if name != "numpy" or not self.is_waiting:
            return None
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _PatchingLoader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _PatchingLoader:
    """NumPy's loader, until NumPy is imported."""

    def __init__(self, loader: "Any") -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self.loader, name)

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        """The module, as NumPy's own loader makes it."""
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: "ModuleType") -> None:
        """Import NumPy, and patch it."""
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        _finder.is_waiting = False
        _patch()


is_left_to_nkblas = False
"""Whether nkblas is imported before NumPy: then it patches at the end of its import."""


def _patch() -> None:
    global is_left_to_nkblas
    try:
        # imports NumPy, which is there now
        import nkblas

        if hasattr(nkblas, "patch"):
            nkblas.patch()
        else:
            is_left_to_nkblas = True
    except Exception as error:
        message = str(error).partition("\n")[0]
        print(f"nkblas: NumPy is not patched: {type(error).__name__}: {message}", file=sys.stderr)


_finder = _NumPyFinder()


def install() -> None:
    """Wait for NumPy. Python may read a .pth file more than once."""
    if "numpy" in sys.modules:
        _patch()
    elif _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
