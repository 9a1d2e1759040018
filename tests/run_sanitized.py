# SPDX-License-Identifier: MIT
"""Run the thread pool under ThreadSanitizer, and the core of the suite under ASan and UBSan.

With --sim the simulator, and with it every CUDA kernel, is built and run under them too, and ops in
64 threads run under ThreadSanitizer.

The extension is built a second time with the sanitizers into build/sanitize and put beside a copy
of the Python sources; pytest then runs with the sanitizer's runtime loaded first.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pybind11

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "sanitize"
# Some systems place memory where ThreadSanitizer does not expect it; a fixed layout helps.
FIXED = ["setarch", "-R"] if shutil.which("setarch") else []
CMAKE = Path(sys.executable).parent / "cmake"  # of the test extra
# Data of the sanitizers and of exception handling, no code.
RUNTIME = re.compile(r"__asan|__ubsan|__odr_asan|DW\.ref\.|__gxx_personality|typeinfo|vtable")
CORE = ["matmul", "matmul_backward", "linear", "linear_backward", "activation", "activation_calls",
        "softmax", "softmax_calls", "cross_entropy", "ctc_loss", "ctc_loss_edges", "losses",
        "dropout", "optim", "clip", "train_step", "bad_input",
         "exchange_dlpack", "fuzz_arguments"]  # fmt: skip


def run(*command: str | Path, **options: Any) -> None:
    subprocess.run([str(part) for part in command], check=True, **options)


def compiler() -> str:
    return os.environ.get("CXX", "g++")


def thread_pool() -> None:
    print("ThreadSanitizer: the thread pool", flush=True)
    program = BUILD / "pool_test"
    run(
        compiler(), "-std=c++20", "-O1", "-g", "-fsanitize=thread", "-DTILEGRAD_BACKEND=cpu",
        "-Wall", "-Wextra", "-Werror", ROOT / "tests/cpp/pool_test.cpp",
        ROOT / "csrc/cpu/parallel.cpp", "-o", program,
    )  # fmt: skip
    run(*FIXED, program)


def ops_in_threads() -> None:
    print("ThreadSanitizer: ops in 64 threads (minutes)", flush=True)
    build("threads", "thread", ["tilegrad_cpu"])
    program = BUILD / "ops_threads_test"
    run(
        compiler(), "-std=c++20", "-O1", "-g", "-fsanitize=thread", "-DTILEGRAD_BACKEND=cpu",
        "-Wall", "-Wextra", "-Werror", ROOT / "tests/cpp/ops_threads_test.cpp",
        BUILD / "threads" / "libtilegrad_cpu.a", "-o", program,
    )  # fmt: skip
    for isa in ("generic", ""):  # and the best there is
        run(*FIXED, program, env={**os.environ, "TILEGRAD_CPU": isa})


def build(folder: str, sanitizers: str, targets: list[str]) -> None:
    run(
        CMAKE, "-S", ROOT, "-B", BUILD / folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug",
        f"-DCMAKE_MAKE_PROGRAM={CMAKE.parent / 'ninja'}",
        f"-DTILEGRAD_SANITIZE={sanitizers}", "-DTILEGRAD_WERROR=ON", "-DTILEGRAD_CUDA=OFF",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}",
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    run(CMAKE, "--build", BUILD / folder, "-j2", "--target", *targets, stdout=subprocess.DEVNULL)


def core_of_the_suite(modules: list[str]) -> None:
    print(f"AddressSanitizer and UBSan: building {', '.join(modules)} (minutes)", flush=True)
    build("cmake", "address,undefined", modules)
    package = BUILD / "python" / "tilegrad"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(
        ROOT / "python" / "tilegrad", package, ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    for name in modules:
        for module in (BUILD / "cmake").glob(f"{name}.*.so"):
            shutil.copy(module, package)
    libraries = [
        subprocess.run(
            [compiler(), f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONPATH": str(BUILD / "python"),
        "PYTHONMALLOC": "malloc",  # so that the sanitizer sees Python's own blocks too
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TILEGRAD_SANITIZED": "1",
    }
    tests = [ROOT / "tests" / f"test_{name}.py" for name in CORE]
    shared = ["-n", "2", "--dist", "loadfile", "--max-worker-restart", "0"]  # file by file
    run(sys.executable, "-m", "pytest", *shared, *tests, env=environment, cwd=ROOT)


def instruction_sets_do_not_leak() -> None:
    """The linker keeps one copy of a weak function: it must not be one compiled for AVX-512.

    So every weak symbol of an object in simd/ must belong to the namespace of its instruction set.
    """
    print("Weak symbols of the instruction sets", flush=True)
    for isa in ("avx2", "avx512"):
        objects = sorted((BUILD / "cmake" / "CMakeFiles" / f"tilegrad_{isa}.dir").rglob("*.o"))
        if not objects and platform.machine() in ("x86_64", "AMD64"):
            raise SystemExit(f"no object files for {isa} below {BUILD}")
        for path in objects:
            symbols = subprocess.run(
                ["nm", "--demangle", path], check=True, capture_output=True, text=True
            ).stdout.splitlines()
            weak = [line for line in symbols if line[17:18] in ("W", "w", "V", "v", "u")]
            foreign = [s for s in weak if f"::{isa}::" not in s and not RUNTIME.search(s)]
            if foreign:
                found = "\n".join(foreign)
                raise SystemExit(f"{path.name} ({isa}) has weak symbols of its own:\n{found}")


if __name__ == "__main__":
    BUILD.mkdir(parents=True, exist_ok=True)
    thread_pool()
    if "--sim" in sys.argv:
        ops_in_threads()
    core_of_the_suite(["_cpu", "_sim"] if "--sim" in sys.argv else ["_cpu"])
    instruction_sets_do_not_leak()
