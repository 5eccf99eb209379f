// The helpers of the quality benchmarks: texts, and what a query saw.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "bench/scored_text.h"
#include "bench/texts.h"

namespace kvasir::bench {
namespace {

TEST(NormaliseLinesTest, CarriageReturnGoesBeforeALineBreakOnly) {
  EXPECT_EQ(NormaliseLines("a\r\nb\rc\n", false), "a\nb\rc\n");
}

TEST(NormaliseLinesTest, SingleLineBreakBecomesASpaceAndParagraphsStay) {
  EXPECT_EQ(NormaliseLines("a\nb\n\nc\r\nd\n\n\ne\n", true), "a b\n\nc d\n\n\ne ");
  EXPECT_EQ(NormaliseLines("\na\n", true), " a ");
  EXPECT_EQ(NormaliseLines("", true), "");
}

TEST(WithoutCutCharacterTest, RemovesOnlyWhatIsCut) {
  EXPECT_EQ(WithoutCutCharacter("ab"), "ab");
  EXPECT_EQ(WithoutCutCharacter("a\xC3\xA9"), "a\xC3\xA9");
  EXPECT_EQ(WithoutCutCharacter("a\xC3"), "a");
  EXPECT_EQ(WithoutCutCharacter("a\xE2\x80"), "a");
  EXPECT_EQ(WithoutCutCharacter("a\xE2\x80\x94"), "a\xE2\x80\x94");
  EXPECT_EQ(WithoutCutCharacter("a\xF0\x9F\x98"), "a");
  EXPECT_EQ(WithoutCutCharacter("\xF0"), "");
}

TEST(Sha256HexTest, KnownDigest) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

double MeanOfWindow(uint64_t size, uint64_t first, uint64_t last) {
  double sum = 0;
  for (uint64_t row = first; row < last; ++row) {
    sum += static_cast<double>(std::min(row + 1, size));
  }
  return sum / static_cast<double>(last - first);
}

TEST(EqualMeanWindowTest, NoOtherWindowIsNearer) {
  for (const double mean : {20.0, 33.4, 100.49, 100.5, 250.0, 317.9}) {
    const uint64_t window = EqualMeanWindow(4, 128, 511, mean);
    const double off = std::abs(MeanOfWindow(window + 4, 128, 511) - mean);
    for (uint64_t other = 1; other < 508; ++other) {
      EXPECT_LE(off, std::abs(MeanOfWindow(other + 4, 128, 511) - mean)) << mean << " " << other;
    }
  }
}

TEST(EqualMeanWindowTest, FullRetentionNeedsTheWholeText) {
  EXPECT_EQ(EqualMeanWindow(4, 128, 511, MeanOfWindow(511, 128, 511)), 511u - 4);
}

// Rows 0..3 kept, row 5 sticky, a window of 3 over the recent rows from 4 on.
class OneTableStore final : public engine::KvStore {
 public:
  OneTableStore() {
    kept_.rows = 4;
    layer_.kept = std::span(&kept_, 1);
    layer_.recent_first = 4;
    layer_.window = 3;
    layer_.sticky = std::span(&sticky_, 1);
  }
  uint64_t rows() const override { return rows_; }
  absl::StatusOr<StepView> Begin(uint32_t want) override {
    return StepView{rows_, want, std::span(&layer_, 1)};
  }
  absl::Status Commit(std::span<const uint32_t> ids) override {
    rows_ += ids.size();
    return absl::OkStatus();
  }
  absl::Status Truncate(uint64_t row) override {
    rows_ = row;
    return absl::OkStatus();
  }
  absl::StatusOr<engine::KvUsage> Usage() override { return engine::KvUsage{}; }
  absl::Status Close() override { return absl::OkStatus(); }

 private:
  uint64_t rows_ = 6;
  KeptRunView kept_;
  uint64_t sticky_ = 5;
  LayerView layer_;
};

TEST(CountingStoreTest, CountsKeptWindowAndStickyRowsOfCommittedRowsOnly) {
  OneTableStore store;
  CountingStore counting(store);
  const std::vector<uint32_t> ids = {1, 2, 3};
  ASSERT_TRUE(counting.Begin(4).ok());
  ASSERT_TRUE(counting.Commit(ids).ok());
  // Row 6 sees 0..3 and 4..6; row 7 sees 5..7; row 8 sees 6..8 and, below, 5.
  EXPECT_THAT(counting.visible(), ::testing::ElementsAre(7, 7, 8));
}

class TextsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/kvasir-texts";
    std::filesystem::create_directories(folder_);
    Write("catalogue.json",
          R"({"files": {"a.txt": {"sha256": ")" + Sha256Hex("right") + R"("}}, "segments": {}})");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ + "/" + name) << text;
  }

  std::string folder_;
};

TEST_F(TextsTest, GivesTheFileThatIsPinned) {
  Write("a.txt", "right");
  const auto texts = Texts::Open(folder_ + "/catalogue.json", folder_);
  ASSERT_TRUE(texts.ok()) << MessageOf(texts.status());
  const auto text = texts->File("a.txt");
  ASSERT_TRUE(text.ok()) << MessageOf(text.status());
  EXPECT_EQ(*text, "right");
}

TEST_F(TextsTest, AnotherTextIsAnErrorAndAMissingOneIsNotFound) {
  const auto texts = Texts::Open(folder_ + "/catalogue.json", folder_);
  ASSERT_TRUE(texts.ok()) << MessageOf(texts.status());
  EXPECT_TRUE(absl::IsNotFound(texts->File("a.txt").status()));
  EXPECT_TRUE(absl::IsNotFound(texts->File("b.txt").status()));
  Write("a.txt", "wrong");
  const absl::Status status = texts->File("a.txt").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(MessageOf(status), ::testing::HasSubstr(Sha256Hex("right")));
}

TEST_F(TextsTest, CatalogueMustBeOne) {
  Write("catalogue.json", "[]");
  EXPECT_TRUE(absl::IsInvalidArgument(Texts::Open(folder_ + "/catalogue.json", folder_).status()));
  EXPECT_TRUE(absl::IsNotFound(Texts::Open(folder_ + "/none.json", folder_).status()));
}

}  // namespace
}  // namespace kvasir::bench
