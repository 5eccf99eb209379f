// Damaged token-mixed records: told what is wrong, and never read past their end.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "base/error.h"
#include "kernels/encoding/tm_record.h"
#include "tests/kernels/targets.h"

namespace kvasir::kernels {
namespace {

using ::testing::HasSubstr;

RecordShape ShapeOf(RecordPlane plane, uint32_t rows, uint32_t dims, uint32_t planes) {
  return {.codec = Codec::kTokenMixed,
          .plane = plane,
          .rows = rows,
          .dims = dims,
          .code_planes = planes};
}

std::vector<std::byte> Valid(const RecordShape& shape) {
  std::vector<float> tile(size_t{shape.rows} * shape.dims);
  for (size_t i = 0; i < tile.size(); ++i) {
    tile[i] = static_cast<float>(i * 37 % 101) - 50;
  }
  std::vector<std::byte> record(tm::Bytes(shape));
  tm::Encode(shape, tile.data(), shape.rows, {}, record.data());
  return record;
}

std::string ErrorOf(const RecordShape& shape, const std::vector<std::byte>& record) {
  const absl::Status status = tm::Check(shape, record.data());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  return MessageOf(status);
}

void SetHalf(std::vector<std::byte>& record, size_t at, uint16_t bits) {
  std::memcpy(record.data() + at, &bits, sizeof bits);
}

TEST(TmDamageTest, ErrorsNameFieldAndBound) {
  for (const RecordPlane plane : {RecordPlane::kKey, RecordPlane::kValue}) {
    const RecordShape shape = ShapeOf(plane, 64, 64, 144);
    const std::vector<std::byte> valid = Valid(shape);
    EXPECT_TRUE(tm::Check(shape, valid.data()).ok());
    constexpr uint16_t kBad[] = {0x7C00, 0x7E01, 0xFC00, 0xBC00, 0x8000};
    for (const uint16_t bits : kBad) {
      std::vector<std::byte> record = valid;
      SetHalf(record, 0, bits);
      EXPECT_THAT(ErrorOf(shape, record), HasSubstr("max=65504"));
      record = valid;
      SetHalf(record, 2, bits);
      EXPECT_THAT(ErrorOf(shape, record),
                  HasSubstr(plane == RecordPlane::kKey ? "mean_scale=" : "reserved"));
    }
    std::vector<std::byte> record = valid;
    record[4 + 17] |= std::byte{7};
    EXPECT_THAT(ErrorOf(shape, record), HasSubstr("channel=17 planes=7 max=6"));
    record = valid;
    record[4 + 3] ^= std::byte{1};
    EXPECT_THAT(ErrorOf(shape, record), HasSubstr("expected=144"));
    record[4 + 3] ^= std::byte{1};
    record[4 + 3] ^= std::byte{0xF8};  // another scale is as good as any
    EXPECT_TRUE(tm::Check(shape, record.data()).ok());
  }
}

TEST(TmDamageTest, PlanesThatDoNotAddUpLeaveTheMean) {
  ForEachTarget([] {
    const RecordShape key = ShapeOf(RecordPlane::kKey, 64, 8, 16);
    const RecordShape value = ShapeOf(RecordPlane::kValue, 64, 8, 16);
    std::vector<std::byte> k = Valid(key), v = Valid(value);
    k[4] ^= std::byte{1};
    v[4] ^= std::byte{1};
    std::vector<float> q(8, 1.0F), scores(64), rows(64 * 8), weights(64, 1.0F), sums(8, 3.0F);
    tm::Scores(key, k.data(), q.data(), 1, scores.data());
    tm::Decode(key, k.data(), rows.data());
    float mean = 0;
    for (size_t c = 0; c < 8; ++c) {
      EXPECT_EQ(rows[c], rows[63 * 8 + c]);
      mean += rows[c];
    }
    for (const float score : scores) {
      EXPECT_NEAR(score, mean, 1e-3F);
    }
    tm::AddValues(value, v.data(), weights.data(), 1, sums.data());
    EXPECT_EQ(sums, std::vector<float>(8, 3.0F));
    tm::Decode(value, v.data(), rows.data());
    EXPECT_EQ(rows, std::vector<float>(64 * 8, 0.0F));
  });
}

// Bytes that end where memory does.
class LastBytes {
 public:
  LastBytes() : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))), size_(16 * page_) {
    void* at =
        mmap(nullptr, size_ + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(at, MAP_FAILED);
    begin_ = static_cast<std::byte*>(at);
    EXPECT_EQ(mprotect(begin_ + size_, page_, PROT_NONE), 0);
  }
  ~LastBytes() { munmap(begin_, size_ + page_); }
  LastBytes(const LastBytes&) = delete;
  LastBytes& operator=(const LastBytes&) = delete;
  std::byte* Last(size_t bytes) { return begin_ + size_ - bytes; }

 private:
  size_t page_, size_;
  std::byte* begin_ = nullptr;
};

// Random bytes, and random bytes whose descriptors are valid, so that all planes are read.
TEST(TmDamageTest, NothingIsReadBehindARecord) {
  LastBytes memory;
  ForEachTarget([&] {
    std::mt19937 engine(1);
    const auto random = [&] { return static_cast<uint32_t>(engine()); };
    for (int round = 0; round < 400; ++round) {
      const uint32_t dims = (random() % 32 + 1) * 8;
      const uint32_t planes = dims / 2 + random() % (dims * 11 / 2 + 1);
      const RecordShape shape = ShapeOf(round % 2 == 0 ? RecordPlane::kKey : RecordPlane::kValue,
                                        random() % 2 == 0 ? 32 : 64, dims, planes);
      const size_t bytes = tm::Bytes(shape);
      std::byte* record = memory.Last(bytes);
      if (round % 4 < 2) {
        // The last channel has all the planes that it can have.
        std::vector<float> tile(size_t{shape.rows} * dims);
        for (size_t i = 0; i < tile.size(); ++i) {
          tile[i] = static_cast<float>(random() % 1000) * (i % dims + 8 < dims ? 1.0F : 50.0F);
        }
        tm::Encode(shape, tile.data(), shape.rows, {}, record);
        for (size_t i = 4 + dims; i < bytes; ++i) {
          record[i] = static_cast<std::byte>(random());
        }
      } else {
        for (size_t i = 0; i < bytes; ++i) {
          record[i] = static_cast<std::byte>(random());
        }
      }
      std::vector<float> given(size_t{4} * 256, 1.0F), got(size_t{4} * 256);
      std::vector<float> rows(size_t{shape.rows} * dims);
      (void)tm::Check(shape, record);
      if (shape.plane == RecordPlane::kKey) {
        tm::Scores(shape, record, given.data(), 4, got.data());
      } else {
        tm::AddValues(shape, record, given.data(), 4, got.data());
      }
      tm::Decode(shape, record, rows.data());
    }
  });
}

}  // namespace
}  // namespace kvasir::kernels
