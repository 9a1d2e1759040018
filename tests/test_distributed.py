# SPDX-License-Identifier: MIT
"""Data-parallel training: the result of one process, on 2 and on 4 ranks of this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distributed_runs as runs
import tilegrad as tg
from rank_server import RankServer
from tilegrad import _random, nn, optim
from tilegrad.bench import data_parallel_model
from tilegrad.cli import main
from tilegrad.data import DataLoader

pytest.importorskip("torch.distributed")
PAGE = Path(__file__).parents[1] / "docs/distributed.md"
BUCKET_MB = 0.0002  # of the networks here that makes several buckets


@pytest.fixture(scope="module")
def ranks() -> Iterator[RankServer]:
    server = RankServer()
    yield server
    server.close()


def said(results: list[dict[str, Any]]) -> list[list[Any]]:
    """Return what each rank said; all must have ended well."""
    for rank in results:
        assert rank["code"] == 0, rank["err"]
    return [[json.loads(line) for line in rank["out"].splitlines()] for rank in results]


def assert_near(got: Any, want: Any, tolerance: float) -> None:
    if isinstance(want, dict):
        assert got.keys() == want.keys()
        for name in want:
            assert_near(got[name], want[name], tolerance)
    elif isinstance(want, list):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert_near(a, b, tolerance)
    elif want is None:
        assert got is None
    else:
        assert abs(got - want) <= tolerance


@pytest.mark.parametrize("count", [2, 4])
def test_weights_and_losses_are_those_of_one_process_on_the_whole_batch(
    count: int, ranks: RankServer, tmp_path: Path
) -> None:
    results = said(
        ranks("distributed_runs:train", count, str(tmp_path), list(runs.CASES), BUCKET_MB)
    )
    assert all(
        [r["losses"] for r in result] == [r["losses"] for r in results[0]] for result in results
    )
    for result in results[0]:
        case = result["case"]
        tolerance = 1e-6 if "32" in case else 1e-12
        losses, weights = runs.alone(case)
        np.testing.assert_allclose(result["losses"], losses, rtol=tolerance)
        saved = [np.load(tmp_path / f"{case}-{rank}.npz") for rank in range(count)]
        for name, want in weights.items():
            np.testing.assert_allclose(saved[0][name], want, rtol=0, atol=tolerance)
            for other in saved[1:]:
                assert other[name].tobytes() == saved[0][name].tobytes()


def test_two_runs_have_the_same_bits_and_traffic(ranks: RankServer, tmp_path: Path) -> None:
    cases, runs_ = ["adam32", "sum"], []
    for number in (0, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        results = said(ranks("distributed_runs:train", 4, str(folder), cases, BUCKET_MB))
        weights = {
            path.name: {name: value.tobytes() for name, value in np.load(path).items()}
            for path in sorted(folder.iterdir())
        }
        runs_.append((results, weights))
    assert runs_[0] == runs_[1]
    # Of every step: the batch's four sums in double precision, and the buckets; of a micro-batch
    # whose gradients stay where they are, its loss.
    adam, accumulated = runs_[0][0][0]
    model = runs.network("mlp", "float32")
    sizes = [p.grad_buffer().nbytes for p in model.parameters()]
    padded = sum(-(-size // 64) * 64 for size in sizes)
    assert adam["traffic"] == [[4, 32 + padded + 4 * (len(sizes) + 1)]] * 8
    assert accumulated["traffic"][:2] == [[2, 32 + 8]] * 2
    assert accumulated["traffic"][2][0] == 6


def test_gradients_lie_in_buckets_that_are_reduced_while_backward_runs(ranks: RankServer) -> None:
    on_cpu = said(ranks("distributed_runs:memory", 2, "cpu"))
    assert on_cpu[0] == on_cpu[1]
    result = on_cpu[0][0]
    assert result["same"]
    assert result["aligned"]
    assert sum(result["buckets"]) == 6
    # In every step the first is on its way before the first layer has its gradient.
    assert result["started"] == [[0, False], [1, True], [2, True]] * 3


def test_arrays_of_the_simulator_are_reduced_in_their_own_memory(ranks: RankServer) -> None:
    (on_cpu,), _ = said(ranks("distributed_runs:memory", 2, "cpu"))
    (on_sim,), other = said(ranks("distributed_runs:memory", 2, "sim"))
    assert [on_sim] == other
    assert on_sim["same"]
    assert on_sim["aligned"]
    assert_near([on_sim["losses"], on_sim["weights"]], [on_cpu["losses"], on_cpu["weights"]], 1e-6)


def test_parameters_without_a_gradient(ranks: RankServer) -> None:
    for alone, together in said(ranks("distributed_runs:branches", 2, "")):
        assert together[0] == alone[0]
        assert not any("never" in name for names in together[0] for name in names)
        assert "second.bias" in together[0][0]  # of one rank alone
        assert "second.bias" not in together[0][1]
        assert_near(together[1], alone[1], 1e-12)


@pytest.mark.parametrize("count", [2, 4])
def test_fit_measures_saves_and_resumes_as_one_process(
    count: int, ranks: RankServer, tmp_path: Path
) -> None:
    want = runs.quick_fit(None, 5, 1)
    # On 3 ranks for 2 epochs, then on others, of which rank 0 alone has the file.
    said(ranks("distributed_runs:fit", 3, str(tmp_path), 2, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["fit3.safetensors"]
    results = said(ranks("distributed_runs:fit", count, str(tmp_path), 5, 3))
    assert all(result == results[0] for result in results)
    assert_near(results[0][0], want, 1e-12)


def test_what_is_handed_over_is_what_a_ring_sends(ranks: RankServer) -> None:
    for count in (2, 4):
        for ((sent, messages, size),) in said(ranks("distributed_runs:wire", count, 200_000)):
            assert messages == 5
            assert size == 4 * 800_000 + 8
            # Beside the elements, gloo sends the heads of its own messages.
            assert sent == pytest.approx(
                4 * data_parallel_model.ring_bytes(800_000, count), rel=0.05
            )


def test_the_command_line_trains_on_all_and_writes_once(ranks: RankServer, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--epochs", "2", "--no-progress"]
    first, second = ranks("distributed_runs:command", 2, str(out), *options)
    assert (first["code"], second["code"]) == (0, 0), first["err"] + second["err"]
    assert "2 processes" in first["out"]
    assert "epoch 2/2" in first["err"]
    assert (second["out"], second["err"]) == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    history = json.loads((out / "history.json").read_text())["history"]
    again = ranks("distributed_runs:command", 3, str(out), "--resume", "--quiet")
    assert [rank["code"] for rank in again] == [0, 0, 0], again[0]["err"]
    assert json.loads((out / "history.json").read_text())["history"] == history
    alone = tmp_path / "alone"
    assert main(["train", "--data", "digits", "--out", str(alone), "--quiet", *options]) == 0
    same = json.loads((alone / "history.json").read_text())["history"]
    np.testing.assert_allclose(history["val_loss"], same["val_loss"], rtol=1e-5)


def test_the_page_runs_as_printed(ranks: RankServer) -> None:
    first, second = ranks("distributed_runs:page", 2, PAGE.read_text())
    assert (first["code"], second["code"]) == (0, 0), first["err"] + second["err"]
    assert "epoch 2/2" in first["err"]
    assert "Traffic(messages=2, bytes=" in first["out"]
    assert (second["out"], second["err"]) == ("", "")


# ---- what needs no second process --------------------------------------------------------------


def test_shards_share_out_each_batch() -> None:
    rows = np.arange(50)
    whole = DataLoader(rows, batch_size=16, shuffle=True, seed=3)
    want = [batch.tolist() for (batch,) in whole]
    for count in (1, 2, 3, 7, 20):
        loader = DataLoader(rows, batch_size=16, shuffle=True, seed=3)
        shards = [loader.shard(count, index) for index in range(count)]
        parts = [[batch.tolist() for (batch,) in shard] for shard in shards]
        for number, batch in enumerate(want):
            assert [part[number] for part in parts] == [batch[i::count] for i in range(count)]
        assert [shard.batch_rows for shard in shards] == [2] * count
        assert all(shard.state_dict() == whole.state_dict() for shard in shards)
    half = DataLoader(rows, batch_size=16, shuffle=True, seed=3).shard(2, 1)
    next(iter(half))
    third = DataLoader(rows, batch_size=16, shuffle=True).shard(3, 2)
    third.load_state_dict(half.state_dict())  # goes on with another number of shards
    assert [batch.tolist() for (batch,) in third] == [batch[2::3] for batch in want[1:]]
    for wrong in ((2, 2), (2, -1), (0, 0)):
        with pytest.raises(ValueError, match=r"DataLoader\.shard: index must be in"):
            whole.shard(*wrong)
    with pytest.raises(ValueError, match="is a shard already"):
        half.shard(2, 0)


def test_dropout_of_a_part_has_the_masks_of_the_whole() -> None:
    x = np.arange(1, 36, dtype=np.float64).reshape(7, 5)
    layer = nn.Dropout(0.4)
    tg.manual_seed(6)
    whole = layer(x)
    after = _random.get_state()
    assert layer.backward(x).tobytes() == whole.tobytes()
    for count in (1, 2, 3, 9):
        for index in range(count):
            part = np.ascontiguousarray(x[index::count])
            tg.manual_seed(6)
            with _random.part_of_batch(_random.Part(index, count, len(part), lambda: 7)):
                assert np.array_equal(layer(part), whole[index::count])
                assert np.array_equal(layer.backward(part), whole[index::count])
            assert _random.get_state() == after  # whatever the part, as in one process
    with (
        _random.part_of_batch(_random.Part(0, 2, 4, lambda: 7)),
        pytest.raises(ValueError, match=r"first axis must be that of the 4 samples; got .*7, 5"),
    ):
        layer(x)
    assert _random.present_part() is None


def test_a_recorded_step_refuses_parameters_with_a_hook() -> None:
    model = nn.Linear(2, 2)
    step = tg.TrainStep(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
    x = np.ones((3, 2), np.float32)
    step(x, x)
    remove = model.register_grad_ready_hook(lambda parameter: None)
    with pytest.raises(RuntimeError, match=r"grad_ready hook.*has no plan"):
        step(x, x)
    remove()
    buffer = np.zeros((2, 2), np.float32)
    model.weight.adopt_grad_buffer(buffer)
    twin = nn.Linear(2, 2)
    twin.load_state_dict(model.state_dict())
    other = tg.TrainStep(twin, nn.MSELoss(), optim.SGD(twin.parameters(), lr=0.1))
    for rows in (3, 2):  # what was recorded before is recorded again, with the new buffer
        step.forward_backward(x[:rows], x[:rows])
        step.update()
        other(x[:rows], x[:rows])
    assert buffer.any()
    assert model.weight.data.tobytes() == twin.weight.data.tobytes()


def test_without_a_group() -> None:
    from tilegrad import distributed

    assert (distributed.get_rank(), distributed.get_world_size()) == (0, 1)
    model = nn.Linear(2, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="init_process_group"):
        distributed.DistributedTrainStep(model, nn.MSELoss(), optimizer)
    x = np.ones((3, 2), np.float32)
    with pytest.raises(RuntimeError, match=r"fit: call tilegrad\.distributed\.init_"):
        tg.fit(model, nn.MSELoss(), optimizer, (x, x), epochs=1, distributed=True)
    with pytest.raises(RuntimeError, match="torchrun"):
        distributed.init_process_group()
    for wrong in ({"timeout": 0}, {"rank": 2, "world_size": 2}, {"rank": -1, "world_size": 2}):
        with pytest.raises(ValueError, match="init_process_group: "):
            distributed.init_process_group(**{"rank": 0, "world_size": 1, **wrong})
    distributed.destroy_process_group()


def test_the_tables_of_the_page_are_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    tables = re.findall(r"<!-- model: (.*?) -->\n(.*?)<!-- end", PAGE.read_text(), re.DOTALL)
    assert len(tables) == 3
    for options, printed in tables:
        assert data_parallel_model.main(options.split()) == 0
        assert printed == capsys.readouterr().out
    assert data_parallel_model.FORMULA in PAGE.read_text()


def test_the_model_at_its_limits() -> None:
    model = data_parallel_model
    step = model.Step(0.01, 0.02, 0.001, (2**20,) * 8)
    for network in (*model.NETWORKS.values(), model.Network(0.0, 1e9)):
        times = [model.step_seconds(step, ranks, network) for ranks in model.RANKS]
        assert times == sorted(times)
        assert times[0] == pytest.approx(0.031)
    assert model.efficiency(step, 1024, model.Network(0.0, 1e9)) == pytest.approx(1.0)
    assert model.efficiency(step, 1024, model.Network(1.0, 1e9)) < 1e-3
    # What is sent behind the last gradient cannot be hidden, and nothing more if the wire is free.
    wire = model.Network(0.0, 1.0)
    behind = model.all_reduce_seconds(2**20, 4, wire)
    assert model.step_seconds(step, 4, wire) == pytest.approx(0.031 + behind)
