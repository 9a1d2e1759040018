// SPDX-License-Identifier: MIT
// matmul: the table of rungs, and the way from the contract (ops.hpp) to one of them. The kernels
// are in matmul/, one file a rung; matmul_choice.hpp says which one the public call takes.
#include "matmul_choice.hpp"

#include <array>
#include <string>
#include <type_traits>

#include "../check.hpp"
#include "device.hpp"
#include "matmul/hopper_choice.hpp"
#include "matmul/hopper_layout.hpp"
#include "matmul/needs.hpp"
#include "matmul/pad_lines.cuh"
#include "matmul/problem.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr size_t kRungCount = 12;

template <class T>
constexpr std::array<MatmulRung<T>, kRungCount> rungs() {
  return {{
      {"naive", matmul_naive<T>},
      {"coalesced", matmul_coalesced<T>},
      {"shared", matmul_shared<T>},
      {"tile_1d", matmul_tile_1d<T>},
      {"tile_2d", matmul_tile_2d<T>},
      {"vectorized", matmul_vectorized<T>},
      {"double_buffered", matmul_double_buffered<T>},
      {"warp_tile", matmul_warp_tile<T>},
      {"tensor_core", matmul_tensor_core<T>, tensor_core_needs<T>},
      {"hopper", matmul_hopper<T>, hopper_needs<T>},
      {"tf32x3", matmul_tf32x3<T>, tf32x3_needs<T>},
      {"hopper_tf32", matmul_hopper_tf32<T>, hopper_tf32_needs<T>},
  }};
}

template <class T>
const MatmulRung<T>* find_rung(const std::array<MatmulRung<T>, kRungCount>& table,
                               std::string_view name) {
  for (const MatmulRung<T>& rung : table) {
    if (rung.name == name) return &rung;
  }
  return nullptr;
}

template <class T>
std::string names(const std::array<MatmulRung<T>, kRungCount>& table) {
  std::string text;
  for (const MatmulRung<T>& rung : table) {
    if (!text.empty()) text += ", ";
    text += rung.name;
  }
  return text;
}

// The matrix, or where the copy engine cannot read it as it lies a copy in the workspace.
template <class T>
Matrix<const T> readable(Context& context, const Matrix<const T>& x, int64_t batch, int64_t rows,
                         int64_t cols) {
  if (engine_reads(x, rows, cols)) return x;
  const int64_t count = x.batch_stride == 0 ? 1 : batch;
  const bool by_row = x.col_stride == 1 || x.row_stride != 1;
  const int64_t lines = by_row ? rows : cols, length = by_row ? cols : rows;
  const int64_t stride = by_row ? x.col_stride : x.row_stride;
  const int64_t line_stride = by_row ? x.row_stride : x.col_stride;
  const int64_t pitch = (length + 7) / 8 * 8;
  T* const copy = context.workspace->take<T>(count * lines * pitch);
  if (pitch == length) {
    const int64_t sizes[] = {count, lines, length};
    const int64_t strides[] = {x.batch_stride, line_stride, stride};
    pack(context, copy, x.data, {3, sizes, strides});
  } else {
    const int64_t runs = count * lines * ((length + kPadRun - 1) / kPadRun);
    launch_next(pad_lines_kernel<T>, dim3(blocks_for(runs * 32, kPadThreads)), dim3(kPadThreads), 0,
                context, copy, x.data,
                PadShape{count, lines, length, pitch, x.batch_stride, line_stride, stride});
  }
  return {copy, by_row ? pitch : 1, by_row ? 1 : pitch, count == 1 ? 0 : lines * pitch};
}

// The public choice, by name. Where the copy engine cannot read an operand, it reads a copy: the
// bits of a product do not depend on where its operands lie.
template <class T>
std::string_view matmul_chosen(Context& context, MatmulProblem<T> problem, int device) {
  static constexpr auto kRungs = rungs<T>();
  const auto& [batch, m, n, k] = problem.size;
  MatmulTraits traits = {static_cast<int>(sizeof(T)),
                         device,
                         problem.b.row_stride == 1 && problem.b.col_stride != 1,
                         whole_chunks(problem.a, m, k),
                         whole_chunks(problem.b, k, n),
                         float32_precision(),
                         problem.a.col_stride == 1 && problem.b.row_stride == 1};
  std::string_view name = choose_matmul(problem.size, traits);
  if (name == "hopper") {
    if constexpr (sizeof(T) == 2) {
      WorkspaceScope scope(context);
      MatmulProblem<T> copied = problem;
      copied.a = readable(context, problem.a, batch, m, k);
      copied.b = readable(context, problem.b, batch, k, n);
      if (matmul_hopper(context, copied)) return name;
    }
    traits.compute_capability = 80;  // beyond the engine's coordinates
    name = choose_matmul(problem.size, traits);
  }
  find_rung(kRungs, name)->launch(context, problem);
  return name;
}

// Whether there is anything to compute. Where k is 0 nothing is read: a and b may be null.
template <class T>
bool prepare(MatmulProblem<T>& problem) {
  const MatmulSize& size = problem.size;
  if (size.k == 0) {
    problem.a.row_stride = problem.a.col_stride = problem.a.batch_stride = 0;
    problem.b = problem.a;
  }
  return size.batch > 0 && size.m > 0 && size.n > 0;
}

}  // namespace

template <class T>
bool run_matmul(Context& context, MatmulProblem<T> problem) {
  if (!prepare(problem)) return false;
  const DeviceInfo& device = device_info();
  const std::string_view rung = matmul_chosen(context, problem, device.compute_capability);
  if (rung == "hopper") {
    return choose_hopper(problem.size, device.multiprocessors, sizeof(T)).pieces == 1;
  }
  return rung == "tensor_core";
}

template <class T>
void matmul(Context& context, Matrix<T> c, Matrix<const T> a, Matrix<const T> b, MatmulSize size,
            double alpha, double beta, const Epilogue<T>& epilogue, std::string_view variant) {
  static constexpr auto kRungs = rungs<T>();
  MatmulProblem<T> problem = {
      c, a, b, size, static_cast<Accumulate<T>>(alpha), static_cast<Accumulate<T>>(beta), epilogue};
  if (variant.empty()) {
    run_matmul(context, problem);
    return;
  }
  const MatmulRung<T>* rung = find_rung(kRungs, variant);
  if (rung == nullptr) {
    throw std::invalid_argument(
        format("matmul: variant must be one of {}; got '{}'", names(kRungs), variant));
  }
  if (!prepare(problem)) return;
  if (rung->needs != nullptr) {
    const std::string needs = rung->needs(problem, device_info().compute_capability);
    check(needs.empty(),
          "matmul: variant '{}' needs {}. Without a variant the device's own is taken", rung->name,
          needs);
  }
  if (!rung->launch(context, problem)) {
    throw std::logic_error(format("matmul: variant '{}' did not start", rung->name));
  }
}

#define TILEGRAD_INSTANTIATE(T)                                                                   \
  template bool run_matmul(Context&, MatmulProblem<T>);                                           \
  template void matmul(Context&, Matrix<T>, Matrix<const T>, Matrix<const T>, MatmulSize, double, \
                       double, const Epilogue<T>&, std::string_view);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
TILEGRAD_INSTANTIATE(bfloat16)
TILEGRAD_INSTANTIATE(float16)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::TILEGRAD_BACKEND
