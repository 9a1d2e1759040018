# SPDX-License-Identifier: MIT
"""A call for every kernel, and where an access costs more than it might (test_sim_intent.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import tilegrad as tg
from loss_ops import OPS as LOSSES
from loss_ops import LossOp
from tilegrad import backends, nn, optim


@dataclass(frozen=True)
class Excuse:
    """An access that costs more than its ideal: what the line holds, how much, and who says so."""

    code: str
    ratio: float
    file: str
    comment: str
    space: str = "global"


@dataclass(frozen=True)
class Case:
    name: str
    call: Callable[[], Any]
    kernel: str
    exceptions: tuple[Excuse, ...] = field(default=())

    def __str__(self) -> str:
        return self.name


def on_sim(*shape: int, dtype: str = "float32") -> tg.Array:
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return tg.asarray(values, device="sim")


def loss(op: LossOp, suffix: str, dtype: str) -> Any:
    operands = op.draw(np.random.default_rng(0), [(16, 256)] * 3, dtype)
    wrt = {"wrt": op.wrt} if suffix else {}
    return op.call(suffix, *(tg.asarray(x, device="sim") for x in operands), **wrt)


ACTIVATIONS = (
    "identity", "relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "gelu", "silu", "softplus",
    "mish", "hardtanh", "relu6", "hardsigmoid", "hardswish",
)  # fmt: skip
FLOATS = ("float32", "float64", "float16")
NAIVE = partial(Excuse, file="matmul/naive.cu", comment="costs 32 sectors of 32 bytes")
NAIVE_STORE = partial(Excuse, file="matmul/naive.cu", comment="addresses a whole row apart")
TRANSPOSED_B = partial(
    Excuse, file="matmul/coalesced.cu", comment="A transposed b (NT) has the naive kernel's"
)
HALF_SECTOR = partial(Excuse, file="matmul/tile.cuh", comment="costs 2.0x the sectors")
GATHER = Excuse("r.at_target", 4.0, "cross_entropy/row.cuh", "a gather, one sector a row")
CLUSTER_TOTALS = tuple(
    Excuse(code, ratio, "cross_entropy/cluster.cu", said, space="shared")
    for code, ratio, said in (
        ("cluster_peer(totals, lane)", 2.0, "stores are 2.0x, to peers"),
        ("totals[i].highest", 4.0, "loads of one member 4.0x"),
        ("part = totals[i]", 4.0, "loads of one member 4.0x"),
    )
)
BIAS = Excuse("epilogue.bias[j]", 2.0, "matmul/epilogue.cuh", "up to 2.0x the sectors")
TILED = ("tile_1d", "tile_2d", "vectorized", "double_buffered", "warp_tile")
FLOAT32_RUNGS = ("tf32x3", "hopper_tf32")
KERNELS = {"tf32x3": "tensor_core", "hopper_tf32": "hopper"}  # where it is not the rung's name


def elementwise() -> Iterator[Case]:
    for dtype in FLOATS:
        for name in ACTIVATIONS:
            forward, backward = getattr(tg, name), getattr(tg, f"{name}_backward")
            yield Case(
                f"{name}-{dtype}",
                lambda f=forward, d=dtype: f(on_sim(64, 256, dtype=d)),
                "activation",
            )
            yield Case(
                f"{name}_backward-{dtype}",
                lambda f=backward, d=dtype: f(on_sim(64, 256, dtype=d), on_sim(64, 256, dtype=d)),
                "activation",
            )
    for dtype in FLOATS[:2]:
        yield Case(
            f"dropout-{dtype}",
            lambda d=dtype: tg.dropout(on_sim(64, 256, dtype=d), seed=1, offset=0),
            "dropout",
        )
        yield Case(
            f"dropout_backward-{dtype}",
            lambda d=dtype: tg.dropout_backward(
                on_sim(64, 256, dtype=d), on_sim(64, 256, dtype=d), seed=1, offset=0
            ),
            "dropout",
        )
        yield Case(
            f"dropout_rows-{dtype}",
            lambda d=dtype: backends.at(backends.SIM).dropout_rows(
                on_sim(64, 256, dtype=d), 0.5, 1, 0, 1, 2
            ),
            "dropout_rows",
        )
        for op in LOSSES:
            for suffix in ("", "_value_and_grad"):
                name = f"{op}{suffix}-{dtype}"
                yield Case(name, partial(loss, op, suffix, dtype), "elementwise_loss_kernel")
    yield Case("fill", lambda: tg.full((64, 256), 3.0, device="sim"), "fill")


def rows() -> Iterator[Case]:
    """Yield softmax and cross_entropy with rows of a warp, of a block and of a block's loop."""
    for dtype in FLOATS:
        for classes in (32, 256, 1024, 4096):
            for name in ("softmax", "log_softmax"):
                forward, backward = getattr(tg, name), getattr(tg, f"{name}_backward")
                yield Case(
                    f"{name}-{classes}-{dtype}",
                    lambda f=forward, c=classes, d=dtype: f(on_sim(8, c, dtype=d), -1),
                    "softmax",
                )
                yield Case(
                    f"{name}_backward-{classes}-{dtype}",
                    lambda f=backward, c=classes, d=dtype: f(
                        on_sim(8, c, dtype=d), on_sim(8, c, dtype=d), -1
                    ),
                    "softmax",
                )
            for variant in ("three_pass", "online_warp", "block_row", "one_pass"):
                # Several rows a warp: each lane that leads one reads its logit at the target.
                gather = variant == "one_pass" and classes == 32 and dtype != "float64"
                yield Case(
                    f"cross_entropy-{variant}-{classes}-{dtype}",
                    lambda v=variant, c=classes, d=dtype: tg.cross_entropy_value_and_grad(
                        on_sim(8, c, dtype=d), targets(8, c), variant=v
                    ),
                    f"cross_entropy_{variant}",
                    (GATHER,) if gather else (),
                )
        yield Case(
            f"cross_entropy-cluster-{dtype}",
            lambda d=dtype: tg.cross_entropy_value_and_grad(
                on_sim(2, 8192, dtype=d), targets(2, 8192), variant="cluster"
            ),
            "cross_entropy_cluster",
            CLUSTER_TOTALS,
        )
        yield Case(
            f"softmax-columns-{dtype}",
            lambda d=dtype: tg.softmax(on_sim(4, 64, 64, dtype=d), 1),
            "softmax",
        )
        yield Case(
            f"cross_entropy-columns-{dtype}",
            lambda d=dtype: tg.cross_entropy(on_sim(4, 32, 64, dtype=d), targets((4, 64), 32)),
            "cross_entropy",
        )


def row_losses() -> Iterator[Case]:
    """Yield the losses with one value a row, with rows of a warp and of a block."""
    for dtype in FLOATS[:2]:
        for size in (64, 4096):
            x, y = (on_sim(8, size, dtype=dtype) for _ in range(2))
            one, rows = targets(8, size), f"{size}-{dtype}"
            sectors = 32 / x.dtype.itemsize  # of 8 rows, for 8 neighbours
            gathers = (
                Excuse(f"a.{what}[at]", sectors, "nll_loss.cu", "a gather, one sector a row")
                for what in ("input", "dinput")
            )
            nll = partial(tg.nll_loss_value_and_grad, x, one)
            yield Case(f"nll_loss-{rows}", nll, "nll_loss", tuple(gathers))
            lists = np.full((8, size), -1)
            lists[:, :3] = [size // 2, 1, 5]
            calls = {
                "multi_margin": partial(tg.multi_margin_loss_value_and_grad, x, one),
                "multilabel_margin": partial(
                    tg.multilabel_margin_loss_value_and_grad, x, tg.asarray(lists, device="sim")
                ),
                "multilabel_soft_margin": partial(
                    tg.multilabel_soft_margin_loss_value_and_grad, x, y, wrt=("input", "target")
                ),
                "cosine_embedding": partial(tg.cosine_embedding_loss_value_and_grad, x, y, one),
            }
            for p in (2.0, np.inf, 3.0):
                calls[f"triplet_margin-{p}"] = partial(
                    tg.triplet_margin_loss_value_and_grad, x, y, x, p=p, swap=True
                )
            for name, call in calls.items():
                yield Case(f"{name}-{rows}", call, name.partition("-")[0])


def targets(size: int | tuple[int, ...], classes: int) -> tg.Array:
    """Return the same class for all rows: their logits lie a row apart, so one sector each."""
    return tg.asarray(np.full(size, classes // 2, np.int64), device="sim")


def products() -> Iterator[Case]:
    ladder = ("naive", "coalesced", "shared", *TILED, "tensor_core", "hopper", *FLOAT32_RUNGS)
    for dtype in FLOATS:
        for variant in ladder:
            if variant == "hopper" and dtype != "float16":
                continue
            if variant == "tensor_core" and dtype == "float64":
                continue
            if variant in FLOAT32_RUNGS and dtype != "float32":
                continue
            for left in (False, True):
                for right in (False, True):
                    yield Case(
                        f"matmul-{variant}-{'NT'[left]}{'NT'[right]}-{dtype}",
                        partial(multiply, variant, left, right, dtype),
                        f"matmul_{KERNELS.get(variant, variant)}",
                        tuple(product_exceptions(variant, left, right, dtype)),
                    )
    yield from large_products()
    for dtype in FLOATS:
        for activation in (None, "relu", "gelu"):
            wide = {"float32": 4.0, "float64": 2.0, "float16": 8.0}[dtype]
            sums = Excuse("sums[blockIdx.y * out + col]", wide, "linear.cu", "4.0x the")
            yield Case(
                f"linear-{activation}-{dtype}",
                partial(layer, activation, dtype),
                "matmul",
                (BIAS,) if dtype == "float16" else (),
            )
            yield Case(
                f"linear_backward-{activation}-{dtype}",
                partial(layer_backward, activation, dtype),
                "matmul",
                (sums,) if activation else (),
            )
            yield Case(
                f"linear_chain-{activation}-{dtype}", partial(chain, activation, dtype), "matmul"
            )


def large_products() -> Iterator[Case]:
    """Yield what the public choice gives to rung 10: its ways for c, pieces of k, copies."""

    def linear(activation: str | None, rows: int, inputs: int, keep: bool) -> None:
        operands = (on_sim(*s, dtype="float16") for s in ((rows, inputs), (160, inputs), (160,)))
        tg.linear(*operands, activation, save_preactivation=keep)

    for name, activation, keep in (
        ("", None, False),
        ("-gelu", "gelu", False),
        ("-z", "gelu", True),
    ):
        call = partial(linear, activation, 208, 64, keep)
        yield Case(f"linear{name}-engine", call, "matmul_hopper")
        call = partial(linear, activation, 16, 1024, keep)
        by_element = [Excuse("epilogue.bias[j]", 4.0, "matmul/split_k.cuh", "4.0x the sectors")]
        if keep:
            by_element.append(Excuse("narrow<T>(z)", 4.0, "matmul/split_k.cuh", "4.0x the sectors"))
        yield Case(f"linear{name}-pieces", call, "matmul_join", tuple(by_element))
    for left in (False, True):  # two tiles of 128 x 256 below each other: a pair of blocks

        def pair(left: bool = left) -> None:
            a = on_sim(*((64, 256) if left else (256, 64)), dtype="float16")
            tg.matmul(a, on_sim(64, 512, dtype="float16"), transpose_a=left, variant="hopper")

        yield Case(f"matmul-pairs-{left}", pair, "matmul_hopper")

    def floats(m: int, n: int, k: int) -> None:
        tg.matmul(on_sim(m, k), on_sim(n, k), transpose_b=True, variant="hopper_tf32")

    yield Case("matmul-tf32-pairs", partial(floats, 256, 512, 32), "matmul_hopper")
    yield Case("matmul-tf32-pieces", partial(floats, 16, 160, 512), "matmul_join")


def multiply(variant: str, left: bool, right: bool, dtype: str) -> None:
    a = on_sim(*((64, 128) if left else (128, 64)), dtype=dtype)
    b = on_sim(*((128, 64) if right else (64, 128)), dtype=dtype)
    tg.matmul(a, b, transpose_a=left, transpose_b=right, variant=variant)


def layer(activation: str | None, dtype: str) -> None:
    x, w, b = on_sim(128, 64, dtype=dtype), on_sim(128, 64, dtype=dtype), on_sim(128, dtype=dtype)
    tg.linear(x, w, b, activation)


def layer_backward(activation: str | None, dtype: str) -> None:
    x, w, b = on_sim(128, 64, dtype=dtype), on_sim(128, 64, dtype=dtype), on_sim(128, dtype=dtype)
    dy = on_sim(128, 128, dtype=dtype)
    saved = {"relu": {"output": dy}, "gelu": {"preactivation": dy}}.get(activation or "", {})
    tg.linear_backward(dy, x, w, b, activation, **saved)


def chain(activation: str | None, dtype: str) -> None:
    """Run backward of a layer on a layer, as a plan records it."""
    wide = "float64" if dtype == "float64" else "float32"
    dy, y, w, dz = (on_sim(128, 128, dtype=dtype) for _ in range(4))
    dx, x, below = (on_sim(128, 64, dtype=dtype) for _ in range(3))
    dw, db = on_sim(128, 64, dtype=wide), on_sim(128, dtype=wide)
    plan = backends.of(dy).Plan()
    plan.linear_backward(dz, None, None, dy, y, w, None, True, None, None)
    from_y = activation == "relu"
    plan.linear_backward(dx, dw, db, dz, x, below, activation and y, from_y, activation, None)
    plan.run((), False)


def product_exceptions(variant: str, left: bool, right: bool, dtype: str) -> Iterator[Excuse]:
    size = np.dtype(dtype).itemsize
    sectors = 32 * size // 32  # that 32 neighbours fill
    if variant == "naive":
        yield NAIVE_STORE("store", 32 / sectors)
        if not left:  # one line loads a (32 sectors for the ideal) and b (a broadcast, 1)
            yield NAIVE("widen(", 32 / sectors if size == 2 else 33 / (sectors + 1))
    if variant == "coalesced" and right:
        # gcc gives the loads of 16 bits to the line of the loop.
        if size == 2:
            yield TRANSPOSED_B("", 32 / sectors)
        else:
            yield TRANSPOSED_B("widen(", 33 / (sectors + 1))
    if variant in TILED and size == 2 and (not left or right):
        # vectorized and later load both operands at one line: half of it costs double.
        both = not left and right
        one_line = variant not in ("tile_1d", "tile_2d")
        yield HALF_SECTOR("", 1.5 if one_line and not both else 2.0)


def updates() -> Iterator[Case]:
    makers: dict[str, Callable[[Any], Any]] = {
        "SGD": lambda p: optim.SGD(p, 0.1),
        "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9),
        "Adam": optim.Adam,
        "AdamW": optim.AdamW,
        "RMSprop": optim.RMSprop,
        "RMSprop-all": lambda p: optim.RMSprop(p, momentum=0.9, centered=True, eps=0.1),
        "Adagrad": optim.Adagrad,
    }
    kernels = {"Adam": "adam", "AdamW": "adam", "Adagrad": "adagrad"}
    for name, make in makers.items():
        kernel = kernels.get(name, "rmsprop" if "RMS" in name else "sgd") + "_step"
        for dtype in ("float32", "bfloat16"):
            yield Case(f"optim-{name}-{dtype}", partial(update, make, dtype), kernel)
    yield Case("clip_grad_norm", partial(update, None), "norm_chunks")


def update(make: Callable[[Any], Any] | None, dtype: str = "float32") -> None:
    layers = (nn.Linear(64, out_features, dtype=dtype) for out_features in (64, 32))
    model = nn.Sequential(*layers).to("sim")
    for parameter in model.parameters():
        parameter.grad = on_sim(*parameter.data.shape)
    if make is None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    else:
        make(model.parameters()).step()


def sequences() -> Iterator[Case]:
    """Yield ctc_loss with pairs of states for two warps; all labels gather one class."""
    turned = partial(
        Excuse, file="ctc_loss_walk.cuh", comment="turned round may cost a warp one sector more"
    )
    for dtype in FLOATS[:2]:
        arguments = (targets((2, 64), 64), (5, 4), (63, 63))
        yield Case(
            f"ctc_loss-{dtype}",
            lambda d=dtype, a=arguments: tg.ctc_loss(on_sim(5, 2, 64, dtype=d), *a),
            "ctc_loss_walk",
        )
        yield Case(
            f"ctc_loss_value_and_grad-{dtype}",
            lambda d=dtype, a=arguments: tg.ctc_loss_value_and_grad(on_sim(5, 2, 64, dtype=d), *a),
            "ctc_loss_gradient",
            (turned("(data)[i]", 33 / 32), turned("count - 1 - i] = label", 17 / 16)),
        )


def steps() -> Iterator[Case]:
    """Yield steps by one kernel, on four blocks: each kind of product, tiles that follow."""
    yield Case("train_step-SGD", partial(step, "relu", optim.SGD), "network_step_kernel")
    yield Case("train_step-Adam", partial(step, "gelu", optim.Adam), "network_step_kernel")


def step(activation: str, make: Callable[[Any], Any]) -> None:
    widths = ((64, 96), (96, 64), (64, 32))
    layers = [nn.Linear(a, b, activation=activation) for a, b in widths[:-1]]
    model = nn.Sequential(*layers, nn.Linear(*widths[-1])).to("sim")
    tg.TrainStep(model, nn.CrossEntropyLoss(), make(model.parameters()))(
        on_sim(32, 64), targets(32, 32)
    )


CASES = [*elementwise(), *rows(), *row_losses(), *products(), *updates(), *sequences(), *steps()]
