# kv_library / kv_executable / kv_test / kv_bench: the only ways a target is made, so flags live in one place.
option(KVASIR_WERROR "Warnings are errors" OFF)
option(KVASIR_FUZZ "Build libFuzzer programs (clang only)" OFF)
set(KVASIR_SANITIZE "" CACHE STRING "e.g. address,undefined or thread")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)  # -std=c++20, not gnu++20
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

# What installed libraries hand on to their users is the include folder alone: warnings are our rules.
add_library(kv_flags INTERFACE)
set(KVASIR_WARNINGS "-Wall;-Wextra;-Wconversion;-Wshadow;-Wnon-virtual-dtor")
target_compile_options(kv_flags INTERFACE
  "$<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CXX>:${KVASIR_WARNINGS}>>"
  "$<BUILD_INTERFACE:$<$<AND:$<BOOL:${KVASIR_WERROR}>,$<COMPILE_LANGUAGE:C,CXX>>:-Werror>>"
  "$<BUILD_INTERFACE:$<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wthread-safety>>")
target_compile_features(kv_flags INTERFACE cxx_std_20)
target_include_directories(kv_flags INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/kvasir>)
if(KVASIR_FUZZ)
  target_compile_options(kv_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(KVASIR_SANITIZE)
  target_compile_options(kv_flags INTERFACE -fsanitize=${KVASIR_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=undefined
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)  # a guess, which the checks' own code misleads
  target_link_options(kv_flags INTERFACE -fsanitize=${KVASIR_SANITIZE})
  # What a check says when it fails lies in data that stays when the linker drops the function's copy: half a program,
  # unless every piece is a section that can be dropped.
  target_compile_options(kv_flags INTERFACE -ffunction-sections -fdata-sections)
  target_link_options(kv_flags INTERFACE $<BUILD_INTERFACE:-Wl,--gc-sections>)
  # The same data is all addresses: a program that lies at a fixed place has no list of them.
  target_link_options(kv_flags INTERFACE
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>>:-no-pie>)
endif()

# Some 200 programs are linked, most of them tests: lld takes a quarter of the time that ld takes.
find_program(KVASIR_LLD ld.lld)
if(KVASIR_LLD)
  target_link_options(kv_flags INTERFACE $<BUILD_INTERFACE:-fuse-ld=lld>)
endif()

# kv_library(<name> SOURCES ... HEADERS ... DEPS ...): also compiles every header on its own: those with
# a source file of the same name there, where tests/tidy has them included first, the others here.
# The headers are what cmake/KvInstall.cmake installs when the client library needs this one.
function(kv_library name)
  cmake_parse_arguments(A "" "" "SOURCES;HEADERS;DEPS" ${ARGN})
  set(checks "")
  foreach(header ${A_HEADERS})
    string(REGEX REPLACE "\\.h$" ".cc" source ${header})
    if(source IN_LIST A_SOURCES)
      continue()
    endif()
    file(RELATIVE_PATH path ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/${header})
    string(MAKE_C_IDENTIFIER ${path} id)
    set(tu ${CMAKE_CURRENT_BINARY_DIR}/check_${id}.cc)
    file(CONFIGURE OUTPUT ${tu} CONTENT "#include \"${path}\"\n")
    list(APPEND checks ${tu})
  endforeach()
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PUBLIC kv_flags ${A_DEPS})
  set_property(TARGET ${name} PROPERTY KVASIR_SOURCE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
  set_property(TARGET ${name} PROPERTY KVASIR_HEADERS ${A_HEADERS})
  if(checks AND NOT KVASIR_SANITIZE)  # once is enough: a header compiles alone or it does not
    add_library(${name}_headers OBJECT ${checks})
    target_link_libraries(${name}_headers PRIVATE ${name})
    target_compile_options(${name}_headers PRIVATE -O0 -g0)  # nobody runs it
  endif()
endfunction()

# kv_executable(<name> SOURCES ... DEPS ...): a program; it lands in build/<preset>/bin.
function(kv_executable name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE kv_flags ${A_DEPS})
endfunction()

# kv_test(<file without .cc> LABELS fast|slow;unit|integration|... DEPS ... [NAME program] [TIMEOUT s] [COMPUTES])
# COMPUTES: the test's own lines take time, and are optimised under sanitizers as well.
function(kv_test file)
  cmake_parse_arguments(A "COMPUTES" "NAME;TIMEOUT" "LABELS;DEPS" ${ARGN})
  get_filename_component(name ${file} NAME)
  if(A_NAME)
    set(name ${A_NAME})
  endif()
  add_executable(${name} ${file}.cc)
  target_link_libraries(${name} PRIVATE kv_flags ${A_DEPS} GTest::gmock_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  if(KVASIR_SANITIZE)
    # What is looked for is in the libraries; optimising a test's own lines is a third of the build's time.
    if(NOT A_COMPUTES)
      target_compile_options(${name} PRIVATE -O0)
    endif()
    math(EXPR A_TIMEOUT "${A_TIMEOUT} * 3")
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT}
    SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\].*\n.*\\[  PASSED  \\] 0 tests")
endfunction()
