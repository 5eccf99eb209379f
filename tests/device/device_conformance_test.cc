// What every implementation of device.h promises, inside one process.
#include <unistd.h>

#include <string>
#include <vector>

#include "base/bytes.h"
#include "device/word.h"
#include "tests/device/device_fixture.h"

namespace kvasir::device::testing {
namespace {

using ::testing::HasSubstr;

class DeviceConformance : public DeviceTest {};

TEST_P(DeviceConformance, SaysWhatItIs) {
  const DeviceFacts& facts = device_->facts();
  EXPECT_FALSE(facts.name.empty());
  EXPECT_FALSE(facts.uuid.empty());
  EXPECT_GT(granularity_, 0U);
  EXPECT_GE(facts.total_bytes, granularity_);
  EXPECT_TRUE(device_->Health().ok());
}

TEST_P(DeviceConformance, ChargesWholeGranulesAndGivesThemBack) {
  const uint64_t before = device_->FreeBytes().value();
  {
    const auto extent = Create(granularity_ + 1, 7);
    EXPECT_EQ(extent->id(), 7U);
    EXPECT_EQ(extent->bytes(), granularity_ + 1);
    EXPECT_EQ(extent->charged_bytes(), 2 * granularity_);
    EXPECT_LE(device_->FreeBytes().value(), before - 2 * granularity_);
  }
  EXPECT_EQ(device_->FreeBytes().value(), before);
}

TEST_P(DeviceConformance, RefusesSizesOutOfBoundsAndNamesTheBound) {
  EXPECT_EQ(device_->CreateExtent(0, 1).status().code(), absl::StatusCode::kInvalidArgument);
  const auto over = device_->CreateExtent(device_->facts().total_bytes + 1, 1).status();
  EXPECT_EQ(over.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(over.message()), HasSubstr("max="));
}

TEST_P(DeviceConformance, AFullDeviceSaysHowMuchIsFree) {
  const uint64_t most = device_->facts().total_bytes / granularity_ * granularity_;
  const auto first = Create(granularity_);
  const auto second = device_->CreateExtent(most, 2);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("free_bytes="));
}

TEST_P(DeviceConformance, FreshMemoryIsZeroThoughItsBytesWereAnothersBefore) {
  const SharedPages pages(*device_, granularity_);
  for (uint64_t owner = 1; owner <= 8; ++owner) {
    const auto extent = Create(granularity_, owner);
    CopyNow(pages.data(), extent->address(), granularity_);
    ASSERT_TRUE(IsZero(pages.data(), granularity_)) << owner;
    FillPattern(pages.data(), granularity_, owner);
    CopyNow(extent->address(), pages.data(), granularity_);
  }
}

TEST_P(DeviceConformance, ZeroClearsUpToTheGranule) {
  const SharedPages pages(*device_, granularity_);
  const auto extent = Create(100);
  FillPattern(pages.data(), granularity_, 1);
  CopyNow(extent->address(), pages.data(), granularity_);
  ASSERT_TRUE(stream_->Zero(*extent).ok());
  CopyNow(pages.data(), extent->address(), granularity_);
  EXPECT_TRUE(IsZero(pages.data(), granularity_));
}

TEST_P(DeviceConformance, CopiesBatchesInEveryDirection) {
  const SharedPages pages(*device_, 2 * granularity_);
  const auto a = Create(granularity_, 1), b = Create(granularity_, 2);
  FillPattern(pages.data(), granularity_, 5);
  std::vector<CopyPiece> in, across;
  const uint64_t piece = granularity_ / 16;
  for (uint64_t at = 0; at < granularity_; at += piece) {
    in.push_back({a->address() + at, pages.data() + at, piece});
    across.push_back({b->address() + at, a->address() + at, piece});
  }
  ASSERT_TRUE(stream_->Copy(in).ok());
  ASSERT_TRUE(stream_->Copy(across).ok());
  CopyNow(pages.data() + granularity_, b->address(), granularity_);
  EXPECT_TRUE(HasPattern(pages.data() + granularity_, granularity_, 5));
}

TEST_P(DeviceConformance, StridedCopiesTransposeGroupsAndLayers) {
  // 8 groups of 4 layers, group-major; on the device layer by layer.
  constexpr uint64_t kGroups = 8, kLayers = 4, kBlock = 1024;
  const SharedPages pages(*device_, 2 * kGroups * kLayers * kBlock);
  const auto extent = Create(kGroups * kLayers * kBlock);
  FillPattern(pages.data(), kGroups * kLayers * kBlock, 9);
  std::byte* const back = pages.data() + kGroups * kLayers * kBlock;
  std::vector<StridedPiece> in, out;
  for (uint64_t layer = 0; layer < kLayers; ++layer) {
    std::byte* const device = extent->address() + layer * kGroups * kBlock;
    in.push_back(
        {device, kBlock, pages.data() + layer * kBlock, kLayers * kBlock, kBlock, kGroups});
    out.push_back({back + layer * kBlock, kLayers * kBlock, device, kBlock, kBlock, kGroups});
  }
  ASSERT_TRUE(stream_->CopyStrided(in).ok());
  ASSERT_TRUE(stream_->CopyStrided(out).ok());
  ASSERT_TRUE(stream_->Synchronize().ok());
  EXPECT_TRUE(HasPattern(back, kGroups * kLayers * kBlock, 9));
  CopyNow(back, extent->address() + kGroups * kBlock, kBlock);  // layer 1 of group 0
  EXPECT_EQ(std::vector<std::byte>(back, back + kBlock),
            std::vector<std::byte>(pages.data() + kBlock, pages.data() + 2 * kBlock));
}

TEST_P(DeviceConformance, ACopyToNowhereIsRefusedWithTheWholeBatch) {
  const SharedPages pages(*device_, granularity_);
  const auto extent = Create(granularity_);
  FillPattern(pages.data(), granularity_, 1);
  std::byte nowhere[64];
  const CopyPiece pieces[] = {{extent->address(), pages.data(), 64}, {nowhere, pages.data(), 64}};
  const absl::Status status = stream_->Copy(pieces);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("piece=1"));
  const CopyPiece over{extent->address() + granularity_ - 32, pages.data(), 64};
  EXPECT_EQ(stream_->Copy({&over, 1}).code(), absl::StatusCode::kInvalidArgument);
  const StridedPiece narrow{extent->address(), 8, pages.data(), 64, 16, 2};
  EXPECT_EQ(stream_->CopyStrided({&narrow, 1}).code(), absl::StatusCode::kInvalidArgument);
  CopyNow(pages.data(), extent->address(), granularity_);
  EXPECT_TRUE(IsZero(pages.data(), granularity_));
  EXPECT_TRUE(device_->Health().ok());
}

TEST_P(DeviceConformance, WhatIsReadOnlyIsNoDestination) {
  const SharedPages source(*device_, kPageBytes, true);
  if (source.registration().read_only()) {
    const auto extent = Create(granularity_);
    const CopyPiece back{source.data(), extent->address(), 64};
    EXPECT_EQ(stream_->Copy({&back, 1}).code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(stream_->WriteWord(source.word(0), 1).code(), absl::StatusCode::kFailedPrecondition);
  }
  const auto created = Create(granularity_);
  const auto imported =
      device_->ImportExtent(created->ExportFd().value(), granularity_, Access::kReadOnly);
  if (!imported.ok()) GTEST_SKIP() << imported.status();
  const CopyPiece in{(*imported)->address(), created->address(), 64};
  EXPECT_EQ(stream_->Copy({&in, 1}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(stream_->Zero(**imported).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*imported)->ExportFd().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(DeviceConformance, AnImporterChoosesItsOwnAccess) {
  const SharedPages pages(*device_, granularity_);
  const auto created = Create(granularity_);
  const auto imported =
      device_->ImportExtent(created->ExportFd().value(), granularity_, Access::kReadWrite);
  ASSERT_TRUE(imported.ok()) << imported.status();
  FillPattern(pages.data(), granularity_, 4);
  CopyNow((*imported)->address(), pages.data(), granularity_);
  FillPattern(pages.data(), granularity_, 0);
  CopyNow(pages.data(), created->address(), granularity_);
  EXPECT_TRUE(HasPattern(pages.data(), granularity_, 4));
}

TEST_P(DeviceConformance, OnlyAnExtentCanBeImported) {
  const SharedPages pages(*device_, granularity_);
  EXPECT_FALSE(
      device_->ImportExtent(UniqueFd(::dup(pages.fd().get())), granularity_, Access::kReadWrite)
          .ok());
  EXPECT_TRUE(device_->Health().ok());
}

TEST_P(DeviceConformance, EventsTellWhatIsDoneAndOrderStreams) {
  const SharedPages pages(*device_, kPageBytes);
  const auto event = device_->MakeEvent().value();
  EXPECT_TRUE(event->Query().value());
  const auto second = MakeStream();
  ASSERT_TRUE(stream_->WaitWord(pages.word(0), 1).ok());
  ASSERT_TRUE(stream_->Record(event).ok());
  ASSERT_TRUE(second->Wait(event).ok());
  ASSERT_TRUE(second->WriteWord(pages.word(1), 1).ok());
  EXPECT_FALSE(event->Query().value());
  EXPECT_EQ(pages.word(1).load(), 0U);
  RaiseWord(pages.word(0), 1);
  EXPECT_TRUE(second->Synchronize().ok());
  EXPECT_TRUE(event->Synchronize().ok());
  EXPECT_TRUE(event->Query().value());
  EXPECT_EQ(pages.word(1).load(), 1U);
}

TEST_P(DeviceConformance, AWordOfSomebodyDeadIsReleased) {
  const SharedPages pages(*device_, kPageBytes);
  ASSERT_TRUE(stream_->WaitWord(pages.word(0), 3).ok());
  ASSERT_TRUE(stream_->WaitWord(pages.word(1), 5).ok());
  stream_->ReleaseWaits();
  EXPECT_TRUE(stream_->Synchronize().ok());
  EXPECT_EQ(pages.word(0).load(), 3U);
  EXPECT_EQ(pages.word(1).load(), 5U);
  ASSERT_TRUE(stream_->WaitWord(pages.word(0), 4).ok());
  stream_.reset();  // does not hang
}

TEST_P(DeviceConformance, WordsLieInRegisteredMemory) {
  alignas(8) DeviceWord word = 0;
  EXPECT_EQ(stream_->WriteWord(word, 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(stream_->WaitWord(word, 1).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(DeviceConformance, RegistrationsAreWholePagesAndDoNotMeet) {
  const SharedPages pages(*device_, 4 * kPageBytes);
  EXPECT_EQ(device_->RegisterHost(pages.data() + 8, kPageBytes, false).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(device_->RegisterHost(pages.data() + kPageBytes, kPageBytes, false).status().code(),
            absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(On, DeviceConformance, ::testing::Values(KVASIR_TEST_DEVICE));

}  // namespace
}  // namespace kvasir::device::testing
