// SPDX-License-Identifier: MIT
// Context: what every op is given besides its operands. No Python or framework type.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace tilegrad::TILEGRAD_BACKEND {

// Storage types of 16 bits; arithmetic on them is done in float.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

// Scratch memory where the backend's kernels work: host memory for the CPU, device memory for a
// GPU. Defined by each backend.
void* allocate_scratch(size_t bytes, size_t alignment);
void release_scratch(void* p, size_t alignment) noexcept;

// A bump arena. Ops take scratch memory from it and allocate nothing themselves. Memory stays with
// the arena between calls, so only the first call of a shape reaches the system allocator.
class Workspace {
 public:
#ifdef TILEGRAD_SIM
  // In the simulator whatever is taken has memory of its own, so that its guards are exact.
  static constexpr bool kSeparate = true;
#else
  static constexpr bool kSeparate = false;
#endif
  static constexpr size_t kAlignment = 256;

  // With `fixed`, chunks stay where they are until the end: a captured graph holds their addresses.
  explicit Workspace(bool fixed = false) : fixed_(fixed) {}

  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
  }

  // Frees a range in the order of a stack: everything taken since the mark may be reused.
  struct Mark {
    size_t chunk = 0;
    size_t used = 0;
  };
  Mark mark() const { return here_; }
  void rewind(Mark mark) { here_ = mark; }

  size_t reserved() const {
    size_t total = 0;
    for (const Chunk& chunk : chunks_) total += chunk.size;
    return total;
  }
  // Does nothing while something is taken.
  void release() {
    if (idle()) chunks_.clear();
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { release_scratch(p, kAlignment); }
  };
  struct Chunk {
    std::unique_ptr<std::byte, Free> data;
    size_t size;
  };

  bool idle() const { return here_.chunk == 0 && here_.used == 0; }

  void* take_bytes(size_t bytes) {
    if (!kSeparate) bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    const bool was_idle = idle();
    while (here_.chunk < chunks_.size() && !fits(bytes)) here_ = {here_.chunk + 1, 0};
    if (here_.chunk == chunks_.size()) {
      if (was_idle && !fixed_) {  // every chunk is free and none is large enough: start again
        here_ = {};
        release();
      }
      // At least as much as there is, so that there are few chunks, however sizes grow.
      const size_t size = kSeparate ? bytes : std::max({kChunk, bytes, reserved()});
      auto* p = static_cast<std::byte*>(allocate_scratch(size, kAlignment));
      chunks_.push_back({std::unique_ptr<std::byte, Free>(p), size});
    }
    void* result = chunks_[here_.chunk].data.get() + here_.used;
    here_.used += kSeparate ? std::max<size_t>(bytes, 1) : bytes;  // not idle from now on
    if (kSeparate) std::memset(result, 0xFF, bytes);               // NaN: stale values show
    return result;
  }

  bool fits(size_t bytes) const {
    const size_t size = chunks_[here_.chunk].size;
    return kSeparate ? here_.used == 0 && size == bytes : here_.used + bytes <= size;
  }

  static constexpr size_t kChunk = size_t{1} << 16;
  bool fixed_;
  std::vector<Chunk> chunks_;
  Mark here_;
};

struct Context {
  void* stream = nullptr;          // opaque: a CUDA stream on a GPU, unused on the CPU
  Workspace* workspace = nullptr;  // scratch memory
  int max_threads = 0;             // at most this many threads; 0: as many as set now
};

// Gives back at the end of a scope what was taken from the arena inside it.
class WorkspaceScope {
 public:
  explicit WorkspaceScope(Context& context)
      : workspace_(*context.workspace), mark_(workspace_.mark()) {}
  ~WorkspaceScope() { workspace_.rewind(mark_); }
  WorkspaceScope(const WorkspaceScope&) = delete;
  WorkspaceScope& operator=(const WorkspaceScope&) = delete;

 private:
  Workspace& workspace_;
  Workspace::Mark mark_;
};

// What changes from one training step to the next. Kernels read it through a pointer (host memory
// on the CPU, device memory on a GPU), because a captured CUDA graph freezes scalar arguments.
struct StepState {
  double learning_rate = 0;
  double grad_scale = 1;  // gradients are multiplied by it: the clipping coefficient
  int64_t step = 1;       // number of this update, counted from 1
  uint64_t seed = 0;      // Philox key
  uint64_t offset = 0;    // Philox counter at the start of the step
};

}  // namespace tilegrad::TILEGRAD_BACKEND
