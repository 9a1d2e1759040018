# SPDX-License-Identifier: MIT
"""``tilegrad bench cuda``: the kernels beside torch on a GPU, each figure stored as it is made."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import tilegrad as tg
from tilegrad import backends

from .._files import write_whole
from . import gpu_goals, gpu_report, gpu_roofline, gpu_state, machine, report
from .canvas import check_matplotlib
from .device import LeftOut, Workbench, first_line, measure, tensor
from .device_workloads import all_cases
from .environment import torch
from .harness import Case, Limit, Protocol, calls_per_sample, run_rounds, summary
from .session import commit, versions

FORMAT = 2  # of the JSON; raised when a reader of the old one would be misled
_COPIED = 1 << 30  # bytes of the copy that gives the limit, many times any cache
_PRODUCT = 8192  # side of the bf16 product that gives the other
_MEMORY_BOUND = {
    "activation", "dropout", "softmax", "cross_entropy", "cross_entropy_options",
    "cross_entropy_ladder", "optim",
}  # fmt: skip
_STARTS = 3  # processes of which the median start is taken


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    result = argparse.ArgumentParser(
        prog="tilegrad bench cuda",
        description="Measure every kernel on the GPU beside PyTorch (eager, CUDA graph, compiled; "
        "where it is installed) in interleaved rounds, on random normal operands. A ratio is the "
        "fastest peer's time over ours: above 1, tilegrad is faster.",
    )
    add = result.add_argument
    add("--quick", action="store_true", help="a selection; its figures are rough")
    add("--filter", default="", metavar="TEXT",
        help="only cases whose family/name contains this, such as matmul/ or bf16")  # fmt: skip
    add("--goals", action="store_true", help="only cases that a goal asks for")
    add("--skip", metavar="FILE.json", help="leave out the cases that this stored run has")
    add("--minutes", type=float, default=0, metavar="N",
        help="start no case after so long, name what is left out (default: no limit)")  # fmt: skip
    add("--json", metavar="FILE", help="store conditions and figures, anew after every case")
    add("--plot", metavar="FILE.png", help="draw the roofline of the run (needs matplotlib)")
    add = result.add_mutually_exclusive_group().add_argument
    add("--predict", action="store_true",
        help="print what the model of an H200 predicts for each case; needs no GPU")  # fmt: skip
    add("--from", dest="stored", metavar="FILE.json",
        help="print, and with --plot draw, a run that is stored; needs no GPU")  # fmt: skip
    add("--list", action="store_true", help="print the cases and do nothing")
    return result


def _refuse_what_measures(options: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of a measurement where nothing is measured."""
    what = "--predict" if args.predict else "--from" if args.stored else "--list"
    if not (args.predict or args.stored or args.list):
        return
    for name in ("json", "minutes"):
        if getattr(args, name):
            options.error(f"--{name}: goes with a measurement; {what} makes none")
    if args.plot and args.list:
        options.error("--plot: goes with a measurement, --predict or --from; --list draws nothing")
    if args.stored and (args.skip or args.quick):
        options.error("--from: prints what is stored; leave out --skip and --quick")


def main(argv: Sequence[str] | None = None, device: str = "cuda") -> int:
    """Run the command.

    Args:
        argv: Arguments after ``tilegrad bench cuda``. Default: none.
        device: "cuda"; "sim" and "cpu" run the cases at tiny shapes, to try them out.

    Returns:
        0; 1 if a side computed something wrong or failed; 130 if interrupted.

    Raises:
        RuntimeError: There is no such device; the text says why.
        SystemExit: With status 2 if the options make no sense.
    """
    options = parser()
    args = options.parse_args(list(argv or []))
    bench = Workbench(device, tiny=not device.startswith("cuda"))
    cases = [case for case in all_cases(bench) if _wanted(args, case.id)]
    if args.quick and any(case.quick for case in cases):
        cases = [case for case in cases if case.quick]
    if args.skip:
        done = {gpu_goals.identity(one) for one in _stored(args.skip)["cases"]}
        cases = [case for case in cases if case.id not in done]
        if not cases:
            print(f"{args.skip} has all of these cases")
    elif not cases:
        options.error(f"--filter: must be part of a case's name; got {args.filter!r} (try --list)")
    if args.minutes < 0:
        options.error(f"--minutes: must not be negative; got {args.minutes:g}")
    _refuse_what_measures(options, args)
    if args.plot:
        check_matplotlib()
    if args.predict:
        print("\n".join(gpu_report.predictions(cases)))
        if args.plot:
            records = [gpu_report.as_if_measured(case) for case in cases]
            gpu_roofline.plot({"cases": records}, args.plot)
        return 0
    if args.stored:
        return _again(args.stored, args.plot, partial(_wanted, args))
    if args.list:
        print("\n".join(f"{case.id}{'  (quick)' if case.quick else ''}" for case in cases))
        return 0
    if args.json and not Path(args.json).absolute().parent.is_dir():
        options.error(f"--json: the folder must exist; got {args.json!r}")
    backends.place_of(device)  # a RuntimeError that says why there is none
    try:
        with bench.stream():
            return _run(bench, cases, args)
    except KeyboardInterrupt:
        print("\ninterrupted; the cases that were done are stored", file=sys.stderr)
        return 130


def _stored(path: str) -> dict[str, Any]:
    """Return a stored run: what this command wrote, or `make gpu-check`, which may have none."""
    found = json.loads(Path(path).read_text())
    if "steps" not in found:
        return dict(found)
    return dict(found["steps"].get("bench", {}).get("results", {"cases": []}))


def _wanted(args: argparse.Namespace, name: str) -> bool:
    return args.filter in name and (not args.goals or bool(gpu_goals.of_case(name)))


def _again(path: str, picture: str | None, wanted: Callable[[str], bool]) -> int:
    """Print and draw a stored run: what this command wrote, or `make gpu-check`."""
    result, family = _stored(path), ""
    result["cases"] = [one for one in result["cases"] if wanted(gpu_goals.identity(one))]
    print(_heading(result))
    for figures in result["cases"]:
        if figures["family"] != family:
            family = figures["family"]
            print(f"\n{gpu_report.columns(family)}")
        print(gpu_report.row(figures))
    print("\n" + "\n".join(_last_words(result)))
    if picture:
        gpu_roofline.plot(result, picture)
    return 0


def _last_words(result: dict[str, Any]) -> list[str]:
    words = [report.summary(result)] if "after" in result["limits"] else []
    return [*words, *gpu_report.off_by(result), "", *gpu_report.goal_lines(result)]


def _run(bench: Workbench, cases: Sequence[Case], args: argparse.Namespace) -> int:
    start = time.perf_counter()
    pt = torch()
    if bench.cuda and pt is not None:
        bench.cache = pt.cuda.get_device_properties(0).L2_cache_size
        pt.backends.cuda.matmul.allow_tf32 = False
    if bench.tiny and pt is not None:
        pt.set_num_threads(1)
    protocol = Protocol(sample=0.01, budget=0.8, fewest=5, most=15)
    if args.quick or bench.tiny:
        protocol = Protocol(sample=0.002, budget=0.1, fewest=3, most=9)
    copy = _copy(bench)
    result: dict[str, Any] = {
        "format": FORMAT,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "device": _device(bench),
        "machine": machine.describe(),
        "versions": {**versions(), "cuda of torch": pt.version.cuda if pt else None},
        "conditions": {
            "data": "random normal",
            "order": "interleaved rounds, alternating",
            "clock": "CUDA events" if bench.cuda and pt else "host, synchronised",
            "cache_bytes": bench.cache,
            "quick": args.quick,
            "tf32": "off, but for the rungs that round to it, whose peer does too",
        },
        "start": {} if bench.tiny else _start(bench),
        "gpu": {"before": _state(bench)},
        "limits": {"before": _limits(bench, copy)},
        "cases": [],
        "left_out": [],
        "failed": [],
    }
    _store(args.json, result, start)
    print(_heading(result), flush=True)
    family = ""
    for case in cases:
        if args.minutes and time.perf_counter() - start > 60 * args.minutes:
            result["left_out"].append({"case": case.id, "why": "the time was up"})
            continue
        if case.family != family:
            family = case.family
            print(f"\n{gpu_report.columns(family)}", flush=True)
        limit = copy if case.limited and case.family in _MEMORY_BOUND else None
        try:
            figures = measure(bench, case, limit, protocol)
        except LeftOut as why:
            result["left_out"].append({"case": case.id, "why": str(why)})
            print(f"  {case.name}: left out: {why}", flush=True)
        except Exception as error:  # one case that fails must not keep the rest from running
            text = f"{type(error).__name__}: {first_line(error)}"
            result["failed"].append({"case": case.id, "why": text})
            print(f"  {case.name}: FAILED: {text}", flush=True)
        else:
            figures |= {"predicted": gpu_report.predicted(case), "gpu": _state(bench)}
            limits = result["limits"]["before"]
            figures["of_product"] = gpu_report.of_product(case, figures.get("tflops", 0), limits)
            result["cases"].append(figures)
            print(gpu_report.row(figures), flush=True)
            for note in figures["notes"]:
                print(f"    {note}", flush=True)
        _release()
        _store(args.json, result, start)
    result["limits"]["after"] = _limits(bench, copy)
    result["gpu"]["after"] = _state(bench)
    result["summary"] = report.summary(result)
    print("\n" + "\n".join(_last_words(result)))
    late = sum(one["why"] == "the time was up" for one in result["left_out"])
    if late:
        print(f"left out, because the time was up: {report.counted(late, 'case')}")
    _store(args.json, result, start)
    if args.json:
        print(f"Stored {args.json}")
    if args.plot:
        gpu_roofline.plot(result, args.plot)
    for one in result["failed"]:
        print(f"failed: {one['case']}: {one['why']}")
    return 1 if result["failed"] else 0


def _store(path: str | None, result: dict[str, Any], start: float) -> None:
    """Write what there is, whole or not at all: a run that is killed leaves the last state."""
    if not path:
        return
    result["minutes"] = round((time.perf_counter() - start) / 60, 2)
    write_whole(path, (json.dumps(result, indent=1) + "\n").encode(), "bench")


def _state(bench: Workbench) -> dict[str, float]:
    """Return clocks and power, right after what was timed."""
    return gpu_state.read(bench.device) if bench.cuda else {}


def _release() -> None:
    gc.collect()
    tg.release_memory()
    if (pt := torch()) is not None and pt.cuda.is_available():
        pt.cuda.empty_cache()


def _device(bench: Workbench) -> dict[str, Any]:
    if bench.device == "cpu":
        return {"name": "cpu"}
    result: dict[str, Any] = {"name": bench.device, **tg.cuda.properties(bench.device)}
    if bench.cuda and (pt := torch()) is not None:
        result["name"] = pt.cuda.get_device_name(0)
    return result


def _copy(bench: Workbench) -> Limit:
    """Return a copy within the device's memory; its work is bytes read plus bytes written."""
    n = (_COPIED if bench.cuda else 1 << 16) // 4
    source = bench.normal("float32", n)
    if torch() is None:
        call = source.copy
    else:
        target = tensor(tg.empty(n, device=bench.device))
        call = partial(target.copy_, tensor(source))
    return Limit("copy", call, 8.0 * n)


def _limits(bench: Workbench, copy: Limit) -> dict[str, float]:
    """Return rates that say what the device can do, and how far it drifted between two calls."""
    clock = bench.clock()
    calls, _ = calls_per_sample(copy.call, 0.01, clock)
    seconds = run_rounds({"x": copy.call}, {"x": calls}, 5, clock=clock)["x"]
    result = {"copy_gbytes": round(copy.work / statistics.median(seconds) / 1e9, 1)}
    pt = torch()
    if bench.cuda and pt is not None:
        shape = (_PRODUCT, _PRODUCT)
        a, b = (tensor(bench.normal("bfloat16", *shape)) for _ in range(2))
        product = partial(pt.mm, a, b, out=pt.empty_like(a))
        calls, _ = calls_per_sample(product, 0.02, clock)
        seconds = run_rounds({"x": product}, {"x": calls}, 5, clock=clock)["x"]
        work = 2 * _PRODUCT**3 / 1e12
        result["torch_bf16_tflops"] = round(work / statistics.median(seconds), 1)
    return result


_IMPORTS = {
    "python": "pass",
    "numpy": "import numpy",
    "tilegrad": "import tilegrad",
    "tilegrad, first matmul done": (
        "import tilegrad as tg; a = tg.ones((64, 64), device='{device}'); tg.matmul(a, a).numpy()"
    ),
    "torch": "import torch",
    "torch, first matmul done": (
        "import torch; a = torch.ones((64, 64), device='{device}'); torch.mm(a, a).cpu()"
    ),
}


def _start(bench: Workbench) -> dict[str, dict[str, float]]:
    """Return the seconds that fresh processes take to import and to compute the first product."""
    found = {}
    for name, code in _IMPORTS.items():
        if "torch" in name and torch() is None:
            continue
        command = [sys.executable, "-c", code.format(device=bench.device)]
        seconds = []
        for _ in range(_STARTS):
            begin = time.perf_counter()
            if subprocess.run(command, capture_output=True).returncode != 0:
                break
            seconds.append(time.perf_counter() - begin)
        if seconds:
            found[name] = summary(seconds)
    return found


def _clocks(state: dict[str, float]) -> list[str]:
    return [f"as found: {', '.join(f'{key} {value:g}' for key, value in state.items())}"] * bool(
        state
    )


def _heading(result: dict[str, Any]) -> str:
    device, limits = result["device"], result["limits"]["before"]
    sides = ", ".join(f"{name} {number}" for name, number in result["versions"].items() if number)
    lines = [
        f"{device['name']}; {sides}, Python {result['machine']['python']}",
        "random normal operands, tf32 off; clock: " + result["conditions"]["clock"],
        "limits now: " + ", ".join(f"{name} {value}" for name, value in limits.items()),
        *_clocks(result.get("gpu", {}).get("before", {})),
        "ratio: fastest peer's time / ours, median and quartiles; above 1 tilegrad is faster",
    ]
    if result["versions"]["torch"] is None:
        lines.append("torch is not installed: no ratios")
    lines += [f"{name}: {one['median']:.3f} s" for name, one in result["start"].items()]
    return "\n".join(lines)
