// SPDX-License-Identifier: MIT
#include "memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>

namespace tilegrad::simulator {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kGuard = 64 * 1024;  // on both sides; address space only
constexpr unsigned char kPattern = 0xC5;
constexpr size_t kQuarantine = 256;  // freed buffers whose addresses are kept out of use
constexpr size_t kDefaultLimit = size_t{8} << 30;

// [mapping][guard][pattern .. buffer .. pattern][guard]: the buffer ends as near to the guard as
// its alignment allows.
struct Region {
  Buffer buffer;
  char* mapping;
  size_t mapping_bytes;
  char* open() const { return mapping + kGuard; }
  char* end() const { return mapping + mapping_bytes - kGuard; }
  char* data() const { return reinterpret_cast<char*>(buffer.address); }
};

struct Registry {
  std::mutex mutex;
  std::map<uintptr_t, Region> live;   // by start of mapping
  std::map<uintptr_t, Region> freed;  // the quarantine
  std::deque<uintptr_t> freed_order;
  size_t in_use = 0;
  size_t limit = kDefaultLimit;
  bool exact = false;
  uint64_t count = 0;

  Registry() {
    if (const char* text = std::getenv("TILEGRAD_SIM_MEMORY"); text != nullptr && *text != '\0') {
      char* end = nullptr;
      const unsigned long long value = std::strtoull(text, &end, 10);
      if (*end != '\0') {
        throw std::invalid_argument("sim: TILEGRAD_SIM_MEMORY must be a number of bytes; got '" +
                                    std::string(text) + "'");
      }
      limit = value;
    }
    if (const char* text = std::getenv("TILEGRAD_SIM_GUARDS"); text != nullptr && *text != '\0') {
      exact = std::string(text) == "exact";
      if (!exact && std::string(text) != "aligned") {
        throw std::invalid_argument("sim: TILEGRAD_SIM_GUARDS must be aligned or exact; got '" +
                                    std::string(text) + "'");
      }
    }
  }
};

Registry& registry() {
  static auto* made = new Registry();  // buffers may be freed while the process ends
  return *made;
}

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

const Region* holder(const std::map<uintptr_t, Region>& regions, uintptr_t address) {
  auto at = regions.upper_bound(address);
  if (at == regions.begin()) return nullptr;
  const Region& region = (--at)->second;
  return address - at->first < region.mapping_bytes ? &region : nullptr;
}

// The common case, quickly: is what lies behind the buffer untouched?
bool end_is_intact(const Region& region) {
  static const std::string pattern(kAlignment, static_cast<char>(kPattern));
  const char* after = region.data() + region.buffer.bytes;
  const auto bytes = static_cast<size_t>(region.end() - after);
  return bytes <= kAlignment && std::memcmp(after, pattern.data(), bytes) == 0;
}

std::string damage_of(const Region& region) {
  const auto is_changed = [](char c) { return c != static_cast<char>(kPattern); };
  const char* after = region.data() + region.buffer.bytes;
  after = std::find_if(after, const_cast<const char*>(region.end()), is_changed);
  const auto write_at = [&](ptrdiff_t offset) {  // memory is taken only for what is reported
    return "a write at offset " + std::to_string(offset) + " of a buffer of " +
           std::to_string(region.buffer.bytes) + " bytes";
  };
  if (after != region.end()) return write_at(after - region.data());
  const char* before = region.data();
  while (before > region.open() && !is_changed(before[-1])) --before;
  if (before == region.open()) return {};
  return write_at(before - 1 - region.data());
}

void* allocate(size_t bytes) {
  static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  Registry& all = registry();
  size_t alignment = kAlignment;
  {
    const std::lock_guard<std::mutex> lock(all.mutex);
    if (bytes > all.limit || all.in_use > all.limit - bytes) return nullptr;
    all.in_use += bytes;
    if (all.exact) alignment = std::min(kAlignment, bytes & (~bytes + 1));
  }
  const size_t padded = round_up(bytes, alignment);
  const size_t open = round_up(std::max(padded, size_t{1}), page);
  const size_t total = open + 2 * kGuard;
  void* p = mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  Region region{{}, static_cast<char*>(p), total};
  if (p == MAP_FAILED || mprotect(region.open(), open, PROT_READ | PROT_WRITE) != 0) {
    if (p != MAP_FAILED) munmap(p, total);
    const std::lock_guard<std::mutex> lock(all.mutex);
    all.in_use -= bytes;
    return nullptr;
  }
  char* data = region.end() - padded;
  std::memset(region.open(), kPattern, static_cast<size_t>(data - region.open()));
  std::memset(data, 0xFF, bytes);
  std::memset(data + bytes, kPattern, padded - bytes);
  const std::lock_guard<std::mutex> lock(all.mutex);
  region.buffer = {reinterpret_cast<uintptr_t>(data), bytes, ++all.count, false};
  try {
    all.live.emplace(reinterpret_cast<uintptr_t>(region.mapping), region);
  } catch (const std::bad_alloc&) {
    munmap(p, total);
    all.in_use -= bytes;
    return nullptr;
  }
  return data;
}

bool release(void* address) {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const Region* found = holder(all.live, reinterpret_cast<uintptr_t>(address));
  if (found == nullptr || found->data() != address) return false;
  const Region region = *found;
  const std::string damage = damage_of(region);
  const auto key = reinterpret_cast<uintptr_t>(region.mapping);
  auto entry = all.live.extract(key);
  all.in_use -= region.buffer.bytes;
  try {
    all.freed_order.push_back(key);
  } catch (const std::bad_alloc&) {
    munmap(region.mapping, region.mapping_bytes);
    return true;
  }
  // The pages are given back, the addresses stay out of use for a while.
  const auto open = static_cast<size_t>(region.end() - region.open());
  madvise(region.open(), open, MADV_DONTNEED);
  mprotect(region.open(), open, PROT_NONE);
  entry.mapped().buffer.freed = true;
  all.freed.insert(std::move(entry));
  if (all.freed_order.size() > kQuarantine) {
    const auto oldest = all.freed.find(all.freed_order.front());
    munmap(oldest->second.mapping, oldest->second.mapping_bytes);
    all.freed.erase(oldest);
    all.freed_order.pop_front();
  }
  if (!damage.empty()) throw std::runtime_error("sim: out of bounds: " + damage);
  return true;
}

bool find(const void* address, Buffer* buffer) {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto a = reinterpret_cast<uintptr_t>(address);
  const Region* region = holder(all.live, a);
  if (region == nullptr || a < region->buffer.address ||
      a - region->buffer.address > region->buffer.bytes) {
    return false;
  }
  *buffer = region->buffer;
  return true;
}

bool find_near(uintptr_t address, Buffer* buffer) {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const Region* region = holder(all.live, address);
  if (region == nullptr) region = holder(all.freed, address);
  if (region == nullptr) return false;
  *buffer = region->buffer;
  return true;
}

void for_each(void (*visit)(const Buffer& buffer, void* context), void* context) {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (const auto& [key, region] : all.live) visit(region.buffer, context);
}

std::string damage() {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (auto& [key, region] : all.live) {
    if (end_is_intact(region)) continue;
    std::string text = damage_of(region);
    if (text.empty()) continue;
    // Reported once.
    std::memset(region.open(), kPattern, static_cast<size_t>(region.data() - region.open()));
    char* end = region.data() + region.buffer.bytes;
    std::memset(end, kPattern, static_cast<size_t>(region.end() - end));
    return text;
  }
  return {};
}

void set_exact(bool exact) {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.exact = exact;
}
size_t limit() {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  return all.limit;
}
void set_limit(size_t bytes) {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.limit = bytes;
}
size_t in_use() {
  Registry& all = registry();
  const std::lock_guard<std::mutex> lock(all.mutex);
  return all.in_use;
}

constexpr MemoryTable kOwn{allocate, release,   find,  find_near, for_each,
                           damage,   set_exact, limit, set_limit, in_use};
const MemoryTable* used = &kOwn;

}  // namespace

const MemoryTable& memory() { return *used; }
void set_memory(const MemoryTable* table) { used = table == nullptr ? &kOwn : table; }

}  // namespace tilegrad::simulator
