// SPDX-License-Identifier: MIT
// How elementwise kernels read and write runs of memory.
//
// Parallelism: a warp takes 32 packets, a thread a packet of 16 bytes, in a grid-stride loop.
// Memory:      coalesced. Where every pointer is aligned to 16 bytes a thread moves its packet in
//              one instruction. Else the warp's elements go round its lanes, one at a time, which
//              is coalesced too, except where the kernel has to own its packets (kOwned): there an
//              unaligned sector is asked for by up to 16 / sizeof(T) instructions of a warp.
// One body computes what was loaded either way, so that alignment cannot change the bits.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../host_device.hpp"
#include "launch.cuh"
#include "numeric.cuh"
#include "ptx/store.cuh"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kPacketBytes = 16;
template <class T>
inline constexpr int kPacket = kPacketBytes / static_cast<int>(sizeof(T));

// What a thread holds of an array in registers.
template <class T>
struct Packet {
  T at[kPacket<T>];
};

// p is aligned to 16 bytes.
template <class T>
__device__ inline Packet<T> load_packet(const T* p) {
  const uint4 bits = *reinterpret_cast<const uint4*>(p);
  Packet<T> packet;
  std::memcpy(packet.at, &bits, kPacketBytes);
  return packet;
}

// The elements of a packet as numbers, and back.
template <class T>
struct Numbers {
  Accumulate<T> at[kPacket<T>];
};
template <class T>
__device__ inline Numbers<T> widen(const Packet<T>& packet) {
  Numbers<T> x;
  if constexpr (std::is_same_v<T, bfloat16>) {
    uint32_t words[kPacketBytes / 4];
    std::memcpy(words, packet.at, kPacketBytes);
#pragma unroll
    for (int i = 0; i < kPacketBytes / 4; ++i) {
      x.at[2 * i] = bits_to_float(words[i] << 16);
      x.at[2 * i + 1] = bits_to_float(words[i] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) x.at[j] = widen(packet.at[j]);
  }
  return x;
}
template <class T>
__device__ inline Packet<T> narrow(const Numbers<T>& x) {
  Packet<T> packet;
  if constexpr (sizeof(T) == 2) {
    uint32_t words[kPacketBytes / 4];
#pragma unroll
    for (int i = 0; i < kPacketBytes / 4; ++i) {
      words[i] = narrow_pair<T>(x.at[2 * i], x.at[2 * i + 1]);
    }
    std::memcpy(static_cast<void*>(packet.at), words, kPacketBytes);
  } else {
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) packet.at[j] = narrow<T>(x.at[j]);
  }
  return packet;
}

// Whether all pointers may be read in packets. Null is aligned.
template <class... Pointers>
TILEGRAD_HOST_DEVICE inline bool packet_aligned(Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % kPacketBytes == 0) && ...);
}

// The elements of [0, n) that a thread works on at a time: kPacket<T> of them from `first` on,
// neighbours or, where spread, kWarpSize apart.
template <class T>
class Slot {
 public:
  __device__ Slot(int64_t first, int64_t n, bool aligned, bool spread)
      : first_(first),
        left_(static_cast<int>(n - first < kReach ? n - first : kReach)),
        whole_(aligned && first + kPacket<T> <= n),
        spread_(spread) {}

  __device__ bool whole() const { return whole_; }
  __device__ int64_t index(int j) const { return first_ + j * (spread_ ? kWarpSize : 1); }

  // Elements from n on are zero.
  __device__ Packet<T> load(const T* p) const {
    Packet<T> packet;
    if (whole_) {
      packet = load_packet(p + first_);
    } else if (spread_) {
      load_elements<kWarpSize>(packet, p + first_);
    } else {
      load_elements<1>(packet, p + first_);
    }
    return packet;
  }

  __device__ void store(T* p, const Packet<T>& packet) const {
    if (whole_) {
      uint4 bits;
      std::memcpy(static_cast<void*>(&bits), packet.at, kPacketBytes);
      store_16(p + first_, bits);
    } else if (spread_) {
      store_elements<kWarpSize>(p + first_, packet);
    } else {
      store_elements<1>(p + first_, packet);
    }
  }

 private:
  static constexpr int64_t kReach = kPacket<T> * kWarpSize;  // beyond every element's distance

  template <int kStep>
  __device__ void load_elements(Packet<T>& packet, const T* from) const {
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      packet.at[j] = j * kStep < left_ ? from[j * kStep] : T{};
    }
  }
  template <int kStep>
  __device__ void store_elements(T* to, const Packet<T>& packet) const {
#pragma unroll
    for (int j = 0; j < kPacket<T>; ++j) {
      if (j * kStep < left_) to[j * kStep] = packet.at[j];
    }
  }

  int64_t first_;
  int left_;     // elements from first to n, where these are few
  bool whole_;   // one 16-byte access
  bool spread_;  // over the lanes
};

// f(slot) for the slots of [0, n) of thread `thread` among `threads`; both count whole warps.
// kOwned: a thread's elements are neighbours in any case, and the split depends on `threads` only.
template <class T, bool kOwned = false, class F>
__device__ inline void for_slots(int64_t thread, int64_t threads, int64_t n, bool aligned, F f) {
  const int64_t lane = thread % kWarpSize;
  const bool spread = !kOwned && !aligned;
  const int64_t offset = spread ? lane : lane * kPacket<T>;
  for (int64_t i = (thread - lane) * kPacket<T>; i < n; i += threads * kPacket<T>) {
    f(Slot<T>(i + offset, n, aligned, spread));
  }
}

// f(slot, packets) for the same slots, with what each of the inputs has there. The loads of kDepth
// slots are on their way before the first is used (docs/architecture.md: bytes in flight).
template <class T, int kDepth, bool kOwned = false, class F, class... Inputs>
__device__ inline void for_packets(int64_t thread, int64_t threads, int64_t n, bool aligned, F f,
                                   const Inputs*... inputs) {
  constexpr int kInputs = sizeof...(Inputs);
  const int64_t lane = thread % kWarpSize;
  const bool spread = !kOwned && !aligned;
  const int64_t offset = spread ? lane : lane * kPacket<T>;
  const int64_t step = threads * kPacket<T>;
  for (int64_t i = (thread - lane) * kPacket<T>; i < n; i += kDepth * step) {
    Packet<T> in[kDepth][kInputs];
    const auto slot_at = [&](int k) { return Slot<T>(i + k * step + offset, n, aligned, spread); };
    if (aligned && i + (kDepth - 1) * step + kWarpSize * kPacket<T> <= n) {  // the whole warp
#pragma unroll
      for (int k = 0; k < kDepth; ++k) {
        int input = 0;
        ((in[k][input++] = load_packet(inputs + i + k * step + offset)), ...);
      }
    } else {
#pragma unroll
      for (int k = 0; k < kDepth; ++k) {
        int input = 0;
        ((in[k][input++] = slot_at(k).load(inputs)), ...);
      }
    }
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      if (i + k * step >= n) break;
      [&]<size_t... kInput>(std::index_sequence<kInput...>) {
        f(slot_at(k), in[k][kInput]...);
      }(std::make_index_sequence<kInputs>());
    }
  }
}

// The grid of an elementwise kernel: a packet a thread while the device has room for all blocks,
// then twice as many blocks as it has room for, so that those that end late have others beside
// them.
template <auto kKernel, class T>
unsigned packet_blocks(int64_t n, int threads) {
  static const int64_t most = 2 * int64_t{resident_blocks(kKernel, threads, 0)};
  const int64_t wanted = (n + threads * kPacket<T> - 1) / (threads * kPacket<T>);
  return static_cast<unsigned>(wanted < most ? wanted : most);
}

__device__ inline int64_t grid_thread() {
  return int64_t{blockIdx.x} * blockDim.x + static_cast<int64_t>(threadIdx.x);
}
__device__ inline int64_t grid_threads() { return int64_t{gridDim.x} * blockDim.x; }

}  // namespace tilegrad::TILEGRAD_BACKEND
