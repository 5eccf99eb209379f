// What every implementation of DeviceStream::GatherRows() promises: the bits that host memory
// gives.
#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "device/word.h"
#include "kernels/gather.h"
#include "kernels/row_convert.h"
#include "tests/device/device_fixture.h"

namespace kvasir::device::testing {
namespace {

using kernels::RopePairing;
using kernels::RopeShape;
using kernels::RowType;
using ::testing::HasSubstr;

uint64_t RowBytes(const RopeShape& shape) {
  return uint64_t{shape.kv_heads} * shape.head_dim * kernels::ElementBytes(shape.type);
}

// Ragged runs: slots of a block of `slots`, ascending, with gaps of many lengths.
std::vector<uint32_t> RaggedSlots(uint32_t slots, std::mt19937& random) {
  std::vector<uint32_t> kept;
  for (uint32_t slot = 0; slot < slots;) {
    for (auto run = static_cast<uint32_t>(1 + random() % 9); run > 0 && slot < slots; --run)
      kept.push_back(slot++);
    slot += static_cast<uint32_t>(random() % 7);
  }
  return kept;
}

class GatherConformance : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (device_ == nullptr) return;
    from_ = Create(granularity_, 1);
    to_ = Create(granularity_, 2);
    pages_ = std::make_unique<SharedPages>(*device_, 2 * granularity_);
  }
  void TearDown() override {
    stream_.reset();  // before what it reads
  }
  std::byte* source() const { return pages_->data(); }
  std::byte* back() const { return pages_->data() + granularity_; }

  // Values that rows have, so that no rounding is of NaN alone.
  void FillSource(RowType type, uint64_t bytes, std::mt19937& random) {
    std::normal_distribution<float> normal;
    for (uint64_t i = 0; i < bytes / kernels::ElementBytes(type); ++i) {
      kernels::StoreElement(type, source(), i, normal(random));
    }
    CopyNow(from_->address(), source(), bytes);
  }

  // Keys of `slots` slots, kept where they are ragged, turned by how many before them are gone.
  void CompareTurned(const RopeShape& shape, uint32_t slots, int64_t first_delta) {
    SCOPED_TRACE(::testing::Message()
                 << shape.kv_heads << "x" << shape.head_dim << "/" << shape.rotated_dims << " type "
                 << static_cast<int>(shape.type) << " pairing " << static_cast<int>(shape.pairing));
    std::mt19937 random(slots);
    const uint64_t bytes = RowBytes(shape);
    ASSERT_LE(bytes * slots, granularity_);
    FillSource(shape.type, bytes * slots, random);
    const std::vector<uint32_t> kept = RaggedSlots(slots, random);
    std::vector<const std::byte*> rows;
    std::vector<int64_t> deltas, different;
    std::vector<RowMove> moves;
    for (uint32_t i = 0; i < kept.size(); ++i) {
      // The first stays where it is; neighbours are turned alike.
      const int64_t delta = i == 0 ? 0 : first_delta + i - kept[i];
      rows.push_back(source() + kept[i] * bytes);
      deltas.push_back(delta);
      const auto found = std::find(different.begin(), different.end(), delta);
      const auto number = static_cast<uint32_t>(found - different.begin());
      if (delta != 0 && found == different.end()) different.push_back(delta);
      moves.push_back({to_->address() + i * bytes, from_->address() + kept[i] * bytes,
                       delta == 0 ? kNoTurn : number});
    }
    std::vector<std::byte> want(kept.size() * bytes);
    kernels::GatherRotateRows(shape, rows, deltas, want.data());
    ASSERT_NE(0, std::memcmp(want.data() + bytes, rows[1], bytes)) << "nothing is turned";
    {
      std::vector<float> turns(different.size() * shape.rotated_dims);
      kernels::MakeTurns(shape, different, turns.data());
      const RopeShape gone = shape;  // all of it may go once the call has returned
      const RowGather gather{moves, bytes, &gone, turns};
      const absl::Status status = stream_->GatherRows({&gather, 1});
      ASSERT_TRUE(status.ok()) << status;
      std::fill(moves.begin(), moves.end(), RowMove{});
    }
    CopyNow(back(), to_->address(), want.size());
    for (uint64_t i = 0; i < kept.size(); ++i) {
      ASSERT_EQ(0, std::memcmp(back() + i * bytes, want.data() + i * bytes, bytes))
          << "row " << i << " slot " << kept[i] << " delta " << deltas[i];
    }
  }

  std::unique_ptr<SharedPages> pages_;
  std::unique_ptr<DeviceExtent> from_, to_;
};

TEST_P(GatherConformance, TurnedKeysHaveTheBitsOfHostMemory) {
  // Llama-3-8B, SmolLM2-135M, and what is odd.
  for (const auto& [heads, dim, rotated, slots] : {std::array{8U, 128U, 128U, 128U},
                                                   {3U, 64U, 64U, 128U},
                                                   {2U, 80U, 32U, 61U},
                                                   {1U, 63U, 50U, 40U},
                                                   {3U, 26U, 22U, 35U}}) {
    for (const RowType type : {RowType::kF16, RowType::kBF16, RowType::kF32, RowType::kE4M3}) {
      for (const RopePairing pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
        CompareTurned({type, pairing, heads, dim, rotated, 500000.0}, slots, -70000);
        if (HasFatalFailure()) return;
      }
    }
  }
  CompareTurned({RowType::kF16, RopePairing::kHalfSplit, 8, 128, 128, 1e4}, 64, -5000000);
}

TEST_P(GatherConformance, RowsOfAnySizeAreCopiedAsTheyAre) {
  std::mt19937 random(3);
  // Rows of anything: bytes, all patterns of them.
  for (const uint64_t bytes : {2048U, 384U, 1024U, 192U, 80U, 33U, 1U}) {
    FillPattern(source(), granularity_, bytes);
    CopyNow(from_->address(), source(), granularity_);
    ASSERT_TRUE(stream_->Zero(*to_).ok());
    const std::vector<uint32_t> kept = RaggedSlots(128, random);
    std::vector<RowMove> moves;
    for (uint64_t i = 0; i < kept.size(); ++i) {
      moves.push_back({to_->address() + i * bytes, from_->address() + kept[i] * bytes});
    }
    const RowGather gather{moves, bytes, nullptr, {}};
    ASSERT_TRUE(stream_->GatherRows({&gather, 1}).ok());
    CopyNow(back(), to_->address(), granularity_);
    for (uint64_t i = 0; i < kept.size(); ++i) {
      ASSERT_EQ(0, std::memcmp(back() + i * bytes, source() + kept[i] * bytes, bytes))
          << bytes << " row " << i;
    }
    EXPECT_TRUE(IsZero(back() + kept.size() * bytes, granularity_ - kept.size() * bytes));
  }
}

TEST_P(GatherConformance, SeveralGathersOfACallAndCallsOfAStreamAreInOrder) {
  constexpr uint64_t kRow = 256, kRows = 64;
  const RopeShape shape{RowType::kF16, RopePairing::kHalfSplit, 1, 128, 128, 1e4};
  std::mt19937 random(5);
  FillSource(RowType::kF16, kRow * kRows, random);
  const int64_t deltas[] = {-3, 17};
  std::vector<float> turns(2 * shape.rotated_dims);
  kernels::MakeTurns(shape, deltas, turns.data());
  const std::array<std::byte*, 3> at = {to_->address(), to_->address() + kRow * kRows,
                                        to_->address() + 2 * kRow * kRows};
  // Behind a word: all that the calls were given is gone before anything is done.
  DeviceWord& word = pages_->word(granularity_ / sizeof(DeviceWord));
  ASSERT_TRUE(stream_->WaitWord(word, 1).ok());
  for (uint32_t call = 0; call < 2; ++call) {
    std::vector<RowMove> plain, turned;
    for (uint64_t row = 0; row < kRows; ++row) {
      const std::byte* from = call == 0 ? from_->address() : at[0];
      plain.push_back({at[call == 0 ? 0 : 2] + row * kRow, from + (kRows - 1 - row) * kRow});
      if (call == 0) turned.push_back({at[1] + row * kRow, from + row * kRow, uint32_t(row % 2)});
    }
    const RowGather gathers[] = {
        {plain, kRow, nullptr, {}}, {{}, kRow, nullptr, {}}, {turned, kRow, &shape, turns}};
    ASSERT_TRUE(stream_->GatherRows(gathers).ok());
  }
  RaiseWord(word, 1);
  CopyNow(back(), to_->address(), 3 * kRow * kRows);
  for (uint64_t row = 0; row < kRows; ++row) {
    // Turned round twice: as it was.
    ASSERT_EQ(0, std::memcmp(back() + (2 * kRows + row) * kRow, source() + row * kRow, kRow));
    std::array<std::byte, kRow> want;
    const std::byte* from = source() + row * kRow;
    kernels::GatherRotateRows(shape, {&from, 1}, {&deltas[row % 2], 1}, want.data());
    ASSERT_EQ(0, std::memcmp(back() + (kRows + row) * kRow, want.data(), kRow)) << row;
  }
}

// A first call of few rows and later ones of more: lists of a stream grow, and are used again.
TEST_P(GatherConformance, CallsOfManySizesFollowEachOther) {
  constexpr uint64_t kRow = 64;
  FillPattern(source(), granularity_, 1);
  CopyNow(from_->address(), source(), granularity_);
  for (const uint64_t rows : {1U, 100U, 20000U, 3U, 20000U}) {
    ASSERT_TRUE(stream_->Zero(*to_).ok());
    std::vector<RowMove> moves;
    for (uint64_t row = 0; row < rows; ++row) {
      moves.push_back({to_->address() + row * kRow, from_->address() + (rows - 1 - row) * kRow});
    }
    const RowGather gather{moves, kRow, nullptr, {}};
    ASSERT_TRUE(stream_->GatherRows({&gather, 1}).ok());
    CopyNow(back(), to_->address(), rows * kRow);
    for (uint64_t row = 0; row < rows; ++row) {
      ASSERT_EQ(0, std::memcmp(back() + row * kRow, source() + (rows - 1 - row) * kRow, kRow));
    }
  }
}

TEST_P(GatherConformance, WhatDoesNotFitIsRefusedWithTheWholeCall) {
  const RopeShape shape{RowType::kF16, RopePairing::kHalfSplit, 1, 64, 64, 1e4};
  constexpr uint64_t kRow = 128;
  const std::vector<float> turns(64, 0.5F);
  FillPattern(source(), granularity_, 1);
  CopyNow(from_->address(), source(), granularity_);
  std::byte nowhere[kRow] = {};
  const RowMove good[] = {{to_->address(), from_->address(), kNoTurn}};
  const auto refused = [&](const RowMove& row, uint64_t bytes, const RopeShape* rope,
                           const std::string& text) {
    const RowMove rows[] = {{to_->address() + kRow, from_->address(), kNoTurn}, row};
    const RowGather gathers[] = {{good, kRow, nullptr, {}}, {rows, bytes, rope, turns}};
    const absl::Status status = stream_->GatherRows(gathers);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  const auto changed = [&](auto change) {
    RopeShape other = shape;
    change(other);
    return other;
  };
  std::byte* const to = to_->address() + 2 * kRow;
  const std::byte* const from = from_->address();
  refused({nowhere, from}, kRow, &shape, "dst lies in no extent");
  refused({to, nowhere}, kRow, &shape, "src lies in no extent");
  refused({to, from + granularity_ - kRow / 2}, kRow, &shape, "gather=1 row=1");
  refused({to, from}, 0, nullptr, "row_bytes=0 min=1");
  refused({to, from}, kRow + 2, &shape, "row_bytes=130 expected=128");
  refused({to, from, 1}, kRow, &shape, "turn=1 turns=1");
  refused({to, from, 0}, kRow, nullptr, "turn=0 turns=0 has_rope=false");
  refused({to + 1, from, 0}, kRow, &shape, "elements are not aligned");
  const RopeShape unknown = changed([](RopeShape& it) { it.type = static_cast<RowType>(4); });
  refused({to, from}, kRow, &unknown, "type=4 max=3");
  const RopeShape odd = changed([](RopeShape& it) { it.rotated_dims = 33; });
  refused({to, from}, kRow, &odd, "rotated_dims=33 max=64 multiple_of=2");
  const RopeShape wide = changed([](RopeShape& it) { it.rotated_dims = 66; });
  refused({to, from}, kRow, &wide, "rotated_dims=66 max=64");
  const RopeShape many = changed([](RopeShape& it) { it.kv_heads = 4097; });
  refused({to, from}, kRow, &many, "kv_heads=4097 max=4096");
  CopyNow(back(), to_->address(), granularity_);
  EXPECT_TRUE(IsZero(back(), granularity_));
  EXPECT_TRUE(device_->Health().ok());
  EXPECT_TRUE(stream_->GatherRows({}).ok());
}

TEST_P(GatherConformance, WhatIsReadOnlyIsNoDestination) {
  const auto imported =
      device_->ImportExtent(to_->ExportFd().value(), granularity_, Access::kReadOnly);
  if (!imported.ok()) GTEST_SKIP() << imported.status();
  const RowMove row{(*imported)->address(), from_->address()};
  const RowGather gather{{&row, 1}, 64, nullptr, {}};
  EXPECT_EQ(stream_->GatherRows({&gather, 1}).code(), absl::StatusCode::kFailedPrecondition);
  const RowMove other{to_->address(), (*imported)->address() + 64};
  const RowGather readable{{&other, 1}, 64, nullptr, {}};
  EXPECT_TRUE(stream_->GatherRows({&readable, 1}).ok());
  EXPECT_TRUE(stream_->Synchronize().ok());
}

INSTANTIATE_TEST_SUITE_P(On, GatherConformance, ::testing::Values(KVASIR_TEST_DEVICE));

}  // namespace
}  // namespace kvasir::device::testing
