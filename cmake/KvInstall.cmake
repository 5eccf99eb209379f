# What `cmake --install` puts where: programs, the client library for other projects (CMake package
# and pkg-config file), and the llama.cpp libraries that kvasir-generate needs. deploy/CMakeLists.txt
# installs units, configuration and completion. Included last, when all targets exist.
include(CMakePackageConfigHelpers)

# The client library and all of ours that it links. Before client/ has a target, its foundations.
set(install_libraries "")
set(install_modules "")  # pkg-config modules that they link: consumers must find them again
if(TARGET kv_client)
  set(queue kv_client)
else()
  set(queue kv_shm kv_proto kv_base)
endif()
while(queue)
  list(POP_FRONT queue library)
  if(NOT TARGET ${library})
    continue()
  endif()
  # Users of libraries stand before what they use, as a static link line wants it.
  list(REMOVE_ITEM install_libraries ${library})
  list(APPEND install_libraries ${library})
  get_target_property(dependencies ${library} LINK_LIBRARIES)
  foreach(dependency ${dependencies})
    if(dependency STREQUAL "kv_flags")
      continue()
    elseif(dependency MATCHES "^kv_")
      list(APPEND queue ${dependency})
    elseif(dependency MATCHES "^PkgConfig::(.+)$")
      list(APPEND install_modules ${CMAKE_MATCH_1})
    endif()
  endforeach()
endwhile()
list(REMOVE_DUPLICATES install_modules)

set(client_include ${CMAKE_INSTALL_INCLUDEDIR}/kvasir)
foreach(library ${install_libraries})
  get_target_property(from ${library} KVASIR_SOURCE_DIR)
  get_target_property(headers ${library} KVASIR_HEADERS)
  foreach(header ${headers})
    # Kept under the path that the sources use, so that #include "client/view.h" works for users.
    if(from MATCHES "^${PROJECT_BINARY_DIR}")
      set(path ${header})
    else()
      file(RELATIVE_PATH path ${PROJECT_SOURCE_DIR} ${from}/${header})
    endif()
    get_filename_component(folder ${path} DIRECTORY)
    install(FILES ${from}/${header} DESTINATION ${client_include}/${folder} COMPONENT client)
  endforeach()
endforeach()
if(TARGET kv_client)
  set_property(TARGET kv_client PROPERTY EXPORT_NAME client)
endif()
install(TARGETS ${install_libraries} kv_flags EXPORT kvasir
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/kvasir)
install(EXPORT kvasir NAMESPACE kvasir:: FILE kvasir-targets.cmake DESTINATION ${package_dir}
  COMPONENT client)
set(KVASIR_PKG_CHECKS "")
set(KVASIR_PC_MODULES "")
foreach(module ${install_modules})
  string(APPEND KVASIR_PKG_CHECKS
    "pkg_check_modules(${module} REQUIRED IMPORTED_TARGET ${${module}_MODULE_NAME})\n")
  string(APPEND KVASIR_PC_MODULES " ${${module}_MODULE_NAME}")
endforeach()
set(KVASIR_LINK_TARGETS ${install_libraries})
list(TRANSFORM KVASIR_LINK_TARGETS PREPEND "kvasir::")
configure_package_config_file(cmake/kvasir-config.cmake.in ${PROJECT_BINARY_DIR}/kvasir-config.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/kvasir-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kvasir-config.cmake
  ${PROJECT_BINARY_DIR}/kvasir-config-version.cmake DESTINATION ${package_dir} COMPONENT client)

set(KVASIR_PC_LIBS ${install_libraries})
list(TRANSFORM KVASIR_PC_LIBS PREPEND "-l")
list(JOIN KVASIR_PC_LIBS " " KVASIR_PC_LIBS)
# Relative to the file, so that the installed tree can be moved.
file(RELATIVE_PATH KVASIR_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/kvasir.pc.in ${PROJECT_BINARY_DIR}/kvasir.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/kvasir.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
  COMPONENT client)

# Programs. Those that use llama.cpp find it beside them: it is no Debian package, so it comes along.
foreach(program kvasird kvasirctl kvasir-conformance kvasir-generate kvasir-replay)
  if(TARGET ${program})
    set_target_properties(${program} PROPERTIES
      INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}/kvasir")
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT daemon)
  endif()
endforeach()
if(TARGET kvasir-generate)
  get_filename_component(llama_libraries ${llama_DIR}/../.. ABSOLUTE)
  install(DIRECTORY ${llama_libraries}/ DESTINATION ${CMAKE_INSTALL_LIBDIR}/kvasir
    COMPONENT daemon FILES_MATCHING PATTERN "lib*.so*" PATTERN cmake EXCLUDE
    PATTERN pkgconfig EXCLUDE)
endif()
