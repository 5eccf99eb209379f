#include "allocator/tier/block_header.h"

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/tier/tier_blocks.h"

#include <fmt/format.h>

namespace kvasir::testing {
namespace {

constexpr size_t kBytes = 1000;

BlockHeader Sealed(const std::vector<std::byte>& payload) {
  BlockChecksum checksum;
  const std::span<const std::byte> part(payload);
  return SealHeader(kFingerprint, KeyOf(1), std::span(&part, 1), checksum);
}

ReadOutcome Verify(const BlockHeader& header, std::span<const std::byte> payload) {
  const ReadOutcome outcome = CheckHeader(header, kFingerprint, KeyOf(1), payload.size());
  if (outcome != ReadOutcome::kHit) return outcome;
  BlockChecksum checksum;
  checksum.Begin(header);
  checksum.Add(payload);
  return CheckSum(header, checksum);
}

// The bytes that other versions and machines must find: a change here is a change of the format.
// The checksum is what the Python package xxhash says of the same bytes.
TEST(BlockHeaderTest, HasTheBytesOfVersionOne) {
  TierKey key;
  for (size_t i = 0; i < kTierKeyBytes; ++i) key.bytes[i] = static_cast<uint8_t>(i + 1);
  std::vector<std::byte> payload(300);
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<std::byte>(i * 7);
  const std::span<const std::byte> part(payload);
  BlockChecksum checksum;
  const BlockHeader header = SealHeader(0x1122334455667788, key, std::span(&part, 1), checksum);
  std::string text;
  for (const std::byte byte : header) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  EXPECT_EQ(text,
            "4b5641534952424b0100000080000000"
            "8877665544332211"
            "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728"
            "2c01000000000000"
            "00000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "1b3b09a7d02a9b06a0c0f40ac186e8cb");
}

TEST(BlockHeaderTest, PartsAreHashedAsOne) {
  const std::vector<std::byte> payload = BytesFor(1, kBytes);
  const std::span<const std::byte> all(payload);
  const std::span<const std::byte> parts[] = {all.first(3), all.subspan(3, 0), all.subspan(3)};
  BlockChecksum checksum;
  EXPECT_EQ(SealHeader(kFingerprint, KeyOf(1), parts, checksum), Sealed(payload));
  EXPECT_EQ(Verify(Sealed(payload), payload), ReadOutcome::kHit);
}

TEST(BlockHeaderTest, FindsAFlipOfAnyBitOfTheHeader) {
  const std::vector<std::byte> payload = BytesFor(1, kBytes);
  const BlockHeader header = Sealed(payload);
  for (size_t bit = 0; bit < 8 * header.size(); ++bit) {
    BlockHeader flipped = header;
    flipped[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    EXPECT_NE(Verify(flipped, payload), ReadOutcome::kHit) << "bit " << bit;
  }
}

TEST(BlockHeaderTest, FindsAFlipOfAnyByteOfThePayload) {
  std::vector<std::byte> payload = BytesFor(1, kBytes);
  const BlockHeader header = Sealed(payload);
  for (std::byte& byte : payload) {
    byte ^= std::byte{0x10};
    EXPECT_EQ(Verify(header, payload), ReadOutcome::kCorrupt);
    byte ^= std::byte{0x10};
  }
}

TEST(BlockHeaderTest, NamesTheCause) {
  const std::vector<std::byte> payload = BytesFor(1, kBytes);
  const BlockHeader header = Sealed(payload);
  EXPECT_EQ(CheckHeader(BlockHeader{}, kFingerprint, KeyOf(1), kBytes), ReadOutcome::kCorrupt);
  EXPECT_EQ(CheckHeader(header, kFingerprint + 1, KeyOf(1), kBytes), ReadOutcome::kForeignFormat);
  EXPECT_EQ(CheckHeader(header, kFingerprint, KeyOf(2), kBytes), ReadOutcome::kForeignKey);
  EXPECT_EQ(CheckHeader(header, kFingerprint, KeyOf(1), kBytes - 1), ReadOutcome::kCut);
  EXPECT_EQ(CheckHeader(header, kFingerprint, KeyOf(1), kBytes + 1), ReadOutcome::kCorrupt);
  BlockHeader old = header;
  old[8] = std::byte{0};
  EXPECT_EQ(CheckHeader(old, kFingerprint, KeyOf(1), kBytes), ReadOutcome::kOldVersion);
}

}  // namespace
}  // namespace kvasir::testing
