// Lent memory comes back: from caches, from sessions that are asked, from such that do not hear,
// and from processes that hold on to it.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/posix.h"
#include "tests/core/fake_engine.h"

namespace kvasir::core::testing {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kPool = 4 * kMiB;
constexpr milliseconds kTick{20};

class TakeBackTest : public ::testing::Test {
 protected:
  TakeBackTest() {
    CoreConfig config;
    config.tenants = {{"owner", {1}, kPool, "full"}, {"borrower", {2}, kPool, "full"}};
    config.tenants[0].reserved_bytes = kPool / 2;
    config.session_limits = limits_;
    config.first_extent_bytes = 32 * kKiB;
    config.extent_bytes = 64 * kKiB;
    config.take_back_ms = 300;
    core_ = std::make_unique<KvCore>(config, *pool_);
    core_->set_now(now_);
  }
  void TearDown() override {
    const absl::Status conserved = core_->CheckConservation();
    EXPECT_TRUE(conserved.ok()) << MessageOf(conserved);
  }

  struct Client {
    FakeEngine engine;
    std::vector<UniqueFd> holds;  // descriptors of what it was given: it does not let go
    uint32_t model = 0;
    std::vector<FakeEngine::Stream> streams;
    KvCore& core;
    Client(KvCore& in, const SessionLimits& limits, uint32_t uid, bool overrides)
        : engine(in, limits, uid, overrides), core(in) {}
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    ~Client() {
      if (engine.open()) core.EndSession(engine.session_id());
    }
  };

  std::unique_ptr<Client> Connect(uint32_t uid, bool holds = false, bool overrides = false) {
    auto client = std::make_unique<Client>(*core_, limits_, uid, overrides);
    if (holds) client->engine.holds = &client->holds;
    const absl::StatusOr<uint32_t> model = client->engine.RegisterModel(2);
    EXPECT_TRUE(model.ok()) << MessageOf(model.status());
    client->model = model.value_or(0);
    return client;
  }

  // Writes rows of ever new sequences until there is no memory; what the last call said.
  absl::Status Fill(Client& client, uint32_t streams_max = 64) {
    for (uint32_t i = 0; i < streams_max; ++i) {
      absl::StatusOr<FakeEngine::Stream> stream = client.engine.Open(client.model, "");
      if (!stream.ok()) return stream.status();
      client.streams.push_back(*std::move(stream));
      const absl::Status status = Grow(client, client.streams.back(), 1024);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  absl::Status Grow(Client& client, FakeEngine::Stream& stream, uint64_t rows) {
    while (stream.rows < rows) {
      if (client.engine.Writable(stream) > 0) {
        client.engine.WriteRow(stream, 5);
        continue;
      }
      client.engine.WriteDesk(stream);
      const SyncAnswer answer = client.engine.Sync(stream, stream.rows + 1, stream.rows);
      if (!answer.status.ok()) return answer.status;
      if (!answer.ready) return DeadlineExceeded("it waits");
      RunJobs();
    }
    return absl::OkStatus();
  }
  void RunJobs() {
    while (std::unique_ptr<SequenceJob> job = core_->TakeJob()) {
      core::Run(*job);
      core_->FinishJob(std::move(job));
    }
  }
  // What the data server does, every 20 ms.
  bool Tick() {
    now_ += kTick;
    core_->set_now(now_);
    const bool again = core_->TakeBack();
    (void)core_->Settle();
    const absl::Status conserved = core_->CheckConservation();
    EXPECT_TRUE(conserved.ok()) << MessageOf(conserved);
    return again;
  }
  TenantReport ReportOf(const std::string& name) {
    for (TenantReport& report : core_->TenantReports()) {
      if (report.name == name) return report;
    }
    ADD_FAILURE() << name;
    return {};
  }
  // Ticks until the owner has `rows` rows; the time that it took.
  milliseconds UntilGrown(Client& owner, uint64_t rows) {
    for (milliseconds waited{0}; waited < milliseconds(2000); waited += kTick) {
      const absl::Status status = Grow(owner, owner.streams.back(), rows);
      if (status.ok()) return waited;
      (void)Tick();
    }
    ADD_FAILURE() << "the owner waits for ever";
    return milliseconds(2000);
  }

  const SessionLimits limits_{64, 4, 256, 8, 1 << 12, 256 * kKiB};
  std::unique_ptr<HostPool> pool_ = MakeTestPool(kPool);
  Instant now_ = Instant() + milliseconds(1);
  std::unique_ptr<KvCore> core_;
};

TEST_F(TakeBackTest, SequencesOfASessionThatDoesNotHearEnd) {
  const auto borrower = Connect(2, /*holds=*/true);
  EXPECT_FALSE(Fill(*borrower).ok());
  EXPECT_GE(ReportOf("borrower").charged_bytes, kPool / 100 * 95);
  const auto owner = Connect(1);
  const absl::Status first = Fill(*owner);
  EXPECT_EQ(MessageOf(first), "it waits") << "others owe it the memory";
  EXPECT_TRUE(Tick());
  const shm::DaemonHeader& header = *borrower->engine.session().memory.header();
  EXPECT_GT(header.wanted_back.load(), 0U);
  EXPECT_GT(ReportOf("borrower").wanted_back_bytes, 0U);
  const uint64_t rows = owner->streams.back().rows;
  const milliseconds waited = UntilGrown(*owner, rows + 64);
  EXPECT_GE(waited, milliseconds(300)) << "it was asked first";
  EXPECT_LE(waited, milliseconds(600));
  // The latest ones have ended, and they alone.
  ASSERT_TRUE(borrower->engine.open());
  const uint64_t ended = ReportOf("borrower").counters.sequences_taken_back;
  ASSERT_GT(ended, 0U);
  ASSERT_LT(ended, borrower->streams.size());
  for (size_t i = 0; i < borrower->streams.size(); ++i) {
    const FakeEngine::Stream& stream = borrower->streams[i];
    const shm::SeqBoard& board = borrower->engine.board(stream.slot);
    const bool ends = i + ended >= borrower->streams.size();
    EXPECT_EQ(board.uid.load(), ends ? 0 : stream.uid);
    EXPECT_EQ(board.state.load(),
              static_cast<uint32_t>(ends ? shm::BoardState::kTakenBack : shm::BoardState::kOpen));
    if (!ends) (void)borrower->engine.VisibleRows(stream, stream.rows - 1, 0);
    if (ends) {
      EXPECT_EQ(borrower->engine.Sync(stream, 0, std::nullopt).status.code(),
                absl::StatusCode::kNotFound);
    }
  }
  // What the process holds of them is worth nothing to it, and is charged to its tenant.
  uint64_t empty = 0;
  for (const UniqueFd& fd : borrower->holds) {
    char bytes[4096];
    const ssize_t got = ::pread(fd.get(), bytes, sizeof(bytes), 0);
    empty += got == 0 || std::all_of(bytes, bytes + got, [](char c) { return c == 0; }) ? 1 : 0;
  }
  EXPECT_GT(empty, 0U);
  EXPECT_GT(ReportOf("borrower").taken_back_bytes, 0U);
  borrower->holds.clear();
  (void)core_->Settle();
  EXPECT_EQ(ReportOf("borrower").taken_back_bytes, 0U);
}

TEST_F(TakeBackTest, ASessionEndsWhereNoSequenceIsLeft) {
  // Models alone: each has a group for the probe of its layout.
  std::vector<std::unique_ptr<Client>> borrowers;
  ASSERT_TRUE(core_->SetBudgets({{"owner", {kPool, kPool, 1}}}).ok());
  borrowers.push_back(Connect(2, /*holds=*/true));
  borrowers.push_back(Connect(2, /*holds=*/true));
  const auto owner = Connect(1);
  for (int step = 0; step < 200 && borrowers[1]->engine.open(); ++step) {
    (void)Fill(*owner, 1);
    (void)Tick();
  }
  EXPECT_FALSE(borrowers[1]->engine.open());
  const shm::DaemonHeader& header =
      *reinterpret_cast<const shm::DaemonHeader*>(borrowers[1]->engine.daemon_segment());
  EXPECT_EQ(header.end_reason.load(), static_cast<uint32_t>(shm::EndReason::kMemoryTakenBack));
  EXPECT_GT(ReportOf("borrower").counters.sessions_taken_back, 0U);
}

TEST_F(TakeBackTest, TheOwnerGetsAllThatIsItsOwn) {
  const auto borrower = Connect(2);
  EXPECT_FALSE(Fill(*borrower).ok());
  const auto owner = Connect(1);
  for (int step = 0; step < 500; ++step) {
    if (owner->streams.empty() || owner->streams.back().rows == 1024) {
      (void)Fill(*owner, 1);
    } else {
      (void)Grow(*owner, owner->streams.back(), 1024);
    }
    (void)Tick();
    if (ReportOf("owner").charged_bytes >= kPool / 2) break;
  }
  EXPECT_GE(ReportOf("owner").charged_bytes, kPool / 2);
}

TEST_F(TakeBackTest, WhoHearsKeepsItsSession) {
  const auto borrower = Connect(2, /*holds=*/true);
  EXPECT_FALSE(Fill(*borrower).ok());
  const auto owner = Connect(1);
  EXPECT_FALSE(Fill(*owner).ok());
  EXPECT_TRUE(Tick());
  const shm::DaemonHeader& header = *borrower->engine.session().memory.header();
  ASSERT_GT(header.wanted_back.load(), 0U);
  FakeEngine late(*core_, limits_, 2);  // who comes now is asked as well
  EXPECT_EQ(late.session().memory.header()->wanted_back.load(), header.wanted_back.load());
  core_->EndSession(late.session_id());
  // It gives up sequences until nothing is wanted any more. Its mappings stay.
  while (header.wanted_back.load() > 0) {
    ASSERT_FALSE(borrower->streams.empty());
    const FakeEngine::Stream& last = borrower->streams.back();
    ASSERT_TRUE(core_->CloseSequence(borrower->engine.session(), last.slot, last.uid).ok());
    borrower->streams.pop_back();
    (void)Tick();
  }
  ASSERT_FALSE(borrower->streams.empty());
  const uint64_t rows = owner->streams.back().rows;
  EXPECT_LE(UntilGrown(*owner, rows + 16), milliseconds(300));
  EXPECT_TRUE(borrower->engine.open());
  EXPECT_EQ(ReportOf("borrower").counters.sequences_taken_back, 0U);
  EXPECT_GT(ReportOf("borrower").taken_back_bytes, 0U) << "it has them open still";
  // Its other sequences have lost nothing, and can go on where there is room.
  for (const FakeEngine::Stream& stream : borrower->streams) {
    (void)borrower->engine.VisibleRows(stream, stream.rows - 1, 0);
  }
}

TEST_F(TakeBackTest, SlotsOfTakenExtentsAreUsedAgain) {
  const auto borrower = Connect(2, /*holds=*/true);
  const auto owner = Connect(1);
  EXPECT_FALSE(Fill(*borrower).ok());
  const uint64_t slots = borrower->engine.session().extents.size();
  for (int round = 0; round < 3; ++round) {
    (void)Fill(*owner, 8);
    for (int tick = 0; tick < 12; ++tick) {  // nobody is ended: it hears in time
      while (borrower->streams.size() > 2) {
        const FakeEngine::Stream& last = borrower->streams.back();
        ASSERT_TRUE(core_->CloseSequence(borrower->engine.session(), last.slot, last.uid).ok());
        borrower->streams.pop_back();
      }
      (void)Tick();
    }
    for (const FakeEngine::Stream& stream : owner->streams) {
      ASSERT_TRUE(core_->CloseSequence(owner->engine.session(), stream.slot, stream.uid).ok());
    }
    owner->streams.clear();
    for (int tick = 0; tick < 120; ++tick) (void)Tick();  // its claim is forgotten
    (void)Fill(*borrower);
    EXPECT_LE(borrower->engine.session().extents.size(), slots);
  }
  EXPECT_GT(borrower->engine.newest_generation, 1U);
}

TEST_F(TakeBackTest, WhoCouldKeepItMayNotBorrow) {
  const auto root = Connect(2, /*holds=*/true, /*overrides=*/true);
  const absl::Status full = Fill(*root);
  EXPECT_NE(MessageOf(full).find("may not borrow"), std::string::npos) << MessageOf(full);
  EXPECT_LE(ReportOf("borrower").charged_bytes, kPool / 2);
  const auto owner = Connect(1);
  EXPECT_EQ(Fill(*owner, 4).ok(), true) << "its part is there";
  for (int tick = 0; tick < 50; ++tick) (void)Tick();
  EXPECT_TRUE(root->engine.open());
  const TenantReport report = ReportOf("borrower");
  EXPECT_EQ(report.counters.sequences_taken_back + report.counters.sessions_taken_back, 0U);
}

TEST_F(TakeBackTest, BudgetsChangeWhileItRuns) {
  const auto borrower = Connect(2);
  EXPECT_FALSE(Fill(*borrower).ok());
  const auto refused = [&](const std::string& tenant, const Budget& budget) {
    return MessageOf(core_->SetBudgets({{"borrower", {0, kPool / 8, 5}}, {tenant, budget}}));
  };
  EXPECT_EQ(refused("nobody", {0, kPool, 1}), "unknown tenant: tenant=nobody");
  EXPECT_EQ(refused("owner", {0, kPool, 0}),
            "weight out of bounds: tenant=owner weight=0 min=1 max=10000");
  EXPECT_EQ(refused("owner", {kPool, kPool / 2, 1}),
            "larger than the limit: tenant=owner reserved_bytes=4194304 limit_bytes=2097152");
  EXPECT_EQ(refused("owner", {kPool + 1, kPool + 1, 1}),
            "tenants reserve more than there is: reserved_bytes=4194305 (of all) "
            "pool_bytes=4194304");
  EXPECT_EQ(refused("owner", {0, 1, 1}),
            "limit out of bounds: tenant=owner limit_bytes=1 min=32768 max=70368744177664");
  EXPECT_EQ(ReportOf("owner").reserved_bytes, kPool / 2) << "all or nothing";
  EXPECT_EQ(ReportOf("borrower").weight, 1U);
  ASSERT_TRUE(core_->SetBudgets({{"owner", {kPool / 4, kPool, 3}}}).ok());
  EXPECT_EQ(ReportOf("owner").own_bytes, kPool / 4 * 3);
  EXPECT_EQ(ReportOf("borrower").own_bytes, kPool / 4);
  // A limit below what it has: it gets no more, and nothing is taken from it.
  const uint64_t had = ReportOf("borrower").charged_bytes;
  ASSERT_TRUE(core_->SetBudgets({{"borrower", {0, kPool / 8, 1}}}).ok());
  const absl::Status more = Fill(*borrower, 1);
  EXPECT_NE(MessageOf(more).find("over its limit"), std::string::npos) << MessageOf(more);
  EXPECT_EQ(ReportOf("borrower").charged_bytes, had);
}

}  // namespace
}  // namespace kvasir::core::testing
