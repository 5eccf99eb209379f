// Addresses of servers as the configuration says them: "host:port" or "unix:/path", with commas
// between. Pure; thread-safe.
#ifndef KVASIR_DAEMON_SERVER_ADDRESSES_H_
#define KVASIR_DAEMON_SERVER_ADDRESSES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

namespace kvasir {

struct ServerAddress {
  std::string unix_path;  // absolute; or empty, and then:
  std::string host;
  uint16_t port = 0;
};

// Of "" none. Errors: kInvalidArgument with the part that is neither.
absl::StatusOr<std::vector<ServerAddress>> ParseServerAddresses(std::string_view text);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SERVER_ADDRESSES_H_
