#include "client/attack/attempts.h"

#include <errno.h>

#include <algorithm>
#include <sstream>

#include "base/error.h"

#include <fmt/format.h>
#include <string.h>

namespace kvasir::attack {
namespace {

constexpr size_t kByBytesMax = 200;

std::string CodeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

// One line, no tabs: they part the fields.
std::string Plain(std::string text) {
  for (char& c : text) {
    if (c == '\t' || c == '\n') c = ' ';
  }
  if (text.size() > kByBytesMax) text.resize(kByBytesMax);
  return text;
}

}  // namespace

const char* NameOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kRefused:
      return "refused";
    case Verdict::kNotTried:
      return "not tried";
    case Verdict::kStrange:
      return "STRANGE";
    case Verdict::kSucceeded:
      break;
  }
  return "SUCCEEDED";
}

void Attempts::Add(const std::string& what, Verdict verdict, const std::string& by) {
  const auto found = std::find_if(list_.begin(), list_.end(),
                                  [&](const Attempt& attempt) { return attempt.what == what; });
  if (found == list_.end()) {
    list_.push_back({what, verdict, by});
  } else if (verdict > found->verdict || found->verdict == Verdict::kNotTried) {
    *found = {what, verdict, by};
  }
}

void Attempts::AddCall(const std::string& what, bool failed, std::initializer_list<int> wanted) {
  const int error = errno;
  if (!failed) return Add(what, Verdict::kSucceeded, "the system call succeeded");
  const bool known = std::find(wanted.begin(), wanted.end(), error) != wanted.end();
  const char* const name = ::strerrorname_np(error);
  Add(what, known ? Verdict::kRefused : Verdict::kStrange,
      fmt::format("kernel: {}", name != nullptr ? name : std::to_string(error)));
}

void Attempts::AddStatus(const std::string& what, const absl::Status& status,
                         std::initializer_list<absl::StatusCode> wanted) {
  if (status.ok()) return Add(what, Verdict::kSucceeded, "the daemon answered OK");
  const bool known = std::find(wanted.begin(), wanted.end(), status.code()) != wanted.end();
  Add(what, known ? Verdict::kRefused : Verdict::kStrange,
      fmt::format("daemon: {}: {}", CodeName(status.code()), MessageOf(status)));
}

bool Attempts::AllRefused() const {
  return std::all_of(list_.begin(), list_.end(),
                     [](const Attempt& attempt) { return attempt.verdict < Verdict::kStrange; });
}

std::string Attempts::ToText() const {
  std::string text;
  for (const Attempt& attempt : list_) {
    text += fmt::format("{}\t{}\t{}\n", static_cast<int>(attempt.verdict), Plain(attempt.what),
                        Plain(attempt.by));
  }
  return text;
}

Attempts Attempts::FromText(const std::string& text) {
  Attempts attempts;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find('\t');
    const size_t second = first == std::string::npos ? first : line.find('\t', first + 1);
    if (first != 1 || second == std::string::npos || line[0] < '0' || line[0] > '3') {
      attempts.Add("report of the attacker", Verdict::kStrange, line);
      continue;
    }
    attempts.Add(line.substr(2, second - 2), static_cast<Verdict>(line[0] - '0'),
                 line.substr(second + 1));
  }
  return attempts;
}

}  // namespace kvasir::attack
