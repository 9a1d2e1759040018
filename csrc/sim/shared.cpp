// SPDX-License-Identifier: MIT
#include "shared.hpp"

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <unordered_map>
#include <utility>

#include "registers.hpp"

namespace tilegrad::simulator {
namespace {

constexpr size_t kArenaBytes = 256 * 1024, kArenaGuard = 64 * 1024, kArenaAlignment = 1024;
constexpr unsigned char kPattern = 0xA5;
constexpr int kLearningLaunches = 4;
constexpr size_t kMergeGap = 64;  // smaller unchanged gaps belong to the array around them

// The calling thread's TLS of the module that contains an address.
struct Tls {
  const void* address;
  char* data = nullptr;
  size_t bytes = 0;
};

int find_tls(dl_phdr_info* module, size_t, void* result) {
  auto* tls = static_cast<Tls*>(result);
  const auto address = reinterpret_cast<uintptr_t>(tls->address);
  const ElfW(Phdr)* own_tls = nullptr;
  bool contains = false;
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const ElfW(Phdr) & segment = module->dlpi_phdr[i];
    if (segment.p_type == PT_TLS) own_tls = &segment;
    const uintptr_t start = module->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && address >= start && address - start < segment.p_memsz) {
      contains = true;
    }
  }
  if (!contains) return 0;
  if (own_tls != nullptr && module->dlpi_tls_data != nullptr) {
    tls->data = static_cast<char*>(module->dlpi_tls_data);
    tls->bytes = own_tls->p_memsz;
  }
  return 1;
}

// How many bytes at p are poison, in steps of a word.
size_t poison_words(const char* p, const char* end) {
  const char* at = p;
  for (uint64_t word; end - at > 8; at += 8) {
    std::memcpy(&word, at, 8);
    if (word != ~uint64_t{0}) break;
  }
  return at > p ? static_cast<size_t>(at - p) - 1 : 0;
}

size_t page_bytes() {
  static const auto bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// Calls f(offset, bytes) for what there is of [0, total) outside `registers`.
template <class F>
void without_registers(const char* tls, size_t total, const F& f) {
  const auto* own = reinterpret_cast<const char*>(&registers);
  if (own < tls || own >= tls + total) {
    f(size_t{0}, total);
    return;
  }
  const auto before = static_cast<size_t>(own - tls);
  const size_t after = before + sizeof(registers);
  f(size_t{0}, before);
  f(after, total - after);
}

struct Learnt {
  std::vector<StaticShared::Range> ranges;
  int launches = 0;
};
std::mutex learnt_mutex;
std::unordered_map<const void*, Learnt>& learnt() {
  static auto* kernels = new std::unordered_map<const void*, Learnt>();  // outlives every thread
  return *kernels;
}

// The system has only so many ranges of different protection to give.
void protect(char* first, const char* last, int protection) {
  const auto bytes = static_cast<size_t>(last - first);
  if (first < last && mprotect(first, bytes, protection) != 0) throw std::bad_alloc();
}

}  // namespace

Arena::~Arena() {
  if (mapping_ != nullptr) munmap(mapping_, kArenaBytes + 2 * kArenaGuard);
}

void Arena::resize(size_t bytes) {
  if (mapping_ != nullptr && bytes == bytes_) return;
  closed_ = false;
  if (mapping_ == nullptr) {
    void* p =
        mmap(nullptr, kArenaBytes + 2 * kArenaGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<char*>(p);
  }
  char *start = mapping_ + kArenaGuard, *end = start + kArenaBytes;
  bytes_ = SIZE_MAX;  // should it fail: not laid out
  data_ = end - (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  const auto address = reinterpret_cast<uintptr_t>(data_);
  open_ = reinterpret_cast<char*>(address / page_bytes() * page_bytes());
  protect(start, open_, PROT_NONE);
  protect(open_, end, PROT_READ | PROT_WRITE);
  std::memset(open_, kPattern, static_cast<size_t>(end - open_));
  bytes_ = bytes;
}

void Arena::close() {
  closed_ = true;
  protect(open_, mapping_ + kArenaGuard + kArenaBytes, PROT_NONE);
}

void Arena::open() {
  if (!closed_) return;
  protect(open_, mapping_ + kArenaGuard + kArenaBytes, PROT_READ | PROT_WRITE);
  closed_ = false;
}

void Arena::renew() {
  if (mapping_ == nullptr) return;
  open();
  const size_t bytes = std::exchange(bytes_, SIZE_MAX);
  if (bytes != SIZE_MAX) resize(bytes);
}

void Arena::poison() { std::memset(data_, 0xFF, bytes_); }

std::string Arena::damage() const {
  const char* end = mapping_ + kArenaGuard + kArenaBytes;
  const auto changed = [](const char* first, const char* last) {
    return std::find_if(first, last, [](char c) { return c != static_cast<char>(kPattern); });
  };
  const char* after = changed(data_ + bytes_, end);
  if (after != end) {
    return "a write at offset " + std::to_string(after - data_) + " of " + std::to_string(bytes_) +
           " bytes of dynamic shared memory";
  }
  const char* before = changed(open_, data_);
  if (before != data_) {
    return "a write " + std::to_string(data_ - before) + " bytes before the dynamic shared memory";
  }
  return {};
}

bool Arena::guards(uintptr_t address) const {
  const auto start = reinterpret_cast<uintptr_t>(mapping_);
  return mapping_ != nullptr && address >= start && address < start + kArenaBytes + 2 * kArenaGuard;
}

void StaticShared::use(const void* kernel) {
  kernel_ = kernel;
  int launches;
  {
    const std::lock_guard<std::mutex> lock(learnt_mutex);
    const Learnt& known = learnt()[kernel];
    ranges_ = known.ranges;
    launches = known.launches;
  }
  const auto [at, is_new] = storage_.try_emplace(kernel);
  if (is_new) {
    Tls tls{kernel};
    dl_iterate_phdr(find_tls, &tls);
    at->second = {tls.data, tls.bytes};
  }
  tls_ = at->second.first;
  tls_bytes_ = at->second.second;
  may_learn_ = tls_ != nullptr && launches < kLearningLaunches;
}

void StaticShared::begin_block() {
  if (tls_ == nullptr) return;
  learning_ = may_learn_;
  may_learn_ = false;
  if (!learning_) {
    for (const Range& range : ranges_) std::memset(tls_ + range.offset, 0xFF, range.bytes);
    return;
  }
  saved_.assign(tls_, tls_ + tls_bytes_);
  without_registers(tls_, tls_bytes_,
                    [&](size_t offset, size_t bytes) { std::memset(tls_ + offset, 0xFF, bytes); });
}

void StaticShared::end_block() {
  if (!learning_) return;
  learning_ = false;
  for (const Range& range : ranges_) std::memset(tls_ + range.offset, 0, range.bytes);
  std::vector<Range> found;
  without_registers(tls_, tls_bytes_, [&](size_t offset, size_t bytes) {
    const size_t first_of_part = found.size();
    for (size_t i = offset; i < offset + bytes; ++i) {
      if (static_cast<unsigned char>(tls_[i]) == 0xFF) {
        i += poison_words(tls_ + i, tls_ + offset + bytes);
        continue;
      }
      if (found.size() > first_of_part &&
          i - (found.back().offset + found.back().bytes) < kMergeGap) {
        found.back().bytes = i + 1 - found.back().offset;
      } else {
        found.push_back({i, 1});
      }
    }
  });
  // Everything that is not the kernel's gets its old value back.
  size_t done = 0;
  const auto put_back = [&](size_t until) {
    without_registers(tls_, tls_bytes_, [&](size_t offset, size_t bytes) {
      const size_t first = std::max(offset, done), last = std::min(offset + bytes, until);
      if (first < last) std::memcpy(tls_ + first, saved_.data() + first, last - first);
    });
  };
  for (const Range& range : found) {
    put_back(range.offset);
    done = range.offset + range.bytes;
  }
  put_back(tls_bytes_);
  ranges_ = std::move(found);
  const std::lock_guard<std::mutex> lock(learnt_mutex);
  Learnt& known = learnt()[kernel_];
  ++known.launches;
  known.ranges = ranges_;
}

size_t StaticShared::bytes() const {
  size_t total = 0;
  for (const Range& range : ranges_) total += range.bytes;
  return total;
}

bool StaticShared::contains(const void* p) const {
  const auto* c = static_cast<const char*>(p);
  const auto* own = reinterpret_cast<const char*>(&registers);
  return tls_ != nullptr && c >= tls_ && c < tls_ + tls_bytes_ &&
         !(c >= own && c < own + sizeof(registers));
}

}  // namespace tilegrad::simulator
