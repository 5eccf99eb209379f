// Chain keys against vectors of an independent implementation, and the bounds of what is hashed.
#include "index/chain_hasher.h"

#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

#include <nlohmann/json.hpp>

namespace kvasir {
namespace {

using ::testing::HasSubstr;

std::vector<uint8_t> FromHex(const std::string& hex) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

ChainKey KeyFromHex(const std::string& hex) {
  const std::vector<uint8_t> bytes = FromHex(hex);
  return ChainKey::FromBytes(std::span<const uint8_t, kChainKeyBytes>(bytes.data(), 16));
}

TEST(ChainHasherTest, AgreesWithTheIndependentImplementation) {
  std::ifstream file(KVASIR_CHAIN_VECTORS);
  const nlohmann::json data = nlohmann::json::parse(file);
  ASSERT_GE(data.at("vectors").size(), 18U);
  for (const auto& vector : data.at("vectors")) {
    ChainHasher::Secret secret;
    const std::vector<uint8_t> bytes = FromHex(vector.at("secret"));
    std::copy(bytes.begin(), bytes.end(), secret.begin());
    ChainHasher hasher(secret, KeyFromHex(vector.at("scope")));
    const auto tokens = vector.at("tokens").get<std::vector<uint32_t>>();
    const auto key =
        hasher.Hash(KeyFromHex(vector.at("parent")), tokens, FromHex(vector.at("extra")));
    ASSERT_TRUE(key.ok()) << key.status();
    EXPECT_EQ(key->ToHex(), vector.at("key").get<std::string>());
    EXPECT_EQ(KeyFromHex(key->ToHex()), *key);
  }
}

TEST(ChainHasherTest, EveryInputCounts) {
  const ChainHasher::Secret secret = {1};
  ChainHasher hasher(secret, ChainKey{1, 2});
  const std::vector<uint32_t> tokens = {7, 8};
  const std::vector<uint8_t> extra = {9, 0, 0, 0};
  const ChainKey key = *hasher.Hash({3, 4}, tokens, extra);
  EXPECT_EQ(*hasher.Hash({3, 4}, tokens, extra), key);
  EXPECT_NE(*hasher.Hash({3, 5}, tokens, extra), key);
  EXPECT_NE(*hasher.Hash({3, 4}, std::vector<uint32_t>{8, 7}, extra), key);
  // The bytes behind the lengths are the same here; the lengths tell them apart.
  EXPECT_NE(*hasher.Hash({3, 4}, std::vector<uint32_t>{7, 8, 9}), key);
  EXPECT_NE(*ChainHasher({2}, ChainKey{1, 2}).Hash({3, 4}, tokens, extra), key);
  EXPECT_NE(*ChainHasher(secret, ChainKey{1, 3}).Hash({3, 4}, tokens, extra), key);
}

TEST(ChainHasherTest, RefusesWhatIsOutOfBounds) {
  ChainHasher hasher({}, {});
  const auto none = hasher.Hash({}, {});
  EXPECT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(none.status()), HasSubstr("tokens=0 min=1 max=65536"));
  const std::vector<uint32_t> many(kChunkTokensMax + 1);
  EXPECT_THAT(MessageOf(hasher.Hash({}, many).status()), HasSubstr("tokens=65537"));
  const std::vector<uint8_t> extra(kChunkExtraBytesMax + 1);
  EXPECT_THAT(MessageOf(hasher.Hash({}, std::vector<uint32_t>{1}, extra).status()),
              HasSubstr("extra_bytes=4097 max=4096"));
}

}  // namespace
}  // namespace kvasir
