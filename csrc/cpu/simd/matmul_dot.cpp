// SPDX-License-Identifier: MIT
// Math: c[r,j] = alpha sum_p a[r,p] b[j,p] + beta c[r,j], one register tile of C.
// Shapes: at most 4 rows x 6 columns of AVX-512, 4 x 3 of AVX2, 4 x 2 else.
// Parallelism: lanes run along p. At the end the sums of up to kSize elements of C meet in a tree
//   that transposes: each round halves the vectors, and lane l of the last is element l.
// Memory: a step of kSize p loads rows + columns vectors for rows * columns fma. Those of A are
//   packed and aligned, so that an unaligned B splits no more than 6 of 10 loads among two lines.
// Source: the tree is the butterfly of Eklundh's transpose (1972) with additions.
#include "matmul_dot.hpp"

#include "../isa.hpp"
#include "matmul_pack.hpp"
#include "vectors.hpp"

namespace tilegrad::cpu::TILEGRAD_ISA {
namespace {

// rows * columns sums, the vectors of rows and one of a column must fit 32 registers, else 16.
constexpr int kMaxRows = 4;
#if defined(TILEGRAD_ISA_AVX512)
constexpr int kMaxColumns = 6;
#elif defined(TILEGRAD_ISA_AVX2)
constexpr int kMaxColumns = 3;
#else
constexpr int kMaxColumns = 2;
#endif

// Pointers to kCount rows, one for three: [q], [q + row], [q + 2 row].
template <class T, int kCount>
struct Rows {
  static constexpr int kGroups = (kCount + 2) / 3;
  const T* group[kGroups];
  int64_t row;

  TILEGRAD_INLINE Rows(const T* first, int64_t step) : row(step) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) group[g] = first + 3 * g * step;
  }
  TILEGRAD_INLINE const T* operator[](int i) const { return group[i / 3] + i % 3 * row; }
  TILEGRAD_INLINE void advance(int64_t elements) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) group[g] += elements;
  }
};

// Blocks of kBlock lanes: in the even ones a + a of the odd ones, in the odd ones the same of b.
template <int kBlock, class V, int... kLane>
TILEGRAD_INLINE V fold(V a, V b, Lanes<kLane...>) {
  V kept, moved;
#if defined(__clang__) || __GNUC__ >= 12
  kept.v = __builtin_shufflevector(a.v, b.v, ((kLane & kBlock) ? kLane + V::kSize : kLane)...);
  moved.v = __builtin_shufflevector(
      a.v, b.v, ((kLane & kBlock) ? kLane - kBlock + V::kSize : kLane + kBlock)...);
#else
  using Int = typename V::Int;
  kept.v = __builtin_shuffle(a.v, b.v, Int{((kLane & kBlock) ? kLane + V::kSize : kLane)...});
  moved.v = __builtin_shuffle(
      a.v, b.v, Int{((kLane & kBlock) ? kLane - kBlock + V::kSize : kLane + kBlock)...});
#endif
  return kept + moved;
}

template <class V, int... kLane>
TILEGRAD_INLINE V lanes_from(V a, int first, Lanes<kLane...>) {
  using Int = typename V::Int;
  V r;
  r.v = __builtin_shuffle(a.v, Int{((kLane + first) & (V::kSize - 1))...});
  return r;
}

// A vector of the tile's sums holds kRowsAVector rows of C, kPitch lanes each.
template <class V, int kRows, int kColumns>
struct SumTree {
  static constexpr int kWidest = kMaxColumns > 4 ? 8 : kMaxColumns > 2 ? 4 : 2;
  static constexpr int kPitch = kWidest < V::kSize ? kWidest : V::kSize;
  static constexpr int kRowsAVector = V::kSize / kPitch;
  using AllLanes = typename MakeLanes<V::kSize>::type;

  // Whether any sum ends up in lane `lane`, lane + step, ..
  static constexpr bool any(int first_row, int lane, int step) {
    for (; lane < V::kSize; lane += step) {
      if (first_row + lane / kPitch < kRows && lane % kPitch < kColumns) return true;
    }
    return false;
  }
  // Lane kLane + i * kBlock of the result, i = 0, 1 .., is the partial sum of that element.
  template <int kFirstRow, int kBlock, int kLane>
  static TILEGRAD_INLINE V node(const V (&sum)[kRows][kColumns]) {
    if constexpr (kBlock == V::kSize) {
      return sum[kFirstRow + kLane / kPitch][kLane % kPitch];
    } else {
      const V low = node<kFirstRow, 2 * kBlock, kLane>(sum);
      if constexpr (any(kFirstRow, kLane + kBlock, 2 * kBlock)) {
        return fold<kBlock>(low, node<kFirstRow, 2 * kBlock, kLane + kBlock>(sum), AllLanes{});
      } else {
        return fold<kBlock>(low, low, AllLanes{});
      }
    }
  }
  // f(row, its sums in the first kColumns lanes)
  template <int kFirstRow, class F>
  static TILEGRAD_INLINE void rows(const V (&sum)[kRows][kColumns], F f) {
    if constexpr (kFirstRow < kRows) {
      const V sums = node<kFirstRow, 1, 0>(sum);
      f(kFirstRow, sums);
#pragma GCC unroll 4
      for (int r = 1; r < kRowsAVector; ++r) {
        if (kFirstRow + r < kRows) {
          f(kFirstRow + r, lanes_from(sums, r * kPitch, AllLanes{}));
        }
      }
      rows<kFirstRow + kRowsAVector>(sum, f);
    }
  }
};

template <class T, int kRows, int kColumns, int kAhead>
[[gnu::flatten]] void tile(const MatmulDot<T>& t) {
  using V = Vec<T>;
  V sum[kRows][kColumns];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 6
    for (int j = 0; j < kColumns; ++j) sum[r][j] = V(T(0));
  }
  const T* a = t.a;
  Rows<T, kColumns> b(t.b, t.b_row);
  Rows<T, kAhead> ahead(t.ahead, t.b_row);
  const auto step = [&](auto access) {
    V left[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) left[r] = V::load(a + r * V::kSize);
#pragma GCC unroll 6
    for (int j = 0; j < kColumns; ++j) {
      const V right = access.load(b[j]);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sum[r][j] = fma(left[r], right, sum[r][j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < kAhead; ++i) __builtin_prefetch(ahead[i]);
    a += kRows * V::kSize;
    b.advance(V::kSize);
    ahead.advance(V::kSize);
  };
  int64_t left = t.k;
  for (; left >= V::kSize; left -= V::kSize) step(Whole<V>{});
  if (left > 0) step(Part<V>{static_cast<int>(left)});

  SumTree<V, kRows, kColumns>::template rows<0>(sum, [&](int r, V sums) {
    T* c = t.c + r * t.c_row;
    const V value = t.alpha * sums;
    (t.beta == T(0) ? value : fma(V(t.beta), V::load_partial(c, kColumns), value))
        .store_partial(c, kColumns);
  });
}

template <class T, int kRows, int... kColumn>
void tile_of_rows(const MatmulDot<T>& t, int columns, Lanes<kColumn...>) {
  static constexpr void (*kTiles[2][kMaxColumns])(const MatmulDot<T>&) = {
      {tile<T, kRows, kColumn + 1, 1>...}, {tile<T, kRows, kColumn + 1, kColumn + 1>...}};
  kTiles[t.ahead_all][columns - 1](t);
}

template <class T>
void any_tile(const MatmulDot<T>& t, int rows, int columns) {
  using Columns = typename MakeLanes<kMaxColumns>::type;
  switch (rows) {
    case 1:
      return tile_of_rows<T, 1>(t, columns, Columns{});
    case 2:
      return tile_of_rows<T, 2>(t, columns, Columns{});
    case 3:
      return tile_of_rows<T, 3>(t, columns, Columns{});
    default:
      return tile_of_rows<T, 4>(t, columns, Columns{});
  }
}

template <class T>
void pack_rows(T* packed, const T* a, int64_t a_row, int64_t rows, int64_t k) {
  using V = Vec<T>;
  for (int64_t r = 0; r < rows; ++r, a += a_row) {
    T* out = packed + r * V::kSize;
    int64_t p = 0;
    for (; p + V::kSize <= k; p += V::kSize, out += rows * V::kSize) V::load(a + p).store(out);
    if (p < k) V::load_partial(a + p, static_cast<int>(k - p)).store(out);
  }
}

template <class T>
constexpr MatmulDotKernels<T> kTable = {kMaxRows, kMaxColumns, any_tile<T>, pack_rows<T>};

}  // namespace

template <>
const MatmulDotKernels<float>& table() {
  return kTable<float>;
}
template <>
const MatmulDotKernels<double>& table() {
  return kTable<double>;
}

}  // namespace tilegrad::cpu::TILEGRAD_ISA
