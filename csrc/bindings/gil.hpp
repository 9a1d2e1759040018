// SPDX-License-Identifier: MIT
// Native work without Python's global lock.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

namespace tilegrad::TILEGRAD_BACKEND {

// Gives up the GIL for the length of a scope. When the interpreter ends while a daemon thread is
// inside, Python before 3.14 unwinds the thread that asks for the GIL again: out of a destructor,
// which would end the process. Such a thread sleeps until the process ends, as in Python 3.14.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {  // no exception: pthread_exit
      for (;;) pause();
    }
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace tilegrad::TILEGRAD_BACKEND
