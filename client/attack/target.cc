#include "client/attack/target.h"

#include <charconv>
#include <functional>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <sodium.h>

namespace kvasir::attack {
namespace {

template <typename Number>
absl::Status ReadNumber(const std::string& text, Number* number) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *number);
  if (error != std::errc() || stop != end) return InvalidArgument("no number: given={}", text);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> FromHex(const std::string& hex) {
  std::string bytes(hex.size() / 2, '\0');
  size_t count = 0;
  if (::sodium_hex2bin(reinterpret_cast<unsigned char*>(bytes.data()), bytes.size(), hex.data(),
                       hex.size(), nullptr, &count, nullptr) != 0 ||
      count != bytes.size()) {
    return InvalidArgument("no hex digits: given={}", hex);
  }
  return bytes;
}

std::string ToHex(const std::string& bytes) {
  std::string hex;
  for (const char byte : bytes) hex += fmt::format("{:02x}", static_cast<uint8_t>(byte));
  return hex;
}

std::string Target::ToText() const {
  return fmt::format(
      "control_socket={}\ndata_socket={}\ntenant={}\ntoken={}\nsnapshot={}\nlease={}\nmarker={}\n"
      "sequence_id={}\nsequence={}\nsequence_uid={}\nvictim_pid={}\ndaemon_pid={}\n",
      control_socket, data_socket, tenant, token, snapshot, lease, marker, sequence_id, sequence,
      sequence_uid, victim_pid, daemon_pid);
}

absl::StatusOr<Target> Target::FromText(const std::string& text) {
  Target target;
  const std::map<std::string, std::string*> texts = {{"control_socket", &target.control_socket},
                                                     {"data_socket", &target.data_socket},
                                                     {"tenant", &target.tenant},
                                                     {"token", &target.token},
                                                     {"snapshot", &target.snapshot},
                                                     {"lease", &target.lease},
                                                     {"marker", &target.marker}};
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find('=');
    const std::string name = line.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : line.substr(equals + 1);
    absl::Status status;
    if (const auto found = texts.find(name); found != texts.end()) {
      *found->second = value;
    } else if (name == "sequence_id") {
      status = ReadNumber(value, &target.sequence_id);
    } else if (name == "sequence") {
      status = ReadNumber(value, &target.sequence);
    } else if (name == "sequence_uid") {
      status = ReadNumber(value, &target.sequence_uid);
    } else if (name == "victim_pid") {
      status = ReadNumber(value, &target.victim_pid);
    } else if (name == "daemon_pid") {
      status = ReadNumber(value, &target.daemon_pid);
    } else {
      return InvalidArgument("unknown line about the target: line={}", line);
    }
    KVASIR_RETURN_IF_ERROR(status);
  }
  return target;
}

}  // namespace kvasir::attack
