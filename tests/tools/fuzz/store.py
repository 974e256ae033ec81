"""The suite "store": damaged files in a cache folder, and how they are read.

The files of a few kernels and plans are damaged: bits, lengths, swapped contents, fields of
records, words of plans, kinds and modes of files. Readers may raise only the errors that they
document, a kernel is read from its own bytes or not at all, a plan that is read can be run, files
that were not damaged stay, and ``nkblas cache verify`` repairs the folder.
"""

import contextlib
import io
import json
import os
import random
import shutil
import stat
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nkblas
from nkblas.base.problem import Problem, parse
from nkblas.cache import maintenance
from nkblas.cache.store import Store
from nkblas.cli import command_line
from nkblas.codegen.spec import Copy, KernelSpec, Microkernel, Pack
from nkblas.planning import cost_model, measured_plans
from nkblas.planning.plan import Plan
from nkblas.runtime import kernels, plan_table
from nkblas.runtime.kernels import Kernels
from nkblas.system.cpu import cpu
from nkblas.system.lock import planning_lock

from .case import Wrong

BATCH = 10_000
"""Cases that share the files and a process."""

SPECS: list[KernelSpec] = [
    Microkernel("avx2", "float32", 6, 16, "row", False),
    Microkernel("avx2", "float64", 4, 8, "col", True),
    Pack("avx2", "float32", 16, "along"),
    Copy("avx2", "float32"),
]
SHAPES = ("20x33x48:f32", "64x64x64:f64", "5x17x9:f32:rcr", "40x40x40:f32:columns+relu")
FOREIGN = {"kernels/notes.txt": b"the user's own\n", "plans/todo.md": b"tune more\n"}
"""Files in the cache folder that are not nkblas's."""

EXTRA_FILES = (
    *("kernels/lock", "kernels/.{key}.so.0123abcd", "kernels/.{key}.json.abcd0123"),
    *("kernels/{key}.so", "kernels/{key}.json", "plans/.{machine}.txt.00112233"),
    *("plans/{other}.txt", "plans/lock"),
)
"""Names of additional files, such as nkblas itself uses."""

Step = Callable[[random.Random], str]
"""A check of one case; its fault, or empty."""

MAX_COMPILED = 4
"""Kernels that a batch may compile, to run plans that it has read."""

JSON_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 10**30, "", "x", "\ud800", "é", [], {}, [[]], {"kind": "Pack"}),
    *(float("inf"), float("nan"), "float32", "row", "Microkernel"),
)
NUMBERS = (
    *("0", "-1", "1", "2", "3", "7", "16", "64", "100", "65536", "9" * 20, "9" * 400, "1e3", "1_0"),
    *("nan", "inf", "-inf", "1e999", "0x10", "+5", " 5", "", "true", "²", "5\x00", "9" * 5000),
)
WORDS = (
    *("kind=tiles", "kind=dot", "kind=stream", "kind=base", "kind=", "family=fma", "family=amx"),
    *("family=", "mr=6", "ns=5", "=", "x", "x=1", "mr=6=7", "#", "\r", "\x0b", "\x85", "\x1c"),
)
PROBLEMS = (
    *("0x1x1:f32", "1x1x1:f32", "9x9:f32", "20x33x48:f16", "20x33x48", "20x33x48:f32:xyz", ":", ""),
    *(f"{'9' * 30}x1x1:f32", f"{'9' * 400}x1x1:f32", "1x1x1:f32:rrr:", "sum_of_20x33x48:f32"),
    *("20x33x48:f32:rpr", "20x33x48:i8:rrr:scale", "20x33x48:c64:ccs", "#20x33x48:f32"),
    *("٣x1x1:f32", f"{'9' * 5000}x1x1:f32", "20x33x48:f32:columns+relu+add", "20x33x48:f32:+"),
)


class Cases:
    """Runs the cases of a batch, each on the same files."""

    def __init__(self, seed: int, batch: int) -> None:
        self.seed = seed
        draw = random.Random(f"{seed}/{batch}")
        assert kernels.kernels.store  # opened now, in the folder of this process
        self.process_kernels = kernels.kernels
        self.compiled = 0
        self._parent = tempfile.TemporaryDirectory()
        self.folder = Path(self._parent.name, "cache")
        os.environ["NKBLAS_CACHE_DIR"] = str(self.folder)
        self.store = Store(self.folder)
        self.libraries = {
            self.store.key(spec): draw.randbytes(draw.randrange(3000)) for spec in SPECS
        }
        for spec in SPECS:
            self.store.put(self.store.key(spec), self.libraries[self.store.key(spec)], spec)
        measured_plans.measured.layers = {measured_plans.plan_file(cpu, measured_plans.SHIPPED): {}}
        self.plan_file = Path(measured_plans.plan_file(cpu, measured_plans.TUNED))
        self.plans = {}
        for text in SHAPES:
            problem = parse(text)
            plan = measured_plans.best_known_plan(problem, cpu)._replace(
                nanoseconds=float(draw.randrange(200, 10**6))
            )
            self.plans[problem] = plan
        measured_plans.append(str(self.plan_file), map(measured_plans.to_line, self.plans.values()))
        for name, content in FOREIGN.items():
            (self.folder / name).write_bytes(content)
        self.files = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.glob("*/*")
        }
        kernels_module.load_kernel = self._load_kernel
        self._opened: list[tuple[KernelSpec, bytes]] = []

    def _load_kernel(self, spec: KernelSpec, library: bytes) -> int:
        self._opened.append((spec, library))
        return 1

    # ---- one case

    def run(self, number: int) -> Wrong | None:
        """Run one case."""
        draw = random.Random(f"{self.seed}/{number}")
        self._restore()
        damage = Damage(draw, self.folder, self.files, self.plan_file.name)
        changes = damage.apply_several()
        self.touched = damage.touched
        self._opened.clear()
        why = ""
        try:
            why = self._check(draw)
        except Exception:
            why = traceback.format_exc()
        if not why:
            return None
        return Wrong(f"store {self.seed} {number}", f"after {'; '.join(changes)}: {why}", "")

    def _restore(self) -> None:
        """Restore the folder to its state before each case."""
        os.chmod(self.folder, 0o700)
        for name in ("kernels", "plans"):
            folder = self.folder / name
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                folder.unlink()
            folder.mkdir(0o700, exist_ok=True)
            folder.chmod(0o700)
            for entry in list(os.scandir(folder)):
                content = self.files.get(f"{name}/{entry.name}")
                found = entry.stat(follow_symlinks=False)
                if content is None or not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)
        for name, content in self.files.items():
            path = self.folder / name
            if (
                not path.exists()
                or path.stat().st_size != len(content)
                or path.read_bytes() != content
            ):
                path.write_bytes(content)
            path.chmod(0o600)
        measured_plans.measured.layers.clear()

    def _check(self, draw: random.Random) -> str:
        before = self._intact_lines()
        shares: tuple[tuple[Step, float], ...] = (
            (self._check_kernels, 1),
            (self._check_plans, 0.7),
            (self._check_listing, 0.1),
            (self._check_saving, 0.2),
        )
        steps = [step for step, share in shares if draw.random() < share]
        draw.shuffle(steps)
        for step in steps:
            if why := step(draw):
                return why
        if draw.random() < 0.6 and (why := self._check_verify(draw, before)):
            return why
        return self._check_emptying(draw) if draw.random() < 0.2 else ""

    # ---- checks

    def _check_kernels(self, draw: random.Random) -> str:
        """The store reads each kernel from its own bytes, or not at all."""
        any_spec = draw.choice(SPECS)
        for spec in SPECS:
            key = self.store.key(spec)
            if spec is not any_spec and not any(key in name for name in self.touched):
                continue
            right = self.libraries[key]
            if type(self.store.has(spec)) is not bool:
                return "has() is no bool"
            got = self.store.get(key)
            is_damaged = {f"kernels/{key}.so", f"kernels/{key}.json"} & self.touched
            if got is None and not is_damaged and not self.is_folder_touched:
                return f"the undamaged kernel {key} is not found"
            if got is not None and got != right:
                return f"kernel {key} is read from other bytes"
            try:
                self.store.read(key)
            except (OSError, ValueError):
                if got is not None:
                    return f"get() finds kernel {key}, and read() does not"
            self.store.is_locked(key)
            reader = Kernels()
            reader._store = self.store
            loaded = reader._load_compiled(spec)
            if loaded != (got is not None):
                return f"kernel {key} is loaded, and get() does not find it, or the reverse"
        if any(self.libraries[self.store.key(spec)] != library for spec, library in self._opened):
            return "other bytes were loaded"
        return ""

    @property
    def is_folder_touched(self) -> bool:
        """Whether the kernels' folder may be refused."""
        return bool({"", "kernels"} & self.touched)

    def _check_plans(self, draw: random.Random) -> str:
        """Undamaged plans are read; a plan that is read can be run."""
        measured = measured_plans.Plans()
        lines = self._intact_lines()
        for problem, right in self.plans.items():
            found = measured.find(problem, cpu)
            line = measured_plans.to_line(right)
            if line in lines and (found is None or measured_plans.to_line(found) != line):
                return f"the plan {line.strip()} is read as {found}"
            if found is not None and measured_plans.to_line(found) not in lines:
                panels = cost_model.prepacked_panels(problem, cpu)
                if found.problem != problem or found.schedule.infeasible_reason(
                    problem, cpu, panels
                ):
                    return f"a plan that can't be run is read: {found}"
                why = self._run(found)
                if why:
                    return why
            measured.is_tuned(problem, cpu)
        return ""

    def _intact_lines(self) -> set[str]:
        """The undamaged lines of plans that are the last ones of their problems."""
        name = f"plans/{self.plan_file.name}"
        if {"", "plans"} & self.touched or not self._is_readable(self.plan_file):
            return set()
        content = self.plan_file.read_bytes()
        if name not in self.touched:
            return set(map(measured_plans.to_line, self.plans.values()))
        lines = content.replace(b"\r", b"\n").split(b"\n")[:-1]
        found = set()
        for plan in self.plans.values():
            line = measured_plans.to_line(plan).encode()
            same = [x for x in lines if x.startswith(line.partition(b" ")[0] + b" ")]
            if same and same[-1] == line[:-1] and line in content:
                found.add(line.decode())
        return found

    def _is_readable(self, path: Path) -> bool:
        """Whether a file is an ordinary one that nkblas trusts."""
        try:
            found = path.lstat()
        except OSError:
            return False
        regular = stat.S_ISREG(found.st_mode) and not found.st_mode & 0o022
        return regular and found.st_size < 1 << 20

    def _run(self, plan: Plan) -> str:
        """Multiply by a plan, if it needs few kernels to be compiled."""
        problem = plan.problem
        if problem.m * problem.n * problem.k > 1 << 20 or problem.epilogue:
            return ""
        missing = sum(not self.process_kernels.is_available(spec) for spec in plan.kernels)
        if self.compiled + missing > MAX_COMPILED:
            return ""
        self.compiled += missing
        kernels_module.load_kernel = _load_kernel
        try:
            with planning_lock():
                plan_table.insert(plan)
        finally:
            kernels_module.load_kernel = self._load_kernel
        a, b = (
            (np.arange(rows * columns) % 7 - 3.0).astype(problem.dtype).reshape(rows, columns)
            for rows, columns in ((problem.m, problem.k), (problem.k, problem.n))
        )
        b = np.asfortranarray(b) if problem.b == "col" else b
        if not np.array_equal(nkblas.matmul(a, b), a @ b):
            return f"a wrong product by {plan}"
        return ""

    def _check_listing(self, draw: random.Random) -> str:
        """Listing and exporting raise no other error than OSError."""
        with contextlib.suppress(OSError):
            maintenance.kernels(self.store)
        with contextlib.suppress(OSError):
            for path, isa in maintenance.plan_files().items():
                with contextlib.suppress(OSError):
                    maintenance.read_plans(path, isa, cpu)
        if draw.random() < 0.05:
            return self._run_command("list", (0, 1)) or self._run_command("export", (0, 1), "-")
        return ""

    def _run_command(self, name: str, statuses: tuple[int, ...], *arguments: str) -> str:
        """Run ``nkblas cache``; the fault if its status is not one of these."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = command_line.main(["cache", name, *arguments])
        return "" if status in statuses else f"nkblas cache {name} ends with {status}"

    def _check_saving(self, draw: random.Random) -> str:
        """A new measured plan is saved, is read again, and replaces no other one."""
        problem = Problem("float64", 3 + draw.randrange(50), 20, 30)
        plan = cost_model.cheapest_plan(problem, cpu)._replace(nanoseconds=1000.0)
        lines = self._intact_lines()
        if lines and not self.plan_file.read_bytes().endswith(b"\n"):
            lines = set()  # the torn line is completed, and may replace an earlier line
        measured = measured_plans.Plans()
        measured.save(plan, cpu)
        found = measured.find(problem, cpu)
        if found is None or found.schedule != plan.schedule:
            return f"{measured_plans.to_line(plan)} is saved, and read as {found}"
        if lines - self._intact_lines():
            return "saving a plan removes others"
        return ""

    def _check_verify(self, draw: random.Random, lines: set[str]) -> str:
        """`verify` repairs the folder, and changes nothing else; `lines` are undamaged plans."""
        try:
            if draw.random() < 0.01 and (why := self._run_command("verify", (0, 1))):
                return why
            faults = [str(fault) for fault in maintenance.verify(self.store, cpu)]
            again = [str(fault) for fault in maintenance.verify(self.store, cpu)]
        except OSError:
            if not self.is_unrepairable:
                raise
            return ""
        if self.is_unrepairable:
            return ""
        if again:
            return f"verify found {faults}, and again {again}"
        why = self._check_untouched_kernels() or self._check_foreign_files()
        if why:
            return f"after verify {why}"
        remaining = set(measured_plans.read(str(self.plan_file)))
        lost = {line.partition(" ")[0] for line in lines} - remaining
        if lost and not {"", "plans"} & self.touched:
            return f"verify removes the plans of {lost}"
        for spec in SPECS:
            got = self.store.get(self.store.key(spec))
            if got is not None and got != self.libraries[self.store.key(spec)]:
                return "after verify other bytes are read"
        return ""

    def _check_untouched_kernels(self) -> str:
        """The files of undamaged kernels are unchanged."""
        for name, content in self.files.items():
            path = self.folder / name
            if {"", name.partition("/")[0], name} & self.touched or path.suffix == ".txt":
                continue
            if name.endswith((".so", ".json")):
                partner = path.with_suffix(".json" if path.suffix == ".so" else ".so")
                if str(partner.relative_to(self.folder)) in self.touched:
                    continue
            if not path.exists() or path.read_bytes() != content:
                return f"{name} is changed"
        return ""

    @property
    def is_unrepairable(self) -> bool:
        """Whether a folder with files replaces a file: `verify` does not remove it."""
        return "full" in self.touched

    def _check_emptying(self, draw: random.Random) -> str:
        """Shrinking, pruning or clearing the folder leaves other files alone."""
        chance = draw.random()
        try:
            if chance < 0.4:
                self.store.shrink(draw.randrange(1 << 14))
            elif chance < 0.7:
                list(maintenance.prune(self.store, cpu))
            else:
                maintenance.clear(self.store)
                left = [name for name in self.files if name not in FOREIGN]
                if (
                    any((self.folder / name).is_file() for name in left)
                    and not self.is_unrepairable
                ):
                    return "clear leaves files"
        except OSError:
            if not self.is_unrepairable and not {"", "kernels", "plans"} & self.touched:
                raise
        return self._check_foreign_files()

    def _check_foreign_files(self) -> str:
        """Files that are not nkblas's are unchanged."""
        for name, content in FOREIGN.items():
            if {"", name.partition("/")[0], name} & self.touched:
                continue
            if (self.folder / name).read_bytes() != content:
                return f"{name} is changed"
        return ""


kernels_module: Any = kernels
_load_kernel = kernels_module.load_kernel


class Damage:
    """Random damage of files.

    Attributes
    ----------
    touched : set of str
        Names of the files that are changed, and of folders whose mode is; "full" if a file is
        replaced by a folder that is not empty.
    """

    def __init__(
        self, draw: random.Random, folder: Path, files: dict[str, bytes], machine: str
    ) -> None:
        self.draw, self.folder, self.files = draw, folder, files
        self.machine = machine.removesuffix(".txt")
        self.touched: set[str] = set()

    def apply_several(self) -> list[str]:
        """Make some changes; their descriptions."""
        count = self.draw.choices((0, 1, 2, 3, 6), (3, 60, 22, 10, 5))[0]
        return [self.apply_one() for _ in range(count)]

    def apply_one(self) -> str:
        """Make one change; its description."""
        draw = self.draw
        chance = draw.random()
        if chance < 0.02:
            return self._change_folder()
        if chance < 0.1:
            return self._add_file()
        own_files = [name for name in self.files if name not in FOREIGN]
        texts = [name for name in own_files if name.endswith((".json", ".txt"))]
        plan_files = [name for name in own_files if name.endswith(".txt")]
        name = draw.choice(draw.choice((own_files, texts, plan_files)))
        self.touched.add(name)
        path = self.folder / name
        if not path.parent.is_dir():
            return f"{name}: gone"
        if chance < 0.22:
            return self._change_kind(name, path)
        if path.is_symlink() or path.exists() != path.is_file():
            return f"{name}: no longer a file"
        content = self.files[name]
        if path.exists() and path.stat().st_size < 1 << 20:
            content = path.read_bytes()
        if chance < 0.6 and name.endswith(".json"):
            content, change = self._change_record(content)
        elif chance < 0.75 and name.endswith(".txt"):
            content, change = self._change_lines(content)
        else:
            content, change = self._change_bytes(content)
        path.write_bytes(content)
        return f"{name}: {change}"

    def _change_bytes(self, content: bytes) -> tuple[bytes, str]:
        """Change bytes of a file."""
        draw = self.draw
        changed = bytearray(content)
        size = len(changed)
        place = draw.randrange(size + 1)
        end = min(size, place + draw.choice((1, 2, 8, 100, size)))
        kind = draw.choice(
            ("bits", "bits", "cut", "cut front", "grow", "swap", "junk", "zeros", "twice", "gone")
        )
        if kind == "bits" and size:
            for _ in range(draw.choice((1, 1, 1, 2, 8))):
                changed[draw.randrange(size)] ^= 1 << draw.randrange(8)
        elif kind == "cut":
            del changed[place:]
        elif kind == "cut front":
            del changed[:place]
        elif kind == "grow":
            more = draw.choice((b"\n", b"\0", b" ", b"x", bytes(5000), draw.randbytes(50), content))
            where = draw.choice((0, size, place))
            changed[where:where] = more
        elif kind == "swap":
            changed[:] = self.files[draw.choice(list(self.files))]
        elif kind == "junk":
            changed[:] = draw.randbytes(draw.choice((0, 1, 10, 1000, size)))
        elif kind == "zeros":
            changed[place:end] = bytes(end - place)
        elif kind == "twice":
            changed[place:place] = changed[place:end]
        elif kind == "gone":
            del changed[place:end]
        return bytes(changed), kind

    def _change_record(self, content: bytes) -> tuple[bytes, str]:
        """Change a field of a record, or its JSON."""
        draw = self.draw
        try:
            record = json.loads(content)
            fields: Any = draw.choice((record, record, record["spec"]))
            name = draw.choice(list(fields.keys()))
        except Exception:
            return self._change_bytes(content)
        kind = draw.choice(("value", "value", "value", "gone", "more", "deep", "text", "encoding"))
        if kind == "value":
            others = [value for value in record.values() if value is not record.get("spec")]
            fields[name] = draw.choice((*JSON_VALUES, *others))
        elif kind == "gone":
            del fields[name]
        elif kind == "more":
            fields[draw.choice(("more", "kind", "self", ""))] = draw.choice(JSON_VALUES)
        text = json.dumps(record, indent=draw.choice((None, 1)), check_circular=False)
        if kind == "deep":
            depth = draw.choice((10, 1000, 100_000))
            text = text.replace(json.dumps(name), f'"x": {"[" * depth}{"]" * depth}, "{name}"', 1)
        elif kind == "text":
            place = draw.randrange(len(text))
            text = text[:place] + draw.choice('{}[]",:\\0x\n') + text[place + draw.choice((0, 1)) :]
        elif kind == "encoding":
            return text.encode(draw.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7"))), kind
        return text.encode(errors="surrogatepass"), f"{kind} of {name}"

    def _change_lines(self, content: bytes) -> tuple[bytes, str]:
        """Change a word of a plan, or a line."""
        draw = self.draw
        lines = content.decode("utf-8", errors="replace").split("\n")
        at = draw.randrange(len(lines))
        words = lines[at].split(" ")
        i = draw.randrange(len(words))
        kind = draw.choice(
            ("number", "number", "number", "word", "problem", "order", "line", "twice")
        )
        if kind == "number" and "=" in words[i]:
            words[i] = f"{words[i].partition('=')[0]}={draw.choice(NUMBERS)}"
        elif kind == "word":
            words[i : i + draw.choice((0, 1))] = [draw.choice(WORDS)]
        elif kind == "problem":
            words[0] = draw.choice((*PROBLEMS, *SHAPES))
        elif kind == "order":
            draw.shuffle(words)
        lines[at] = draw.choice((" ", " ", " ", "  ", "\t")).join(words)
        if kind == "line":
            del lines[at]
        elif kind == "twice":
            lines.insert(draw.randrange(len(lines) + 1), lines[at])
        return "\n".join(lines).encode("utf-8"), f"{kind} in line {at}"

    def _change_kind(self, name: str, path: Path) -> str:
        """Change the mode of a file, enlarge it, or replace it by something else."""
        draw = self.draw
        kind = draw.choice(
            (
                *("none", "none", "mode", "mode", "link", "link out", "no link", "loop"),
                *("hard link", "pipe", "folder", "folder", "full folder", "huge", "socket"),
            )
        )
        if path.is_dir() and not path.is_symlink():
            return f"{name}: still a folder"
        if kind in ("mode", "huge"):
            if path.is_file() and not path.is_symlink():
                if kind == "mode":
                    path.chmod(draw.choice((0o000, 0o400, 0o644, 0o660, 0o622, 0o777, 0o4600)))
                else:
                    os.truncate(path, draw.choice(((64 << 20) + 1, 1 << 40)))
            return f"{name}: {kind}"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._replace(path, kind, self.folder / draw.choice(list(self.files)))
        return f"{name}: {kind}"

    def _replace(self, path: Path, kind: str, other: Path) -> None:
        """Make something of a kind, which may be a link to another file."""
        links: dict[str, str | Path] = {
            "link": other,
            "link out": "/etc/passwd",
            "no link": "nowhere",
            "loop": path.name,
        }
        if kind in links:
            path.symlink_to(links[kind])
        elif kind == "hard link" and other.is_file() and not other.is_symlink():
            os.link(other, path)
            self.touched.add(str(other.relative_to(self.folder)))
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)
        elif "folder" in kind:
            path.mkdir()
            if kind == "full folder":
                (path / "file").write_bytes(b"x")
                self.touched.add("full")

    def _add_file(self) -> str:
        """Add a file that should not be there."""
        draw = self.draw
        keys = [name[8:48] for name in self.files if name.endswith(".so")]
        key = draw.choice((*keys, f"{draw.randrange(1 << 160):040x}"))
        other = draw.choice(
            ("intel-6-cf-avx2", "amd-19-11-avx512", "x-0-0-nonsense", "--", "a-1-1-")
        )
        name = draw.choice(EXTRA_FILES).format(key=key, machine=self.machine, other=other)
        path = self.folder / name
        if path.exists() or path.is_symlink() or not path.parent.is_dir():
            return f"{name}: exists"
        self.touched.add(name)
        if draw.random() < 0.2:
            path.mkdir()
        else:
            path.write_bytes(draw.choice((b"", b"x", draw.randbytes(100), *self.files.values())))
            path.chmod(draw.choice((0o600, 0o600, 0o666)))
        return f"{name}: added"

    def _change_folder(self) -> str:
        """Change the mode of a folder, or replace it."""
        draw = self.draw
        name = draw.choice(("", "kernels", "plans"))
        path = self.folder / name
        self.touched.add(name)
        if not name or draw.random() < 0.5 or not path.is_dir() or path.is_symlink():
            if path.is_dir():
                path.chmod(draw.choice((0o777, 0o770, 0o755, 0o500)))
            return f"{name or 'the cache folder'}: mode"
        shutil.rmtree(path)
        self.touched.add("full")
        kind = draw.choice(("none", "file", "link"))
        if kind == "file":
            path.write_bytes(b"x")
        elif kind == "link":
            path.symlink_to("/nowhere")
        return f"{name}: {kind}"
