// SPDX-License-Identifier: MIT
// Class indices of any integer type: checked and added up before a loss, then read row by row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "../ops.hpp"
#include "parallel.hpp"
#include "simd/cross_entropy.hpp"

namespace tilegrad::cpu {

// f(pointer to the indices as they are stored)
template <class F>
void visit(const IndexView& view, F f) {
  switch (view.is_signed ? -view.bytes : view.bytes) {
    case -1:
      return f(static_cast<const int8_t*>(view.data));
    case -2:
      return f(static_cast<const int16_t*>(view.data));
    case -4:
      return f(static_cast<const int32_t*>(view.data));
    case -8:
      return f(static_cast<const int64_t*>(view.data));
    case 1:
      return f(static_cast<const uint8_t*>(view.data));
    case 2:
      return f(static_cast<const uint16_t*>(view.data));
    case 4:
      return f(static_cast<const uint32_t*>(view.data));
    default:
      return f(static_cast<const uint64_t*>(view.data));
  }
}

// An index above the range of int64_t is no class; it must not turn into a negative number either,
// which could be ignore_index.
template <class Index>
int64_t to_class(Index index) {
  if constexpr (sizeof(Index) == 8 && std::numeric_limits<Index>::is_signed == false) {
    if (index > static_cast<Index>(std::numeric_limits<int64_t>::max())) {
      return std::numeric_limits<int64_t>::max();
    }
  }
  return static_cast<int64_t>(index);
}

// Of targets: the sum of their weights (their number without weights), and the row of the first
// that is no class, or -1.
struct TargetSum {
  double weight = 0;
  int64_t bad_row = -1;
};

template <class T>
TargetSum check_targets(Context& context, const IndexView& view, int64_t rows, int64_t classes,
                        int64_t ignore_index, const T* weight) {
  constexpr int64_t kBlock = 8192;  // targets checked by a task
  const int64_t count = (rows + kBlock - 1) / kBlock;
  WorkspaceScope scope(context);
  TargetSum* blocks = context.workspace->take<TargetSum>(count);
  visit(view, [&](const auto* indices) {
    parallel_for(context, count, static_cast<double>(rows), [&](int64_t block, int) {
      TargetSum sum;
      int64_t counted = 0;
      const int64_t end = std::min(rows, (block + 1) * kBlock);
      for (int64_t row = block * kBlock; row < end; ++row) {
        const int64_t target = to_class(indices[row]);
        if (target == ignore_index) continue;
        if (target < 0 || target >= classes) {
          sum.bad_row = row;
          break;
        }
        ++counted;
        if (weight != nullptr) sum.weight += weight[target];
      }
      if (weight == nullptr) sum.weight = static_cast<double>(counted);
      blocks[block] = sum;
    });
  });
  TargetSum all;
  for (int64_t block = 0; block < count; ++block) {
    if (blocks[block].bad_row >= 0) return blocks[block];
    all.weight += blocks[block].weight;
  }
  return all;
}

// classes[i] = the class of row begin + i, or kIgnoredRow.
inline void read_targets(int64_t* classes, const IndexView& view, int64_t begin, int64_t count,
                         int64_t ignore_index) {
  visit(view, [=](const auto* indices) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t target = to_class(indices[begin + i]);
      classes[i] = target == ignore_index ? kIgnoredRow : target;
    }
  });
}

}  // namespace tilegrad::cpu
