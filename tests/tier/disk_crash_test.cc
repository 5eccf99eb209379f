// A writing process is killed at many moments; what it said to have written is there afterwards.
#include <signal.h>

#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "allocator/tier/disk_stream.h"
#include "allocator/tier/disk_tier.h"
#include "base/bytes.h"
#include "tests/support/child_process.h"
#include "tests/tier/tier_blocks.h"
#include "tests/tier/tier_crash.h"
#include "tests/tier/tier_places.h"

namespace kvasir::testing {
namespace {

// What must and what may be there.
struct Ledger {
  std::set<uint64_t> written;  // said to be written, and no erase has begun
  std::set<uint64_t> erasing;  // an erase has begun and was not said to be done
  std::set<uint64_t> erased;
  uint64_t last = 0;

  void Take(const std::string& line) {
    const size_t space = line.find(' ');
    if (space == std::string::npos) return;
    const std::string word = line.substr(0, space);
    const uint64_t number = std::stoull(line.substr(space + 1));
    last = std::max(last, number);
    if (word == "wrote") written.insert(number);
    if (word == "erase") {
      written.erase(number);
      erasing.insert(number);
    }
    if (word == "erased") {
      erasing.erase(number);
      erased.insert(number);
    }
  }
};

TEST(DiskCrashTest, WhatWasSaidToBeWrittenSurvivesAKillAtAnyMoment) {
  const TempFolder folder;
  const std::string path = folder.path() + "/tier";
  std::mt19937 random(31);
  Ledger ledger;
  size_t checked = 0;
  for (int round = 0; round < 40; ++round) {
    {
      ChildProcess writer({SiblingProgram("tier_writer"), path, std::to_string(ledger.last + 100)},
                          {});
      // Some are killed while they open the folder.
      const uint64_t lines = round % 5 == 0 ? 1 : 2 + random() % 60;
      for (uint64_t i = 0; i < lines; ++i) {
        const std::optional<std::string> line = writer.ReadLine();
        ASSERT_TRUE(line.has_value()) << writer.ReadErrors();
        ledger.Take(*line);
      }
      writer.Signal(SIGKILL);
      // What it still said.
      while (const std::optional<std::string> line = writer.ReadLine()) ledger.Take(*line);
      EXPECT_EQ(writer.Wait(), -SIGKILL);
    }
    auto opened = DiskTier::Open(CrashDisk(path), MakeSystemIo());
    ASSERT_TRUE(opened.ok()) << opened.status();
    DiskTier& tier = **opened;
    for (const uint64_t number : ledger.written) {
      ASSERT_EQ(OutcomeOf(tier, number, CrashBlockBytes(number)), "hit") << "round " << round;
      ++checked;
    }
    for (const uint64_t number : ledger.erased) {
      ASSERT_EQ(OutcomeOf(tier, number, CrashBlockBytes(number)), "absent") << "round " << round;
    }
    // Whatever else is there is whole, and nothing but what is there holds space.
    std::map<std::string, uint64_t> listed;
    uint64_t held = 0;
    ASSERT_TRUE(tier.ForEach([&](const TierKey& key, uint64_t bytes) {
                      listed[key.ToHex()] = bytes;
                      held += RoundUp(DiskBytesOf(bytes), 4 * kKiB);
                    })
                    .ok());
    EXPECT_EQ(tier.Stats().held_bytes, held);
    for (uint64_t number = 0; number < ledger.last + 100; ++number) {
      if (!listed.contains(KeyOf(number).ToHex())) continue;
      ASSERT_EQ(OutcomeOf(tier, number, CrashBlockBytes(number)), "hit") << "round " << round;
    }
    // Room for the next round: half of it goes.
    std::vector<TierKey> keys;
    for (auto each = ledger.written.begin(); each != ledger.written.end();) {
      if (*each % 2 == 0) {
        ++each;
        continue;
      }
      keys.push_back(KeyOf(*each));
      ledger.erased.insert(*each);
      each = ledger.written.erase(each);
    }
    ASSERT_TRUE(tier.Erase(keys).ok());
  }
  EXPECT_GT(checked, 1000U);
}

}  // namespace
}  // namespace kvasir::testing
