// SPDX-License-Identifier: MIT
// The copy engine's loads and stores of boxes in the simulator: checked, told to the analysis, and
// done when the schedule runs them.
#pragma once

#include <algorithm>
#include <cstring>

#include "site.cuh"
#include "tensor_map.cuh"

namespace tilegrad::TILEGRAD_BACKEND::detail {

// What the copy engine makes of an element on its way to shared memory; null reads as 0.
inline void load_element(TensorElement element, char* to, const char* from) {
  uint32_t bits = 0;
  const size_t bytes = element == TensorElement::bits16 ? 2 : 4;
  if (from != nullptr) std::memcpy(&bits, from, bytes);
  if (element == TensorElement::tf32 && (bits & 0x7f800000u) != 0x7f800000u) {
    bits = (bits + 0xfffu + (bits >> 13 & 1u)) & 0xffffe000u;
  }
  std::memcpy(to, &bits, bytes);
}

// Calls move(shared, global) for each element of the box, with global null outside the tensor.
template <class Move>
void for_each_in_box(const TensorMap& map, char* shared, std::array<int64_t, 3> at,
                     const Move& move) {
  const TensorShape& s = map.shape;
  const uint32_t bytes = s.element_bytes();
  const uint32_t depth = s.rank == 3 ? s.box[2] : 1;
  uint32_t row = 0;
  for (uint32_t k = 0; k < depth; ++k) {
    for (uint32_t j = 0; j < s.box[1]; ++j, ++row) {
      const int64_t y = at[1] + j, z = at[2] + k;
      const bool inside = y >= 0 && y < s.size[1] && (s.rank == 2 || (z >= 0 && z < s.size[2]));
      const int64_t offset = y * s.stride[1] + (s.rank == 3 ? z * s.stride[2] : 0);
      for (uint32_t i = 0; i < s.box[0]; ++i) {
        const int64_t x = at[0] + i;
        const bool real = inside && x >= 0 && x < s.size[0];
        move(shared + swizzle_128b((row * s.box[0] + i) * bytes),
             real ? map.base + (offset + x) * bytes : nullptr);
      }
    }
  }
}

inline uint32_t box_bytes(const TensorMap& map) {
  const TensorShape& s = map.shape;
  return s.box[0] * s.box[1] * (s.rank == 3 ? s.box[2] : 1) * s.element_bytes();
}

inline void check_box(const TensorMap& map, int rank, const void* shared, Site site) {
  const TensorShape& s = map.shape;
  check_shared(shared, 1024, "cp.async.bulk.tensor", site);
  const uint32_t chunk = 16 / s.element_bytes();
  bool good =
      s.rank == rank && reinterpret_cast<uintptr_t>(map.base) % 16 == 0 && s.box[0] == 8 * chunk;
  for (int i = 0; i < s.rank; ++i) {
    good = good && s.size[i] >= 1 && s.box[i] >= 1 && s.box[i] <= 256;
    good = good && (i == 0 ? s.stride[0] == 1
                           : s.stride[i] > 0 && s.stride[i] % chunk == 0 &&
                                 s.stride[i] < kTensorStepLimit / s.element_bytes());
  }
  if (!good) simulator::fail("cp.async.bulk.tensor: the tensor map breaks a rule of TMA", site);
}

// Tells the analysis: whole rows of the box in shared memory, and what of each lies in the tensor.
inline void trace_box(const simulator::AsyncTag& tag, const uint64_t* barrier, const TensorMap& map,
                      const void* shared, const std::array<int64_t, 3>& at, bool load) {
  if (simulator::tracer() == nullptr) return;
  const TensorShape& s = map.shape;
  trace_async(tag, barrier, shared, box_bytes(map), load);
  const int64_t bytes = s.element_bytes();
  const int64_t first = std::max<int64_t>(at[0], 0);
  const int64_t last = std::min<int64_t>(at[0] + s.box[0], s.size[0]);
  for (int64_t z = at[2]; z < at[2] + (s.rank == 3 ? s.box[2] : 1); ++z) {
    for (int64_t y = at[1]; y < at[1] + s.box[1]; ++y) {
      if (first >= last || y < 0 || y >= s.size[1]) continue;
      if (s.rank == 3 && (z < 0 || z >= s.size[2])) continue;
      const int64_t row = y * s.stride[1] + (s.rank == 3 ? z * s.stride[2] : 0);
      trace_async(tag, barrier, map.base + (row + first) * bytes,
                  static_cast<size_t>((last - first) * bytes), !load);
    }
  }
}

// The box arrives at `target`.
inline void tma_load_to(void* target, const TensorMap& map, std::array<int64_t, 3> at,
                        uint64_t* barrier, const simulator::AsyncTag& tag) {
  simulator::issue(tag, [=, site = tag.site] {
    for_each_in_box(map, static_cast<char*>(target), at, [&map](char* to, const char* from) {
      load_element(map.shape.element, to, from);
    });
    simulator::mbarrier_complete_tx(barrier, box_bytes(map), site);
  });
}

inline void tma_load(int rank, void* shared, const TensorMap& map, std::array<int64_t, 3> at,
                     uint64_t* barrier, Site site) {
  check_box(map, rank, shared, site);
  const simulator::AsyncTag tag{simulator::AsyncKind::kSignal, simulator::current_thread(),
                                "cp.async.bulk.tensor", site};
  trace_box(tag, barrier, map, shared, at, true);
  tma_load_to(shared, map, at, barrier, tag);
}

// A copy to the same place in each block of the mask, each with its own mbarrier; read once.
inline void tma_load_multicast(int rank, void* shared, const TensorMap& map,
                               std::array<int64_t, 3> at, uint64_t* barrier, uint32_t mask,
                               Site site) {
  check_box(map, rank, shared, site);
  const simulator::AsyncTag tag{simulator::AsyncKind::kSignal, simulator::current_thread(),
                                "cp.async.bulk.tensor.multicast", site};
  if (mask == 0 || mask >> simulator::cluster_size() != 0) {
    simulator::fail(std::string(tag.what) + ": the cluster does not have the blocks of the mask",
                    site);
  }
  for (unsigned peer = 0; peer < simulator::cluster_size(); ++peer) {
    if (!(mask >> peer & 1)) continue;
    void* const target = simulator::cluster_address(shared, peer, tag.what, site);
    auto* const full =
        static_cast<uint64_t*>(simulator::cluster_address(barrier, peer, tag.what, site));
    if ((mask & ((1u << peer) - 1)) == 0) {
      trace_box(tag, full, map, target, at, true);
    } else {
      trace_async(tag, full, target, box_bytes(map), true);
    }
    tma_load_to(target, map, at, full, tag);
  }
}

inline void tma_store(int rank, const void* shared, const TensorMap& map, std::array<int64_t, 3> at,
                      Site site) {
  check_box(map, rank, shared, site);
  const simulator::AsyncTag tag{simulator::AsyncKind::kBulk, simulator::current_thread(),
                                "cp.async.bulk.tensor", site};
  trace_box(tag, nullptr, map, shared, at, false);
  simulator::issue(tag, [=] {
    for_each_in_box(map, static_cast<char*>(const_cast<void*>(shared)), at,
                    [bytes = map.shape.element_bytes()](const char* from, const char* to) {
                      if (to != nullptr) std::memcpy(const_cast<char*>(to), from, bytes);
                    });
  });
}

}  // namespace tilegrad::TILEGRAD_BACKEND::detail
