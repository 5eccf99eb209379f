// Leases over the sockets: ranks of an engine, the process that leases for them, and what becomes
// of both when one of them dies.
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <absl/strings/escaping.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/integration/prefix_engines.h"
#include "tests/support/child_process.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

using ::testing::HasSubstr;

class LeaseTest : public PrefixDaemonTest {
 protected:
  void SetUp() override {
    Config config = MakeConfig();
    config.limits.leases_per_session_max = 4;
    config.prefix.lease_ms_max = 600'000;
    StartServer(config);
  }

  static LeaseMember MemberOf(const Engine& engine, const std::string& retention = "full") {
    return {engine.model.fingerprint, retention};
  }

  // One lease for all of these engines, taken by the first.
  static absl::StatusOr<PrefixLease> Lease(const std::vector<const Engine*>& ranks,
                                           std::vector<uint32_t> tokens, uint64_t rows_max = 0,
                                           std::chrono::milliseconds ttl = {}) {
    LeaseOptions options;
    for (const Engine* rank : ranks) options.members.push_back(MemberOf(*rank));
    options.prefix.tokens = std::move(tokens);
    options.prefix.rows_max = rows_max;
    options.ttl = ttl;
    return ranks.front()->session->LeasePrefix(options);
  }

  static absl::StatusOr<Sequence> Open(const Engine& engine, const std::vector<uint32_t>& tokens,
                                       const std::string& lease) {
    OpenOptions options = With(engine, "full", tokens);
    options.lease = lease;
    return engine.session->OpenSequence(options);
  }

  uint64_t Leases() { return server_->Snapshot().tenants[0].prefix_leases; }

  // Waits, at most ten seconds, without any call to the daemon.
  void ExpectLeasesEnd() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (Leases() > 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    EXPECT_EQ(Leases(), 0U);
  }

  // The sequence's next row sees all rows before it, as they were written.
  static void ExpectGoesOn(Sequence& sequence, const std::vector<uint32_t>& tokens) {
    const ModelSpec spec = TinySpec(kLayers);
    Write(sequence, tokens);
    absl::StatusOr<StepView> step = sequence.Begin(1);
    ASSERT_TRUE(step.ok()) << MessageOf(step.status());
    WriteTestRows(*step, spec);
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      ASSERT_EQ(VisibleRows(step->layers[layer], step->row, layer, spec).size(), step->row + 1);
    }
  }
};

TEST_F(LeaseTest, RanksOpenAtOneRowThoughOneHasLostSomeOfIt) {
  const Engine first = MakeEngine(0), second = MakeEngine(1);
  const std::vector<uint32_t> tokens = Tokens(700);
  Store(first, "full", tokens);
  Store(second, "full", tokens);
  if (HasFatalFailure()) return;
  {
    // All that is not held is evicted: the end of the second rank's prefix.
    const absl::StatusOr<PrefixLease> all = Lease({&first}, tokens);
    const absl::StatusOr<PrefixLease> some = Lease({&second}, tokens, 300);
    ASSERT_TRUE(all.ok() && some.ok());
    EXPECT_EQ(all->rows(), 688U);
    EXPECT_EQ(some->rows(), 288U);
    EXPECT_EQ(Leases(), 2U);
    Drop();
  }
  EXPECT_EQ(Leases(), 0U);
  absl::StatusOr<PrefixLease> lease = Lease({&first, &second}, tokens);
  ASSERT_TRUE(lease.ok()) << MessageOf(lease.status());
  EXPECT_EQ(lease->rows(), 288U);
  EXPECT_EQ(lease->id().size(), 16U);
  EXPECT_EQ(lease->ttl(), std::chrono::milliseconds(600'000));
  ASSERT_EQ(lease->forms().size(), 2U);
  EXPECT_EQ(lease->forms()[1].retention, "full");
  EXPECT_EQ(lease->forms()[1].quality, PrefixQuality::kFull);

  v1::ListPrefixesResponse prefixes;
  ASSERT_TRUE(
      Calls().CallAdmin(&v1::Admin::Stub::ListPrefixes, v1::ListPrefixesRequest(), &prefixes).ok());
  ASSERT_EQ(prefixes.prefixes_size(), 2);
  for (const v1::PrefixInfo& info : prefixes.prefixes()) EXPECT_EQ(info.leases(), 1U);
  v1::GetStatsResponse stats;
  ASSERT_TRUE(Calls().CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &stats).ok());
  EXPECT_EQ(stats.tenants(0).prefix_leases(), 1U);

  Drop();  // between the lookup and the opens
  for (const Engine* rank : {&first, &second}) {
    absl::StatusOr<Sequence> sequence = Open(*rank, tokens, lease->id());
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    EXPECT_EQ(sequence->rows(), 288U);
    ExpectGoesOn(*sequence, tokens);
  }
  PrefixLease moved = *std::move(lease);
  EXPECT_EQ(Leases(), 1U);
  EXPECT_TRUE(moved.Release().ok());
  EXPECT_TRUE(moved.Release().ok());
  EXPECT_EQ(Leases(), 0U);
  EXPECT_EQ(Open(first, tokens, moved.id()).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(LeaseTest, AKilledOwnersLeaseEndsAndTheRanksGoOn) {
  const Engine first = MakeEngine(0), second = MakeEngine(1);
  const std::vector<uint32_t> tokens = Tokens(400);
  Store(first, "full", tokens);
  Store(second, "full", tokens);
  if (HasFatalFailure()) return;
  ChildProcess owner(
      {SiblingProgram("lease_owner"), folder_.path() + "/control.sock",
       folder_.path() + "/data.sock", "400", absl::BytesToHexString(first.model.fingerprint),
       absl::BytesToHexString(second.model.fingerprint)},
      {});
  const std::string id = absl::HexStringToBytes(owner.ReadLine().value_or(""));
  ASSERT_EQ(id.size(), 16U) << owner.ReadErrors();
  Drop();
  std::vector<Sequence> sequences;
  for (const Engine* rank : {&first, &second}) {
    absl::StatusOr<Sequence> sequence = Open(*rank, tokens, id);
    ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
    EXPECT_EQ(sequence->rows(), 400U);
    sequences.push_back(*std::move(sequence));
  }
  EXPECT_EQ(Leases(), 1U);
  owner.Signal(SIGKILL);
  ASSERT_EQ(owner.Wait(), -SIGKILL);
  ExpectLeasesEnd();
  const absl::Status late = Open(first, tokens, id).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf(late), HasSubstr("unknown lease"));
  for (Sequence& sequence : sequences) ExpectGoesOn(sequence, Tokens(500));
}

TEST_F(LeaseTest, ALeaseEndsWithItsTimeThoughNobodyCalls) {
  const Engine engine = MakeEngine();
  Store(engine, "full", Tokens(64));
  if (HasFatalFailure()) return;
  const absl::StatusOr<PrefixLease> longer = Lease({&engine}, Tokens(64));
  absl::StatusOr<PrefixLease> lease =
      Lease({&engine}, Tokens(64), 0, std::chrono::milliseconds(30));
  ASSERT_TRUE(lease.ok() && longer.ok());
  EXPECT_EQ(lease->ttl(), std::chrono::milliseconds(30));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (Leases() > 1 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_EQ(Leases(), 1U);
  EXPECT_EQ(Open(engine, Tokens(64), lease->id()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(lease->Release().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Open(engine, Tokens(64), longer->id()).ok());
}

TEST_F(LeaseTest, ALeaseKeepsItsSessionOpen) {
  const Engine rank = MakeEngine();
  Store(rank, "full", Tokens(64));
  if (HasFatalFailure()) return;
  {
    PrefixLease lease;
    {
      const Engine owner = MakeEngine();  // of the same model
      lease = *Lease({&owner}, Tokens(64));
    }
    EXPECT_EQ(Leases(), 1U);
    EXPECT_TRUE(Open(rank, Tokens(64), lease.id()).ok());
    EXPECT_EQ(server_->Snapshot().tenants[0].sessions, 2U);
  }
  EXPECT_EQ(Leases(), 0U);
}

// Groups that lease and open while everything that is not held is evicted again and again.
TEST_F(LeaseTest, NoGroupIsEverTornApart) {
  const std::vector<uint32_t> tokens = Tokens(300);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> leased{0};
  std::thread evictor([&] {
    while (!stop) Drop();
  });
  std::vector<std::thread> groups;
  for (uint32_t group = 0; group < 2; ++group) {
    groups.emplace_back([&, group] {
      const Engine first = MakeEngine(2 * group), second = MakeEngine(2 * group + 1);
      for (uint32_t round = 0; round < 15; ++round) {
        Store(first, "full", tokens);
        Store(second, "full", Tokens(100 + 13 * round));
        if (HasFatalFailure()) return;
        const absl::StatusOr<PrefixLease> lease = Lease({&first, &second}, tokens);
        ASSERT_TRUE(lease.ok()) << MessageOf(lease.status());
        if (lease->rows() == 0) continue;  // evicted before it was leased
        ++leased;
        for (const Engine* rank : {&first, &second}) {
          absl::StatusOr<Sequence> sequence = Open(*rank, tokens, lease->id());
          ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
          ASSERT_EQ(sequence->rows(), lease->rows());
          ExpectGoesOn(*sequence, tokens);
        }
      }
    });
  }
  for (std::thread& group : groups) group.join();
  stop = true;
  evictor.join();
  // How often is the scheduler's matter; once without an evictor it is certain.
  const Engine first = MakeEngine(0), second = MakeEngine(1);
  Store(first, "full", tokens);
  Store(second, "full", tokens);
  EXPECT_EQ(Lease({&first, &second}, tokens)->rows(), 288U) << "leased before: " << leased;
}

TEST_F(LeaseTest, WhatIsNoLeaseIsRefused) {
  RawEngine engine(folder_.path() + "/control.sock", folder_.path() + "/data.sock", 1);
  v1::RegisterModelRequest spec;
  *spec.mutable_spec() = GoodSpec(1);
  v1::RegisterModelResponse model;
  ASSERT_TRUE(engine.calls().Call(&v1::KvCache::Stub::RegisterModel, spec, &model).ok());
  v1::LeasePrefixRequest good;
  good.mutable_prefix()->add_tokens(5);
  good.add_members()->set_model_fingerprint(model.model_fingerprint());
  v1::LeasePrefixResponse answer;
  ASSERT_TRUE(engine.calls().Call(&v1::KvCache::Stub::LeasePrefix, good, &answer).ok());
  EXPECT_EQ(answer.rows(), 0U);  // nothing is there
  EXPECT_EQ(answer.lease_id(), "");

  using grpc::StatusCode;
  struct Case {
    std::function<void(v1::LeasePrefixRequest&)> spoil;
    StatusCode code;
    const char* text;
  };
  const auto fingerprint = [](v1::LeasePrefixRequest& r, std::string bytes) {
    r.mutable_members(0)->set_model_fingerprint(std::move(bytes));
  };
  const std::vector<Case> cases = {
      {[](auto& r) { r.clear_members(); }, StatusCode::INVALID_ARGUMENT,
       "members count is out of bounds: value=0 min=1 max=32"},
      {[](auto& r) {
         for (int i = 0; i < 32; ++i) *r.add_members() = r.members(0);
       },
       StatusCode::INVALID_ARGUMENT, "members count is out of bounds: value=33 min=1 max=32"},
      {[](auto& r) { *r.add_members() = r.members(0); }, StatusCode::INVALID_ARGUMENT,
       "members[1].model_fingerprint"},
      {[&](auto& r) { fingerprint(r, std::string(15, 'f')); }, StatusCode::INVALID_ARGUMENT,
       "members[0].model_fingerprint has the wrong size: bytes=15 expected=16"},
      {[&](auto& r) { fingerprint(r, ""); }, StatusCode::INVALID_ARGUMENT, "bytes=0 expected=16"},
      {[&](auto& r) { fingerprint(r, std::string(16, 'f')); }, StatusCode::NOT_FOUND,
       "members[0].model_fingerprint is of no model"},
      {[](auto& r) { r.mutable_members(0)->set_least_quality(static_cast<v1::QualityClass>(9)); },
       StatusCode::INVALID_ARGUMENT, "least_quality is unknown: value=9"},
      {[](auto& r) { r.mutable_members(0)->set_retention("nonsense"); },
       StatusCode::INVALID_ARGUMENT, "members[0]: "},
      {[](auto& r) { r.mutable_members(0)->set_retention("full+int8"); },
       StatusCode::FAILED_PRECONDITION, "members[0]: the engine does not read encoded rows"},
      {[](auto& r) { r.set_ttl_ms(600'001); }, StatusCode::INVALID_ARGUMENT,
       "ttl_ms is out of bounds: value=600001 min=1 max=600000"},
      {[](auto& r) { r.set_ttl_ms(UINT64_MAX); }, StatusCode::INVALID_ARGUMENT, "ttl_ms"},
      {[](auto& r) { r.mutable_prefix()->set_tokens(0, 1000); }, StatusCode::INVALID_ARGUMENT,
       "prefix.tokens[0] is beyond the vocabulary: token=1000 max=999"},
      {[](auto& r) { r.mutable_prefix()->set_salt(std::string(257, 's')); },
       StatusCode::INVALID_ARGUMENT, "prefix.salt"},
      {[](auto& r) { r.mutable_prefix()->add_extras()->set_row(3); }, StatusCode::INVALID_ARGUMENT,
       "extras[0].bytes"}};
  for (const Case& one : cases) {
    v1::LeasePrefixRequest request = good;
    one.spoil(request);
    const grpc::Status status =
        engine.calls().Call(&v1::KvCache::Stub::LeasePrefix, request, &answer);
    EXPECT_EQ(status.error_code(), one.code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(one.text));
  }

  v1::ReleaseLeaseRequest release;
  v1::ReleaseLeaseResponse released;
  v1::OpenSequenceRequest open;
  open.set_model_id(engine.model_id());
  open.mutable_prefix()->add_tokens(5);
  v1::OpenSequenceResponse opened;
  for (const size_t bytes : {1U, 15U, 16U, 17U, 4096U}) {
    const std::string id(bytes, 'x');
    release.set_lease_id(id);
    open.set_lease_id(id);
    const StatusCode wanted = bytes == 16 ? StatusCode::NOT_FOUND : StatusCode::INVALID_ARGUMENT;
    const auto status = engine.calls().Call(&v1::KvCache::Stub::ReleaseLease, release, &released);
    EXPECT_EQ(status.error_code(), wanted) << status.error_message();
    EXPECT_EQ(engine.calls().Call(&v1::KvCache::Stub::OpenSequence, open, &opened).error_code(),
              wanted);
  }
  release.clear_lease_id();
  EXPECT_EQ(engine.calls().Call(&v1::KvCache::Stub::ReleaseLease, release, &released).error_code(),
            StatusCode::INVALID_ARGUMENT);
  open.set_lease_id(std::string(16, 'x'));
  open.clear_prefix();
  EXPECT_THAT(engine.calls().Call(&v1::KvCache::Stub::OpenSequence, open, &opened).error_message(),
              HasSubstr("prefix is missing"));
}

TEST_F(LeaseTest, ASessionHasAsManyLeasesAsIsConfigured) {
  const Engine engine = MakeEngine();
  Store(engine, "full", Tokens(64));
  if (HasFatalFailure()) return;
  std::vector<PrefixLease> leases;
  for (int i = 0; i < 4; ++i) leases.push_back(*Lease({&engine}, Tokens(64)));
  const absl::Status full = Lease({&engine}, Tokens(64)).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(full), HasSubstr("leases=4 limits.leases_per_session_max=4"));
  leases.pop_back();
  EXPECT_TRUE(Lease({&engine}, Tokens(64)).ok());
}

}  // namespace
}  // namespace kvasir::testing
