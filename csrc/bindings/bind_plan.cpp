// SPDX-License-Identifier: MIT
// Plan: a recorded list of op calls over fixed buffers, run as one native call. A training step is
// recorded once for each shape and dtype of its batch and replayed with the GIL released; on a GPU
// the same list is what a CUDA graph captures. The calls are those of the long form, so the bits
// are too.
#include <functional>
#include <memory>
#include <vector>

#include "cross_entropy_problem.hpp"
#include "families.hpp"
#include "optim_tensors.hpp"
#include "replay.hpp"
#include "step_buffer.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

class Plan {
 public:
  Plan() = default;
  Plan(const Plan&) = delete;  // recorded calls hold its address
  Plan& operator=(const Plan&) = delete;

  // Declares an array that stands for whatever run() is given in its place: calls recorded with it
  // (or with a reshaped view of it) read the memory of that run's array.
  void input(py::handle placeholder) {
    const Tensor tensor = take(placeholder, "input");
    inputs_.push_back({tensor.data, tensor.dtype, tensor.shape, tensor.data});
  }

  void linear(py::handle y, py::handle z, py::handle x, py::handle weight, py::handle bias,
              py::handle activation, py::handle args) {
    const Activation f = parse_activation(activation, args, "linear");
    const Tensor w = take(weight, "weight");
    const LinearSize size = linear_size(take(x, "input"), w);
    record(w.dtype, [&](auto t) -> Call {
      using T = decltype(t);
      return [=, y = at<T>(y), z = at<T>(z), x = at<const T>(x), w = at<const T>(weight),
              b = at<const T>(bias)](Context& context) {
        tilegrad::TILEGRAD_BACKEND::linear(context, y(), z(), x(), w(), b(), size, f);
      };
    });
  }

  void linear_backward(py::handle dx, py::handle dweight, py::handle dbias, py::handle dy,
                       py::handle x, py::handle weight, py::handle saved, bool saved_is_output,
                       py::handle activation, py::handle args) {
    const Activation f = parse_activation(activation, args, "linear_backward");
    const Tensor w = take(weight, "weight");
    const LinearSize size = linear_size(take(x, "input"), w);
    record(w.dtype, [&](auto t) -> Call {
      using T = decltype(t);
      return [=, this, dx = at<T>(dx), dw = at<T>(dweight), db = at<T>(dbias), dy = at<const T>(dy),
              x = at<const T>(x), w = at<const T>(weight),
              saved = at<const T>(saved)](Context& context) {
        tilegrad::TILEGRAD_BACKEND::linear_backward(context, dx(), dw(), db(), dy(), x(), w(),
                                                    saved(), saved_is_output, size, f, accumulate_);
      };
    });
  }

  void activation(py::handle y, py::handle x, py::handle name, py::handle args) {
    const Activation f = parse_activation(name, args, "activation");
    const Tensor of = take(y, "output");
    record(of.dtype, [&](auto t) -> Call {
      using T = decltype(t);
      return [f, n = of.size(), y = at<T>(y), x = at<const T>(x)](Context& context) {
        tilegrad::TILEGRAD_BACKEND::activation(context, y(), x(), n, f);
      };
    });
  }

  void activation_backward(py::handle dx, py::handle dy, py::handle saved, bool saved_is_output,
                           py::handle name, py::handle args) {
    const Activation f = parse_activation(name, args, "activation_backward");
    const Tensor of = take(dx, "dx");
    record(of.dtype, [&](auto t) -> Call {
      using T = decltype(t);
      return [f, saved_is_output, n = of.size(), dx = at<T>(dx), dy = at<const T>(dy),
              saved = at<const T>(saved)](Context& context) {
        tilegrad::TILEGRAD_BACKEND::activation_backward(context, dx(), dy(), saved(),
                                                        saved_is_output, n, f);
      };
    });
  }

  void softmax(py::handle y, py::handle x, int axis, bool log) {
    const Tensor of = take(y, "output");
    const ClassShape shape = class_shape(of, axis);
    record(of.dtype, [&](auto t) -> Call {
      using T = decltype(t);
      return [shape, log, y = at<T>(y), x = at<const T>(x)](Context& context) {
        tilegrad::TILEGRAD_BACKEND::softmax(context, y(), x(), shape, log);
      };
    });
  }

  void softmax_backward(py::handle dx, py::handle dy, py::handle y, int axis, bool log) {
    const Tensor of = take(dx, "dx");
    const ClassShape shape = class_shape(of, axis);
    record(of.dtype, [&](auto t) -> Call {
      using T = decltype(t);
      return
          [shape, log, dx = at<T>(dx), dy = at<const T>(dy), y = at<const T>(y)](Context& context) {
            tilegrad::TILEGRAD_BACKEND::softmax_backward(context, dx(), dy(), y(), shape, log);
          };
    });
  }

  // Forward or backward; `offset` counts from the generator's offset at the start of the step.
  void dropout(py::handle y, py::handle x, double p, uint64_t offset, py::object state) {
    const Tensor of = take(y, "output");
    const StepState* step = take_state(state);
    record(of.dtype, [&](auto t) -> Call {
      using T = decltype(t);
      return [p, offset, step, n = of.size(), y = at<T>(y), x = at<const T>(x)](Context& context) {
        tilegrad::TILEGRAD_BACKEND::dropout(context, y(), x(), n, p, offset, step);
      };
    });
  }

  void cross_entropy(py::handle loss, py::handle dlogits, py::handle logits, py::handle target,
                     py::handle weight, py::handle ignore_index, py::handle reduction,
                     py::handle label_smoothing) {
    constexpr const char* kOp = "cross_entropy";
    const CrossEntropyProblem p(kOp, logits, target, weight, ignore_index, reduction,
                                label_smoothing);
    take(loss, "loss");
    take(weight, "weight");
    CallContext context;
    context.at(p.logits.place);
    record(p.logits.dtype, [&](auto t) -> Call {
      using T = decltype(t);
      return [problem = p.native<T>(*context), by_index = p.by_index, loss = at<T>(loss),
              dlogits = at<T>(dlogits), logits = at<const T>(logits),
              target = at<const void>(target)](Context& context) mutable {
        problem.logits = logits();
        if (by_index) {
          problem.indices.data = target();
        } else {
          problem.probabilities = static_cast<const T*>(target());
        }
        compute_cross_entropy(kOp, context, loss(), dlogits(), static_cast<const T*>(nullptr),
                              problem);
      };
    });
  }

  void mse_loss(py::handle loss, py::handle dinput, py::handle input, py::handle target,
                py::handle reduction) {
    const Tensor of = take(dinput, "dinput");
    const Reduction reduce = parse_reduction(reduction, "mse_loss");
    check_shape(take(target, "target"), of.shape, "mse_loss", "target");
    record(of.dtype, [&](auto t) -> Call {
      using T = decltype(t);
      return [reduce, n = of.size(), loss = at<T>(loss), dinput = at<T>(dinput),
              input = at<const T>(input), target = at<const T>(target)](Context& context) {
        tilegrad::TILEGRAD_BACKEND::mse_loss<T>(context, loss(), dinput(), nullptr, nullptr,
                                                input(), target(), nullptr, n, reduce);
      };
    });
  }

  // Writes the coefficient into every state of the update, so that clipping costs no pass.
  void clip_scale(py::handle grads, double max_norm, py::handle states) {
    auto tensors = take_tensors("clip_grad_norm_", py::none(), grads);
    std::vector<StepState*> targets;
    for (py::handle state : states) {
      targets.push_back(take_state(py::reinterpret_borrow<py::object>(state)));
    }
    check(!targets.empty(), "clip_grad_norm_: there is no update to scale; got {} states", 0);
    record(tensors->dtype(), [&](auto t) -> Call {
      using T = decltype(t);
      return [=](Context& context) {
        const auto& list = tensors->list<T>();
        T* const norm = context.workspace->take<T>(1);
        StepState* const first = targets.front();
        tilegrad::TILEGRAD_BACKEND::clip_scale(context, first, norm, list.data(), std::ssize(list),
                                               NormKind::two, max_norm);
        for (StepState* state : targets) {
          if (state == first) continue;
          copy_bytes(context, &state->grad_scale, &first->grad_scale, sizeof(first->grad_scale));
        }
      };
    });
  }

  void sgd_step(py::handle params, py::handle grads, py::handle buffers, double momentum,
                double dampening, double weight_decay, bool nesterov, bool maximize,
                py::object state) {
    auto tensors = take_tensors("sgd_step", params, grads, buffers);
    const SgdOptions options{momentum, dampening, weight_decay, nesterov, maximize};
    const StepState* step = take_state(state);
    record(tensors->dtype(), [&](auto t) -> Call {
      return [=](Context& context) {
        const auto& list = tensors->list<decltype(t)>();
        tilegrad::TILEGRAD_BACKEND::sgd_step(context, list.data(), std::ssize(list), options, step);
      };
    });
  }

  void adam_step(py::handle params, py::handle grads, py::handle means, py::handle squares,
                 py::handle max_squares, double beta1, double beta2, double eps,
                 double weight_decay, bool decoupled, bool maximize, py::object state) {
    auto tensors = take_tensors("adam_step", params, grads, means, squares, max_squares);
    const AdamOptions options{beta1,   beta2, eps, weight_decay, decoupled, !max_squares.is_none(),
                              maximize};
    const StepState* step = take_state(state);
    record(tensors->dtype(), [&](auto t) -> Call {
      return [=](Context& context) {
        const auto& list = tensors->list<decltype(t)>();
        tilegrad::TILEGRAD_BACKEND::adam_step(context, list.data(), std::ssize(list), options,
                                              step);
      };
    });
  }

  // Replays the calls on this batch. With accumulate, gradients of parameters are added to.
  void run(py::handle batch, bool accumulate) {
    const auto arrays = py::cast<py::tuple>(batch);
    check(arrays.size() == inputs_.size(), "TrainStep: takes {} arrays; got {}", inputs_.size(),
          arrays.size());
    const Running running(running_);
    CallContext context;
    context.at(place_);
    std::vector<Tensor> alive;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      Input& input = inputs_[i];
      alive.push_back(read_batch(arrays[i], "TrainStep"));
      const Tensor& tensor = alive.back();
      check_type(tensor.dtype == input.dtype, "TrainStep: a batch must be {}; got {}",
                 dtype_name(input.dtype), dtype_name(tensor.dtype));
      check_shape(tensor, input.shape, "TrainStep", "a batch");
      input.data = bind_batch(*context, tensor, input.placeholder);
    }
    for (StepBuffer* state : states_) state->upload(*context);
    if ((*context).stream != stream_) {  // its buffers are in use there from now on
      stream_ = (*context).stream;
      for (const py::object& owner : owners_) note_use(owner);
    }
    accumulate_ = accumulate;
    py::gil_scoped_release released;
    replay_.run(*context, accumulate, [&](Context& target) {
      for (const Call& call : calls_) {
        WorkspaceScope scope(target);
        call(target);
      }
    });
  }

 private:
  // The buffers are one step's: a second thread must not enter meanwhile. Under the GIL.
  class Running {
   public:
    explicit Running(bool& flag) : flag_(flag) {
      if (flag_) throw std::runtime_error("TrainStep: this step is already running in a thread");
      flag_ = true;
    }
    ~Running() { flag_ = false; }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    bool& flag_;
  };

  using Call = std::function<void(Context&)>;

  struct Input {
    void* placeholder;
    DType dtype;
    Dims shape;
    void* data;  // of the current run
  };

  // A fixed address, or that of an input of the current run.
  template <class T>
  struct Pointer {
    void* fixed;
    const Plan* plan;
    int input;  // -1: fixed
    T* operator()() const {
      return static_cast<T*>(input < 0 ? fixed : plan->inputs_[static_cast<size_t>(input)].data);
    }
  };

  template <class T>
  Pointer<T> at(py::handle object) {
    if (object.is_none()) return {nullptr, this, -1};
    const Tensor tensor = take(object, "a buffer");
    if constexpr (!std::is_void_v<T>) {
      const DType wanted = sizeof(T) == sizeof(double) ? DType::float64 : DType::float32;
      check_type(tensor.dtype == wanted,
                 "TrainStep: floating inputs must share one dtype; got {} and {}",
                 dtype_name(tensor.dtype), dtype_name(wanted));
    }
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (inputs_[i].placeholder == tensor.data) return {nullptr, this, static_cast<int>(i)};
    }
    return {tensor.data, this, -1};
  }

  Tensor take(py::handle object, const char* name) {
    if (object.is_none()) return {};
    Tensor tensor = read(object, "Plan", name);
    check_type(tensor.contiguous, "Plan: {} must be C-contiguous", name);
    place_ = tensor.place;
    owners_.push_back(tensor.owner);
    return tensor;
  }

  template <class... Lists>
  std::shared_ptr<OptimTensors> take_tensors(const char* op, Lists... lists) {
    auto tensors = std::make_shared<OptimTensors>(op, lists...);
    place_ = tensors->place();
    owners_.insert(owners_.end(), tensors->owners().begin(), tensors->owners().end());
    return tensors;
  }

  StepState* take_state(const py::object& state) {
    CallContext context;
    context.at(place_);
    owners_.push_back(state);
    auto& buffer = state.cast<StepBuffer&>();
    states_.push_back(&buffer);
    return buffer.memory();
  }

  template <class Make>
  void record(DType dtype, Make&& make) {
    calls_.push_back(with_float(dtype, make));
  }

  static LinearSize linear_size(const Tensor& x, const Tensor& weight) {
    return {x.shape.product(0, x.shape.count - 1), weight.shape[1], weight.shape[0]};
  }

  static ClassShape class_shape(const Tensor& x, int axis) {
    return {x.shape.product(0, axis), x.shape[axis], x.shape.product(axis + 1, x.shape.count)};
  }

  std::vector<Input> inputs_;
  std::vector<Call> calls_;
  std::vector<py::object> owners_;  // keeps buffers and states alive
  std::vector<StepBuffer*> states_;
  Replay replay_;
  int place_ = kFirstPlace;
  void* stream_ = nullptr;  // of the last run
  bool accumulate_ = false;
  bool running_ = false;
};

}  // namespace

void bind_plan(py::module_& m) {
  py::class_<Plan>(m, "Plan", py::module_local())
      .def(py::init<>())
      .def("input", &Plan::input, py::arg("placeholder"))
      .def("linear", &Plan::linear, py::arg("y"), py::arg("z"), py::arg("x"), py::arg("weight"),
           py::arg("bias"), py::arg("activation"), py::arg("activation_args"))
      .def("linear_backward", &Plan::linear_backward, py::arg("dx"), py::arg("dweight"),
           py::arg("dbias"), py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("saved"),
           py::arg("saved_is_output"), py::arg("activation"), py::arg("activation_args"))
      .def("activation", &Plan::activation, py::arg("y"), py::arg("x"), py::arg("activation"),
           py::arg("activation_args"))
      .def("activation_backward", &Plan::activation_backward, py::arg("dx"), py::arg("dy"),
           py::arg("saved"), py::arg("saved_is_output"), py::arg("activation"),
           py::arg("activation_args"))
      .def("softmax", &Plan::softmax, py::arg("y"), py::arg("x"), py::arg("axis"), py::arg("log"))
      .def("softmax_backward", &Plan::softmax_backward, py::arg("dx"), py::arg("dy"), py::arg("y"),
           py::arg("axis"), py::arg("log"))
      .def("dropout", &Plan::dropout, py::arg("y"), py::arg("x"), py::arg("p"), py::arg("offset"),
           py::arg("state"))
      .def("cross_entropy", &Plan::cross_entropy, py::arg("loss"), py::arg("dlogits"),
           py::arg("logits"), py::arg("target"), py::arg("weight"), py::arg("ignore_index"),
           py::arg("reduction"), py::arg("label_smoothing"))
      .def("mse_loss", &Plan::mse_loss, py::arg("loss"), py::arg("dinput"), py::arg("input"),
           py::arg("target"), py::arg("reduction"))
      .def("clip_scale", &Plan::clip_scale, py::arg("grads"), py::arg("max_norm"),
           py::arg("states"))
      .def("sgd_step", &Plan::sgd_step, py::arg("params"), py::arg("grads"),
           py::arg("momentum_buffers"), py::arg("momentum"), py::arg("dampening"),
           py::arg("weight_decay"), py::arg("nesterov"), py::arg("maximize"), py::arg("state"))
      .def("adam_step", &Plan::adam_step, py::arg("params"), py::arg("grads"), py::arg("means"),
           py::arg("squares"), py::arg("max_squares"), py::arg("beta1"), py::arg("beta2"),
           py::arg("eps"), py::arg("weight_decay"), py::arg("decoupled"), py::arg("maximize"),
           py::arg("state"))
      .def("run", &Plan::run, py::arg("batch"), py::arg("accumulate"));
}

}  // namespace tilegrad::TILEGRAD_BACKEND
