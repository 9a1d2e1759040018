// SPDX-License-Identifier: MIT
// How exact the public products of float32 matrices are on this backend: one setting of the
// process, in torch's words. It is read when a product starts. A recorded plan keeps what held when
// it was made, and runs its calls in a scope of that.
#pragma once

#include <atomic>
#include <optional>

#include "../context.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

enum class Float32Precision {
  highest,  // float32 throughout
  high,     // tf32x3: on tensor cores, as accurate
  medium,   // tf32: 10 bits of significand are kept
};

namespace detail {
inline std::atomic<Float32Precision> process_float32_precision = Float32Precision::highest;
inline thread_local std::optional<Float32Precision> scoped_float32_precision;
}  // namespace detail

inline Float32Precision float32_precision() {
  return detail::scoped_float32_precision.value_or(detail::process_float32_precision.load());
}

inline void set_float32_precision(Float32Precision precision) {
  detail::process_float32_precision = precision;
}

// This thread's products have that precision until the end of the scope.
class Float32PrecisionScope {
 public:
  explicit Float32PrecisionScope(Float32Precision precision)
      : outer_(detail::scoped_float32_precision) {
    detail::scoped_float32_precision = precision;
  }
  ~Float32PrecisionScope() { detail::scoped_float32_precision = outer_; }
  Float32PrecisionScope(const Float32PrecisionScope&) = delete;
  Float32PrecisionScope& operator=(const Float32PrecisionScope&) = delete;

 private:
  std::optional<Float32Precision> outer_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
