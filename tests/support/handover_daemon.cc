#include "tests/support/handover_daemon.h"

#include <chrono>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "base/error.h"
#include "daemon/handover/take_over.h"

namespace kvasir::testing {
namespace {

constexpr std::chrono::milliseconds kLookAgain{2};

}  // namespace

Config HandoverDaemonTest::HandoverConfig() const {
  Config config = PlainConfig();
  config.memory.handover = Config::Memory::Handover::kTry;
  return config;
}

std::unique_ptr<HandoverIndex> HandoverDaemonTest::OpenIndex() {
  std::unique_ptr<HandoverIndex> found;
  for (auto& [name, fd] : keeper_.Duplicates()) {
    if (!name.starts_with("kvasir-index-")) continue;
    EXPECT_EQ(found, nullptr) << "two indexes are kept";
    absl::StatusOr<std::unique_ptr<HandoverIndex>> index =
        HandoverIndex::Open(std::move(fd), HandoverLayout());
    EXPECT_TRUE(index.ok()) << MessageOf(index.status());
    if (index.ok()) found = *std::move(index);
  }
  EXPECT_NE(found, nullptr);
  return found;
}

void HandoverDaemonTest::WaitForRecords(size_t count) {
  for (;;) {
    const std::unique_ptr<HandoverIndex> index = OpenIndex();
    if (index == nullptr || index->Read().size() == count) return;
    std::this_thread::sleep_for(kLookAgain);
  }
}

void HandoverDaemonTest::WaitForPrefixes(const std::string& place, size_t count) {
  while (daemon_.PrefixesIn(place) != count) std::this_thread::sleep_for(kLookAgain);
}

void HandoverDaemonTest::Publish(const std::vector<uint32_t>& prompt,
                                 const std::string& retention) {
  absl::StatusOr<TierEngine> engine = daemon_.Connect(layers_);
  ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
  engine->set_retention(retention);
  const absl::Status published = engine->Publish(prompt);
  ASSERT_TRUE(published.ok()) << MessageOf(published);
}

uint64_t HandoverDaemonTest::Found(const std::vector<uint32_t>& prompt,
                                   const std::string& retention) {
  absl::StatusOr<TierEngine> engine = daemon_.Connect(layers_);
  EXPECT_TRUE(engine.ok()) << MessageOf(engine.status());
  if (!engine.ok()) return 0;
  engine->set_retention(retention);
  const absl::StatusOr<uint64_t> rows = engine->AttachedRows(prompt);
  EXPECT_TRUE(rows.ok()) << MessageOf(rows.status());
  return rows.value_or(0);
}

void HandoverDaemonTest::KillAndStart() {
  daemon_.Kill();
  ASSERT_TRUE(daemon_.Start());
}

}  // namespace kvasir::testing
