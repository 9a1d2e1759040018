// SPDX-License-Identifier: MIT
// Keeps the memory of large results, so that the next result of that size needs no fresh pages: a
// page fault costs more than writing the page. Sizes are rounded up by at most an eighth. Where too
// much would be kept, what was freed longest ago goes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <mutex>
#include <new>
#include <unordered_map>

namespace tilegrad::TILEGRAD_BACKEND {

// MemoryError with the figure; it needs no memory itself.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(size_t bytes) {
    std::snprintf(text_, sizeof text_, "%zu bytes could not be allocated", bytes);
  }
  const char* what() const noexcept override { return text_; }

 private:
  char text_[64];
};

class HostPool {
 public:
  static constexpr size_t kSmallest = size_t{1} << 16;  // below it NumPy's own allocator is as good
  static constexpr size_t kKept = size_t{1} << 29;      // bytes kept at most
  static constexpr std::align_val_t kAlignment{64};

  static HostPool& instance() {
    static auto* pool = new HostPool;  // arrays may outlive static destructors
    return *pool;
  }

  void* take(size_t bytes) {
    bytes = rounded(bytes);
    {
      std::lock_guard lock(mutex_);
      auto found = free_.find(bytes);
      if (found != free_.end() && !found->second.empty()) {
        void* p = found->second.back().memory;
        found->second.pop_back();
        kept_ -= bytes;
        return p;
      }
    }
    void* memory = ::operator new(bytes, kAlignment, std::nothrow);
    if (memory == nullptr) throw OutOfMemory(bytes);
    return memory;
  }

  void give(void* p, size_t bytes) noexcept {
    bytes = rounded(bytes);
    try {
      std::lock_guard lock(mutex_);
      if (bytes <= kKept) {
        free_[bytes].push_back({p, ++given_});
        kept_ += bytes;
        while (kept_ > kKept) drop_oldest();
        return;
      }
    } catch (const std::bad_alloc&) {  // no room for the list entry: free the block instead
    }
    ::operator delete(p, kAlignment);
  }

  size_t release() {
    std::lock_guard lock(mutex_);
    for (auto& [bytes, blocks] : free_) {
      for (const Block& block : blocks) ::operator delete(block.memory, kAlignment);
    }
    free_.clear();
    const size_t released = kept_;
    kept_ = 0;
    return released;
  }

 private:
  struct Block {
    void* memory;
    uint64_t given;  // counts up
  };

  void drop_oldest() {
    std::deque<Block>* oldest = nullptr;
    size_t size = 0;
    for (auto& [bytes, blocks] : free_) {
      if (blocks.empty() || (oldest != nullptr && oldest->front().given < blocks.front().given)) {
        continue;
      }
      oldest = &blocks;
      size = bytes;
    }
    ::operator delete(oldest->front().memory, kAlignment);
    oldest->pop_front();
    kept_ -= size;
  }

  // Up to three significant bits after the first.
  static size_t rounded(size_t bytes) {
    size_t step = kSmallest / 8;
    while (step * 16 <= bytes) step *= 2;
    return (bytes + step - 1) / step * step;
  }

  std::mutex mutex_;
  std::unordered_map<size_t, std::deque<Block>> free_;  // by size, the oldest first
  size_t kept_ = 0;
  uint64_t given_ = 0;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
