# The simulator: the sources of ../csrc/cuda compiled as C++, once plainly for _sim and once with
# memory accesses traced for _sim_trace. Everything but the kernels is the same object in both.
file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS csrc/cuda/*.cu)
list(FILTER cuda_sources EXCLUDE REGEX "conformance\\.cu$")
file(GLOB sim_sources CONFIGURE_DEPENDS csrc/sim/*.cpp)
file(GLOB trace_sources CONFIGURE_DEPENDS csrc/sim/trace*.cpp)
list(REMOVE_ITEM sim_sources ${trace_sources})

# One and the same .cu file belongs to two languages: here a C++ file of one line includes it.
set(sim_kernel_sources)
foreach(source ${cuda_sources})
  file(RELATIVE_PATH stem ${CMAKE_SOURCE_DIR}/csrc/cuda ${source})
  set(wrapper ${CMAKE_BINARY_DIR}/sim/${stem}.cpp)
  file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${source}\"\n")
  list(APPEND sim_kernel_sources ${wrapper})
endforeach()

add_library(tilegrad_sim_flags INTERFACE)
target_compile_definitions(tilegrad_sim_flags INTERFACE
  TILEGRAD_BACKEND=sim TILEGRAD_SIM=1 TILEGRAD_HALF=1 TILEGRAD_CUDA_ARCHITECTURES="75,80,90a")
target_include_directories(tilegrad_sim_flags INTERFACE csrc/sim/include)
target_link_libraries(tilegrad_sim_flags INTERFACE tilegrad_flags)

# fmaf without these is a call of libm, ten times slower.
# Line tables: a trace names the lines of kernels and so does the report of a fault, but in _sim of a
# wheel they are stripped (2.5 MB of it): there the report gives the offset in the module.
set(sim_kernel_options -Wno-unknown-pragmas -g1 -gz)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND sim_kernel_options -mavx2 -mfma)
endif()

add_library(tilegrad_sim_common OBJECT ${binding_sources} ${device_sources} ${sim_sources})
target_include_directories(tilegrad_sim_common PRIVATE csrc/bindings/device)
target_link_libraries(tilegrad_sim_common PRIVATE tilegrad_sim_flags pybind11::module)

function(add_kernels name)
  add_library(${name}_kernels OBJECT ${sim_kernel_sources})
  target_compile_options(${name}_kernels PRIVATE ${sim_kernel_options} ${ARGN})
  target_link_libraries(${name}_kernels PRIVATE tilegrad_sim_flags)
endfunction()

add_kernels(_sim)
add_module(_sim $<TARGET_OBJECTS:tilegrad_sim_common> $<TARGET_OBJECTS:_sim_kernels>)
target_link_libraries(_sim PRIVATE tilegrad_sim_flags)
# Both modules export the same names, for kernels in libraries of their own; each uses its own.
target_link_options(_sim PRIVATE -gz -Wl,-Bsymbolic)
# What `tilegrad.sim.compile` compiles a kernel with.
install(FILES csrc/sim/collective.hpp csrc/sim/kernel_library.hpp csrc/sim/registers.hpp
  csrc/sim/trace_hooks.hpp DESTINATION tilegrad/_sources/csrc/sim)
install(DIRECTORY csrc/sim/include DESTINATION tilegrad/_sources/csrc/sim)

# Each memory access of a kernel calls one of trace_callbacks.cpp's functions, as the source has it:
# not merged, not vectorised. The sanitizer's own runtime is not linked.
if(TILEGRAD_SANITIZE)
  return()
endif()
set(trace_options -fsanitize=thread)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  list(APPEND trace_options -fno-tree-vectorize -fno-tree-slp-vectorize -fno-store-merging
    --param=tsan-instrument-func-entry-exit=0)
else()
  list(APPEND trace_options -fno-vectorize -fno-slp-vectorize
    "SHELL:-mllvm -tsan-instrument-func-entry-exit=0"
    "SHELL:-mllvm -tsan-instrument-read-before-write=1")
endif()
add_kernels(_sim_trace ${trace_options})
# The kernels come last: of a template that others use too, the linker takes the first.
add_module(_sim_trace ${trace_sources}
  $<TARGET_OBJECTS:tilegrad_sim_common> $<TARGET_OBJECTS:_sim_trace_kernels>)
target_compile_definitions(_sim_trace PRIVATE TILEGRAD_TRACE=1)
target_link_libraries(_sim_trace PRIVATE tilegrad_sim_flags)
target_link_options(_sim_trace PRIVATE -gz -Wl,-Bsymbolic)
# The sources that the line tables name, for `tilegrad trace`.
install(DIRECTORY csrc/cuda DESTINATION tilegrad/_sources/csrc
  FILES_MATCHING PATTERN "*.cu" PATTERN "*.cuh" PATTERN "*.hpp")
