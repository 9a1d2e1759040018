// SPDX-License-Identifier: MIT
// Class indices of any integer type: checked and added up before a loss, then read row by row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

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
// that is no class, or -1. Nothing is ignored without an ignore_index.
struct TargetSum {
  double weight = 0;
  int64_t bad_row = -1;
};

template <class T>
TargetSum check_targets(Context& context, const IndexView& view, int64_t rows, int64_t classes,
                        std::optional<int64_t> ignore_index, const T* weight) {
  constexpr int64_t kBlock = 8192;  // targets checked by a task
  const int64_t count = (rows + kBlock - 1) / kBlock;
  WorkspaceScope scope(context);
  TargetSum* blocks = context.workspace->take<TargetSum>(count);
  visit(view, [&](const auto* indices) {
    parallel_for(context, count, static_cast<double>(rows), [&](int64_t block, int) {
      TargetSum sum;
      const int64_t begin = block * kBlock, end = std::min(rows, begin + kBlock);
      const auto is_bad = [&](int64_t target) {
        return target != ignore_index &&
               static_cast<uint64_t>(target) >= static_cast<uint64_t>(classes);
      };
      int64_t counted = 0, bad = 0;  // without a branch a row
      for (int64_t row = begin; row < end; ++row) {
        const int64_t target = to_class(indices[row]);
        counted += target != ignore_index;
        bad += is_bad(target);
      }
      sum.weight = static_cast<double>(counted);
      if (bad > 0) {
        sum.bad_row = begin;
        while (!is_bad(to_class(indices[sum.bad_row]))) ++sum.bad_row;
      } else if (weight != nullptr) {
        sum.weight = 0;
        for (int64_t row = begin; row < end; ++row) {
          const int64_t target = to_class(indices[row]);
          if (target != ignore_index) sum.weight += weight[target];
        }
      }
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
