"""The kernels of this process: from a `KernelSpec` to the address of a function.

A kernel that is not loaded yet comes with the package, from the store on disk, or else from the
compiler.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Literal, TypeAlias

from nkblas._engine import lib
from nkblas.cache.shipped import ShippedKernels
from nkblas.cache.store import Store
from nkblas.codegen.compiler_client import CompileError, Compiler, NotLinkedError
from nkblas.codegen.loader import load_kernel
from nkblas.codegen.spec import KernelSpec
from nkblas.system import config
from nkblas.system.config import cache_folder
from nkblas.system.lock import planning_lock
from nkblas.system.log import log
from nkblas.system.toolchain import toolchain

LockFactory: TypeAlias = Callable[[], contextlib.AbstractContextManager[None]]

Location = Literal["process", "package", "store", "nowhere"]


class KernelUnavailableError(RuntimeError):
    """A kernel can't be loaded or compiled in this process.

    Attributes
    ----------
    cause : str
        The reason, without the kernel's name.
    """

    def __init__(self, spec: KernelSpec, cause: str) -> None:
        super().__init__(f"{spec.symbol}: {cause}")
        self.cause = cause


@cache
def cannot_compile_reason() -> str:
    """Why this process compiles nothing; empty if it may."""
    if config.JIT_MODE == "never":
        return "NKBLAS_JIT=never"
    return "" if toolchain() else "the package mlir is not installed"


COMPILE_NS = 50e6
"""About how long the compilation of a kernel takes, in nanoseconds."""

MAX_LOADED_KERNELS = 1 << 12
"""With this many kernels loaded, no more are loaded for the sake of a better plan. (Each takes
13 KB of memory, and 4 of the 65,530 memory mappings that Linux allows a process.)"""


class Kernels:
    """The kernels of this process.

    Attributes
    ----------
    addresses : dict of KernelSpec to int
        The loaded kernels.
    """

    def __init__(self) -> None:
        self.addresses: dict[KernelSpec, int] = {}
        self._failed: dict[KernelSpec, str] = {}
        self._shipped: ShippedKernels | None = None
        self._store: Store | None = None
        self._compiler = Compiler()
        self._background_compiler = Compiler(in_background=True)
        self._execution_engines: list[Any] = []  # own the kernels that were not linked
        os.register_at_fork(after_in_child=self._forget_compilers)

    @property
    def shipped(self) -> ShippedKernels:
        """The kernels in the package."""
        if self._shipped is None:
            self._shipped = ShippedKernels()
        return self._shipped

    @property
    def store(self) -> Store:
        """The store in the cache folder."""
        if self._store is None:
            self._store = Store(cache_folder())
        return self._store

    def load(self, specs: Iterable[KernelSpec], jit: bool = True) -> dict[KernelSpec, int]:
        """Load kernels. The caller holds `planning_lock`.

        Parameters
        ----------
        specs : iterable of KernelSpec
        jit : bool
            Whether missing kernels are compiled.

        Returns
        -------
        dict of KernelSpec to int
            Their addresses.

        Raises
        ------
        KernelUnavailableError
            One of them can't be loaded or compiled.
        """
        specs = list(specs)
        missing = [s for s in specs if s not in self.addresses and not self._load_compiled(s)]
        for spec in missing:
            if not jit:
                raise KernelUnavailableError(
                    spec, f"not in the store, and {cannot_compile_reason()}"
                )
            self._compile(spec, self._compiler, contextlib.nullcontext)
        return {spec: self.addresses[spec] for spec in specs}

    def _forget_compilers(self) -> None:
        """Drop the compile servers in the child of a fork."""
        self._compiler.forget()
        self._background_compiler.forget()

    def load_unlocked(self, specs: Iterable[KernelSpec]) -> None:
        """Load kernels without the lock: other threads may plan while one is compiled.

        Nothing waits for them: they are compiled at the lowest priority. The caller does not hold
        `planning_lock`.

        Raises
        ------
        KernelUnavailableError
            One of them can't be loaded or compiled.
        """
        for spec in specs:
            with planning_lock():
                is_loaded = spec in self.addresses or self._load_compiled(spec)
            if not is_loaded:
                self._compile(spec, self._background_compiler, planning_lock)

    def compile_all(
        self, specs: Iterable[KernelSpec], processes: int, on_done: Callable[[KernelSpec], None]
    ) -> None:
        """Compile and load kernels, with several compile servers at once.

        A kernel that can't be compiled is skipped. The caller does not hold `planning_lock`.

        Parameters
        ----------
        specs : iterable of KernelSpec
        processes : int
            Number of compile servers.
        on_done : callable
            Called after each kernel, by one thread at a time.
        """
        queue = list(specs)[::-1]
        callback_lock = threading.Lock()

        def work() -> None:
            compiler = Compiler()
            try:
                while queue:
                    with contextlib.suppress(IndexError, KernelUnavailableError):
                        self._compile(spec := queue.pop(), compiler, planning_lock)
                        with callback_lock:
                            on_done(spec)
            finally:
                compiler.close()

        threads = [threading.Thread(target=work, daemon=True) for _ in queue[:processes]]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            queue.clear()  # after an interrupt: the threads finish their kernels, and end

    @property
    def is_full(self) -> bool:
        """Whether `MAX_LOADED_KERNELS` are loaded."""
        return len(self.addresses) >= MAX_LOADED_KERNELS

    def is_available(self, spec: KernelSpec) -> bool:
        """Whether a kernel can be used without being compiled."""
        if spec in self.addresses or self.shipped.find(spec) is not None:
            return True
        return not self.is_full and self.store.has(spec)

    def location(self, spec: KernelSpec) -> Location:
        """Where a kernel is: loaded in this process, in the package, in the store, or nowhere."""
        if spec in self.addresses:
            return "process"
        if self.shipped.find(spec) is not None:
            return "package"
        return "store" if self.store.get(self.store.key(spec)) is not None else "nowhere"

    def _load_compiled(self, spec: KernelSpec) -> bool:
        """Load a kernel that has been compiled before; whether there is one."""
        shipped = self.shipped.find(spec)
        if shipped is not None:
            self.addresses[spec] = shipped
            lib.nk_get_counters().kernels_loaded += 1
            return True
        library = self.store.get(self.store.key(spec))
        if library is None:
            return False
        try:
            self.addresses[spec] = load_kernel(spec, library)
        except OSError as error:
            log("warning", f"{spec.symbol} can't be loaded ({error}): it is compiled again")
            return False
        lib.nk_get_counters().kernels_loaded += 1
        return True

    def _compile(self, spec: KernelSpec, compiler: Compiler, lock: LockFactory) -> None:
        """Compile a kernel, store it and load it.

        Parameters
        ----------
        spec : KernelSpec
        compiler : Compiler
        lock : callable
            `planning_lock`, unless the caller holds it: it is held where a fork must not happen,
            during imports and the start of the compile server.

        Raises
        ------
        KernelUnavailableError
            It can't be compiled, now or in an earlier attempt.
        """
        if spec in self._failed:
            raise KernelUnavailableError(spec, self._failed[spec])
        counters = lib.nk_get_counters()
        try:
            with lock():
                log("debug", f"compiling {spec.symbol}")
                # imported here, as late as possible: a warm process does not need it
                import subprocess  # noqa: F401

                key = self.store.key(spec)
                if not self.store.is_locked(key):  # else another process is compiling it
                    compiler.start()
            with self.store.lock(key):
                if spec in self.addresses or self._load_compiled(spec):
                    return  # another thread or process compiled it while this one waited
                library = compiler.compile(spec)
                counters.kernels_compiled += 1  # before another thread can load and use it
                self.store.put(key, library, spec)
                self.addresses[spec] = load_kernel(spec, library)
        except NotLinkedError as error:
            log("warning", f"{error}; kernels stay in memory, for this process alone", once=True)
            with lock():
                # imported here: it imports MLIR, which a process with a linker never does
                from nkblas.codegen.lowering import pipeline

                # the compile server has done the same before: it does not crash this process
                self.addresses[spec], engine = pipeline.in_memory(spec)
                counters.kernels_compiled += 1
                self._execution_engines.append(engine)
        except (CompileError, OSError) as error:
            if len(self._failed) >= MAX_LOADED_KERNELS:
                self._failed.clear()
            self._failed[spec] = str(error)
            raise KernelUnavailableError(spec, str(error)) from None
        log("info", f"compiled {spec.symbol}")


kernels = Kernels()
"""The kernels of this process."""

load = kernels.load
