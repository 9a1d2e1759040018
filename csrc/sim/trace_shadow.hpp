// SPDX-License-Identifier: MIT
// Shadow memory: who last wrote each word and who has read it since.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "trace_clocks.hpp"

namespace tilegrad::simulator {

// An access to a word; `site` is the analysis' number of the instruction.
struct Mark {
  Epoch epoch = 0;
  uint32_t site = 0;
};
// Two reads at most are kept: the first and the latest that are not ordered one after the other.
struct Cell {
  Epoch write = 0, read[2] = {0, 0};
  uint32_t write_site = 0, read_site[2] = {0, 0};
};

// Cells in pages that are made when they are touched: one for each 4 bytes, or for each byte once a
// narrower access has been there.
class Shadow {
 public:
  void resize(size_t bytes) {
    pages_.clear();
    pages_.resize((bytes + kPageBytes - 1) / kPageBytes);
  }

  // Calls f(cell) for each cell of the bytes.
  template <class F>
  void visit(size_t offset, size_t bytes, const F& f) {
    const bool narrow = offset % 4 != 0 || bytes % 4 != 0;
    for (const size_t end = offset + bytes; offset < end;) {
      Page& page = pages_[offset / kPageBytes];
      if (!page.cells) page.make(narrow);
      if (narrow && !page.by_byte) page.split();
      const size_t page_end = (offset / kPageBytes + 1) * kPageBytes;
      const size_t last = page_end < end ? page_end : end;
      const size_t step = page.by_byte ? 1 : 4;
      Cell* cell = &page.cells[offset % kPageBytes / step];
      for (; offset < last; offset += step) f(*cell++);
    }
  }

 private:
  static constexpr size_t kPageBytes = 1024;

  struct Page {
    std::unique_ptr<Cell[]> cells;
    bool by_byte = false;

    void make(bool narrow) {
      by_byte = narrow;
      cells = std::make_unique<Cell[]>(narrow ? kPageBytes : kPageBytes / 4);
    }
    void split() {
      std::unique_ptr<Cell[]> wide = std::move(cells);
      make(true);
      for (size_t i = 0; i < kPageBytes; ++i) cells[i] = wide[i / 4];
    }
  };

  std::vector<Page> pages_;
};

}  // namespace tilegrad::simulator
