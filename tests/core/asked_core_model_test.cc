// Random operations on sequences that ask their engine for something: scores, a selection, lookups.
// Jobs of all kinds are run in any order, memory is short, extents are refused, and some engines
// report nonsense. After each step bytes are conserved; what is visible is what was written; and
// nonsense is paid for by the sequence that it is about, which can still be closed.
#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
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
  uint64_t prompt_rows = 0;
  uint64_t visible_max = ~uint64_t{0};  // rows that a query sees at most
  uint64_t must_see = 1;                // last rows that it sees for certain
};

// What infllm and gemfilter are given, for what is expected of them.
constexpr uint64_t kInit = 3, kBlock = 4;

const std::vector<Rule>& Rules() {
  static const std::vector<Rule> rules = {
      {"h2o:hh_size=6,recent_size=4,evict_interval=3", 0, 13, 4},
      {"h2o:hh_size=40,recent_size=20,evict_interval=16,decay=0.9,heads=shared", 0, 76, 20},
      {"sinks:size=2|h2o:hh_size=20,recent_size=1,evict_interval=1", 0, 22, 1},
      {"tova:max_capacity=9,evict_interval=1", 0, 10, 1},
      {"snapkv:window_size=4,max_capacity_prompt=30,kernel_size=3", 57},
      {"snapkv:window_size=2,max_capacity_prompt=20,heads=shared", 40},
      {"knorm:max_capacity=12,recent_size=2", 0, ~uint64_t{0}, 2},
      {"separators|keydiff:max_capacity=24,recent_size=3", 0, ~uint64_t{0}, 3},
      {"gemfilter:filter_layer=1,topk=5"},
      {"infllm:n_init=3,n_local=8,block_size=4,topk=2,repr_topk=2,max_cached_block=3,"
       "exc_block_size=1,cache_strategy=lru-s"},
      {"infllm:n_init=3,n_local=20,block_size=4,topk=5,repr_topk=1,max_cached_block=5,"
       "exc_block_size=4"},
      {"sepllm:form=static,init_cache_size=2,local_size=5"}};
  return rules;
}

struct Stream {
  FakeEngine::Stream engine;
  const Rule* rule = nullptr;
  bool spoilt = false;                // nonsense was reported: its calls may fail from then on
  bool selected = false;              // gemfilter
  uint32_t layer = 0;                 // of the last lookup
  std::map<uint32_t, uint64_t> last;  // blocks of the last lookup that was fetched, by layer

  bool Is(const char* name) const { return rule->retention.find(name) != std::string::npos; }
  bool asked = false;  // a call of it is under way
};

struct Client {
  std::unique_ptr<FakeEngine> engine;
  uint32_t model = 0;
  std::vector<Stream> streams;
};

class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed), pool_(MakeTestPool(3 * kMiB)) {
    CoreConfig config;
    config.tenants = {{"a", {1}, 900 * kKiB, "full"}, {"b", {2}, 1800 * kKiB, "full"}};
    config.session_limits = limits_;
    config.sessions_max = 4;
    config.first_extent_bytes = 16 * kKiB;
    config.extent_bytes = 32 * kKiB;
    core_ = std::make_unique<KvCore>(config, *pool_);
  }

  void Step() {
    switch (random_() % 24) {
      case 0:
        Connect();
        break;
      case 1:
        if (random_() % 10 == 0) Disconnect();
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
      case 7:
        if (std::unique_ptr<SequenceJob> job = core_->TakeJob()) out_.push_back(std::move(job));
        break;
      case 8:
      case 9:
      case 10:
      case 11:
        FinishJob();
        break;
      case 12:
        if (Client* client = Any()) client->engine->refuse_extents = random_() % 8 == 0;
        break;
      case 13:
      case 14:
      case 15:
        Ask();
        break;
      case 16:
        Inspect();
        break;
      case 17:
        if (random_() % 8 == 0) Spoil();
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
    (void)core_->Settle();
    for (const TenantReport& tenant : core_->TenantReports()) {
      EXPECT_EQ(tenant.held_bytes, 0U);
      EXPECT_EQ(tenant.charged_bytes, 0U);
      EXPECT_EQ(tenant.counters.violations, 0U);
    }
    EXPECT_EQ(pool_->counts().charged_bytes, 0U);
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
    client.engine =
        std::make_unique<FakeEngine>(*core_, limits_, 1 + static_cast<uint32_t>(random_() % 2));
    const absl::StatusOr<uint32_t> model = client.engine->RegisterModel(2);
    if (model.ok()) client.model = *model;
    clients_.push_back(std::move(client));
  }

  void Disconnect() {
    if (clients_.empty()) return;
    const size_t at = random_() % clients_.size();
    core_->EndSession(clients_[at].engine->session_id());
    if (!core_->IsGone(clients_[at].engine->session_id())) ++counts["ended with a job out"];
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
    const size_t before = core_->SequenceReports().size();
    absl::StatusOr<FakeEngine::Stream> stream =
        client->engine->Open(client->model, rule.retention, rule.prompt_rows);
    if (stream.ok()) {
      Stream& made = client->streams.emplace_back();
      made.engine = *std::move(stream);
      made.rule = &rule;
      return;
    }
    ++counts["open refused"];
    ASSERT_NE(stream.status().code(), absl::StatusCode::kInvalidArgument)
        << MessageOf(stream.status());
    ASSERT_EQ(core_->SequenceReports().size(), before) << MessageOf(stream.status());
  }

  void Close() {
    Client* client = Any();
    Stream* stream = AnyStream(client);
    if (stream == nullptr) return;
    const absl::StatusOr<bool> closed =
        core_->CloseSequence(client->engine->session(), stream->engine.slot, stream->engine.uid);
    ASSERT_TRUE(closed.ok()) << MessageOf(closed.status());
    if (!*closed) return;
    ++counts[stream->spoilt ? "closed after nonsense" : "closed"];
    client->streams.erase(client->streams.begin() + (stream - client->streams.data()));
  }

  void Truncate() {
    Client* client = Any();
    Stream* stream = AnyStream(client);
    if (stream == nullptr || stream->engine.rows == 0) return;
    FakeEngine::Stream& at = stream->engine;
    client->engine->WriteDesk(at);
    const uint64_t rows = at.rows - random_() % std::min<uint64_t>(at.rows + 1, 6);
    const TruncateAnswer answer = core_->Truncate(client->engine->session(), at.slot, at.uid, rows);
    if (!answer.ready) return;
    ASSERT_EQ(answer.status.ok(), rows >= answer.rollback_floor) << MessageOf(answer.status);
    if (!answer.status.ok()) return;
    if (rows < at.rows) ++counts["truncated"];
    StartOver(*client->engine, at, rows, answer.uid);
  }

  static void StartOver(FakeEngine& engine, FakeEngine::Stream& at, uint64_t rows, uint32_t uid) {
    at.rows = rows;
    at.uid = uid;
    at.ids.resize(rows);
    (void)engine.Writable(at);  // takes the newest table that is due
    engine.WriteDesk(at);
  }

  void FinishJob() {
    if (out_.empty()) return;
    const size_t at = random_() % out_.size();
    SequenceJob& job = *out_[at];
    counts["jobs that score"] += job.scorings.size();
    counts["jobs that select"] += job.selecting ? 1 : 0;
    counts["jobs that seal"] += job.sealings.size();
    counts["jobs that look up"] += job.lookup ? 1 : 0;
    Run(job);
    core_->FinishJob(std::move(out_[at]));
    out_.erase(out_.begin() + static_cast<ptrdiff_t>(at));
    DropGone();
  }

  // A call that only some policies know.
  void Ask() {
    const bool other = random_() % 16 == 0;  // of any policy
    Client* client = Any();
    if (client == nullptr) return;
    for (Stream& stream : client->streams) {
      if (other || stream.Is("gemfilter")) Select(*client, stream);
      if (other || stream.Is("infllm")) Retrieve(*client, stream);
    }
  }

  void Select(Client& client, Stream& stream) {
    FakeEngine::Stream& at = stream.engine;
    client.engine->WriteDesk(at);
    const SelectAnswer answer =
        core_->SelectRows(client.engine->session(), at.slot, at.uid, &stream.asked);
    if (answer.ready || !answer.status.ok() || random_() % 8 == 0) stream.asked = false;
    if (!stream.Is("gemfilter") || stream.selected || at.rows == 0) {
      ASSERT_TRUE(!answer.ready);  // a job may be out
      return;
    }
    ASSERT_TRUE(answer.status.ok() || stream.spoilt) << MessageOf(answer.status);
    if (!answer.ready) return;
    ++counts["selected"];
    EXPECT_EQ(answer.rows.size(), std::min<uint64_t>(5, at.rows));
    EXPECT_LT(answer.rows.back(), at.rows);
    EXPECT_TRUE(std::is_sorted(answer.rows.begin(), answer.rows.end()));
    stream.selected = true;
    StartOver(*client.engine, at, 0, answer.uid);
  }

  void Retrieve(Client& client, Stream& stream) {
    FakeEngine::Stream& at = stream.engine;
    if (random_() % 4 == 0) stream.layer = static_cast<uint32_t>(random_() % 3);
    const uint32_t layer = stream.layer;
    const uint64_t mass = random_() % 2 == 0 ? 0 : stream.last[layer];
    const RetrieveAnswer answer =
        client.engine->Retrieve(at, layer, mass, &stream.asked, random_() % 2 == 0);
    if (answer.ready || !answer.status.ok() || random_() % 8 == 0) stream.asked = false;
    if (!stream.Is("infllm") || layer == 2) {
      ASSERT_FALSE(answer.ready && answer.status.ok());
      return;
    }
    const absl::StatusCode code = answer.status.code();
    // Another lookup may have been made whose answer was not fetched.
    ASSERT_TRUE(answer.status.ok() || stream.spoilt ||
                code == absl::StatusCode::kDeadlineExceeded ||
                code == absl::StatusCode::kResourceExhausted ||
                (mass != 0 && code == absl::StatusCode::kInvalidArgument))
        << MessageOf(answer.status);
    if (code == absl::StatusCode::kResourceExhausted) ++counts["lookup refused"];
    if (!answer.ready) return;
    stream.last[layer] = answer.blocks.size();
    for (const Sequence::RetrievedBlock& block : answer.blocks) {
      if (stream.spoilt) continue;  // its keys may be spoilt
      client.engine->ExpectBlock(at, layer, block, kInit + block.block * kBlock, kBlock);
      ++counts[mass != 0 ? "blocks retrieved with mass" : "blocks retrieved"];
    }
  }

  void Inspect() {
    Client* client = Any();
    Stream* stream = AnyStream(client);
    if (stream == nullptr) return;
    const absl::StatusOr<Inspection> inspection =
        core_->Inspect(nullptr, stream->engine.id, static_cast<uint32_t>(random_() % 2),
                       random_() % 40, static_cast<uint32_t>(random_() % 100));
    ASSERT_TRUE(inspection.ok()) << MessageOf(inspection.status());
    for (const InspectedRow& row : inspection->rows) EXPECT_LE(row.row.kept_heads, 1U);
  }

  // An engine that reports what is no number, or less than nothing, or keys that are none.
  void Spoil() {
    Client* client = Any();
    Stream* stream = AnyStream(client);
    if (stream == nullptr || stream->engine.report == nullptr || stream->engine.rows == 0) return;
    stream->spoilt = true;
    FakeEngine::FillReports(stream->engine, random_() % 2 == 0
                                                ? std::numeric_limits<float>::quiet_NaN()
                                                : -std::numeric_limits<float>::infinity());
    client->engine->SpoilKeys(stream->engine, stream->engine.rows - 1, 0x7E00);
    ++counts["spoilt"];
  }

  void Compute() {
    Client* client = Any();
    Stream* stream = AnyStream(client);
    if (stream == nullptr) return;
    FakeEngine& engine = *client->engine;
    FakeEngine::Stream& at = stream->engine;
    uint64_t wanted = 1 + random_() % 20;
    for (; wanted > 0 && engine.Writable(at) > 0 && at.rows < 300; --wanted) {
      engine.WriteRow(at, static_cast<uint32_t>(random_() % 8),
                      static_cast<float>(random_() % 1000 + 1) * 1e-3F);
      if (stream->spoilt) continue;
      const std::vector<uint64_t> rows =
          engine.VisibleRows(at, at.rows - 1, static_cast<uint32_t>(random_() % 2));
      ASSERT_LE(rows.size(), stream->rule->visible_max) << stream->rule->retention;
      const uint64_t last = std::min(stream->rule->must_see, at.rows);
      ASSERT_GE(rows.size(), last);
      for (uint64_t i = 1; i <= last; ++i) ASSERT_EQ(rows[rows.size() - i], at.rows - i);
      ++counts["rows"];
    }
    engine.WriteDesk(at);
    const SyncAnswer answer = engine.Sync(at, at.rows + 1, at.rows);
    ASSERT_TRUE(engine.open()) << MessageOf(answer.status);
    const absl::StatusCode code = answer.status.code();
    if (code == absl::StatusCode::kResourceExhausted) ++counts["grant or table refused"];
    if (stream->spoilt && code == absl::StatusCode::kInvalidArgument) {
      ASSERT_NE(MessageOf(answer.status).find("layer="), std::string::npos)
          << MessageOf(answer.status);
      ++counts["nonsense refused"];
      return;
    }
    ASSERT_TRUE(code == absl::StatusCode::kOk || code == absl::StatusCode::kResourceExhausted ||
                code == absl::StatusCode::kDeadlineExceeded)
        << stream->rule->retention << " " << MessageOf(answer.status);
  }

  const SessionLimits limits_{4, 2, 96, 8, 1 << 9, 64 * kKiB};
  std::mt19937_64 random_;
  std::unique_ptr<HostPool> pool_;
  std::vector<Client> clients_;
  std::vector<std::unique_ptr<FakeEngine>> leaving_;
  std::unique_ptr<KvCore> core_;  // goes before the engines that it writes to
  std::vector<std::unique_ptr<SequenceJob>> out_;
};

TEST(AskedCoreModelTest, RandomOperationsKeepTheBooks) {
  const uint64_t seed = TestSeed(1);
  std::map<std::string, uint64_t> counts;
  for (uint64_t round = 0; round < 20; ++round) {
    SCOPED_TRACE(fmt::format("KVASIR_SEED={} round {}", seed, round));
    Model model(seed + round);
    for (int step = 0; step < 2500 && !::testing::Test::HasFailure(); ++step) model.Step();
    model.Finish();
    for (const auto& [name, count] : model.counts) counts[name] += count;
    if (::testing::Test::HasFailure()) return;
  }
  for (const auto& [name, count] : counts) fmt::print("{}: {}\n", name, count);
  for (const char* name :
       {"rows", "jobs that score", "jobs that select", "jobs that seal", "jobs that look up",
        "selected", "blocks retrieved", "blocks retrieved with mass", "truncated", "closed",
        "spoilt", "nonsense refused", "closed after nonsense", "grant or table refused",
        "open refused", "ended with a job out"}) {
    EXPECT_GT(counts[name], 0U) << name;  // else the test looks at less than it says
  }
}

}  // namespace
}  // namespace kvasir::core::testing
