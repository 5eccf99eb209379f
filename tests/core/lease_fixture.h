// Ranks of an engine, each a session with a shard of the weights, that lease prompts on a core of
// the tests.
#ifndef KVASIR_TESTS_CORE_LEASE_FIXTURE_H_
#define KVASIR_TESTS_CORE_LEASE_FIXTURE_H_

#include <chrono>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/status_macros.h"
#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {

inline constexpr uint32_t kLeasesOfSessionMax = 3;
inline constexpr uint32_t kLeaseMsMax = 5000;

inline PrefixLeaseId LeaseIdOf(uint64_t number) {
  PrefixLeaseId id;
  std::memcpy(id.bytes.data(), &number, sizeof(number));
  return id;
}

struct Rank {
  FakeEngine* engine = nullptr;
  uint32_t model = 0;
};

// What a lease asks for beside its members and tokens.
struct LeaseTerms {
  uint64_t rows_max = 0;
  std::string salt = {};
  uint64_t prompt_rows = 0;
  uint64_t ttl_ms = 0;
};

// `Base`: PrefixCoreTest, or what is derived from it.
template <typename Base>
class LeaseFixture : public Base {
 protected:
  static ModelDescription ShardOf(uint32_t rank) {
    ModelDescription model = RotatedModel();
    model.weights_digest[0] = static_cast<char>('A' + rank);
    return model;
  }

  Rank ConnectRank(uint32_t uid, uint32_t rank) {
    Rank connected;
    connected.engine = &this->ConnectOwn(uid, &connected.model, ShardOf(rank));
    connected.engine->weights = rank;
    return connected;
  }

  static LeaseMember MemberOf(const Rank& rank, const std::string& retention = "full",
                              std::optional<QualityClass> least_quality = std::nullopt) {
    const Model& model = rank.engine->session().models.at(rank.model)->model;
    return {model.fingerprint(), retention, least_quality, /*reads_records=*/true};
  }

  // Waits for what comes up from tiers where the engine does.
  absl::StatusOr<LeaseAnswer> Lease(FakeEngine& owner, uint64_t number,
                                    const std::vector<LeaseMember>& members,
                                    const std::vector<uint32_t>& tokens,
                                    const LeaseTerms& terms = {}) {
    KVASIR_ASSIGN_OR_RETURN(const PrefixScopes scopes,
                            this->core_->LeaseScopesOf(owner.session(), members, terms.salt));
    KVASIR_ASSIGN_OR_RETURN(const PrefixKeys keys,
                            HashPrefix(scopes, {tokens, {}, terms.rows_max}));
    LeaseRequest request;
    request.id = LeaseIdOf(number);
    request.members = &members;
    request.prefix = &keys;
    request.prompt_rows = terms.prompt_rows;
    request.ttl_ms = terms.ttl_ms;
    LeaseLoading loading;
    if (owner.run_tiers) request.loading = &loading;
    for (int attempt = 0; attempt < 4; ++attempt) {
      KVASIR_ASSIGN_OR_RETURN(const std::optional<LeaseAnswer> answer,
                              this->core_->LeasePrefix(owner.session(), request));
      this->ExpectConserved();
      if (answer) return *answer;
      owner.run_tiers();
    }
    return Internal("prefixes do not come up");
  }

  absl::StatusOr<FakeEngine::Stream> OpenLeased(const Rank& rank, uint64_t number,
                                                const std::vector<uint32_t>& tokens,
                                                const std::string& retention = "",
                                                const LeaseTerms& terms = {}) {
    OpenRequest request;
    request.model_id = rank.model;
    request.retention = retention;
    request.prompt_rows = terms.prompt_rows;
    request.lease = LeaseIdOf(number);
    absl::StatusOr<FakeEngine::Stream> stream =
        rank.engine->Attach(request, terms.salt, {tokens, {}, terms.rows_max});
    if (stream.ok()) this->RunJobs();
    return stream;
  }

  absl::StatusCode CodeOfOpen(const Rank& rank, uint64_t number,
                              const std::vector<uint32_t>& tokens,
                              const std::string& retention = "", const LeaseTerms& terms = {}) {
    return OpenLeased(rank, number, tokens, retention, terms).status().code();
  }

  // The stream sees, query by query, what a sequence sees that has computed all of it.
  void ExpectAsComputed(const Rank& rank, FakeEngine::Stream& stream, const std::string& retention,
                        const std::vector<uint32_t>& tokens) {
    FakeEngine& engine = *rank.engine;
    absl::StatusOr<FakeEngine::Stream> reference = engine.Open(rank.model, retention);
    ASSERT_TRUE(reference.ok()) << MessageOf(reference.status());
    this->WriteTokens(engine, *reference,
                      {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(stream.rows)});
    for (uint64_t row = stream.rows; row < tokens.size(); ++row) {
      this->Step(engine, *reference, tokens[row]);
      this->Step(engine, stream, tokens[row]);
      ASSERT_FALSE(this->HasFatalFailure());
      for (uint32_t layer = 0; layer < kLayers; ++layer) {
        ASSERT_TRUE(engine.Seen(stream, row, layer) == engine.Seen(*reference, row, layer)) << row;
      }
    }
    this->Close(engine, *reference);
  }

  // A private sequence that has taken all memory that it gets.
  absl::StatusOr<FakeEngine::Stream> FillMemory(const Rank& rank) {
    absl::StatusOr<FakeEngine::Stream> stream = rank.engine->Open(rank.model, "full");
    absl::Status status = stream.status();
    while (status.ok() && stream->rows < 20'000) {
      while (rank.engine->Writable(*stream) > 0) rank.engine->WriteRow(*stream, 3);
      rank.engine->WriteDesk(*stream);
      status = rank.engine->Sync(*stream, stream->rows + 1, stream->rows).status;
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    this->ExpectConserved();
    return stream;
  }

  uint64_t Leases(size_t tenant = 0) const {
    return this->core_->TenantReports()[tenant].prefix_leases;
  }

  void Configure(CoreConfig& config) override {
    Base::Configure(config);
    config.leases_per_session_max = kLeasesOfSessionMax;
    config.lease_ms_max = kLeaseMsMax;
  }
};

inline std::vector<uint32_t> First(const std::vector<uint32_t>& tokens, uint64_t count) {
  return {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(count)};
}

class PrefixLeaseTest : public LeaseFixture<PrefixCoreTest> {
 protected:
  PrefixLeaseTest() { Start(6 * kMiB); }  // with its own configuration
};

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_CORE_LEASE_FIXTURE_H_
