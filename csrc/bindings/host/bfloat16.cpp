// SPDX-License-Identifier: MIT
#include "bfloat16.hpp"

#include <string>

#include "../../check.hpp"

namespace tilegrad::TILEGRAD_BACKEND {
namespace {

constexpr int kFirstUserType = 256;  // NPY_USERDEF: numbers from here on are given at run time

int known_number = -1;  // under the GIL

}  // namespace

bool is_bfloat16(const py::dtype& dtype) {
  const int number = dtype.num();
  if (number < kFirstUserType) return false;  // a plain or structured void of 2 bytes, too
  if (number == known_number) return true;
  if (dtype.itemsize() != 2 || py::str(dtype.attr("name")).cast<std::string>() != "bfloat16") {
    return false;
  }
  known_number = number;
  return true;
}

py::dtype bfloat16_dtype(const char* op) {
  const auto& api = py::detail::npy_api::get();
  if (known_number < 0) {
    try {
      const py::object type = py::module_::import("ml_dtypes").attr("bfloat16");
      known_number = py::dtype::from_args(type).num();
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_ImportError)) throw;
      throw TypeError(
          format("{}: NumPy's bfloat16 comes from ml_dtypes; pip install "
                 "'tilegrad[bf16]', or cast to float32",
                 op));
    }
  }
  PyObject* dtype = api.PyArray_DescrFromType_(known_number);
  if (dtype == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::dtype>(dtype);
}

}  // namespace tilegrad::TILEGRAD_BACKEND
