# SPDX-License-Identifier: MIT
"""The compiled modules carry what compiler and linker can do against a memory error."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

elffile = pytest.importorskip("elftools.elf.elffile", reason="needs pyelftools (the trace extra)")
if platform.system() != "Linux":
    pytest.skip("about ELF", allow_module_level=True)

SPECS = [importlib.util.find_spec(f"tilegrad.{n}") for n in ("_cpu", "_sim", "_sim_trace", "_cuda")]
MODULES = [Path(str(spec.origin)) for spec in SPECS if spec is not None]
EXECUTABLE = 1  # PF_X

every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name.split(".")[0])


def dynamic(elf: elffile.ELFFile) -> dict[str, int]:
    """Return the entries of the dynamic section by name; of names that repeat the last."""
    section = elf.get_section_by_name(".dynamic")
    return {tag.entry.d_tag: tag.entry.d_val for tag in section.iter_tags()}


def imported(elf: elffile.ELFFile) -> set[str]:
    """Return the names that a module takes from other libraries."""
    symbols = elf.get_section_by_name(".dynsym").iter_symbols()
    return {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF"}


def test_there_are_modules() -> None:
    assert {path.name.split(".")[0] for path in MODULES} >= {"_cpu", "_sim", "_sim_trace"}


@every_module
def test_what_the_loader_has_written_is_read_only(path: Path) -> None:
    with path.open("rb") as file:
        elf = elffile.ELFFile(file)
        kinds = {segment["p_type"] for segment in elf.iter_segments()}
        tags = dynamic(elf)
    assert "PT_GNU_RELRO" in kinds
    assert tags.get("DT_FLAGS", 0) & 8 or tags.get("DT_FLAGS_1", 0) & 1, "not bound at load time"


@every_module
def test_nothing_is_writable_and_executable(path: Path) -> None:
    with path.open("rb") as file:
        elf = elffile.ELFFile(file)
        segments = [(segment["p_type"], segment["p_flags"]) for segment in elf.iter_segments()]
        tags = dynamic(elf)
    stack = [flags for kind, flags in segments if kind == "PT_GNU_STACK"]
    assert len(stack) == 1
    assert not stack[0] & EXECUTABLE
    assert [flags for kind, flags in segments if kind == "PT_LOAD" and flags & 3 == 3] == []
    assert "DT_TEXTREL" not in tags
    assert not tags.get("DT_FLAGS", 0) & 4, "relocations in code"


@every_module
def test_libraries_are_sought_nowhere_but_where_the_system_has_them(path: Path) -> None:
    with path.open("rb") as file:
        elf = elffile.ELFFile(file)
        tags = dynamic(elf)
        needed = [tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
    assert not {"DT_RPATH", "DT_RUNPATH"} & set(tags)
    # the loader stands in the list where a module has variables of threads
    system = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libdl.so.2"}
    system |= {"libpthread.so.0", "librt.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    assert set(needed) <= system


@every_module
def test_stacks_containers_and_buffers_are_checked(path: Path) -> None:
    with path.open("rb") as file:
        names = imported(elffile.ELFFile(file))
    assert "__stack_chk_fail" in names  # -fstack-protector-strong
    # _GLIBCXX_ASSERTIONS: what an index beyond a vector prints
    assert b"__n < this->size()" in path.read_bytes()
    if path.name.startswith(
        "_sim"
    ):  # _FORTIFY_SOURCE, where a buffer is written whose size is known
        assert "__snprintf_chk" in names


def test_a_library_without_all_that_fails_every_check(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    source, library = tmp_path / "plain.cpp", tmp_path / "plain.so"
    source.write_text("#include <string>\nint f(std::string s) { return int(s.size()); }\n")
    options = ["-shared", "-fPIC", "-fno-stack-protector", "-Wl,-rpath,/tmp"]
    options += [f"-Wl,-z,{word}" for word in ("lazy", "norelro", "execstack")]
    subprocess.run([compiler, *options, source, "-o", library], check=True, capture_output=True)
    checks = [
        test_what_the_loader_has_written_is_read_only,
        test_nothing_is_writable_and_executable,
        test_libraries_are_sought_nowhere_but_where_the_system_has_them,
        test_stacks_containers_and_buffers_are_checked,
    ]
    for check in checks:
        with pytest.raises(AssertionError):
            check(library)
