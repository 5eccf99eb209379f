// A device of host memory whose extents are for streams alone.
#include <gtest/gtest.h>

#include "base/error.h"
#include "device/host/host_device.h"
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
