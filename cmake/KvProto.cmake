# kv_proto_library(<name> <file.proto>...): generates C++ and gRPC code into the build tree.
function(kv_proto_library name)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/gen)
  file(MAKE_DIRECTORY ${out})
  set(sources "")
  foreach(proto ${ARGN})
    string(REPLACE ".proto" "" stem ${proto})
    set(made ${out}/${stem}.pb.cc ${out}/${stem}.pb.h ${out}/${stem}.grpc.pb.cc ${out}/${stem}.grpc.pb.h)
    add_custom_command(OUTPUT ${made}
      COMMAND protobuf::protoc --proto_path=${CMAKE_CURRENT_SOURCE_DIR} --cpp_out=${out} --grpc_out=${out}
              --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin> ${proto}
      DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${proto} WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} VERBATIM)
    list(APPEND sources ${out}/${stem}.pb.cc ${out}/${stem}.grpc.pb.cc)
  endforeach()
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} SYSTEM PUBLIC $<BUILD_INTERFACE:${out}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/kvasir>)
  set_property(TARGET ${name} PROPERTY KVASIR_SOURCE_DIR ${out})
  string(REPLACE ".cc" ".h" headers "${sources}")
  list(TRANSFORM headers REPLACE "^${out}/" "")
  set_property(TARGET ${name} PROPERTY KVASIR_HEADERS ${headers})
  target_link_libraries(${name} PUBLIC gRPC::grpc++ protobuf::libprotobuf)
endfunction()
