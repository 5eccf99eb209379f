#include "bench/isolation_use.h"

#include <system_error>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace kvasir::bench {

std::map<std::string, Used> UsedBy(pid_t pid) {
  std::map<std::string, Used> used;
  std::error_code error;
  for (const auto& thread :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), error)) {
    Used& one = used[thread.path().filename()];
    std::ifstream(thread.path() / "schedstat") >> one.ns;
    std::ifstream status(thread.path() / "status");
    constexpr std::string_view kWaits = "voluntary_ctxt_switches:";
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with(kWaits)) one.waits = std::stod(line.substr(kWaits.size()));
    }
  }
  return used;
}

std::vector<ThreadUse> UseOf(const std::vector<std::map<std::string, Used>>& looks) {
  std::vector<ThreadUse> use;
  for (const auto& [thread, used] : looks.back()) {
    Used was;
    ThreadUse one;
    for (size_t i = 0; i < looks.size(); ++i) {
      const auto now = looks[i].find(thread);
      const Used is = now == looks[i].end() ? was : now->second;
      const double busy_s = 1e-9 * (is.ns - was.ns);
      if (i > 0) one.bins.push_back({busy_s, busy_s / std::max(1.0, is.waits - was.waits)});
      was = is;
    }
    use.push_back(std::move(one));
  }
  return use;
}

}  // namespace kvasir::bench
