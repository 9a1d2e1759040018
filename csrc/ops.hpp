// SPDX-License-Identifier: MIT
// ops.hpp: THE CONTRACT. Every op once: math, shapes, aliasing, edges. A backend implements all of
// them in its own namespace (TILEGRAD_BACKEND = cpu | sim | cuda).
//
// Common rules
// - Pointers are aligned to their element only; arrays are C-contiguous unless strides are given.
// - Sizes are counts of elements, strides are in elements; any size may be 0.
// - T is float or double; for matmul, linear, activation, softmax, cross_entropy, pack, fill and
//   convert also bfloat16, and on cuda and sim float16. Results narrower than double accumulate in
//   float32 or wider and are rounded to T once, when they are stored. (AMX takes subnormal numbers
//   of a bfloat16 product for 0.)
// - On cuda and sim every pointer, that of a StepState too, is device memory, except the arrays of
//   OptimTensor, bad_row and what says so; a call only puts work on context.stream.
// - Same inputs, same bits: a result depends on shape, dtype, ISA and device model only.
// - NaN propagates. Outputs must not overlap inputs unless an op says that they may be equal.
// - `dx` is dL/dx. Argument order: outputs, inputs, sizes, options.
#pragma once

#include <cstdint>
#include <string_view>

#include "context.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// ---- matmul ------------------------------------------------------------------------------------

// A strided matrix, and a batch of them batch_stride apart: element (b, i, j) of it is
// data[b * batch_stride + i * row_stride + j * col_stride].
template <class T>
struct Matrix {
  T* data;
  int64_t row_stride;
  int64_t col_stride;
  int64_t batch_stride = 0;
};

struct MatmulSize {
  int64_t batch, m, n, k;
};

enum class ActivationKind {
  identity,
  sigmoid,
  tanh,
  relu,
  leaky_relu,  // alpha is the slope below zero
  elu,         // alpha is the limit below zero
  selu,
  gelu,
  gelu_tanh,
  silu,
  softplus,  // alpha is the sharpness, beta the threshold
  mish,
  hardtanh,  // alpha and beta are the ends of the range
  relu6,
  hardsigmoid,
  hardswish,
};

struct Activation {
  ActivationKind kind = ActivationKind::identity;
  double alpha = 0;
  double beta = 0;
};

// What happens to an element of the product before it is stored.
template <class T>
struct Epilogue {
  const T* bias = nullptr;     // (n): added to every row
  Activation activation = {};  // applied after the bias
  T* preactivation = nullptr;  // (batch, m, n) contiguous: keeps the value before the activation
};

// c[b,i,j] = f(alpha * sum_p a[b,i,p] b[b,p,j] + beta * c[b,i,j] + bias[j])
// a, b: any strides, 0 included (broadcast). c: col_stride 1. k = 0 gives a sum of 0.
// beta = 0 does not read c. The sum over p has one fixed order for a given (m, n, k, ISA); on the
// CPU also for a given order of the axes in memory of the operand that has more rows (a) or columns
// (b), where the other has few of them. Batch, gaps, alignment and threads do not matter.
// Of float32 on cuda and sim the choice follows cuda/matmul_precision.hpp, and with it the bits: as
// set_float32_matmul_precision says, float32 throughout ("highest", the default), or, where tensor
// cores take the shape, tf32x3 ("high") or tf32 ("medium"). So do linear and linear_backward.
// variant names a rung of a backend's ladder, whatever the precision; empty is the backend's own
// choice. ValueError names the rungs where it has none of that name, or none that can do this
// problem.
template <class T>
void matmul(Context&, Matrix<T> c, Matrix<const T> a, Matrix<const T> b, MatmulSize size,
            double alpha = 1, double beta = 0, const Epilogue<T>& epilogue = {},
            std::string_view variant = {});

// ---- linear ------------------------------------------------------------------------------------

struct LinearSize {
  int64_t rows, in_features, out_features;
};

// y[r,o] = f(sum_i x[r,i] weight[o,i] + bias[o]). bias may be null. preactivation (rows, out) may
// be null; if given it receives the argument of f.
template <class T>
void linear(Context&, T* y, T* preactivation, const T* x, const T* weight, const T* bias,
            LinearSize size, Activation activation);

// dz = dy * f'(z);  dx = dz weight;  dweight = dz^T x;  dbias = sum over rows of dz.
// dx, dweight, dbias may each be null. f' is taken from `saved`: the output y where
// saved_is_output, else the preactivation z; null for the identity. With accumulate, dweight and
// dbias are added to instead of overwritten. dz is kept in workspace, rounded to T.
// G is T, or float where T has 16 bits: gradients that are summed up before they are used.
template <class T, class G = T>
void linear_backward(Context&, T* dx, G* dweight, G* dbias, const T* dy, const T* x,
                     const T* weight, const T* saved, bool saved_is_output, LinearSize size,
                     Activation activation, bool accumulate);

// ---- elementwise activations -------------------------------------------------------------------

// y = f(x). y may be x.
template <class T>
void activation(Context&, T* y, const T* x, int64_t n, Activation activation);

// dx = dy * f'(x), with f' from x or, where saved_is_output, from y = f(x). dx may be dy or saved.
// Allowed from the output: every kind but gelu, gelu_tanh, silu, softplus, mish, hardsigmoid and
// hardswish; elu and leaky_relu for alpha >= 0.
template <class T>
void activation_backward(Context&, T* dx, const T* dy, const T* saved, bool saved_is_output,
                         int64_t n, Activation activation);

// ---- softmax -----------------------------------------------------------------------------------

// An array (outer, classes, inner); the class axis is in the middle, as torch has it.
struct ClassShape {
  int64_t outer, classes, inner;
};

// y = exp(x - max) / sum exp(x - max), or its logarithm. y may be x. A row of -inf gives NaN.
template <class T>
void softmax(Context&, T* y, const T* x, ClassShape shape, bool log);

// softmax: dx = y (dy - sum_c dy_c y_c). log_softmax: dx = dy - exp(y) sum_c dy_c.
// y is the forward's result. dx may be dy or y.
template <class T>
void softmax_backward(Context&, T* dx, const T* dy, const T* y, ClassShape shape, bool log);

// ---- prelu --------------------------------------------------------------------------------------

// y = x where x > 0, else weight[c] x: a class is a channel. y may be x.
template <class T>
void prelu(Context&, T* y, const T* x, const T* weight, ClassShape shape);

// dx = dy where x > 0, else weight[c] dy; dweight[c] = sum of x dy over x <= 0, added to dweight
// where accumulate. Either may be null; dx may be dy or x. G as in linear_backward; bfloat16 and
// float16 sums are not added to.
template <class T, class G = T>
void prelu_backward(Context&, T* dx, G* dweight, const T* dy, const T* x, const T* weight,
                    ClassShape shape, bool accumulate);

// ---- losses ------------------------------------------------------------------------------------

enum class Reduction { none, mean, sum };

// Class indices of any integer type, read in place.
struct IndexView {
  const void* data = nullptr;
  int bytes = 8;  // 1, 2, 4 or 8
  bool is_signed = true;
};

template <class T>
struct CrossEntropy {
  const T* logits;                   // (outer, classes, inner)
  IndexView indices;                 // (outer, inner), or data is null and
  const T* probabilities = nullptr;  // (outer, classes, inner)
  const T* weight = nullptr;         // (classes) or null
  ClassShape shape;
  int64_t ignore_index = -100;  // for class indices only
  Reduction reduction = Reduction::mean;
  double label_smoothing = 0;
};

// Row r = (outer, inner) with logp = log_softmax(logits) and smoothing e:
//   index t:          (1-e) w_t (-logp_t) + e/C sum_c w_c (-logp_c);  0 if t is ignore_index
//   probabilities q:  sum_c w_c ((1-e) q_c + e/C) (-logp_c)
// none: every row; sum: their sum; mean: the sum over sum of w_t (indices) or over the number of
// rows (probabilities). A mean over nothing is NaN.
// loss: (outer, inner) for none, else one element; may be null. dlogits: like logits, may be null
// or equal to logits; it is the gradient times grad_output (like loss; null means one).
// One pass: a row is read once and its loss and gradient leave together.
// *bad_row becomes the row of the first index target outside [0, classes) that is not ignore_index,
// and then nothing else is computed; -1 if there is none. A GPU gives such a row a NaN loss and a
// zero gradient instead, and *bad_row stays -1. variant: as for matmul.
template <class T>
void cross_entropy(Context&, T* loss, T* dlogits, const T* grad_output,
                   const CrossEntropy<T>& problem, int64_t* bad_row, std::string_view variant = {});

// Of probabilities: dtarget = -(1-e) w_c logp_c, like logits, times grad_output as above.
template <class T>
void cross_entropy_target_backward(Context&, T* dtarget, const T* grad_output,
                                   const CrossEntropy<T>& problem);

// The other losses: ops_losses.hpp. Small networks of dense layers: ops_mlp.hpp.

// ---- copies ------------------------------------------------------------------------------------

// An array of up to 32 axes by sizes and strides, in elements; a stride may be 0 or negative.
struct StridedShape {
  int count;
  const int64_t* sizes;
  const int64_t* strides;
};

// y = the elements of x in C order.
template <class T>
void pack(Context&, T* y, const T* x, const StridedShape& shape);

// y[i] = value, rounded to T.
template <class T>
void fill(Context&, T* y, int64_t n, double value);

// y[i] = x[i] between float and a 16-bit type: exact one way, to the nearest (ties to even) the
// other. NaN stays NaN.
template <class To, class From>
void convert(Context&, To* y, const From* x, int64_t n);

// ---- reductions and random numbers -------------------------------------------------------------

// y[o,i] = sum_a x[o,a,i], in a fixed order; added to y where accumulate.
template <class T>
void sum_axis(Context&, T* y, const T* x, int64_t outer, int64_t axis, int64_t inner,
              bool accumulate);

// y[i] = x[i] * m with m = 1/(1-p) if kept, else 0 (so NaN and infinity stay visible, as in
// torch). Philox4x32-10: element i takes word i mod 4 of counter state.offset + offset + i/4 under
// the key state.seed; kept if word >= round(p 2^32), ties to even. p = 1 gives zeros.
// The backward pass is the same call on dy. y may be x.
template <class T>
void dropout(Context&, T* y, const T* x, int64_t n, double p, uint64_t offset,
             const StepState* state);

// dropout of some rows of a larger array, for a batch that is shared out over processes: row r of
// x (rows, size) takes the words of row first + r step of the whole. y may be x.
template <class T>
void dropout_rows(Context&, T* y, const T* x, int64_t rows, int64_t size, int64_t first,
                  int64_t step, double p, uint64_t offset, const StepState* state);

// y[i] = low + (high - low) u_i with u_i the top 24 (float) or 32 (double) bits of word i mod 4 of
// counter offset + i/4, as a fraction of one; computed in double without fma and rounded to T once:
// the same bits on every machine.
template <class T>
void random_uniform(Context&, T* y, int64_t n, double low, double high, uint64_t seed,
                    uint64_t offset);

// y[i] = mean + std z_i with z_i the standard normal number (normal.hpp) of words 2 (i mod 2) and
// the next of counter offset + i/2; computed in double without fma and rounded to T once.
template <class T>
void random_normal(Context&, T* y, int64_t n, double mean, double std, uint64_t seed,
                   uint64_t offset);

// ---- optimisers --------------------------------------------------------------------------------

// One parameter with its gradient and the optimiser's buffers (null where an option needs none).
// A parameter of 16 bits is trained as float: `data` is its master copy, `rounded` itself. Where it
// is not its master rounded, somebody else wrote to it since the last update: the update starts
// from what was written. So a master of zeros starts from any parameter.
template <class T>
struct OptimTensor {
  T* data;
  const T* grad;
  T* first;   // SGD: momentum; Adam: mean of gradients; RMSprop: of squares; Adagrad: their sum
  T* second;  // Adam: mean of squared gradients; RMSprop with momentum: that
  T* third;   // Adam with amsgrad: largest `second`; centered RMSprop: mean of gradients
  int64_t size;
  bfloat16* rounded = nullptr;  // receives data, to the nearest, ties to even
};

// What every optimiser does to a gradient first:
//   g = state.grad_scale * grad, negative to maximise;  g += l1_decay sign(w) with sign(0) = 0;
//   g += weight_decay w
struct GradientOptions {
  double weight_decay = 0, l1_decay = 0;
  bool maximize = false;
};

// torch.optim.SGD's arithmetic:
//   v = g at step 1, else momentum v + (1 - dampening) g;  g = g + momentum v if nesterov, else v;
//   w -= lr g
struct SgdOptions : GradientOptions {
  double momentum = 0, dampening = 0;
  bool nesterov = false;
};

// torch.optim.Adam's, with t = state.step:
//   m += (g - m)(1 - beta1);  v = beta2 v + (1 - beta2) g g;
//   w -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
struct AdamOptions : GradientOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  bool decoupled = false;  // AdamW: w *= 1 - lr weight_decay, instead of g += weight_decay w
  bool amsgrad = false;
};

// torch.optim.RMSprop's:
//   s = alpha s + (1 - alpha) g g;  d = sqrt(s) + eps
//   centered:  a += (g - a)(1 - alpha);  d = sqrt(s - a a) + eps
//   w -= lr g / d;  or with momentum  v = momentum v + g / d;  w -= lr v
struct RmspropOptions : GradientOptions {
  double alpha = 0.99, eps = 1e-8, momentum = 0;
  bool centered = false;
};

// torch.optim.Adagrad's, with t = state.step:
//   s += g g;  w -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)
struct AdagradOptions : GradientOptions {
  double lr_decay = 0, eps = 1e-10;
};

// One update of all tensors by the rule of Options, any of the four.
template <class T, class Options>
void optimizer_step(Context&, const OptimTensor<T>* tensors, int64_t count, const Options& options,
                    const StepState* state);

enum class NormKind { one, two, infinity };

// *norm = norm of all gradients as one vector (double sums in a fixed order, rounded to T), and
// state.grad_scale = min(1, max_norm / (norm + 1e-6)).
template <class T>
void clip_scale(Context&, StepState* state, T* norm, const OptimTensor<T>* tensors, int64_t count,
                NormKind kind, double max_norm);

// x *= state.grad_scale.
template <class T>
void scale(Context&, T* x, int64_t n, const StepState* state);

}  // namespace tilegrad::TILEGRAD_BACKEND

#include "ops_losses.hpp"  // IWYU pragma: export
