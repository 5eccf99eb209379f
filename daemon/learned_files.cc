#include "daemon/learned_files.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/small_file.h"

#include <fmt/format.h>
#include <sodium.h>

namespace kvasir {

std::string LearnedFiles::PathOf(const std::string& folder, const std::string& tenant) {
  std::array<uint8_t, 16> digest{};
  ::crypto_generichash(digest.data(), digest.size(),
                       reinterpret_cast<const uint8_t*>(tenant.data()), tenant.size(), nullptr, 0);
  std::string path = folder + "/";
  for (const uint8_t byte : digest) path += fmt::format("{:02x}", byte);
  return path + ".learned";
}

absl::StatusOr<std::unique_ptr<LearnedFiles>> LearnedFiles::Open(Options options,
                                                                 SharedCore& shared) {
  const std::string& folder = options.folder;
  struct stat info {};
  int error = ::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST ? 0 : errno;
  if (error == 0 && ::stat(folder.c_str(), &info) != 0) error = errno;
  if (error == 0 && !S_ISDIR(info.st_mode)) error = ENOTDIR;
  if (error == 0 && ::access(folder.c_str(), R_OK | W_OK | X_OK) != 0) error = errno;
  if (error != 0) {
    return InvalidArgument("no folder to keep state in: prefix.state_dir={} reason={}", folder,
                           std::strerror(error));
  }
  std::unique_ptr<LearnedFiles> files(new LearnedFiles(std::move(options), shared));
  for (const std::string& tenant : files->options_.tenants) files->Restore(tenant);
  files->thread_ = std::thread([raw = files.get()] { raw->Loop(); });
  return files;
}

LearnedFiles::~LearnedFiles() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  thread_.join();
  for (const std::string& tenant : options_.tenants) Save(tenant);
}

void LearnedFiles::Restore(const std::string& tenant) {
  const std::string path = PathOf(options_.folder, tenant);
  const absl::StatusOr<std::string> bytes = ReadSmallFile(path, core::kLearnedBytesMax);
  if (bytes.status().code() == absl::StatusCode::kNotFound) return;  // the tenant is new
  absl::Status status = bytes.status();
  if (status.ok()) {
    MutexLock lock(shared_.mutex);
    status = shared_.core.RestoreLearned(tenant, *bytes);
  }
  if (status.ok()) {
    spdlog::info("learned state is restored: tenant={} bytes={}", tenant, bytes->size());
  } else {
    spdlog::warn("learned state is dropped: tenant={} file={} reason={}", tenant, path,
                 MessageOf(status));
  }
}

void LearnedFiles::Save(const std::string& tenant) {
  std::string bytes;
  {
    MutexLock lock(shared_.mutex);
    bytes = shared_.core.SaveLearned(tenant);
  }
  const std::string path = PathOf(options_.folder, tenant);
  if (bytes.empty()) {
    (void)::unlink(path.c_str());  // of another policy
    return;
  }
  if (const absl::Status status = ReplaceFile(path, bytes, 0600); !status.ok()) {
    spdlog::warn("learned state is not saved: tenant={} reason={}", tenant, MessageOf(status));
  }
}

void LearnedFiles::Loop() {
  for (;;) {
    {
      MutexLock lock(mutex_);
      const Instant next = SystemClock().Now() + options_.interval;
      while (!stopping_ && SystemClock().Now() < next) (void)wake_.WaitUntil(mutex_, next);
      if (stopping_) return;
    }
    for (const std::string& tenant : options_.tenants) Save(tenant);
  }
}

}  // namespace kvasir
