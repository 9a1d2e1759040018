// SPDX-License-Identifier: MIT
// Objects of bound classes, made so that an allocation that fails is a MemoryError. Where pybind11
// enters a new object in its books, such a failure would free the value twice, or leave a
// constructor that C has called.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

namespace tilegrad::TILEGRAD_BACKEND {

// An instance without a value; null with Python's error set where there is no memory.
inline PyObject* new_instance(PyTypeObject* type, PyObject* = nullptr, PyObject* = nullptr) {
  PyObject* object = type->tp_alloc(type, 0);
  if (object != nullptr) {
    reinterpret_cast<pybind11::detail::instance*>(object)->allocate_layout();
  }
  return object;
}

// Gives an instance its value.
template <class T>
void settle(pybind11::detail::value_and_holder& instance, std::unique_ptr<T> value) {
  instance.value_ptr() = value.get();
  try {
    instance.type->init_instance(instance.inst, &value);
  } catch (...) {
    instance.value_ptr() = nullptr;  // still the unique_ptr's
    throw;
  }
}

// As pybind11::cast(std::move(value)).
template <class T>
pybind11::object new_object(std::unique_ptr<T> value) {
  const auto* type = pybind11::detail::get_type_info(typeid(T), true);
  auto object = pybind11::reinterpret_steal<pybind11::object>(new_instance(type->type));
  if (!object) throw pybind11::error_already_set();
  auto* instance = reinterpret_cast<pybind11::detail::instance*>(object.ptr());
  instance->owned = true;
  auto place = instance->get_value_and_holder(type);
  settle(place, std::move(value));
  return object;
}

// As cls.def(pybind11::init<>()).
template <class T>
void define_constructor(pybind11::class_<T>& cls) {
  reinterpret_cast<PyTypeObject*>(cls.ptr())->tp_new = new_instance;
  cls.def(
      "__init__",
      [](pybind11::detail::value_and_holder& self) { settle(self, std::make_unique<T>()); },
      pybind11::detail::is_new_style_constructor());
}

}  // namespace tilegrad::TILEGRAD_BACKEND
