# The simulator: the sources of ../csrc/cuda compiled as C++, once plainly for _sim and once with
# memory accesses traced for _sim_trace. Everything but the kernels is the same object in both.
file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS csrc/cuda/*.cu)
list(FILTER cuda_sources EXCLUDE REGEX "conformance\\.cu$")
file(GLOB sim_sources CONFIGURE_DEPENDS csrc/sim/*.cpp)

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
  TILEGRAD_BACKEND=sim TILEGRAD_SIM=1 TILEGRAD_HALF=1 TILEGRAD_CUDA_ARCHITECTURES="sim")
target_include_directories(tilegrad_sim_flags INTERFACE csrc/sim/include)
target_link_libraries(tilegrad_sim_flags INTERFACE tilegrad_flags)

# fmaf without these is a call of libm, ten times slower.
set(sim_kernel_options -Wno-unknown-pragmas)  # unroll
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND sim_kernel_options -mavx2 -mfma)
endif()

add_library(tilegrad_sim_common OBJECT ${binding_sources} ${device_sources} ${sim_sources})
target_include_directories(tilegrad_sim_common PRIVATE csrc/bindings/device)
target_link_libraries(tilegrad_sim_common PRIVATE tilegrad_sim_flags pybind11::module)

function(add_simulator name)
  add_library(${name}_kernels OBJECT ${sim_kernel_sources})
  target_compile_options(${name}_kernels PRIVATE ${sim_kernel_options} ${ARGN})
  target_link_libraries(${name}_kernels PRIVATE tilegrad_sim_flags)
  add_module(${name} $<TARGET_OBJECTS:tilegrad_sim_common> $<TARGET_OBJECTS:${name}_kernels>)
  target_link_libraries(${name} PRIVATE tilegrad_sim_flags)
endfunction()
add_simulator(_sim)
