// An engine decodes over compact blocks in device memory that another device object owns, and gets
// what a masked cache of every row gives.
#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "tests/device/device_fixture.h"
#include "tests/device/reference_path/block_attention.h"
#include "tests/device/reference_path/small_model.h"

namespace kvasir::device::testing {
namespace {

using M = SmallModel;

constexpr uint32_t kPrompt = 150, kDecoded = 24, kBlockRows = 16, kBlocks = 12;
constexpr uint64_t kRowBytes = M::kRowElements * 2;
constexpr uint64_t kLayerBytes = kRowBytes * kBlockRows * kBlocks;
// fp16 rows are rounded in both, now and then to neighbours: scores have a deviation of about 11.
constexpr float kTolerance = 0.02F;

// The first, the last, and some in between; the same in every layer.
std::vector<uint32_t> KeptRows() {
  std::vector<uint32_t> kept;
  for (uint32_t row = 0; row < kPrompt; ++row) {
    if (row < 4 || row + 20 >= kPrompt || row * 2654435761U >> 30 == 0) kept.push_back(row);
  }
  return kept;
}

float LargestDifference(const Floats& a, const Floats& b) {
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

// What the engine's process has: the pool by its descriptor, host pages that the device reaches.
class Engine {
 public:
  Engine(Device& device, UniqueFd pool)
      : pages_(device, kPages),
        stream_(*device.MakeStream(StreamPriority::kNormal)),
        pool_(*device.ImportExtent(std::move(pool), M::kLayers * kLayerBytes, Access::kReadWrite)),
        scratch_(*device.CreateExtent(3 * kPart, 1)) {
    // Not in order: only the table says where a row lies.
    for (uint32_t i = 0; i < kBlocks; ++i) table_[i] = (i * 5 + 3) % kBlocks;
    std::memcpy(pages_.data(), table_, sizeof(table_));
    Copy(scratch_->address(), pages_.data(), sizeof(table_));
  }

  uint64_t Place(uint32_t layer, uint64_t row) const {
    const uint64_t block = table_[row / kBlockRows];
    return layer * kLayerBytes + (block * kBlockRows + row % kBlockRows) * kRowBytes;
  }

  Floats Attend(uint32_t layer, uint32_t rows_before, const Row& row, const Floats& q) {
    std::memcpy(pages_.data() + kPart, q.data(), q.size() * sizeof(float));
    std::memcpy(pages_.data() + 2 * kPart, row.data(), kRowBytes);
    Copy(pool_->address() + Place(layer, rows_before), pages_.data() + 2 * kPart, kRowBytes);
    Copy(scratch_->address() + kPart, pages_.data() + kPart, q.size() * sizeof(float));
    std::byte* const out = scratch_->address() + 2 * kPart;
    const absl::Status status =
        testing::Attend({.pool = pool_->address() + layer * kLayerBytes,
                         .table = reinterpret_cast<const uint32_t*>(scratch_->address()),
                         .block_rows = kBlockRows,
                         .rows = rows_before + 1,
                         .kv_heads = M::kKvHeads,
                         .heads = M::kHeads,
                         .dim = M::kDim,
                         .scale = M::kScale,
                         .q = reinterpret_cast<const float*>(scratch_->address() + kPart),
                         .out = reinterpret_cast<float*>(out)});
    EXPECT_TRUE(status.ok()) << status;
    Copy(pages_.data(), out, q.size() * sizeof(float));
    Floats result(q.size());
    std::memcpy(result.data(), pages_.data(), q.size() * sizeof(float));
    return result;
  }

 private:
  static constexpr uint64_t kPart = 4096, kPages = 3 * kPart;
  static_assert(kRowBytes <= kPart && M::kHidden * sizeof(float) <= kPart);

  void Copy(std::byte* dst, const std::byte* src, uint64_t bytes) {
    const CopyPiece piece{dst, src, bytes};
    EXPECT_TRUE(stream_->Copy({&piece, 1}).ok());
    EXPECT_TRUE(stream_->Synchronize().ok());
  }

  SharedPages pages_;
  const std::unique_ptr<DeviceStream> stream_;
  const std::unique_ptr<DeviceExtent> pool_, scratch_;
  uint32_t table_[kBlocks] = {};
};

using ReferencePathTest = DeviceTest;

TEST_P(ReferencePathTest, DecodeOverCompactBlocksIsThatOverAMaskedFullCache) {
  const SmallModel model;
  MaskedCache reference, unmasked;
  for (uint32_t position = 0; position < kPrompt; ++position) {
    const uint32_t token = position * 37 % M::kVocabulary;
    for (MaskedCache* cache : {&reference, &unmasked}) {
      model.Step(token, position, std::bind_front(&MaskedCache::Attend, cache));
    }
  }
  // The owner: every row of the prompt in one extent, what is kept of it compact in another.
  const auto full = Create(M::kLayers * kPrompt * kRowBytes, 1);
  const auto compact = Create(M::kLayers * kLayerBytes, 2);
  ASSERT_TRUE(full != nullptr && compact != nullptr);
  auto fd = compact->ExportFd();
  ASSERT_TRUE(fd.ok()) << fd.status();
  auto peer = OpenForTest(GetParam());
  ASSERT_TRUE(peer.ok()) << peer.status();
  Engine engine(**peer, *std::move(fd));

  const std::vector<uint32_t> kept = KeptRows();
  ASSERT_LT(kept.size(), kPrompt / 2);
  ASSERT_LE(kept.size() + kDecoded, kBlockRows * kBlocks);
  constexpr uint64_t kPromptBytes = M::kLayers * kPrompt * kRowBytes;
  const SharedPages pages(*device_, RoundUp(kPromptBytes, kPageBytes));
  std::vector<CopyPiece> pieces;
  for (uint32_t layer = 0; layer < M::kLayers; ++layer) {
    const uint64_t first = uint64_t{layer} * kPrompt * kRowBytes;
    for (uint32_t row = 0; row < kPrompt; ++row) {
      std::memcpy(pages.data() + first + row * kRowBytes, reference.rows(layer)[row].data(),
                  kRowBytes);
    }
    for (size_t i = 0; i < kept.size(); ++i) {
      pieces.push_back({compact->address() + engine.Place(layer, i),
                        full->address() + first + kept[i] * kRowBytes, kRowBytes});
    }
  }
  CopyNow(full->address(), pages.data(), kPromptBytes);
  ASSERT_TRUE(stream_->Copy(pieces).ok());
  ASSERT_TRUE(stream_->Synchronize().ok());
  reference.Keep(kept);

  auto rows = static_cast<uint32_t>(kept.size());
  uint32_t token = 5;
  float everything = 0;
  for (uint32_t position = kPrompt; position < kPrompt + kDecoded; ++position, ++rows) {
    const Floats want =
        model.Step(token, position, std::bind_front(&MaskedCache::Attend, &reference));
    const Floats got =
        model.Step(token, position, [&](uint32_t layer, const Row& row, const Floats& q) {
          return engine.Attend(layer, rows, row, q);
        });
    ASSERT_LT(LargestDifference(want, got), kTolerance) << "position " << position;
    everything = std::max(
        everything,
        LargestDifference(
            want, model.Step(token, position, std::bind_front(&MaskedCache::Attend, &unmasked))));
    token = static_cast<uint32_t>(std::max_element(want.begin(), want.end()) - want.begin());
  }
  // The test could tell: rows that were dropped would have been seen in the result.
  EXPECT_GT(everything, 10 * kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Devices, ReferencePathTest, ::testing::Values(KVASIR_TEST_DEVICE));

}  // namespace
}  // namespace kvasir::device::testing
