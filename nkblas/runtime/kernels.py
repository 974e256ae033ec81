"""From specs to addresses: in this process, else in the store, else compiled."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from nkblas.cache.store import Store
from nkblas.codegen.compiler_client import CompileError, Compiler, NotLinkedError
from nkblas.codegen.loader import open_library
from nkblas.codegen.spec import KernelSpec
from nkblas.system.config import cache_folder
from nkblas.system.lock import planning_lock
from nkblas.system.log import log

Guard: TypeAlias = Callable[[], contextlib.AbstractContextManager[None]]


class KernelUnavailableError(RuntimeError):
    """A kernel is not to be had in this process.

    Attributes
    ----------
    cause : str
        Why, whichever kernel it is.
    """

    def __init__(self, spec: KernelSpec, cause: str) -> None:
        super().__init__(f"{spec.symbol}: {cause}")
        self.cause = cause


MOST = 1 << 12
"""With so many kernels loaded, no more are for a better plan: products do with what is there. (One
takes 13 KB of memory, and 4 of the 65,530 pieces that Linux gives a process of it.)"""


class Kernels:
    """The kernels of this process.

    Attributes
    ----------
    addresses : dict of KernelSpec to int
        What is loaded.
    compiled, loaded : int
        Kernels that this process had compiled, and that it found in the store.
    """

    def __init__(self) -> None:
        self.addresses: dict[KernelSpec, int] = {}
        self.compiled = 0
        self.loaded = 0
        self._failed: dict[KernelSpec, str] = {}
        self._store: Store | None = None
        self._compiler = Compiler()
        self._in_memory: list[Any] = []  # keeps execution engines alive
        os.register_at_fork(after_in_child=self._compiler.forget)

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = Store(cache_folder())
        return self._store

    def load(self, specs: Iterable[KernelSpec], jit: bool = True) -> dict[KernelSpec, int]:
        """Addresses of kernels; those that are nowhere yet are compiled if `jit`.

        The caller is inside of `nkblas.system.lock.preparing`.

        Raises
        ------
        KernelsUnavailableError
            One of them can't be had.
        """
        wanted = list(specs)
        missing = [s for s in wanted if s not in self.addresses and not self._from_store(s)]
        for spec in missing:
            if not jit:
                raise KernelUnavailableError(spec, "not in the store, and NKBLAS_JIT=never")
            self._make(spec, self._compiler, contextlib.nullcontext)
        return {spec: self.addresses[spec] for spec in wanted}

    def load_unlocked(self, specs: Iterable[KernelSpec]) -> None:
        """Have kernels loaded; meanwhile other threads may prepare products.

        The caller is not inside of `nkblas.system.lock.preparing`.

        Raises
        ------
        KernelsUnavailableError
            One of them can't be had.
        """
        for spec in specs:
            with planning_lock():
                there = spec in self.addresses or self._from_store(spec)
            if not there:
                self._make(spec, self._compiler, planning_lock)

    def compile_all(
        self, specs: Iterable[KernelSpec], processes: int, done: Callable[[KernelSpec], None]
    ) -> None:
        """Have many kernels, compiled in so many processes; who can't be had is left out.

        `done` is called after each. The caller is not inside of `nkblas.system.lock.preparing`.
        """
        left = list(specs)[::-1]
        telling = threading.Lock()

        def work() -> None:
            compiler = Compiler()
            try:
                while left:
                    with contextlib.suppress(IndexError, KernelUnavailableError):
                        self._make(spec := left.pop(), compiler, planning_lock)
                        with telling:
                            done(spec)
            finally:
                compiler.close()

        threads = [threading.Thread(target=work, daemon=True) for _ in left[:processes]]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            left.clear()  # an interrupt: what is under way is finished, and no more

    @property
    def is_full(self) -> bool:
        """Whether there are so many that there should be no more of them."""
        return len(self.addresses) >= MOST

    def is_available(self, spec: KernelSpec) -> bool:
        """Whether a kernel is there to be used: it does not have to be compiled."""
        return spec in self.addresses or (not self.is_full and self.store.has(spec))

    def where(self, spec: KernelSpec) -> str:
        """Where a kernel is: "process", "store" or "nowhere" (yet)."""
        if spec in self.addresses:
            return "process"
        return "store" if self.store.get(self.store.key(spec)) is not None else "nowhere"

    def _from_store(self, spec: KernelSpec) -> bool:
        library = self.store.get(self.store.key(spec))
        if library is None:
            return False
        try:
            self.addresses[spec] = open_library(spec, library)
        except OSError as error:
            log("warning", f"{spec.symbol} can't be loaded ({error}): it is made again")
            return False
        self.loaded += 1
        return True

    def _make(self, spec: KernelSpec, compiler: Compiler, guard: Guard) -> None:
        """Compile a kernel and load it; `guard` is around what a fork must not come into."""
        if spec in self._failed:
            raise KernelUnavailableError(spec, self._failed[spec])
        try:
            with guard():
                log("debug", f"compiling {spec.symbol}")
                import subprocess  # noqa: F401

                key = self.store.key(spec)
                if not self.store.is_locked(key):  # else another process will have made it
                    compiler.start()
            with self.store.lock(key):
                if spec in self.addresses or self._from_store(spec):
                    return  # made by another while this one waited
                library = compiler.compile(spec)
                self.store.put(key, library, spec)
                self.addresses[spec] = open_library(spec, library)
        except NotLinkedError as error:
            log("warning", f"{error}; kernels stay in memory, for this process alone", once=True)
            with guard():
                from nkblas.codegen.lowering import pipeline

                # the helper has gone through the same before
                self.addresses[spec], engine = pipeline.in_memory(spec)
                self._in_memory.append(engine)
        except (CompileError, OSError) as error:
            if len(self._failed) >= MOST:
                self._failed.clear()
            self._failed[spec] = str(error)
            raise KernelUnavailableError(spec, str(error)) from None
        self.compiled += 1
        log("info", f"compiled {spec.symbol}")


kernels = Kernels()
load = kernels.load
