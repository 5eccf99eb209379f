#include "allocator/tier/segment_files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <system_error>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/small_file.h"
#include "base/status_macros.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSegmentPrefix = "segment-";
constexpr uint64_t kFormatBytesMax = 4 * kKiB;
constexpr uint64_t kIndexRoomBytes = 16 * kMiB;  // beside new segments: it can begin to grow
constexpr uint64_t kStatBlockBytes = 512;        // of st_blocks, whatever the file system's are

std::string FormatText(const SegmentOptions& options) {
  return fmt::format(
      "kvasir disk tier\nversion={}\nfingerprint={:016x}\nunit_bytes={}\nsegment_bytes={}\n",
      SegmentFiles::kFormatVersion, options.fingerprint, options.unit_bytes, options.segment_bytes);
}

std::string SegmentName(uint32_t segment) {
  return fmt::format("{}{:06}", kSegmentPrefix, segment);
}

// Six digits after the prefix: nothing else is taken for ours.
bool IsSegmentName(std::string_view name) {
  if (!name.starts_with(kSegmentPrefix) || name.size() != kSegmentPrefix.size() + 6) return false;
  name.remove_prefix(kSegmentPrefix.size());
  return std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

absl::Status FromFileSystem(const std::error_code& error, const std::string& call) {
  return error ? ErrnoStatus(error.value(), call) : absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> NamesIn(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (fs::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  KVASIR_RETURN_IF_ERROR(FromFileSystem(error, fmt::format("list of {}", path)));
  return names;
}

}  // namespace

absl::Status SegmentFiles::Lock() {
  const std::string name = path_ + "/lock";
  lock_ = UniqueFd(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock_) return ErrnoStatus(errno, fmt::format("open of {}", name));
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
  if (errno != EWOULDBLOCK) return ErrnoStatus(errno, fmt::format("flock of {}", name));
  return AlreadyExists("another process uses the folder: path={}", path_);
}

absl::Status SegmentFiles::RemoveIndex() const {
  std::error_code error;
  fs::remove_all(index_path(), error);
  return FromFileSystem(error, fmt::format("removal of {}", index_path()));
}

absl::Status SegmentFiles::Empty() const {
  KVASIR_RETURN_IF_ERROR(RemoveIndex());
  KVASIR_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(path_));
  for (const std::string& name : names) {
    if (name != "format" && !IsSegmentName(name)) continue;
    const std::string file = path_ + "/" + name;
    if (::unlink(file.c_str()) != 0) return ErrnoStatus(errno, fmt::format("unlink of {}", file));
  }
  return absl::OkStatus();
}

absl::Status SegmentFiles::CheckRoom(const SegmentOptions& options) const {
  struct statvfs found = {};
  if (::statvfs(path_.c_str(), &found) != 0) {
    return ErrnoStatus(errno, fmt::format("statvfs of {}", path_));
  }
  const uint64_t free = uint64_t{found.f_bavail} * found.f_frsize;
  // What segments take now is used again or given back.
  uint64_t room = free - std::min(free, kIndexRoomBytes);
  KVASIR_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(path_));
  for (const std::string& name : names) {
    struct stat file = {};
    if (IsSegmentName(name) && ::lstat((path_ + "/" + name).c_str(), &file) == 0) {
      room += static_cast<uint64_t>(file.st_blocks) * kStatBlockBytes;
    }
  }
  const uint64_t wanted = uint64_t{options.segments} * options.segment_bytes;
  if (wanted <= room) return absl::OkStatus();
  return ResourceExhausted(
      "the file system has no room for the segments: path={} capacity_bytes={} max={}", path_,
      wanted, RoundDown(room, options.segment_bytes));
}

absl::Status SegmentFiles::CheckFormat(const SegmentOptions& options) {
  const std::string name = path_ + "/format";
  const std::string wanted = FormatText(options);
  const absl::StatusOr<std::string> found = ReadSmallFile(name, kFormatBytesMax);
  if (found.ok() && *found == wanted) return absl::OkStatus();
  KVASIR_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(path_));
  for (const std::string& other : names) {
    // What ReplaceFile() left when it was killed is ours too.
    if (other == "lock" || other == "format" || other == "format.unfinished" || other == "index" ||
        IsSegmentName(other)) {
      continue;
    }
    return FailedPrecondition("folder holds a file that is not the tier's: path={} name={}", path_,
                              other);
  }
  if (names.size() > 1) {
    spdlog::warn("disk tier is of another format and is emptied: path={} found={}", path_,
                 found.ok() ? "another format" : MessageOf(found.status()));
  }
  KVASIR_RETURN_IF_ERROR(Empty());
  return ReplaceFile(name, wanted, 0600);
}

absl::StatusOr<UniqueFd> SegmentFiles::OpenSegment(const std::string& name, uint64_t bytes) {
  const std::string file = path_ + "/" + name;
  const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  UniqueFd fd(::open(file.c_str(), flags | (direct_ ? O_DIRECT : 0), 0600));
  if (!fd && errno == EINVAL && direct_) {
    spdlog::warn("file system has no O_DIRECT; the disk tier goes through the page cache: path={}",
                 path_);
    direct_ = false;
    fd = UniqueFd(::open(file.c_str(), flags, 0600));
  }
  if (!fd) return ErrnoStatus(errno, fmt::format("open of {}", file));
  struct stat found = {};
  if (::fstat(fd.get(), &found) != 0) return ErrnoStatus(errno, fmt::format("fstat of {}", file));
  if (!S_ISREG(found.st_mode)) {
    return FailedPrecondition("segment is no regular file: path={}", file);
  }
  if (static_cast<uint64_t>(found.st_size) > bytes &&
      ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, fmt::format("ftruncate of {}", file));
  }
  if (::fallocate(fd.get(), 0, 0, static_cast<off_t>(bytes)) == 0) return fd;
  const int error = errno;
  if (error == EOPNOTSUPP && ::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0) {
    return fd;  // no reservation on this file system: a full disk shows at a write
  }
  return ErrnoStatus(error, fmt::format("reservation of {} bytes for {}", bytes, file));
}

absl::Status SegmentFiles::RemoveBeyond(uint32_t segments) const {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(path_));
  for (const std::string& name : names) {
    if (!IsSegmentName(name) || name < SegmentName(segments)) continue;
    const std::string file = path_ + "/" + name;
    if (::unlink(file.c_str()) != 0) return ErrnoStatus(errno, fmt::format("unlink of {}", file));
  }
  return absl::OkStatus();
}

absl::Status SegmentFiles::OpenSegments(const SegmentOptions& options) {
  std::vector<std::string> made;
  for (uint32_t i = 0; i < options.segments; ++i) {
    const std::string name = SegmentName(i);
    if (::access((path_ + "/" + name).c_str(), F_OK) != 0) made.push_back(name);
    absl::StatusOr<UniqueFd> fd = OpenSegment(name, options.segment_bytes);
    if (!fd.ok()) {
      // Room that nobody uses would be taken from whoever else is on a full disk.
      for (const std::string& each : made) (void)::unlink((path_ + "/" + each).c_str());
      return fd.status();
    }
    fds_.push_back(fd->get());
    files_.push_back(*std::move(fd));
  }
  return absl::OkStatus();
}

absl::StatusOr<SegmentFiles> SegmentFiles::Open(const SegmentOptions& options) {
  if (options.path.empty() || options.path.front() != '/') {
    return InvalidArgument("path is not absolute: path={}", options.path);
  }
  SegmentFiles files;
  files.path_ = options.path;
  if (::mkdir(options.path.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, fmt::format("mkdir of {}", options.path));
  }
  KVASIR_RETURN_IF_ERROR(files.Lock());
  KVASIR_RETURN_IF_ERROR(files.CheckRoom(options));
  KVASIR_RETURN_IF_ERROR(files.CheckFormat(options));
  KVASIR_RETURN_IF_ERROR(files.RemoveBeyond(options.segments));
  KVASIR_RETURN_IF_ERROR(files.OpenSegments(options));
  return files;
}

}  // namespace kvasir
