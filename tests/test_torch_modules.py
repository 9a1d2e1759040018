# SPDX-License-Identifier: MIT
"""tilegrad.torch: modules, accelerate and models carried over, beside torch's own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tilegrad as tg
import tilegrad.torch as tt
from tilegrad._random import get_state

Tensor = torch.Tensor


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(12, 16),
        nn.GELU("tanh"),
        nn.Linear(16, 16, bias=False),
        nn.LeakyReLU(0.3),
        nn.Linear(16, 5),
    )


def batch(rows: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 3, 4, generator=generator), torch.arange(rows) % 5


def train(model: nn.Module, optimizer: Any, steps: int, loss: Any = None) -> list[float]:
    """Return the losses of a few steps on one batch."""
    x, t = batch()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = (loss or nn.CrossEntropyLoss())(model(x), t)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses


# ---- accelerate --------------------------------------------------------------------------------


class Unusual(nn.Module):
    """What real models have: shared modules, hooks, parametrizations, attention, an empty slot."""

    def __init__(self) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.body = nn.Sequential(nn.Linear(8, 16), relu, nn.Linear(16, 16), relu, nn.LayerNorm(16))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.head = nn.Linear(16, 16)
        self.tied = self.head
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 3))
        self.watched = nn.Linear(3, 3)
        self.calls = 0
        self.watched.register_forward_hook(self.count)
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.nothing = None

    def count(self, *_: Any) -> None:
        self.calls += 1

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.body(x)[:, None]
        h = self.encoder(h + self.attention(h, h, h)[0])[:, 0]
        return self.loss(self.watched(self.normed(self.head(h) + self.tied(h))), t)


def test_accelerate_replaces_what_it_knows_and_says_what_it_left() -> None:
    theirs = Unusual()
    ours = copy.deepcopy(theirs)
    parameters = list(ours.parameters())
    done = tt.accelerate(ours)
    assert done.model is ours
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(a is b for a, b in zip(parameters, ours.parameters(), strict=True))
    assert set(done.replaced) == {
        "body.0", "body.1", "body.2", "body.3", "encoder.linear1", "encoder.linear2", "head", "loss"
    }  # fmt: skip
    assert ours.tied is ours.head
    assert done.left["watched"] == "Linear has hooks"
    assert "LayerNorm" in done.left["body.4"]
    assert "left as they are" in str(done)
    x, t = torch.randn(6, 8), torch.arange(6) % 3
    for mode in (True, False):
        expected, loss = theirs.train(mode)(x, t), ours.train(mode)(x, t)
        torch.testing.assert_close(loss, expected)
    expected.backward()
    loss.backward()
    for (name, p), q in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, msg=lambda m, name=name: f"{name}: {m}")
    assert ours.calls == 2


def test_accelerated_models_compile_copy_and_pickle() -> None:
    model = tt.accelerate(network()).model
    x, _ = batch()
    expected = model(x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), expected)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)


def test_accelerate_of_one_module_and_of_none() -> None:
    linear = nn.Linear(3, 2)
    done = tt.accelerate(linear)
    assert type(done.model) is tt.Linear
    assert done.model.weight is linear.weight
    assert str(tt.accelerate(nn.LayerNorm(3)).left) == (
        "{'': 'LayerNorm is not among the modules that tilegrad has'}"
    )
    with pytest.raises(TypeError, match=r"takes a torch\.nn\.Module; got dict"):
        tt.accelerate({})  # type: ignore[arg-type]


def test_accelerate_leaves_other_dtypes() -> None:
    state = torch.get_rng_state()
    model = nn.Sequential(nn.Linear(3, 2).half(), nn.ReLU(), nn.CrossEntropyLoss())
    drawn = torch.get_rng_state()
    done = tt.accelerate(model)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not torch.equal(state, drawn)
    for name in "012":
        assert "float16" in done.left[name]
    assert not done.replaced


def test_accelerate_without_fusing_keeps_what_a_slice_gives() -> None:
    theirs = network()
    ours = copy.deepcopy(theirs)
    assert "fused" not in str(tt.accelerate(ours, fuse=False))
    x, _ = batch()
    for end in range(1, len(theirs) + 1):
        torch.testing.assert_close(ours[:end](x), theirs[:end](x))


def test_accelerate_leaves_what_carries_more_than_its_class() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU())
    model[0].register_buffer("scale", torch.ones(1))
    model[1].note = "kept"
    model[2].register_state_dict_post_hook(lambda *_: None)
    keys = list(model.state_dict())
    done = tt.accelerate(model)
    assert list(done.replaced) == ["3"]
    assert "has scale besides" in done.left["0"]
    assert "has note besides" in done.left["1"]
    assert "has hooks" in done.left["2"]
    assert list(model.state_dict()) == keys
    assert "tilegrad's already" in tt.accelerate(model).left["3"]
    assert "tilegrad's already" in tt.accelerate(nn.Sequential(tt.FusedMLP(2, 2, 2, 2))).left["0"]


# ---- modules -----------------------------------------------------------------------------------


def test_fused_mlp_is_its_layers() -> None:
    model = tt.FusedMLP(12, 16, 5, 3, "tanh", "sigmoid")
    layers = [
        m for i, layer in enumerate(model) for m in (layer, nn.Sigmoid() if i == 2 else nn.Tanh())
    ]
    x = torch.randn(4, 12)
    torch.testing.assert_close(model(x), nn.Sequential(*layers)(x))
    assert [name for name, _ in model.named_parameters()] == [
        f"{i}.{name}" for i in range(3) for name in ("weight", "bias")
    ]
    assert tt.FusedMLP(3, 4, 5, 2, bias=False)(torch.ones(3)).shape == (5,)
    assert torch.equal(model[:1](x), model[0](x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: tt.Linear(2, 2, activation="swish"),
        lambda: tt.Linear(2, 2, activation="relu", activation_args={"slope": 1.0}),
        lambda: tt.Activation("gelu_fast"),
        lambda: tt.FusedMLP(2, 2, 2, 17),
        lambda: tt.FusedMLP(2, 2, 2, 2, output_activation="softmax"),
    ],
)
def test_wrong_options_are_refused_at_once(make: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


# ---- models carried over -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_models_go_there_and_back(dtype: torch.dtype) -> None:
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(12, 16),
        nn.Softplus(2.0, 5.0),
        nn.Dropout(0.2),
        nn.Sequential(nn.Linear(16, 16), nn.Hardtanh(-0.5, 2.0), nn.Identity()),
        tt.Linear(16, 8, activation="elu", activation_args={"alpha": 0.5}),
        nn.PReLU(8),
        nn.LogSoftmax(1),
    )
    model = model.to(dtype).eval()
    model[1].weight.requires_grad_(False)
    x = batch()[0].to(dtype)
    there = tg.nn.Module.from_torch(model)
    back = tt.to_torch(there)
    assert list(back.state_dict()) == list(model.state_dict()) == list(there.state_dict())
    assert [p.requires_grad for p in back.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    (result,) = tt.tensors({"y": there(tt.arrays({"x": x})["x"])}).values()
    torch.testing.assert_close(result, model(x))
    torch.testing.assert_close(result, back(x))
    back[1].bias.data.zero_()
    assert np.count_nonzero(np.asarray(there[1].bias.data, np.float32)) > 0  # weights are copies


def test_each_layer_keeps_its_dtype() -> None:
    mine = tg.nn.Sequential(tg.nn.Linear(2, 2), tg.nn.Linear(2, 2, dtype="float64"))
    assert [p.dtype for p in tt.to_torch(mine).parameters()] == [torch.float32] * 2 + [
        torch.float64
    ] * 2


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    return model


def tied_here() -> tg.nn.Module:
    model = tg.nn.Sequential(tg.nn.Linear(2, 2), tg.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    return model


def watched() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_forward_hook(lambda *_: None)
    return model


def test_state_dicts_go_both_ways() -> None:
    mine = tg.nn.FusedMLP(12, 16, 5, 3)
    theirs = tt.FusedMLP(12, 16, 5, 3)
    theirs.load_state_dict(tt.tensors(mine.state_dict()))
    x = batch()[0].reshape(7, 12)
    np.testing.assert_array_equal(theirs(x).detach().numpy(), mine(x.numpy()))
    other = tg.nn.FusedMLP(12, 16, 5, 3)
    other.load_state_dict(tt.arrays(theirs.state_dict()))
    np.testing.assert_array_equal(other(x.numpy()), mine(x.numpy()))
    assert type(tt.to_torch(mine)) is tt.FusedMLP
    mine[1].activation = "tanh"  # no longer what one operator runs
    assert type(tt.to_torch(mine)) is nn.Sequential
    np.testing.assert_allclose(tt.to_torch(mine)(x).detach(), mine(x.numpy()), rtol=1e-5, atol=1e-6)
    assert type(tg.nn.Module.from_torch(theirs)) is tg.nn.FusedMLP
    for turn, kind in ((tt.arrays, "torch.Tensor"), (tt.tensors, "array")):
        with pytest.raises(TypeError, match=f"{turn.__name__}: state must be an? {kind}; got dict"):
            turn(torch.optim.SGD(theirs.parameters()).state_dict())


def test_modes_of_inner_modules_are_kept_and_nothing_random_is_drawn() -> None:
    theirs = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9), nn.Sequential(nn.Dropout())).eval()
    theirs[2].train()
    theirs.training = True
    states = torch.get_rng_state(), get_state()
    mine = tt.from_torch(theirs)
    back = tt.to_torch(mine)
    modes = [module.training for module in theirs.modules()]
    assert modes == [True, False, False, True, True]
    assert [module.training for module in mine.modules()] == modes
    assert [module.training for module in back.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0])
    assert get_state() == states[1]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: tt.from_torch(nn.Sequential(nn.Conv2d(1, 1, 1))), "0 is a Conv2d"),
        (lambda: tt.from_torch(3), "got int"),
        (lambda: tt.from_torch(tied()), "0.weight and 1.weight are one parameter"),
        (lambda: tt.from_torch(watched()), "0 has hooks"),
        (lambda: tt.from_torch(nn.Linear(2, 2, device="meta")), "meta device"),
        (lambda: tt.to_torch(nn.Linear(2, 2)), "takes a tilegrad"),
        (lambda: tt.to_torch(tied_here()), "0.weight and 1.weight are one parameter"),
        (lambda: tt.to_torch(tg.nn.Sequential(tg.nn.MSELoss())), "0 is a MSELoss"),
    ],
)
def test_what_cannot_be_carried_over_is_named(call: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        call()


def test_training_beside_torch_is_the_same() -> None:
    theirs = network()
    ours = tt.accelerate(copy.deepcopy(theirs)).model
    mine = train(ours, tt.Adam(ours.parameters(), lr=0.01), 30, tt.CrossEntropyLoss())
    expected = train(theirs, torch.optim.Adam(theirs.parameters(), lr=0.01), 30)
    np.testing.assert_allclose(mine, expected, rtol=2e-4)
    assert mine[-1] < mine[0] / 2
