#include "daemon/control/audit_log.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

constexpr size_t kValueBytesMax = 128;
constexpr size_t kArgumentsMax = 8;

bool IsPlain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("._:/@+-").find(c) != std::string_view::npos;
}

bool IsRefusal(const absl::Status& status) {
  return status.code() == absl::StatusCode::kPermissionDenied ||
         status.code() == absl::StatusCode::kUnauthenticated;
}

std::string LineOf(const AuditedCall& call, const absl::Status& result, bool refused,
                   uint64_t suppressed) {
  std::string line = fmt::format("audit {}={}", refused ? "refused" : "act", call.act);
  if (call.peer) {
    line += fmt::format(" uid={} pid={}", call.peer->uid, call.peer->pid);
  } else {
    line += " uid=- pid=-";
  }
  line += " tenant=" + AuditValue(call.tenant);
  for (size_t i = 0; i < std::min(call.arguments.size(), kArgumentsMax); ++i) {
    line += fmt::format(" {}={}", call.arguments[i].first, AuditValue(call.arguments[i].second));
  }
  line += " result=" + (result.ok() ? "ok" : absl::StatusCodeToString(result.code()));
  if (!result.ok()) line += " reason=" + AuditValue(MessageOf(result));
  if (suppressed > 0) line += fmt::format(" suppressed={}", suppressed);
  return line;
}

}  // namespace

std::string AuditValue(std::string_view text) {
  if (text.empty()) return "-";
  const bool cut = text.size() > kValueBytesMax;
  if (cut) text = text.substr(0, kValueBytesMax);
  // A lone "-" is what stands for nothing.
  if (!cut && text != "-" && std::all_of(text.begin(), text.end(), IsPlain)) {
    return std::string(text);
  }
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c >= 0x20 && c < 0x7F) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return out + (cut ? "...\"" : "\"");
}

AuditLog::AuditLog(Options options, const Clock& clock, Sink sink)
    : options_(options),
      clock_(clock),
      sink_(sink ? std::move(sink) : [](bool refused, const std::string& line) {
        spdlog::log(refused ? spdlog::level::warn : spdlog::level::info, "{}", line);
      }) {}

void AuditLog::Note(const AuditedCall& call, const absl::Status& result) {
  Write(call, result, IsRefusal(result));
}

void AuditLog::NoteRefusal(const AuditedCall& call, const absl::Status& why) {
  Write(call, why, /*refused=*/true);
}

bool AuditLog::Take(Spent& spent, uint32_t most, Instant now) const {
  if (now - spent.since >= options_.window) spent = {now, 0};
  if (spent.lines >= most) return false;
  ++spent.lines;
  return true;
}

AuditLog::OfUid& AuditLog::Remember(int64_t uid, Instant now) {
  if (uids_.size() >= options_.uids_max && !uids_.contains(uid)) {
    uids_.erase(std::min_element(uids_.begin(), uids_.end(), [](const auto& a, const auto& b) {
      return a.second.last < b.second.last;
    }));
  }
  OfUid& known = uids_[uid];
  known.last = now;
  return known;
}

void AuditLog::Write(const AuditedCall& call, const absl::Status& result, bool refused) {
  const Instant now = clock_.Now();
  MutexLock lock(mutex_);
  ++(refused ? counts_.refusals : counts_.acts);
  OfUid& uid = Remember(call.peer ? int64_t{call.peer->uid} : -1, now);
  const bool room = refused ? Take(uid.refusals, options_.refusals_per_uid, now) &&
                                  Take(all_refusals_, options_.refusals_max, now)
                            : Take(uid.acts, options_.acts_per_uid, now);
  if (!room) {
    ++counts_.suppressed;
    ++uid.suppressed;
    return;
  }
  sink_(refused, LineOf(call, result, refused, std::exchange(uid.suppressed, 0)));
}

AuditCounts AuditLog::counts() const {
  MutexLock lock(mutex_);
  return counts_;
}

}  // namespace kvasir
