// SPDX-License-Identifier: MIT
// What the bindings of losses with one value a row share. A loss is a struct on top of RowLoss: its
// constructor reads and checks the arguments of the public function, wanted() those gradients that
// `wrt` names, compute<T>() calls the op.
// def_row_loss() makes X, X_backward and X_value_and_grad of it.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "arrays.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

inline constexpr int kMostGradients = 3;

struct RowLoss {
  const char* op;
  Tensor inputs[kMostGradients];  // those that have a gradient
  Tensor target, weight;          // those that have none, where there are any
  Dims full;                      // the inputs broadcast together
  Dims result;                    // the loss
  Reduction reduction = Reduction::mean;

  explicit RowLoss(const char* name) : op(name) {}

  // For reduction "none" a loss has the shape of the rows.
  void reduce(py::handle name, const Dims& rows) {
    reduction = parse_reduction(name, op);
    if (reduction == Reduction::none) result = rows;
  }
  // Rows along the last axis.
  RowShape row_shape() const {
    const int axes = full.count;
    return {full.product(0, axes > 0 ? axes - 1 : 0), axes > 0 ? full.back() : 1};
  }
  Dims row_axes() const { return full.slice(0, full.count > 0 ? full.count - 1 : 0); }
};

// Integers of any type, read in place or, where they have gaps, packed.
inline IndexView index_view(Context& context, const Tensor& tensor) {
  return {contiguous_bytes(context, tensor), static_cast<int>(item_size(tensor.dtype)),
          tensor.dtype <= DType::int64};
}

// What of a call is wanted: the loss, gradients (`wanted` is not null) or both.
struct RowLossCall {
  bool loss = false;
  const Wanted* wanted = nullptr;
  py::handle grad_output = {};  // null: one
  py::handle out = {};          // null: new arrays
};

struct RowLossResult {
  Tensor loss;
  py::object gradients[kMostGradients];
};

template <class Loss>
RowLossResult compute_row_loss(const Loss& p, const RowLossCall& call, Context& context) {
  const DType dtype = p.inputs[0].dtype;
  const py::object none = py::none();
  const py::handle out = call.out.ptr() == nullptr ? py::handle(none) : call.out;
  Tensor grad;
  if (call.grad_output.ptr() != nullptr) {
    grad = read_grad_output(context, p.inputs[0], call.grad_output, p.result, p.op);
  }
  const auto result = [&](py::handle given, const Dims& shape, const Tensor* others) {
    return make_result(given, shape, dtype, p.op,
                       {&p.inputs[0], &p.inputs[1], &p.inputs[2], &p.target, &p.weight, &grad,
                        &others[0], &others[1]});
  };
  Tensor loss, gradients[kMostGradients];
  if (call.loss) loss = result(call.wanted == nullptr ? out : none, p.result, gradients);
  for (int i = 0; i < Loss::kGradients; ++i) {
    if (call.wanted == nullptr || !(*call.wanted)[i]) continue;
    const py::object given = call.wanted->out(call.loss ? none : out, i, p.op);
    gradients[i] = result(given, p.inputs[i].shape, gradients);
  }
  Tensor full[kMostGradients];  // here: they count references (GIL)
  for (int i = 0; i < Loss::kGradients; ++i) full[i] = broadcast_to(p.inputs[i], p.full);
  with_float(dtype, [&](auto t) {
    using T = decltype(t);
    run(2 * elementwise_nanoseconds(full[0]), [&] {
      const T* upstream = grad.data == nullptr ? nullptr : contiguous<T>(context, grad);
      std::array<const T*, kMostGradients> x{};
      std::array<T*, kMostGradients> dx{};
      for (int i = 0; i < Loss::kGradients; ++i) {
        x[i] = contiguous<T>(context, full[i]);
        if (gradients[i].data == nullptr) continue;
        dx[i] = p.inputs[i].shape == p.full ? gradients[i].template as<T>()
                                            : context.workspace->take<T>(p.full.product());
      }
      p.compute(context, loss.as<T>(), dx, upstream, x);
      for (int i = 0; i < Loss::kGradients; ++i) {
        if (dx[i] == nullptr || p.inputs[i].shape == p.full) continue;
        sum_to_shape(context, gradients[i].template as<T>(), dx[i], p.full, p.inputs[i].shape);
      }
    });
  });
  return {loss, {gradients[0].owner, gradients[1].owner, gradients[2].owner}};
}

template <size_t>
using Handle = py::handle;

// `names` are those of the constructor's arguments after the op's name.
template <class Loss, size_t kCount, size_t... I>
void def_row_loss(py::module_& m, const std::string& name,
                  const std::array<const char*, kCount>& names, std::index_sequence<I...>) {
  const auto gather = [](const Wanted& wanted, const RowLossResult& r) {
    return wanted.gather({r.gradients[0], r.gradients[1], r.gradients[2]});
  };
  m.def(
      name.c_str(),
      [op = name](Handle<I>... given, py::handle out) {
        CallContext context;
        const Loss p(op.c_str(), given...);
        const Tensor loss = compute_row_loss(p, {.loss = true, .out = out}, *context).loss;
        return out.is_none() ? scalar_or_array(loss) : loss.owner;
      },
      py::arg(names[I])..., py::arg("out"));
  m.def((name + "_backward").c_str(),
        [op = name + "_backward", gather](py::handle grad_output, Handle<I>... given,
                                          py::handle wrt, py::handle out) {
          CallContext context;
          const Loss p(op.c_str(), given...);
          const Wanted wanted = Loss::wanted(wrt, op.c_str());
          return gather(wanted, compute_row_loss(
                                    p, {.wanted = &wanted, .grad_output = grad_output, .out = out},
                                    *context));
        },
        py::arg("grad_output"), py::arg(names[I])..., py::arg("wrt"), py::arg("out"));
  m.def((name + "_value_and_grad").c_str(),
        [op = name + "_value_and_grad", gather](Handle<I>... given, py::handle wrt) {
          CallContext context;
          const Loss p(op.c_str(), given...);
          const Wanted wanted = Loss::wanted(wrt, op.c_str());
          const RowLossResult r = compute_row_loss(p, {.loss = true, .wanted = &wanted}, *context);
          return py::make_tuple(scalar_or_array(r.loss), gather(wanted, r));
        },
        py::arg(names[I])..., py::arg("wrt"));
}

template <class Loss, size_t kCount>
void def_row_loss(py::module_& m, const std::string& name, const char* const (&names)[kCount]) {
  std::array<const char*, kCount> copy;
  std::copy(std::begin(names), std::end(names), copy.begin());
  def_row_loss<Loss>(m, name, copy, std::make_index_sequence<kCount>());
}

}  // namespace tilegrad::TILEGRAD_BACKEND
