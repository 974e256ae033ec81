"""Registers nkblas with threadpoolctl: for ``threadpool_info`` and ``threadpool_limits``.

threadpoolctl is not imported here (that would take 2 ms, and set an environment variable). If it
is imported already, nkblas is registered at once; else as soon as it is imported.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from nkblas.system.cpu import cpu
from nkblas.system.import_hook import Finder
from nkblas.system.log import log
from nkblas.system.version import __version__

NAME = "threadpoolctl"


def register(threadpoolctl: Any) -> None:
    """Register nkblas with threadpoolctl; nothing happens with versions before 3.2."""
    if not hasattr(threadpoolctl, "register"):
        return

    class Controller(threadpoolctl.LibController):  # type: ignore[misc]  # it has no types
        """Controls nkblas's thread pool; it counts as a BLAS (``user_api="blas"``)."""

        user_api = "blas"
        internal_api = "nkblas"
        filename_prefixes = ("_engine.",)
        # other libraries may have this prefix: nkblas's engine is the one with these symbols
        check_symbols = ("nk_get_num_threads", "nk_set_num_threads")

        def set_additional_attributes(self) -> None:
            self.threading_layer = "pthreads"
            self.architecture = cpu.isa.name

        def get_version(self) -> str:
            return __version__

        def get_num_threads(self) -> int:
            return int(self.dynlib.nk_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.nk_set_num_threads(num_threads)

    threadpoolctl.register(Controller)


class Loader:
    """Loads threadpoolctl with its own loader, and then registers nkblas."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The module, as its own loader creates it."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: Any) -> None:
        """Execute the module with its own loader, and register nkblas."""
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        try:
            register(module)
        except Exception as error:  # an unknown version must not fail the user's import
            log("warning", f"nkblas can't be registered with threadpoolctl: {error}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def install() -> None:
    """Register nkblas with threadpoolctl, now or when it is imported."""
    Finder(NAME.__eq__, Loader).install()
    if sys.modules.get(NAME):
        # it is imported already; if another thread is importing it, this waits for the end
        import threadpoolctl

        register(threadpoolctl)
