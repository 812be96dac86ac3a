# LibTorch is the PyPI wheel torch==2.11.0 (scripts/setup). The wheel's own CMake package insists on a CUDA toolkit; a
# CPU build needs two of its libraries only, so they are named here.
file(GLOB torch_homes LIST_DIRECTORIES true "${TROUPE_DEPS}/python/lib/python3*/site-packages/torch")
if(NOT torch_homes)
  message(FATAL_ERROR "LibTorch is not in ${TROUPE_DEPS}: run scripts/setup first")
endif()
list(GET torch_homes 0 TORCH_HOME)
get_filename_component(TROUPE_SITE_PACKAGES "${TORCH_HOME}" DIRECTORY)

add_library(torch_cpu SHARED IMPORTED)
set_target_properties(torch_cpu PROPERTIES IMPORTED_LOCATION "${TORCH_HOME}/lib/libtorch_cpu.so")
add_library(torch_c10 SHARED IMPORTED)
set_target_properties(torch_c10 PROPERTIES IMPORTED_LOCATION "${TORCH_HOME}/lib/libc10.so")

add_library(troupe_torch INTERFACE)
target_include_directories(troupe_torch SYSTEM INTERFACE
  "${TORCH_HOME}/include" "${TORCH_HOME}/include/torch/csrc/api/include")
target_link_libraries(troupe_torch INTERFACE torch_cpu torch_c10)
# libtorch_cpu.so itself needs the CUDA runtime and CUPTI, found through its own run path in the wheels beside it. CMake
# adds the run path of the build tree by itself, and takes it out again on install.
target_link_options(troupe_torch INTERFACE -Wl,--allow-shlib-undefined)
target_compile_options(troupe_torch INTERFACE -fopenmp)
# One OpenMP runtime in a process: the wheel's own.
target_link_libraries(troupe_torch INTERFACE "${TORCH_HOME}/lib/libgomp.so.1")

# NCCL's process group is in libtorch_cuda.so, which loads all of CUDA's libraries: such a binary wants the full set of
# wheels (or a toolkit with cuDNN and NCCL) where it runs.
if(TROUPE_CUDA)
  foreach(part torch_cuda c10_cuda)
    add_library(${part} SHARED IMPORTED)
    set_target_properties(${part} PROPERTIES IMPORTED_LOCATION "${TORCH_HOME}/lib/lib${part}.so")
    target_link_libraries(troupe_torch INTERFACE ${part})
  endforeach()
endif()
