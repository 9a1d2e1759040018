// SPDX-License-Identifier: MIT
#include <new>

#include "../context.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

void* allocate_scratch(size_t bytes, size_t alignment) {
  return ::operator new(bytes, std::align_val_t{alignment});
}

void release_scratch(void* p, size_t alignment) noexcept {
  ::operator delete(p, std::align_val_t{alignment});
}

}  // namespace tilegrad::TILEGRAD_BACKEND
