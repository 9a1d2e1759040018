# The CUDA backend, where nvcc is: TILEGRAD_CUDA = AUTO (if it is found), ON (an error if not), OFF.
set(TILEGRAD_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
# Each costs a wheel about 2 MB. 8.6 and 8.9 run the machine code of 8.0; what is newer than 9.0 its
# PTX, which the driver compiles once and keeps (docs/packaging.md).
set(TILEGRAD_CUDA_ARCHITECTURES "75-real;80-real;90a-real;80-virtual"
  CACHE STRING "What the CUDA kernels are compiled for")
if(TILEGRAD_CUDA STREQUAL OFF)
  return()
endif()

foreach(entry ${TILEGRAD_CUDA_ARCHITECTURES})
  if(NOT entry MATCHES "^[1-9][0-9]+[af]?(-real|-virtual)?$")
    message(FATAL_ERROR "TILEGRAD_CUDA_ARCHITECTURES takes numbers such as 80-real; got ${entry}")
  elseif(entry MATCHES "^90(-|$)")
    message(FATAL_ERROR "TILEGRAD_CUDA_ARCHITECTURES: the kernels for 9.0 need 90a; got ${entry}")
  endif()
endforeach()
set(CMAKE_CUDA_ARCHITECTURES ${TILEGRAD_CUDA_ARCHITECTURES})
string(REPLACE ";" "," built "${TILEGRAD_CUDA_ARCHITECTURES}")  # a list would be split
# The toolkit of pip (cuda-toolkit[nvcc,cccl]==13.0.*) lies in site-packages and is on no path; its
# nvcc looks for libraries in lib64, but they come in lib.
if(NOT DEFINED ENV{CUDACXX})
  file(GLOB pip_toolkits "$ENV{VIRTUAL_ENV}/lib/python3.*/site-packages/nvidia/cu13/bin")
  find_program(TILEGRAD_NVCC nvcc PATHS ${pip_toolkits} ${Python_SITELIB}/nvidia/cu13/bin)
  if(TILEGRAD_NVCC)
    set(ENV{CUDACXX} ${TILEGRAD_NVCC})
  endif()
endif()
if("$ENV{CUDACXX}" MATCHES "^(.*/nvidia/cu13)/bin/nvcc$")
  set(ENV{LIBRARY_PATH} "${CMAKE_MATCH_1}/lib:$ENV{LIBRARY_PATH}")  # while CMake tries the compiler
  link_directories(${CMAKE_MATCH_1}/lib)
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(TILEGRAD_CUDA STREQUAL ON)
    message(FATAL_ERROR "TILEGRAD_CUDA=ON, but there is no nvcc (set CUDACXX to it)")
  endif()
  message(WARNING "tilegrad: CPU and simulator only: no nvcc was found. For CUDA: pip install "
    "'cuda-toolkit[nvcc,cccl]==13.0.*' in the active environment, or set CUDACXX; then build again")
  return()
endif()
enable_language(CUDA)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
# Some releases of CMake do not know that nvcc has C++20.
foreach(kind STANDARD EXTENSION)
  if(NOT CMAKE_CUDA20_${kind}_COMPILE_OPTION)
    set(CMAKE_CUDA20_${kind}_COMPILE_OPTION "-std=c++20")
  endif()
endforeach()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

# A spill, a register request that is ignored or any other advice of ptxas is an error.
add_library(tilegrad_cuda STATIC ${cuda_sources})
target_compile_definitions(tilegrad_cuda PUBLIC
  TILEGRAD_BACKEND=cuda TILEGRAD_HALF=1 TILEGRAD_CUDA_ARCHITECTURES="${built}")
string(REPLACE ";" "," host_hardening "${hardening}")
target_compile_options(tilegrad_cuda PRIVATE
  -O3 --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra,-fno-gnu-unique,-Wno-psabi
  -Xcompiler=${host_hardening}
  --compress-mode=size -Xptxas=-v,-warn-spills $<$<BOOL:${TILEGRAD_WERROR}>:-Werror=all-warnings>)
set_target_properties(tilegrad_cuda PROPERTIES CUDA_VISIBILITY_PRESET hidden)

# Registers, stack and shared memory of every kernel, for tests/test_cuda_build.py.
set_target_properties(tilegrad_cuda PROPERTIES CUDA_COMPILER_LAUNCHER
  "${Python_EXECUTABLE};${CMAKE_SOURCE_DIR}/cmake/ptxas_log.py")

add_module(_cuda ${binding_sources} ${device_sources})
target_include_directories(_cuda PRIVATE
  csrc/bindings/device ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_link_libraries(_cuda PRIVATE tilegrad_cuda tilegrad_flags)
