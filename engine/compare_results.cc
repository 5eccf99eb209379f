#include "engine/compare_results.h"

#include <errno.h>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/posix.h"
#include "base/small_file.h"
#include "base/status_macros.h"
#include "engine/compare_score.h"

#include <fmt/format.h>

namespace kvasir::engine {
namespace {

constexpr int kSchema = 1;

nlohmann::json ToJson(const std::string& text, const TextResult& result) {
  return {{"text", text},
          {"retention", result.retention},
          {"nll", result.nll},
          {"nll_above_base", result.nll_above_base},
          {"mean_nll_above_base", result.mean_nll_above_base},
          {"kl", result.kl},
          {"top1", result.top1},
          {"held", result.bytes.held},
          {"needed", result.bytes.needed},
          {"base_held", result.base_bytes.held},
          {"base_needed", result.base_bytes.needed},
          {"ms_per_token", result.ms_per_token}};
}

// Nothing for a line that is not a whole result.
std::optional<std::pair<std::string, TextResult>> FromJson(const std::string& line) {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  TextResult result;
  for (const auto& [name, field] : {std::pair{"nll", &result.nll},
                                    {"mean_nll_above_base", &result.mean_nll_above_base},
                                    {"kl", &result.kl},
                                    {"top1", &result.top1},
                                    {"held", &result.bytes.held},
                                    {"needed", &result.bytes.needed},
                                    {"base_held", &result.base_bytes.held},
                                    {"base_needed", &result.base_bytes.needed},
                                    {"ms_per_token", &result.ms_per_token}}) {
    if (!json.contains(name) || !json[name].is_number()) return std::nullopt;
    *field = json[name].get<double>();
  }
  if (!json.contains("text") || !json["text"].is_string() || !json.contains("retention") ||
      !json["retention"].is_string() || !json.contains("nll_above_base") ||
      !json["nll_above_base"].is_array()) {
    return std::nullopt;
  }
  for (const nlohmann::json& block : json["nll_above_base"]) {
    if (!block.is_number()) return std::nullopt;
    result.nll_above_base.push_back(block.get<double>());
  }
  result.retention = json["retention"].get<std::string>();
  return std::pair(json["text"].get<std::string>(), std::move(result));
}

}  // namespace

RetentionSummary Summarise(std::span<const TextResult> results) {
  RetentionSummary out;
  out.retention = results.front().retention;
  const auto texts = static_cast<double>(results.size());
  double above = 0, variance = 0, held = 0, base_held = 0, needed = 0, base_needed = 0;
  out.kl = out.top1 = 0;
  for (const TextResult& result : results) {
    above += result.mean_nll_above_base / texts;
    const double error = StandardError(result.nll_above_base);
    variance += error * error / texts / texts;
    out.kl += result.kl / texts;
    out.top1 += result.top1 / texts;
    out.ms_per_token += result.ms_per_token / texts;
    held += result.bytes.held;
    base_held += result.base_bytes.held;
    needed += result.bytes.needed;
    base_needed += result.base_bytes.needed;
  }
  out.perplexity_ratio = std::exp(above);
  out.ratio_error = std::sqrt(variance);
  out.held_ratio = held / base_held;
  out.formula_ratio = needed / base_needed;
  return out;
}

std::vector<size_t> BestWithin(std::span<const RetentionSummary> summaries, double bytes) {
  std::vector<size_t> best;
  for (size_t i = 0; i < summaries.size(); ++i) {
    if (summaries[i].held_ratio <= bytes) best.push_back(i);
  }
  std::stable_sort(best.begin(), best.end(),
                   [&](size_t a, size_t b) { return summaries[a].kl < summaries[b].kl; });
  return best;
}

std::string SummaryTable(std::span<const RetentionSummary> summaries) {
  std::string text = fmt::format("{:>6} {:>8}  {:>16} {:>8} {:>6}  {:>8}  {}\n", "held", "formula",
                                 "perplexity ratio", "KL", "top-1", "ms/token", "retention");
  for (const RetentionSummary& row : summaries) {
    text +=
        fmt::format("{:>5.1f}% {:>7.1f}%  {:>7.4f} +-{:>6.4f} {:>8.4f} {:>5.1f}%  {:>8.2f}  {}\n",
                    100 * row.held_ratio, 100 * row.formula_ratio, row.perplexity_ratio,
                    row.ratio_error, row.kl, 100 * row.top1, row.ms_per_token, row.retention);
  }
  if (summaries.empty() || !summaries.front().at_length) return text;
  text += fmt::format("\nbytes of {} tokens\n{:>6} {:>8}  {}\n",
                      summaries.front().at_length->tokens, "held", "formula", "retention");
  for (const RetentionSummary& row : summaries) {
    text += fmt::format("{:>5.1f}% {:>7.1f}%  {}\n", 100 * row.at_length->held_ratio,
                        100 * row.at_length->formula_ratio, row.retention);
  }
  return text;
}

nlohmann::ordered_json SummaryJson(std::span<const RetentionSummary> summaries,
                                   const std::map<std::string, std::string>& goals) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const RetentionSummary& row : summaries) {
    const auto goal = goals.find(row.retention);
    rows.push_back({{"name", row.retention},
                    {"value", row.kl},
                    {"unit", "nats"},
                    {"reference", nullptr},
                    {"ratio", nullptr},
                    {"better", "lower"},
                    {"goal", goal == goals.end() ? "" : goal->second},
                    {"held_ratio", row.held_ratio},
                    {"formula_ratio", row.formula_ratio},
                    {"perplexity_ratio", row.perplexity_ratio},
                    {"perplexity_ratio_error", row.ratio_error},
                    {"kl", row.kl},
                    {"top1", row.top1},
                    {"ms_per_token", row.ms_per_token}});
    if (!row.at_length) continue;
    rows.back()["at_length"] = {{"tokens", row.at_length->tokens},
                                {"held_ratio", row.at_length->held_ratio},
                                {"formula_ratio", row.at_length->formula_ratio}};
  }
  return {{"schema", kSchema}, {"rows", rows}};
}

absl::Status MakeFolderOf(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) return Unavailable("cannot make a folder: path={} reason={}", path, error.message());
  return absl::OkStatus();
}

absl::Status WriteWhole(const std::string& path, const std::string& text) {
  KVASIR_RETURN_IF_ERROR(MakeFolderOf(path));
  return ReplaceFile(path, text, 0644);
}

absl::StatusOr<ResumeFile> ResumeFile::Open(const std::string& path) {
  ResumeFile resume;
  resume.path_ = path;
  if (path.empty()) return resume;
  KVASIR_RETURN_IF_ERROR(MakeFolderOf(path));
  // Made at once: a file that cannot be added to is better known before the work.
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!fd) return ErrnoStatus(errno, "open of the resume file path=" + path);
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (auto known = FromJson(line)) {
      std::pair key(known->first, known->second.retention);
      resume.results_.insert_or_assign(std::move(key), std::move(known->second));
    }
  }
  return resume;
}

const TextResult* ResumeFile::Find(const std::string& text, const std::string& retention) const {
  const auto found = results_.find({text, retention});
  return found == results_.end() ? nullptr : &found->second;
}

absl::Status ResumeFile::Add(const std::string& text, const TextResult& result) {
  results_.insert_or_assign({text, result.retention}, result);
  if (path_.empty()) return absl::OkStatus();
  // The line begins with a break, so that one that was torn before spoils only itself.
  const std::string line = "\n" + ToJson(text, result).dump() + "\n";
  const UniqueFd fd(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  const bool written =
      fd && ::write(fd.get(), line.data(), line.size()) == static_cast<ssize_t>(line.size()) &&
      ::fdatasync(fd.get()) == 0;
  if (!written) return ErrnoStatus(errno, "write of the resume file path=" + path_);
  return absl::OkStatus();
}

}  // namespace kvasir::engine
