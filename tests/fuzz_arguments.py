# SPDX-License-Identifier: MIT
"""Call every public function with mutated arguments and require an answer or a refusal in words.

    python tests/fuzz_arguments.py --device cpu --minutes 30 --seed 1

A call begins legal (call_inputs.py); up to three of its aspects are then changed: shape, strides,
alignment, dtype, values, options, `out`, `wrt`, device, or what is no array at all. Whatever comes:
no crash, no other exception than documented, no input changed, no `out` changed by a refused call,
no earlier result overwritten, the same bits when called again, and now and then the values of the
reference in float64. Each case is named in a file before it runs, so that a crash is reproduced by
`--only`.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import json
import os
import re
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fuzz_objects
import fuzz_values
import tilegrad as tg
from fuzz_calls import SANITIZED, Case, arrays_of
from tilegrad import reference

KEPT = 200  # results that are watched
EXCEPTIONS = (TypeError, ValueError, RuntimeError, BufferError, MemoryError)
# Python's and NumPy's own words for a call that does not fit the signature, and for no truth value.
THEIRS = re.compile(
    r"\(\) (missing|got|takes)|keywords must be strings|multiple values for|^The truth value of an"
    r"|^Array: the truth of several|^Array: == compares"
    r"|^Boolean value of Tensor"
)
TOLERANCE = {"float64": 1e-9, "float32": 1e-3, "float16": 0.02, "bfloat16": 0.1}


class DefectError(Exception):
    """What must not happen; the text says what did."""


def bytes_of(x: Any, outs: Sequence[Any] = ()) -> bytes | None:
    """Return the bytes of an array, and of what surrounds it unless an `out` lies there."""
    if isinstance(x, tg.Array):
        return x.numpy().tobytes()
    if not isinstance(x, np.ndarray) or x.dtype.hasobject:
        return None
    while isinstance(x.base, np.ndarray) and not _shared(x.base, outs):
        x = x.base
    strides = [s for n, s in zip(x.shape, x.strides, strict=True) if n > 1]
    if x.size and 0 in strides:  # broadcast, perhaps to more than memory holds
        x = x[tuple(slice(0, 1) if s == 0 else slice(None) for s in x.strides)]
    return np.ndarray.tobytes(x)  # a masked array's own shows its filler


def check_refusal(error: BaseException, names: tuple[str, ...]) -> None:
    """Require a documented exception whose text begins with the name of what refuses."""
    text = str(error).split("\nInvoked with")[0]  # pybind11 goes on with all the elements
    if names == ("",) and isinstance(error, (OverflowError, UnicodeError)):
        return  # NumPy's, of a maker's value
    if not isinstance(error, EXCEPTIONS) or isinstance(error, (UnicodeError, RecursionError)):
        raise DefectError(f"{type(error).__name__}: {text}") from error
    if isinstance(error, (MemoryError, NotImplementedError)) or THEIRS.search(text):
        return
    if not text.startswith(("device: ", *(name and f"{name}: " for name in names))):
        raise DefectError(f"{type(error).__name__} in other words: {text}") from error


def check_reference(case: Case, results: list[Any]) -> bool:
    """Compare with the reference in float64 where the operands are ordinary; say if it was done."""
    call = {k: v for k, v in case.call.items() if k not in ("out", "inplace", "variant")}

    def wide(x: Any) -> Any:
        x = x.numpy() if isinstance(x, tg.Array) else x
        return x.astype(np.float64) if x.dtype == case.dtype else x

    call = {k: [wide(a) for a in v] if isinstance(v, list)
            else wide(v) if arrays_of(v) and not isinstance(v, tuple) else v
            for k, v in call.items()}  # fmt: skip
    try:
        with np.errstate(all="ignore"):
            expected = arrays_of(_as_arrays(getattr(reference, case.op)(**call)))
    except Exception:  # it does not check its operands
        return False
    if len(expected) != len(results):
        return False
    for want, got in zip(expected, results, strict=True):
        got = (got.numpy() if isinstance(got, tg.Array) else got).astype(np.float64)
        if want.shape != got.shape:
            raise DefectError(f"shape {got.shape}; the reference's is {want.shape}")
        finite = np.isfinite(want)
        scale = np.abs(want[finite]).max(initial=0.0)
        if scale > 1e4:
            return False
        error = np.abs(got[finite] - want[finite])
        if not (error <= TOLERANCE[case.dtype.name] * (1 + scale)).all():
            raise DefectError(f"differs from the reference by {error.max()} at a scale of {scale}")
        if (np.isfinite(got) != finite).any():
            raise DefectError("not finite where the reference is, or the reverse")
    return True


def _as_arrays(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_as_arrays(v) for v in value]
    return value if value is None else np.asarray(value)


class Fuzzer:
    """Runs cases of a seed and counts what came of them."""

    def __init__(self, device: str, seed: int, log: Path | None = None) -> None:
        self.device, self.seed = device, seed
        self.kept: collections.deque[tuple[Any, bytes, int]] = collections.deque()
        self.counts: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        self.log = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644) if log else None

    def note(self, index: int, text: str) -> None:
        """Write what comes next where it outlasts a crash of the process."""
        if self.log is not None:
            line = f"--seed {self.seed} --only {index}: {text}"[:3990]
            os.pwrite(self.log, (line.ljust(3999) + "\n").encode(errors="replace"), 0)

    def run(self, index: int) -> None:
        """Run one case; DefectError if something is wrong."""
        if np.random.default_rng([self.seed, index, 0]).random() < 0.12:
            name, names, action = fuzz_objects.case(self.seed, index, self.device)
            self.note(index, name)
            try:
                action()
            except fuzz_objects.WrongError as error:
                raise DefectError(f"{name}: {error}") from error
            except Exception as error:
                self.count(name, type(error).__name__)
                check_refusal(error, names)
            else:
                self.count(name, "accepted")
            return
        case = Case(self.seed, index, self.device)
        self.note(index, case.describe())
        try:
            self.call(case, index)
        except DefectError as defect:
            raise DefectError(f"{case.describe()}\n  {defect}") from defect.__cause__

    def count(self, name: str, what: str) -> None:
        self.counts[name.split("(")[0].split()[0]][what] += 1

    def call(self, case: Case, index: int) -> None:
        outs = arrays_of(case.call.get("out"))
        if "inplace" in fuzz_values.options_of(case.function):  # whatever is given: it may be true
            given = case.extra or case.call.get("inplace") is not None
            outs = outs + (arrays_of([*case.extra, case.call.get("input")]) if given else [])
        inputs = [a for a in arrays_of(list(case.call.values())) if not _shared(a, outs)]
        inputs += [a for a in arrays_of(list(case.extra)) if not _shared(a, outs)]
        before = [bytes_of(a, outs) for a in inputs]
        outs_before = [bytes_of(a) for a in outs]
        try:
            result = case.function(*case.extra, **case.call)
        except Exception as error:
            self.count(case.op, type(error).__name__)
            check_refusal(error, (case.op, case.op.removesuffix("_value_and_grad")))
            if [bytes_of(a) for a in outs] != outs_before:
                raise DefectError(f"a refused call changed out: {error}") from error
            result = None
        else:
            self.count(case.op, "accepted")
        if [bytes_of(a, outs) for a in inputs] != before:
            raise DefectError("an input was changed")
        results = [a for a in arrays_of(_plain(result)) if not _shared(a, outs)]
        if case.op != "dropout" and any(_shared(a, inputs) for a in results if a.size):
            raise DefectError("the result lies in the memory of an input")
        self.watch(results, index)
        if result is None or outs or case.extra:
            return
        if case.rng.random() < 0.1 and not _draws(case):
            again = arrays_of(_plain(case.function(**case.call)))
            if [bytes_of(a) for a in again] != [bytes_of(a) for a in results]:
                raise DefectError("called again it gives other bits")
        if case.plain and case.rng.random() < 0.3 and check_reference(case, results):
            self.count(case.op, "compared")

    def watch(self, results: list[Any], index: int) -> None:
        """Keep results for a while; require them as they were when they are let go."""
        self.kept.extend((a, bytes_of(a) or b"", index) for a in results if a.nbytes < 1 << 16)
        while len(self.kept) > KEPT:
            array, bits, made = self.kept.popleft()
            if bytes_of(array) != bits:
                raise DefectError(f"the result of case {made} was overwritten later")

    def summary(self) -> dict[str, Any]:
        """Return the counts, of all and of each function."""
        total: collections.Counter[str] = sum(self.counts.values(), collections.Counter())
        compared = total.pop("compared", 0)
        return {
            "device": self.device, "seed": self.seed, "calls": sum(total.values()),
            "accepted": total.pop("accepted", 0), "compared with the reference": compared,
            "refused": dict(total.most_common()),
            "functions": {name: dict(c) for name, c in sorted(self.counts.items())},
        }  # fmt: skip


def _plain(result: Any) -> Any:
    return np.asarray(result) if isinstance(result, np.generic) else result


def _shared(x: Any, others: Sequence[Any]) -> bool:
    if isinstance(x, tg.Array):
        return any(isinstance(o, tg.Array) and o._storage is x._storage for o in others)
    return any(isinstance(o, np.ndarray) and np.may_share_memory(x, o) for o in others)


def _draws(case: Case) -> bool:
    """Say whether a second call must differ: dropout without an offset draws new numbers."""
    return case.op == "dropout" and (
        case.call.get("seed") is None or case.call.get("offset") is None
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "sim"))
    parser.add_argument("--minutes", type=float, default=1.0, help="of this process's CPU time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="run this case alone")
    parser.add_argument("--log", type=Path, default=Path("fuzz_arguments.log"))
    parser.add_argument("--json", type=Path, help="write the summary there")
    parser.add_argument("--keep-going", action="store_true", help="report every defect")
    arguments = parser.parse_args()
    if not SANITIZED:  # a sanitizer's shadow needs terabytes of addresses
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "(?s).* are broadcast")  # a loss module says so
    # NumPy's, of what a maker is to fill an array with.
    warnings.filterwarnings("ignore", ".* encountered in cast|Casting complex values")
    faulthandler.enable()
    fuzzer = Fuzzer(arguments.device, arguments.seed, arguments.log)
    start, index, defects = time.process_time(), arguments.first, []
    seen: collections.Counter[str] = collections.Counter()
    shown = start

    def summary() -> dict[str, Any]:
        found = {
            **fuzzer.summary(), "first": arguments.first, "last": index,
            "minutes of CPU": round((time.process_time() - start) / 60, 1),
            "sanitized": SANITIZED, "defects": len(defects),
        }  # fmt: skip
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")
        return found

    while True:
        index = index if arguments.only is None else arguments.only
        if index % 64 == 0:
            faulthandler.dump_traceback_later(300, exit=True)  # a call that never returns
        try:
            fuzzer.run(index)
        except DefectError as defect:
            again = f"--device {arguments.device} --seed {arguments.seed} --only {index}"
            line = f"DEFECT {again}: {defect}"
            key = re.sub(r"[\d.]+", "#", str(defect).rsplit("\n", 1)[-1])[:60]
            seen[key] += 1
            if seen[key] <= 3:
                print(line, flush=True)
                if arguments.only is not None and defect.__cause__ is not None:
                    traceback.print_exception(defect.__cause__)
            defects.append(line)
            if not arguments.keep_going:
                break
        now = time.process_time()
        if now - shown > 60:
            shown = now
            calls = summary()["calls"]  # written each minute: an end from outside loses little
            print(
                f"{(now - start) / 60:.1f} min, {calls} calls, {len(defects)} defects", flush=True
            )
        if arguments.only is not None or now - start > arguments.minutes * 60:
            break
        index += 1
    found = summary()
    del found["functions"]
    print(json.dumps(found))
    sys.exit(bool(defects))


if __name__ == "__main__":
    main()
