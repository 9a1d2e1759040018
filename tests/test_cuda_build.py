# SPDX-License-Identifier: MIT
"""The CUDA build on a machine that need not have a GPU: resources, import, missing code."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import check_ptxas
import check_sass
import tilegrad as tg
from tilegrad import backends

HAS_CUDA_BUILD = importlib.util.find_spec("tilegrad._cuda") is not None
PTXAS_LOG = check_ptxas.ROOT / "cmake" / "ptxas_log.py"
LIST = "75-real,80-real,90a-real,80-virtual"


def test_kernels_keep_to_their_budget_and_never_spill() -> None:
    build = check_ptxas.latest_build()
    if build is None:
        assert shutil.which("nvcc") is None or not HAS_CUDA_BUILD
        pytest.skip("this build has no CUDA kernels: there is no nvcc")
    usage = check_ptxas.read(build)
    assert len(usage) > 20, f"only {sorted(usage)}"
    budget = json.loads(check_ptxas.BUDGET.read_text())
    assert check_ptxas.complaints(usage, budget) == []
    spilled = [
        (kernel, architecture)
        for kernel, architectures in usage.items()
        for architecture, used in architectures.items()
        if used["spills"] > 0
    ]
    assert spilled == []
    assert check_ptxas.advice(build) == []


def test_complaints_name_what_is_over_budget_new_or_gone() -> None:
    allowed = {"stack": 0, "spills": 0, "registers": 32, "shared": 0}
    budget = {"a_kernel": {"sm_80": allowed}, "gone_kernel": {"sm_80": allowed}}
    usage = {
        "a_kernel": {"sm_80": {**allowed, "registers": 33}},
        "new_kernel": {"sm_80": allowed},
    }
    found = check_ptxas.complaints(usage, budget)
    assert len(found) == 3
    assert "a_kernel on sm_80: registers 33, allowed 32" in found
    assert any(text.startswith("new_kernel has no budget for sm_80") for text in found)
    assert "gone_kernel is in the budget but not in the build" in found


def test_the_name_of_a_kernel_is_read_from_its_mangled_name() -> None:
    mangled = (
        "_ZN8tilegrad4cuda52_GLOBAL__N__c283e578_13_activation_cu_9937ea71_2087226"
        "activation_backward_kernelINS0_7float16EEEvPT_"
    )
    assert check_ptxas.kernel_name(mangled) == "activation_backward_kernel"
    mangled = mangled.replace("26activation_backward", "15sgd_step")
    assert check_ptxas.kernel_name(mangled) == "sgd_step_kernel"


def test_machine_code_has_the_instructions_that_each_kernel_was_written_for() -> None:
    build = check_ptxas.latest_build()
    if build is None:
        pytest.skip("this build has no CUDA kernels: there is no nvcc")
    program = check_sass.disassembler()
    if not program:
        pytest.skip("no cuobjdump with nvdisasm (CUDA's toolkit, or both from PyPI)")
    kernels = check_sass.of_build(build, program)
    assert all(len(kernels[architecture]) > 100 for architecture in check_sass.ARCHITECTURES)
    assert check_sass.complaints(kernels) == []


ADVICE = (
    "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are "
    "serialized due to the presence of Extern calls in the function 'a_kernel'"
)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("advice", [False, True])
def test_advice_of_ptxas_is_passed_on_and_an_error_where_warnings_are(
    tmp_path: Path, strict: bool, advice: bool
) -> None:
    made = tmp_path / "a.o"
    info = "ptxas info    : Used 38 registers, used 0 barriers"
    said = [info, *([ADVICE] if advice else []), "a warning of nvcc"]
    compiler = [sys.executable, "-c", f"import sys; sys.stderr.write({chr(10).join(said)!r})"]
    options = ["-Werror=all-warnings"] if strict else []
    done = subprocess.run(
        [sys.executable, PTXAS_LOG, *compiler, *options, "-o", str(made)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == int(strict and advice)
    assert info not in done.stderr
    assert "a warning of nvcc" in done.stderr
    assert (ADVICE in done.stderr) == advice
    kept = made.with_suffix(".o.ptxas").read_text()
    assert info in kept
    assert bool(check_ptxas.advice(tmp_path)) == advice


GOOD = """
		Function : _ZN8tilegrad4cuda13a_tile_kernelIfEEvPT_
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;               /* 0x00000a00ff017b82 */
                                                                        /* 0x000fe20000000800 */
        /*0010*/                   WARPGROUP.ARRIVE ;
        /*0020*/                   HGMMA.64x128x16.F32 R24, gdesc[UR12], R24 ;
        /*0030*/                   HGMMA.64x128x16.F32 R24, gdesc[UR16], R24, gsb0 ;
        /*0040*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*0050*/              @!P0 STG.E.128 desc[UR4][R2.64], R24 ;
        /*0060*/               @P0 BAR.RED.OR.DEFER_BLOCKING 0x0 ;
        /*0070*/                   REDG.E.ADD.S32.STRONG.GPU desc[UR4][R2.64], R5 ;
"""


def test_disassembly_is_read_with_predicates_and_groups() -> None:
    found = check_sass.read(GOOD.splitlines())
    (code,) = found.values()
    assert code.counts["HGMMA.64x128x16.F32"] == 2
    assert code.counts["STG.E.128"] == 1
    assert (len(code.counts), code.group) == (7, 2)
    row = check_sass.Row("a_tile_kernel", "HGMMA STG.E.128", on=("sm_90a",), group=2)
    assert check_sass.complaints({"sm_90a": found}, [row]) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("STG.E.128", "STG.E"), "no STG.E.128"),
        (("LDC R1", "LDL R1"), "local memory (LDL)"),
        (("ADD.S32", "ADD.F32.FTZ.RN"), "REDG.E.ADD.F32.FTZ.RN.STRONG.GPU adds floats in an order"),
        (("LDC R1", "HMMA.16816.F32 R1"), "HMMA is not what it was written for"),
        (("gdesc[UR12], R24 ;", "gdesc[UR12], R24 ;\n /*0024*/ WARPGROUP.DEPBAR.LE gsb0, 0x0 ;"),
         "1 HGMMA before a wait, at least 2 wanted"),
        (("a_tile_kernel", "b_tile_kernel"), "no kernel is named a_tile_kernel"),
    ],
)  # fmt: skip
def test_machine_code_that_is_not_as_wanted_is_named(change: tuple[str, str], text: str) -> None:
    row = check_sass.Row("a_tile_kernel", "HGMMA STG.E.128", group=2)
    found = check_sass.read(GOOD.replace(*change).splitlines())
    assert any(text in line for line in check_sass.complaints({"sm_90a": found}, [row]))


@pytest.mark.skipif(not HAS_CUDA_BUILD, reason="this build has no CUDA backend: there is no nvcc")
def test_the_cuda_module_imports_without_a_driver_and_says_what_is_missing() -> None:
    code = (
        "import sys; before = set(sys.modules); import tilegrad as tg;"
        "assert 'tilegrad._cuda' not in sys.modules, 'loaded before it is needed';"
        "import tilegrad._cuda as m; print(m.device_count(), '|', m.reason_unavailable())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, reason = done.stdout.strip().split(" | ")
    if int(count) > 0:
        return
    assert reason
    assert not tg.cuda.is_available()
    assert tg.cuda.device_count() == 0
    with pytest.raises(RuntimeError, match="device: 'cuda' cannot be used: "):
        tg.zeros(3, device="cuda")


@pytest.mark.parametrize(
    ("built", "capability", "code"),
    [
        ("80-real", 80, 80),
        ("80-real", 86, 80),  # machine code of a major version runs on its later minors
        ("80-real,86-real", 89, 86),
        ("80-real", 90, 0),
        ("86-real", 80, 0),
        ("80-virtual", 90, 80),  # PTX is compiled by the driver for what came later
        ("80-virtual", 75, 0),
        ("80", 75, 0),
        ("80", 120, 80),
        ("80-real,86-virtual", 86, 80),  # machine code goes before PTX
        ("90a-real", 90, 90),
        ("90a-real", 91, 0),  # the letter: this device and no other
        ("90a-virtual", 100, 0),
        (LIST, 75, 75),
        (LIST, 89, 80),
        (LIST, 90, 90),
        (LIST, 100, 80),  # without clusters, wgmma and TMA, which PTX of 8.0 does not have
        (LIST, 120, 80),
        (LIST, 70, 0),
        ("", 80, 0),
    ],
)
def test_kernels_are_chosen_by_the_code_that_runs_and_its_absence_is_named(
    built: str, capability: int, code: int
) -> None:
    module: Any = backends.at(backends.SIM)  # the same source as _cuda's
    assert module._code_for(built, capability) == code
    text = module._missing_code(built, capability, "Some GPU")
    if code:
        assert text == ""
        return
    major, minor = divmod(capability, 10)
    suffix = "a" if capability == 90 else ""
    assert text.startswith(f"cuda: this build has no code for Some GPU (compute capability {major}")
    assert f"{major}.{minor}" in text
    assert f"it has {built}." in text
    assert f"TILEGRAD_CUDA_ARCHITECTURES={capability}{suffix}-real" in text
