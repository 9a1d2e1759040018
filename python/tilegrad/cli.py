# SPDX-License-Identifier: MIT
"""The command line: ``tilegrad info | train | plot | bench | gradcheck | trace``.

Exit codes: 0 fine, 1 an error (one line on stderr), 2 bad arguments or environment, 130 Ctrl-C,
141 the reader of the output has gone (`tilegrad ... | head`), as of what a signal ends.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Sequence

from . import _cli_settings as settings
from . import backends

_EXTRAS = {
    "bf16": "ml_dtypes",
    "io": "safetensors",
    "onnx": "onnx",
    "plot": "matplotlib",
    "progress": "tqdm",
    "torch": "torch",
    "trace": "elftools",
}
_USES = {
    "bf16": "bfloat16 in NumPy arrays",
    "io": "save and load models",
    "onnx": "ONNX files",
    "plot": "learning curves",
    "progress": "progress bars",
    "torch": "tilegrad.torch, several machines, benchmarks",
    "trace": "source lines of `tilegrad trace`",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments without the program's name. Default: those of the process.

    Returns:
        The exit code.

    Example:
        >>> main(["gradcheck", "tanh"])  # doctest: +ELLIPSIS
        tanh (float64): passed; all 20 elements agree
          worst of input[...
        0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else ""
    try:
        code = _run(arguments)
        print(end="", flush=True)  # here a reader that has gone can still be noticed
        return code
    except KeyboardInterrupt:
        print(f"tilegrad {command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone; so has its interest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"tilegrad {command}: {_describe(error)}", file=sys.stderr)
    except (ImportError, MemoryError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split()) or "not enough memory"
        print(f"tilegrad {command}: {text}", file=sys.stderr)
    return 1


def _run(arguments: list[str]) -> int:
    try:
        if arguments[:1] == ["bench"]:  # it has a parser of its own
            return _bench(arguments[1:])
        args = _parser().parse_args(arguments)
        return int(args.run(args))
    except SystemExit as leave:  # argparse: --help, or bad arguments
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)


def _describe(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tilegrad",
        description="Hand-written kernels for dense networks: look at the build, train, measure, "
        "check gradients, watch kernels. Each command explains its options with --help.",
    )
    parser.add_argument("--version", action="version", version=backends.info()["version"])
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_info(commands)
    _add_train(commands)
    _add_gradcheck(commands)
    _add_trace(commands)
    _add_plot(commands)
    # Never parsed here, see main: only for the list of commands.
    commands.add_parser("bench", help="measure kernels beside NumPy, PyTorch and the hardware")
    return parser


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "show version, instruction sets, threads, backends and optional packages"
    parser = commands.add_parser("info", help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument(
        "--json", action="store_true", help="print JSON (default: lines for people)"
    )
    parser.set_defaults(run=_info)


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network on images",
        description="Train a multilayer perceptron on images, with a progress bar, and save the "
        "model, its learning curves and all figures. Without options: Fashion-MNIST if it is "
        "installed, else the digits that come with tilegrad.",
    )
    add = parser.add_argument_group("what comes in and goes out").add_argument
    add("--data", metavar="NAME",
        help="auto (Fashion-MNIST if it is found, else digits), digits, fashion-mnist, mnist, or "
        "a folder with the four IDX files of such a set; fashion-mnist and mnist are looked for "
        "below the environment variable TILEGRAD_DATA, fashion-mnist also where Debian's "
        "dataset-fashion-mnist puts it (default: auto)")  # fmt: skip
    add("--out", metavar="DIR",
        help="folder for model.safetensors, curves.png, confusion.png, history.json and the "
        "checkpoint; an earlier run in it is replaced (default: runs/<name of data>)")  # fmt: skip
    add("--resume", action="store_true",
        help="go on with the interrupted run in --out, with its settings, from its last "
        "checkpoint (default: a new run)")  # fmt: skip
    add("--json", metavar="FILE",
        help="write what history.json holds to this file too; -: to the standard output "
        "(default: history.json alone)")  # fmt: skip
    add("--no-progress", action="store_true",
        help="no bar, only a line for each epoch (default: both)")  # fmt: skip
    add("--quiet", action="store_true",
        help="print the test accuracy only (default: a report)")  # fmt: skip
    add("--threads", type=settings.positive_integer, metavar="N",
        help="threads; no result depends on them (default: TILEGRAD_NUM_THREADS, else one for "
        f"each CPU; here {backends.num_threads()})")  # fmt: skip
    add = parser.add_argument_group(
        "several processes",
        "Start the same command on all by torchrun, such as: torchrun --nproc-per-node 2 -m "
        "tilegrad train --distributed",
    ).add_argument
    add("--distributed", nargs="?", const="env://", metavar="URL",
        help="share out each batch over the processes, with the result of one; the first alone "
        "prints and writes. URL: where they meet, as torch.distributed has it (default: one "
        "process; without URL env://, which torchrun sets)")  # fmt: skip
    add("--timeout", type=settings.positive_integer, metavar="SECONDS",
        help="that a process waits for the others before it gives up (default: 600)")  # fmt: skip
    settings.add_arguments(parser)
    parser.set_defaults(run=_train)


def _add_trace(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from . import _cli_trace

    parser = commands.add_parser(
        "trace",
        help="watch what the kernels of an op do to memory, line by line",
        description="Run an op in the simulator and show, beside the lines of its CUDA kernels, "
        "how well the memory accesses of a warp fall together, bank conflicts, races and accesses "
        "out of bounds.",
    )
    _cli_trace.add_arguments(parser)


def _add_plot(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from . import _cli_plot

    parser = commands.add_parser(
        "plot",
        help="draw every activation or loss with its derivative",
        description="Draw the gallery of all activations, or of all losses: the value and the "
        "derivative of each, computed by this library's kernels.",
    )
    _cli_plot.add_arguments(parser)


def _add_gradcheck(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "gradcheck",
        help="check a backward pass against central differences",
        description="Check the backward pass of an op against central differences on small random "
        "operands, and name the worst element.",
    )
    parser.add_argument("op", metavar="OP", help="name of a public op, such as matmul; or all")
    parser.add_argument(
        "--dtype",
        choices=settings.DTYPES,
        default="float64",
        help="of the operands; float32 has a larger step and looser tolerances (default: float64)",
    )
    parser.add_argument(
        "--seed",
        type=settings.whole_number,
        default=0,
        metavar="N",
        help="chooses the operands (default: 0)",
    )
    parser.set_defaults(run=_gradcheck)


def _info(args: argparse.Namespace) -> int:
    info = backends.info()
    extras = {extra: importlib.util.find_spec(name) is not None for extra, name in _EXTRAS.items()}
    if args.json:
        print(json.dumps({**info, "extras": extras}, indent=2))
        return 0
    others = [isa for isa in info["supported_isas"] if isa != info["isa"]]
    print(f"tilegrad {info['version']}")
    print(
        f"instruction set  {info['isa']}; also here: {', '.join(others) or 'none'} (TILEGRAD_CPU)"
    )
    print(f"threads          {info['num_threads']} (TILEGRAD_NUM_THREADS)")
    for name, reason in info["backends"].items():
        print(f"backend {name:<8} {'available' if reason is None else f'not available: {reason}'}")
    for extra, there in extras.items():
        state = "installed" if there else f'missing; pip install "tilegrad[{extra}]"'
        print(f"extra {extra:<10} {_EXTRAS[extra]} {state} ({_USES[extra]})")
    return 0


def _train(args: argparse.Namespace) -> int:
    from ._cli_train import train

    return train(args)


def _gradcheck(args: argparse.Namespace) -> int:
    from ._cli_gradcheck import check, known_ops

    known = known_ops()
    if args.op not in (*known, "all"):
        print(
            f"tilegrad gradcheck: unknown op {args.op!r}; known: {', '.join(known)}; or all",
            file=sys.stderr,
        )
        return 2
    failed = 0
    for name in known if args.op == "all" else [args.op]:
        result = check(name, args.dtype, args.seed)
        print(str(result).replace("gradcheck:", f"{name} ({args.dtype}):", 1))
        failed += not result
    return int(failed > 0)


def _bench(argv: list[str]) -> int:
    try:
        module = importlib.import_module("tilegrad.bench.__main__")
    except ModuleNotFoundError as error:
        if error.name != "tilegrad.bench.__main__":
            raise
        print("tilegrad bench: this build comes without the benchmarks", file=sys.stderr)
        return 1
    return int(module.main(argv) or 0)


if __name__ == "__main__":
    sys.exit(main())
