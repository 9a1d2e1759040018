# SPDX-License-Identifier: MIT
"""From the text of CUDA kernels to a library that runs in the simulator.

The machine's C++ compiler makes it, with the simulator's <cuda_runtime.h> in place of NVIDIA's. It
is linked to `_sim`, whose runtime it uses, or for a trace, with every memory access announced, to
`_sim_trace`. Nothing is kept between processes.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

_PACKAGE = Path(__file__).parent

# As cmake/sim.cmake compiles the library's own kernels. In version 4 of DWARF every tool counts
# the files of a line table alike.
FLAGS = (
    "-std=c++20", "-O2", "-g1", "-gdwarf-4", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off",
    "-fno-math-errno", "-fno-trapping-math", "-Wno-unknown-pragmas",
    "-DTILEGRAD_SIM=1", "-DTILEGRAD_KERNEL_LIBRARY=1",
)  # fmt: skip
X86_FLAGS = ("-march=x86-64-v2", "-mavx2", "-mfma")
KIND_FLAGS = {"gnu": ("-fno-gnu-unique", "-Wno-psabi"), "clang": ("-gdwarf-aranges",)}
TRACE_FLAGS = {
    "gnu": (
        "-fsanitize=thread", "-fno-tree-vectorize", "-fno-tree-slp-vectorize",
        "-fno-store-merging", "--param=tsan-instrument-func-entry-exit=0",
    ),
    "clang": (
        "-fsanitize=thread", "-fno-vectorize", "-fno-slp-vectorize",
        "-mllvm", "-tsan-instrument-func-entry-exit=0",
        "-mllvm", "-tsan-instrument-read-before-write=1",
    ),
}  # fmt: skip

_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_KERNEL = re.compile(
    r'\bextern\s+"C"\s+((?:(?:__global__|static|void|__launch_bounds__\s*\([^()]*\))\s+)+)(\w+)\s*\('
)
_DYNAMIC = re.compile(
    r"\bextern\s+__shared__\s+(?:(?:__align__|alignas)\s*\([^()]*\)\s*)?"
    r"(\w[\w:]*(?:\s+\w[\w:]*)*?)\s+(\w+)\s*\[\s*\]\s*;"
)


class Source(NamedTuple):
    """A CUDA source."""

    name: str  # in messages and traces
    text: str
    folder: str  # where what it includes may lie; "" for none


def kernel_names(text: str) -> tuple[str, ...]:
    """Return the names of the kernels that a source declares extern "C".

    Example:
        >>> kernel_names('extern "C" __global__ void f(int n) {} // extern "C" __global__ void g(')
        ('f',)
    """
    code = _COMMENT.sub(lambda found: found[0] if found[0][0] == '"' else " ", text)
    return tuple(dict.fromkeys(each[2] for each in _KERNEL.finditer(code) if "__g" in each[1]))


def translation_unit(source: Source, names: tuple[str, ...]) -> str:
    r"""Return the C++ of a source: the same lines, and after them a table of its kernels.

    Example:
        >>> unit = translation_unit(Source("k.cu", "extern __shared__ float tile[];", ""), ("k",))
        >>> print(*unit.splitlines()[1:3], sep="\n")
        #line 1 "k.cu"
        float* const tile = ::tilegrad::simulator::dynamic_shared<float>();
    """

    def dynamic(found: re.Match[str]) -> str:
        value = f"::tilegrad::simulator::dynamic_shared<{found[1]}>();"
        return f"{found[1]}* const {found[2]} = {value}" + "\n" * found[0].count("\n")

    table = ", ".join(f"tilegrad::simulator::describe_kernel({name})" for name in names)
    return "\n".join(
        (
            '#include "kernel_library.hpp"',
            f"#line 1 {json.dumps(source.name, ensure_ascii=False)}",
            _DYNAMIC.sub(dynamic, source.text),
            '#line 1 "table of kernels"',
            f"TILEGRAD_KERNEL_TABLE({table});\n",
        )
    )


def headers() -> Path:
    """Return the folder of the simulator's headers: in the source tree or in the package."""
    for folder in (_PACKAGE.parents[1], _PACKAGE / "_sources"):
        if (folder / "csrc" / "sim" / "kernel_library.hpp").is_file():
            return folder / "csrc" / "sim"
    raise RuntimeError("sim.compile: this installation lacks the simulator's headers")


def compiler() -> tuple[list[str], str]:
    """Return the command of the C++ compiler and its kind, "gnu" or "clang"."""
    wanted = shlex.split(os.environ.get("CXX", ""))
    choices = [wanted] if wanted else [["g++"], ["c++"], ["clang++"]]
    for command in choices:
        if shutil.which(command[0]) is not None:
            about = subprocess.run([*command, "--version"], capture_output=True, text=True)
            return command, "clang" if "clang" in about.stdout else "gnu"
    raise RuntimeError(
        "sim.compile: needs a C++20 compiler (g++ 12, clang++ 14 or later); there is no "
        + " or ".join(command[0] for command in choices)
        + (", which CXX names" if wanted else " (install one, or set CXX to it)")
    )


def build_library(source: Source, names: tuple[str, ...], module: Any) -> str:
    """Compile a source for `_sim` or `_sim_trace`; return the library's path."""
    command, kind = compiler()
    sim = headers()
    folder = tempfile.mkdtemp(dir=_folder(os.getpid()))
    unit, made, library = (os.path.join(folder, f"kernel.{end}") for end in ("cpp", "o", "so"))
    Path(unit).write_text(translation_unit(source, names), encoding="utf-8")
    flags = [*FLAGS, *KIND_FLAGS[kind], f"-fdebug-prefix-map={folder}="]
    flags += X86_FLAGS if platform.machine() in ("x86_64", "AMD64") else ()
    flags += TRACE_FLAGS[kind] if module.__name__.endswith("_trace") else ()
    flags += ["-I", str(sim), "-I", str(sim / "include")]
    flags += ["-iquote", source.folder] if source.folder else []
    _run([*command, *flags, "-c", unit, "-o", made], folder, source)
    _run([*command, "-shared", "-Wl,-z,defs", made, module.__file__, "-o", library], folder, source)
    return library


def _run(command: list[str], folder: str, source: Source) -> None:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode == 0:
        return
    hint = "\n(kernel<<<...>>>(...) is host code: launch from Python, module.kernel[grid, block])"
    raise RuntimeError(
        f"sim.compile: {source.name} cannot be compiled by {command[0]}:\n{done.stderr.strip()}"
        + hint * ("<<<" in source.text)
    )


@functools.lru_cache
def _folder(process: int) -> str:
    """Return the folder for this process' libraries; it is removed at its end."""
    folder = tempfile.mkdtemp(prefix="tilegrad-")

    def remove() -> None:  # a forked child leaves its parent's alone
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
