# SPDX-License-Identifier: MIT
"""The CPU's kernels keep their vector and tile instructions and do not grow."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import check_instructions as check

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the budget is about x86-64"
)


@pytest.fixture(scope="module")
def build() -> Path:
    folder = check.latest_build()
    if folder is None:
        pytest.skip("no build below build/: the object files are what is read")
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    return folder


@pytest.fixture(scope="module")
def kernels(build: Path) -> list[check.Kernel]:
    return check.kernels(build)


def stored(build: Path) -> Any:
    budget = json.loads(check.BUDGET.read_text())
    used = check.compiler(build)
    if used != budget["compiler"]:
        pytest.skip(f"the budget is that of {budget['compiler']}; this build is by {used}")
    return budget


def test_matmul_tiles_are_all_fma_and_never_spill(kernels: list[check.Kernel]) -> None:
    tiles = [k for k in kernels if k.stem in check.TILED and check.TILE.search(k.symbol)]
    assert {k.isa for k in tiles} >= {"avx2", "avx512"}
    assert len(tiles) > 40
    assert check.broken_tiles(kernels) == []


def test_every_kernel_keeps_its_vector_instructions(
    build: Path, kernels: list[check.Kernel]
) -> None:
    assert check.mix_complaints(check.worst(kernels), stored(build)["mix"]) == []


def test_no_kernel_runs_more_instructions_than_stored(build: Path) -> None:
    budget = stored(build)
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed: callgrind counts the instructions")
    assert check.count_complaints(check.instruction_counts(build), budget["counts"]) == []


def test_kernels_compiled_without_their_flags_are_found(build: Path, tmp_path: Path) -> None:
    # The sources of AVX-512 as they come out where the flags and the macro of it are lost.
    folder = tmp_path / "CMakeFiles" / "tilegrad_avx512.dir"
    folder.mkdir(parents=True)
    for stem in ("matmul", "reduce"):
        subprocess.run(
            [check.cached(build, "CMAKE_CXX_COMPILER"), "-std=c++20", "-O2", "-Wno-psabi",
             "-ffp-contract=off", "-DTILEGRAD_BACKEND=cpu", "-DTILEGRAD_ISA=avx512", "-c",
             check.ROOT / "csrc/cpu/simd" / f"{stem}.cpp", "-o", folder / f"{stem}.cpp.o"],
            check=True,
        )  # fmt: skip
    right = check.worst(k for k in check.kernels(build) if k.isa == "avx512")
    wanted = {n: m for n, m in right["avx512"].items() if n.startswith(("matmul", "reduce"))}
    found = check.mix_complaints(check.worst(check.kernels(tmp_path)), {"avx512": wanted})
    lost = " (avx512) is in the budget but has no vector loop in the build"
    assert found == sorted(name + lost for name in wanted)
    assert "matmul.tile<float>" + lost in found


LISTING = """
0000000000000000 <void tilegrad::cpu::avx2::(anonymous namespace)::tile<float, 1, 2>(int)>:
   0:\tpush   %rbx
   1:\tjmp    8 <here+0x8>
   4:\tvmovaps %ymm3,(%rsp)
   8:\tvmovaps (%rsi),%ymm1
   c:\tvfmadd231ps (%rax),%ymm1,%ymm2
  10:\tvfmadd231ps 0x20(%rax),%ymm1,%ymm3
  14:\tvmovaps %ymm3,0x40(%rsp)
  18:\tvaddss (%rax),%xmm4,%xmm4
  1c:\tdec    %rbx
  20:\tjne    8 <here+0x8>
  24:\tdec    %rcx
  28:\tjne    4 <here+0x4>
  2c:\tret
  30:\tvmulps %ymm1,%ymm1,%ymm1
  34:\tjmp    2c <here+0x2c>
"""


def test_only_what_is_inside_an_innermost_loop_counts() -> None:
    ((symbol, body),) = check.functions(LISTING)
    (loop,) = check.innermost_loops(body)
    assert [i.address for i in loop] == list(range(0x8, 0x24, 4))
    mix = check.mix_of_loops([loop], "ymm", frame=False)
    assert mix == {"share": 0.8, "fma": 2, "stack": 1}
    kernel = check.Kernel("avx2", "matmul", symbol, mix)
    assert check.broken_tiles([kernel]) == [f"avx2: tile<float, 1, 2> has {mix}"]
    assert check.broken_tiles([kernel._replace(mix={**mix, "stack": 0})]) == []
    assert check.broken_tiles([kernel._replace(mix={**mix, "fma": 1, "stack": 0})]) != []


def test_loops_within_loops_are_taken_apart() -> None:
    graph = {1: {2}, 2: {3}, 3: {3, 4}, 4: {2, 5}, 5: {1, 6}, 6: set[int]()}
    (outer,) = check.components(graph)
    assert outer == {1, 2, 3, 4, 5}
    text = "0000000000000000 <f>:\n" + "".join(
        f"  {address:x}:\t{text}\n"
        for address, text in [
            (0, "vxorps %zmm0,%zmm0,%zmm0"),
            (1, "vaddps %zmm0,%zmm1,%zmm1"),
            (2, "jne    1 <f+0x1>"),
            (3, "vaddps (%rsp),%zmm1,%zmm1"),
            (4, "jne    3 <f+0x3>"),
            (5, "jne    1 <f+0x1>"),
            (6, "ret"),
        ]
    )
    ((_, body),) = check.functions(text)
    loops = check.innermost_loops(body)
    assert sorted([i.address for i in loop] for loop in loops) == [[1, 2], [3, 4]]
    assert check.mix_of_loops(loops, "zmm", frame=False) == {"share": 1, "fma": 0, "stack": 1}
    assert check.mix_of_loops(loops, "ymm", frame=False) is None


def test_complaints_name_what_was_lost_grew_or_is_new() -> None:
    full = {"share": 1.0, "fma": 28, "stack": 0, "tiles": 4}
    budget = {"amx": {"a<float>": full, "gone<float>": full}}
    now = {"amx": {"a<float>": {"share": 0.9, "fma": 27, "stack": 2}, "new<float>": full}}
    assert check.mix_complaints({"amx": {"a<float>": full, "gone<float>": full}}, budget) == []
    assert check.mix_complaints(now, budget) == [
        "a<float> (amx): fma 27 in a loop, was 28",
        "a<float> (amx): share of full vectors 0.9, was 1.0",
        "a<float> (amx): stack 2 in a loop, was 0",
        "a<float> (amx): tiles 0 in a loop, was 4",
        "gone<float> (amx) is in the budget but has no vector loop in the build",
        "new<float> (amx) has no budget",
    ]


def test_counts_may_grow_by_a_tenth() -> None:
    budget = {"a": 1000, "b": 1000, "c": 1000, "gone": 5}
    now = {"a": 1100, "b": 1101, "c": 900, "new": 7}
    assert check.count_complaints(now, budget) == [
        "b: 1101 instructions, +10% on 1000",
        "c: 900 instructions, only 90%: store them",
        "gone is in the budget but was not run",
        "new has no budget; it runs 7 instructions",
    ]


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("void tilegrad::cpu::avx2::(anonymous namespace)::rows<double>(tilegrad::X const&)",
         "rows<double>"),
        ("double tilegrad::cpu::avx2::(anonymous namespace)::sum<float>(float*)", "sum<float>"),
        ("auto tilegrad::cpu::avx2::(anonymous namespace)::forward<float>(float*)::{lambda(auto:1)"
         "#1}::operator()<tilegrad::cpu::Elu>(tilegrad::cpu::Elu) const", "forward<float>"),
        ("void tilegrad::cpu::avx2::pack_copy<float>(float*, long) [clone .isra.0]",
         "pack_copy<float>"),
        ("tilegrad::cpu::avx2::(anonymous namespace)::widen(bfloat16 const*)", "widen<bfloat16>"),
    ],
)  # fmt: skip
def test_the_name_of_a_kernel_is_without_its_arguments(symbol: str, name: str) -> None:
    assert check.kernel_name(symbol, "avx2") == name
