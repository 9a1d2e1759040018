// SPDX-License-Identifier: MIT
// TensorMap: what the copy engine (TMA) knows of an array in global memory, and the 128-byte
// swizzle in which it lays boxes of it into shared memory. Host code makes it; a kernel takes it by
// value as `const __grid_constant__ TensorMap`.
//
// The driver's encoder is looked up at run time, so that nothing links libcuda.
// Source: PTX ISA, Tensors, Swizzling Modes; CUDA Driver API, cuTensorMapEncodeTiled.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>

#include "../../check.hpp"
#include "../../context.hpp"
#include "../../host_device.hpp"
#ifndef TILEGRAD_SIM
#include <cuda.h>

#include "../device.hpp"
#endif

namespace tilegrad::TILEGRAD_BACKEND {

// What the elements of an array are. Those of tf32 are float in memory; the copy engine rounds them
// on their way to shared memory: to nearest, ties to even, infinities and NaN as they are. (The
// mode is not in the manual; triton-lang/triton #11751 found it so on a GPU.)
enum class TensorElement { bits16, float32, tf32 };

// The bytes of a step stay below this.
inline constexpr int64_t kTensorStepLimit = int64_t{1} << 40;

// An array in up to 3 dimensions, the innermost first, whose elements lie next to each other. The
// rows of a box are 128 bytes, the period of the swizzle; elements outside the array read as 0.
struct TensorShape {
  int rank;                       // 2 or 3
  std::array<int64_t, 3> size;    // >= 1
  std::array<int64_t, 3> stride;  // in elements; [0] is 1, the others multiples of 16 bytes, or
                                  // anything along an axis of one element
  std::array<uint32_t, 3> box;    // what one copy moves: 128 bytes, then up to 256 each
  TensorElement element = TensorElement::bits16;

  uint32_t element_bytes() const { return element == TensorElement::bits16 ? 2 : 4; }
};

// The same shape with the step along an axis of one element, which no copy takes, replaced by a
// legal one: the axis before it in whole chunks of 16 bytes.
inline TensorShape with_legal_steps(TensorShape shape) {
  const int64_t chunk = 16 / shape.element_bytes(), limit = kTensorStepLimit / 16 * chunk;
  for (size_t i = 1; i < static_cast<size_t>(shape.rank); ++i) {
    if (shape.size[i] != 1) continue;
    const int64_t count = shape.size[i - 1], step = shape.stride[i - 1];
    const bool fits = step < limit / count - chunk;
    shape.stride[i] = fits ? (count * step + chunk - 1) / chunk * chunk : step;
  }
  return shape;
}

// Byte `offset` of a box whose rows are 128 bytes lies at this offset in shared memory, both from
// an address that is a multiple of 1024: 16-byte chunk j of row r goes to chunk j ^ (r % 8).
TILEGRAD_HOST_DEVICE constexpr uint32_t swizzle_128b(uint32_t offset) {
  return offset ^ (offset >> 3 & 0x70u);
}

#ifdef TILEGRAD_SIM

struct TensorMap {
  const char* base;
  TensorShape shape;
};

inline TensorMap make_tensor_map(const void* base, const TensorShape& shape) {
  return {static_cast<const char*>(base), with_legal_steps(shape)};
}

#else

using TensorMap = CUtensorMap;

inline TensorMap make_tensor_map(const void* base, const TensorShape& given) {
  const TensorShape shape = with_legal_steps(given);
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess) {
      throw std::runtime_error("cuda: the driver must offer cuTensorMapEncodeTiled; it is too old");
    }
    return reinterpret_cast<Encode>(function);
  }();
  cuuint64_t size[3], stride[2];
  cuuint32_t step[3];
  for (int i = 0; i < shape.rank; ++i) {
    size[i] = static_cast<cuuint64_t>(shape.size[i]);
    step[i] = 1;
    if (i > 0) stride[i - 1] = static_cast<cuuint64_t>(shape.stride[i]) * shape.element_bytes();
  }
  const CUtensorMapDataType type =
      shape.element == TensorElement::bits16    ? CU_TENSOR_MAP_DATA_TYPE_UINT16
      : shape.element == TensorElement::float32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
                                                : CU_TENSOR_MAP_DATA_TYPE_TFLOAT32;
  TensorMap map;
  const CUresult result =
      encode(&map, type, static_cast<cuuint32_t>(shape.rank), const_cast<void*>(base), size, stride,
             shape.box.data(), step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw std::runtime_error(
        format("cuda: cuTensorMapEncodeTiled failed; got CUresult {}", static_cast<int>(result)));
  }
  return map;
}

#endif

}  // namespace tilegrad::TILEGRAD_BACKEND
