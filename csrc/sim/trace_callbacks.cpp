// SPDX-License-Identifier: MIT
// The functions that code compiled with -fsanitize=thread calls: ours, in place of the sanitizer's
// runtime. Outside a traced kernel they do nothing but what atomics must.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "trace.hpp"

namespace {

using tilegrad::simulator::Op;
using tilegrad::simulator::registers;
using tilegrad::simulator::Tracer;

[[gnu::always_inline]] inline void note(const void* p, unsigned bytes, Op op, const void* from) {
  auto& r = registers;
  if (r.tracer == nullptr || r.trace_muted != 0) return;
  r.trace_muted = 1;  // the analysis may share templates with kernels
  static_cast<Tracer*>(r.tracer)->access(reinterpret_cast<uintptr_t>(p), bytes, op,
                                         reinterpret_cast<uintptr_t>(from));
  r.trace_muted = 0;
}

// A thread moves at most 16 bytes at once, and only to or from an address aligned to them.
void note_range(const void* p, size_t bytes, Op op, const void* from) {
  auto at = reinterpret_cast<uintptr_t>(p);
  while (bytes != 0) {
    size_t part = 16;
    while (part > bytes || at % part != 0) part /= 2;
    note(reinterpret_cast<const void*>(at), static_cast<unsigned>(part), op, from);
    at += part;
    bytes -= part;
  }
}

}  // namespace

#define CALLER __builtin_return_address(0)

// Kernels in libraries of their own call them too.
#pragma GCC visibility push(default)
extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}

// NOLINTBEGIN
#define ACCESSES(bytes)                                                                        \
  void __tsan_read##bytes(void* p) { note(p, bytes, Op::kLoad, CALLER); }                      \
  void __tsan_write##bytes(void* p) { note(p, bytes, Op::kStore, CALLER); }                    \
  void __tsan_unaligned_read##bytes(void* p) { note(p, bytes, Op::kLoad, CALLER); }            \
  void __tsan_unaligned_write##bytes(void* p) { note(p, bytes, Op::kStore, CALLER); }          \
  void __tsan_volatile_read##bytes(void* p) { note(p, bytes, Op::kLoad, CALLER); }             \
  void __tsan_volatile_write##bytes(void* p) { note(p, bytes, Op::kStore, CALLER); }           \
  void __tsan_unaligned_volatile_read##bytes(void* p) { note(p, bytes, Op::kLoad, CALLER); }   \
  void __tsan_unaligned_volatile_write##bytes(void* p) { note(p, bytes, Op::kStore, CALLER); } \
  void __tsan_read_write##bytes(void* p) {                                                     \
    note(p, bytes, Op::kLoad, CALLER);                                                         \
    note(p, bytes, Op::kStore, CALLER);                                                        \
  }                                                                                            \
  void __tsan_unaligned_read_write##bytes(void* p) {                                           \
    note(p, bytes, Op::kLoad, CALLER);                                                         \
    note(p, bytes, Op::kStore, CALLER);                                                        \
  }

ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

void __tsan_read_range(void* p, size_t bytes) { note_range(p, bytes, Op::kLoad, CALLER); }
void __tsan_write_range(void* p, size_t bytes) { note_range(p, bytes, Op::kStore, CALLER); }
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  note_range(from, bytes, Op::kLoad, CALLER);
  note_range(to, bytes, Op::kStore, CALLER);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  note_range(from, bytes, Op::kLoad, CALLER);
  note_range(to, bytes, Op::kStore, CALLER);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  note_range(to, bytes, Op::kStore, CALLER);
  return std::memset(to, value, bytes);
}

// The memory orders do not matter: the threads of a block share one host thread.
#define ATOMICS(bits, T)                                                                           \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                         \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile T* p, T value, int) {                                  \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                                \
  T __tsan_atomic##bits##_exchange(volatile T* p, T value, int) {                                  \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);                                        \
  }                                                                                                \
  T __tsan_atomic##bits##_fetch_add(volatile T* p, T value, int) {                                 \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);                                         \
  }                                                                                                \
  T __tsan_atomic##bits##_fetch_sub(volatile T* p, T value, int) {                                 \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    return __atomic_fetch_sub(p, value, __ATOMIC_SEQ_CST);                                         \
  }                                                                                                \
  T __tsan_atomic##bits##_fetch_and(volatile T* p, T value, int) {                                 \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    return __atomic_fetch_and(p, value, __ATOMIC_SEQ_CST);                                         \
  }                                                                                                \
  T __tsan_atomic##bits##_fetch_or(volatile T* p, T value, int) {                                  \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    return __atomic_fetch_or(p, value, __ATOMIC_SEQ_CST);                                          \
  }                                                                                                \
  T __tsan_atomic##bits##_fetch_xor(volatile T* p, T value, int) {                                 \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    return __atomic_fetch_xor(p, value, __ATOMIC_SEQ_CST);                                         \
  }                                                                                                \
  T __tsan_atomic##bits##_fetch_nand(volatile T* p, T value, int) {                                \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    return __atomic_fetch_nand(p, value, __ATOMIC_SEQ_CST);                                        \
  }                                                                                                \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* expected, T value, int,      \
                                                    int) {                                         \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST,                \
                                       __ATOMIC_SEQ_CST);                                          \
  }                                                                                                \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* expected, T value, int, int) { \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST,                \
                                       __ATOMIC_SEQ_CST);                                          \
  }                                                                                                \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* p, T expected, T value, int, int) {     \
    note(const_cast<const T*>(p), bits / 8, Op::kAtomic, CALLER);                                  \
    __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);   \
    return expected;                                                                               \
  }

ATOMICS(8, uint8_t)
ATOMICS(16, uint16_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)
// NOLINTEND

void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}

}  // extern "C"
#pragma GCC visibility pop
