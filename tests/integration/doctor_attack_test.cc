// kvasirctl doctor --attack on a daemon with two tenants of other users: everything is refused; and
// where the two users are of one tenant, much succeeds, and the verdict says so.
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "tests/integration/users_fixture.h"

namespace kvasir::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint32_t kVictimUid = 12001, kAttackerUid = 12002, kStrangerUid = 12003;

class DoctorAttackTest : public UsersFixture {
 protected:
  struct Result {
    int exit_code = 0;
    std::string output, errors;
  };
  Result Doctor(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(),
                     {SiblingProgram("kvasirctl"), "--socket=" + run_ + "/control.sock", "doctor"});
    ChildProcess doctor(arguments, {});
    Result result;
    while (const auto line = doctor.ReadLine()) result.output += *line + "\n";
    result.exit_code = doctor.Wait();
    result.errors = doctor.ReadErrors();
    return result;
  }
  static std::string Users(uint32_t victim, uint32_t attacker) {
    return "--attack-users=" + std::to_string(victim) + "," + std::to_string(attacker);
  }
};

TEST_F(DoctorAttackTest, EverythingIsRefused) {
  const Config config = MakeConfig({{"team-victim", {kVictimUid}, 16 * kMiB, "full"},
                                    {"team-thief", {kAttackerUid}, 16 * kMiB, "full"}});
  ASSERT_TRUE(StartLogged(config));
  const Result result = Doctor({"--attack", Users(kVictimUid, kAttackerUid)});
  EXPECT_EQ(result.exit_code, 0) << result.output << result.errors;
  EXPECT_THAT(
      result.output,
      AllOf(HasSubstr("0 strange, 0 succeeded: refused"), Not(HasSubstr("SUCCEEDED")),
            HasSubstr("register a model by the other's token"),
            HasSubstr("open the daemon's descriptors through /proc"),
            HasSubstr("map writable: an extent of kept rows"),
            HasSubstr("go uncounted: lies in shared memory"), HasSubstr("never read answers")));
  const Result json = Doctor({"--attack", "--output=json", Users(kAttackerUid, kVictimUid)});
  EXPECT_EQ(json.exit_code, 0) << json.output << json.errors;
  EXPECT_THAT(json.output, HasSubstr("\"refused\": true"));
}

TEST_F(DoctorAttackTest, UsersOfOneTenantAreNotKeptApart) {
  const Config config = MakeConfig({{"team", {kVictimUid, kAttackerUid}, 32 * kMiB, "full"}});
  ASSERT_TRUE(StartLogged(config));
  const Result result = Doctor({"--attack", Users(kVictimUid, kAttackerUid)});
  EXPECT_EQ(result.exit_code, 1) << result.output << result.errors;
  EXPECT_THAT(result.output, AllOf(HasSubstr("pass for a user of the other tenant"),
                                   HasSubstr("SUCCEEDED"), Not(HasSubstr(" 0 succeeded"))));
}

TEST_F(DoctorAttackTest, WhatIsMissingIsSaid) {
  const Config config = MakeConfig({{"team", {kVictimUid}, 32 * kMiB, "full"}});
  ASSERT_TRUE(StartLogged(config));
  Result result = Doctor({"--attack"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("needs --attack-users=VICTIM,ATTACKER"));
  result = Doctor({"--attack", Users(kVictimUid, kStrangerUid)});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("uid=12003"));
  result = Doctor({"--attack", Users(kVictimUid, kVictimUid)});
  EXPECT_EQ(result.exit_code, 2);
}

}  // namespace
}  // namespace kvasir::testing
