# SPDX-License-Identifier: MIT
"""DLPack by its specification: what a capsule may say, who frees it, what is refused."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tilegrad as tg
from dlpack_capsules import IS_COPIED, READ_ONLY, Producer, contents, name_of, numbers
from helpers import error, frozen
from tilegrad import _cpu, backends

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = ["f4", "f8", "f2", "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", BF16]
SIM = backends.at(backends.SIM) if tg.info()["backends"]["sim"] is None else None
# The host's memory is that of "sim" too: each reads a capsule in its own code.
READERS: dict[str, Callable[[Any], Any]] = {"cpu": tg.from_dlpack}
if SIM is not None:
    READERS["sim"] = SIM.from_dlpack
reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)
both = pytest.mark.parametrize("versioned", [True, False], ids=["DLPack 1", "DLPack 0.8"])


def host(x: Any) -> Any:
    """Return elements; the simulator copies no memory that is not its own, but computes on it."""
    return tg.relu(x).numpy() if isinstance(x, tg.Array) else x


def address(x: Any) -> int:
    return int(x._pointer if isinstance(x, tg.Array) else x.ctypes.data)


class Capsule:
    """A capsule that was made already."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule


# ---- in ----------------------------------------------------------------------------------------


@reader
@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_memory_is_shared_and_freed_once(read: Any, versioned: bool, dtype: Any) -> None:
    for shape in [(), (1,), (2, 3), (2, 1, 3)]:
        producer = Producer(numbers(shape).astype(dtype), versioned)
        taken = read(producer)
        assert (taken.shape, taken.dtype) == (shape, np.dtype(dtype))
        assert address(taken) == producer.array.ctypes.data
        if isinstance(taken, np.ndarray):
            np.testing.assert_array_equal(taken, producer.array)
        view = taken[:1] if shape else taken
        del taken
        assert producer.freed == 0
        del view
        assert producer.freed == 1


@both
def test_strides_may_be_any_or_none(versioned: bool) -> None:
    array = numbers((4, 5))
    taken = tg.from_dlpack(Producer(array, versioned, strides=None))
    gc.collect()  # the structure outlives its producer's last name
    assert taken.strides == (20, 4)
    del taken
    for view in (array.T, array[::-1, ::2], array[1:, 1:], np.broadcast_to(array[0], (3, 5))):
        np.testing.assert_array_equal(tg.from_dlpack(Producer(view, versioned)), view)
        np.testing.assert_array_equal(tg.relu(Producer(view, versioned)), view)
    offset = Producer(array, versioned, shape=(3, 5), byte_offset=20)
    np.testing.assert_array_equal(tg.from_dlpack(offset), array[1:])
    for strides in (None, (7, -3)):  # of no elements they mean nothing, nor does the address
        empty = Producer(np.empty((0, 3), "f4"), versioned, strides=strides, data=None)
        assert tg.relu(empty).shape == (0, 3)
    assert tg.from_dlpack(Producer(array, versioned, ndim=0, shape=None, strides=None)) == 1


@reader
def test_a_deleter_may_be_missing(read: Any) -> None:
    producer = Producer(numbers(), deleter=False)
    assert host(read(producer)).tolist() == producer.array.tolist()


def test_the_newest_version_is_asked_for_and_an_older_one_taken() -> None:
    new, old = Producer(numbers()), Producer(numbers(), versioned=False)
    tg.relu(new)
    tg.relu(old)
    assert new.asked == [{"max_version": (1, 0)}]
    assert old.asked == [{"max_version": (1, 0)}, {}]  # no stream either: the CPU has none
    unasked = Producer(numbers(), versioned=False)  # a producer may ignore what it is asked for
    unasked.__class__ = type("Any", (Producer,), {"__dlpack__": lambda self, **_: self.capsule()})
    assert tg.relu(unasked).tolist() == numbers().tolist()
    tg.from_dlpack(Producer(numbers(), version=(1, 9)))  # minor versions only add values


@reader
@pytest.mark.parametrize("version", [(0, 8), (2, 0), (2**32 - 1, 0)])
def test_another_major_version_is_refused_and_freed_once(read: Any, version: Any) -> None:
    producer = Producer(numbers(), version=version, ndim=-7, code=99)  # nothing else is looked at
    with error(TypeError, "from_dlpack", f"has DLPack version {version[0]}", "reads version 1"):
        read(producer)
    assert producer.freed == 1


@reader
def test_read_only_memory_is_read_and_never_written(read: Any) -> None:
    producer = Producer(numbers(), flags=READ_ONLY)
    taken = read(producer)
    np.testing.assert_array_equal(host(taken), producer.array)
    for write in (
        lambda: tg.relu(taken, out=taken),
        lambda: tg.relu(tg.relu(taken), out=taken),
        lambda: tg.relu(taken, inplace=True),
        lambda: taken.fill(0),
        lambda: taken[1:].fill(0),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
    np.testing.assert_array_equal(producer.array, numbers())
    with pytest.raises(BufferError, match=r"read-?only"):
        taken.__dlpack__()
    assert contents(taken.__dlpack__(max_version=(1, 0))).flags == READ_ONLY  # type: ignore[union-attr]
    writable = Producer(numbers())
    out = read(writable)
    tg.relu(out, out=out)
    assert contents(out.__dlpack__(max_version=(1, 0))).flags == 0  # type: ignore[union-attr]


def test_a_copy_may_be_written() -> None:
    producer = Producer(numbers(), flags=READ_ONLY)
    copy = tg.from_dlpack(producer, copy=True)
    assert producer.freed == 1
    copy.fill(0)
    np.testing.assert_array_equal(producer.array, numbers())


def test_memory_of_an_old_producer_is_read_only_on_the_cpu() -> None:
    """It cannot say whether it may be written; NumPy has the same rule."""
    assert tg.from_dlpack(Producer(numbers())).flags.writeable
    assert not tg.from_dlpack(Producer(numbers(), versioned=False)).flags.writeable


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "negative ndim": ({"ndim": -1}, ValueError, "0 to 32 axes; got -1"),
    "33 axes": ({"ndim": 33, "shape": [1] * 33, "strides": None}, ValueError, "got 33"),
    "huge ndim": ({"ndim": 2**31 - 1}, ValueError, "got 2147483647"),
    "no sizes": ({"shape": None}, ValueError, "2 axes and no sizes"),
    "negative size": ({"shape": (2, -3)}, ValueError, "(2, -3)"),
    "sizes beyond 64 bits": ({"shape": (2**62, 4), "strides": None}, ValueError, "too large"),
    "a stride beyond 64 bits": ({"strides": (2**62, 1)}, ValueError, "beyond any memory"),
    "the lowest stride": ({"strides": (-(2**63), 1)}, ValueError, "beyond any memory"),
    "no memory": ({"data": None}, ValueError, "no memory"),
    "an offset beyond 64 bits": ({"byte_offset": 2**64 - 8}, ValueError, "offset"),
    "misaligned": ({"byte_offset": 1}, TypeError, "1 bytes after a multiple of 4"),
    "four lanes": ({"lanes": 4}, TypeError, "4 lanes"),
    "no lanes": ({"lanes": 0}, TypeError, "0 lanes"),
    "complex": ({"code": 5, "bits": 64}, TypeError, "code 5, 64 bits"),
    "float8": ({"code": 10, "bits": 8}, TypeError, "code 10, 8 bits"),
    "opaque": ({"code": 3}, TypeError, "code 3"),
    "an unknown code": ({"code": 255}, TypeError, "code 255"),
    "7 bits": ({"bits": 7}, TypeError, "7 bits"),
    "another device": ({"device_type": 10}, TypeError, "device type"),
}  # fmt: skip


@reader
@both
@pytest.mark.parametrize("kind", BAD)
def test_what_makes_no_sense_is_refused_and_freed_once(
    read: Any, versioned: bool, kind: str
) -> None:
    fields, expected, text = BAD[kind]
    producer = Producer(numbers(), versioned, **fields)
    with error(expected, "from_dlpack", text):
        read(producer)
    assert producer.freed == 1


@pytest.mark.parametrize("place", [None, 1, (1,), ("cpu", 0), (1, 0, 0), (None, None)], ids=repr)
def test_a_device_is_two_integers(place: Any) -> None:
    with pytest.raises((TypeError, ValueError, IndexError)):
        tg.relu(Producer(numbers(), device=place))


def test_a_capsule_must_be_one() -> None:
    wrong = Capsule(None)
    for made in (None, 3, np.ones(3), np.ones(3).__array_struct__):
        wrong.capsule = made
        with error(TypeError, "relu", "must be a DLPack capsule"):
            tg.relu(wrong)
    wrong.capsule = np.ones(3).__dlpack__()
    tg.from_dlpack(wrong)
    assert name_of(wrong.capsule) == "used_dltensor"
    with error(TypeError, "relu", "nobody has consumed", "used_dltensor"):
        tg.relu(wrong)


SIZES = st.lists(st.one_of(st.integers(0, 3), st.integers(-(2**63), 2**63 - 1)), min_size=32)


@given(
    fields=st.fixed_dictionaries({}, optional={
        "ndim": st.one_of(st.integers(0, 32), st.integers(-(2**31), 2**31 - 1)),
        "shape": SIZES, "strides": st.one_of(st.none(), SIZES), "data": st.just(None),
        "code": st.integers(0, 255), "bits": st.sampled_from([0, 1, 4, 8, 16, 32, 64, 255]),
        "lanes": st.sampled_from([0, 1, 1, 1, 2, 2**16 - 1]), "device_type": st.integers(-2, 20),
        "byte_offset": st.integers(0, 2**64 - 1),
    }),
    versioned=st.booleans(),
)  # fmt: skip
def test_no_capsule_is_a_crash(fields: dict[str, Any], versioned: bool) -> None:
    """What is legal by chance is an array, whose elements this test does not read."""
    ones = {"shape": [1] * 32, "strides": None}  # as many as ndim may ask for
    for read in READERS.values():
        producer = Producer(numbers(), versioned, **{**ones, **fields})
        try:
            taken = read(producer)
            assert taken.size >= 0
            assert taken.ndim == fields.get("ndim", 2)
            del taken
        except (TypeError, ValueError):
            pass
        assert producer.freed == 1


# ---- out ---------------------------------------------------------------------------------------


def arrays() -> list[Any]:
    made: list[Any] = [tg.to_dlpack(numbers((2, 3)).astype(BF16))]
    if SIM is not None:
        made += [tg.asarray(numbers((2, 3)).astype(dtype), device="sim") for dtype in DTYPES]
    return made


def test_the_asked_version_is_made() -> None:
    for array in arrays():
        for asked, name in [
            (None, "dltensor"), ((0, 8), "dltensor"), ((1, 0), "dltensor_versioned"),
            ((1, 3), "dltensor_versioned"), ((2, 0), "dltensor_versioned"),
        ]:  # fmt: skip
            capsule = array.__dlpack__(max_version=asked)
            assert name_of(capsule) == name
            held = contents(capsule)
            assert list(held.tensor.shape[:2]) == [2, 3]
            assert list(held.tensor.strides[:2]) == [3, 1]
            assert (held.tensor.ndim, held.tensor.lanes, held.tensor.byte_offset) == (2, 1, 0)
            if name.endswith("versioned"):
                assert (held.major, held.minor, held.flags) == (1, 0, 0)  # type: ignore[union-attr]


def test_copies_are_made_where_they_are_asked_for() -> None:
    for array in arrays():
        own = contents(array.__dlpack__(max_version=(1, 0))).tensor.data
        for copy, flags in ((True, IS_COPIED), (False, 0), (None, 0)):
            capsule = array.__dlpack__(max_version=(1, 0), copy=copy)
            held = contents(capsule)
            assert (held.tensor.data == own) is not bool(copy)
            assert held.flags == flags  # type: ignore[union-attr]
        assert contents(array.__dlpack__(copy=True)).tensor.data != own


def test_what_cannot_be_exported_is_a_buffer_error() -> None:
    for array in arrays():
        assert name_of(array.__dlpack__(dl_device=(1, 0), stream=-1)) == "dltensor"
        for options in (
            {"dl_device": (2, 0)}, {"dl_device": (10, 0), "copy": True}, {"stream": 0},
            {"stream": 1}, {"stream": 2**40}, {"stream": -2},
        ):  # fmt: skip
            with pytest.raises(BufferError):
                array.__dlpack__(**options)


def test_empty_arrays_have_no_address() -> None:
    for array in (tg.to_dlpack(np.empty((0, 3), BF16)), *(a[:0] for a in arrays()[1:])):
        assert contents(array.__dlpack__()).tensor.data is None
        assert torch.from_dlpack(array).shape == (0, 3)


def test_bfloat16_of_numpy_goes_out_in_any_layout() -> None:
    x = numbers((4, 6)).astype(BF16)
    for view in (x, x.T, x[::-1, ::2], x[1:, 1:], x[0], x[1, 2]):
        view = np.asarray(view)
        if any(stride < 0 for stride in view.strides):
            taken = tg.from_dlpack(tg.to_dlpack(view))  # torch has no negative strides
            np.testing.assert_array_equal(taken, view)
        else:
            there = torch.from_dlpack(tg.to_dlpack(view))
            assert (there.dtype, there.shape) == (torch.bfloat16, view.shape)
            assert there.data_ptr() == view.ctypes.data
            np.testing.assert_array_equal(there.float().numpy(), view.astype("f4"))
    with pytest.raises(BufferError, match="read-only"):
        tg.to_dlpack(frozen(x)).__dlpack__()
    held = contents(tg.to_dlpack(frozen(x)).__dlpack__(max_version=(1, 0)))
    assert held.flags == READ_ONLY  # type: ignore[union-attr]
    assert not tg.from_dlpack(tg.to_dlpack(frozen(x))).flags.writeable
    np.testing.assert_array_equal(tg.relu(tg.to_dlpack(x)), x)
    assert tg.asarray(tg.to_dlpack(x)).ctypes.data == x.ctypes.data


@pytest.mark.parametrize("dtype", [*DTYPES, np.longlong, np.intc], ids=str)
def test_host_memory_of_any_dtype_goes_out(dtype: Any) -> None:
    """What an Array on cuda gives to a consumer that asks for the host's memory."""
    x = numbers((2, 3)).astype(dtype)
    for versioned, copied in ((True, True), (True, False), (False, False)):
        capsule = _cpu._to_dlpack(x, versioned, copied)
        if versioned:
            assert contents(capsule).flags == (IS_COPIED if copied else 0)  # type: ignore[union-attr]
        back = tg.from_dlpack(Capsule(capsule))
        assert (back.ctypes.data, back.dtype) == (x.ctypes.data, x.dtype)
        np.testing.assert_array_equal(back, x)
    for wrong in (x.astype("c8"), np.zeros(3, [("a", "f4"), ("b", "i1")])["a"]):
        with pytest.raises(BufferError, match="dtype or strides"):
            _cpu._to_dlpack(wrong, True, False)


def test_only_numpys_bfloat16_needs_a_wrapper() -> None:
    for x in (numbers(), *arrays()[1:]):
        assert tg.to_dlpack(x) is x
    with error(TypeError, "to_dlpack", "list"):
        tg.to_dlpack([1.0])


def test_an_exported_array_lives_as_long_as_its_consumer() -> None:
    x = np.full(300, 7, BF16)
    there = torch.from_dlpack(tg.to_dlpack(x))
    del x
    assert there.tolist() == [7.0] * 300
