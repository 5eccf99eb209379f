// What queries see of kept rows that lie in records: byte for byte the same, whenever the daemon
// looks, copies are done, and the engine takes a new table.
#include <algorithm>
#include <map>
#include <memory>
#include <ostream>
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

constexpr uint64_t kRows = 460;
constexpr uint32_t kLayers = 2;
constexpr size_t kAsWrittenBytes = 2 * 8 * 2 + 4;  // K and V of a row, and its position before them

struct RecordCase {
  std::string name, retention;
  uint64_t prompt_rows = 0;
};
void PrintTo(const RecordCase& one, std::ostream* out) { *out << one.retention; }

std::vector<RecordCase> Cases() {
  return {{"Static", "sepllm:form=static,init_cache_size=4,local_size=40+int8:rows=32"},
          {"StaticPromptWindowBelow",
           "sepllm:form=static,init_cache_size=2,local_size=60,prefill_local_size=24+int8:rows=32,"
           "n_sink=0",
           210},
          {"StaticPromptWindowAbove",
           "sepllm:form=static,init_cache_size=3,local_size=20,prefill_local_size=150+int4:rows=32",
           230},
          {"StaticShortWindow", "sepllm:form=static,local_size=3+int8:rows=32"},
          {"FixLlm", "fixllm:init_cache_size=4,local_size=70,delta=2+tm32:n_sink=9"},
          {"Rules", "sinks:size=6|separators|stride:size=4|window:size=33+tm32"},
          {"StrideOfOne", "stride:size=1|window:size=90+int8:rows=32"},
          {"SepCache",
           "sepllm:form=sepcache,init_cache_size=3,sep_cache_size=50,local_size=20,cache_size=100+"
           "int8:rows=32",
           120},
          {"Manager",
           "sepllm:form=manager,init_cache_size=3,sep_cache_size=60,local_size=30,cache_size=120,"
           "positions=original+int8:rows=32"}};
}

using SeenRows = std::vector<std::map<uint64_t, std::string>>;  // [row * kLayers + layer]

// How a stream is played: chances in percent, after each step.
struct Timing {
  uint64_t chunk_max = 1;  // rows of a step
  uint32_t sync = 100;     // the daemon looks though it need not
  uint32_t work = 100;     // jobs are done though nobody waits
  uint32_t late = 0;       // the engine goes on with its table while it may
};

class KeptRecordsTest : public ::testing::TestWithParam<RecordCase> {
 protected:
  KeptRecordsTest() : pool_(MakeTestPool(16 * kMiB)) {
    CoreConfig config;
    config.tenants = {{"a", {1}, 16 * kMiB, "full"}};
    config.session_limits = limits_;
    config.sessions_max = 2;
    config.first_extent_bytes = 32 * kKiB;
    config.extent_bytes = 64 * kKiB;
    core_ = std::make_unique<KvCore>(config, *pool_);
    engine_ = std::make_unique<FakeEngine>(*core_, limits_, 1);
    const auto model = engine_->RegisterModel(kLayers);
    EXPECT_TRUE(model.ok()) << MessageOf(model.status());
    model_ = *model;
  }

  SeenRows Play(const Timing& timing, uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto chance = [&random](uint32_t percent) { return random() % 100 < percent; };
    SeenRows seen;
    auto opened = engine_->Open(model_, GetParam().retention, GetParam().prompt_rows);
    EXPECT_TRUE(opened.ok()) << MessageOf(opened.status());
    FakeEngine::Stream stream = *std::move(opened);
    std::unique_ptr<SequenceJob> job;
    while (stream.rows < kRows && !HasFailure()) {
      const bool late = chance(timing.late);
      uint64_t writable = engine_->Writable(stream, late);
      const bool waits = writable == 0;
      if (waits || chance(timing.sync)) {
        engine_->WriteDesk(stream);
        EXPECT_TRUE(engine_->open());
        (void)engine_->Sync(stream, stream.rows + 1, stream.rows);
      }
      if (job == nullptr) job = core_->TakeJob();
      if (job != nullptr && (waits || chance(timing.work))) {
        core::Run(*job);
        core_->FinishJob(std::move(job));
      }
      writable = std::min(
          {engine_->Writable(stream, late), 1 + random() % timing.chunk_max, kRows - stream.rows});
      for (; writable > 0; --writable) {
        engine_->WriteRow(stream, ids_[stream.rows]);
        for (uint32_t layer = 0; layer < kLayers; ++layer) {
          seen.push_back(engine_->Seen(stream, stream.rows - 1, layer));
        }
      }
    }
    if (job != nullptr) {
      core::Run(*job);
      core_->FinishJob(std::move(job));
    }
    const absl::StatusOr<bool> closed =
        core_->CloseSequence(engine_->session(), stream.slot, stream.uid);
    EXPECT_TRUE(closed.ok() && *closed);
    return seen;
  }

  static std::vector<uint32_t> Ids() {
    std::mt19937_64 random(11);
    std::vector<uint32_t> ids(kRows);
    for (uint32_t& id : ids) id = static_cast<uint32_t>(random() % 6);
    return ids;
  }

  const SessionLimits limits_{4, 2, 64, 8, 1 << 10, 64 * kKiB};
  const std::vector<uint32_t> ids_ = Ids();
  std::unique_ptr<HostPool> pool_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<KvCore> core_;  // goes before the engine that it writes to
  uint32_t model_ = 0;
};

TEST_P(KeptRecordsTest, AreSeenFromTheSameRowInAnyTiming) {
  const SeenRows want = Play({}, 1);
  const auto encoded = [](const auto& entry) { return entry.second.size() > kAsWrittenBytes; };
  ASSERT_TRUE(std::any_of(want.back().begin(), want.back().end(), encoded));
  const uint64_t seed = TestSeed(7);
  for (uint64_t round = 0; round < 12; ++round) {
    const Timing timing{1 + 13 * (round % 6), static_cast<uint32_t>(round * 9),
                        static_cast<uint32_t>(round * 37 % 100),
                        static_cast<uint32_t>(round % 3 * 50)};
    const SeenRows got = Play(timing, seed + round);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_TRUE(got[i] == want[i]) << fmt::format("KVASIR_SEED={} round {} row {} layer {}", seed,
                                                    round, i / kLayers, i % kLayers);
    }
  }
}

std::string NameOf(const ::testing::TestParamInfo<RecordCase>& one) { return one.param.name; }
INSTANTIATE_TEST_SUITE_P(All, KeptRecordsTest, ::testing::ValuesIn(Cases()), NameOf);

}  // namespace
}  // namespace kvasir::core::testing
