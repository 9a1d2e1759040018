// SPDX-License-Identifier: MIT
// Accesses outside the memory that kernels may use.
#include "memory.hpp"
#include "scheduler.hpp"
#include "trace.hpp"

namespace tilegrad::simulator {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMostReports = 1000;

// The resident block's shared memory that has the address in its guards.
const Arena* guarding(const Worker& worker, uintptr_t p) {
  for (unsigned rank = 0; rank < worker.resident; ++rank) {
    if (worker.blocks[rank]->arena.guards(p)) return &worker.blocks[rank]->arena;
  }
  return nullptr;
}

}  // namespace

// An access that no region holds: near one it is a fault of the kernel; elsewhere it is host memory
// (arguments, constants), or the hardware objects.
void Tracer::check_bounds(const TraceSite& site, uintptr_t p, size_t bytes, unsigned thread) {
  OutOfBounds found;
  found.access = {thread_index(thread), worker_->threads[thread].block->index, site.number};
  Buffer buffer;
  if (uintptr_t& known = elsewhere_[p / kPage % elsewhere_.size()]; known == p / kPage) {
    return;
  } else if (const Arena* arena = guarding(*worker_, p)) {
    found.space = Space::kShared;
    found.bytes = arena->bytes();
    found.offset = static_cast<int64_t>(p - reinterpret_cast<uintptr_t>(arena->data()));
  } else if (memory().find_near(p, &buffer)) {
    found.buffer = buffer.number;
    found.bytes = buffer.bytes;
    found.offset = static_cast<int64_t>(p - buffer.address);
    found.freed = buffer.freed;
  } else if (worker_->statics.contains(reinterpret_cast<const void*>(p))) {
    found.space = Space::kShared;  // crosses the end of all static arrays
    found.bytes = worker_->statics.tls_bytes();
    found.offset = static_cast<int64_t>(p - reinterpret_cast<uintptr_t>(worker_->statics.tls())) +
                   static_cast<int64_t>(bytes);
  } else {
    known = p / kPage;
    return;
  }
  note_out_of_bounds(found);
}

void Tracer::note_out_of_bounds(const OutOfBounds& what) {
  for (OutOfBounds& known : out_of_bounds_) {
    if (known.access.site == what.access.site && known.buffer == what.buffer) {
      ++known.count;
      return;
    }
  }
  if (out_of_bounds_.size() == kMostReports) return;
  out_of_bounds_.push_back(what);
  out_of_bounds_.back().count = 1;
}

}  // namespace tilegrad::simulator
