// Prefixes that stay in memory over lives of the daemon: the service manager keeps the extents.
#include <signal.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "tests/support/eventually.h"
#include "tests/support/handover_daemon.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {
namespace {

class HandoverTest : public HandoverDaemonTest {
 protected:
  v1::MemoryCounts Tenant() const {
    v1::GetStatsResponse response;
    const grpc::Status status =
        RawCalls(folder_.path() + "/control.sock", "")
            .CallAdmin(&v1::Admin::Stub::GetStats, v1::GetStatsRequest(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.tenants_size(), 1);
    return response.tenants_size() > 0 ? response.tenants(0).host() : v1::MemoryCounts();
  }

  // What one session finds of each of the first prompts.
  std::vector<uint64_t> RowsOf(uint64_t prompts) {
    std::vector<uint64_t> rows;
    absl::StatusOr<TierEngine> engine = daemon_.Connect(layers_);
    EXPECT_TRUE(engine.ok()) << MessageOf(engine.status());
    for (uint64_t i = 0; engine.ok() && i < prompts; ++i) {
      const absl::StatusOr<uint64_t> found = engine->AttachedRows(PromptOf(i, 400));
      EXPECT_TRUE(found.ok()) << MessageOf(found.status());
      rows.push_back(found.value_or(0));
    }
    return rows;
  }
};

TEST_F(HandoverTest, HitsAreAsBeforeAfterSigkill) {
  ASSERT_TRUE(daemon_.Start());
  std::vector<std::vector<uint32_t>> prompts;
  for (uint64_t i = 0; i < 5; ++i) {
    prompts.push_back(PromptOf(i, 320 + 192 * i));
    ASSERT_NO_FATAL_FAILURE(Publish(prompts.back()));
  }
  WaitForRecords(5);
  const uint64_t held = Tenant().held_bytes();
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  // What is moved out of frozen extents is there twice for a moment.
  EXPECT_TRUE(Eventually([&] { return Tenant().held_bytes() == held; }));
  for (const std::vector<uint32_t>& prompt : prompts) {
    EXPECT_EQ(Found(prompt), prompt.size() / 16 * 16);
  }
  EXPECT_EQ(Found(PromptOf(17, 500)), 0U);
  // All are verified without being asked for, too, and stay written down.
  WaitForPrefixes("handover", 0);
  EXPECT_EQ(daemon_.PrefixesIn("memory"), 5U);
  WaitForRecords(5);
  // And over another life.
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  for (const std::vector<uint32_t>& prompt : prompts) {
    EXPECT_EQ(Found(prompt), prompt.size() / 16 * 16);
  }
}

TEST_F(HandoverTest, CompactedPrefixesStayToo) {
  const std::vector<std::string> retentions = {
      "streamingllm:start_size=4,recent_size=64,positions=original", "window:size=100"};
  ASSERT_TRUE(daemon_.Start());
  const std::vector<uint32_t> prompt = PromptOf(1, 700);
  for (const std::string& retention : retentions) {
    ASSERT_NO_FATAL_FAILURE(Publish(prompt, retention));
  }
  WaitForRecords(retentions.size());
  for (int life = 0; life < 2; ++life) {
    ASSERT_NO_FATAL_FAILURE(KillAndStart());
    for (const std::string& retention : retentions) {
      EXPECT_EQ(Found(prompt, retention), prompt.size()) << retention;
    }
  }
}

TEST_F(HandoverTest, SequencesGoOnFromThemAndPublishMore) {
  ASSERT_TRUE(daemon_.Start());
  const std::vector<uint32_t> prompt = PromptOf(1, 700);
  ASSERT_NO_FATAL_FAILURE(Publish({prompt.begin(), prompt.begin() + 400}));
  WaitForRecords(1);
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  ASSERT_NO_FATAL_FAILURE(Publish(prompt));
  EXPECT_EQ(Found(prompt), 688U);
  WaitForPrefixes("memory", 1);
  // Of both lives' extents.
  WaitForRecords(1);
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  EXPECT_EQ(Found(prompt), 688U);
}

TEST_F(HandoverTest, AStopIsAsGood) {
  ASSERT_TRUE(daemon_.Start());
  const std::vector<uint32_t> prompt = PromptOf(1, 700);
  ASSERT_NO_FATAL_FAILURE(Publish(prompt));
  WaitForRecords(1);
  daemon_.Stop();
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(prompt), 688U);
}

TEST_F(HandoverTest, WhatIsGivenUpIsGivenBackByTheManager) {
  ASSERT_TRUE(daemon_.Start());
  ASSERT_NO_FATAL_FAILURE(Publish(PromptOf(1, 700)));
  WaitForRecords(1);
  EXPECT_GT(keeper_.Count("kvasir-extent-"), 0U);
  daemon_.Drop();
  while (keeper_.Count("kvasir-extent-") > 0) {
  }
  WaitForRecords(0);
  // Likewise what was taken over.
  ASSERT_NO_FATAL_FAILURE(Publish(PromptOf(2, 700)));
  WaitForRecords(1);
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  EXPECT_GT(keeper_.Count("kvasir-extent-"), 0U);
  daemon_.Drop();
  while (keeper_.Count("kvasir-extent-") > 0) {
  }
  EXPECT_EQ(Tenant().held_bytes(), 0U);
  EXPECT_EQ(Tenant().charged_bytes(), 0U);
}

TEST_F(HandoverTest, AFullPoolServesAndTakesNewRows) {
  layers_ = 40;  // a prompt takes 2 MiB
  ASSERT_TRUE(daemon_.Start());
  uint64_t prompts = 0;
  while (Tenant().charged_bytes() < 64 * kMiB / 100 * 95) {
    ASSERT_LT(prompts, 100U);
    ASSERT_NO_FATAL_FAILURE(Publish(PromptOf(prompts++, 400)));
  }
  const std::vector<uint64_t> there = RowsOf(prompts);
  EXPECT_GT(std::count(there.begin(), there.end(), 400U), 20);
  WaitForRecords(daemon_.PrefixesIn("memory"));
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  EXPECT_GE(Tenant().charged_bytes(), 64 * kMiB / 100 * 90);
  // A new session takes room, of which there is hardly any: what is worth least may go for it, a
  // few prompts more than before, since freed groups of frozen extents cannot be used again.
  const std::vector<uint64_t> now = RowsOf(prompts);
  EXPECT_GE(std::accumulate(now.begin(), now.end(), uint64_t{5} * 400),
            std::accumulate(there.begin(), there.end(), uint64_t{0}));
  // As much again as the pool holds goes through it.
  for (uint64_t i = 0; i < prompts; ++i) {
    ASSERT_NO_FATAL_FAILURE(Publish(PromptOf(1000 + i, 400)));
    EXPECT_EQ(Found(PromptOf(1000 + i, 400)), 400U);
  }
  EXPECT_LE(Tenant().charged_bytes(), 64 * kMiB);
}

TEST_F(HandoverTest, GroupsLeaveExtentsOfWhichLittleIsLeft) {
  ASSERT_TRUE(daemon_.Start());
  // Prompts of one engine lie side by side in its tenant's extents.
  std::vector<std::vector<uint32_t>> prompts;
  for (uint64_t i = 0; i < 40; ++i) {
    prompts.push_back(PromptOf(i, 160));
    ASSERT_NO_FATAL_FAILURE(Publish(prompts.back()));
  }
  WaitForRecords(40);
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  WaitForPrefixes("handover", 0);
  const uint64_t charged = Tenant().charged_bytes();
  // A limit of entries that pushes most of them out is the next life's.
  daemon_.config().tenants[0].prefixes_max = 4;
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  WaitForPrefixes("handover", 0);
  while (Tenant().charged_bytes() >= charged) ASSERT_NO_FATAL_FAILURE(Publish(PromptOf(99, 160)));
  WaitForRecords(daemon_.PrefixesIn("memory"));
  uint64_t found = 0;
  for (const std::vector<uint32_t>& prompt : prompts) found += Found(prompt) > 0 ? 1 : 0;
  EXPECT_GT(found, 0U);
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  uint64_t again = 0;
  for (const std::vector<uint32_t>& prompt : prompts) again += Found(prompt) > 0 ? 1 : 0;
  EXPECT_EQ(again, found);
}

TEST_F(HandoverTest, AnEngineOfTheLifeBeforeIsChargedUntilItLetsGo) {
  ASSERT_TRUE(daemon_.Start());
  const std::vector<uint32_t> prompt = PromptOf(1, 700);
  absl::StatusOr<TierEngine> engine = daemon_.Connect();
  ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
  ASSERT_TRUE(engine->Publish(prompt).ok());
  absl::StatusOr<Sequence> sequence = engine->Attach(prompt);
  ASSERT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  WaitForRecords(1);
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  daemon_.Drop();
  EXPECT_EQ(Tenant().held_bytes(), 0U);
  EXPECT_GT(Tenant().charged_bytes(), 0U);  // it still maps them
  sequence = absl::CancelledError();
  engine = absl::CancelledError();
  while (Tenant().charged_bytes() > 0) daemon_.Drop();
}

TEST_F(HandoverTest, OffForgetsEverything) {
  ASSERT_TRUE(daemon_.Start());
  ASSERT_NO_FATAL_FAILURE(Publish(PromptOf(1, 700)));
  WaitForRecords(1);
  daemon_.config().memory.handover = Config::Memory::Handover::kOff;
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  EXPECT_TRUE(keeper_.Names().empty());
  EXPECT_EQ(Found(PromptOf(1, 700)), 0U);
}

TEST_F(HandoverTest, WithADiskNothingIsThereTwice) {
  daemon_.config() = DiskConfig();
  daemon_.config().memory.handover = Config::Memory::Handover::kTry;
  ASSERT_TRUE(daemon_.Start());
  const std::vector<uint32_t> prompt = PromptOf(1, 700);
  ASSERT_NO_FATAL_FAILURE(Publish(prompt));
  WaitForRecords(1);
  ASSERT_TRUE(daemon_.Drain().ok());
  ASSERT_NO_FATAL_FAILURE(KillAndStart());
  EXPECT_EQ(Found(prompt), 688U);
  EXPECT_EQ(daemon_.Tier().tenants(0).loads(), 0U);  // memory was faster
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 1U);
  // Without the memory the disk has it, under the same keys.
  daemon_.Kill();
  for (const std::string& name : keeper_.Names()) keeper_.Lose(name);
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(prompt), 688U);
  EXPECT_EQ(daemon_.Tier().tenants(0).loads(), 1U);
}

}  // namespace
}  // namespace kvasir::testing
