#include "client/conformance/program.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/error.h"

namespace kvasir::conformance {
namespace {

enum class Verdict { kOk, kFailed, kNotOffered };

const char* NameOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kFailed:
      return "FAILED";
    case Verdict::kNotOffered:
      return "not offered";
  }
  return "";
}

void Print(const Check& check, Verdict verdict, const std::string& text, bool json,
           std::ostream& out) {
  const std::string guide = fmt::format("docs/engine_guide.md, \"{}\"", check.section);
  if (json) {
    out << nlohmann::ordered_json{{"check", check.name},
                                  {"verdict", NameOf(verdict)},
                                  {"title", check.title},
                                  {"text", text},
                                  {"guide", guide}}
               .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
        << std::endl;
    return;
  }
  out << fmt::format("{:<11} {:<10} {}: {}", NameOf(verdict), check.name, check.title, text);
  if (verdict == Verdict::kFailed) out << "; see " << guide;
  out << std::endl;
}

}  // namespace

void ListChecks(std::ostream& out) {
  for (const Check& check : AllChecks()) {
    out << fmt::format("{:<10} {} ({})\n", check.name, check.title, check.section);
  }
}

int RunProgram(const ProgramOptions& options, std::ostream& out, std::ostream& errors) {
  const std::set<std::string> only(options.only.begin(), options.only.end());
  for (const std::string& name : only) {
    const auto is_it = [&name](const Check& check) { return check.name == name; };
    if (std::none_of(AllChecks().begin(), AllChecks().end(), is_it)) {
      errors << "kvasir-conformance: no such check: name=" << name << '\n';
      return 2;
    }
  }
  int counts[3] = {};
  std::optional<EngineFacts> facts;
  for (const Check& check : AllChecks()) {
    if (!only.empty() && !only.contains(check.name)) continue;
    Stand stand(options.settings, facts);
    const absl::StatusOr<std::string> result = check.run(stand);
    const Verdict verdict = result.ok()                              ? Verdict::kOk
                            : absl::IsUnimplemented(result.status()) ? Verdict::kNotOffered
                                                                     : Verdict::kFailed;
    ++counts[static_cast<int>(verdict)];
    Print(check, verdict, result.ok() ? *result : MessageOf(result.status()), options.json, out);
  }
  if (!options.json) {
    out << fmt::format("{} ok, {} failed, {} not offered\n", counts[0], counts[1], counts[2]);
  }
  return counts[1] == 0 ? 0 : 1;
}

}  // namespace kvasir::conformance
