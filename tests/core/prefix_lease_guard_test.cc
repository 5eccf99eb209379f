// How leases end, and what is refused.
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/core/lease_fixture.h"

namespace kvasir::core::testing {
namespace {

using ::testing::HasSubstr;

class LeaseGuardTest : public PrefixLeaseTest {
 protected:
  LeaseGuardTest() {
    Store(*first_.engine, first_.model, "full", tokens_);
    Store(*second_.engine, second_.model, "full", tokens_);
  }

  absl::StatusOr<LeaseAnswer> LeaseBoth(uint64_t number, const LeaseTerms& terms = {}) {
    return Lease(*first_.engine, number, {MemberOf(first_), MemberOf(second_)}, tokens_, terms);
  }

  // Nothing holds the prefixes any more.
  void ExpectReleased() {
    EXPECT_EQ(Leases(), 0U);
    EXPECT_EQ(CodeOfOpen(second_, 1, tokens_), absl::StatusCode::kNotFound);
    EXPECT_EQ(*core_->DropPrefixes("a"), 2U);
    ExpectConserved();
  }

  const std::vector<uint32_t> tokens_ = Tokens(96, 3);
  const Rank first_ = ConnectRank(1, 0), second_ = ConnectRank(1, 1);
};

TEST_F(LeaseGuardTest, ALeaseEndsWhenItsOwnerReleasesIt) {
  ASSERT_EQ(LeaseBoth(1)->rows, 96U);
  const absl::Status others = core_->ReleaseLease(second_.engine->session(), LeaseIdOf(1));
  EXPECT_EQ(others.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Leases(), 1U);
  ASSERT_TRUE(core_->ReleaseLease(first_.engine->session(), LeaseIdOf(1)).ok());
  EXPECT_EQ(core_->ReleaseLease(first_.engine->session(), LeaseIdOf(1)).code(),
            absl::StatusCode::kNotFound);
  ExpectReleased();
}

TEST_F(LeaseGuardTest, ALeaseEndsWithItsOwnersSession) {
  ASSERT_EQ(LeaseBoth(1)->rows, 96U);
  absl::StatusOr<FakeEngine::Stream> stream = OpenLeased(second_, 1, tokens_);
  ASSERT_TRUE(stream.ok());
  core_->EndSession(first_.engine->session_id());
  EXPECT_EQ(Leases(), 0U);
  EXPECT_EQ(CodeOfOpen(second_, 1, tokens_), absl::StatusCode::kNotFound);
  // What was opened with it goes on.
  ASSERT_TRUE(core_->DropPrefixes("a").ok());
  std::vector<uint32_t> more = tokens_;
  for (const uint32_t token : Tokens(20, 5)) more.push_back(token);
  ExpectAsComputed(second_, *stream, "full", more);
  Close(*second_.engine, *stream);
}

TEST_F(LeaseGuardTest, ALeaseEndsWithAViolationOfItsOwner) {
  ASSERT_EQ(LeaseBoth(1)->rows, 96U);
  absl::StatusOr<FakeEngine::Stream> stream = first_.engine->Open(first_.model, "full");
  ASSERT_TRUE(stream.ok());
  stream->rows = 1'000'000;  // more than were granted
  first_.engine->WriteDesk(*stream);
  EXPECT_FALSE(first_.engine->Sync(*stream, 0, std::nullopt).status.ok());
  ASSERT_FALSE(first_.engine->open());
  ExpectReleased();
}

TEST_F(LeaseGuardTest, ALeaseEndsWithItsTime) {
  const Instant start = Instant() + std::chrono::hours(1);
  core_->set_now(start);
  ASSERT_EQ(LeaseBoth(1, {.ttl_ms = 100})->ttl_ms, 100U);
  ASSERT_EQ(LeaseBoth(2, {.ttl_ms = 300})->ttl_ms, 300U);
  EXPECT_EQ(core_->EndExpiredLeases(), start + std::chrono::milliseconds(100));
  core_->set_now(start + std::chrono::milliseconds(99));
  EXPECT_EQ(core_->EndExpiredLeases(), start + std::chrono::milliseconds(100));
  EXPECT_EQ(CodeOfOpen(second_, 1, tokens_), absl::StatusCode::kOk);
  core_->set_now(start + std::chrono::milliseconds(100));
  // Over is over, even before anybody has ended it.
  EXPECT_EQ(CodeOfOpen(second_, 1, tokens_), absl::StatusCode::kNotFound);
  EXPECT_EQ(core_->ReleaseLease(first_.engine->session(), LeaseIdOf(1)).code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Leases(), 2U);
  EXPECT_EQ(core_->EndExpiredLeases(), start + std::chrono::milliseconds(300));
  EXPECT_EQ(Leases(), 1U);
  core_->set_now(start + std::chrono::hours(1));
  EXPECT_EQ(core_->EndExpiredLeases(), std::nullopt);
  core_->EndSession(first_.engine->session_id());  // with it goes what it has opened
  core_->EndSession(second_.engine->session_id());
  EXPECT_EQ(*core_->DropPrefixes("a"), 2U);
}

TEST_F(LeaseGuardTest, TermsAreChecked) {
  const absl::Status late = LeaseBoth(1, {.ttl_ms = kLeaseMsMax + 1}).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(late), HasSubstr("ttl_ms is out of bounds: value=5001 min=1 max=5000"));
  EXPECT_EQ(LeaseBoth(1, {.ttl_ms = UINT64_MAX}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LeaseBoth(1, {.salt = std::string(257, 's')}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LeaseBoth(1, {.ttl_ms = kLeaseMsMax})->ttl_ms, kLeaseMsMax);
}

TEST_F(LeaseGuardTest, ASessionHasSoManyLeases) {
  for (uint64_t number = 1; number <= kLeasesOfSessionMax; ++number) {
    ASSERT_TRUE(LeaseBoth(number).ok());
  }
  const absl::Status full = LeaseBoth(9).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(full), HasSubstr("leases=3 limits.leases_per_session_max=3"));
  // Another session has its own.
  EXPECT_TRUE(Lease(*second_.engine, 10, {MemberOf(first_)}, tokens_).ok());
  ASSERT_TRUE(core_->ReleaseLease(first_.engine->session(), LeaseIdOf(2)).ok());
  EXPECT_TRUE(LeaseBoth(11).ok());
  // What is over counts no more.
  core_->set_now(Instant() + std::chrono::hours(1));
  EXPECT_TRUE(LeaseBoth(12).ok());
  EXPECT_EQ(Leases(), 1U);
}

TEST_F(LeaseGuardTest, MembersAreChecked) {
  const auto refused = [&](const std::vector<LeaseMember>& members) {
    return Lease(*first_.engine, 1, members, tokens_).status();
  };
  absl::Status status = refused({});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("members count is out of bounds: value=0 min=1 max=32"));
  status = refused(std::vector<LeaseMember>(33, MemberOf(first_)));
  EXPECT_THAT(MessageOf(status), HasSubstr("value=33"));
  status = refused({MemberOf(first_), MemberOf(second_), MemberOf(first_)});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("members[2].model_fingerprint"));
  LeaseMember unknown = MemberOf(second_);
  unknown.model_fingerprint[3] ^= 1;
  status = refused({MemberOf(first_), unknown});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf(status), HasSubstr("members[1].model_fingerprint"));
  status = refused({MemberOf(first_), MemberOf(second_, "no-such-policy")});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("members[1]"));
  LeaseMember plain = MemberOf(second_, "full+int8:rows=32");
  plain.reads_records = false;
  EXPECT_EQ(refused({plain}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Leases(), 0U);
}

// Models of other tenants, or of sessions that have ended, are of nobody.
TEST_F(LeaseGuardTest, AMemberIsAModelOfTheTenantsLiveSessions) {
  const Rank stranger = ConnectRank(2, 7), third = ConnectRank(1, 8);
  EXPECT_EQ(
      Lease(*first_.engine, 1, {MemberOf(first_), MemberOf(stranger)}, tokens_).status().code(),
      absl::StatusCode::kNotFound);
  const LeaseMember of_third = MemberOf(third);
  EXPECT_EQ(Lease(*first_.engine, 1, {of_third}, tokens_)->rows,
            0U);  // it is there and has nothing
  core_->EndSession(third.engine->session_id());
  EXPECT_EQ(Lease(*first_.engine, 1, {of_third}, tokens_).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(LeaseGuardTest, WhatQueriesDecideIsNeverLeased) {
  EXPECT_EQ(Lease(*first_.engine, 1,
                  {MemberOf(first_),
                   MemberOf(second_, "gemfilter:filter_layer=1,topk=5", QualityClass::kCompacted)},
                  tokens_)
                ->rows,
            0U);
  EXPECT_EQ(Leases(), 0U);
}

TEST_F(LeaseGuardTest, AnotherTenantsLeaseIsUnknown) {
  const Rank stranger = ConnectRank(2, 0);
  ASSERT_EQ(LeaseBoth(1)->rows, 96U);
  const absl::Status others = OpenLeased(stranger, 1, tokens_).status();
  EXPECT_EQ(others.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(MessageOf(others), MessageOf(OpenLeased(stranger, 99, tokens_).status()));
  EXPECT_EQ(core_->ReleaseLease(stranger.engine->session(), LeaseIdOf(1)).code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Leases(), 1U);
}

TEST_F(LeaseGuardTest, WhatIsOpenedIsWhatWasLeased) {
  const Rank third = ConnectRank(1, 2);
  ASSERT_EQ(LeaseBoth(1)->rows, 96U);
  const auto refused = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(CodeOfOpen(third, 1, tokens_), refused);  // no member
  EXPECT_THAT(MessageOf(OpenLeased(third, 1, tokens_).status()), HasSubstr("no member"));
  std::vector<uint32_t> other = tokens_;
  other[95] ^= 9;
  EXPECT_EQ(CodeOfOpen(second_, 1, other), refused);
  EXPECT_EQ(CodeOfOpen(second_, 1, First(tokens_, 95)), refused);
  EXPECT_EQ(CodeOfOpen(second_, 1, {}), refused);
  EXPECT_EQ(CodeOfOpen(second_, 1, tokens_, "", {.rows_max = 95}), refused);
  EXPECT_EQ(CodeOfOpen(second_, 1, tokens_, "", {.salt = "another"}), refused);
  EXPECT_EQ(CodeOfOpen(second_, 1, tokens_, "full+int8:rows=32"), refused);
  EXPECT_EQ(CodeOfOpen(second_, 1, tokens_, "gemfilter:filter_layer=1,topk=5"), refused);
  EXPECT_EQ(CodeOfOpen(second_, 1, tokens_, "full", {.prompt_rows = 5}), absl::StatusCode::kOk);
  EXPECT_EQ(CodeOfOpen(second_, 1, tokens_, "", {.rows_max = 96}), absl::StatusCode::kOk);
  OpenRequest request;
  request.model_id = second_.model;
  request.lease = LeaseIdOf(1);
  EXPECT_EQ(core_->OpenSequence(second_.engine->session(), request).status().code(),
            absl::StatusCode::kInvalidArgument);  // without its prompt
}

// The tail of a prefix that ends between chunks is compared token by token.
TEST_F(LeaseGuardTest, TokensBehindTheLastChunkAreComparedToo) {
  const char* retention = "streamingllm:start_size=4,recent_size=40";
  Store(*first_.engine, first_.model, retention, First(tokens_, 91));
  ASSERT_EQ(Lease(*first_.engine, 1, {MemberOf(first_, retention)}, tokens_)->rows, 91U);
  EXPECT_EQ(CodeOfOpen(first_, 1, tokens_), absl::StatusCode::kOk);
  std::vector<uint32_t> other = tokens_;
  other[91] ^= 9;  // the first row behind it
  EXPECT_EQ(CodeOfOpen(first_, 1, other), absl::StatusCode::kOk);
  other[90] ^= 9;
  EXPECT_EQ(CodeOfOpen(first_, 1, other), absl::StatusCode::kFailedPrecondition);
}

// A policy that tells the prompt apart has another form for each length.
TEST_F(LeaseGuardTest, ThePromptsLengthIsTheLeases) {
  const char* retention =
      "sepllm:form=static,init_cache_size=4,local_size=16,prefill_local_size=40";
  OpenRequest request;
  request.model_id = first_.model;
  request.retention = retention;
  request.prompt_rows = 80;
  absl::StatusOr<FakeEngine::Stream> stream = first_.engine->Attach(request, "", {tokens_, {}, 0});
  ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
  WriteTokens(*first_.engine, *stream, tokens_);
  ASSERT_TRUE(Publish(*first_.engine, *stream).ok());
  const std::vector<LeaseMember> members = {MemberOf(first_, retention)};
  EXPECT_EQ(Lease(*first_.engine, 1, members, tokens_, {.prompt_rows = 81})->rows, 0U);
  EXPECT_EQ(Lease(*first_.engine, 2, members, tokens_, {.prompt_rows = 80})->rows, 96U);
  EXPECT_EQ(CodeOfOpen(first_, 2, tokens_, "", {.prompt_rows = 81}),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOfOpen(first_, 2, tokens_, "", {.prompt_rows = 80}), absl::StatusCode::kOk);
}

}  // namespace
}  // namespace kvasir::core::testing
