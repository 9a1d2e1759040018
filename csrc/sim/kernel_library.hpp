// SPDX-License-Identifier: MIT
// A kernel file compiled on its own (tilegrad/_sim_compile.py): a library that is linked to _sim or
// _sim_trace, whose runtime it uses, and that describes its kernels to Python.
#pragma once

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "include/cuda_runtime.h"

namespace tilegrad::simulator {

void* dynamic_shared_memory();  // launch.hpp

// `extern __shared__ T name[]` becomes a pointer with this value; outside a kernel it is null.
template <class T>
T* dynamic_shared() noexcept {
  try {
    return static_cast<T*>(dynamic_shared_memory());
  } catch (const std::logic_error&) {
    return nullptr;
  }
}

// Arguments lie in slots of eight bytes.
inline constexpr size_t kSlot = 8;

struct KernelEntry {
  const void* kernel;
  void (*invoke)(const void* kernel, const void* slots);
  void (*touch)();         // makes this host thread's thread_local storage, where shared arrays are
  const char* parameters;  // "*f4 i8": kind and size as in NumPy, a star for a pointer
};

template <class T>
std::string type_name() {
  using Value = std::remove_cv_t<std::remove_pointer_t<T>>;
  static_assert(std::is_arithmetic_v<Value> && sizeof(Value) <= kSlot,
                "a kernel that Python launches takes numbers and pointers to numbers");
  const char kind = std::is_same_v<Value, bool>       ? 'b'
                    : std::is_floating_point_v<Value> ? 'f'
                    : std::is_signed_v<Value>         ? 'i'
                                                      : 'u';
  return (std::is_pointer_v<T> ? "*" : "") + std::string(1, kind) + std::to_string(sizeof(Value));
}

template <class T>
T read_slot(const char* slot) {
  T value;
  std::memcpy(&value, slot, sizeof(T));
  return value;
}

template <class... Parameters, size_t... kIndex>
void call_with_slots(void (*kernel)(Parameters...), [[maybe_unused]] const char* slots,
                     std::index_sequence<kIndex...>) {
  kernel(read_slot<Parameters>(slots + kIndex * kSlot)...);
}

template <class... Parameters>
KernelEntry describe_kernel(void (*kernel)(Parameters...)) {
  using Kernel = void (*)(Parameters...);
  static const std::string names = ((type_name<Parameters>() + " ") + ... + "");
  return {reinterpret_cast<const void*>(kernel),
          [](const void* function, const void* slots) {
            call_with_slots(reinterpret_cast<Kernel>(const_cast<void*>(function)),
                            static_cast<const char*>(slots),
                            std::index_sequence_for<Parameters...>());
          },
          [] {
            thread_local volatile char storage;
            storage = 0;
          },
          names.c_str()};
}

}  // namespace tilegrad::simulator

// What Python reads: an entry for each kernel, in the order in which it named them.
#define TILEGRAD_KERNEL_TABLE(...)                                                       \
  extern "C" {                                                                           \
  TILEGRAD_FOR_KERNELS extern const tilegrad::simulator::KernelEntry tilegrad_kernels[]; \
  const tilegrad::simulator::KernelEntry tilegrad_kernels[] = {__VA_ARGS__};             \
  }                                                                                      \
  static_assert(true)
