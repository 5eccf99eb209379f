// Random operations of several sessions of two tenants on one KvCore, after each of which bytes are
// conserved, and every query sees what its policy's rule says. Limits are small, so that much
// fails.
#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/core/fake_engine.h"

#include <fmt/format.h>

namespace kvasir::core::testing {
namespace {

struct Rule {
  std::string retention;
  uint64_t init, window;
  bool separators;

  std::vector<uint64_t> Visible(const std::vector<uint32_t>& ids, uint64_t row) const {
    std::vector<uint64_t> rows;
    for (uint64_t j = 0; j <= row; ++j) {
      const bool separator = separators && (ids[j] == 1 || ids[j] == 2);
      if (j < init || separator || row - j < window) rows.push_back(j);
    }
    return rows;
  }
};

const std::vector<Rule>& Rules() {
  static const std::vector<Rule> rules = {
      {"full", 0, ~uint64_t{0}, false},
      {"streamingllm:start_size=3,recent_size=10,positions=original", 3, 10, false},
      {"streamingllm:start_size=4,recent_size=40,positions=original", 4, 40, false},
      {"sepllm:form=static,init_cache_size=2,local_size=5", 2, 5, true},
      {"sepllm:form=static,init_cache_size=4,local_size=33", 4, 33, true},
      {"full+int8:rows=32,recent=5", 0, ~uint64_t{0}, false},
      {"full+as_written/int8:n_sink=0,recent=0", 0, ~uint64_t{0}, false},
      {"streamingllm:start_size=3,recent_size=90,positions=original+int8:rows=32", 3, 90, false},
      {"sepllm:form=static,init_cache_size=4,local_size=9+int8:rows=32", 4, 9, true}};
  return rules;
}

struct Stream {
  FakeEngine::Stream engine;
  const Rule* rule = nullptr;
  SnapshotId saving;  // of the save that was asked for
  bool asked = false;
};

struct Saved {
  SnapshotId id;
  uint32_t uid = 0;  // of the tenant
  std::vector<uint32_t> ids;
  const Rule* rule = nullptr;
};

struct Client {
  std::unique_ptr<FakeEngine> engine;
  uint32_t uid = 0;
  uint32_t model = 0;
  std::vector<Stream> streams;
};

constexpr uint64_t kPoolBytes = 2 * kMiB;

class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed), pool_(MakeTestPool(kPoolBytes)) {
    CoreConfig config;
    config.tenants = {{"a", {1}, 640 * kKiB, "full"}, {"b", {2}, 1280 * kKiB, "full"}};
    config.session_limits = limits_;
    config.sessions_max = 4;
    config.first_extent_bytes = 32 * kKiB;
    config.extent_bytes = 64 * kKiB;
    for (TenantConfig& tenant : config.tenants) tenant.counts.snapshots = 3;
    core_ = std::make_unique<KvCore>(config, *pool_);
  }

  void Step() {
    switch (random_() % 24) {
      case 0:
        Connect();
        break;
      case 1:
        if (random_() % 8 == 0) Disconnect();
        break;
      case 2:
        OpenSequence();
        break;
      case 3:
        if (random_() % 3 == 0) Close();
        break;
      case 4:
        Truncate();
        break;
      case 5:
      case 6:
        TakeJob();
        break;
      case 7:
      case 8:
      case 9:
        FinishJob();
        break;
      case 10:
        if (Client* client = Any()) client->engine->refuse_extents = random_() % 8 == 0;
        break;
      case 11:
      case 12:
        Save();
        break;
      case 13:
        Resume();
        break;
      case 14:
        if (random_() % 8 == 0) Drop();
        break;
      case 15:
        if (random_() % 8 == 0) Resize();
        break;
      default:
        Compute();
    }
    (void)core_->Settle();
    const absl::Status conserved = core_->CheckConservation();
    ASSERT_TRUE(conserved.ok()) << MessageOf(conserved);
  }

  // Ends everything; nothing may be left.
  void Finish() {
    while (!clients_.empty()) Disconnect();
    while (!out_.empty()) FinishJob();
    for (const uint32_t uid : {1U, 2U}) {
      FakeEngine last(*core_, limits_, uid);
      for (const Saved& saved : saved_) (void)core_->DropSnapshot(last.session(), saved.id);
      core_->EndSession(last.session_id());
    }
    (void)core_->Settle();
    for (const TenantReport& tenant : core_->TenantReports()) {
      EXPECT_EQ(tenant.held_bytes, 0U);
      EXPECT_EQ(tenant.charged_bytes, 0U);
      EXPECT_EQ(tenant.sessions, 0U);
      EXPECT_EQ(tenant.counters.violations, 0U);
      counts["snapshots dropped for room"] += tenant.counters.snapshots_dropped;
    }
    EXPECT_EQ(pool_->counts().charged_bytes, 0U);
    EXPECT_EQ(core_->session_count(), 0U);
  }

  std::map<std::string, uint64_t> counts;  // how often what was reached

 private:
  Client* Any() { return clients_.empty() ? nullptr : &clients_[random_() % clients_.size()]; }
  Stream* AnyStream(Client* client) {
    if (client == nullptr || client->streams.empty()) return nullptr;
    return &client->streams[random_() % client->streams.size()];
  }

  void Connect() {
    if (core_->session_count() >= 4) return;
    Client client;
    client.uid = 1 + static_cast<uint32_t>(random_() % 2);
    client.engine = std::make_unique<FakeEngine>(*core_, limits_, client.uid);
    const absl::StatusOr<uint32_t> model = client.engine->RegisterModel(2);
    if (model.ok()) client.model = *model;
    clients_.push_back(std::move(client));
  }

  void Disconnect() {
    if (clients_.empty()) return;
    const size_t at = random_() % clients_.size();
    core_->EndSession(clients_[at].engine->session_id());
    EXPECT_FALSE(clients_[at].engine->open());
    if (!core_->IsGone(clients_[at].engine->session_id())) ++counts["ended with a copy out"];
    leaving_.push_back(std::move(clients_[at].engine));
    clients_.erase(clients_.begin() + static_cast<ptrdiff_t>(at));
    DropGone();
  }

  void DropGone() {
    std::erase_if(leaving_, [this](const std::unique_ptr<FakeEngine>& engine) {
      return core_->IsGone(engine->session_id());
    });
  }

  void OpenSequence() {
    Client* client = Any();
    if (client == nullptr || client->model == 0) return;
    const Rule& rule = Rules()[random_() % Rules().size()];
    absl::StatusOr<FakeEngine::Stream> stream = client->engine->Open(client->model, rule.retention);
    if (stream.ok()) client->streams.push_back({*std::move(stream), &rule, {}, false});
    if (!stream.ok()) ++counts["open refused"];
  }

  // Asks for a snapshot, or for one that was asked for.
  void Save() {
    Client* client = Any();
    Stream* stream = AnyStream(client);
    if (stream == nullptr || client->engine->Opening(stream->engine)) return;
    client->engine->WriteDesk(stream->engine);
    if (!stream->asked) std::memcpy(stream->saving.bytes.data(), &++ids_made_, sizeof(ids_made_));
    const SaveAnswer answer = client->engine->Save(stream->engine, stream->saving, &stream->asked);
    if (!answer.status.ok()) {
      // Sealed rows lie in memory that the engine has to take.
      const bool refused = client->engine->refuse_extents &&
                           answer.status.code() == absl::StatusCode::kDeadlineExceeded;
      ASSERT_TRUE(refused || answer.status.code() == absl::StatusCode::kResourceExhausted)
          << MessageOf(answer.status);
      ++counts["save refused"];
    }
    if (!answer.status.ok() || answer.ready) stream->asked = false;
    if (!answer.ready) return;
    std::vector<uint32_t> ids = stream->engine.ids;
    ids.resize(answer.rows);
    saved_.push_back({stream->saving, client->uid, std::move(ids), stream->rule});
    ++counts["saved"];
  }

  void Resume() {
    Client* client = Any();
    if (client == nullptr || client->model == 0 || saved_.empty()) return;
    const Saved& saved = saved_[saved_.size() - 1 - random_() % std::min<size_t>(6, saved_.size())];
    absl::StatusOr<FakeEngine::Stream> stream = client->engine->Resume(
        client->model, random_() % 2 == 0 ? "" : saved.rule->retention, saved.id, saved.ids);
    if (stream.ok()) {
      ASSERT_EQ(client->uid, saved.uid);
      client->streams.push_back({*std::move(stream), saved.rule, {}, false});
      ++counts["resumed"];
    } else if (stream.status().code() == absl::StatusCode::kNotFound) {
      ++counts[client->uid == saved.uid ? "snapshot gone" : "snapshot of another"];
    } else {
      ++counts["resume refused"];
    }
  }

  void Drop() {
    Client* client = Any();
    if (client == nullptr || saved_.empty()) return;
    (void)core_->DropSnapshot(client->engine->session(), saved_[random_() % saved_.size()].id);
  }

  void Close() {
    Client* client = Any();
    Stream* stream = AnyStream(client);
    if (stream == nullptr) return;
    const absl::StatusOr<bool> closed =
        core_->CloseSequence(client->engine->session(), stream->engine.slot, stream->engine.uid);
    ASSERT_TRUE(closed.ok()) << MessageOf(closed.status());
    if (!*closed) return;
    client->streams.erase(client->streams.begin() + (stream - client->streams.data()));
    ++counts["closed"];
  }

  void Truncate() {
    Client* client = Any();
    Stream* stream = AnyStream(client);
    if (stream == nullptr || stream->engine.rows == 0) return;
    if (client->engine->Opening(stream->engine)) return;
    FakeEngine::Stream& at = stream->engine;
    client->engine->WriteDesk(at);
    const uint64_t rows = at.rows - random_() % std::min<uint64_t>(at.rows + 1, 12);
    const TruncateAnswer answer = core_->Truncate(client->engine->session(), at.slot, at.uid, rows);
    if (!answer.ready) return;
    ASSERT_EQ(answer.status.ok(), rows >= answer.rollback_floor) << MessageOf(answer.status);
    if (!answer.status.ok()) return;
    ++counts["truncated"];
    at.rows = rows;
    at.uid = answer.uid;
    at.ids.resize(rows);
    stream->asked = false;               // a client waits for its save
    (void)client->engine->Writable(at);  // takes the newest table that is due
    client->engine->WriteDesk(at);
  }

  // Smaller and back: nothing that somebody uses goes, whatever the size.
  void Resize() {
    const bool small = pool_->counts().pool_bytes < kPoolBytes;
    const uint64_t bytes = small ? kPoolBytes : random_() % kPoolBytes / kPageBytes * kPageBytes;
    ASSERT_TRUE(pool_->Resize(bytes).ok());
    while (core_->GiveUpCached(bytes)) {
    }
    const HostPoolCounts pool = pool_->counts();
    ASSERT_EQ(pool.over_bytes > 0, pool.charged_bytes > bytes);
    ++counts[pool.over_bytes > 0 ? "smaller than what is used" : "resized"];
  }

  void TakeJob() {
    if (std::unique_ptr<SequenceJob> job = core_->TakeJob()) out_.push_back(std::move(job));
  }

  void FinishJob() {
    if (out_.empty()) return;
    const size_t at = random_() % out_.size();
    Run(*out_[at]);
    core_->FinishJob(std::move(out_[at]));
    out_.erase(out_.begin() + static_cast<ptrdiff_t>(at));
    ++counts["compacted"];
    DropGone();
  }

  void Compute() {
    Client* client = Any();
    Stream* stream = AnyStream(client);
    if (stream == nullptr) return;
    FakeEngine& engine = *client->engine;
    FakeEngine::Stream& at = stream->engine;
    if (engine.Opening(at)) return;
    uint64_t wanted = 1 + random_() % 20;
    for (; wanted > 0 && engine.Writable(at) > 0 && at.rows < 700; --wanted) {
      engine.WriteRow(at, static_cast<uint32_t>(random_() % 8));
      const uint32_t layer = static_cast<uint32_t>(random_() % 2);
      ASSERT_EQ(engine.VisibleRows(at, at.rows - 1, layer),
                stream->rule->Visible(at.ids, at.rows - 1))
          << stream->rule->retention << " row " << at.rows - 1;
      ++counts["rows"];
      counts["records"] += std::exchange(engine.records_read, 0);
    }
    engine.WriteDesk(at);
    const SyncAnswer answer = engine.Sync(at, at.rows + 1, at.rows);
    ASSERT_TRUE(engine.open()) << MessageOf(answer.status);
    if (answer.status.code() == absl::StatusCode::kResourceExhausted) ++counts["grant refused"];
    const absl::StatusCode code = answer.status.code();
    ASSERT_TRUE(code == absl::StatusCode::kOk || code == absl::StatusCode::kResourceExhausted ||
                code == absl::StatusCode::kDeadlineExceeded)
        << MessageOf(answer.status);
  }

  const SessionLimits limits_{4, 2, 64, 8, 1 << 9, 64 * kKiB};
  std::mt19937_64 random_;
  std::unique_ptr<HostPool> pool_;
  std::vector<Client> clients_;
  std::vector<std::unique_ptr<FakeEngine>> leaving_;
  std::unique_ptr<KvCore> core_;  // goes before the engines that it writes to
  std::vector<std::unique_ptr<SequenceJob>> out_;
  std::vector<Saved> saved_;  // some are gone
  uint64_t ids_made_ = 0;
};

TEST(KvCoreModelTest, RandomOperationsKeepTheBooks) {
  const uint64_t seed = TestSeed(1);
  std::map<std::string, uint64_t> counts;
  for (uint64_t round = 0; round < 20; ++round) {
    SCOPED_TRACE(fmt::format("KVASIR_SEED={} round {}", seed, round));
    Model model(seed + round);
    for (int step = 0; step < 2000 && !::testing::Test::HasFailure(); ++step) model.Step();
    model.Finish();
    for (const auto& [name, count] : model.counts) counts[name] += count;
    if (::testing::Test::HasFailure()) return;
  }
  for (const auto& [name, count] : counts) fmt::print("{}: {}\n", name, count);
  for (const char* name : {"rows", "records", "compacted", "truncated", "closed", "grant refused",
                           "open refused", "ended with a copy out", "saved", "save refused",
                           "resumed", "resume refused", "snapshot gone", "snapshot of another",
                           "snapshots dropped for room", "resized", "smaller than what is used"}) {
    EXPECT_GT(counts[name], 0U) << name;  // else the test looks at less than it says
  }
}

}  // namespace
}  // namespace kvasir::core::testing
