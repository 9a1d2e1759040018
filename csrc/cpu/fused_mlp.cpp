// SPDX-License-Identifier: MIT
// A chain of linear layers and activations, a layer at a time.
//
// Math:        a[l + 1] = f_l(a[l] W_l^T + b_l); backward from x: forward again, then linear's.
// Shapes:      a[l] (rows, features[l]).
// Parallelism: that of linear.
// Memory:      that of linear; what layers hand on lies in workspace.
#include "../mlp_layers.hpp"

namespace tilegrad::cpu {

template <class T>
void fused_mlp(Context& context, T* y, const T* x, const MlpArrays<const T>& parameters,
               const MlpShape& shape) {
  mlp_by_layers(context, y, x, parameters, shape);
}

template <class T>
bool fused_mlp_trains_on_chip(const MlpShape&) {
  return false;
}

template <class T, class G>
void fused_mlp_backward(Context& context, T* dx, const MlpArrays<G>& gradients, const T* dy,
                        const T* x, const MlpArrays<const T>& parameters, const MlpShape& shape,
                        bool accumulate) {
  mlp_backward_by_layers(context, dx, gradients, dy, x, parameters, shape, accumulate);
}

#define TILEGRAD_INSTANTIATE(T)                                                                \
  template void fused_mlp(Context&, T*, const T*, const MlpArrays<const T>&, const MlpShape&); \
  template bool fused_mlp_trains_on_chip<T>(const MlpShape&);
TILEGRAD_INSTANTIATE(float)
TILEGRAD_INSTANTIATE(double)
TILEGRAD_INSTANTIATE(bfloat16)
#undef TILEGRAD_INSTANTIATE
#define TILEGRAD_INSTANTIATE(T, G)                                                        \
  template void fused_mlp_backward(Context&, T*, const MlpArrays<G>&, const T*, const T*, \
                                   const MlpArrays<const T>&, const MlpShape&, bool);
TILEGRAD_INSTANTIATE(float, float)
TILEGRAD_INSTANTIATE(double, double)
TILEGRAD_INSTANTIATE(bfloat16, bfloat16)
TILEGRAD_INSTANTIATE(bfloat16, float)
#undef TILEGRAD_INSTANTIATE

}  // namespace tilegrad::cpu
