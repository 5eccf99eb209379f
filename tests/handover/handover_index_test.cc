// The index: what was appended is read, what was struck out is not, and a full one says so.
#include "daemon/handover/handover_index.h"

#include <fcntl.h>

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"

namespace kvasir {
namespace {

constexpr uint64_t kLayout = 77;

std::unique_ptr<HandoverIndex> Make(uint64_t bytes = 4 * kPageBytes) {
  ChainHasher::Secret secret;
  secret.fill(3);
  absl::StatusOr<std::unique_ptr<HandoverIndex>> index =
      HandoverIndex::Create(bytes, kLayout, secret, 5);
  EXPECT_TRUE(index.ok()) << MessageOf(index.status());
  return *std::move(index);
}

absl::StatusOr<std::unique_ptr<HandoverIndex>> Again(const HandoverIndex& index,
                                                     uint64_t layout = kLayout) {
  return HandoverIndex::Open(UniqueFd(::fcntl(index.fd().get(), F_DUPFD_CLOEXEC, 0)), layout);
}

std::vector<std::string> PayloadsOf(HandoverIndex& index) {
  std::vector<std::string> payloads;
  for (const HandoverIndex::Record& record : index.Read()) payloads.push_back(record.payload);
  return payloads;
}

TEST(HandoverIndexTest, TheNextProcessReadsAndGoesOn) {
  const std::unique_ptr<HandoverIndex> index = Make();
  const std::string empty, one(1, 'a'), sixty_four(64, 'b'), long_one(1000, 'c');
  std::vector<uint64_t> at;
  for (const std::string& payload : {empty, one, sixty_four, long_one}) {
    at.push_back(*index->Append(payload));
  }
  index->Strike(at[1]);
  const absl::StatusOr<std::unique_ptr<HandoverIndex>> next = Again(*index);
  ASSERT_TRUE(next.ok()) << MessageOf(next.status());
  EXPECT_EQ((*next)->epoch(), 5U);
  EXPECT_EQ((*next)->secret(), index->secret());
  EXPECT_EQ(PayloadsOf(**next), (std::vector<std::string>{empty, sixty_four, long_one}));
  EXPECT_EQ((*next)->live_bytes(), index->live_bytes());
  EXPECT_EQ((*next)->used_bytes(), index->used_bytes());
  ASSERT_TRUE((*next)->Append("d").ok());
  (*next)->Strike(at[3]);
  EXPECT_EQ(PayloadsOf(**Again(**next)), (std::vector<std::string>{empty, sixty_four, "d"}));
}

TEST(HandoverIndexTest, AFullOneSaysSoAndStaysWhole) {
  const std::unique_ptr<HandoverIndex> index = Make(2 * kPageBytes);
  uint64_t count = 0;
  absl::StatusOr<uint64_t> at = uint64_t{0};
  for (; (at = index->Append(std::string(100, 'x'))).ok(); ++count) {
  }
  EXPECT_EQ(at.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(count, kPageBytes / 192);
  EXPECT_EQ(PayloadsOf(**Again(*index)).size(), count);
  EXPECT_FALSE(index->Append(std::string(1 << 20, 'x')).ok());
  EXPECT_EQ(PayloadsOf(**Again(*index)).size(), count);
}

TEST(HandoverIndexTest, OfAnotherLayoutIsRefused) {
  const std::unique_ptr<HandoverIndex> index = Make();
  EXPECT_EQ(Again(*index, kLayout + 1).status().code(), absl::StatusCode::kFailedPrecondition);
}

// Whatever stands behind the tail, or in lengths, is bounded.
TEST(HandoverIndexTest, WrongLengthsEndTheReadingThere) {
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1} << 40, ~uint64_t{0}, ~uint64_t{0} - 63}) {
    const std::unique_ptr<HandoverIndex> index = Make();
    ASSERT_TRUE(index->Append("first").ok());
    const uint64_t second = *index->Append("second");
    ASSERT_TRUE(index->Append("third").ok());
    ASSERT_EQ(::pwrite(index->fd().get(), &bytes, 8, static_cast<off_t>(second + 8)), 8);
    const std::unique_ptr<HandoverIndex> next = *Again(*index);
    const std::vector<std::string> read = PayloadsOf(*next);
    ASSERT_GE(read.size(), 1U);
    EXPECT_EQ(read[0], "first");
    for (const std::string& payload : read) EXPECT_NE(payload, "second");
    // It can be written on.
    ASSERT_TRUE(next->Append("fourth").ok());
    EXPECT_EQ(PayloadsOf(**Again(*next)).back(), "fourth");
  }
}

}  // namespace
}  // namespace kvasir
