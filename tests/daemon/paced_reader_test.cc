// PacedReader: the same bytes, in pieces, however the decoder goes back and forth.
#include "daemon/control/paced_reader.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kvasir/v1/kv_cache.grpc.pb.h"

namespace kvasir {
namespace {

grpc::ByteBuffer BufferOf(const std::string& bytes, const std::vector<size_t>& pieces) {
  std::vector<grpc::Slice> slices;
  size_t at = 0;
  for (size_t i = 0; at < bytes.size(); ++i) {
    const size_t size = std::min(pieces[i % pieces.size()], bytes.size() - at);
    slices.emplace_back(bytes.data() + at, size);
    at += size;
  }
  return {slices.data(), slices.size()};
}

TEST(PacedReader, AMessageOfManyPiecesIsTheSame) {
  v1::MatchPrefixRequest request;
  request.set_model_id(7);
  for (uint32_t i = 0; i < 200'000; ++i) {
    request.mutable_prefix()->add_tokens(i * 2654435761U >> (i % 32));
  }
  const std::string bytes = request.SerializeAsString();
  const std::vector<std::vector<size_t>> cuts = {{bytes.size()}, {8192}, {8193, 1, 40'000}, {100}};
  for (const std::vector<size_t>& pieces : cuts) {
    grpc::ByteBuffer buffer = BufferOf(bytes, pieces);
    v1::MatchPrefixRequest read;
    ASSERT_TRUE(
        (grpc::GenericDeserialize<PacedReader, v1::MatchPrefixRequest>(&buffer, &read).ok()));
    EXPECT_EQ(read.SerializeAsString(), bytes) << pieces.front();
  }
  grpc::ByteBuffer cut = BufferOf(bytes.substr(0, bytes.size() - 1), {5000});
  v1::MatchPrefixRequest read;
  EXPECT_FALSE((grpc::GenericDeserialize<PacedReader, v1::MatchPrefixRequest>(&cut, &read).ok()));
}

TEST(PacedReader, GoingBackAndForth) {
  std::mt19937 random(1);
  std::string bytes(300'000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  for (int round = 0; round < 50; ++round) {
    grpc::ByteBuffer buffer = BufferOf(bytes, {1 + random() % 50'000, 1 + random() % 9'000});
    PacedReader reader(&buffer);
    std::string read;
    const void* data = nullptr;
    for (int size = 0; reader.Next(&data, &size);) {
      ASSERT_LE(size, PacedReader::kPieceBytes);
      const int back =
          random() % 3 == 0 ? static_cast<int>(random() % static_cast<uint32_t>(size + 1)) : 0;
      read.append(static_cast<const char*>(data), static_cast<size_t>(size - back));
      reader.BackUp(back);
      ASSERT_EQ(reader.ByteCount(), static_cast<int64_t>(read.size()));
      if (random() % 5 == 0) {
        const size_t skip = std::min<size_t>(random() % 20'000, bytes.size() - read.size());
        ASSERT_TRUE(reader.Skip(static_cast<int>(skip)) || skip == 0);
        read.append(bytes, read.size(), skip);
      }
    }
    ASSERT_EQ(read, bytes);
  }
}

}  // namespace
}  // namespace kvasir
