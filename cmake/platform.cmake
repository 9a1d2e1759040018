# What is built where. What has not been tried is said here, before the first file is compiled.
if(CMAKE_SIZEOF_VOID_P LESS 8)
  message(FATAL_ERROR "tilegrad: needs a 64-bit Python; this one is for ${CMAKE_SYSTEM_PROCESSOR}")
endif()
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang" OR CMAKE_CXX_COMPILER_FRONTEND_VARIANT STREQUAL MSVC)
  message(FATAL_ERROR "tilegrad: the kernels use the vector types of GCC and Clang, which "
    "${CMAKE_CXX_COMPILER} does not know; set CXX to g++ or clang++ (also on Windows)")
endif()
execute_process(
  COMMAND ${Python_EXECUTABLE} -c
    "import sys, sysconfig; print(sys.implementation.name, sysconfig.get_config_var('Py_GIL_DISABLED') or 0)"
  OUTPUT_VARIABLE interpreter OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT interpreter MATCHES "^cpython ")
  message(FATAL_ERROR "tilegrad: works with CPython; ${Python_EXECUTABLE} is ${interpreter}")
elseif(NOT interpreter STREQUAL "cpython 0")
  message(FATAL_ERROR "tilegrad: free-threaded Python is not supported: some state is guarded by the "
    "GIL alone (docs/packaging.md lists it); use a Python with the GIL, not ${Python_EXECUTABLE}")
endif()

# The simulator switches stacks, reads its own ELF files and catches SIGSEGV in Linux's way.
set(TILEGRAD_CPU_ONLY OFF)
if(NOT CMAKE_SYSTEM_NAME STREQUAL Linux)
  set(TILEGRAD_CPU_ONLY ON)
  message(WARNING "tilegrad: on ${CMAKE_SYSTEM_NAME} only the CPU is built, without simulator and "
    "CUDA, and nobody has tried it (docs/packaging.md)")
endif()
