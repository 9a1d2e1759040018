# SPDX-License-Identifier: MIT
"""JAX, CuPy and PyTorch themselves: arrays in and out, without a copy where the page says so."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Array, error

BF16 = np.dtype(ml_dtypes.bfloat16)
FLOATS: list[Any] = [np.dtype("f4"), np.dtype("f8"), BF16]
INTEGERS = [np.dtype(x) for x in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2")]


@pytest.fixture(scope="module")
def jax() -> Any:
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    yield jax
    jax.config.update("jax_enable_x64", False)


def random(rng: np.random.Generator, dtype: Any, *shape: int) -> Array:
    return (4 * rng.standard_normal(shape)).astype(dtype)


# ---- JAX ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
def test_jax_arrays_are_read_where_they_lie(jax: Any, dtype: Any, rng: np.random.Generator) -> None:
    for shape in [(), (0, 3), (5,), (3, 4, 5)]:
        x = jax.numpy.asarray(np.asarray(random(rng, "f4", *shape)).astype(dtype))
        for taken in (tg.from_dlpack(x), tg.asarray(x), tg.asarray(x, device="cpu")):
            assert (taken.shape, taken.dtype) == (shape, dtype)
            assert taken.size == 0 or taken.ctypes.data == x.unsafe_buffer_pointer()
            np.testing.assert_array_equal(taken, np.asarray(x))
            assert not taken.flags.writeable  # JAX's arrays never change
    with error(TypeError, "relu", "out must be a numpy.ndarray"):
        tg.relu(np.ones(3, "f4"), out=jax.numpy.ones(3))
    own = tg.from_dlpack(jax.numpy.ones(3, dtype), copy=True)
    own[0] = 0
    assert np.asarray(own).astype("f4").tolist() == [0, 1, 1]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_functions_take_jax_arrays(jax: Any, dtype: Any, rng: np.random.Generator) -> None:
    x, w = random(rng, dtype, 5, 7), random(rng, dtype, 4, 7)
    got = tg.linear(jax.numpy.asarray(x), jax.numpy.asarray(w), activation="gelu")
    np.testing.assert_array_equal(got, tg.linear(x, w, activation="gelu"))
    model = tg.nn.Linear(7, 4, bias=False, dtype=dtype)
    model.load_state_dict({"weight": jax.numpy.asarray(w)})
    np.testing.assert_array_equal(model.weight.data, w)
    there = tg.asarray(jax.numpy.asarray(x), device="sim")
    np.testing.assert_array_equal(there.numpy(), x)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_results_go_to_jax_where_they_lie(jax: Any, dtype: Any, rng: np.random.Generator) -> None:
    x = random(rng, dtype, 200, 300)  # from 64 KiB on results start on a cache line, as JAX asks
    y = tg.relu(x)
    j = jax.numpy.from_dlpack(tg.to_dlpack(y))
    assert j.unsafe_buffer_pointer() == y.ctypes.data
    assert j.dtype == dtype
    np.testing.assert_array_equal(np.asarray(j), y)
    small = jax.numpy.from_dlpack(tg.to_dlpack(tg.relu(x[:2, :3])))  # perhaps a copy
    np.testing.assert_array_equal(np.asarray(small), y[:2, :3])
    there = tg.relu(tg.asarray(x, device="sim"))
    j = jax.numpy.from_dlpack(there)
    assert j.unsafe_buffer_pointer() == there._pointer
    del there
    np.testing.assert_array_equal(np.asarray(j), y)
    assert jax.jit(lambda z: z.sum())(j).dtype == dtype


def test_a_read_only_array_is_not_given_to_who_cannot_be_told(jax: Any) -> None:
    """JAX asks for a capsule from before DLPack 1, which cannot say so."""
    shared = tg.backends.at(tg.backends.SIM).from_dlpack(jax.numpy.ones((2, 3)))
    with pytest.raises(BufferError, match="read-only"):
        jax.numpy.from_dlpack(shared)
    assert torch.from_dlpack(shared).tolist() == [[1.0] * 3] * 2


# ---- PyTorch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS, ids=str)
def test_tensors_go_in_and_out_where_they_lie(dtype: Any, rng: np.random.Generator) -> None:
    x = random(rng, "f4", 3, 4).astype(dtype)
    tensor = torch.from_dlpack(tg.to_dlpack(x))
    assert tensor.data_ptr() == x.ctypes.data
    back = tg.from_dlpack(tensor)
    assert (back.ctypes.data, back.dtype) == (x.ctypes.data, dtype)
    assert back.flags.writeable
    there = tg.asarray(x, device="sim")
    tensor = torch.from_dlpack(there)
    assert tensor.data_ptr() == there._pointer
    np.testing.assert_array_equal(tg.from_dlpack(tensor), x)


def test_a_tensor_that_records_a_gradient_is_torch_s_to_refuse() -> None:
    tensor = torch.ones(3, requires_grad=True)
    with pytest.raises(BufferError, match=r"^from_dlpack: .*require gradient"):
        tg.from_dlpack(tensor)
    with error(TypeError, "relu", "could not be read through DLPack", "detach"):
        tg.relu(tensor)


def test_memory_that_a_tensor_negates_is_refused() -> None:
    tensor = torch.imag(torch.tensor([1 + 2j, 3 - 4j]).conj())
    assert tensor.is_neg()
    for call, op in ((tg.relu, "relu"), (tg.from_dlpack, "from_dlpack")):
        with error(TypeError, op, "negates its memory", "resolve_neg()"):
            call(tensor)
    np.testing.assert_array_equal(tg.relu(tensor.resolve_neg()), [0, 4])


def test_dtypes_that_tilegrad_lacks_are_named() -> None:
    for dtype, text in ((torch.complex64, "code 5, 64 bits"), (torch.float8_e5m2, "code 12")):
        with error(TypeError, "from_dlpack", text):
            tg.from_dlpack(torch.zeros(3, dtype=dtype))


# ---- CuPy --------------------------------------------------------------------------------------


@pytest.fixture
def cupy() -> Any:
    cupy = pytest.importorskip("cupy")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as reason:
        pytest.skip(f"CuPy has no device: {reason}")
    if not tg.cuda.is_available():
        pytest.skip(f"cuda: {tg.info()['backends']['cuda']}")
    return cupy


def test_cupy_arrays_go_in_and_out_where_they_lie(cupy: Any, rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64, np.int64):
        x = cupy.asarray(random(rng, dtype, 5, 7))
        for taken in (tg.from_dlpack(x), tg.asarray(x)):
            assert taken._pointer == x.data.ptr
            np.testing.assert_array_equal(taken.numpy(), x.get())
        for back in (cupy.from_dlpack(taken), cupy.asarray(taken)):
            assert back.data.ptr == taken._pointer
            np.testing.assert_array_equal(back.get(), x.get())
    with cupy.cuda.Stream(non_blocking=True):
        x = cupy.ones((1000, 1000), cupy.float32) * 3
        y = tg.matmul(x, x)  # waits for CuPy's stream
        z = cupy.from_dlpack(y) + 1  # and CuPy's for ours
    np.testing.assert_array_equal(z.get(), np.full((1000, 1000), 9001, "f4"))
    with error(TypeError, "from_dlpack", "C-contiguous"):
        tg.from_dlpack(x.T)
