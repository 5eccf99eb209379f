// Twins: every stream is written in host memory and on a device, and goes on from whatever its
// memory has of it, while two tenants share a device that is short and give up what they have
// cached there. Nothing can tell the two apart, and the books of both memories are right after
// every step; also where rows move between the memories meanwhile, and each side goes on from what
// the other one has left.
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/offload_fixture.h"

namespace kvasir::core::testing {
namespace {

constexpr const char* kRetentions[] = {"full", "streamingllm:start_size=4,recent_size=37",
                                       "sepllm:form=static,init_cache_size=3,local_size=40"};
constexpr size_t kOpenMax = 3;

class DeviceTwinsTest : public OffloadCoreTest {
 protected:
  void Configure(CoreConfig& config) override {
    OffloadCoreTest::Configure(config);
    for (TenantConfig& tenant : config.tenants) tenant.counts.snapshots = 1000;
  }

  struct Side {
    FakeEngine* engine = nullptr;
    uint32_t model = 0;
  };
  struct Twins {
    size_t tenant = 0;
    std::string retention;
    std::vector<uint32_t> tokens;
    FakeEngine::Stream streams[2];
  };
  struct Saved {
    size_t tenant = 0;
    uint64_t id = 0;  // and the next one, of the other side
    std::string retention;
    std::vector<uint32_t> tokens;
  };

  FakeEngine& EngineOf(const Twins& twins, size_t side) {
    return *sides_[twins.tenant][side].engine;
  }
  uint32_t ModelOf(const Twins& twins, size_t side) { return sides_[twins.tenant][side].model; }

  // Both are written to the end of the tokens, and see the same then.
  void Finish(Twins& twins) {
    for (size_t i = 0; i < 2 && !HasFatalFailure(); ++i) {
      WriteTokens(EngineOf(twins, i), twins.streams[i], twins.tokens);
    }
    if (HasFatalFailure()) return;
    ASSERT_EQ(SeenAtEnd(EngineOf(twins, 1), twins.streams[1]),
              SeenAtEnd(EngineOf(twins, 0), twins.streams[0]))
        << twins.retention << " rows " << twins.tokens.size();
  }

  void Open() {
    Twins twins;
    twins.tenant = random_() % 2;
    twins.retention = kRetentions[random_() % 3];
    twins.tokens = Tokens(20 + random_() % 200, random_() % 4);
    for (size_t i = 0; i < 2; ++i) {
      absl::StatusOr<FakeEngine::Stream> stream =
          Attach(EngineOf(twins, i), ModelOf(twins, i), twins.retention, twins.tokens);
      ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
      attached_[i] += stream->rows > 0 ? 1 : 0;
      twins.streams[i] = *std::move(stream);
    }
    Finish(twins);
    open_.push_back(std::move(twins));
  }

  void Resume() {
    const Saved saved = saved_[random_() % saved_.size()];
    const uint64_t swap = moves_ ? random_() % 2 : 0;  // each what the other one has saved
    Twins twins{saved.tenant, saved.retention, saved.tokens, {}};
    std::optional<size_t> lost;
    for (size_t i = 0; i < 2; ++i) {
      absl::StatusOr<FakeEngine::Stream> stream = DeviceCoreTest::Resume(
          EngineOf(twins, i), ModelOf(twins, i), saved.id + (i ^ swap), saved.tokens);
      const bool no_room = stream.status().code() == absl::StatusCode::kResourceExhausted;
      // It had to make room, or has none where it is to come to.
      if (stream.status().code() == absl::StatusCode::kNotFound || (moves_ && i == 1 && no_room)) {
        if (lost) return;
        lost = i;
        continue;
      }
      ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
      ++resumed_[i];
      twins.streams[i] = *std::move(stream);
    }
    if (lost) {
      if (!moves_) {
        EXPECT_EQ(*lost, 1U) << "host memory was not short";
      }
      Close(EngineOf(twins, 1 - *lost), twins.streams[1 - *lost]);
      return;
    }
    twins.tokens.push_back(3);
    Finish(twins);
    open_.push_back(std::move(twins));
  }

  void Save(const Twins& twins) {
    const uint64_t id = next_id_;
    next_id_ += 2;
    for (size_t i = 0; i < 2; ++i) {
      const absl::Status saved = DeviceCoreTest::Save(EngineOf(twins, i), twins.streams[i], id + i);
      ASSERT_TRUE(saved.ok()) << MessageOf(saved);
    }
    saved_.push_back({twins.tenant, id, twins.retention, twins.tokens});
  }

  void Publish(const Twins& twins) {
    for (size_t i = 0; i < 2; ++i) {
      const absl::Status published = DeviceCoreTest::Publish(EngineOf(twins, i), twins.streams[i]);
      ASSERT_TRUE(published.ok()) << MessageOf(published);
    }
  }

  // Of one of the open streams.
  void Go(size_t at) {
    Twins& twins = open_[at];
    const uint64_t what = random_() % 8;
    if (what < 3) {
      const std::vector<uint32_t> more = Tokens(1 + random_() % 30, 9);
      twins.tokens.insert(twins.tokens.end(), more.begin(), more.end());
      Finish(twins);
    } else if (what < 5) {
      Publish(twins);
    } else if (what < 6) {
      Save(twins);
    } else {
      for (size_t i = 0; i < 2; ++i) Close(EngineOf(twins, i), twins.streams[i]);
      open_.erase(open_.begin() + static_cast<ptrdiff_t>(at));
    }
  }

  void ConnectAll() {
    for (uint32_t tenant = 0; tenant < 2; ++tenant) {
      for (size_t i = 0; i < 2; ++i) {
        Side& side = sides_[tenant][i];
        side.engine = &ConnectOn(tenant + 1, &side.model, i == 0 ? "" : "gpu0");
        if (moves_) side.engine->run_tiers = [this] { FinishLate(0), (void)RunOffloads(); };
      }
    }
  }

  // Jobs that are out while other things happen, until no more than `left` of them are.
  void FinishLate(size_t left) {
    while (late_.size() > left) {
      OffloadCoreTest::Run(*late_.front());
      core_->FinishOffloadJob(std::move(late_.front()));
      late_.pop_front();
      ExpectConserved();
    }
  }
  void Move() {
    FinishLate(random_() % 3);
    const auto direction =
        random_() % 2 == 0 ? device::CopyDirection::kToDevice : device::CopyDirection::kToHost;
    if (std::unique_ptr<OffloadJob> job = Take(direction)) late_.push_back(std::move(job));
  }

  void RunSteps(int steps) {
    ConnectAll();
    for (int step = 0; step < steps; ++step) {
      SCOPED_TRACE("step " + std::to_string(step));
      now_ += std::chrono::milliseconds(200);
      core_->set_now(now_);
      const uint64_t what = random_() % 100;
      if (what < 2) {  // its sessions end, what is saved and published stays
        for (const auto& sides : sides_) {
          for (const Side& side : sides) core_->EndSession(side.engine->session_id());
        }
        open_.clear();
        ConnectAll();
      } else if (open_.empty() || (open_.size() < kOpenMax && what < 30)) {
        if (!saved_.empty() && what % 2 == 0) {
          Resume();
        } else {
          Open();
        }
      } else {
        Go(random_() % open_.size());
      }
      if (moves_) Move();
      ExpectConserved();
      if (HasFailure()) break;
    }
    FinishLate(0);
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_GT(attached_[i], 2U) << i;
      EXPECT_GT(resumed_[i], 2U) << i;
    }
  }

  Side sides_[2][2];  // of each tenant: in host memory, on the device
  std::vector<Twins> open_;
  std::vector<Saved> saved_;
  uint64_t next_id_ = 1;
  uint64_t attached_[2] = {}, resumed_[2] = {};
  bool moves_ = false;
  std::deque<std::unique_ptr<OffloadJob>> late_;
  Instant now_{};
  std::mt19937_64 random_;
};

TEST_F(DeviceTwinsTest, NothingCanTellThemApart) {
  constexpr uint64_t kShort = 40 * kUnit, kLimit = 30 * kUnit;
  StartWith(kShort, kLimit);
  random_.seed(TestSeed(11));
  RunSteps(1500);
  uint64_t dropped = 0;
  for (const TenantReport& report : core_->TenantReports())
    dropped += report.counters.snapshots_dropped;
  EXPECT_GT(dropped, 0U);
  EXPECT_LE(OnDevice().charged_bytes, kLimit);
  EXPECT_LE(memory_->pool().counts().charged_bytes, kShort);
}

TEST_F(DeviceTwinsTest, NothingCanTellThemApartWhileRowsMove) {
  StartWith(40 * kUnit, 30 * kUnit);
  moves_ = true;
  random_.seed(TestSeed(12));
  RunSteps(1000);
  OffloadCounters counters;
  for (size_t tenant = 0; tenant < 2; ++tenant) {
    counters.stores += OnDevice(tenant).offloads.stores;
    counters.loads += OnDevice(tenant).offloads.loads;
  }
  EXPECT_GT(counters.stores, 10U);
  EXPECT_GT(counters.loads, 10U);
}

}  // namespace
}  // namespace kvasir::core::testing
