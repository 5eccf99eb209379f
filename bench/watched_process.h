// A process seen from outside: what /proc says of it.
#ifndef KVASIR_BENCH_WATCHED_PROCESS_H_
#define KVASIR_BENCH_WATCHED_PROCESS_H_

#include <sys/types.h>

#include <fstream>
#include <string>

#include "base/bytes.h"

#include <dirent.h>
#include <fmt/format.h>
#include <time.h>

namespace kvasir::bench {

// Immutable. What cannot be read is 0.
class WatchedProcess {
 public:
  explicit WatchedProcess(pid_t pid) : pid_(pid), proc_(fmt::format("/proc/{}/", pid)) {}

  // Memory that is no other's: without segments and extents.
  double PrivateBytes() const {
    std::ifstream status(proc_ + "status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("RssAnon:")) return std::stod(line.substr(8)) * kKiB;
    }
    return 0;
  }
  double Descriptors() const {
    DIR* const folder = ::opendir((proc_ + "fd").c_str());
    if (folder == nullptr) return 0;
    int count = -2;  // . and ..
    while (::readdir(folder) != nullptr) ++count;
    ::closedir(folder);
    return count;
  }
  // By the scheduler's books: /proc has it in ticks, too coarse for who is nearly idle.
  double ProcessorSeconds() const {
    clockid_t clock = 0;
    timespec time{};
    if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &time) != 0) return 0;
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }

 private:
  const pid_t pid_;
  const std::string proc_;
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_WATCHED_PROCESS_H_
