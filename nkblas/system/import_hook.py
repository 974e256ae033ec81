"""A meta path finder that has modules loaded by other loaders: to act when they are loaded."""

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Finder:
    """Finds what the finders after it in ``sys.meta_path`` find, and wraps its loader.

    It costs each import of another module one call, a tenth of a microsecond. Once installed, it
    stays: another thread's import, which goes through the list, would miss a finder if one before
    it was removed.

    Parameters
    ----------
    is_wanted : callable
        Whether a module is one of these, by its name.
    wrap : callable
        Returns a loader that takes the place of the one that was found.
    """

    def __init__(self, is_wanted: Callable[[str], bool], wrap: Callable[[Any], Any]) -> None:
        self._is_wanted = is_wanted
        self._wrap = wrap
        self._in_progress = threading.local()

    def install(self) -> None:
        """Have it asked before all others."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's specification; None leaves it to the other finders."""
        # another finder may do as this one does, and call this one in turn
        if not self._is_wanted(name) or name in vars(self._in_progress):
            return None
        setattr(self._in_progress, name, True)
        try:
            spec = self._find_with_others(name, path, target)
        finally:
            delattr(self._in_progress, name)
        if spec is not None and spec.loader is not None:
            spec.loader = self._wrap(spec.loader)
        return spec

    def _find_with_others(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        finders = list(sys.meta_path)
        if self not in finders:
            return None
        for finder in finders[finders.index(self) + 1 :]:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(name, path, target) if find_spec else None
            if spec is not None:
                return spec
        return None
