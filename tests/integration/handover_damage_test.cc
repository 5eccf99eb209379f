// What the service manager hands back may be anything: what does not fit is dropped, and what is
// served is right.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/handover/take_over.h"
#include "daemon/store/prefix_manifest.h"
#include "kvasir/v1/prefix_manifest.pb.h"
#include "tests/support/handover_daemon.h"

namespace kvasir::testing {
namespace {

UniqueFd FileOf(uint64_t bytes, int seals) {
  UniqueFd fd(::memfd_create("foreign", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  if (seals != 0) {
    EXPECT_EQ(::fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  }
  return fd;
}

class HandoverDamageTest : public HandoverDaemonTest {
 protected:
  // A daemon that has written two prompts down, and is gone.
  void PublishAndKill() {
    ASSERT_TRUE(daemon_.Start());
    for (const std::vector<uint32_t>& prompt : {one_, two_}) {
      ASSERT_NO_FATAL_FAILURE(Publish(prompt));
    }
    WaitForRecords(2);
    daemon_.Kill();
  }

  std::string NameOf(const std::string& prefix) {
    for (const std::string& name : keeper_.Names()) {
      if (name.starts_with(prefix)) return name;
    }
    ADD_FAILURE() << "nothing of this name is kept: " << prefix;
    return {};
  }

  // Writes the first prompt's record anew, with another manifest.
  void Rewrite(const std::function<void(v1::HandoverRecord&, v1::PrefixManifest&)>& change) {
    const std::unique_ptr<HandoverIndex> index = OpenIndex();
    ASSERT_NE(index, nullptr);
    for (const HandoverIndex::Record& record : index->Read()) {
      v1::HandoverRecord message;
      ASSERT_TRUE(message.ParseFromString(record.payload));
      v1::PrefixManifest manifest = ManifestIn(message);
      if (manifest.tokens_size() != 688) continue;
      change(message, manifest);
      message.set_manifest(SealManifest(manifest.SerializeAsString(), index->secret()));
      index->Strike(record.at);
      ASSERT_TRUE(index->Append(message.SerializeAsString()).ok());
    }
  }

  static v1::PrefixManifest ManifestIn(const v1::HandoverRecord& record) {
    v1::SealedManifest sealed;
    EXPECT_TRUE(sealed.ParseFromString(record.manifest()));
    v1::PrefixManifest manifest;
    EXPECT_TRUE(manifest.ParseFromString(sealed.manifest()));
    return manifest;
  }

  void ExpectOnlyTheSecond() {
    ASSERT_TRUE(daemon_.Start());
    EXPECT_EQ(Found(one_), 0U);
    EXPECT_EQ(Found(two_), 496U);
    WaitForPrefixes("handover", 0);
    WaitForRecords(1);
    ASSERT_NO_FATAL_FAILURE(Publish(one_));
    EXPECT_EQ(Found(one_), 688U);
    daemon_.Stop();
  }

  const std::vector<uint32_t> one_ = PromptOf(1, 700), two_ = PromptOf(2, 500);
};

TEST_F(HandoverDamageTest, ALostIndexServesNothing) {
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  keeper_.Lose(NameOf("kvasir-index-"));
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(one_), 0U);
  EXPECT_EQ(keeper_.Count("kvasir-extent-"), 0U);
  ASSERT_NO_FATAL_FAILURE(Publish(one_));
  WaitForRecords(1);
}

TEST_F(HandoverDamageTest, LostExtentsAreMisses) {
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  for (const std::string& name : keeper_.Names()) {
    if (name.starts_with("kvasir-extent-")) keeper_.Lose(name);
  }
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(one_), 0U);
  EXPECT_EQ(Found(two_), 0U);
  WaitForRecords(0);
}

TEST_F(HandoverDamageTest, ForeignFilesAreRefused) {
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  const std::string index = NameOf("kvasir-index-"), extent = NameOf("kvasir-extent-");
  const uint64_t bytes = OpenIndex()->bytes();
  struct Foreign {
    std::string name;
    UniqueFd fd;
  };
  std::vector<Foreign> files;
  files.push_back({extent, FileOf(4 * kMiB, 0)});
  files.push_back({extent, FileOf(kPageBytes, F_SEAL_SHRINK | F_SEAL_GROW)});
  files.push_back({index, FileOf(bytes, F_SEAL_SHRINK | F_SEAL_GROW)});
  files.push_back({index, FileOf(bytes, 0)});
  files.push_back({index, FileOf(0, F_SEAL_SHRINK | F_SEAL_GROW)});
  files.push_back({index, UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC))});
  for (Foreign& file : files) {
    keeper_.Replace(file.name, std::move(file.fd));
    ASSERT_TRUE(daemon_.Start());
    EXPECT_EQ(Found(one_), 0U);
    EXPECT_EQ(Found(two_), 0U);
    ASSERT_NO_FATAL_FAILURE(Publish(one_));
    ASSERT_NO_FATAL_FAILURE(Publish(two_));
    WaitForRecords(2);
    daemon_.Kill();
    if (&file == &files.back()) break;
    // The names are the new life's.
    Foreign& next = *(&file + 1);
    next.name = NameOf(next.name.starts_with("kvasir-index-") ? "kvasir-index-" : "kvasir-extent-");
  }
}

TEST_F(HandoverDamageTest, NamesOfNobodyAreForgotten) {
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  for (const std::string& name :
       {std::string("kvasir-extent-"), std::string("kvasir-extent-1x"), std::string("other"),
        std::string("kvasir-extent-18446744073709551615"), std::string("kvasir-index--1")}) {
    keeper_.Add(name, FileOf(kPageBytes, 0));
  }
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(keeper_.Count("other"), 0U);
  EXPECT_EQ(keeper_.Count("kvasir-index-"), 1U);
  EXPECT_EQ(Found(one_), 688U);
  ASSERT_NO_FATAL_FAILURE(Publish(PromptOf(3, 100)));
}

TEST_F(HandoverDamageTest, EveryByteOfARecordCounts) {
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  const std::unique_ptr<HandoverIndex> index = OpenIndex();
  const std::vector<HandoverIndex::Record> records = index->Read();
  ASSERT_EQ(records.size(), 2U);
  const uint64_t bytes = records[0].payload.size();
  for (const uint64_t at : {uint64_t{0}, bytes / 2, bytes - 1}) {
    const auto place = static_cast<off_t>(records[0].at + 64 + at);
    uint8_t byte = 0;
    ASSERT_EQ(::pread(index->fd().get(), &byte, 1, place), 1);
    const uint8_t other = byte ^ 0x10;
    ASSERT_EQ(::pwrite(index->fd().get(), &other, 1, place), 1);
    ASSERT_EQ(index->Read().size(), 1U);
    // Struck out by whoever saw it: it is whole again, and gone.
    ASSERT_EQ(::pwrite(index->fd().get(), &byte, 1, place), 1);
    ASSERT_EQ(index->Read().size(), 1U);
  }
  ASSERT_NO_FATAL_FAILURE(ExpectOnlyTheSecond());
}

TEST_F(HandoverDamageTest, EveryByteOfTheHeaderCounts) {
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  const std::unique_ptr<HandoverIndex> index = OpenIndex();
  for (off_t at = 0; at < 64; ++at) {
    uint8_t byte = 0;
    ASSERT_EQ(::pread(index->fd().get(), &byte, 1, at), 1);
    const uint8_t other = byte ^ 0x10;
    ASSERT_EQ(::pwrite(index->fd().get(), &other, 1, at), 1);
    UniqueFd copy(::fcntl(index->fd().get(), F_DUPFD_CLOEXEC, 0));
    EXPECT_FALSE(HandoverIndex::Open(std::move(copy), HandoverLayout()).ok()) << at;
    ASSERT_EQ(::pwrite(index->fd().get(), &byte, 1, at), 1);
  }
  for (const uint64_t tail :
       {uint64_t{0}, uint64_t{4095}, uint64_t{4097}, index->bytes() + 64, ~uint64_t{0}}) {
    const std::unique_ptr<HandoverIndex> good = OpenIndex();
    ASSERT_NE(good, nullptr);
    uint64_t before = 0;
    ASSERT_EQ(::pread(index->fd().get(), &before, 8, 64), 8);
    ASSERT_EQ(::pwrite(index->fd().get(), &tail, 8, 64), 8);
    UniqueFd copy(::fcntl(index->fd().get(), F_DUPFD_CLOEXEC, 0));
    EXPECT_FALSE(HandoverIndex::Open(std::move(copy), HandoverLayout()).ok()) << tail;
    ASSERT_EQ(::pwrite(index->fd().get(), &before, 8, 64), 8);
  }
}

TEST_F(HandoverDamageTest, AWrongDigestIsAMiss) {
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  ASSERT_NO_FATAL_FAILURE(Rewrite([](v1::HandoverRecord&, v1::PrefixManifest& manifest) {
    std::string& digest = *manifest.mutable_lanes(0)->mutable_runs(3)->mutable_digest();
    digest[5] = static_cast<char>(digest[5] ^ 1);
  }));
  ASSERT_NO_FATAL_FAILURE(ExpectOnlyTheSecond());
}

TEST_F(HandoverDamageTest, GroupsThatLieNowhereAreMisses) {
  const std::vector<std::function<void(v1::PrefixManifest::Run&)>> changes = {
      [](v1::PrefixManifest::Run& run) { run.set_offset(run.offset() + 1); },
      [](v1::PrefixManifest::Run& run) { run.set_offset(run.extent_bytes()); },
      [](v1::PrefixManifest::Run& run) { run.set_offset(~uint64_t{0} / 4096 * 4096); },
      [](v1::PrefixManifest::Run& run) { run.set_extent(run.extent() + 1000); },
      [](v1::PrefixManifest::Run& run) { run.set_extent(0); },
      [](v1::PrefixManifest::Run& run) { run.set_bytes(run.bytes() + 64); },
      [](v1::PrefixManifest::Run& run) { run.set_group_slots(run.group_slots() * 2); },
  };
  for (const auto& change : changes) {
    ASSERT_NO_FATAL_FAILURE(PublishAndKill());
    ASSERT_NO_FATAL_FAILURE(Rewrite([&](v1::HandoverRecord&, v1::PrefixManifest& manifest) {
      change(*manifest.mutable_lanes(0)->mutable_runs(2));
    }));
    ASSERT_NO_FATAL_FAILURE(ExpectOnlyTheSecond());
    for (const std::string& name : keeper_.Names()) keeper_.Lose(name);
  }
}

// Only what is newer than the other may be so.
TEST_F(HandoverDamageTest, AGroupThatTwoPrefixesWantIsOneOfTheirsAtMost) {
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  v1::PrefixManifest::Run of_second;
  const std::unique_ptr<HandoverIndex> index = OpenIndex();
  for (const HandoverIndex::Record& record : index->Read()) {
    v1::HandoverRecord message;
    ASSERT_TRUE(message.ParseFromString(record.payload));
    const v1::PrefixManifest manifest = ManifestIn(message);
    if (manifest.tokens_size() == 496) of_second = manifest.lanes(0).runs(0);
  }
  ASSERT_NO_FATAL_FAILURE(Rewrite([&](v1::HandoverRecord&, v1::PrefixManifest& manifest) {
    *manifest.mutable_lanes(0)->mutable_runs(0) = of_second;
  }));
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(one_), 0U);  // right rows, or none
  EXPECT_TRUE(Found(two_) == 496U || Found(two_) == 0U);
  daemon_.Stop();
}

TEST_F(HandoverDamageTest, AnotherTenantsRecordIsAMiss) {
  Config::Tenant other = daemon_.config().tenants[0];
  other.name = "other";
  other.uids = {12345};
  daemon_.config().tenants.push_back(other);
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  // The second tenant's name on the first one's memory.
  ASSERT_NO_FATAL_FAILURE(Rewrite([&](v1::HandoverRecord& record, v1::PrefixManifest&) {
    record.mutable_tenant()->front() = static_cast<char>(record.tenant().front() ^ 1);
  }));
  ASSERT_NO_FATAL_FAILURE(ExpectOnlyTheSecond());
}

TEST_F(HandoverDamageTest, ATenantThatIsNoMoreLeavesNothing) {
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  daemon_.config().tenants[0].name = "renamed";
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(one_), 0U);
  while (keeper_.Count("kvasir-extent-") > 0) {
  }
  WaitForRecords(0);
}

TEST_F(HandoverDamageTest, ASmallerPoolTakesWhatItCanAndGivesUpTheRest) {
  ASSERT_NO_FATAL_FAILURE(PublishAndKill());
  daemon_.config().memory.pool_bytes = daemon_.config().tenants[0].limit_bytes = 16 * kMiB;
  daemon_.config().memory.ready_bytes = 0;
  ASSERT_TRUE(daemon_.Start());
  EXPECT_EQ(Found(two_), 496U);
  for (uint64_t i = 10; i < 20; ++i) {
    ASSERT_NO_FATAL_FAILURE(Publish(PromptOf(i, 2000)));
    EXPECT_EQ(Found(PromptOf(i, 2000)), 2000U);
  }
}

}  // namespace
}  // namespace kvasir::testing
