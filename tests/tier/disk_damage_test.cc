// Every file of a closed disk tier is damaged in every way: it opens, and serves right bytes or
// none.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "allocator/tier/disk_tier.h"
#include "base/bytes.h"
#include "tests/tier/tier_blocks.h"
#include "tests/tier/tier_places.h"

namespace kvasir::testing {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kBlocks = 60;

size_t BytesOfBlock(uint64_t number) { return 1 + Mix(number) % 60'000; }

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void WriteFile(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

class DiskDamageTest : public ::testing::Test {
 protected:
  // A store with a log and a table in its index.
  void SetUp() override {
    for (uint64_t part = 0; part < 3; ++part) {
      const auto tier = Open();
      for (uint64_t number = part; number < kBlocks; number += 3) {
        ASSERT_EQ(WriteBlock(*tier, number, BytesOfBlock(number)), absl::OkStatus());
      }
      ASSERT_EQ(tier->Flush(), absl::OkStatus());
    }
    fs::rename(path_, whole_);
    for (const auto& entry : fs::recursive_directory_iterator(whole_)) {
      if (entry.is_regular_file()) files_.push_back(fs::relative(entry.path(), whole_));
    }
    std::sort(files_.begin(), files_.end());
    ASSERT_GE(files_.size(), 8U);
  }

  std::unique_ptr<DiskTier> Open() const {
    DiskTierOptions options = SmallDisk(path_, 3 * kMiB);
    options.segment_bytes = kMiB;
    auto tier = DiskTier::Open(options, MakeSystemIo());
    EXPECT_TRUE(tier.ok()) << tier.status();
    return tier.ok() ? *std::move(tier) : nullptr;
  }
  void Renew() const {
    fs::remove_all(path_);
    fs::copy(whole_, path_, fs::copy_options::recursive);
  }
  // Opens the damaged store. Returns how many blocks are hits.
  size_t Check(const std::string& what) const {
    SCOPED_TRACE(what);
    size_t hits = 0;
    for (const bool first : {true, false}) {
      const auto tier = Open();
      if (tier == nullptr) return 0;
      hits = 0;
      for (uint64_t number = 0; number < kBlocks; ++number) {
        const std::string outcome = OutcomeOf(*tier, number, BytesOfBlock(number));
        EXPECT_NE(outcome, "wrong bytes") << "block " << number;
        EXPECT_NE(outcome, "failed") << "block " << number;
        hits += outcome == "hit" ? 1 : 0;
      }
      // It works on, and what it says now it keeps: the second opening finds it.
      const uint64_t fresh = first ? 1000 : 1001;
      EXPECT_EQ(WriteBlock(*tier, fresh, 50'000), absl::OkStatus());
      EXPECT_EQ(OutcomeOf(*tier, 1000, 50'000), "hit");
      EXPECT_EQ(OutcomeOf(*tier, fresh, 50'000), "hit");
    }
    return hits;
  }

  TempFolder folder_;
  const std::string path_ = folder_.path() + "/tier";
  const std::string whole_ = folder_.path() + "/whole";
  std::vector<fs::path> files_;
};

TEST_F(DiskDamageTest, NoDamageLosesNothing) {
  Renew();
  EXPECT_EQ(Check("whole"), kBlocks);
}

TEST_F(DiskDamageTest, AFileThatIsCut) {
  for (const fs::path& file : files_) {
    const std::string bytes = ReadFile(fs::path(whole_) / file);
    for (const size_t kept :
         {size_t{0}, bytes.size() / 2, bytes.size() - std::min<size_t>(bytes.size(), 1)}) {
      Renew();
      fs::resize_file(fs::path(path_) / file, kept);
      (void)Check(file.string() + " cut to " + std::to_string(kept));
    }
  }
}

TEST_F(DiskDamageTest, AFileThatIsGone) {
  for (const fs::path& file : files_) {
    Renew();
    fs::remove(fs::path(path_) / file);
    (void)Check(file.string() + " removed");
  }
}

TEST_F(DiskDamageTest, AFileWithFlippedBytes) {
  std::mt19937 random(5);
  for (const fs::path& file : files_) {
    const std::string bytes = ReadFile(fs::path(whole_) / file);
    for (size_t round = 0; round < 6 && !bytes.empty(); ++round) {
      Renew();
      std::string damaged = bytes;
      const size_t flips = round < 3 ? 1 : 20;
      for (size_t i = 0; i < flips; ++i) {
        char& byte = damaged[random() % damaged.size()];
        byte = static_cast<char>(byte ^ (1 << random() % 8));
      }
      WriteFile(fs::path(path_) / file, damaged);
      (void)Check(file.string() + " flipped, round " + std::to_string(round));
    }
  }
}

TEST_F(DiskDamageTest, AFileInAnothersPlace) {
  for (size_t i = 0; i < files_.size(); ++i) {
    for (size_t j = i + 1; j < files_.size(); ++j) {
      Renew();
      WriteFile(fs::path(path_) / files_[i], ReadFile(fs::path(whole_) / files_[j]));
      WriteFile(fs::path(path_) / files_[j], ReadFile(fs::path(whole_) / files_[i]));
      (void)Check(files_[i].string() + " and " + files_[j].string() + " swapped");
    }
  }
}

}  // namespace
}  // namespace kvasir::testing
