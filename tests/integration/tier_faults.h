// What tests of a failing disk tier share: a kvasird under the fault layer, and prompts that it has
// stored.
#ifndef KVASIR_TESTS_INTEGRATION_TIER_FAULTS_H_
#define KVASIR_TESTS_INTEGRATION_TIER_FAULTS_H_

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/faults/faults.h"
#include "tests/support/tier_daemon.h"

namespace kvasir::testing {

class TierFaultsTest : public TierDaemonTest {
 protected:
  static constexpr uint64_t kPrompts = 4, kRows = 320;

  void SetUp() override { daemon_.set_environment(faults_.Environment()); }

  static std::vector<uint32_t> Prompt(uint64_t number) { return PromptOf(number, kRows); }

  void PublishAll() const {
    absl::StatusOr<TierEngine> engine = daemon_.Connect();
    ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
    for (uint64_t number = 0; number < kPrompts; ++number) {
      const absl::Status published = engine->Publish(Prompt(number));
      ASSERT_TRUE(published.ok()) << MessageOf(published);
    }
  }
  // All prompts lie on disk, and there alone.
  void StoreAllAndRestart() {
    ASSERT_TRUE(daemon_.Start());
    ASSERT_NO_FATAL_FAILURE(PublishAll());
    daemon_.Stop();
    ASSERT_TRUE(daemon_.Start());
    ASSERT_EQ(daemon_.PrefixesIn("disk"), kPrompts);
  }
  // Rows of the prompt that a new session has, all of them right: no fault is an error to it.
  uint64_t Found(uint64_t number) const {
    absl::StatusOr<TierEngine> engine = daemon_.Connect();
    EXPECT_TRUE(engine.ok()) << MessageOf(engine.status());
    if (!engine.ok()) return 0;
    const absl::StatusOr<uint64_t> rows = engine->AttachedRows(Prompt(number));
    EXPECT_TRUE(rows.ok()) << MessageOf(rows.status());
    return rows.value_or(0);
  }
  uint64_t FoundInAll() const {
    uint64_t rows = 0;
    for (uint64_t number = 0; number < kPrompts; ++number) rows += Found(number);
    return rows;
  }
  // It computes, keeps and finds what the disk has no part in.
  void ExpectGoesOn() const {
    absl::StatusOr<TierEngine> engine = daemon_.Connect();
    ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
    const std::vector<uint32_t> prompt = PromptOf(99, kRows);
    const absl::Status published = engine->Publish(prompt);
    ASSERT_TRUE(published.ok()) << MessageOf(published);
    EXPECT_EQ(engine->AttachedRows(prompt).value_or(0), kRows);
  }
  // Blocks asked of the disk that came to this.
  uint64_t Reads(const std::string& outcome) const {
    const v1::TierInfo tier = daemon_.Tier();
    const auto found = tier.reads().find(outcome);
    return found == tier.reads().end() ? 0 : found->second;
  }
  size_t Segments() const {
    namespace fs = std::filesystem;
    const std::string blocks = disk_path() + "/blocks";
    if (!fs::exists(blocks)) return 0;
    return static_cast<size_t>(std::count_if(
        fs::directory_iterator(blocks), fs::directory_iterator(),
        [](const auto& at) { return at.path().filename().string().starts_with("segment-"); }));
  }

  Faults faults_{folder_.path()};
  TierDaemon daemon_{folder_.path(), DiskConfig()};
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_INTEGRATION_TIER_FAULTS_H_
