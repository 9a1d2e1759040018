# SPDX-License-Identifier: MIT
"""Collect the wheels that `make gpu-check` may lack on a machine that reaches no registry.

    make gpu-wheels WHEELS=folder PYTHON_TARGET=3.12      then carry the folder there, and
    make gpu-check WHEELS=folder                          on that machine

Run it where there is a registry. Wheels are those for x86-64 Linux and the Python of the other
machine (--python, 3.12 by default), whatever this one is. numpy, PyTorch and CUDA's toolkit are
too large to carry: they have to be there.

pip asks for wheels of the other Python, but reads conditions such as `python_version < "3.11"` for
the Python that it runs in. So what it brought is read again, for the other one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from email.parser import HeaderParser
from pathlib import Path

from gpu_machine import OLDEST_PYTHON, packages, wheel_of

try:
    from packaging.requirements import Requirement
except ImportError:  # every pip brings it
    from pip._vendor.packaging.requirements import Requirement

_LARGE = {"cmake": "28 MB"}  # usually there, and carried only if asked for
_LEFT_OUT = ("numpy", "pip")
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    result = argparse.ArgumentParser(prog="gpu_wheels.py", description=__doc__.splitlines()[0])
    result.add_argument("folder", type=Path, help="where the wheels go")
    result.add_argument("--python", default="3.12", type=_version, metavar="3.N",
                        help="of the machine with the GPU (default: 3.12)")  # fmt: skip
    for name, size in _LARGE.items():
        result.add_argument(f"--{name}", action="store_true", help=f"also {name}, {size}")
    return result


def _version(text: str) -> str:
    found = re.fullmatch(r"3\.(\d+)", text)
    if not found or int(found[1]) < OLDEST_PYTHON[1]:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise argparse.ArgumentTypeError(f"must be {oldest} or later, as 3.12; got {text!r}")
    return text


def wanted(large: Sequence[str] = ()) -> list[str]:
    """Return the packages that are collected, without what they depend on.

    >>> "pybind11" in wanted(), "cmake" in wanted(), "cmake" in wanted(["cmake"])
    (True, False, True)
    """
    return [
        name
        for name in packages()
        if name not in _LEFT_OUT and (name not in _LARGE or name in large)
    ]


def command(folder: Path, python: str, names: Sequence[str]) -> list[str]:
    """Return the call of pip that downloads wheels for another machine."""
    return [
        sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:",
        "--dest", str(folder), "--implementation", "cp", "--python-version", python,
        *(f"--platform={name}" for name in _PLATFORMS), *names,
    ]  # fmt: skip


def needs(lines: Iterable[str], python: str) -> list[Requirement]:
    """Return which of a wheel's requirements hold on the other machine.

    >>> lines = ["tomli>=1; python_version < '3.11'", "iniconfig", "nose; extra == 'dev'"]
    >>> [[one.name for one in needs(lines, python)] for python in ("3.10", "3.12")]
    [['tomli', 'iniconfig'], ['iniconfig']]
    """
    there = {
        "python_version": python, "python_full_version": f"{python}.0", "extra": "",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
        "os_name": "posix", "sys_platform": "linux", "platform_system": "Linux",
        "platform_machine": "x86_64",
    }  # fmt: skip
    every = (Requirement(line) for line in lines)
    return [one for one in every if one.marker is None or one.marker.evaluate(there)]


def lacking(folder: Path, python: str) -> list[str]:
    """Return what the wheels of a folder need on the other machine and the folder has not."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(path) as wheel:
            name = next(one for one in wheel.namelist() if one.endswith(".dist-info/METADATA"))
            head = HeaderParser().parsestr(wheel.read(name).decode())
        for one in needs(head.get_all("Requires-Dist", []), python):
            if one.name not in _LEFT_OUT and wheel_of(one.name, folder) is None:
                found.setdefault(one.name, f"{one.name}{one.specifier}")
    return list(found.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return pip's exit status."""
    args = parser().parse_args(argv)
    names = wanted([name for name in _LARGE if getattr(args, name)])
    args.folder.mkdir(parents=True, exist_ok=True)
    status = subprocess.run(command(args.folder, args.python, names)).returncode
    while status == 0 and (more := lacking(args.folder, args.python)):
        if more == names:
            print(f"gpu_wheels: no wheel of {', '.join(more)} for Python {args.python}")
            return 1
        names = more
        status = subprocess.run(command(args.folder, args.python, names)).returncode
    if status == 0:
        wheels = sorted(args.folder.glob("*.whl"))
        total = sum(path.stat().st_size for path in wheels) / 1e6
        print(f"{args.folder}: {len(wheels)} wheels, {total:.1f} MB, for Python {args.python}")
    return status


if __name__ == "__main__":
    sys.exit(main())
