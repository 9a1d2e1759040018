// SPDX-License-Identifier: MIT
// A list of tensors as the argument of one kernel, cut into chunks that its blocks share.
#pragma once

#include <type_traits>

#include "../ops.hpp"
#include "vector_io.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kListThreads = 256;  // of a block that works on a list
inline constexpr int kListSize = 32;
inline constexpr int64_t kChunk = 4096;  // elements; part of the result of a norm
static_assert(kChunk % kPacketBytes == 0, "a chunk begins where a packet may");

// first_chunk[t] .. first_chunk[t + 1] are the chunks of tensor t.
template <class T>
struct TensorList {
  int count;
  int64_t first_chunk[kListSize + 1];
  OptimTensor<T> tensors[kListSize];
};
static_assert(sizeof(TensorList<float>) <= 3072, "kernel arguments have 4 KB");

// The part of a tensor that is one chunk.
template <class T>
__device__ inline OptimTensor<T> chunk_of(const TensorList<T>& list, int64_t chunk) {
  int t = 0;
  while (chunk >= list.first_chunk[t + 1]) ++t;
  const OptimTensor<T>& tensor = list.tensors[t];
  const int64_t begin = (chunk - list.first_chunk[t]) * kChunk;
  const auto at = [begin](auto* p) { return p == nullptr ? nullptr : p + begin; };
  const int64_t left = tensor.size - begin;
  return {at(tensor.data),   at(tensor.grad),  at(tensor.first),
          at(tensor.second), at(tensor.third), left < kChunk ? left : kChunk,
          at(tensor.rounded)};
}

// f(slot) for what the thread has of a chunk.
template <class T, class F>
__device__ inline void for_chunk_slots(const OptimTensor<T>& chunk, F f) {
  const bool aligned =
      packet_aligned(chunk.data, chunk.grad, chunk.first, chunk.second, chunk.third);
  for_slots<T, true>(threadIdx.x, kListThreads, chunk.size, aligned, f);
}

// Whether half a packet, a slot of bfloat16, may be moved as a word.
__device__ inline bool is_word(const bfloat16* p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(uint2) == 0;
}

// The parameter's values. Those of bfloat16 are its master, but what was written to the parameter
// since the last update counts for more. kMasters: whether there may be such parameters.
template <bool kMasters, class T>
__device__ inline Packet<T> load_values(Slot<T> slot, const OptimTensor<T>& chunk) {
  Packet<T> w = slot.load(chunk.data);
  if constexpr (kMasters) {
    if (chunk.rounded == nullptr) return w;
    bfloat16 rounded[kPacket<T>] = {};
    if (slot.whole() && is_word(chunk.rounded)) {
      const uint2 bits = *reinterpret_cast<const uint2*>(chunk.rounded + slot.index(0));
      std::memcpy(rounded, &bits, sizeof(rounded));
    } else {
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        if (slot.index(j) < chunk.size) rounded[j] = chunk.rounded[slot.index(j)];
      }
    }
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      if (narrow<bfloat16>(w.at[j]).bits != rounded[j].bits) w.at[j] = widen(rounded[j]);
    }
  }
  return w;
}

template <bool kMasters, class T>
__device__ inline void store_values(Slot<T> slot, const OptimTensor<T>& chunk, const Packet<T>& w) {
  slot.store(chunk.data, w);
  if constexpr (kMasters) {
    if (chunk.rounded == nullptr) return;
    bfloat16 rounded[kPacket<T>];
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) rounded[j] = narrow<bfloat16>(w.at[j]);
    if (slot.whole() && is_word(chunk.rounded)) {
      uint2 bits;
      std::memcpy(static_cast<void*>(&bits), rounded, sizeof(rounded));
      *reinterpret_cast<uint2*>(chunk.rounded + slot.index(0)) = bits;
    } else {
#pragma unroll
      for (int j = 0; j < kPacket<T>; ++j) {
        if (slot.index(j) < chunk.size) chunk.rounded[slot.index(j)] = rounded[j];
      }
    }
  }
}

// Calls f(std::bool_constant<kMasters>()) as a list needs it.
template <class T, class F>
inline void visit_masters(const TensorList<T>& list, F f) {
  if constexpr (sizeof(T) == sizeof(float)) {
    for (int t = 0; t < list.count; ++t) {
      if (list.tensors[t].rounded != nullptr) return f(std::true_type());
    }
  }
  f(std::false_type());
}

// Calls f(list) for the tensors in lists of up to kListSize.
template <class T, class F>
inline void for_lists(const OptimTensor<T>* tensors, int64_t count, F f) {
  TensorList<T> list;
  list.count = 0;
  int64_t chunks = 0;
  for (int64_t t = 0; t < count; ++t) {
    if (tensors[t].size == 0) continue;
    list.first_chunk[list.count] = chunks;
    list.tensors[list.count] = tensors[t];
    chunks += (tensors[t].size + kChunk - 1) / kChunk;
    list.first_chunk[++list.count] = chunks;
    if (list.count < kListSize) continue;
    f(list, chunks);
    list.count = 0;
    chunks = 0;
  }
  if (list.count > 0) f(list, chunks);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
