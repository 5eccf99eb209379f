// Target: whom an attacker attacks, and what it has been told of it.
#ifndef KVASIR_CLIENT_ATTACK_TARGET_H_
#define KVASIR_CLIENT_ATTACK_TARGET_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include <absl/status/statusor.h>

namespace kvasir::attack {

// What the victim has, told to its attacker: real names, of which none may be of use.
struct Target {
  std::string control_socket, data_socket;
  std::string tenant;                       // the victim's
  std::string token;                        // of one of its sessions, hex
  std::string snapshot;                     // 16 bytes, as hex
  std::string lease;                        // likewise; "": it has none
  std::string marker;                       // 16 bytes that its rows are full of, as hex
  uint64_t sequence_id = 0;                 // as the Admin service names it
  uint32_t sequence = 0, sequence_uid = 0;  // as its session names it
  pid_t victim_pid = 0, daemon_pid = 0;

  // Lines `name=value`. Errors: kInvalidArgument naming the line.
  std::string ToText() const;
  static absl::StatusOr<Target> FromText(const std::string& text);
};

// Errors: kInvalidArgument.
absl::StatusOr<std::string> FromHex(const std::string& hex);
std::string ToHex(const std::string& bytes);

}  // namespace kvasir::attack

#endif  // KVASIR_CLIENT_ATTACK_TARGET_H_
