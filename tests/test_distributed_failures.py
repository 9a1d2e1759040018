# SPDX-License-Identifier: MIT
"""A rank that is lost, fails or differs ends all others, soon and with words."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import distributed_runs as runs
from rank_server import RankServer
from test_distributed import assert_near, said

pytest.importorskip("torch.distributed")


@pytest.fixture(scope="module")
def ranks() -> Iterator[RankServer]:
    server = RankServer()
    yield server
    server.close()


LOST = "LostRankError: distributed: rank 1"
FAILURES = {  # how: what rank 1 ends with, what the others say
    "killed": (-signal.SIGKILL, f"{LOST} did not answer (killed"),
    "bad class": (1, f"{LOST} ended with ValueError: cross_entropy_value_and_grad: target must be"),
    "bad shape": (1, f"{LOST} ended with ValueError: linear: inner sizes differ"),
    "left": (3, f"{LOST} ended with RuntimeError: the end of its process"),
    "frozen later": (1, "the ranks are not at the same step of the same model"),
    "another learning rate": (1, "the ranks are not at the same step of the same model"),
    "too few rows": (1, "of 40 samples, number"),
    "shapes": (1, "on rank 1 0.weight is missing; on rank 0 it is (7, 5) float32 on cpu"),
    "options": (1, "on rank 1 momentum of parameter group 0 is 0.5; on rank 0 it is 0.9"),
    "frozen at the start": (1, "on rank 1 4.weight is (3, 6) float32 on cpu, frozen; on rank 0"),
}


@pytest.mark.parametrize("how", FAILURES)
def test_all_ranks_end_with_words(how: str, ranks: RankServer) -> None:
    code, words = FAILURES[how]
    first, second, third = ranks("distributed_runs:fails", 3, how, limit=40.0)
    assert second["code"] == code
    for rank in (first, third):
        assert rank["code"] == 1
        assert words in rank["err"].splitlines()[-1]
        assert rank["seconds"] < 20


def test_a_rank_that_stands_still_is_given_up(ranks: RankServer) -> None:
    first, second = ranks("distributed_runs:fails", 2, "stopped", limit=13.0)
    assert second["code"] is None  # until the server ended it
    assert first["code"] == 1
    assert f"{LOST} did not answer (killed, stopped for more than 4 s" in first["err"]


def test_ctrl_c_on_one_rank_is_that_of_all(ranks: RankServer) -> None:
    for rank in ranks("distributed_runs:fails", 3, "interrupted", limit=40.0):
        assert rank["err"].splitlines()[-1] == "KeyboardInterrupt"


def test_a_killed_run_goes_on_from_its_checkpoint(ranks: RankServer, tmp_path: Path) -> None:
    first, second = ranks("distributed_runs:killed_fit", 2, str(tmp_path), limit=40.0)
    assert second["code"] == -signal.SIGKILL
    assert first["code"] == 1
    checkpoint = tmp_path / "fit2.safetensors"
    assert f"a run with a checkpoint goes on from there: {checkpoint}" in first["err"]
    results = said(ranks("distributed_runs:fit", 2, str(tmp_path), 4, 0))
    assert results[0] == results[1]
    assert_near(results[0][0], runs.quick_fit(None, 4, 1), 1e-12)


@pytest.mark.parametrize("victim", [0, 1])
def test_the_command_line_ends_with_one_line_on_every_rank_that_is_left(
    victim: int, ranks: RankServer, tmp_path: Path
) -> None:
    results = ranks("distributed_runs:killed_command", 2, str(tmp_path / "run"), victim, limit=40.0)
    assert results[victim]["code"] == -signal.SIGKILL
    left = results[1 - victim]
    assert left["code"] == 1
    line = left["err"].splitlines()[-1]
    assert line.startswith("tilegrad train: distributed: ")
    assert f"rank {victim}" in line
    if victim == 0:
        again = ranks("distributed_runs:command", 2, str(tmp_path / "run"), "--resume", "--quiet")
    else:
        again = ranks("distributed_runs:restarted_command", 2, str(tmp_path / "run"))
        assert "epoch 5/5" in again[0]["err"]
    assert [rank["code"] for rank in again] == [0, 0], again[0]["err"]
    assert "epoch 1/5" not in again[0]["err"]


def test_what_is_started_again_before_its_first_checkpoint_begins_anew(
    ranks: RankServer, tmp_path: Path
) -> None:
    (alone,) = ranks("distributed_runs:restarted_command", 1, str(tmp_path / "run"))
    assert alone["code"] == 0, alone["err"]
    assert "epoch 1/5" in alone["err"]


def test_a_folder_that_rank_0_cannot_write_ends_all(ranks: RankServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    first, second = ranks("distributed_runs:command", 2, str(tmp_path / "file" / "run"), limit=40.0)
    assert (first["code"], second["code"]) == (1, 1)
    assert first["err"].startswith("tilegrad train: ")
    assert "Not a directory" in first["err"]
    assert "rank 0 ended with NotADirectoryError" in second["err"]


def test_ranks_that_do_not_meet(ranks: RankServer) -> None:
    started = time.monotonic()
    (rank,) = ranks("distributed_runs:lonely", 1, limit=40.0)
    assert time.monotonic() - started < 30
    assert rank["code"] == 1
    assert "RuntimeError: init_process_group: the ranks did not meet by file://" in rank["err"]
    assert "(a file that an earlier run has left? remove it)" in rank["err"]
