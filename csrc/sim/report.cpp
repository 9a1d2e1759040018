// SPDX-License-Identifier: MIT
// The text of reports.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "memory.hpp"
#include "scheduler.hpp"

namespace tilegrad::simulator {
namespace {

// Neighbouring threads of a block, as coordinates.
std::string range_text(const Thread& first, const Thread& last) {
  std::string text = to_string(first.index);
  if (&last > &first) text += ".." + to_string(last.index);
  return text;
}

// "file:line" of an instruction where the module has line tables and binutils are installed, else
// "module+0x12ab".
std::string source_line(uintptr_t instruction) {
  Dl_info info;
  if (instruction == 0 || dladdr(reinterpret_cast<void*>(instruction), &info) == 0) return {};
  const auto base = reinterpret_cast<uintptr_t>(info.dli_fbase);
  char offset[32];
  std::snprintf(offset, sizeof offset, "0x%zx", static_cast<size_t>(instruction - base));
  const std::string module = info.dli_fname;
  std::string line;
  if (module.find('\'') == std::string::npos) {
    const std::string command = "addr2line -e '" + module + "' " + offset + " 2>/dev/null";
    if (FILE* pipe = popen(command.c_str(), "r"); pipe != nullptr) {
      char text[4096];
      if (std::fgets(text, sizeof text, pipe) != nullptr) line = text;
      pclose(pipe);
    }
  }
  line = line.substr(0, line.find_first_of("\n"));
  if (const size_t note = line.find(" (discriminator"); note != std::string::npos) {
    line.resize(note);
  }
  if (line.empty() || line.find("??") != std::string::npos || line.back() == '?') {
    return module.substr(module.rfind('/') + 1) + "+" + offset;
  }
  return line;
}

}  // namespace

std::string to_string(uint3 i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}

std::string to_string(Site site) {
  if (site.file == nullptr) return "an unknown line";
  return std::string(site.file) + ":" + std::to_string(site.line);
}

std::string describe_thread(const Thread& thread) {
  std::string text =
      "thread " + to_string(thread.index) + " of block " + to_string(thread.block->index);
  if (thread.site.file != nullptr) text += ", " + to_string(thread.site);
  return text;
}

namespace {

// Runs of threads that wait for the same thing at the same line, e.g.
// "threads (0,0,0)..(30,0,0) wait at __shfl_sync, k.cu:12".
std::string describe_block(const Worker& worker, const Block& block) {
  constexpr int kMost = 12;
  const Thread* const threads = &worker.threads[size_t{block.rank} * worker.block_threads];
  std::string text = "block " + to_string(block.index);
  int runs = 0;
  unsigned returned_count = 0;
  for (unsigned i = 0; i < worker.block_threads;) {
    const Thread& first = threads[i];
    if (first.state == ThreadState::kReturned) {
      ++returned_count;
      ++i;
      continue;
    }
    unsigned last = i;
    while (last + 1 < worker.block_threads) {
      const Thread& next = threads[last + 1];
      if (next.state == ThreadState::kReturned || next.site.line != first.site.line ||
          next.site.file != first.site.file || next.what != first.what) {
        break;
      }
      ++last;
    }
    if (++runs <= kMost) {
      text += std::string("; thread") + (last > i ? "s " : " ") + range_text(first, threads[last]) +
              " wait" + (last > i ? "" : "s") + " at " +
              (first.what == nullptr ? "nothing known" : first.what) + ", " + to_string(first.site);
    }
    i = last + 1;
  }
  if (runs > kMost) text += "; and " + std::to_string(runs - kMost) + " more groups";
  if (returned_count != 0) text += "; " + std::to_string(returned_count) + " threads have returned";
  for (unsigned w = 0; w < worker.block_warps; ++w) {
    for (const WarpPoint& point : block.warps[w].points) {
      if (point.mask == 0) continue;
      unsigned missing = 0;
      while (!((point.expected & ~point.arrived) >> missing & 1)) ++missing;
      text += std::string("; ") + point.what + " lacks lanes of its mask, the first is " +
              to_string(threads[w * kLanes + missing].index);
      return text;
    }
  }
  return text;
}

}  // namespace

std::string describe_waiting(const Worker& worker) {
  constexpr unsigned kMost = 4;
  std::string text;
  unsigned waiting = 0;
  for (unsigned rank = 0; rank < worker.resident; ++rank) {
    const Block& block = *worker.blocks[rank];
    if (block.returned == worker.block_threads || ++waiting > kMost) continue;
    text += (text.empty() ? "" : "; ") + describe_block(worker, block);
  }
  if (waiting > kMost) text += "; and " + std::to_string(waiting - kMost) + " more blocks";
  return text;
}

std::string describe_memory_fault(const Worker& worker) {
  const MemoryFault& fault = worker.fault;
  const Thread& thread = worker.acting();
  const char* verb = fault.access == 2 ? "writes" : fault.access == 1 ? "reads" : "accesses";
  std::string who =
      "thread " + to_string(thread.index) + " of block " + to_string(thread.block->index);
  if (worker.operation != nullptr) {
    who += std::string(", ") + worker.operation->tag.what + " issued at " +
           to_string(worker.operation->tag.site);
  } else {
    const std::string line = source_line(fault.instruction);
    if (!line.empty()) who += ", " + line;
    if (thread.site.file != nullptr) who += " (after " + to_string(thread.site) + ")";
  }
  const auto sign = static_cast<intptr_t>(fault.address);
  const std::string it = worker.operation == nullptr ? "it " : "the copy ";
  if (!fault.address_known) return "out of bounds: " + it + "uses a wild address; " + who;
  if (worker.fiber != nullptr && worker.fiber->mapping != nullptr) {
    const auto guard = reinterpret_cast<uintptr_t>(worker.fiber->mapping);
    if (fault.address >= guard && fault.address < guard + kGuardBytes) {
      return "stack overflow: a thread's local memory exceeds " +
             std::to_string((worker.fiber->mapping_bytes - kGuardBytes) / 1024) + " KB; " + who;
    }
  }
  Buffer buffer;
  if (memory().find_near(fault.address, &buffer)) {
    const auto offset = static_cast<intptr_t>(fault.address - buffer.address);
    return std::string(buffer.freed ? "use after free: " : "out of bounds: ") + it + verb +
           " at offset " + std::to_string(offset) + " of a " + (buffer.freed ? "freed " : "") +
           "buffer of " + std::to_string(buffer.bytes) + " bytes; " + who;
  }
  for (unsigned rank = 0; rank < worker.resident; ++rank) {
    const Block& block = *worker.blocks[rank];
    if (!block.arena.guards(fault.address)) continue;
    const auto offset =
        sign - static_cast<intptr_t>(reinterpret_cast<uintptr_t>(block.arena.data()));
    std::string text = "out of bounds: " + it + verb + " at offset " + std::to_string(offset) +
                       " of " + std::to_string(block.arena.bytes()) +
                       " bytes of dynamic shared memory";
    if (&block != thread.block) text += " of block " + to_string(block.index);
    if (!block.arena.is_open()) {
      text += ", which has ended (a barrier of the cluster must come first)";
    }
    return text + "; " + who;
  }
  if (fault.address < 4096) {
    return "null pointer: " + it + verb + " at address " + std::to_string(fault.address) + "; " +
           who;
  }
  char address[32];
  std::snprintf(address, sizeof address, "0x%zx", static_cast<size_t>(fault.address));
  return "out of bounds: " + it + verb + " at " + address + ", which is in no buffer; " + who;
}

}  // namespace tilegrad::simulator
