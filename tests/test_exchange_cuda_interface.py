# SPDX-License-Identifier: MIT
"""__cuda_array_interface__: the dictionary, and an Array over what it describes.

The simulator's device memory plays the GPU's: addresses, streams and lifetimes are those of the
cuda backend's code.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import error
from tilegrad import _exchange, array, backends

BASE: dict[str, Any] = {"shape": (2, 3), "typestr": "<f4", "data": (4096, False), "version": 3}
RULE = "asarray"


class Stand:
    """An object of another library."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__cuda_array_interface__ = interface


def of_array(a: tg.Array, **changes: Any) -> Stand:
    interface = {
        "shape": a.shape, "typestr": a.dtype.str.replace("=", "<"), "data": (a._pointer, False),
        "version": 3, "stream": None,
    }  # fmt: skip
    return Stand({**interface, **changes})


@pytest.fixture
def on_sim(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the memory of "sim" count as that of a GPU."""
    at = backends.at
    monkeypatch.setattr(backends, "at", lambda place: at(backends.SIM if place == 0 else place))
    return at(backends.SIM)


@pytest.mark.parametrize("name", [name for name in array._DTYPES if name != "bfloat16"])
def test_every_dtype_is_known_by_its_type_string(name: str) -> None:
    typestr = array._TYPESTR.get(name, np.dtype(name).str)
    found = _exchange.read_cuda_interface({**BASE, "typestr": typestr})
    assert array._DTYPES[found.dtype] == name


def test_what_is_optional_may_be_left_out() -> None:
    read = _exchange.read_cuda_interface
    assert read(BASE) == (4096, (2, 3), 0, False, None)
    assert read({**BASE, "version": 2, "strides": None, "descr": [("", "<f4")]}) == read(BASE)
    assert read({**BASE, "strides": (12, 4), "stream": 1}).stream == 1
    assert read({**BASE, "data": (4096, True)}).read_only
    assert read({**BASE, "version": 4, "shape": ()}).shape == ()
    for strides in ((7, 4), (12, 4)):  # of an axis of one they mean nothing
        assert read({**BASE, "shape": (1, 3), "strides": strides}).shape == (1, 3)
    assert read({**BASE, "shape": (0, 3), "data": (0, False), "strides": (1, 1)}).pointer == 0


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "version 1": ({"version": 1}, ValueError, "version 2 or later; got 1"),
    "no version": ({"version": None}, ValueError, "must hold shape"),
    "no shape": ({"shape": None}, ValueError, "must hold shape"),
    "a shape of floats": ({"shape": (2.0, 3)}, ValueError, "must hold shape"),
    "a negative size": ({"shape": (2, -3)}, ValueError, "(2, -3)"),
    "data without a flag": ({"data": (4096,)}, ValueError, "must hold shape"),
    "data as bytes": ({"data": b"1234"}, ValueError, "address"),
    "no address": ({"data": (0, False)}, ValueError, "address"),
    "a misaligned address": ({"data": (4098, False)}, ValueError, "multiple of 4; got 4098"),
    "a mask": ({"mask": Stand(BASE)}, TypeError, "mask"),
    "transposed": ({"strides": (4, 8)}, TypeError, "C-contiguous; got shape (2, 3)"),
    "gaps": ({"strides": (24, 8)}, TypeError, "[24, 8] bytes"),
    "strides of one axis": ({"strides": (4,)}, TypeError, "C-contiguous"),
    "stream 0": ({"stream": 0}, ValueError, "stream must be None, 1, 2"),
    "stream -1": ({"stream": -1}, ValueError, "got -1"),
    "complex": ({"typestr": "<c8"}, TypeError, "'<c8'"),
    "swapped": ({"typestr": ">f4"}, TypeError, "native byte order"),
    "bfloat16": ({"typestr": "<V2"}, TypeError, "bfloat16 has no name there: use DLPack"),
    "bits": ({"typestr": "|t1"}, TypeError, "|t1"),
    "no type": ({"typestr": ""}, TypeError, "type"),
    "float80": ({"typestr": "<f10"}, TypeError, "<f10"),
}  # fmt: skip


@pytest.mark.skipif(sys.byteorder == "big", reason="the strings are those of little machines")
@pytest.mark.parametrize("kind", BAD)
def test_what_makes_no_sense_is_refused(kind: str) -> None:
    changes, expected, text = BAD[kind]
    with error(expected, RULE, "__cuda_array_interface__", text):
        tg.asarray(Stand({**BASE, **changes}))


@pytest.mark.skipif(tg.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("function", [tg.asarray, tg.from_dlpack])
def test_without_a_gpu_the_error_says_why(function: Callable[[Any], Any]) -> None:
    reason = tg.info()["backends"]["cuda"]
    with error(RuntimeError, "device", "'cuda' cannot be used", reason):
        function(Stand(BASE))


def test_memory_is_shared_and_kept_alive(on_sim: Any) -> None:
    a = tg.asarray(np.arange(6, dtype="f4").reshape(2, 3), device="sim")
    stand = of_array(a)
    for taken in (tg.from_dlpack(stand), tg.asarray(stand)):
        assert (taken._pointer, taken.shape, taken.dtype) == (a._pointer, a.shape, a.dtype)
        tg.relu(taken, out=taken)
        taken.fill(3)
        assert a.numpy().tolist() == [[3.0] * 3] * 2
    alive = weakref.ref(stand)
    view = taken[1:]
    del stand, taken
    assert alive() is not None
    del view
    assert alive() is None


def test_it_goes_where_it_is_asked_for(on_sim: Any) -> None:
    a = tg.ones((2, 3), device="sim")
    on_host = tg.asarray(of_array(a), device="cpu")
    assert type(on_host) is np.ndarray
    assert on_host.tolist() == [[1.0] * 3] * 2
    copy = tg.from_dlpack(of_array(a), copy=True)
    assert copy._pointer != a._pointer
    assert tg.asarray(of_array(tg.empty((0, 3), device="sim"), data=(0, False))).shape == (0, 3)
    with error(TypeError, "asarray", "an Array is not cast on its device"):
        tg.asarray(of_array(a), np.float64)


def test_read_only_memory_is_no_out(on_sim: Any) -> None:
    a = tg.ones((2, 3), device="sim")
    fixed = tg.asarray(of_array(a, data=(a._pointer, True)))
    assert tg.relu(fixed).numpy().tolist() == a.numpy().tolist()
    with error(ValueError, "relu", "out is read-only"):
        tg.relu(a, out=fixed)
    tg.from_dlpack(of_array(a, data=(a._pointer, True)), copy=True).fill(0)
    assert a.numpy().all()


def test_memory_of_the_host_is_refused(on_sim: Any) -> None:
    x = np.ones((2, 3), "f4")
    stand = Stand({**BASE, "data": (x.ctypes.data, False)})
    with error(TypeError, "asarray", "must point to memory of sim"):
        tg.asarray(stand)


def test_the_producer_s_stream_is_awaited(on_sim: Any) -> None:
    """Work that is put on it before comes first; without one nothing is awaited."""
    theirs = tg.cuda.Stream("sim")
    ours = tg.cuda.current_stream("sim")
    with tg.cuda.stream(theirs):
        a = tg.relu(tg.ones((2, 3), device="sim"))
    before = on_sim._work_not_awaited(ours, theirs.handle)
    tg.asarray(of_array(a))
    assert on_sim._work_not_awaited(ours, theirs.handle) == before
    assert before
    tg.asarray(of_array(a, stream=theirs.handle))
    assert not on_sim._work_not_awaited(ours, theirs.handle)
