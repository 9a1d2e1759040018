// SPDX-License-Identifier: MIT
// fused_mlp: networks that fit on chip by the kernels in fused_mlp/ (fused_mlp_choice.hpp says
// which these are), the others layer by layer.
#include "fused_mlp/backward.cuh"
#include "fused_mlp/forward.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

template <class T>
MlpTraits traits() {
  return {static_cast<int>(sizeof(T)), device_info().compute_capability};
}

template <class T, int kWidth>
void start(Context& context, const MlpProblem<T>& problem) {
  constexpr int kRows = kMlpWarpgroups<kWidth> * 64;  // of a block at a time
  const int64_t blocks =
      std::min<int64_t>((problem.shape.rows + kRows - 1) / kRows, device_info().multiprocessors);
  launch_next(fused_mlp_kernel<T, kWidth>, dim3(static_cast<unsigned>(blocks)),
              dim3(kMlpWarpgroups<kWidth> * 128),
              static_cast<size_t>(mlp_forward_bytes(kWidth, problem.shape.layers)), context,
              problem);
}

template <class T, class G>
void start_backward(Context& context, const MlpProblem<T>& problem, const MlpArrays<G>& gradients,
                    bool accumulate) {
  const int layers = problem.shape.layers;
  const int64_t blocks = std::min<int64_t>((problem.shape.rows + kMlpBlockRows - 1) / kMlpBlockRows,
                                           device_info().multiprocessors);
  WorkspaceScope scope(context);
  float* const sums = context.workspace->take<float>(blocks * layers * kMlpLayerSums);
  const MlpSlopes slopes = mlp_slopes(problem.shape);
  launch_next(fused_mlp_backward_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(256),
              static_cast<size_t>(mlp_backward_bytes(layers, slopes)), context, problem, slopes,
              sums);
  launch_next(
      fused_mlp_sum_kernel<G>,
      dim3(static_cast<unsigned>((kMlpLayerSums + 255) / 256), static_cast<unsigned>(layers)),
      dim3(256), 0, context, gradients, sums, static_cast<int>(blocks), problem.shape, accumulate);
}

}  // namespace

template <class T>
void fused_mlp(Context& context, T* y, const T* x, const MlpArrays<const T>& parameters,
               const MlpShape& shape) {
  if constexpr (sizeof(T) == 2) {
    const MlpProblem<T> problem = {y, x, nullptr, parameters, shape};
    switch (choose_fused_mlp(shape, traits<T>())) {
      case 16:
        return start<T, 16>(context, problem);
      case 32:
        return start<T, 32>(context, problem);
      case 64:
        return start<T, 64>(context, problem);
      case 128:
        return start<T, 128>(context, problem);
      default:
        break;
    }
  }
  mlp_by_layers(context, y, x, parameters, shape);
}

template <class T>
bool fused_mlp_trains_on_chip(const MlpShape& shape) {
  return choose_fused_mlp_backward(shape, traits<T>());
}

template <class T, class G>
void fused_mlp_backward(Context& context, T* dx, const MlpArrays<G>& gradients, const T* dy,
                        const T* x, const MlpArrays<const T>& parameters, const MlpShape& shape,
                        bool accumulate) {
  if constexpr (sizeof(T) == 2) {
    if (fused_mlp_trains_on_chip<T>(shape)) {
      const MlpProblem<T> problem = {dx, x, dy, parameters, shape};
      return start_backward<T, G>(context, problem, gradients, accumulate);
    }
  }
  mlp_backward_by_layers(context, dx, gradients, dy, x, parameters, shape, accumulate);
}

#define TILEGRAD_INSTANTIATE(T)                                                                \
  template void fused_mlp(Context&, T*, const T*, const MlpArrays<const T>&, const MlpShape&); \
  template bool fused_mlp_trains_on_chip<T>(const MlpShape&);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
TILEGRAD_INSTANTIATE(bfloat16)
TILEGRAD_INSTANTIATE(float16)
#undef TILEGRAD_INSTANTIATE
#define TILEGRAD_INSTANTIATE(T, G)                                                        \
  template void fused_mlp_backward(Context&, T*, const MlpArrays<G>&, const T*, const T*, \
                                   const MlpArrays<const T>&, const MlpShape&, bool);
TILEGRAD_INSTANTIATE(float, float)
TILEGRAD_INSTANTIATE(double, double)
TILEGRAD_INSTANTIATE(bfloat16, bfloat16)
TILEGRAD_INSTANTIATE(bfloat16, float)
TILEGRAD_INSTANTIATE(float16, float16)
TILEGRAD_INSTANTIATE(float16, float)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::TILEGRAD_BACKEND
