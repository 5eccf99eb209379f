// kvasirctl resize: sizes as the configuration has them, and what the daemon has reached.
#include <algorithm>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "kvasir/v1/admin.grpc.pb.h"
#include "tests/client/fake_daemon.h"

#include <nlohmann/json.hpp>

namespace kvasir::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A GiB is in use.
class FakeAdmin final : public v1::Admin::Service {
 public:
  grpc::Status SetPoolSize(grpc::ServerContext*, const v1::SetPoolSizeRequest* request,
                           v1::SetPoolSizeResponse* response) override {
    if (request->pool_bytes() > kTiB) {
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, "the host has too little memory for the pool"};
    }
    response->set_asked_bytes(request->pool_bytes());
    response->set_reached_bytes(std::max(request->pool_bytes(), kGiB));
    if (request->pool_bytes() < kGiB) response->add_holders()->set_tenant("a");
    return grpc::Status::OK;
  }

 private:
  static constexpr uint64_t kTiB = kGiB << 10;
};

using ResizeTest = FakeDaemonTest<FakeAdmin>;

TEST_F(ResizeTest, SaysWhatWasReachedAndWhoHasTheRest) {
  EXPECT_EQ(Run({"resize", "--pool-bytes=2GiB"}), 0);
  EXPECT_EQ(out_, "the pool has 2.00 GiB\n");
  EXPECT_EQ(Run({"resize", "--pool-bytes", "512MiB"}), 0);
  EXPECT_THAT(out_, AllOf(StartsWith("the pool may have 512.0 MiB and has 1.00 GiB still: "),
                          HasSubstr("\nTENANT "), HasSubstr("\na ")));
  EXPECT_EQ(Run({"resize", "--pool-bytes=4096B", "--output=json"}), 0);
  EXPECT_EQ(nlohmann::json::parse(out_)["asked_bytes"], "4096");
}

TEST_F(ResizeTest, TheDaemonsRefusalFails) {
  EXPECT_EQ(Run({"resize", "--pool-bytes=2TiB"}), 1);
  EXPECT_EQ(err_, "kvasirctl: the host has too little memory for the pool\n");
}

TEST_F(ResizeTest, WhatIsNoSizeIsWrongUsage) {
  for (const char* size : {"", "1", "-1MiB", "1MB", "1.5GiB", "99999999TiB"}) {
    EXPECT_EQ(Run({"resize", std::string("--pool-bytes=") + size}), 2) << size;
  }
  EXPECT_EQ(Run({"resize"}), 2);
}

}  // namespace
}  // namespace kvasir::ctl
