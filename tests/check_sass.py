# SPDX-License-Identifier: MIT
"""Hold the CUDA kernels' machine code to the instructions that each was written for.

A source can ask for a 16-byte store, a tensor-core product or a register and get something else;
only the machine code says what was made. For every kernel: no local memory, which is what a spill
or an array with a run-time index becomes; no addition of floats in memory, whose order nobody
fixes; tensor cores, bulk copies and register handovers exactly where TABLE has them.

    python tests/check_sass.py [BUILD]

cuobjdump and nvdisasm come with CUDA's toolkit, or from PyPI (nvidia-cuda-cuobjdump and
nvidia-cuda-nvdisasm; those of CUDA 13.2 and later also read what nvcc 13.0 made). What was read of
an object file is kept beside it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from check_ptxas import kernel_name, latest_build

ARCHITECTURES = ("sm_80", "sm_90a")
_FORMAT = 1  # of what is kept beside an object file

Kernels = dict[str, dict[str, "Code"]]  # architecture -> mangled name -> code


@dataclass(frozen=True)
class Row:
    """What some kernels' machine code has.

    Attributes:
        kernels: Their names, as a regular expression.
        has: Instructions that every instantiation has: beginnings of their names, `|` for "or".
        on: The architectures that it holds for.
        of: How the mangled template arguments begin, as a regular expression: "If" is float, "INS"
            a type of our own.
        group: Least number of HGMMA between an arrival and the wait for them: fewer say that
            ptxas had them wait for each other.
    """

    kernels: str
    has: str
    on: tuple[str, ...] = ARCHITECTURES
    of: str = ""
    group: int = 0

    def holds(self, mangled: str, architecture: str) -> bool:
        """Tell whether it says something of an instantiation."""
        return architecture in self.on and re.search(f"_kernel{self.of}", mangled) is not None


_PACKETS = "LDG.E.128 STG.E.128"  # 16 bytes a thread: the vectorised body
TABLE = (
    # matrix products
    Row("matmul_(naive|coalesced|shared|tile_1d|tile_2d)_kernel", "FFMA|DFMA LDG STG"),
    Row("matmul_vectorized_kernel", "FFMA LDG.E.128 LDS.128 STG.E.128", of="If"),
    Row("matmul_(double_buffered|warp_tile)_kernel", "FFMA LDGSTS.E.BYPASS.128 LDS.128", of="If"),
    Row("matmul_tensor_core_kernel", "HMMA LDGSTS.E.BYPASS.128"),
    Row("matmul_tensor_core_kernel", "LDSM", of="INS"),
    Row("matmul_hopper_kernel", "HGMMA UTMALDG UTMASTG USETMAXREG SYNCS", on=("sm_90a",), group=4),
    Row("matmul_join_kernel", "LDG.E.128 STG.E.128", of="If"),
    Row("matmul_join_kernel", "LDG.E.128 STG.E.64", of="INS"),
    Row("pad_lines_kernel", "LDG.E.U16 STG.E.U16"),
    Row("fused_mlp_backward_kernel", "HGMMA LDG.E.128 STG.E.128", on=("sm_90a",), group=4),
    *(  # a layer is one group: a step of 16 columns an HGMMA
        Row("fused_mlp_kernel", "HGMMA LDG.E.128", ("sm_90a",), rf"I\w+ELi{width}E", width // 16)
        for width in (16, 32, 64, 128)
    ),
    Row("fused_mlp_sum_kernel", "LDG.E STG.E"),
    Row("network_step_kernel", "FFMA LDGSTS.E.BYPASS.128 LDS.128"),
    # one pass over memory
    Row("activation(_backward)?_kernel|bias_gradient_kernel", _PACKETS),
    Row("prelu(_backward)?_kernel|dropout_kernel|scale_kernel", _PACKETS),
    Row("elementwise_loss_kernel", _PACKETS),
    Row("(sgd|adam|rmsprop|adagrad)_step_kernel", _PACKETS),
    Row("softmax_(warp|block)_kernel", _PACKETS),
    Row("cross_entropy_one_pass_(warp|block)_kernel", _PACKETS),
    Row("cross_entropy_cluster_kernel", f"{_PACKETS} UCGABAR_ARV UCGABAR_WAIT", on=("sm_90a",)),
    Row("cross_entropy_(online_warp|block_row|three_pass)_kernel", _PACKETS),
    Row("random_(uniform|normal)_kernel", "STG.E.128"),
    Row("norm_chunks_kernel", "LDG.E.128"),
)
# Units that a kernel uses only where a row names them.
_SPECIAL = ("HGMMA", "QGMMA", "IGMMA", "HMMA", "IMMA", "DMMA", "UTMA", "USETMAXREG", "UBLKCP")
_LOCAL = ("LDL", "STL")
_ATOMIC = re.compile(r"(ATOM|RED)[GS]?\..*(F16|F32|F64|BF16)")  # ATOMG, ATOMS, RED, REDG

_FUNCTION = re.compile(r"Function : (\w+)")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")


@dataclass(frozen=True)
class Code:
    """What is kept of a kernel's machine code.

    Attributes:
        counts: How often each instruction occurs.
        group: The fewest HGMMA between an arrival and the next wait; 0 without any.
    """

    counts: dict[str, int]
    group: int = 0

    def has(self, beginnings: str) -> bool:
        """Tell whether an instruction begins with one of some names, separated by `|`."""
        return any(name.startswith(tuple(beginnings.split("|"))) for name in self.counts)


def read(lines: Iterable[str]) -> dict[str, Code]:
    """Return the code of each kernel in what cuobjdump printed."""
    found: dict[str, Code] = {}
    counts, groups, name, open_group = Counter[str](), list[int](), "", False

    def close() -> None:
        if name:
            found[name] = Code(dict(counts), min((g for g in groups if g), default=0))

    for line in lines:
        if match := _INSTRUCTION.match(line):
            word = match[1]
            counts[word] += 1
            if word.startswith("WARPGROUP.ARRIVE"):
                groups.append(0)
                open_group = True
            elif word.startswith("WARPGROUP.DEPBAR"):
                open_group = False
            elif word.startswith("HGMMA"):
                if not open_group:  # a product that is not announced waits alone
                    groups.append(0)
                    open_group = True
                groups[-1] += 1
        elif match := _FUNCTION.search(line):
            close()
            counts, groups, name, open_group = Counter(), [], match[1], False
    close()
    return found


def disassembler() -> str:
    """Return cuobjdump, with an nvdisasm that it finds, or ""."""
    places = [Path(folder) / "nvidia" / "cu13" / "bin" for folder in sys.path]
    places.append(Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin")
    both = ("cuobjdump", "nvdisasm")
    for place in places:
        if all(os.access(place / name, os.X_OK) for name in both):
            return str(place / "cuobjdump")
    return shutil.which("cuobjdump") or "" if shutil.which("nvdisasm") else ""


def disassembled(path: Path, program: str) -> Kernels:
    """Return the kernels of an object file; what was read is kept beside it."""
    stat = path.stat()
    key = [_FORMAT, stat.st_size, stat.st_mtime_ns]
    kept = path.with_suffix(path.suffix + ".sass.json")
    try:
        stored = json.loads(kept.read_text())
        if stored["key"] == key:
            return {
                architecture: {name: Code(*code) for name, code in kernels.items()}
                for architecture, kernels in stored["kernels"].items()
            }
    except (OSError, ValueError, KeyError):
        pass  # nothing is kept yet, or it was cut off
    # cuobjdump finds nvdisasm on the PATH
    environ = {**os.environ, "PATH": f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"}
    found: Kernels = {}
    for architecture in ARCHITECTURES:
        done = subprocess.run(
            [program, "-sass", "-arch", architecture, str(path)],
            check=True, capture_output=True, text=True, env=environ,
        )  # fmt: skip
        found[architecture] = read(done.stdout.splitlines())
    plain = {a: {n: (c.counts, c.group) for n, c in k.items()} for a, k in found.items()}
    kept.write_text(json.dumps({"key": key, "kernels": plain}))
    return found


def of_build(build: Path, program: str) -> Kernels:
    """Return the kernels of all object files of a build."""
    paths = sorted(path.with_suffix("") for path in build.rglob("*.o.ptxas"))
    found: Kernels = {architecture: {} for architecture in ARCHITECTURES}
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 8)) as pool:
        for kernels in pool.map(lambda path: disassembled(path, program), paths):
            for architecture, codes in kernels.items():
                found[architecture] |= codes
    return found


def complaints(kernels: Kernels, table: Iterable[Row] = TABLE) -> list[str]:
    """Return what the machine code has and should not have, or the other way round."""
    found, used = set(), set()
    for architecture, codes in kernels.items():
        for mangled, code in codes.items():
            name = kernel_name(mangled)
            rows = [row for row in table if re.fullmatch(row.kernels, name)]
            used |= {row.kernels for row in rows}
            rows = [row for row in rows if row.holds(mangled, architecture)]
            where = f"{name} on {architecture}"
            if code.has("|".join(_LOCAL)):
                found.add(f"{where}: local memory ({', '.join(_named(code, _LOCAL))})")
            found |= {
                f"{where}: {word} adds floats in an order that nobody fixes"
                for word in code.counts
                if _ATOMIC.match(word)
            }
            wanted = [part for row in rows for part in row.has.split()]
            found |= {f"{where}: no {part}" for part in wanted if not code.has(part)}
            found |= {
                f"{where}: {special} is not what it was written for"
                for special in _SPECIAL
                if code.has(special) and not any(special in part for part in wanted)
            }
            least = max((row.group for row in rows), default=0)
            if code.group < least:
                found.add(f"{where}: {code.group} HGMMA before a wait, at least {least} wanted")
    found |= {f"no kernel is named {row.kernels}" for row in table if row.kernels not in used}
    return sorted(found)


def _named(code: Code, beginnings: tuple[str, ...]) -> list[str]:
    return sorted(word for word in code.counts if word.startswith(beginnings))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else latest_build()
    if folder is None:
        raise SystemExit("no build with CUDA kernels below build/")
    if not (found_ := disassembler()):
        raise SystemExit("no cuobjdump with nvdisasm: install CUDA's toolkit, or both from PyPI")
    if problems := complaints(of_build(folder, found_)):
        raise SystemExit("\n".join(problems))
