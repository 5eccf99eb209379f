// What was lent for reading, and what is left of a session that has ended.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "client/attack/attacks.h"
#include "client/attack/by_hand.h"

#include <fmt/format.h>

namespace kvasir::attack {
namespace {

// No way from a descriptor for reading to one for writing.
void AttackReadOnly(const char* what, int fd, uint64_t bytes, Attempts& attempts) {
  const auto name = [what](const char* verb) { return fmt::format("{} {}", verb, what); };
  void* map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  attempts.AddCall(name("map writable:"), map == MAP_FAILED, {EACCES, EPERM});
  if (map != MAP_FAILED) ::munmap(map, bytes);
  map = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (map != MAP_FAILED) {
    attempts.AddCall(name("mprotect writable:"),
                     ::mprotect(map, bytes, PROT_READ | PROT_WRITE) != 0, {EACCES});
    ::munmap(map, bytes);
  }
  const char byte = 'x';
  attempts.AddCall(name("write into:"), ::pwrite(fd, &byte, 1, 0) < 0, {EBADF, EPERM});
  attempts.AddCall(name("cut short:"), ::ftruncate(fd, 0) != 0, {EINVAL, EBADF, EPERM});
  attempts.AddCall(name("punch a hole into:"),
                   ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0,
                   {EBADF, EPERM});
  attempts.AddCall(name("add seals to:"), ::fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0,
                   {EPERM, EBUSY});
  const std::string path = fmt::format("/proc/self/fd/{}", fd);
  for (const int flags : {O_RDWR, O_WRONLY}) {
    const UniqueFd again(::open(path.c_str(), flags | O_CLOEXEC));
    attempts.AddCall(name("reopen writable:"), !again, {EACCES, EPERM});
  }
  attempts.AddCall(name("change the mode of:"), ::chmod(path.c_str(), 0666) != 0, {EPERM, EACCES});
}

// Steps a sequence until an extent of kept rows comes.
void AttackKeptExtent(Engine& engine, Attempts& attempts) {
  const char* const what = "an extent of kept rows";
  const absl::StatusOr<v1::OpenSequenceResponse> sequence =
      engine.Open("streamingllm:start_size=4,recent_size=8");
  if (!sequence.ok()) {
    return attempts.Add(what, Verdict::kNotTried, MessageOf(sequence.status()));
  }
  for (int step = 0; step < 40; ++step) {
    const shm::SeqBoard& board = engine.data().board(sequence->sequence());
    const uint64_t newest = board.published.load();
    const uint64_t until = board.v[newest & 1].until_row;
    engine.SetDesk(*sequence, std::min(board.granted.load(), until), newest);
    if (!engine.Sync(*sequence, 0).ok() || newest >= 2) break;
  }
  for (int extents = 0; extents < 64; ++extents) {
    const absl::StatusOr<DataSocket::SentExtent> extent = engine.data().ReceiveExtent();
    if (!extent.ok()) return attempts.Add(what, Verdict::kNotTried, MessageOf(extent.status()));
    if (extent->notice.extent_kind == static_cast<uint32_t>(shm::ExtentKind::kKept)) {
      return AttackReadOnly(what, extent->fd.get(), extent->notice.bytes, attempts);
    }
  }
}

bool Contains(const std::byte* bytes, uint64_t count, const std::string& text) {
  return !text.empty() && ::memmem(bytes, count, text.data(), text.size()) != nullptr;
}

// Memory that was this tenant's once is nobody else's later: its file may be empty by now, or still
// show what this tenant wrote.
void AttackAfterTheEnd(const Target& target, Attempts& attempts) {
  const std::string what = "read others' rows in memory of an ended session";
  absl::StatusOr<Engine> engine = Engine::Start(target.control_socket, target.data_socket, 1);
  if (!engine.ok()) return attempts.Add(what, Verdict::kNotTried, MessageOf(engine.status()));
  const UniqueFd extent(::fcntl(engine->extent_fd().get(), F_DUPFD_CLOEXEC, 3));
  const std::string token = engine->data().token();
  { const Engine ended = *std::move(engine); }
  ::usleep(300'000);  // the victim takes and gives back memory meanwhile
  Calls calls(target.control_socket, token);
  v1::SyncRequest sync;
  sync.add_needs()->set_uid(1);
  v1::SyncResponse synced;
  attempts.AddStatus("use the token of an ended session",
                     ToStatus(calls.Call(&v1::KvCache::Stub::Sync, sync, &synced)),
                     {absl::StatusCode::kUnauthenticated});
  const absl::StatusOr<std::string> marker = FromHex(target.marker);
  struct stat status {};
  if (::fstat(extent.get(), &status) != 0 || status.st_size == 0 || !marker.ok()) {
    return attempts.Add(what, Verdict::kRefused, "daemon: the file is empty");
  }
  // By read(), since a file that is cut short under a mapping is SIGBUS.
  std::vector<std::byte> bytes(static_cast<size_t>(status.st_size));
  const ssize_t got = ::pread(extent.get(), bytes.data(), bytes.size(), 0);
  const bool found = got > 0 && Contains(bytes.data(), static_cast<uint64_t>(got), *marker);
  attempts.Add(what, found ? Verdict::kSucceeded : Verdict::kRefused,
               found ? "rows of the other tenant are there"
                     : fmt::format("daemon: never handed on; bytes={}", got));
}

}  // namespace

void AttackSegments(const Target& target, Attempts& attempts) {
  // The way that is tried below works where it may: on a file of one's own.
  const UniqueFd own(::memfd_create("own", MFD_CLOEXEC));
  const UniqueFd again(::open(fmt::format("/proc/self/fd/{}", own.get()).c_str(), O_RDWR));
  if (!again) {
    attempts.Add("segments", Verdict::kNotTried, "this process cannot reopen files of its own");
    return;
  }
  absl::StatusOr<Engine> engine = Engine::Start(target.control_socket, target.data_socket, 1);
  if (!engine.ok()) {
    return attempts.Add("segments", Verdict::kNotTried, MessageOf(engine.status()));
  }
  AttackReadOnly("the daemon's segment", engine->data().d_fd().get(),
                 engine->data().header().segment_bytes, attempts);
  // Its rows are its own, but not their file's size.
  const int extent = engine->extent_fd().get();
  attempts.AddCall("cut short: an extent of recent rows", ::ftruncate(extent, 0) != 0,
                   {EPERM, EINVAL});
  attempts.AddCall("grow: an extent of recent rows",
                   ::ftruncate(extent, static_cast<off_t>(uint64_t{1} << 40)) != 0, {EPERM});
  attempts.AddCall("add seals to: an extent of recent rows",
                   ::fcntl(extent, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) != 0, {EPERM});
  AttackKeptExtent(*engine, attempts);
  AttackAfterTheEnd(target, attempts);
}

}  // namespace kvasir::attack
