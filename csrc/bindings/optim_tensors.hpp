// SPDX-License-Identifier: MIT
// A list of parameters with their gradients and optimiser buffers, read from Python lists.
#pragma once

#include <vector>

#include "arrays.hpp"

namespace tilegrad::TILEGRAD_BACKEND {

// Lists of arrays of one length, or None for what an op or its options do not use.
struct StepLists {
  py::handle params = py::none(), grads = py::none();
  py::handle first = py::none(), second = py::none(), third = py::none();
  // The bfloat16 parameters that `params` are the masters of, None for each other one.
  py::handle rounded = py::none();
};

class OptimTensors {
 public:
  OptimTensors(const char* op, const StepLists& lists) {
    const auto& [params, grads, first, second, third, rounded] = lists;
    const py::list gradients = py::cast<py::list>(grads);
    const size_t count = gradients.size();
    for (py::handle list : {params, first, second, third, rounded}) {
      check(list.is_none() || py::len(list) == count,
            "{}: every list must hold one array a gradient, {}; got {}", op, count,
            list.is_none() ? 0 : py::len(list));
    }
    for (size_t i = 0; i < count; ++i) {
      const Tensor grad = read_float(gradients[i], op, "a gradient");
      if (i == 0) dtype_ = grad.dtype;
      place_ = grad.place;
      check_type(grad.dtype == dtype_ && grad.contiguous,
                 "{}: gradients must be C-contiguous and share one dtype, {}; got {}", op,
                 dtype_name(dtype_), dtype_name(grad.dtype));
      owners_.push_back(grad.owner);
      const auto writable = [&](py::handle item, DType dtype) -> void* {
        const Tensor tensor = make_result(item, grad.shape, dtype, op, {});
        owners_.push_back(tensor.owner);
        return tensor.data;
      };
      const auto buffer = [&](py::handle list) {
        return list.is_none() ? nullptr : writable(list[py::int_(i)], dtype_);
      };
      void* const w = buffer(params);
      void* const m = buffer(first);
      void* const v = buffer(second);
      void* const u = buffer(third);
      bfloat16* half = nullptr;
      if (const py::object item = item_of(rounded, i); !item.is_none()) {
        check_type(dtype_ == DType::float32,
                   "{}: gradients of bfloat16 parameters must have dtype float32; got {}", op,
                   dtype_name(dtype_));
        half = static_cast<bfloat16*>(writable(item, DType::bfloat16));
      }
      elements_ += grad.size();
      with_float(dtype_, [&](auto t) {
        using T = decltype(t);
        list<T>().push_back({static_cast<T*>(w), grad.as<const T>(), static_cast<T*>(m),
                             static_cast<T*>(v), static_cast<T*>(u), grad.size(), half});
      });
    }
  }

  DType dtype() const { return dtype_; }
  int place() const { return place_; }
  int64_t elements() const { return elements_; }
  const std::vector<py::object>& owners() const { return owners_; }  // keeps the arrays alive
  template <class T>
  std::vector<OptimTensor<T>>& list() {
    if constexpr (sizeof(T) == sizeof(double)) {
      return of_double_;
    } else {
      return of_float_;
    }
  }

 private:
  static py::object item_of(py::handle list, size_t i) {
    return list.is_none() ? py::none() : py::object(list[py::int_(i)]);
  }

  DType dtype_ = DType::float32;
  int place_ = kFirstPlace;
  int64_t elements_ = 0;
  std::vector<OptimTensor<float>> of_float_;
  std::vector<OptimTensor<double>> of_double_;
  std::vector<py::object> owners_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
