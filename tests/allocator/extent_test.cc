// Extents: seals that hold, descriptors that cannot grow, and the kernel's word on who holds one.
#include "allocator/extent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/unix_socket.h"

namespace kvasir {
namespace {

std::unique_ptr<Extent> Make(uint64_t bytes) {
  absl::StatusOr<std::unique_ptr<Extent>> extent = Extent::Create({bytes, true, -1, false}, 7);
  EXPECT_TRUE(extent.ok()) << MessageOf(extent.status());
  return *std::move(extent);
}

std::unique_ptr<Extent> MakeSealed(ExtentUse use) {
  std::unique_ptr<Extent> extent = Make(64 * kKiB);
  EXPECT_TRUE(extent->Seal(use).ok());
  return extent;
}

UniqueFd PeerFd(const Extent& extent) {
  absl::StatusOr<UniqueFd> fd = extent.OpenForPeer();
  EXPECT_TRUE(fd.ok()) << MessageOf(fd.status());
  return *std::move(fd);
}

TEST(ExtentTest, SizeIsExactAndShrinks) {
  const std::unique_ptr<Extent> extent = Make(12 * kPageBytes);
  EXPECT_EQ(extent->bytes(), 12 * kPageBytes);
  ASSERT_TRUE(extent->Shrink(5 * kPageBytes).ok());
  EXPECT_EQ(extent->bytes(), 5 * kPageBytes);
  ASSERT_TRUE(extent->Seal(ExtentUse::kRecent).ok());
  struct stat info {};
  ASSERT_EQ(::fstat(PeerFd(*extent).get(), &info), 0);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), 5 * kPageBytes);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
}

TEST(ExtentTest, PrefaultedPagesArePresent) {
  const std::unique_ptr<Extent> extent = Make(8 * kPageBytes);
  std::array<unsigned char, 8> present{};
  ASSERT_EQ(::mincore(extent->data(), extent->bytes(), present.data()), 0);
  for (const unsigned char page : present) EXPECT_EQ(page & 1, 1);
}

TEST(ExtentTest, KeptExtentsHaveOneWriter) {
  const std::unique_ptr<Extent> extent = MakeSealed(ExtentUse::kKept);
  const UniqueFd fd = PeerFd(*extent);
  EXPECT_EQ(::fcntl(fd.get(), F_GET_SEALS), F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
  EXPECT_NE(::ftruncate(fd.get(), 0), 0) << "a peer may only read";
  EXPECT_NE(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  // The daemon's mapping stays writable; every later one is refused, even for the owner.
  extent->data()[3] = std::byte{42};
  const absl::StatusOr<UniqueFd> writable = Reopen(fd, O_RDWR);
  ASSERT_TRUE(writable.ok()) << "the owner may open its own file";
  EXPECT_EQ(::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, writable->get(), 0),
            MAP_FAILED);
  EXPECT_EQ(errno, EPERM);
  EXPECT_LT(::pwrite(writable->get(), "x", 1, 0), 0);
  EXPECT_NE(::fallocate(writable->get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
  const auto* map = static_cast<const std::byte*>(
      ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  EXPECT_EQ(map[3], std::byte{42});
  ::munmap(const_cast<std::byte*>(map), kPageBytes);
}

TEST(ExtentTest, RecentExtentsKeepTheirSize) {
  const std::unique_ptr<Extent> extent = MakeSealed(ExtentUse::kRecent);
  const UniqueFd fd = PeerFd(*extent);
  EXPECT_EQ(::fcntl(fd.get(), F_GETFL) & O_ACCMODE, O_RDWR);
  EXPECT_NE(::ftruncate(fd.get(), 0), 0);
  EXPECT_NE(::ftruncate(fd.get(), 1 << 20), 0);
  EXPECT_NE(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
  EXPECT_EQ(extent->Shrink(kPageBytes).code(), absl::StatusCode::kPermissionDenied);
}

TEST(ExtentTest, KeptExtentsAreTakenFromWhoeverMapsThem) {
  const std::unique_ptr<Extent> extent = MakeSealed(ExtentUse::kKept);
  extent->data()[0] = std::byte{7};
  const UniqueFd fd = PeerFd(*extent);
  void* const map = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(map, MAP_FAILED);
  ASSERT_TRUE(extent->TakeBack().ok());
  struct stat info {};
  ASSERT_EQ(::fstat(fd.get(), &info), 0);
  EXPECT_EQ(info.st_size, 0);
  EXPECT_EQ(info.st_blocks, 0) << "the kernel has the pages";
  EXPECT_EQ(extent->Probe(), ProbeResult::kHeld) << "what is left of it is still seen";
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGBUS, SIG_DFL);  // not a sanitizer's
    ::_exit(static_cast<const volatile char*>(map)[0]);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
  ::munmap(map, kPageBytes);
}

TEST(ExtentTest, RecentExtentsAreEmptiedUnderTheirWriter) {
  const std::unique_ptr<Extent> extent = MakeSealed(ExtentUse::kRecent);
  const UniqueFd fd = PeerFd(*extent);
  auto* const map = static_cast<char*>(
      ::mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  ASSERT_NE(map, MAP_FAILED);
  map[0] = 7;
  ASSERT_TRUE(extent->TakeBack().ok());
  struct stat info {};
  ASSERT_EQ(::fstat(fd.get(), &info), 0);
  EXPECT_EQ(info.st_blocks, 0);
  EXPECT_EQ(map[0], 0);
  ::munmap(map, kPageBytes);
}

TEST(ExtentTest, WhatAPeerCouldCutIsSealedAndStays) {
  const std::unique_ptr<Extent> extent = MakeSealed(ExtentUse::kKept);
  ASSERT_TRUE(extent->SealSize().ok());
  ASSERT_TRUE(extent->SealSize().ok()) << "twice is as once";
  const UniqueFd fd = PeerFd(*extent);
  const absl::StatusOr<UniqueFd> writable = Reopen(fd, O_RDWR);  // as root may
  ASSERT_TRUE(writable.ok());
  EXPECT_NE(::ftruncate(writable->get(), 0), 0);
  EXPECT_EQ(extent->TakeBack().code(), absl::StatusCode::kPermissionDenied);
  extent->data()[0] = std::byte{7};
}

TEST(ExtentTest, ProbeSeesEveryKindOfHolder) {
  const std::unique_ptr<Extent> extent = MakeSealed(ExtentUse::kRecent);
  ASSERT_EQ(extent->Probe(), ProbeResult::kFree);
  UniqueFd fd = PeerFd(*extent);
  EXPECT_EQ(extent->Probe(), ProbeResult::kHeld) << "an open descriptor";
  void* const map = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(map, MAP_FAILED);
  fd.reset();
  EXPECT_EQ(extent->Probe(), ProbeResult::kHeld) << "a mapping without a descriptor";
  ::munmap(map, kPageBytes);
  EXPECT_EQ(extent->Probe(), ProbeResult::kFree);
}

TEST(ExtentTest, ProbeSeesADescriptorInFlight) {
  const std::unique_ptr<Extent> extent = MakeSealed(ExtentUse::kKept);
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
  const UniqueFd sender(ends[0]);
  UniqueFd receiver(ends[1]);
  {
    const UniqueFd fd = PeerFd(*extent);
    const std::array<int, 1> fds{fd.get()};
    const std::array<std::byte, 4> text{};
    ASSERT_TRUE(SendMessage(sender, text, fds).ok());
  }
  EXPECT_EQ(extent->Probe(), ProbeResult::kHeld) << "sent, closed here, not received yet";
  receiver.reset();
  EXPECT_EQ(extent->Probe(), ProbeResult::kFree) << "gone with the socket";
}

TEST(ExtentTest, ProbeSeesAForkedChildsMapping) {
  const std::unique_ptr<Extent> extent = MakeSealed(ExtentUse::kRecent);
  UniqueFd fd = PeerFd(*extent);
  void* const map = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(map, MAP_FAILED);
  fd.reset();
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[1]);
    char byte = 0;
    _exit(::read(ends[0], &byte, 1) == 0 ? 0 : 1);  // until the parent closes its end
  }
  ::munmap(map, kPageBytes);
  EXPECT_EQ(extent->Probe(), ProbeResult::kHeld) << "only the child maps it now";
  ::close(ends[1]);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ::close(ends[0]);
  EXPECT_EQ(extent->Probe(), ProbeResult::kFree);
}

TEST(ExtentTest, ProbeWithoutADescriptorSaysHeld) {
  const std::unique_ptr<Extent> extent = MakeSealed(ExtentUse::kRecent);
  std::vector<UniqueFd> all;  // no descriptor is left to ask with
  for (;;) {
    UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!fd) break;
    all.push_back(std::move(fd));
  }
  EXPECT_EQ(extent->Probe(), ProbeResult::kHeld);
  all.clear();
  EXPECT_EQ(extent->Probe(), ProbeResult::kFree);
}

}  // namespace
}  // namespace kvasir
