// LearnedFiles: what the tenants' eviction policies have learned outlives the daemon.
//
// A file for each tenant, named by a digest of the tenant's name, is read at start and replaced as
// a whole from time to time and at the end. What a file says is a policy's statistics: nothing of
// prompts, and no keys. One that does not match (another policy or version, damage, anything else)
// is dropped with a line in the log, and the policy begins untaught. A file that cannot be written
// is a line in the log.
//
// Thread-safe. One thread of its own, which writes without the core's lock and holds it once for a
// tenant, for the copy of 131 KB.
#ifndef KVASIR_DAEMON_LEARNED_FILES_H_
#define KVASIR_DAEMON_LEARNED_FILES_H_

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <absl/status/statusor.h>

#include "base/mutex.h"
#include "daemon/shared_core.h"

namespace kvasir {

class LearnedFiles {
 public:
  struct Options {
    std::string folder;                // absolute; made where only its last part is missing
    std::vector<std::string> tenants;  // of the core
    std::chrono::milliseconds interval = std::chrono::minutes(10);
  };

  // Reads what is there and begins to save. `shared` must outlive it. Errors: kInvalidArgument
  // naming prefix.state_dir, where it is no folder that can be written to.
  static absl::StatusOr<std::unique_ptr<LearnedFiles>> Open(Options options, SharedCore& shared);
  // Saves a last time.
  ~LearnedFiles();
  LearnedFiles(const LearnedFiles&) = delete;
  LearnedFiles& operator=(const LearnedFiles&) = delete;

  // Where the state of this tenant lies.
  static std::string PathOf(const std::string& folder, const std::string& tenant);

 private:
  LearnedFiles(Options options, SharedCore& shared)
      : options_(std::move(options)), shared_(shared) {}

  void Restore(const std::string& tenant);
  void Save(const std::string& tenant);
  void Loop();

  const Options options_;
  SharedCore& shared_;
  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_LEARNED_FILES_H_
