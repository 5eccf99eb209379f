// What a comparison found, over texts: summaries, the table, the JSON file, and the file from
// which a run resumes.
//
// Files are replaced as a whole or appended a line at a time. Thread-compatible.
#ifndef KVASIR_ENGINE_COMPARE_RESULTS_H_
#define KVASIR_ENGINE_COMPARE_RESULTS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "engine/comparison.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine {

// One retention over all texts: means over texts.
struct RetentionSummary {
  std::string retention;
  double perplexity_ratio = 1;  // exp of the mean difference in nats
  double ratio_error = 0;       // standard error of that difference, nats
  double kl = 0;
  double top1 = 1;
  double held_ratio = 1;     // bytes held / bytes that full retention holds
  double formula_ratio = 1;  // bytes needed by formula / those of full retention
  double ms_per_token = 0;

  // Shares of another length, where one was asked for.
  struct AtLength {
    uint64_t tokens = 0;
    double held_ratio = 1;
    double formula_ratio = 1;
  };
  std::optional<AtLength> at_length;
};

// `results`: of one retention, one for each text. REQUIRES: not empty.
RetentionSummary Summarise(std::span<const TextResult> results);

// Indices of the summaries that hold no more than `bytes` of what full retention holds, the least
// KL first, the earlier of equals.
std::vector<size_t> BestWithin(std::span<const RetentionSummary> summaries, double bytes);

// All summaries have at_length, of one length, or none has.
std::string SummaryTable(std::span<const RetentionSummary> summaries);

// {"schema": 1, "rows": [{"name", "value" (KL), "unit", "reference", "ratio", "better", "goal",
// "held_ratio", ...}]}, as all benchmarks write theirs. goals: by retention, may lack any.
nlohmann::ordered_json SummaryJson(std::span<const RetentionSummary> summaries,
                                   const std::map<std::string, std::string>& goals);

// The folders in which `path` will lie. Errors: kUnavailable.
absl::Status MakeFolderOf(const std::string& path);

// Makes the folders of `path`, then as ReplaceFile(). Errors: of both.
absl::Status WriteWhole(const std::string& path, const std::string& text);

// Results of finished texts in a file of JSON lines, so that a run that was cut off goes on.
class ResumeFile {
 public:
  // `path` may not exist yet; "": nothing is remembered. Lines that are torn or of another kind are
  // ignored. Errors: kUnavailable for its folder, ErrnoStatus() where it cannot be added to.
  static absl::StatusOr<ResumeFile> Open(const std::string& path);

  // text: names a text and all that a result depends on beside the retention.
  const TextResult* Find(const std::string& text, const std::string& retention) const;
  // Appends and syncs. Errors: kUnavailable.
  absl::Status Add(const std::string& text, const TextResult& result);

 private:
  std::string path_;
  std::map<std::pair<std::string, std::string>, TextResult> results_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_COMPARE_RESULTS_H_
