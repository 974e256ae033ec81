"""The suite "store": damaged files in a cache folder, and what their readers make of them.

Files of a few kernels and plans are changed by hand: bits, lengths, contents that are swapped,
fields of records, words of plans, kinds and modes of files. Readers may raise nothing but what they
say, a kernel comes from its own bytes or not at all, a plan that is read can be run, what was not
touched stays, and ``nkblas cache verify`` mends.
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

SPECS: list[KernelSpec] = [
    Microkernel("avx2", "float32", 6, 16, "row", False),
    Microkernel("avx2", "float64", 4, 8, "col", True),
    Pack("avx2", "float32", 16, "along"),
    Copy("avx2", "float32"),
]
SHAPES = ("20x33x48:f32", "64x64x64:f64", "5x17x9:f32:rcr", "40x40x40:f32:columns+relu")
FOREIGN = {"kernels/notes.txt": b"the user's own\n", "plans/todo.md": b"tune more\n"}
"""Files that are none of nkblas's."""

OTHERS = (
    *("kernels/lock", "kernels/.{key}.so.0123abcd", "kernels/.{key}.json.abcd0123"),
    *("kernels/{key}.so", "kernels/{key}.json", "plans/.{machine}.txt.00112233"),
    *("plans/{other}.txt", "plans/lock"),
)
"""Names of nkblas's under which there may be a file too many."""

Step = Callable[[random.Random], str]

COMPILED = 4
"""Kernels that a batch may compile, to run plans that it read."""

JSON = (
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
    """Runs cases of a batch, each with the same files before it."""

    def __init__(self, seed: int, batch: int) -> None:
        self.seed = seed
        draw = random.Random(f"{seed}/{batch}")
        self.mine = kernels.kernels.store and kernels.kernels  # of the folder that this process has
        self.compiled = 0
        self._above = tempfile.TemporaryDirectory()
        self.folder = Path(self._above.name, "cache")
        os.environ["NKBLAS_CACHE_DIR"] = str(self.folder)
        self.store = Store(self.folder)
        self.libraries = {
            self.store.key(spec): draw.randbytes(draw.randrange(3000)) for spec in SPECS
        }
        for spec in SPECS:
            self.store.put(self.store.key(spec), self.libraries[self.store.key(spec)], spec)
        measured_plans.measured.layers = {measured_plans.path(cpu, measured_plans.SHIPPED): {}}
        self.plan_file = Path(measured_plans.path(cpu, measured_plans.TUNED))
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
        kernels.open_library = self._open_library
        self._opened: list[tuple[KernelSpec, bytes]] = []

    def _open_library(self, spec: KernelSpec, library: bytes) -> int:
        self._opened.append((spec, library))
        return 1

    # --- a case ---

    def run(self, number: int) -> Wrong | None:
        """One case."""
        draw = random.Random(f"{self.seed}/{number}")
        self._restore()
        damage = Damage(draw, self.folder, self.files, self.plan_file.name)
        what = damage.several()
        self.touched = damage.touched
        self._opened.clear()
        why = ""
        try:
            why = self._check(draw)
        except Exception:
            why = traceback.format_exc()
        if not why:
            return None
        return Wrong(f"store {self.seed} {number}", f"after {'; '.join(what)}: {why}", "")

    def _restore(self) -> None:
        """The folder as it is before each case."""
        os.chmod(self.folder, 0o700)
        for above in ("kernels", "plans"):
            folder = self.folder / above
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                folder.unlink()
            folder.mkdir(0o700, exist_ok=True)
            folder.chmod(0o700)
            for entry in list(os.scandir(folder)):
                content = self.files.get(f"{above}/{entry.name}")
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
        shares = (self._kernels, 1), (self._plans, 0.7), (self._listing, 0.1), (self._keep, 0.2)
        steps: list[Step] = [step for step, share in shares if draw.random() < share]
        draw.shuffle(steps)
        for step in steps:
            if why := step(draw):
                return why
        if draw.random() < 0.6 and (why := self._verify(draw, before)):
            return why
        return self._end(draw) if draw.random() < 0.2 else ""

    # --- what is to hold ---

    def _kernels(self, draw: random.Random) -> str:
        any_one = draw.choice(SPECS)
        for spec in SPECS:
            key = self.store.key(spec)
            if spec is not any_one and not any(key in name for name in self.touched):
                continue
            right = self.libraries[key]
            if type(self.store.has(spec)) is not bool:
                return "has() is no bool"
            got = self.store.get(key)
            whole = not {f"kernels/{key}.so", f"kernels/{key}.json"} & self.touched
            if got is None and whole and not self.closed:
                return f"the whole kernel {key} is not found"
            if got is not None and got != right:
                return f"kernel {key} is read from other bytes"
            try:
                self.store.read(key)
            except (OSError, ValueError):
                if got is not None:
                    return f"kernel {key} is got, and not read"
            self.store.is_locked(key)
            mine = Kernels()
            mine._store = self.store
            loaded = mine._load_from_store(spec)
            if loaded != (got is not None):
                return f"kernel {key} is loaded, or not"
        if any(self.libraries[self.store.key(spec)] != library for spec, library in self._opened):
            return "other bytes were loaded"
        return ""

    @property
    def closed(self) -> bool:
        """Whether the kernels' folder may not be read."""
        return bool({"", "kernels"} & self.touched)

    def _plans(self, draw: random.Random) -> str:
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
        """Lines of plans that are there as they were, and hold."""
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
        try:
            found = path.lstat()
        except OSError:
            return False
        regular = stat.S_ISREG(found.st_mode) and not found.st_mode & 0o022
        return regular and found.st_size < 1 << 20

    def _run(self, plan: Plan) -> str:
        """Multiply by a plan, if there are kernels for it."""
        problem = plan.problem
        if problem.m * problem.n * problem.k > 1 << 20 or problem.epilogue:
            return ""
        missing = sum(not self.mine.is_available(spec) for spec in plan.kernels)
        if self.compiled + missing > COMPILED:
            return ""
        self.compiled += missing
        kernels.open_library = _open_library
        try:
            with planning_lock():
                plan_table.insert(plan)
        finally:
            kernels.open_library = self._open_library
        a, b = (
            (np.arange(rows * columns) % 7 - 3.0).astype(problem.dtype).reshape(rows, columns)
            for rows, columns in ((problem.m, problem.k), (problem.k, problem.n))
        )
        b = np.asfortranarray(b) if problem.b == "col" else b
        if not np.array_equal(nkblas.matmul(a, b), a @ b):
            return f"a wrong product by {plan}"
        return ""

    def _listing(self, draw: random.Random) -> str:
        with contextlib.suppress(OSError):
            maintenance.kernels(self.store)
        with contextlib.suppress(OSError):
            for path, isa in maintenance.plan_files().items():
                with contextlib.suppress(OSError):
                    maintenance.read_plans(path, isa, cpu)
        if draw.random() < 0.05:
            return self._command("list", (0, 1)) or self._command("export", (0, 1), "-")
        return ""

    def _command(self, name: str, statuses: tuple[int, ...], *arguments: str) -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = command_line.main(["cache", name, *arguments])
        return "" if status in statuses else f"nkblas cache {name} ends with {status}"

    def _keep(self, draw: random.Random) -> str:
        """A plan that is measured now."""
        problem = Problem("float64", 3 + draw.randrange(50), 20, 30)
        plan = cost_model.cheapest_plan(problem, cpu)._replace(nanoseconds=1000.0)
        lines = self._intact_lines()
        if lines and not self.plan_file.read_bytes().endswith(b"\n"):
            lines = set()  # what is torn becomes a line, and may be a later one of the same problem
        measured = measured_plans.Plans()
        measured.save(plan, cpu)
        found = measured.find(problem, cpu)
        if found is None or found.schedule != plan.schedule:
            return f"{measured_plans.to_line(plan)} is kept, and read as {found}"
        if lines - self._intact_lines():
            return "a plan that is kept takes others away"
        return ""

    def _verify(self, draw: random.Random, lines: set[str]) -> str:
        """It mends, and nothing else."""
        try:
            if draw.random() < 0.01 and (why := self._command("verify", (0, 1))):
                return why
            told = [str(fault) for fault in maintenance.verify(self.store, cpu)]
            again = [str(fault) for fault in maintenance.verify(self.store, cpu)]
        except OSError:
            if not self.unmendable:
                raise
            return ""
        if self.unmendable:
            return ""
        if again:
            return f"verify found {told}, and again {again}"
        for name, content in self.files.items():
            folder = name.partition("/")[0]
            path = self.folder / name
            if {"", folder, name} & self.touched or path.suffix == ".txt":
                continue
            if name.endswith((".so", ".json")):
                partner = f"{name.rpartition('.')[0]}.{'json' if name.endswith('.so') else 'so'}"
                if partner in self.touched:
                    continue
            if not path.exists() or path.read_bytes() != content:
                return f"verify takes {name} away, which was not touched"
        for name, content in FOREIGN.items():
            if {"", name.partition("/")[0], name} & self.touched:
                continue
            if (self.folder / name).read_bytes() != content:
                return f"verify changes {name}"
        now = set(measured_plans.read(str(self.plan_file)))
        lost = {line.partition(" ")[0] for line in lines} - now
        if lost and not {"", "plans"} & self.touched:
            return f"verify takes the plans of {lost} away"
        for spec in SPECS:
            got = self.store.get(self.store.key(spec))
            if got is not None and got != self.libraries[self.store.key(spec)]:
                return "after verify other bytes are read"
        return ""

    @property
    def unmendable(self) -> bool:
        """Whether somebody put a folder with files of its own in a file's place."""
        return "full" in self.touched

    def _end(self, draw: random.Random) -> str:
        """What empties the folder."""
        chance = draw.random()
        try:
            if chance < 0.4:
                self.store.shrink(draw.randrange(1 << 14))
            elif chance < 0.7:
                list(maintenance.prune(self.store, cpu))
            else:
                maintenance.clear(self.store)
                left = [name for name in self.files if name not in FOREIGN]
                if any((self.folder / name).is_file() for name in left) and not self.unmendable:
                    return "clear leaves files"
        except OSError:
            if not self.unmendable and not {"", "kernels", "plans"} & self.touched:
                raise
        for name, content in FOREIGN.items():
            if {"", name.partition("/")[0], name} & self.touched:
                continue
            if (self.folder / name).read_bytes() != content:
                return f"{name} is not what it was"
        return ""


_open_library = kernels.open_library


class Damage:
    """Changes files by hand.

    Attributes
    ----------
    touched : set of str
        Names of the files that are other than before; of a folder that is open to others, too;
        "full" if a folder with something in it is in a file's place.
    """

    def __init__(
        self, draw: random.Random, folder: Path, files: dict[str, bytes], machine: str
    ) -> None:
        self.draw, self.folder, self.files = draw, folder, files
        self.machine = machine.removesuffix(".txt")
        self.touched: set[str] = set()

    def several(self) -> list[str]:
        """Some changes; what they are."""
        count = self.draw.choices((0, 1, 2, 3, 6), (3, 60, 22, 10, 5))[0]
        return [self.one() for _ in range(count)]

    def one(self) -> str:
        draw = self.draw
        chance = draw.random()
        if chance < 0.02:
            return self._folder()
        if chance < 0.1:
            return self._too_many()
        mine = [name for name in self.files if name not in FOREIGN]
        texts = [name for name in mine if name.endswith((".json", ".txt"))]
        plans_ = [name for name in mine if name.endswith(".txt")]
        name = draw.choice(draw.choice((mine, texts, plans_)))
        self.touched.add(name)
        path = self.folder / name
        if not path.parent.is_dir():
            return f"{name}: gone"
        if chance < 0.22:
            return self._kind(name, path)
        if path.is_symlink() or path.exists() != path.is_file():
            return f"{name}: no file any more"
        content = self.files[name]
        if path.exists() and path.stat().st_size < 1 << 20:
            content = path.read_bytes()
        if chance < 0.6 and name.endswith(".json"):
            content, what = self._record(content)
        elif chance < 0.75 and name.endswith(".txt"):
            content, what = self._lines(content)
        else:
            content, what = self._bytes(content)
        path.write_bytes(content)
        return f"{name}: {what}"

    def _bytes(self, content: bytes) -> tuple[bytes, str]:
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

    def _record(self, content: bytes) -> tuple[bytes, str]:
        """Change a field of a record."""
        draw = self.draw
        try:
            record = json.loads(content)
            fields: Any = draw.choice((record, record, record["spec"]))
            name = draw.choice(list(fields.keys()))
        except Exception:
            return self._bytes(content)
        kind = draw.choice(("value", "value", "value", "gone", "more", "deep", "text", "encoding"))
        if kind == "value":
            others = [value for value in record.values() if value is not record.get("spec")]
            fields[name] = draw.choice((*JSON, *others))
        elif kind == "gone":
            del fields[name]
        elif kind == "more":
            fields[draw.choice(("more", "kind", "self", ""))] = draw.choice(JSON)
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

    def _lines(self, content: bytes) -> tuple[bytes, str]:
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

    def _kind(self, name: str, path: Path) -> str:
        """Have something else in a file's place."""
        draw = self.draw
        kind = draw.choice(
            (
                *("none", "none", "mode", "mode", "link", "link out", "no link", "loop"),
                *("hard link", "pipe", "folder", "folder", "full folder", "huge", "socket"),
            )
        )
        if path.is_dir() and not path.is_symlink():
            return f"{name}: a folder, still"
        if kind == "mode":
            if path.is_file() and not path.is_symlink():
                path.chmod(draw.choice((0o000, 0o400, 0o644, 0o660, 0o622, 0o777, 0o4600)))
            return f"{name}: mode"
        if kind == "huge":
            if path.is_file() and not path.is_symlink():
                os.truncate(path, draw.choice(((64 << 20) + 1, 1 << 40)))
            return f"{name}: huge"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        other = self.folder / draw.choice(list(self.files))
        if kind == "link":
            path.symlink_to(other)
        elif kind == "link out":
            path.symlink_to("/etc/passwd")
        elif kind == "no link":
            path.symlink_to("nowhere")
        elif kind == "loop":
            path.symlink_to(path.name)
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
        return f"{name}: {kind}"

    def _too_many(self) -> str:
        """A file that should not be there."""
        draw = self.draw
        keys = [name[8:48] for name in self.files if name.endswith(".so")]
        key = draw.choice((*keys, f"{draw.randrange(1 << 160):040x}"))
        other = draw.choice(
            ("intel-6-cf-avx2", "amd-19-11-avx512", "x-0-0-nonsense", "--", "a-1-1-")
        )
        name = draw.choice(OTHERS).format(key=key, machine=self.machine, other=other)
        path = self.folder / name
        if path.exists() or path.is_symlink() or not path.parent.is_dir():
            return f"{name}: there"
        self.touched.add(name)
        if draw.random() < 0.2:
            path.mkdir()
        else:
            path.write_bytes(draw.choice((b"", b"x", draw.randbytes(100), *self.files.values())))
            path.chmod(draw.choice((0o600, 0o600, 0o666)))
        return f"{name}: too many"

    def _folder(self) -> str:
        """A folder that is open to others, or is none."""
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
