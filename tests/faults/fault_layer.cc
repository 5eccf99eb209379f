#include "tests/faults/fault_layer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

namespace kvasir::testing {
namespace {

std::atomic<FaultBoard*> board_of_layer{nullptr};

__attribute__((constructor)) void SetUp() {
  const char* const path = ::getenv(kFaultBoardVariable);
  if (path == nullptr) return;
  const int fd = ::open(path, O_RDWR | O_CLOEXEC);
  void* const map =
      fd < 0 ? MAP_FAILED
             : ::mmap(nullptr, sizeof(FaultBoard), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) ::close(fd);
  if (map == MAP_FAILED) {
    ::fprintf(stderr, "fault layer: no board: path=%s\n", path);
    ::abort();  // a test without its faults would prove nothing
  }
  board_of_layer = static_cast<FaultBoard*>(map);
}

enum class FileKind { kOther, kSegment, kIndex };

FileKind KindOf(int fd) {
  char link[32], path[4096];
  ::snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  const ssize_t length = ::readlink(link, path, sizeof(path) - 1);
  if (length < 0) return FileKind::kOther;
  path[length] = '\0';
  if (::strstr(path, "/blocks/segment-") != nullptr) return FileKind::kSegment;
  if (::strstr(path, "/blocks/index/") != nullptr) return FileKind::kIndex;
  return FileKind::kOther;
}

}  // namespace

FaultBoard* BoardOfLayer() { return board_of_layer.load(std::memory_order_relaxed); }

int StrikeAt(int fd, FaultPlace of_segment, FaultPlace of_index) {
  FaultBoard* const board = BoardOfLayer();
  if (board == nullptr) return 0;
  if (board->at(of_segment).error == 0 && board->at(of_index).error == 0) return 0;
  const int saved = errno;
  const FileKind kind = KindOf(fd);
  errno = saved;
  if (kind == FileKind::kOther) return 0;
  FaultBoard::Place& place = board->at(kind == FileKind::kSegment ? of_segment : of_index);
  const int error = place.error;
  if (error == 0 || place.spared.fetch_sub(1) > 0) return 0;
  ++place.struck;
  return error;
}

void HoldRead(int fd) {
  FaultBoard* const board = BoardOfLayer();
  if (board == nullptr || !board->hold_reads || KindOf(fd) != FileKind::kSegment) return;
  ++board->held;
  const timespec pause = {.tv_sec = 0, .tv_nsec = 1'000'000};
  while (board->hold_reads) ::nanosleep(&pause, nullptr);
}

}  // namespace kvasir::testing

// --- libc's functions, as RocksDB and block_io.cc call them
// ----------------------------------------

using kvasir::testing::FaultPlace;
using kvasir::testing::HoldRead;
using kvasir::testing::kShortTransfer;
using kvasir::testing::NextOf;
using kvasir::testing::StrikeAt;

namespace {

// The result of a call that is struck with `error`; `half` does half of the call.
template <typename Half>
ssize_t Struck(int error, const Half& half) {
  if (error == kShortTransfer) return half();
  errno = error;
  return -1;
}

int StrikeRead(int fd) { return StrikeAt(fd, FaultPlace::kSegmentRead, FaultPlace::kIndexRead); }
int StrikeWrite(int fd) { return StrikeAt(fd, FaultPlace::kSegmentWrite, FaultPlace::kIndexWrite); }
int StrikeSync(int fd) { return StrikeAt(fd, FaultPlace::kSegmentSync, FaultPlace::kIndexSync); }
int StrikeReserve(int fd) {
  return StrikeAt(fd, FaultPlace::kSegmentReserve, FaultPlace::kIndexWrite);
}

}  // namespace

extern "C" {

ssize_t preadv64(int fd, const iovec* parts, int count, off64_t offset) {
  static auto* const next = NextOf<ssize_t(int, const iovec*, int, off64_t)>("preadv64");
  HoldRead(fd);
  const int error = StrikeRead(fd);
  if (error == 0) return next(fd, parts, count, offset);
  return Struck(error, [&] { return count < 2 ? 0 : next(fd, parts, count / 2, offset); });
}

ssize_t pwritev64(int fd, const iovec* parts, int count, off64_t offset) {
  static auto* const next = NextOf<ssize_t(int, const iovec*, int, off64_t)>("pwritev64");
  const int error = StrikeWrite(fd);
  if (error == 0) return next(fd, parts, count, offset);
  return Struck(error, [&] { return count < 2 ? 0 : next(fd, parts, count / 2, offset); });
}

ssize_t pread(int fd, void* to, size_t bytes, off_t offset) {
  static auto* const next = NextOf<ssize_t(int, void*, size_t, off_t)>("pread");
  const int error = StrikeRead(fd);
  if (error == 0) return next(fd, to, bytes, offset);
  return Struck(error, [&] { return next(fd, to, bytes / 2, offset); });
}

size_t fread_unlocked(void* to, size_t size, size_t count, FILE* file) {
  static auto* const next = NextOf<size_t(void*, size_t, size_t, FILE*)>("fread_unlocked");
  const int error = StrikeRead(::fileno_unlocked(file));
  if (error == 0) return next(to, size, count, file);
  if (error == kShortTransfer) return next(to, size, count / 2, file);
  // The stream's own flag is what RocksDB asks for: a read of a descriptor that is none sets it.
  const int real = file->_fileno;
  file->_fileno = -1;
  const size_t got = next(to, size, count, file);
  file->_fileno = real;
  errno = error;
  return got;
}

ssize_t write(int fd, const void* from, size_t bytes) {
  static auto* const next = NextOf<ssize_t(int, const void*, size_t)>("write");
  const int error = StrikeWrite(fd);
  if (error == 0) return next(fd, from, bytes);
  return Struck(error, [&] { return next(fd, from, bytes / 2); });
}

ssize_t pwrite(int fd, const void* from, size_t bytes, off_t offset) {
  static auto* const next = NextOf<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  const int error = StrikeWrite(fd);
  if (error == 0) return next(fd, from, bytes, offset);
  return Struck(error, [&] { return next(fd, from, bytes / 2, offset); });
}

int fallocate64(int fd, int mode, off64_t offset, off64_t bytes) {
  static auto* const next = NextOf<int(int, int, off64_t, off64_t)>("fallocate64");
  const int error = StrikeReserve(fd);
  return error == 0 ? next(fd, mode, offset, bytes)
                    : static_cast<int>(Struck(error, [] { return -1; }));
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  static auto* const next = NextOf<int(int, int, off_t, off_t)>("fallocate");
  const int error = StrikeReserve(fd);
  return error == 0 ? next(fd, mode, offset, bytes)
                    : static_cast<int>(Struck(error, [] { return -1; }));
}

int fdatasync(int fd) {
  static auto* const next = NextOf<int(int)>("fdatasync");
  const int error = StrikeSync(fd);
  return error == 0 ? next(fd) : static_cast<int>(Struck(error, [] { return -1; }));
}

int fsync(int fd) {
  static auto* const next = NextOf<int(int)>("fsync");
  const int error = StrikeSync(fd);
  return error == 0 ? next(fd) : static_cast<int>(Struck(error, [] { return -1; }));
}

}  // extern "C"
