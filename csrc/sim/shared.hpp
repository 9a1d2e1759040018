// SPDX-License-Identifier: MIT
// Shared memory of a resident block: the dynamic arena and the static arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tilegrad::simulator {

// Dynamic shared memory: exactly the requested bytes between guard pages. What alignment leaves
// over holds a pattern that is checked when the block ends.
class Arena {
 public:
  ~Arena();
  void resize(size_t bytes);
  void poison();
  void close();  // every access faults, until it is opened
  void open();
  bool is_open() const { return !closed_; }
  void renew();  // makes the pattern anew
  // What was written outside the bytes, as text; empty if nothing was.
  std::string damage() const;

  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool contains(const void* p) const {
    return static_cast<const char*>(p) >= data_ && static_cast<const char*>(p) < data_ + bytes_;
  }
  // Is the address in the guards or in the unused part?
  bool guards(uintptr_t address) const;

 private:
  char* mapping_ = nullptr;
  char* data_ = nullptr;
  char* open_ = nullptr;  // start of the accessible pages
  size_t bytes_ = 0;
  bool closed_ = false;
};

// Static shared memory: thread_local arrays somewhere in the thread_local storage (TLS) of the
// module that holds the kernel, among thread_local objects of host code.
//
// Which bytes belong to a kernel is learnt: in the first block of its first launches all of the TLS
// (without `registers`) is poisoned, and what the block has changed afterwards is its shared
// memory; everything else is put back. Later blocks poison just these bytes. So no code that runs
// inside a block may use thread_local objects of the module but `registers`.
//
// There is one copy: with several resident blocks a kernel that has any is refused.
class StaticShared {
 public:
  void use(const void* kernel);  // before the blocks of a launch
  void begin_block();
  void end_block();      // must follow begin_block, also when the block failed
  size_t bytes() const;  // that the kernel is known to use
  bool contains(const void* p) const;
  const char* tls() const { return tls_; }
  size_t tls_bytes() const { return tls_bytes_; }

  // Of the module's TLS.
  struct Range {
    size_t offset, bytes;
  };

 private:
  const void* kernel_ = nullptr;
  std::vector<Range> ranges_;                                          // ascending
  std::unordered_map<const void*, std::pair<char*, size_t>> storage_;  // of kernels' modules
  char* tls_ = nullptr;                                                // of this kernel's
  size_t tls_bytes_ = 0;
  bool learning_ = false;
  bool may_learn_ = false;
  std::vector<char> saved_;
};

}  // namespace tilegrad::simulator
