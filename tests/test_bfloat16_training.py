# SPDX-License-Identifier: MIT
"""Networks with bfloat16 layers, trained: beside torch, beside float32, and by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from bfloat16_numpy import BF16, nearest, same_bits
from helpers import Array, Device, assert_close, assert_same_bits, host
from tilegrad import data, nn

EPS = 2.0**-8  # the most that rounding to bfloat16 changes a number, relatively


def as_bf16(x: Array) -> Array:
    return np.asarray(x, np.float32).astype(BF16)


def as_torch(x: Array, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(host(x).astype("f8")).to(dtype)


# ---- one layer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "gelu", "silu"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(7,), (1,), (2, 3), (0,)], ids=str)
def test_layer_keeps_bfloat16_and_gives_float32_gradients(
    rows: tuple[int, ...], bias: bool, activation: str | None, rng: np.random.Generator,
    device: Device,
) -> None:  # fmt: skip
    i, o = 33, 10
    layer = nn.Linear(i, o, bias, activation, dtype="bfloat16")
    layer.to(device.name)
    x, dy = as_bf16(rng.standard_normal((*rows, i))), as_bf16(rng.standard_normal((*rows, o)))
    leaves = [as_torch(v).requires_grad_() for v in (x, *(p.data for p in layer.parameters()))]
    z = torch.nn.functional.linear(*leaves)
    functional: Any = torch.nn.functional
    want = (
        z
        if activation is None
        else (getattr(torch, activation, None) or getattr(functional, activation))(z)
    )
    want.backward(as_torch(dy))
    y = layer(device.put(x))
    dx = layer.backward(device.put(dy))
    assert host(y).dtype == host(dx).dtype == BF16
    # What was saved for f' is rounded, and so is dz: each by at most EPS beside a factor of at
    # most 3 that f'' and f' can have. The products add nothing that shows beside it.
    wide = [np.abs(v.detach().numpy()) for v in leaves]
    most = 6 * EPS * (np.abs(dy.astype("f8")) + 0.1)
    assert_close(
        host(y).astype("f8"),
        want.detach().numpy(),
        EPS * (np.abs(want.detach().numpy()) + 0.01),
        what="y",
    )
    assert_close(host(dx).astype("f8"), leaves[0].grad.numpy(), most @ wide[1] + EPS, what="dx")
    flat_most, flat_x = most.reshape(-1, o), wide[0].reshape(-1, i)
    bounds = [flat_most.T @ flat_x, flat_most.sum(0)]
    for p, leaf, bound in zip(layer.parameters(), leaves[1:], bounds, strict=False):
        assert p.grad.dtype == np.float32
        assert_close(p.grad, leaf.grad.numpy(), bound + 1e-30, what=str(p.shape))
    assert same_bits(layer.eval()(device.put(x)), y)


def test_gradients_of_many_backward_passes_add_up_in_float32(device: Device) -> None:
    """In bfloat16 the sum would stay at 1: there 2^-9 is half of a spacing, and 1 is even."""
    layer = nn.Linear(1, 1, dtype="bfloat16")
    layer.to(device.name)
    one = device.put(np.ones((1, 1), BF16))
    for p in layer.parameters():
        p.grad = np.ones(p.shape, "f4")
    small = device.put(np.full((1, 1), 2.0**-9).astype(BF16))
    for _ in range(5):
        layer(one)
        layer.backward(small, input_grad=False)
    for p in layer.parameters():
        assert_same_bits(host(p.grad).ravel(), np.array([1 + 5 * 2.0**-9], "f4"))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_training_step_is_what_a_hand_computes(
    momentum: float, rng: np.random.Generator, device: Device
) -> None:
    """Numbers with few bits: NumPy's float64 has every result exactly, and so has float32."""
    layer = nn.Linear(5, 3, dtype="bfloat16")
    w = as_bf16(rng.integers(-64, 64, (3, 5)) / 64)
    b = as_bf16(rng.integers(-64, 64, 3) / 64)
    layer.weight.data, layer.bias.data = w, b
    layer.to(device.name)
    lr = 2.0**-9
    optimiser = tg.optim.SGD(layer.parameters(), lr=lr, momentum=momentum)
    master = [w.astype("f8"), b.astype("f8")]
    velocity = [np.zeros((3, 5)), np.zeros(3)]
    for _ in range(3):
        x, dy = (rng.integers(-8, 8, shape).astype("f8") for shape in ((4, 5), (4, 3)))
        y = layer(device.put(as_bf16(x)))
        now = [host(p.data).astype("f8") for p in layer.parameters()]
        assert same_bits(y, nearest((x @ now[0].T + now[1]).astype("f4")))
        optimiser.zero_grad()
        dx = layer.backward(device.put(as_bf16(dy)))
        assert same_bits(dx, nearest((dy @ now[0]).astype("f4")))
        optimiser.step()
        for k, (p, g) in enumerate(zip(layer.parameters(), (dy.T @ x, dy.sum(0)), strict=True)):
            assert_same_bits(p.grad, g.astype("f4"))
            velocity[k] = momentum * velocity[k] + g
            master[k] = master[k] - lr * velocity[k]
            assert (master[k].astype("f4") == master[k]).all()
            assert_same_bits(optimiser.state[p]["master"], master[k].astype("f4"))
            assert same_bits(p.data, nearest(master[k].astype("f4")))


# ---- networks -----------------------------------------------------------------------------------

SIZES, BATCH = (13, 40, 24, 7), 32
OPTIMISERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    "Adam": {"lr": 2e-3, "eps": 1e-4},
    "AdamW": {"lr": 2e-3, "eps": 1e-4, "weight_decay": 0.1},
}


def layers(sizes: tuple[int, ...], dtype: str, seed: int = 3) -> nn.Sequential:
    tg.manual_seed(seed)
    pairs = list(itertools.pairwise(sizes))
    return nn.Sequential(
        *(
            nn.Linear(i, o, activation=None if (i, o) == pairs[-1] else "relu", dtype=dtype)
            for i, o in pairs
        )
    )


def torch_layers(model: nn.Sequential, dtype: torch.dtype) -> torch.nn.Sequential:
    parts: list[torch.nn.Module] = []
    for layer in model:
        parts += [torch.nn.Linear(layer.in_features, layer.out_features, dtype=dtype)]
        parts += [torch.nn.ReLU()]
    twin = torch.nn.Sequential(*parts[:-1])
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.data = as_torch(p.data, dtype)
    return twin


@pytest.mark.parametrize("name", OPTIMISERS)
def test_network_trains_as_torchs_bfloat16_with_float32_masters(
    name: str, rng: np.random.Generator, device: Device
) -> None:
    """The exact path is that of float64; we stay at least as near to it as torch does.

    torch rounds gradients to bfloat16 before its masters see them, we do not.
    """
    model = layers(SIZES, "bfloat16")
    half, exact = (torch_layers(model, dtype) for dtype in (torch.bfloat16, torch.float64))
    start = [host(p.data).astype("f8") for p in model.parameters()]
    model.to(device.name)
    masters = [torch.nn.Parameter(q.detach().float()) for q in half.parameters()]
    options = OPTIMISERS[name]
    ours = getattr(tg.optim, name)(model.parameters(), **options)
    theirs = getattr(torch.optim, name)(masters, **options)
    exactly = getattr(torch.optim, name)(exact.parameters(), **options)
    loss_fn, their_loss = nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()
    for _ in range(20 if device.name != "sim" else 5):
        x = as_bf16(rng.standard_normal((BATCH, SIZES[0])))
        t = rng.integers(0, SIZES[-1], BATCH)
        ours.zero_grad()
        value = loss_fn(model(device.put(x)), device.put(t))
        model.backward(loss_fn.backward(), input_grad=False)
        ours.step()
        other = their_loss(half(as_torch(x, torch.bfloat16)), torch.tensor(t))
        half.zero_grad()
        other.backward()
        for q, master in zip(half.parameters(), masters, strict=True):
            master.grad = q.grad.float()
        theirs.step()
        with torch.no_grad():
            for q, master in zip(half.parameters(), masters, strict=True):
                q.copy_(master)
        exactly.zero_grad()
        want = their_loss(exact(as_torch(x)), torch.tensor(t))
        want.backward()
        exactly.step()
        assert float(value) == pytest.approx(want.item(), rel=4 * EPS)
    far = {"ours": 0.0, "torch": 0.0, "way": 0.0}
    for p, master, q, begin in zip(
        model.parameters(), masters, exact.parameters(), start, strict=True
    ):
        end = q.detach().numpy()
        far["ours"] += float(((host(ours.state[p]["master"]) - end) ** 2).sum())
        far["torch"] += float(((master.detach().numpy() - end) ** 2).sum())
        far["way"] += float(((end - begin) ** 2).sum())
        assert same_bits(p.data, nearest(host(ours.state[p]["master"])))
    assert far["ours"] <= 1.2**2 * far["torch"], far
    assert far["ours"] <= 0.1**2 * far["way"], far


class Cast(nn.Module):
    """What joins layers of two dtypes: rounds or widens what passes, forth and back."""

    def __init__(self, dtype: Any, back: Any) -> None:
        super().__init__()
        self.dtypes = (np.dtype(dtype), np.dtype(back))

    def _to(self, x: Any, dtype: Any) -> Any:
        if isinstance(x, tg.Array):
            return tg.asarray(x.numpy().astype(dtype), device=x.device)
        return x.astype(dtype)

    def forward(self, x: Any) -> Any:
        return self._to(x, self.dtypes[0])

    def backward(self, grad_output: Any, input_grad: bool = True) -> Any:
        return self._to(grad_output, self.dtypes[1])


def test_bfloat16_and_float32_layers_train_in_one_model(
    rng: np.random.Generator, device: Device
) -> None:
    tg.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16, activation="tanh", dtype="bfloat16"),
        Cast(np.float32, BF16),
        nn.Linear(16, 3),
    )
    model.to(device.name)
    twin = layers((6, 16, 3), "float32", seed=0)
    twin[0].activation = "tanh"
    optimisers = [tg.optim.Adam(m.parameters(), lr=0.05) for m in (model, twin)]
    x = as_bf16(rng.standard_normal((24, 6)))
    t = host(x)[:, :3].astype("f4").argmax(1)
    losses: list[list[float]] = [[], []]
    for _ in range(30):
        for k, (m, optimiser) in enumerate(zip((model, twin), optimisers, strict=True)):
            here = device.put(x) if k == 0 else x.astype("f4")
            loss_fn = nn.CrossEntropyLoss()
            optimiser.zero_grad()
            losses[k].append(float(loss_fn(m(here), device.put(t) if k == 0 else t)))
            m.backward(loss_fn.backward(), input_grad=False)
            nn.utils.clip_grad_norm_(m.parameters(), 1.0)
            optimiser.step()
    assert losses[0][-1] < 0.3 * losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert [p.dtype for p in model.parameters()] == [BF16, BF16, np.float32, np.float32]


@pytest.mark.parametrize("lr", [0.02, 0.002])
def test_digits_are_learnt_as_well_as_in_float32(lr: float) -> None:
    """And better than by bfloat16 weights without masters, by far where the updates are small."""
    digits = data.load_digits()
    images = digits.train_images.reshape(-1, 64) / 16
    test = digits.test_images.reshape(-1, 64) / 16
    correct = {}
    for way in ("float32", "masters", "no masters"):
        dtype = np.dtype("f4") if way == "float32" else BF16
        model = layers((64, 32, 10), dtype.name)
        optimiser = tg.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        loader = data.DataLoader(
            images.astype(dtype), digits.train_labels, batch_size=32, shuffle=True, seed=1
        )
        loss_fn = nn.CrossEntropyLoss()
        for _ in range(20):
            for x, t in loader:
                optimiser.zero_grad()
                loss_fn(model(x), t)
                model.backward(loss_fn.backward(), input_grad=False)
                optimiser.step()
                if way == "no masters":  # every update starts from the rounded values
                    for p in model.parameters():
                        optimiser.state[p]["master"][...] = p.data.astype("f4")
        logits = model.predict(test.astype(dtype)).astype("f4")
        correct[way] = float((logits.argmax(1) == digits.test_labels).mean())
    assert correct["float32"] > {0.02: 0.96, 0.002: 0.89}[lr]
    assert correct["masters"] >= correct["float32"] - 0.01, correct
    assert correct["no masters"] < correct["masters"] - {0.02: 0, 0.002: 0.1}[lr], correct
