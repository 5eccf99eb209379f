// The audit log's lines: what they say, that nobody's text can forge one, and that a flood of
// refusals is counted and not written.
#include "daemon/control/audit_log.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kvasir {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class FakeClock final : public Clock {
 public:
  Instant Now() const override { return now; }
  Instant now{std::chrono::hours(1)};
};

class AuditLogTest : public ::testing::Test {
 protected:
  static AuditedCall CallOf(uint32_t uid, std::string_view act = "evict") {
    return {act, PeerCredentials{.pid = 7, .uid = uid, .gid = 0}, "", {}};
  }
  void Refuse(uint32_t uid, int times) {
    for (int i = 0; i < times; ++i) log_.Note(CallOf(uid), PermissionDenied("no"));
  }

  FakeClock clock_;
  std::vector<std::string> lines_;
  AuditLog log_{{.window = std::chrono::seconds(60),
                 .acts_per_uid = 5,
                 .refusals_per_uid = 3,
                 .refusals_max = 8,
                 .uids_max = 4},
                clock_,
                [this](bool, const std::string& line) { lines_.push_back(line); }};
};

TEST_F(AuditLogTest, SaysWhoDidWhatAndWhatCameOfIt) {
  AuditedCall call = CallOf(0, "resize");
  call.arguments = {{"pool_bytes", "536870912"}};
  log_.Note(call, absl::OkStatus());
  log_.Note(call, InvalidArgument("pool_bytes is out of bounds: value={}", 1));
  call = CallOf(1002);
  call.tenant = "team-b";
  call.arguments = {{"target", "team-a"}};
  log_.Note(call, PermissionDenied("DropPrefixes is for administrators (admin.uids)"));
  log_.NoteRefusal({"session", std::nullopt, "", {}}, ResourceExhausted("too many sessions"));
  EXPECT_THAT(
      lines_,
      ElementsAre(
          "audit act=resize uid=0 pid=7 tenant=- pool_bytes=536870912 result=ok",
          "audit act=resize uid=0 pid=7 tenant=- pool_bytes=536870912 result=INVALID_ARGUMENT "
          "reason=\"pool_bytes is out of bounds: value=1\"",
          "audit refused=evict uid=1002 pid=7 tenant=team-b target=team-a "
          "result=PERMISSION_DENIED reason=\"DropPrefixes is for administrators (admin.uids)\"",
          "audit refused=session uid=- pid=- tenant=- result=RESOURCE_EXHAUSTED "
          "reason=\"too many sessions\""));
  const AuditCounts counts = log_.counts();
  EXPECT_EQ(counts.acts, 2u);
  EXPECT_EQ(counts.refusals, 2u);
  EXPECT_EQ(counts.suppressed, 0u);
}

TEST_F(AuditLogTest, NobodysTextForgesALineOrAField) {
  EXPECT_EQ(AuditValue("team-a_2.b:/@+"), "team-a_2.b:/@+");
  EXPECT_EQ(AuditValue(""), "-");
  EXPECT_EQ(AuditValue("-"), "\"-\"");
  EXPECT_EQ(AuditValue("a result=ok"), "\"a result=ok\"");
  EXPECT_EQ(AuditValue("\"\\"), "\"\\\"\\\\\"");
  EXPECT_EQ(AuditValue(std::string_view("\n\x1b\0\xff", 4)), "\"\\x0a\\x1b\\x00\\xff\"");
  EXPECT_EQ(AuditValue(std::string(1 << 20, 'a')), "\"" + std::string(128, 'a') + "...\"");
  EXPECT_EQ(AuditValue("{}"), "\"{}\"");
  AuditedCall call = CallOf(1);
  call.arguments = {{"target", "a\naudit act=resize uid=0"}};
  for (int i = 0; i < 20; ++i) call.arguments.emplace_back("target", std::string(1 << 16, '\0'));
  log_.Note(call, PermissionDenied("{}", std::string(1 << 16, '\n')));
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_THAT(lines_[0], Not(HasSubstr("\n")));
  EXPECT_LT(lines_[0].size(), 10u * 4 * 140);
}

TEST_F(AuditLogTest, AFloodIsCountedAndItsNextLineSaysHowMuchIsMissing) {
  Refuse(1, 100);
  EXPECT_EQ(lines_.size(), 3u);
  EXPECT_EQ(log_.counts().refusals, 100u);
  EXPECT_EQ(log_.counts().suppressed, 97u);
  Refuse(2, 1);
  EXPECT_EQ(lines_.size(), 4u) << "another user's lines are its own";
  log_.Note(CallOf(1), absl::OkStatus());
  EXPECT_THAT(lines_.back(), EndsWith("result=ok suppressed=97")) << "acts have their own budget";
  clock_.now += std::chrono::seconds(60);
  Refuse(1, 2);
  EXPECT_EQ(lines_.size(), 7u);
  EXPECT_THAT(lines_.back(), Not(HasSubstr("suppressed")));
}

TEST_F(AuditLogTest, ManyUsersTogetherHaveABoundAsWell) {
  for (uint32_t uid = 0; uid < 1000; ++uid) Refuse(uid, 1);
  EXPECT_EQ(lines_.size(), 8u);
  EXPECT_EQ(log_.counts().suppressed, 992u);
  log_.Note(CallOf(0, "resize"), absl::OkStatus());
  EXPECT_EQ(lines_.size(), 9u) << "what administrators do is written in any flood";
}

}  // namespace
}  // namespace kvasir
