#include "engine/suspended_text.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <absl/strings/escaping.h>

#include "base/error.h"
#include "base/small_file.h"
#include "base/status_macros.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kvasir::engine {
namespace {

using Json = nlohmann::json;

constexpr int kSchema = 1;
constexpr size_t kIdBytes = 16;
constexpr uint64_t kFileBytesMax = uint64_t{16} << 20;
constexpr uint64_t kRowsMax = uint64_t{1} << 32;
constexpr size_t kRetentionBytesMax = 4096;
constexpr size_t kPendingMax = 1;
constexpr size_t kMessagesMax = 1 << 16;
constexpr std::array<std::string_view, 3> kRoles{"system", "user", "assistant"};

// Fields of one object of the file. The first one that is wrong is remembered; the values after it
// mean nothing.
class Fields {
 public:
  Fields(const Json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

  std::string Text(const char* name, size_t max) {
    const Json* const value = Find(name);
    if (value == nullptr || !value->is_string()) return Wrong(name, "is no text"), "";
    std::string text = value->get<std::string>();
    if (text.size() > max) return Wrong(name, fmt::format("is too long: max_bytes={}", max)), "";
    return text;
  }
  uint64_t Number(const char* name, uint64_t min, uint64_t max) {
    const Json* const value = Find(name);
    if (value == nullptr || !value->is_number_unsigned() || value->get<uint64_t>() < min ||
        value->get<uint64_t>() > max) {
      return Wrong(name, fmt::format("is no number in bounds: min={} max={}", min, max)), 0;
    }
    return value->get<uint64_t>();
  }
  const Json& List(const char* name, size_t max) {
    const Json* const value = Find(name);
    if (value == nullptr || !value->is_array() || value->size() > max) {
      return Wrong(name, fmt::format("is no list in bounds: max={}", max)), empty_;
    }
    return *value;
  }
  void Wrong(const char* name, const std::string& how) {
    if (wrong_.empty()) wrong_ = fmt::format("{}{} {}", prefix_, name, how);
  }
  const std::string& wrong() const { return wrong_; }

 private:
  const Json* Find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() ? nullptr : &*found;
  }
  const Json& object_;
  const std::string prefix_;
  const Json empty_ = Json::array();
  std::string wrong_;
};

absl::Status Malformed(const std::string& path, const std::string& what) {
  return InvalidArgument("suspended text is malformed: {} path={}", what, path);
}

absl::StatusOr<std::string> IdOf(const std::string& hex) {
  std::string id;
  const bool digits = hex.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (hex.size() == 2 * kIdBytes && digits) id = absl::HexStringToBytes(hex);
  if (id.size() != kIdBytes) return InvalidArgument("snapshot_id is not 32 hex digits");
  return id;
}

// A message of a chat; nothing, and the reason, for anything else.
absl::StatusOr<ChatMessage> MessageOfChat(const Json& json, size_t index) {
  if (!json.is_object()) return InvalidArgument("messages[{}] is no object", index);
  Fields fields(json, fmt::format("messages[{}].", index));
  ChatMessage message{fields.Text("role", 16), fields.Text("text", kFileBytesMax)};
  if (fields.wrong().empty() &&
      std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
    fields.Wrong("role", "is none of system, user, assistant");
  }
  if (!fields.wrong().empty()) return InvalidArgument("{}", fields.wrong());
  return message;
}

}  // namespace

absl::StatusOr<SuspendedText> ReadSuspendedText(const std::string& path, uint32_t vocabulary) {
  KVASIR_ASSIGN_OR_RETURN(const std::string bytes, ReadSmallFile(path, kFileBytesMax));
  const Json json = Json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Malformed(path, "it is no JSON object");
  Fields fields(json, "");
  (void)fields.Number("schema", kSchema, kSchema);
  SuspendedText text;
  const std::string hex = fields.Text("snapshot_id", 2 * kIdBytes);
  text.rows = fields.Number("rows", 1, kRowsMax);
  text.retention = fields.Text("retention", kRetentionBytesMax);
  text.done = fields.Text("done", kFileBytesMax);
  for (const Json& id : fields.List("pending", kPendingMax)) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocabulary) {
      fields.Wrong("pending", fmt::format("has no token id: max={}", vocabulary - 1));
      break;
    }
    text.pending.push_back(id.get<uint32_t>());
  }
  const Json& messages = fields.List("messages", kMessagesMax);
  if (!fields.wrong().empty()) return Malformed(path, fields.wrong());
  absl::StatusOr<std::string> id = IdOf(hex);
  if (!id.ok()) return Malformed(path, MessageOf(id.status()));
  text.snapshot_id = *std::move(id);
  for (size_t i = 0; i < messages.size(); ++i) {
    absl::StatusOr<ChatMessage> message = MessageOfChat(messages[i], i);
    if (!message.ok()) return Malformed(path, MessageOf(message.status()));
    text.messages.push_back(*std::move(message));
  }
  return text;
}

absl::Status WriteSuspendedText(const SuspendedText& text, const std::string& path) {
  Json messages = Json::array();
  for (const ChatMessage& message : text.messages) {
    messages.push_back({{"role", message.role}, {"text", message.text}});
  }
  const Json json{
      {"schema", kSchema},       {"snapshot_id", absl::BytesToHexString(text.snapshot_id)},
      {"rows", text.rows},       {"retention", text.retention},
      {"pending", text.pending}, {"messages", std::move(messages)},
      {"done", text.done}};
  // A model may have generated bytes that are no UTF-8.
  const std::string bytes = json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
  return ReplaceFile(path, bytes, 0600);
}

}  // namespace kvasir::engine
