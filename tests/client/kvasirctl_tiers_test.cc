// kvasirctl tiers and drain.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kvasir/v1/admin.grpc.pb.h"
#include "tests/client/fake_daemon.h"

#include <nlohmann/json.hpp>

namespace kvasir::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class FakeAdmin final : public v1::Admin::Service {
 public:
  grpc::Status DrainPrefixes(grpc::ServerContext*, const v1::DrainPrefixesRequest* request,
                             v1::DrainPrefixesResponse* response) override {
    if (request->tenant() == "b") return {grpc::StatusCode::NOT_FOUND, "unknown tenant"};
    response->set_stored(2);
    response->set_not_stored(1);
    response->set_memory_only(5);
    return grpc::Status::OK;
  }

  grpc::Status ListTiers(grpc::ServerContext*, const v1::ListTiersRequest*,
                         v1::ListTiersResponse* response) override {
    if (!has_tiers) return grpc::Status::OK;
    v1::TierInfo* const disk = response->add_tiers();
    disk->set_tier("disk");
    disk->set_capacity_bytes(1 << 30);
    disk->set_held_bytes(1 << 20);
    (*disk->mutable_reads())["hit"] = 9;
    (*disk->mutable_reads())["corrupt"] = 3;
    v1::TierTenant* const tenant = disk->add_tenants();
    tenant->set_tenant("a");
    tenant->set_prefixes(7);
    v1::TierInfo* const remote = response->add_tiers();
    remote->set_tier("remote");
    remote->set_left_out(true);
    return grpc::Status::OK;
  }

  bool has_tiers = true;
};

using TiersTest = FakeDaemonTest<FakeAdmin>;

TEST_F(TiersTest, EachIsALineAndItsTenantsATable) {
  EXPECT_EQ(Run({"tiers"}), 0) << err_;
  EXPECT_THAT(out_, AllOf(HasSubstr("disk: in use, 1.0 MiB of 1.00 GiB taken"),
                          HasSubstr("blocks not read: 3 corrupt\n"), HasSubstr("TENANT"),
                          HasSubstr("remote: left out, it fails, written")));
  EXPECT_EQ(Run({"tiers", "--output=json"}), 0);
  EXPECT_EQ(nlohmann::json::parse(out_)["tiers"][0]["tenants"][0]["prefixes"], "7");
  admin_.has_tiers = false;
  EXPECT_EQ(Run({"tiers"}), 0);
  EXPECT_EQ(out_, "no tiers\n");
}

TEST_F(TiersTest, ADrainSaysWhatWasWritten) {
  EXPECT_EQ(Run({"drain", "--tenant=a"}), 0) << err_;
  EXPECT_EQ(out_, "2 prefixes in every tier, 1 not in every one, 5 in forms that stay in memory\n");
  EXPECT_EQ(Run({"drain"}), 0);
  EXPECT_EQ(Run({"drain", "--tenant=b"}), 1);
  EXPECT_THAT(err_, HasSubstr("unknown tenant"));
}

}  // namespace
}  // namespace kvasir::ctl
