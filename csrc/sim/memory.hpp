// SPDX-License-Identifier: MIT
// Device memory: each buffer between guard pages, known by address. A table of functions, so that
// two modules of one process (_sim and _sim_trace) can share one registry of buffers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tilegrad::simulator {

struct Buffer {
  uintptr_t address = 0;
  size_t bytes = 0;
  uint64_t number = 0;  // counts allocations
  bool freed = false;
};

struct MemoryTable {
  // nullptr when the limit would be passed (TILEGRAD_SIM_MEMORY, set_limit). Filled with 0xFF.
  void* (*allocate)(size_t bytes);
  // False: not a live buffer. Reports damage around the buffer by std::runtime_error.
  bool (*release)(void* address);
  // The live buffer that holds the address.
  bool (*find)(const void* address, Buffer* buffer);
  // The buffer, live or just freed, whose memory or guards hold the address.
  bool (*find_near)(uintptr_t address, Buffer* buffer);
  void (*for_each)(void (*visit)(const Buffer& buffer, void* context), void* context);
  // What was written behind a live buffer, as text; empty if nothing was. (What was written before
  // one is found when it is released.)
  std::string (*damage)();
  // Buffers allocated from now on end exactly at their guard, so that every access behind them is
  // caught at once; they are aligned only to the largest power of two in their size, up to 256.
  // (TILEGRAD_SIM_GUARDS=exact; else `aligned`: all have 256, as on a GPU.)
  void (*set_exact)(bool exact);
  size_t (*limit)();
  void (*set_limit)(size_t bytes);
  size_t (*in_use)();
};

const MemoryTable& memory();
void set_memory(const MemoryTable* table);  // of another module; nullptr: this module's own

}  // namespace tilegrad::simulator
