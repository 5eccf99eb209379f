// Every file of a stopped daemon's disk tier is damaged in every way: the next daemon starts, and
// its engines get right rows or compute them.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/support/environment.h"
#include "tests/support/tier_daemon.h"

namespace kvasir::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kPrompts = 4;
constexpr fs::perms kOwnersAlone = fs::perms::owner_read | fs::perms::owner_write;
// Of a segment little more is written by the prompts of this test.
constexpr uint64_t kDamagedBytesMax = 512 * kKiB;

std::vector<uint32_t> Prompt(uint64_t number) { return PromptOf(number, 100 + 200 * number); }

class TierDamageTest : public TierDaemonTest {
 protected:
  void PublishAndStop() {
    ASSERT_TRUE(daemon_.Start());
    absl::StatusOr<TierEngine> engine = daemon_.Connect();
    ASSERT_TRUE(engine.ok()) << MessageOf(engine.status());
    for (uint64_t number = 0; number < kPrompts; ++number) {
      const absl::Status published = engine->Publish(Prompt(number));
      ASSERT_TRUE(published.ok()) << MessageOf(published);
    }
    daemon_.Stop();
  }

  // Prompts that a started daemon has rows of, after a check of every byte.
  uint64_t CountFound() const {
    absl::StatusOr<TierEngine> engine = daemon_.Connect();
    EXPECT_TRUE(engine.ok()) << MessageOf(engine.status());
    uint64_t found = 0;
    for (uint64_t number = 0; engine.ok() && number < kPrompts; ++number) {
      const absl::StatusOr<uint64_t> rows = engine->AttachedRows(Prompt(number));
      EXPECT_TRUE(rows.ok()) << "prompt " << number << ": " << MessageOf(rows.status());
      found += rows.value_or(0) > 0 ? 1 : 0;
    }
    return found;
  }

  std::string Key() const { return disk_path() + "/prefix.key"; }

  TierDaemon daemon_{folder_.path(), DiskConfig()};
};

void Truncate(const fs::path& file, std::mt19937_64& random) {
  const uint64_t bytes = fs::file_size(file);
  fs::resize_file(file, bytes == 0 ? 0 : random() % std::min(bytes, kDamagedBytesMax));
}

void Flip(const fs::path& file, std::mt19937_64& random) {
  const uint64_t bytes = std::min<uint64_t>(fs::file_size(file), kDamagedBytesMax);
  std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
  for (uint64_t count = bytes == 0 ? 0 : 1 + random() % 16; count > 0; --count) {
    const auto at = static_cast<std::streamoff>(random() % bytes);
    stream.seekg(at);
    const int byte = stream.get();
    stream.seekp(at);
    stream.put(static_cast<char>(byte ^ static_cast<int>(1 + random() % 255)));
  }
}

void Swap(const fs::path& one, const fs::path& other) {
  const fs::path aside = one.string() + ".aside";
  fs::rename(one, aside);
  fs::rename(other, one);
  fs::rename(aside, other);
}

TEST_F(TierDamageTest, RowsAreRightOrAMiss) {
  std::mt19937_64 random(FromEnvironment("KVASIR_SEED", std::random_device{}()));
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  const fs::path whole = folder_.path() + "/whole";
  fs::rename(disk_path(), whole);
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(whole)) {
    if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), whole));
  }
  std::sort(files.begin(), files.end());
  ASSERT_GE(files.size(), 7U);
  uint64_t found = 0;
  for (const fs::path& file : files) {
    for (const std::string damage : {"truncated", "flipped", "swapped"}) {
      fs::remove_all(disk_path());
      fs::copy(whole, disk_path(), fs::copy_options::recursive);
      fs::path other = file;
      while (other == file) other = files[random() % files.size()];
      SCOPED_TRACE(file.string() + " " + damage + " (" + other.string() + ")");
      const fs::path at = disk_path() / file;
      if (damage == "truncated") Truncate(at, random);
      if (damage == "flipped") Flip(at, random);
      if (damage == "swapped") Swap(at, disk_path() / other);
      // An operator's matter: another key hides everything.
      if (fs::file_size(Key()) != 16 || fs::status(Key()).permissions() != kOwnersAlone) {
        EXPECT_THAT(daemon_.StartAndFail(), HasSubstr("prefix.key"));
        continue;
      }
      if (!daemon_.Start()) continue;
      found += CountFound();
      daemon_.Kill();
    }
  }
  EXPECT_GT(found, 0U);
}

TEST_F(TierDamageTest, AFolderOfAnotherFormatIsEmptied) {
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  std::ofstream(disk_path() + "/blocks/format") << "of another version\n";
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(daemon_.PrefixesIn("disk"), 0U);
  EXPECT_EQ(CountFound(), 0U);
  daemon_.Stop();
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(CountFound(), kPrompts);
}

TEST_F(TierDamageTest, AFolderOfSomethingElseIsRefused) {
  fs::create_directories(disk_path() + "/blocks");
  std::ofstream(disk_path() + "/blocks/thesis.tex") << "years of work";
  EXPECT_THAT(daemon_.StartAndFail(), AllOf(HasSubstr(disk_path()), HasSubstr("thesis.tex")));
  EXPECT_TRUE(fs::exists(disk_path() + "/blocks/thesis.tex"));
}

TEST_F(TierDamageTest, AKeyOfAnotherLengthIsRefused) {
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  fs::resize_file(Key(), 15);
  EXPECT_THAT(daemon_.StartAndFail(), AllOf(HasSubstr(Key()), HasSubstr("bytes=15 expected=16")));
  fs::resize_file(Key(), 17);
  EXPECT_THAT(daemon_.StartAndFail(), AllOf(HasSubstr(Key()), HasSubstr("16")));
}

TEST_F(TierDamageTest, AKeyThatOthersMayReadIsRefused) {
  ASSERT_NO_FATAL_FAILURE(PublishAndStop());
  fs::permissions(Key(), fs::perms(0644));
  EXPECT_THAT(daemon_.StartAndFail(), AllOf(HasSubstr(Key()), HasSubstr("mode=644 bound=600")));
  fs::permissions(Key(), fs::perms(0600));
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(CountFound(), kPrompts);
}

TEST_F(TierDamageTest, AKeyThatIsNoFileIsRefused) {
  daemon_.config().tier.key_file = folder_.path() + "/folder.key";
  fs::create_directory(daemon_.config().tier.key_file);
  fs::permissions(daemon_.config().tier.key_file, fs::perms(0700));
  EXPECT_THAT(daemon_.StartAndFail(), HasSubstr(daemon_.config().tier.key_file));
}

}  // namespace
}  // namespace kvasir::testing
