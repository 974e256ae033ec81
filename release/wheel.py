"""Build a wheel with kernels, and try it: ``python -m release.wheel`` (``make wheel``).

The wheel is tagged for the oldest manylinux whose glibc has the symbols that it needs, and is
installed without MLIR into an empty environment, where no program but Python is in ``PATH``. There
the README's first example runs, and a part of the tests; nothing may be compiled.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"

RUN_TIME = ("numpy", "cffi")
"""What the light installation needs beside the wheel."""

TEST_TIME = ("pytest", "hypothesis", "ml_dtypes")

TESTS = ("numpy_api/test_matmul.py", "numpy_api/test_gufuncs.py", "numpy_api/test_products.py")
"""Tests that pass with any kernels, and with NumPy in place of those that are missing."""

MAX_WHEEL_SIZE, MAX_LIGHT_SIZE = 10 << 20, 15 << 20
"""Bytes of the wheel, and of all that is installed beside NumPy."""

REPORT = """
import nkblas
stats = nkblas.stats()
assert stats["calls"] > 0, stats
assert stats["fallbacks"] == stats["kernels_compiled"] == 0, stats
print("the README's example:", stats)
"""


def main() -> None:
    """Build the wheel into ``dist``, and try it."""
    wheel = build()
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.1f} MB")
    check(size <= MAX_WHEEL_SIZE, f"the wheel has {size} bytes, expected {MAX_WHEEL_SIZE}")
    with tempfile.TemporaryDirectory(prefix="nkblas-") as folder:
        try_wheel(wheel, Path(folder))


def build() -> Path:
    """Build the wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="nkblas-") as folder:
        python("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT))
        (built,) = Path(folder).glob("*.whl")
        python("-m", "auditwheel", "repair", "--wheel-dir", str(DIST), str(built))
    (wheel,) = DIST.glob("*.whl")
    return wheel


def try_wheel(wheel: Path, folder: Path) -> None:
    """Install the wheel without MLIR, and run what a user runs first."""
    python("-m", "venv", str(folder / "venv"))
    executable = str(folder / "venv" / "bin" / "python")
    install = [executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, *RUN_TIME], check=True)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    size = light_size(executable)
    print(f"installed beside NumPy: {size / 1e6:.1f} MB")
    check(size <= MAX_LIGHT_SIZE, f"{size} bytes are installed, expected {MAX_LIGHT_SIZE}")
    environment = {"PATH": str(folder / "venv" / "bin"), "HOME": str(folder / "home")}
    (folder / "example.py").write_text(readme_example() + REPORT)
    subprocess.run([executable, "example.py"], cwd=folder, env=environment, check=True)
    subprocess.run([executable, "-m", "nkblas", "info"], cwd=folder, env=environment, check=True)
    subprocess.run([*install, *TEST_TIME], check=True)
    shutil.copytree(ROOT / "tests", folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = [executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += [str(folder / "tests" / name) for name in TESTS]
    subprocess.run(
        command, cwd=folder, env={**environment, "NKBLAS_SHIPPED_KERNELS": "1"}, check=True
    )


def readme_example() -> str:
    """The first Python example of the README."""
    text = (ROOT / "README.md").read_text()
    return text.partition("```python\n")[2].partition("```")[0]


def light_size(executable: str) -> int:
    """Bytes that are installed beside Python, pip and NumPy."""
    statement = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([executable, "-c", statement], capture_output=True, check=True)
    site = Path(done.stdout.decode().strip())
    others = (
        "numpy",
        "pip",
        "setuptools",
        "wheel",
        "_distutils_hack",
        "distutils",
        "pkg_resources",
    )
    folders = [path for path in site.iterdir() if not path.name.startswith(others)]
    files = [file for path in folders for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.lstat().st_size for file in files if file.is_file())


def python(*arguments: str) -> None:
    """Run this Python."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, *arguments], env=environment, check=True)


def check(condition: bool, message: str) -> None:
    """End with a message unless the condition holds."""
    if not condition:
        sys.exit(message)


if __name__ == "__main__":
    main()
