// kvasirctl against a service of the test's own, over a socket.
#ifndef KVASIR_TESTS_CLIENT_FAKE_DAEMON_H_
#define KVASIR_TESTS_CLIENT_FAKE_DAEMON_H_

#include <chrono>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "client/ctl/commands.h"

#include <stdlib.h>

namespace kvasir::ctl {

// `Service`: what answers; the test sets it up through `admin_`.
template <typename Service>
class FakeDaemonTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/kvasirctl_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + Socket(), grpc::InsecureServerCredentials());
    builder.RegisterService(&admin_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  void TearDown() override {
    server_->Shutdown(std::chrono::system_clock::now());
    std::filesystem::remove_all(folder_);
  }

  std::string Socket() const { return folder_ + "/control.sock"; }
  int Run(std::vector<std::string> arguments) {
    std::ostringstream out, err;
    const int code = RunKvasirctl(std::move(arguments), {.socket = Socket()}, out, err);
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  std::string folder_, out_, err_;
  Service admin_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace kvasir::ctl

#endif  // KVASIR_TESTS_CLIENT_FAKE_DAEMON_H_
