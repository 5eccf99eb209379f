#include "daemon/server_addresses.h"

#include <system_error>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

std::string_view Trimmed(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

absl::StatusOr<ServerAddress> Parse(std::string_view text) {
  ServerAddress address;
  constexpr std::string_view kUnix = "unix:";
  if (text.starts_with(kUnix)) {
    address.unix_path = text.substr(kUnix.size());
    if (address.unix_path.starts_with('/')) return address;
    return InvalidArgument("the path of a server is not absolute: given=\"{}\"", text);
  }
  const size_t colon = text.rfind(':');
  const std::string_view port = colon == text.npos ? "" : text.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (colon == text.npos || colon == 0 || error != std::errc() ||
      end != port.data() + port.size() || address.port == 0) {
    return InvalidArgument("neither host:port nor unix:/path: given=\"{}\"", text);
  }
  address.host = text.substr(0, colon);
  return address;
}

}  // namespace

absl::StatusOr<std::vector<ServerAddress>> ParseServerAddresses(std::string_view text) {
  std::vector<ServerAddress> addresses;
  if (text.empty()) return addresses;
  for (;;) {
    const size_t comma = text.find(',');
    KVASIR_ASSIGN_OR_RETURN(ServerAddress address, Parse(Trimmed(text.substr(0, comma))));
    addresses.push_back(std::move(address));
    if (comma == text.npos) return addresses;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace kvasir
