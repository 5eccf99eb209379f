// A device of host memory whose extents are for streams alone.
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "device/host/host_device.h"
#include "kernels/gather.h"
#include "kernels/row_convert.h"
#include "tests/device/devices_under_test.h"

namespace kvasir::device::testing {
namespace {

constexpr uint64_t kBytes = 64 * 1024;

class HiddenExtentsTest : public ::testing::Test {
 protected:
  static std::unique_ptr<HostDevice> Open(bool hides) {
    HostDeviceOptions options;
    options.hides_extents = hides;
    return *HostDevice::Create(options);
  }
};

TEST_F(HiddenExtentsTest, StreamsCopyIntoThemAndOutOfThem) {
  const std::unique_ptr<HostDevice> device = Open(true);
  const auto extent = device->CreateExtent(kBytes, 1);
  ASSERT_TRUE(extent.ok()) << MessageOf(extent.status());
  SharedPages pages(*device, 2 * kBytes, false);
  FillPattern(pages.data(), kBytes, 7);
  const auto stream = device->MakeStream(StreamPriority::kLowest);
  ASSERT_TRUE(stream.ok());
  std::byte* const back = pages.data() + kBytes;
  const CopyPiece in[] = {{(*extent)->address() + 4096, pages.data() + 4096, kBytes - 4096},
                          {(*extent)->address(), pages.data(), 4096}};
  const StridedPiece out[] = {{back, 1024, (*extent)->address(), 1024, 1024, kBytes / 1024}};
  ASSERT_TRUE((*stream)->Copy(in).ok());
  ASSERT_TRUE((*stream)->CopyStrided(out).ok());
  ASSERT_TRUE((*stream)->Synchronize().ok());
  EXPECT_TRUE(HasPattern(back, kBytes, 7));
  // An importer of the same memory that does not hide sees the bytes.
  const std::unique_ptr<HostDevice> importer = Open(false);
  auto fd = (*extent)->ExportFd();
  ASSERT_TRUE(fd.ok());
  const auto imported = importer->ImportExtent(*std::move(fd), kBytes, Access::kReadOnly);
  ASSERT_TRUE(imported.ok()) << MessageOf(imported.status());
  EXPECT_TRUE(HasPattern((*imported)->address(), kBytes, 7));
  ASSERT_TRUE((*stream)->Zero(**extent).ok());
  ASSERT_TRUE((*stream)->Synchronize().ok());
  EXPECT_EQ((*imported)->address()[kBytes - 1], std::byte{0});
}

TEST_F(HiddenExtentsTest, StreamsGatherAndTurnRowsInThem) {
  const kernels::RopeShape shape{
      kernels::RowType::kF16, kernels::RopePairing::kInterleaved, 3, 64, 64, 10000.0};
  constexpr uint64_t kRow = 384, kRows = 40;
  const std::unique_ptr<HostDevice> device = Open(true);
  const auto from = device->CreateExtent(kBytes, 1), to = device->CreateExtent(kBytes, 2);
  ASSERT_TRUE(from.ok() && to.ok());
  SharedPages pages(*device, 2 * kBytes, false);
  for (uint64_t i = 0; i < kRows * kRow / 2; ++i) {
    kernels::StoreElement(shape.type, pages.data(), i, static_cast<float>(i % 97) - 48.5F);
  }
  const auto stream = device->MakeStream(StreamPriority::kLowest);
  ASSERT_TRUE(stream.ok());
  const CopyPiece in{(*from)->address(), pages.data(), kRows * kRow};
  ASSERT_TRUE((*stream)->Copy({&in, 1}).ok());
  const int64_t delta = -37;
  std::vector<float> turns(shape.rotated_dims);
  kernels::MakeTurns(shape, {&delta, 1}, turns.data());
  std::vector<RowMove> moves;
  std::vector<const std::byte*> rows;
  std::vector<int64_t> deltas;
  for (uint64_t row = 0; row < kRows; row += 1 + row % 3) {
    const uint64_t at = moves.size();
    rows.push_back(pages.data() + row * kRow);
    deltas.push_back(row % 2 == 0 ? delta : 0);
    moves.push_back({(*to)->address() + at * kRow, (*from)->address() + row * kRow,
                     row % 2 == 0 ? 0 : kNoTurn});
  }
  const RowGather gather{moves, kRow, &shape, turns};
  ASSERT_TRUE((*stream)->GatherRows({&gather, 1}).ok());
  std::byte* const back = pages.data() + kBytes;
  const CopyPiece out{back, (*to)->address(), rows.size() * kRow};
  ASSERT_TRUE((*stream)->Copy({&out, 1}).ok());
  ASSERT_TRUE((*stream)->Synchronize().ok());
  std::vector<std::byte> want(rows.size() * kRow);
  kernels::GatherRotateRows(shape, rows, deltas, want.data());
  EXPECT_EQ(std::vector<std::byte>(back, back + want.size()), want);
}

TEST_F(HiddenExtentsTest, WhoFollowsAnAddressEnds) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const std::unique_ptr<HostDevice> device = Open(true);
  const auto extent = device->CreateExtent(kBytes, 1);
  ASSERT_TRUE(extent.ok()) << MessageOf(extent.status());
  const volatile std::byte* const at = (*extent)->address();
  EXPECT_DEATH((void)at[0], "");  // by SIGSEGV, or as a sanitizer ends
}

TEST_F(HiddenExtentsTest, BytesComeBackAndAnotherExtentMayLieThere) {
  const std::unique_ptr<HostDevice> device = Open(true);
  for (int i = 0; i < 4; ++i) {
    const auto extent = device->CreateExtent(device->facts().total_bytes, 1);
    ASSERT_TRUE(extent.ok()) << MessageOf(extent.status());
  }
  EXPECT_EQ(*device->FreeBytes(), device->facts().total_bytes);
}

}  // namespace
}  // namespace kvasir::device::testing
