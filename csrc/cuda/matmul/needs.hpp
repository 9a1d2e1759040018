// SPDX-License-Identifier: MIT
// What a rung of the matmul ladder needs and a problem does not have, in words for the error of a
// call that names it; "" where the rung does the problem.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "../../check.hpp"
#include "../matmul_choice.hpp"
#include "hopper_layout.hpp"
#include "problem.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

template <class T>
constexpr std::string_view dtype_name() {
  if constexpr (std::is_same_v<T, float>) return "float32";
  if constexpr (std::is_same_v<T, double>) return "float64";
  if constexpr (std::is_same_v<T, bfloat16>) return "bfloat16";
  return "float16";
}

namespace detail {
inline std::string needs_capability(std::string_view rule, int device) {
  return format("compute capability {}; got {}.{}", rule, device / 10, device % 10);
}
inline std::string needs_sizes(const MatmulSize& size) {
  return format(
      "sizes, and their product in tiles of 64 x 128, of at most 2^30; got a batch of {}, "
      "m {}, n {}, k {}",
      size.batch, size.m, size.n, size.k);
}
template <class T>
std::string needs_layout(std::string_view name, const Matrix<const T>& x) {
  return format(
      "{} with one contiguous axis, its address and its other steps multiples of 16 bytes; "
      "got one {} bytes beyond a multiple and steps of {}, {} and {} elements (batch, row, "
      "column)",
      name, reinterpret_cast<uintptr_t>(x.data) % 16, x.batch_stride, x.row_stride, x.col_stride);
}
}  // namespace detail

template <class T>
std::string tensor_core_needs(const MatmulProblem<T>&, int device) {
  if constexpr (sizeof(T) == 8) {
    return format("float32, bfloat16 or float16; got {}", dtype_name<T>());
  } else {
    return device >= 80 ? "" : detail::needs_capability("8.0 or later", device);
  }
}

template <class T>
std::string tf32x3_needs(const MatmulProblem<T>&, int device) {
  if constexpr (sizeof(T) != 4) {
    return format("float32; got {}", dtype_name<T>());
  } else {
    return device >= 80 ? "" : detail::needs_capability("8.0 or later", device);
  }
}

template <class T>
std::string hopper_needs(const MatmulProblem<T>& problem, int device) {
  const auto& [batch, m, n, k] = problem.size;
  if constexpr (sizeof(T) != 2) {
    return format("bfloat16 or float16; got {}", dtype_name<T>());
  } else {
    if (device != 90) return detail::needs_capability("9.0", device);
    if (k < 1) return format("k of at least 1; got {}", k);
    if (!hopper_choice::counts_fit(problem.size)) return detail::needs_sizes(problem.size);
    if (!engine_reads(problem.a, m, k)) return detail::needs_layout("a", problem.a);
    if (!engine_reads(problem.b, k, n)) return detail::needs_layout("b", problem.b);
    return "";
  }
}

template <class T>
std::string hopper_tf32_needs(const MatmulProblem<T>& problem, int device) {
  if constexpr (sizeof(T) != 4) {
    return format("float32; got {}", dtype_name<T>());
  } else {
    if (device != 90) return detail::needs_capability("9.0", device);
    if (!hopper_choice::counts_fit(problem.size)) return detail::needs_sizes(problem.size);
    if (!hopper_tf32_serves(problem.size)) {
      return format("k a multiple of 4 and not 0; got {}", problem.size.k);
    }
    return "";
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
