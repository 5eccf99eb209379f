// Checks of a configuration that look at more than one key, and the list that findings are
// collected in.
#ifndef KVASIR_DAEMON_CONFIG_CHECKS_H_
#define KVASIR_DAEMON_CONFIG_CHECKS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>

#include "daemon/config.h"

namespace kvasir {

// What is wrong with a file, by line. Not thread-safe.
class ConfigFindings {
 public:
  explicit ConfigFindings(std::string file_name) : file_name_(std::move(file_name)) {}

  void Add(uint32_t line, std::string text) { found_.push_back({line, std::move(text)}); }
  bool empty() const { return found_.empty(); }
  size_t size() const { return found_.size(); }

  // kInvalidArgument with one `file:line: text` for each finding, in the order of the file, at most
  // kConfigErrorsMax and then how many more there are.
  absl::Status ToStatus() const;

 private:
  struct Finding {
    uint32_t line = 0;
    std::string text;
  };
  std::string file_name_;
  std::vector<Finding> found_;
};

// The line of every key that the file sets, by its full name: "memory.lock", "tenant[0].uids".
using ConfigLines = std::map<std::string, uint32_t>;

// A numeric address and a port, as in "127.0.0.1:9464" and "[::1]:9464".
struct ListenAddress {
  std::string host;
  uint16_t port = 0;
  bool loopback = false;
};
// Empty when `text` is anything else; host names are not resolved.
std::optional<ListenAddress> ParseListenAddress(std::string_view text);

// Adds what does not fit together, e.g. a uid of two tenants. REQUIRES: each value of `config` is
// within its own bounds.
void CheckConfig(const Config& config, const ConfigLines& lines, ConfigFindings* findings);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONFIG_CHECKS_H_
