// SPDX-License-Identifier: MIT
// Math:        A, B and their states as in ctc_loss_walk.cuh; Z = lse(A at the end), loss = -Z,
//              dx_t[c] = g (exp(y_t[c]) - sum of exp(A_t + B_t - Z) over the states of class c).
// Shapes:      y, dx (time, batch, classes); A, B (time, 2, pairs) of a sample with pairs - 1
//              labels.
// Parallelism: first the walks; then 128 threads for each row of dx, where the thread of the first
//              label of a class adds up the shares of all its labels, in their order. A sum over
//              samples is one block's.
// Memory:      coalesced; y is read and dx written once, and labels gather dx, one sector each.
// Source:      Graves, Fernandez, Gomez, Schmidhuber, Connectionist Temporal Classification,
//              ICML 2006.
#include <algorithm>

#include "ctc_loss_walk.cuh"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kRowThreads = 128;
constexpr int kSumThreads = 256;
constexpr int64_t kMostBytes = int64_t{1} << 30;  // of states of a launch, where it has a choice

template <class T>
__global__ void __launch_bounds__(kRowThreads, 1) ctc_loss_gradient_kernel(CtcArguments<T> a) {
  grid_dependency_wait();
  const int64_t sample = blockIdx.y;
  const CtcOutcome outcome = a.outcomes[sample];
  const int64_t* const labels = a.labels + sample * a.width;
  const int64_t* const links = a.links + sample * a.width;
  const T factor = static_cast<T>(outcome.scale);
  for (int64_t t = blockIdx.x; t < a.time; t += gridDim.x) {
    const T* const y = a.log_probs + a.offset(t, sample);
    T* const dx = a.dlog_probs + a.offset(t, sample);
    const bool counts = t < outcome.times;
    for (int64_t c = threadIdx.x; c < a.classes; c += kRowThreads) {
      dx[c] = counts ? factor * exp(y[c]) : T(0);
    }
    if (!counts) continue;
    const double* const forward = a.row(sample, 0, t);
    const double* const backward = a.row(sample, 1, t);
    const auto share = [&](int64_t state) {
      const double log_share = forward[state] + backward[state] - outcome.log_likelihood;
      return static_cast<double>(exp(static_cast<T>(log_share)));
    };
    double blanks = 0;
    for (int64_t i = threadIdx.x; i <= outcome.labels; i += kRowThreads) {
      blanks += share(i);
      if (i < outcome.labels && labels[i] == a.blank) blanks += share(a.width + i);
    }
    // Its barriers also let every thread see the whole row of dx.
    blanks = block_sum<kRowThreads>(blanks);
    const auto take = [&](int64_t c, double shares) {
      dx[c] = static_cast<T>(static_cast<double>(dx[c]) - outcome.scale * shares);
    };
    if (threadIdx.x == 0) take(a.blank, blanks);
    for (int64_t i = threadIdx.x; i < outcome.labels; i += kRowThreads) {
      int64_t next = links[i];
      if (next < 0 || labels[i] == a.blank) continue;
      double shares = share(a.width + i);
      for (; next < outcome.labels; next = ~links[next]) shares += share(a.width + next);
      take(labels[i], shares);
    }
  }
}

// *loss = the sum of losses[0, n) over divisor.
template <class T>
__global__ void __launch_bounds__(kSumThreads)
    ctc_loss_sum_kernel(T* loss, const double* losses, int64_t n, double divisor) {
  grid_dependency_wait();
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kSumThreads) sum += losses[i];
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) *loss = static_cast<T>(sum / divisor);
}

}  // namespace

template <class T>
void ctc_loss(Context& context, T* loss, T* dlog_probs, const T* grad_output, const CtcLoss<T>& p,
              int64_t* bad_target) {
  *bad_target = -1;
  int64_t most_labels = 0;
  CtcArguments<T> a{};
  for (int64_t n = 0; n < p.batch; ++n) {
    most_labels = std::max(most_labels, p.target_lengths[n]);
    a.most_time = std::max(a.most_time, p.input_lengths[n]);
  }
  a.by_sample = p.reduction == Reduction::none;
  a.is_mean = p.reduction == Reduction::mean;
  a.zero_infinity = p.zero_infinity;
  a.dlog_probs = dlog_probs, a.grad_output = grad_output, a.log_probs = p.log_probs;
  a.targets = p.targets;
  a.time = p.time, a.batch = p.batch, a.classes = p.classes, a.blank = p.blank;
  a.loss = a.by_sample ? loss : nullptr;
  const int64_t pairs = most_labels + 1;
  a.width = (pairs + kWarpSize - 1) / kWarpSize * kWarpSize;
  const unsigned walks = dlog_probs == nullptr ? 1 : 2;

  WorkspaceScope scope(context);
  const bool has_sum = loss != nullptr && !a.by_sample;
  if (has_sum) a.losses = context.workspace->take<double>(p.batch);
  int64_t samples = std::min(kCtcListSamples, p.batch);
  if (dlog_probs != nullptr) {
    const int64_t states = 4 * a.most_time * a.width;
    const auto bytes = std::max<int64_t>(states, 1) * static_cast<int64_t>(sizeof(double));
    samples = std::min(samples, std::max<int64_t>(kMostBytes / bytes, 1));
    a.states = context.workspace->take<double>(samples * states);
    a.labels = context.workspace->take<int64_t>(samples * a.width);
    a.links = context.workspace->take<int64_t>(samples * a.width);
    a.outcomes = context.workspace->take<CtcOutcome>(samples);
  }
  const int64_t numbers = CtcWalkMemory::kNumbers * a.width;
  size_t shared = static_cast<size_t>(numbers) * sizeof(double);
  if (shared > device_info().shared_bytes) {
    a.rows = context.workspace->take<double>(samples * 2 * numbers);
    shared = 0;
  }
  const auto threads = static_cast<unsigned>(std::min<int64_t>(a.width, kCtcWalkThreads));
  for (; a.first_sample < p.batch; a.first_sample += samples) {
    const int64_t here = std::min(samples, p.batch - a.first_sample);
    CtcSampleList list;
    for (int64_t i = 0; i < here; ++i) {
      list.input_length[i] = p.input_lengths[a.first_sample + i];
      list.target_length[i] = p.target_lengths[a.first_sample + i];
      list.target_start[i] = p.target_starts[a.first_sample + i];
    }
    launch_next(ctc_loss_walk_kernel<T>, dim3(static_cast<unsigned>(here), walks), threads, shared,
                context, a, list);
    if (dlog_probs == nullptr) continue;
    const auto rows = static_cast<unsigned>(std::min<int64_t>(p.time, 1 << 20));
    launch_next(ctc_loss_gradient_kernel<T>, dim3(rows, static_cast<unsigned>(here)), kRowThreads,
                0, context, a);
  }
  if (!has_sum) return;
  launch_next(ctc_loss_sum_kernel<T>, 1, kSumThreads, 0, context, loss, a.losses, p.batch,
              a.is_mean ? static_cast<double>(p.batch) : 1.0);
}

template void ctc_loss(Context&, float*, float*, const float*, const CtcLoss<float>&, int64_t*);
template void ctc_loss(Context&, double*, double*, const double*, const CtcLoss<double>&, int64_t*);

}  // namespace tilegrad::TILEGRAD_BACKEND
