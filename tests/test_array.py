# SPDX-License-Identifier: MIT
"""tilegrad.Array: what it is, views and copies, exchange with other libraries, bad input."""

from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import error
from tilegrad import array as arrays
from tilegrad import backends

DEVICES = [name for name in ("sim", "cuda") if tg.info()["backends"][name] is None]
DTYPES = [name for name in arrays._DTYPES if name != "bfloat16"]


@pytest.fixture(params=DEVICES)
def where(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def values(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    return np.random.default_rng(7).integers(0, 2, shape).astype(dtype)


def test_dtypes_are_those_of_the_modules() -> None:
    for name in DEVICES:
        assert tuple(backends.at(backends.place_of(name)).dtype_names()) == arrays._DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (5, 7), (2, 3, 4)], ids=str)
def test_a_round_trip_keeps_shape_dtype_and_values(
    where: str, shape: tuple[int, ...], dtype: str
) -> None:
    x = values(shape, dtype)
    a = tg.asarray(x, device=where)
    assert isinstance(a, tg.Array)
    assert (a.shape, a.dtype, a.ndim, a.size, a.nbytes) == (
        x.shape, x.dtype, x.ndim, x.size, x.nbytes,
    )  # fmt: skip
    assert a.device == {"sim": "sim", "cuda": "cuda:0"}[where]
    assert type(a.numpy()) is np.ndarray
    assert a.numpy().dtype == x.dtype
    np.testing.assert_array_equal(a.numpy(), x)
    np.testing.assert_array_equal(a.to("cpu"), x)


def test_large_and_strided_and_swapped_arrays_are_copied_right(where: str) -> None:
    x = np.arange(3_000_017, dtype=np.float32)  # more than one staging buffer
    np.testing.assert_array_equal(tg.asarray(x, device=where).numpy(), x)
    y = np.arange(60.0).reshape(3, 4, 5)
    for view in (y[::-1, ::2], y.T, y[:, 1], np.broadcast_to(y[0], (2, 4, 5))):
        np.testing.assert_array_equal(tg.asarray(view, device=where).numpy(), view)
    swapped = y.astype(">f8")
    np.testing.assert_array_equal(tg.asarray(swapped, device=where).numpy(), y)
    assert tg.asarray([1, 2], np.float64, device=where).dtype == np.float64


def test_asarray_of_an_array_is_itself_and_never_casts(where: str) -> None:
    a = tg.asarray(values((3,)), device=where)
    assert tg.asarray(a) is a
    assert tg.asarray(a, device=where) is a
    assert tg.asarray(a, np.float32) is a
    with error(TypeError, "asarray", "float32", "float64"):
        tg.asarray(a, np.float64)
    x = values((3,))
    assert tg.asarray(x) is x
    assert tg.asarray(x, device="cpu") is x


def test_makers(where: str) -> None:
    for make, value in ((tg.zeros, 0), (tg.ones, 1)):
        for dtype in DTYPES:
            a = make((2, 3), dtype, device=where)
            np.testing.assert_array_equal(a.numpy(), np.full((2, 3), value, dtype))
    a = tg.full((2,), 0.1, np.float64, device=where)
    assert a.numpy().tolist() == [0.1, 0.1]
    assert tg.full((), 7, np.int32, device=where).item() == 7
    assert tg.empty(4, device=where).shape == (4,)
    assert tg.empty((0, 3), device=where).numpy().shape == (0, 3)
    for make in (tg.zeros, tg.ones, tg.empty):
        assert type(make((2, 2))) is np.ndarray
    a.fill(0.25)
    assert a.numpy().tolist() == [0.25, 0.25]
    for shape in ((-1,), (2**40, 2**40)):
        with error(ValueError, "empty"):
            tg.empty(shape, device=where)
    with error(TypeError, "empty", "complex64"):
        tg.empty(3, np.complex64, device=where)


def test_views_share_memory_and_keep_it_alive(where: str) -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    a = tg.asarray(x, device=where)
    for index in (0, -1, 3, np.int64(2), slice(1, 3), slice(None), slice(3, 1), slice(-2, None)):
        np.testing.assert_array_equal(a[index].numpy(), x[index])
    np.testing.assert_array_equal(a[1][2].numpy(), x[1][2])
    np.testing.assert_array_equal(a.reshape(6, -1).numpy(), x.reshape(6, -1))
    np.testing.assert_array_equal(a.reshape((2, 12)).numpy(), x.reshape(2, 12))
    assert [part.numpy().tolist() for part in a] == x.tolist()
    part = a[1:3]
    part.fill(9)
    x[1:3] = 9
    np.testing.assert_array_equal(a.numpy(), x)
    del a
    gc.collect()
    tg.release_memory()
    np.testing.assert_array_equal(part.numpy(), x[1:3])
    for bad in (slice(None, None, 2), slice(None, None, -1), [0, 1], (0, 1), None, True, "a"):
        with pytest.raises(TypeError, match="Array: "):
            part[bad]
    for bad in (2, -3):
        with pytest.raises(IndexError, match=f"index {bad} is out of range for 2 rows"):
            part[bad]
    for shape in ((5,), (-1, -1), (-1, 0), (-2, 6)):
        with error(ValueError, "Array.reshape"):
            part.reshape(shape)


def test_copies_are_independent(where: str) -> None:
    a = tg.ones(3, device=where)
    for b in (a.copy(), copy.copy(a), copy.deepcopy(a), a[()]):
        b.fill(5)
        assert a.numpy().tolist() == [1, 1, 1]
    assert a.to(where) is a


def test_scalars(where: str) -> None:
    a = tg.asarray(np.float32(2.5), device=where)
    assert a.shape == ()
    assert (a.item(), float(a), int(a), bool(a)) == (2.5, 2.5, 2, True)
    assert tg.asarray(np.ones((1, 1)), device=where).item() == 1.0
    many = tg.ones(2, device=where)
    for call in (many.item, many.__bool__):
        with pytest.raises(ValueError, match="Array"):
            call()
    with pytest.raises(TypeError, match="no length"):
        len(a)


def test_it_never_becomes_a_numpy_array_silently(where: str) -> None:
    a = tg.ones(3, device=where)
    for call in (
        lambda: np.asarray(a),
        lambda: np.array([a]),
        lambda: np.sum(a),  # type: ignore[arg-type]
        lambda: np.ones(3) * a,  # type: ignore[operator]
        lambda: np.ones(3) + a,  # type: ignore[operator]
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError, match=r"it is on .*; call \.numpy\(\)"):
        np.asarray(a)
    with pytest.raises(TypeError, match=r"make one with tilegrad\.asarray"):
        tg.Array()
    assert "float32" in repr(a)
    assert where in repr(a)
    assert "shape=(2000,)" in repr(tg.zeros(2000, device=where))


def test_comparing_is_refused_and_formatting_is_a_number(where: str) -> None:
    a = tg.ones((), device=where)
    assert f"{a:.2f}" == "1.00"
    assert f"{a}" == str(a)
    assert a == a
    assert len({a: 1}) == 1
    for other in (tg.ones((), device=where), 1.0, np.ones(2)):
        with pytest.raises(TypeError, match=r"call \.numpy\(\)"):
            a == other  # noqa: B015
        with pytest.raises(TypeError, match=r"call \.numpy\(\)"):
            other == a  # noqa: B015


def test_bfloat16_tensors_are_taken(where: str) -> None:
    tensor = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    a = tg.asarray(tensor, device="sim")
    assert a.dtype_name == "bfloat16"
    assert a._pointer != tensor.data_ptr()
    assert torch.from_dlpack(tg.relu(a)).tolist() == [1.5, 0.0]


def test_operands_of_two_devices_are_named(where: str) -> None:
    x, a = values((2, 2)), tg.ones((2, 2), device=where)
    place = a.device
    with error(TypeError, "matmul", "b is on cpu", f"the call is on {place}", "asarray"):
        tg.matmul(a, x)
    with error(TypeError, "matmul", f"b is on {place}", "the call is on cpu", "asarray"):
        tg.matmul(x, a)
    with error(TypeError, "linear", "weight is on cpu"):
        tg.linear(a, x)
    with error(TypeError, "relu", "out"):
        tg.relu(a, out=x)
    with pytest.raises((TypeError, ValueError), match="relu: out"):
        tg.relu(x, out=a)
    with error(TypeError, "matmul", "list"):
        tg.matmul(a, [[1.0, 2.0]] * 2)
    with error(TypeError, "matmul", "tilegrad.Array"):
        tg.matmul(a, 3.0)
    p = tg.nn.Parameter(x)
    with error(TypeError, "matmul", "pass its .data"):
        tg.matmul(a, p)


def test_out_is_checked(where: str) -> None:
    a = tg.ones((3, 4), device=where)
    out = tg.empty((3, 4), device=where)
    assert tg.relu(a, out=out) is out
    assert tg.relu(a, out=a) is a
    with error(ValueError, "relu", "(3, 4)", "(4, 3)"):
        tg.relu(a, out=tg.empty((4, 3), device=where))
    with error(TypeError, "relu", "float32", "float64"):
        tg.relu(a, out=tg.empty((3, 4), np.float64, device=where))
    memory = tg.ones(14, device=where)
    with error(ValueError, "relu", "overlap"):
        tg.relu(memory[:12].reshape(3, 4), out=memory[2:].reshape(3, 4))
    square = tg.ones((3, 3), device=where)
    with error(ValueError, "matmul", "overlap"):
        tg.matmul(square, square, out=square)


def test_dlpack_goes_out_without_a_copy(where: str) -> None:
    a = tg.asarray(values((3, 4)), device=where)
    there = torch.from_dlpack(a)
    assert there.shape == (3, 4)
    assert there.data_ptr() == a._pointer
    np.testing.assert_array_equal(there.cpu().numpy(), a.numpy())
    there.fill_(4)
    if where == "cuda":
        torch.cuda.synchronize()
    assert set(a.numpy().ravel().tolist()) == {4.0}
    address = a._pointer
    del a
    gc.collect()
    tg.release_memory()
    other = tg.zeros((3, 4), device=where)  # would land there if the memory were free
    assert other._pointer != address
    assert there.cpu().numpy().ravel().tolist() == [4.0] * 12


def test_the_capsule_of_an_array_is_consumed_once(where: str) -> None:
    a = tg.ones(3, device=where)
    module = backends.at(a._place)
    for version in (None, (1, 0)):
        capsule = a.__dlpack__(max_version=version)
        b = module.from_dlpack(capsule)
        assert b._pointer == a._pointer
        with error(TypeError, "from_dlpack", "nobody has consumed"):
            module.from_dlpack(capsule)
        a.__dlpack__(max_version=version)  # one that nobody takes is freed
    with pytest.raises(BufferError, match="cannot be exported"):
        a.__dlpack__(dl_device=(7, 0))
    copied = module.from_dlpack(a.__dlpack__(copy=True))
    assert copied._pointer != a._pointer


def test_a_capsule_keeps_the_memory_of_an_array_that_is_gone(where: str) -> None:
    module = backends.at(backends.place_of(where))
    gc.collect()
    before = module.memory_in_use()
    for version in (None, (1, 0)):
        capsule = tg.full(300, 7.0, device=where).__dlpack__(max_version=version)
        other = tg.full(300, 1.0, device=where)
        taken = module.from_dlpack(capsule)
        del capsule
        assert taken.numpy().tolist() == [7.0] * 300
        view = taken[5:]
        del taken, other
        assert view.numpy().tolist() == [7.0] * 295
        del view
        tg.ones(300, device=where).__dlpack__(max_version=version)  # nobody takes it
    assert module.memory_in_use() == before


def test_cpu_tensors_of_others_are_copied_to_a_device(where: str) -> None:
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    a = tg.asarray(tensor, device=where)
    assert a.numpy().tolist() == tensor.tolist()
    assert type(tg.from_dlpack(tensor)) is np.ndarray
    with error(TypeError, "from_dlpack", "__dlpack__"):
        tg.from_dlpack(3)
    if where == "sim":
        with error(TypeError, "matmul", "b is on cpu (Tensor)", "the call is on sim"):
            tg.matmul(a, tensor)


def test_only_cuda_has_the_cuda_array_interface() -> None:
    assert not hasattr(tg.ones(3, device="sim"), "__cuda_array_interface__")
    if "cuda" in DEVICES:
        a = tg.ones((2, 3), device="cuda")
        interface = a.__cuda_array_interface__
        assert interface["shape"] == (2, 3)
        assert interface["typestr"] == "<f4"
        assert interface["data"] == (a._pointer, False)


def test_bfloat16_needs_ml_dtypes_on_the_host_only(where: str) -> None:
    a = tg.full((2, 3), 1.5, "bfloat16", device=where)
    assert a.nbytes == 12
    assert "bfloat16" in repr(a)
    y = tg.relu(a)
    assert y.nbytes == 12
    try:
        import ml_dtypes
    except ImportError:
        with pytest.raises(ImportError, match=r"tilegrad\[bf16\]"):
            y.numpy()
        return
    assert y.dtype == ml_dtypes.bfloat16
    assert y.numpy().astype(np.float32).tolist() == [[1.5] * 3] * 2
    host = np.arange(6, dtype=ml_dtypes.bfloat16)
    np.testing.assert_array_equal(tg.asarray(host, device=where).numpy(), host)


def test_memory_is_reused_and_given_back(where: str) -> None:
    module = backends.at(backends.place_of(where))
    gc.collect()
    tg.release_memory()
    before = module.memory_in_use()
    a = tg.ones(1000, device=where)
    address = a._pointer
    assert module.memory_in_use() >= before + 4000
    del a
    assert module.memory_in_use() == before
    b = tg.ones(1000, device=where)
    assert b._pointer == address
    del b
    assert tg.release_memory() >= 4000
    assert tg.release_memory() == 0


def test_streams(where: str) -> None:
    s = tg.cuda.Stream(where)
    shared = tg.cuda.current_stream(where)
    assert s.handle != shared
    with tg.cuda.stream(s):
        assert tg.cuda.current_stream(where) == s.handle
        x = tg.ones((4, 4), device=where)
        y = tg.matmul(x, x)
        with pytest.raises(KeyError), tg.cuda.stream(tg.cuda.Stream(where)):
            raise KeyError
        assert tg.cuda.current_stream(where) == s.handle
    assert tg.cuda.current_stream(where) == shared
    s.synchronize()
    z = tg.relu(y)  # on another stream than y's memory
    tg.cuda.synchronize(where)
    assert z.numpy().tolist() == [[4.0] * 4] * 4
    with (
        pytest.raises(TypeError, match=r"takes a tilegrad\.cuda\.Stream; got int"),
        tg.cuda.stream(3),
    ):  # type: ignore[arg-type]
        pass
    with pytest.raises(ValueError, match="the cpu has no streams"):
        tg.cuda.Stream("cpu")
    properties = tg.cuda.properties(where)
    assert properties["multiprocessors"] >= 1
    assert properties["free_memory"] <= properties["total_memory"]
