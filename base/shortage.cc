#include "base/shortage.h"

#include <charconv>
#include <string_view>
#include <vector>

#include <absl/strings/cord.h>

#include "base/error.h"

namespace kvasir {
namespace {

constexpr char kPayload[] = "kvasir/shortage";

// Errors: nothing where it is no number.
std::optional<uint64_t> NumberIn(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

void AttachShortage(const Shortage& shortage, absl::Status* status) {
  const std::string text =
      fmt::format("{}\n{}\n{}\n{}", shortage.budget, shortage.missing, shortage.holder,
                  static_cast<uint64_t>(shortage.retry_after.count()));
  status->SetPayload(kPayload, absl::Cord(absl::string_view(text.data(), text.size())));
}

absl::Status WithShortage(const absl::Status& status, const Shortage& shortage) {
  absl::Status with =
      MakeError(status.code(), fmt::format("{} missing={} held_by=\"{}\" retry_after_ms={}",
                                           MessageOf(status), shortage.missing, shortage.holder,
                                           static_cast<uint64_t>(shortage.retry_after.count())));
  AttachShortage(shortage, &with);
  return with;
}

std::optional<Shortage> ShortageOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayload);
  if (!payload) return std::nullopt;
  const std::string text(*payload);
  std::vector<std::string_view> parts;
  std::string_view rest = text;
  for (size_t end = rest.find('\n'); end != rest.npos; end = rest.find('\n')) {
    parts.push_back(rest.substr(0, end));
    rest.remove_prefix(end + 1);
  }
  parts.push_back(rest);
  if (parts.size() != 4) return std::nullopt;
  const std::optional<uint64_t> missing = NumberIn(parts[1]), retry_ms = NumberIn(parts[3]);
  if (!missing || !retry_ms) return std::nullopt;
  return Shortage{std::string(parts[0]), *missing, std::string(parts[2]),
                  std::chrono::milliseconds(*retry_ms)};
}

}  // namespace kvasir
