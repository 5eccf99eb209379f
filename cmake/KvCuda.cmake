# The GPU parts, only with KVASIR_WITH_CUDA: kv_cuda_library / kv_cuda_test, and kvasir_cuda_parts, which builds all of them
# and nothing else. Any nvcc on PATH or in CUDACXX will do; ./dev setup --cuda fetches one.
#
# The runtime is linked statically and no driver library is: one program runs with and without a GPU, and finds the
# driver's own entry points by cudaGetDriverEntryPointByVersion. docs/adr/0032-cuda-build.md has the reasons.
set(CMAKE_CUDA_ARCHITECTURES "80-real;90-real;90-virtual" CACHE STRING "A100, H100, and PTX for what comes after")
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
# CMake 3.25 does not know that nvcc can, and refuses the standard; and before it knows the compiler any standard.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
# CMake 3.25 deprecates a target that toolkits of today no longer have, unless it is there.
if(NOT TARGET CUDA::nvToolsExt)
  add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
endif()
find_package(CUDAToolkit 12.5 REQUIRED)  # the first with cudaGetDriverEntryPointByVersion

# Host code in .cu files is warned about as ours is. Not -Wconversion: what nvcc makes of a kernel launch converts.
add_library(kv_cuda_flags INTERFACE)
target_compile_options(kv_cuda_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow>"
  "$<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${KVASIR_WERROR}>>:-Werror=all-warnings>"
  # Products are rounded before they are added, as in the host's code: results are compared bit for bit. Where one
  # rounding is wanted the source says fma.
  "$<$<COMPILE_LANGUAGE:CUDA>:-fmad=false>"
  # std::bit_cast, std::min and the like, which are constexpr, in device code.
  "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>")
target_link_libraries(kv_cuda_flags INTERFACE CUDA::cudart_static)
# The toolkit's headers are no code of ours.
target_include_directories(kv_cuda_flags SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})

# The least compute capability that there is code for, as 80 of 8.0.
string(REGEX MATCHALL "[0-9]+" KVASIR_CUDA_CAPABILITIES "${CMAKE_CUDA_ARCHITECTURES}")
list(SORT KVASIR_CUDA_CAPABILITIES COMPARE NATURAL)
if(KVASIR_CUDA_CAPABILITIES)
  list(GET KVASIR_CUDA_CAPABILITIES 0 KVASIR_CUDA_LEAST_CAPABILITY)
else()  # native, all, ...: what a kernel says when it is asked for decides
  set(KVASIR_CUDA_LEAST_CAPABILITY 0)
endif()

add_custom_target(kvasir_cuda_parts)

# kv_cuda_library(<name> SOURCES ... HEADERS ... DEPS ...): kv_library whose sources, .cu or .cc, may use the CUDA runtime.
function(kv_cuda_library name)
  kv_library(${name} ${ARGN})
  target_link_libraries(${name} PUBLIC kv_cuda_flags)
  add_dependencies(kvasir_cuda_parts ${name})
endfunction()

# kv_cuda_test(<file without .cc> LABELS ... DEPS ... [NAME program] [TIMEOUT s]): kv_test that needs a GPU, and skips with
# the reason where there is none. Its label is gpu, besides those given.
function(kv_cuda_test file)
  cmake_parse_arguments(A "" "NAME;TIMEOUT" "LABELS;DEPS" ${ARGN})
  get_filename_component(name ${file} NAME)
  if(A_NAME)
    set(name ${A_NAME})
  endif()
  kv_test(${file} NAME ${name} LABELS ${A_LABELS} gpu TIMEOUT ${A_TIMEOUT} DEPS ${A_DEPS} kv_cuda_flags)
  # One at a time: they share one GPU's memory.
  set_tests_properties(${name} PROPERTIES RESOURCE_LOCK gpu)
  add_dependencies(kvasir_cuda_parts ${name})
endfunction()

# kv_cuda_executable(<name> SOURCES ... DEPS ...): kv_executable that may use the CUDA runtime.
function(kv_cuda_executable name)
  kv_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE kv_cuda_flags)
  add_dependencies(kvasir_cuda_parts ${name})
endfunction()
