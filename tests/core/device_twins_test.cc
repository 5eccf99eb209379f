// Twins: every stream is written in host memory and on a device, and goes on from whatever its
// memory has of it, while two tenants share a device that is short and give up what they have
// cached there. Nothing can tell the two apart, and the books of both memories are right after
// every step.
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/device_fixture.h"

namespace kvasir::core::testing {
namespace {

constexpr const char* kRetentions[] = {"full", "streamingllm:start_size=4,recent_size=37",
                                       "sepllm:form=static,init_cache_size=3,local_size=40"};
constexpr size_t kOpenMax = 3;

class DeviceTwinsTest : public DeviceCoreTest {
 protected:
  void Configure(CoreConfig& config) override {
    DeviceCoreTest::Configure(config);
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
    Twins twins{saved.tenant, saved.retention, saved.tokens, {}};
    std::optional<size_t> lost;
    for (size_t i = 0; i < 2; ++i) {
      absl::StatusOr<FakeEngine::Stream> stream =
          DeviceCoreTest::Resume(EngineOf(twins, i), ModelOf(twins, i), saved.id + i, saved.tokens);
      if (stream.status().code() == absl::StatusCode::kNotFound) {  // it had to make room
        lost = i;
        continue;
      }
      ASSERT_TRUE(stream.ok()) << MessageOf(stream.status());
      ++resumed_[i];
      twins.streams[i] = *std::move(stream);
    }
    if (lost) {
      EXPECT_EQ(*lost, 1U) << "host memory was not short";
      Close(EngineOf(twins, 0), twins.streams[0]);
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
      }
    }
  }

  Side sides_[2][2];  // of each tenant: in host memory, on the device
  std::vector<Twins> open_;
  std::vector<Saved> saved_;
  uint64_t next_id_ = 1;
  uint64_t attached_[2] = {}, resumed_[2] = {};
  std::mt19937_64 random_;
};

TEST_F(DeviceTwinsTest, NothingCanTellThemApart) {
  constexpr uint64_t kShort = 40 * kUnit, kLimit = 30 * kUnit;
  StartWith(kShort, kLimit);
  random_.seed(TestSeed(11));
  ConnectAll();
  for (int step = 0; step < 1500; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
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
    ExpectConserved();
    if (HasFailure()) return;
  }
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_GT(attached_[i], 2U) << i;
    EXPECT_GT(resumed_[i], 2U) << i;
  }
  uint64_t dropped = 0;
  for (const TenantReport& report : core_->TenantReports())
    dropped += report.counters.snapshots_dropped;
  EXPECT_GT(dropped, 0U);
  EXPECT_LE(OnDevice().charged_bytes, kLimit);
  EXPECT_LE(memory_->pool().counts().charged_bytes, kShort);
}

}  // namespace
}  // namespace kvasir::core::testing
