// SPDX-License-Identifier: MIT
// Elementwise losses: operands that broadcast, a reduction, a gradient for each.
#include "elementwise_loss.hpp"
#include "families.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

// Of input and target, both with a gradient unless said otherwise.
constexpr LossRow row(const char* name, LossKind kind, LossShapes shapes,
                      LossWeight weight = LossWeight::none, const char* number = nullptr,
                      int gradients = 2) {
  return {name, kind, {"input", "target"}, gradients, 1, shapes, weight, number};
}
constexpr auto kBroadcast = LossShapes::broadcast;
constexpr LossRow kRows[] = {
    row("mse_loss", LossKind::mse, kBroadcast, LossWeight::like_input),
    row("l1_loss", LossKind::l1, kBroadcast, LossWeight::like_input),
    row("smooth_l1_loss", LossKind::smooth_l1, kBroadcast, LossWeight::none, "beta"),
    row("huber_loss", LossKind::huber, kBroadcast, LossWeight::like_input, "delta"),
    row("binary_cross_entropy", LossKind::binary_cross_entropy, LossShapes::same,
        LossWeight::broadcast),
    {"binary_cross_entropy_with_logits",
     LossKind::binary_cross_entropy_with_logits,
     {"input", "target", "pos_weight"},
     2,
     0b001,
     LossShapes::same,
     LossWeight::broadcast},
    row("poisson_nll_loss", LossKind::poisson_nll, kBroadcast, LossWeight::none, "eps"),
    {"gaussian_nll_loss",
     LossKind::gaussian_nll,
     {"input", "target", "var"},
     3,
     0b101,
     LossShapes::variance,
     LossWeight::none,
     "eps"},
    row("kl_div", LossKind::kl_div, kBroadcast),
    {"margin_ranking_loss",
     LossKind::margin_ranking,
     {"input1", "input2", "target"},
     3,
     0b011,
     LossShapes::same_axes,
     LossWeight::none,
     "margin"},
    row("hinge_embedding_loss", LossKind::hinge_embedding, kBroadcast, LossWeight::none, "margin",
        1),
    row("soft_margin_loss", LossKind::soft_margin, kBroadcast, LossWeight::none, nullptr, 1),
};

// A number is a variance without axes; an array may lack input's last axis, along which it is then
// the same.
Tensor read_variance(Context& context, const Tensor& input, py::handle object, const char* op) {
  if (PyFloat_Check(object.ptr())) {
    Tensor number = empty({}, input.dtype, op);
    const double value = parse_number(object, op, "var");
    check(!(value < 0), "{}: var must be at least 0; got {}", op, value);
    with_any_float(input.dtype, [&](auto t) { fill(context, number.as<decltype(t)>(), 1, value); });
    return number;
  }
  const Tensor var = read_like(input, object, op, "var");
  const int count = input.shape.count;
  if (count > 0 && var.shape == input.shape.slice(0, count - 1)) return var;
  int odd = 0;
  bool fits = var.shape.count == count;
  for (int axis = 0; fits && axis < count; ++axis) {
    if (var.shape[axis] == input.shape[axis]) continue;
    fits = var.shape[axis] == 1;
    ++odd;
  }
  check(fits && odd <= 1,
        "{}: var must have input's shape {}, that without its last axis, or 1 in one axis; got {}",
        op, input.shape, var.shape);
  return var;
}

struct Problem {
  const char* op;
  const LossRow& row;
  LossFunction function;
  Tensor operands[3];  // with the axes by which they are broadcast
  Tensor weight;
  Dims shapes[3];  // of the operands as they are given
  int count;       // of operands
  Dims full;       // the broadcast shape
  Dims result;     // the loss: full for reduction "none", else ()
  Reduction reduction;
  double divisor;

  Problem(Context& context, const char* op, const LossRow& row, py::handle a, py::handle b,
          py::handle c, py::handle weight_object, py::handle number, py::handle logarithm,
          py::handle is_full, py::handle reduction_name)
      : op(op),
        row(row),
        function(parse_loss(row, number, logarithm, is_full, op)),
        count(c.is_none() ? 2 : 3) {
    Tensor& input = operands[0];
    input = read_float(a, op, row.operands[0], Floats::all);
    operands[1] = read_like(input, b, op, row.operands[1]);
    if (row.shapes == LossShapes::variance) {
      operands[2] = read_variance(context, input, c, op);
    } else if (count == 3) {
      operands[2] = read_like(input, c, op, row.operands[2]);
    }
    for (int i = 0; i < count; ++i) shapes[i] = operands[i].shape;
    Tensor& var = operands[2];
    if (row.shapes == LossShapes::variance && var.shape.count + 1 == input.shape.count) {
      var.shape.push(1);
      var.strides.push(1);
    }
    broadcast();
    if (!weight_object.is_none()) read_weight(weight_object);
    const bool batch = row.kind == LossKind::kl_div && py::isinstance<py::str>(reduction_name) &&
                       text_of(reduction_name) == "batchmean";
    reduction = batch ? Reduction::mean : parse_reduction(reduction_name, op);
    divisor = static_cast<double>(full.product());
    if (batch) divisor = input.shape.count == 0 ? 1 : static_cast<double>(input.shape[0]);
    if (reduction == Reduction::none) result = full;
  }

  bool has_weight() const { return weight.owner.ptr() != nullptr; }

 private:
  void broadcast() {
    const Dims& input = shapes[0];
    full = input;
    for (int i = 1; i < count; ++i) {
      const char* const name = row.operands[i];
      if (row.shapes == LossShapes::same && i == 1) {
        check(shapes[i] == input, "{}: {} must have input's shape {}; got {}", op, name, input,
              shapes[i]);
      }
      check(row.shapes != LossShapes::same_axes || shapes[i].count == input.count,
            "{}: all operands must have as many axes; {} is {}, {} is {}", op, row.operands[0],
            input, name, shapes[i]);
      full = broadcast_shapes(full, operands[i].shape, op,
                              i == 1 && count == 2 ? "input and target" : "the operands");
    }
    check(row.shapes != LossShapes::same || full == input,
          "{}: pos_weight must broadcast to input's shape {}; got {}", op, input, shapes[2]);
  }

  void read_weight(py::handle object) {
    const Dims& input = shapes[0];
    weight = read_like(operands[0], object, op, "weight");
    if (row.weight == LossWeight::broadcast) {
      check(broadcast_shapes(weight.shape, input, op, "weight and input") == input,
            "{}: weight must broadcast to input's shape {}; got {}", op, input, weight.shape);
      return;
    }
    check_shape(weight, input, op, "weight");
    check(full == input, "{}: with weight, target must broadcast to input's shape {}; got {}", op,
          input, shapes[1]);
  }
};

// Loss and the wanted gradients in one pass. A gradient is computed in the broadcast shape and
// summed back to its operand's.
struct Computed {
  Tensor loss;
  py::object gradients[3];
};

Computed compute(CallContext& context, const Problem& p, bool want_loss, const Wanted* wanted,
                 py::handle grad_output, py::handle out) {
  Tensor grad;
  if (grad_output.ptr() != nullptr)
    grad = read_grad_output(*context, p.operands[0], grad_output, p.result, p.op);
  Tensor loss, grads[3];
  const DType dtype = p.operands[0].dtype;
  if (want_loss) {
    loss = make_result(wanted == nullptr ? out : py::handle(py::none()), p.result, dtype, p.op,
                       {&p.operands[0], &p.operands[1], &p.operands[2], &p.weight});
  }
  for (int i = 0; i < p.row.gradients; ++i) {
    if (wanted == nullptr || !(*wanted)[i]) continue;
    grads[i] = make_result(
        want_loss ? py::none() : wanted->out(out, i, p.op), p.shapes[i], dtype, p.op,
        {&p.operands[0], &p.operands[1], &p.operands[2], &p.weight, &grad, &grads[0], &grads[1]});
  }
  with_any_float(dtype, [&](auto t) {
    using T = decltype(t);
    using V = LossNumber<T>;
    const int64_t n = p.full.product(), results = p.result.product();
    Tensor full[3];
    for (int i = 0; i < p.count; ++i) full[i] = broadcast_to(p.operands[i], p.full);
    const Tensor full_weight = p.has_weight() ? broadcast_to(p.weight, p.full) : Tensor{};
    run(elementwise_nanoseconds(full[0]), [&] {
      const auto read = [&](const Tensor& x, int64_t count) -> const V* {
        return x.data == nullptr ? nullptr
                                 : widened<T>(*context, contiguous<T>(*context, x), count);
      };
      ElementwiseLoss<V> problem{p.function,
                                 read(full[0], n),
                                 read(full[1], n),
                                 p.count == 3 ? read(full[2], n) : nullptr,
                                 p.has_weight() ? read(full_weight, n) : nullptr,
                                 n,
                                 p.reduction,
                                 p.divisor,
                                 p.row.divides_by_weight() && p.has_weight()};
      V* const value = room_for(*context, loss.as<T>(), results);
      V* values[3] = {nullptr, nullptr, nullptr};  // gradients in the broadcast shape
      for (int i = 0; i < 3; ++i) {
        if (grads[i].data == nullptr) continue;
        values[i] = p.operands[i].shape == p.full ? room_for(*context, grads[i].as<T>(), n)
                                                  : (*context).workspace->template take<V>(n);
      }
      compute_loss(p.op, *context, value, values, read(grad, results), problem);
      narrowed(*context, loss.as<T>(), value, results);
      for (int i = 0; i < 3; ++i) {
        if (values[i] == nullptr) continue;
        const int64_t count = p.operands[i].shape.product();
        V* summed = values[i];
        if (p.operands[i].shape != p.full) {
          summed = room_for(*context, grads[i].as<T>(), count);
          sum_to_shape(*context, summed, values[i], p.full, p.operands[i].shape);
        }
        narrowed(*context, grads[i].as<T>(), summed, count);
      }
    });
  });
  return {loss, {grads[0].owner, grads[1].owner, grads[2].owner}};
}

// A variance that is a number has no gradient.
Wanted parse_wrt(const LossRow& row, py::handle wrt, py::handle c, const char* op) {
  const int count = PyFloat_Check(c.ptr()) ? 2 : row.gradients;
  return {wrt, row.operands, count, row.default_wrt & ((1u << count) - 1), op};
}

}  // namespace

const LossRow& loss_row(const std::string& name) {
  for (const LossRow& row : kRows) {
    if (name == row.name) return row;
  }
  throw std::invalid_argument("no elementwise loss: " + name);
}

LossFunction parse_loss(const LossRow& row, py::handle number, py::handle logarithm,
                        py::handle full, const char* op) {
  LossFunction loss{row.kind};
  if (row.number != nullptr) loss.number = parse_number(number, op, row.number);
  loss.logarithm =
      parse_flag(logarithm, op, row.kind == LossKind::kl_div ? "log_target" : "log_input");
  loss.full = parse_flag(full, op, "full");
  if (row.kind == LossKind::smooth_l1) {
    check(loss.number >= 0, "{}: beta must be at least 0; got {}", op, loss.number);
    if (loss.number == 0) loss.kind = LossKind::l1;
  }
  check(row.kind != LossKind::huber || loss.number > 0, "{}: delta must be above 0; got {}", op,
        loss.number);
  return loss;
}

void bind_losses(py::module_& m) {
  for (const LossRow& row : kRows) {
    m.def(
        row.name,
        [&row](py::handle a, py::handle b, py::handle c, py::handle weight, py::handle number,
               py::handle logarithm, py::handle full, py::handle reduction, py::handle out) {
          CallContext context;
          const Problem p(*context, row.name, row, a, b, c, weight, number, logarithm, full,
                          reduction);
          const Tensor loss = compute(context, p, true, nullptr, {}, out).loss;
          return out.is_none() ? scalar_or_array(loss) : loss.owner;
        },
        py::arg("a"), py::arg("b"), py::arg("c"), py::arg("weight"), py::arg("number"),
        py::arg("logarithm"), py::arg("full"), py::arg("reduction"), py::arg("out"));

    const std::string backward_name = std::string(row.name) + "_backward";
    m.def(
        backward_name.c_str(),
        [&row, op = backward_name](py::handle grad_output, py::handle a, py::handle b, py::handle c,
                                   py::handle weight, py::handle number, py::handle logarithm,
                                   py::handle full, py::handle reduction, py::handle wrt,
                                   py::handle out) {
          CallContext context;
          const Problem p(*context, op.c_str(), row, a, b, c, weight, number, logarithm, full,
                          reduction);
          const Wanted wanted = parse_wrt(row, wrt, c, p.op);
          const Computed result = compute(context, p, false, &wanted, grad_output, out);
          return wanted.gather({result.gradients[0], result.gradients[1], result.gradients[2]});
        },
        py::arg("grad_output"), py::arg("a"), py::arg("b"), py::arg("c"), py::arg("weight"),
        py::arg("number"), py::arg("logarithm"), py::arg("full"), py::arg("reduction"),
        py::arg("wrt"), py::arg("out"));

    const std::string both_name = std::string(row.name) + "_value_and_grad";
    m.def(
        both_name.c_str(),
        [&row, op = both_name](py::handle a, py::handle b, py::handle c, py::handle weight,
                               py::handle number, py::handle logarithm, py::handle full,
                               py::handle reduction, py::handle wrt) {
          CallContext context;
          const Problem p(*context, op.c_str(), row, a, b, c, weight, number, logarithm, full,
                          reduction);
          const Wanted wanted = parse_wrt(row, wrt, c, p.op);
          const Computed result = compute(context, p, true, &wanted, {}, py::none());
          return py::make_tuple(
              scalar_or_array(result.loss),
              wanted.gather({result.gradients[0], result.gradients[1], result.gradients[2]}));
        },
        py::arg("a"), py::arg("b"), py::arg("c"), py::arg("weight"), py::arg("number"),
        py::arg("logarithm"), py::arg("full"), py::arg("reduction"), py::arg("wrt"));
  }
}

}  // namespace tilegrad::TILEGRAD_BACKEND
