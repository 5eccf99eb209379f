// What every implementation of device.h promises over the border of processes, and when one dies.
#include <signal.h>
#include <sys/socket.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/unix_socket.h"
#include "device/word.h"
#include "tests/device/device_fixture.h"
#include "tests/support/child_process.h"
#include "tests/support/eventually.h"

namespace kvasir::device::testing {
namespace {

using kvasir::testing::ChildProcess;
using kvasir::testing::Eventually;
using kvasir::testing::SiblingProgram;

class DeviceProcesses : public DeviceTest {
 protected:
  std::unique_ptr<ChildProcess> StartPeer(const std::string& mode, uint64_t bytes) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    socket_ = UniqueFd(ends[0]);
    const UniqueFd theirs(ends[1]);
    return std::make_unique<ChildProcess>(
        std::vector<std::string>{SiblingProgram("device_peer"), GetParam(), mode,
                                 std::to_string(bytes)},
        std::vector<std::string>{}, std::vector<int>{theirs.get()});
  }
  void Send(const UniqueFd& fd) {
    const std::byte message[8] = {};
    ASSERT_TRUE(SendMessage(socket_, message, {{fd.get()}}).ok());
  }
  void ExpectReady(ChildProcess& peer) {
    const auto line = peer.ReadLine();
    ASSERT_TRUE(line.has_value()) << peer.ReadErrors();
    ASSERT_EQ(*line, "ready");
  }
  static void Kill(ChildProcess& peer) {
    peer.Signal(SIGKILL);
    EXPECT_EQ(peer.Wait(), -SIGKILL);
  }

  UniqueFd socket_;
};

TEST_P(DeviceProcesses, AnImporterReadsAndWritesAndItsDeathGivesTheMemoryBack) {
  const uint64_t before = device_->FreeBytes().value();
  auto extent = Create(granularity_);
  const uint64_t with_extent = device_->FreeBytes().value();
  const SharedPages pages(*device_, granularity_);
  FillPattern(pages.data(), granularity_, 1);
  CopyNow(extent->address(), pages.data(), granularity_);

  const auto peer = StartPeer("import", granularity_);
  Send(extent->ExportFd().value());
  ExpectReady(*peer);
  CopyNow(pages.data(), extent->address(), granularity_);
  EXPECT_TRUE(HasPattern(pages.data(), granularity_, 2));

  extent.reset();
  // The importer still has it (on a GPU beside the memory of its context).
  const uint64_t with_importer = device_->FreeBytes().value();
  EXPECT_LE(with_importer, with_extent);
  Kill(*peer);
  EXPECT_TRUE(
      Eventually([&] { return device_->FreeBytes().value() >= with_importer + granularity_; }));
  if (device_->facts().kind == DeviceKind::kHost) {
    EXPECT_EQ(device_->FreeBytes().value(), before);
  }
}

TEST_P(DeviceProcesses, AnImporterOutlivesItsExporter) {
  const auto peer = StartPeer("export", granularity_);
  ExpectReady(*peer);
  ASSERT_TRUE(WaitReadable(socket_.get(), 60'000).value());
  std::byte message[8];
  auto received = ReceiveMessage(socket_, message);
  ASSERT_TRUE(received.ok()) << received.status();
  ASSERT_EQ(received->fds.size(), 1U);
  auto extent =
      device_->ImportExtent(std::move(received->fds[0]), granularity_, Access::kReadWrite);
  ASSERT_TRUE(extent.ok()) << extent.status();
  Kill(*peer);

  const SharedPages pages(*device_, granularity_);
  CopyNow(pages.data(), (*extent)->address(), granularity_);
  EXPECT_TRUE(HasPattern(pages.data(), granularity_, 3));
  CopyNow((*extent)->address(), pages.data(), granularity_);
  const uint64_t with_extent = device_->FreeBytes().value();
  extent->reset();
  // A device of host memory is a budget of each process: what is imported was never on ours.
  if (device_->facts().kind == DeviceKind::kCuda) {
    EXPECT_GE(device_->FreeBytes().value(), with_extent + granularity_);
  } else {
    EXPECT_EQ(device_->FreeBytes().value(), with_extent);
  }
}

TEST_P(DeviceProcesses, StreamsOfTwoProcessesWaitForEachOther) {
  const SharedPages pages(*device_, kPageBytes);
  const auto peer = StartPeer("words", kPageBytes);
  Send(UniqueFd(::dup(pages.fd().get())));
  ExpectReady(*peer);
  for (uint64_t round = 1; round <= 100; ++round) {
    ASSERT_TRUE(stream_->WriteWord(pages.word(0), round).ok());
    ASSERT_TRUE(stream_->WaitWord(pages.word(1), round).ok());
  }
  ASSERT_TRUE(stream_->Synchronize().ok());
  EXPECT_EQ(pages.word(1).load(), 100U);

  // It is dead, and this stream waits for it.
  Kill(*peer);
  ASSERT_TRUE(stream_->WaitWord(pages.word(1), 101).ok());
  stream_->ReleaseWaits();
  EXPECT_TRUE(stream_->Synchronize().ok());
}

INSTANTIATE_TEST_SUITE_P(On, DeviceProcesses, ::testing::Values(KVASIR_TEST_DEVICE));

}  // namespace
}  // namespace kvasir::device::testing
