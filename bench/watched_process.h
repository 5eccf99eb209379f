// A process seen from outside: what /proc says of it.
#ifndef KVASIR_BENCH_WATCHED_PROCESS_H_
#define KVASIR_BENCH_WATCHED_PROCESS_H_

#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/bytes.h"

#include <dirent.h>
#include <fmt/format.h>

namespace kvasir::bench {

// Immutable. What cannot be read is 0.
class WatchedProcess {
 public:
  explicit WatchedProcess(int pid) : proc_(fmt::format("/proc/{}/", pid)) {}

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
  double ProcessorSeconds() const {
    std::ifstream stat(proc_ + "stat");
    std::string text((std::istreambuf_iterator<char>(stat)), std::istreambuf_iterator<char>());
    text.erase(0, text.rfind(')') + 2);
    std::vector<std::string> fields(1);
    for (const char c : text) {
      if (c == ' ') {
        fields.emplace_back();
      } else {
        fields.back() += c;
      }
    }
    // utime and stime, the 14th and 15th field of all; the state, the third, is fields[0].
    return (std::stod(fields.at(11)) + std::stod(fields.at(12))) /
           static_cast<double>(::sysconf(_SC_CLK_TCK));
  }

 private:
  const std::string proc_;
};

}  // namespace kvasir::bench

#endif  // KVASIR_BENCH_WATCHED_PROCESS_H_
