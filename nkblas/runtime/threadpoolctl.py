"""What shows nkblas to threadpoolctl: to its ``threadpool_info`` and ``threadpool_limits``.

threadpoolctl is not imported here (that would take 2 ms, and set an environment variable). If it
is there already, it gets to know nkblas at once; else when somebody imports it.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from nkblas.system.cpu import cpu
from nkblas.system.log import log

NAME = "threadpoolctl"


def register(threadpoolctl: Any) -> None:
    """Make nkblas known to threadpoolctl; nothing happens with one older than 3.2."""
    if not hasattr(threadpoolctl, "register"):
        return

    class Controller(threadpoolctl.LibController):
        """The pool of nkblas. It is a BLAS for who limits BLAS alone."""

        user_api = "blas"
        internal_api = "nkblas"
        filename_prefixes = ("_engine.",)  # and of those the one with these symbols:
        check_symbols = ("nk_get_num_threads", "nk_set_num_threads")

        def set_additional_attributes(self) -> None:
            self.threading_layer = "pthreads"
            self.architecture = cpu.isa.name

        def get_version(self) -> str:
            from nkblas import __version__

            return __version__

        def get_num_threads(self) -> int:
            return int(self.dynlib.nk_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.nk_set_num_threads(num_threads)

    threadpoolctl.register(Controller)


class Finder:
    """Finds threadpoolctl where the finders after it in ``sys.meta_path`` do, and nothing else.

    It costs each import of a new module one call, a tenth of a microsecond.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != NAME:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(name, path, target) if find_spec else None
            if spec:
                loader: Any = Loader(spec.loader) if spec.loader else None
                spec.loader = loader
                return spec
        return None


class Loader:
    """Loads threadpoolctl by the loader that was found for it, and registers nkblas."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        try:
            register(module)
        except Exception as error:  # an unknown version of it is no reason to fail its import
            log("warning", f"threadpoolctl does not get to know nkblas: {error}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def install() -> None:
    """Make nkblas known to threadpoolctl, now or when it is imported."""
    sys.meta_path.insert(0, Finder())
    if sys.modules.get(NAME):
        import threadpoolctl  # waits, if another thread is just importing it

        register(threadpoolctl)
