// What the users of two_users_test do, as programs of their own: credentials and the rights to
// /proc are those of a fresh process. Parameters come in environment variables; the filter chooses
// the role.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "client/attack/attacks.h"
#include "client/attack/victim.h"
#include "client/session.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/raw_client.h"

#include <fmt/format.h>

namespace kvasir::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Variable(const char* name) {
  const char* text = std::getenv(name);
  return text != nullptr ? text : "";
}

ConnectOptions Options() {
  ConnectOptions options;
  options.control_socket = Variable("KVASIR_CONTROL");
  options.data_socket = Variable("KVASIR_DATA");
  return options;
}

RawEngine MakeRawEngine() {
  return RawEngine(Variable("KVASIR_CONTROL"), Variable("KVASIR_DATA"), 1);
}

std::atomic<bool> told_to_stop{false};

// Goes on until it is told to stop, with what it has known to thieves.
TEST(Victim, KeepsWhatIsIts) {
  ::signal(SIGTERM, [](int) { told_to_stop = true; });
  absl::StatusOr<attack::Victim> victim =
      attack::Victim::Start(Variable("KVASIR_CONTROL"), Variable("KVASIR_DATA"));
  ASSERT_TRUE(victim.ok()) << MessageOf(victim.status());
  fmt::print("{}ready=yes\n", victim->target().ToText());
  std::fflush(stdout);
  for (int step = 0; !told_to_stop || step < 200; ++step) victim->Step();
  const attack::Attempts kept = victim->Finish();
  EXPECT_TRUE(kept.AllRefused()) << kept.ToText();
}

attack::Target Target() {
  absl::StatusOr<attack::Target> target = attack::Target::FromText(Variable("KVASIR_TARGET"));
  EXPECT_TRUE(target.ok()) << MessageOf(target.status());
  return target.ok() ? *std::move(target) : attack::Target();
}

// Everything was tried, and refused as it should be.
void ExpectRefused(const attack::Attempts& attempts, size_t least) {
  EXPECT_GE(attempts.list().size(), least);
  for (const attack::Attempt& attempt : attempts.list()) {
    EXPECT_EQ(NameOf(attempt.verdict), std::string("refused"))
        << attempt.what << ": " << attempt.by;
  }
}

TEST(Attacker, ReachesNoProcess) {
  attack::Attempts attempts;
  attack::AttackProcesses(Target(), attempts);
  ExpectRefused(attempts, 16);
}

TEST(Attacker, CannotWriteWhatItWasLent) {
  attack::Attempts attempts;
  attack::AttackSegments(Target(), attempts);
  ExpectRefused(attempts, 21);
}

TEST(Attacker, CannotUseAnothersNames) {
  attack::Attempts attempts;
  attack::AttackNames(Target(), attempts);
  ExpectRefused(attempts, 18);
}

// Every verb of the Admin service is tried: what acts or tells of the host is for administrators,
// and everything else tells a tenant of its own.
TEST(Attacker, AdministersNothing) {
  attack::Attempts attempts;
  const std::vector<std::string> verbs = attack::AttackAdmin(Target(), attempts);
  ExpectRefused(attempts, 16);
  const auto* const service =
      google::protobuf::DescriptorPool::generated_pool()->FindServiceByName("kvasir.v1.Admin");
  ASSERT_NE(service, nullptr);
  for (int i = 0; i < service->method_count(); ++i) {
    EXPECT_THAT(verbs, ::testing::Contains(service->method(i)->name()))
        << "a verb that is new: attack it in client/attack/admin_attacks.cc";
  }
}

TEST(Attacker, LiesAndIsPunishedForIt) {
  attack::Attempts attempts;
  attack::AttackProtocol(Target(), attempts);
  ExpectRefused(attempts, 19);
}

TEST(Attacker, FloodsInVain) {
  attack::Attempts attempts;
  attack::AttackLimits(Target(), attempts);
  EXPECT_TRUE(attempts.AllRefused()) << attempts.ToText();
}

TEST(Attacker, CannotTakeMoreThanItsLimit) {
  RawEngine engine = MakeRawEngine();
  const v1::OpenSequenceResponse sequence = engine.Open("full");
  const absl::Status status = engine.Sync(sequence, 60'000);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(status), AllOf(HasSubstr("tenant=attacker"), HasSubstr("wanted_bytes="),
                                       HasSubstr("charged_bytes="),
                                       HasSubstr(fmt::format("limit_bytes={}", 16 * kMiB))));
  v1::GetStatsResponse stats;
  ASSERT_TRUE(
      engine.calls().CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).ok());
  EXPECT_LE(stats.tenants(0).host().charged_bytes(), 16 * kMiB);
}

// Says whom the daemon takes it for, and stays until it is killed.
TEST(Teller, SaysWhoItIs) {
  absl::StatusOr<RawDataSocket> raw = RawDataSocket::Connect(Variable("KVASIR_DATA"));
  ASSERT_TRUE(raw.ok()) << MessageOf(raw.status());
  const absl::Status greeted = raw->Greet(GoodHello());
  RawCalls calls(Variable("KVASIR_CONTROL"), "");
  v1::GetStatsResponse stats;
  const grpc::Status status =
      calls.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats);
  std::string scope = "none";
  if (status.ok()) {
    scope = stats.pool_bytes() != 0 ? "all" : stats.tenants(0).tenant();
  } else {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << status.error_message();
  }
  v1::GetHostResponse host;
  const grpc::Status asked =
      calls.CallAdmin(&v1::Admin::Stub::GetHost, v1::GetHostRequest(), &host);
  EXPECT_EQ(asked.ok(), scope == "all");
  fmt::print("session={}\nsees={}\ntoken={}\n",
             greeted.ok() ? "open" : absl::StatusCodeToString(greeted.code()), scope, raw->token());
  std::fflush(stdout);
  for (;;) ::pause();
}

TEST(Stranger, IsRefused) {
  const absl::StatusOr<std::unique_ptr<Session>> session = Session::Connect(Options());
  EXPECT_EQ(session.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(MessageOf(session.status()), HasSubstr(fmt::format("uid={}", ::getuid())));
  RawCalls calls(Variable("KVASIR_CONTROL"), Target().token);
  v1::GetStatsResponse stats;
  EXPECT_EQ(calls.CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  v1::SyncRequest sync;
  sync.add_needs()->set_uid(1);
  v1::SyncResponse synced;
  EXPECT_EQ(calls.Call(&v1::KvCache::Stub::Sync, sync, &synced).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
}

}  // namespace
}  // namespace kvasir::testing
