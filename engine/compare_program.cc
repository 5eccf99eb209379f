#include "engine/compare_program.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/compare_grid.h"
#include "engine/compare_plot.h"
#include "engine/compare_results.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace kvasir::engine {
namespace {

constexpr size_t kFinalists = 4;
constexpr size_t kFirstPart = 4;  // the first round sees a quarter of the tokens
constexpr size_t kSequencesAtOnce = 16;

// Everything that a comparison needs beside the texts.
class Comparer {
 public:
  static absl::StatusOr<std::unique_ptr<Comparer>> Create(const GgufModel& model,
                                                          const Tokenizer& tokenizer,
                                                          const CompareOptions& options) {
    std::unique_ptr<Comparer> comparer(new Comparer(options));
    KVASIR_ASSIGN_OR_RETURN(comparer->engine_, LlamaEngine::Create(model, options.engine));
    KVASIR_ASSIGN_OR_RETURN(ResumeFile resume, ResumeFile::Open(options.resume_path));
    comparer->resume_ = std::make_unique<ResumeFile>(std::move(resume));
    KVASIR_ASSIGN_OR_RETURN(comparer->model_digest_, DigestFile(model.path()));
    const auto maker =
        [&model, &tokenizer,
         &options](const std::string& retention) -> absl::StatusOr<std::unique_ptr<KvStore>> {
      KvStoreOptions store = options.store;
      store.kvasir.retention = retention;
      return MakeKvStore(model, tokenizer, store);
    };
    comparer->comparison_ = std::make_unique<Comparison>(*comparer->engine_, maker, options.batch);
    return comparer;
  }

  // Summaries of full retention and `retentions` over the first `tokens` tokens of each text.
  absl::StatusOr<std::vector<RetentionSummary>> Compare(const std::vector<std::string>& retentions,
                                                        const std::vector<CompareText>& texts,
                                                        size_t tokens) {
    std::vector<std::vector<TextResult>> results(retentions.size() + 1);
    for (const CompareText& text : texts) {
      const std::span ids = std::span(text.ids).first(std::min(tokens, text.ids.size()));
      KVASIR_RETURN_IF_ERROR(CompareOn(text.name, ids, retentions, results));
    }
    std::vector<RetentionSummary> summaries;
    for (const std::vector<TextResult>& of_one : results) summaries.push_back(Summarise(of_one));
    return summaries;
  }

  Comparison& comparison() { return *comparison_; }

 private:
  explicit Comparer(const CompareOptions& options) : options_(options) {}

  // What a result depends on, beside the retention.
  std::string KeyOf(std::span<const uint32_t> ids) const {
    const KvasirStoreOptions& store = options_.store.kvasir;
    return fmt::format("model={:016x} tokens={} ids={:016x} batch={} slots={} kv_type={} f32={}",
                       XXH3_64bits(model_digest_.data(), model_digest_.size()), ids.size(),
                       XXH3_64bits(ids.data(), ids.size_bytes()), options_.batch,
                       store.slots_per_block, static_cast<int>(store.kv_type),
                       store.expanded_weights);
  }

  absl::Status CompareOn(const std::string& name, std::span<const uint32_t> ids,
                         const std::vector<std::string>& retentions,
                         std::vector<std::vector<TextResult>>& results) {
    const std::string key = KeyOf(ids);
    std::vector<std::string> missing;
    for (const std::string& retention : retentions) {
      if (resume_->Find(key, retention) == nullptr) missing.push_back(retention);
    }
    // Few at once: each is a session of the daemon and lies in its memory. Full retention, which
    // the others are compared with, is computed beside each group.
    for (size_t at = 0; at < missing.size() || resume_->Find(key, "full") == nullptr;
         at += kSequencesAtOnce) {
      const auto some =
          std::span(missing).subspan(at, std::min(kSequencesAtOnce, missing.size() - at));
      uint64_t tenth = 0;
      const bool terminal = ::isatty(STDERR_FILENO) == 1;
      const auto progress = [&](uint64_t done, uint64_t total) {
        if (done * 10 / total == tenth && !terminal) return;
        tenth = done * 10 / total;
        fmt::print(stderr, "{}{}: retentions {} to {} of {}, {}/{} tokens{}", terminal ? "\r" : "",
                   name, at + 1, at + some.size(), missing.size(), done, total,
                   terminal && done < total ? "" : "\n");
        std::fflush(stderr);
      };
      KVASIR_ASSIGN_OR_RETURN(const std::vector<TextResult> found,
                              comparison_->Run(ids, some, progress));
      for (const TextResult& result : found) KVASIR_RETURN_IF_ERROR(resume_->Add(key, result));
    }
    results[0].push_back(*resume_->Find(key, "full"));
    for (size_t i = 0; i < retentions.size(); ++i) {
      results[i + 1].push_back(*resume_->Find(key, retentions[i]));
    }
    return absl::OkStatus();
  }

  const CompareOptions& options_;
  std::unique_ptr<LlamaEngine> engine_;
  std::unique_ptr<ResumeFile> resume_;
  std::string model_digest_;
  std::unique_ptr<Comparison> comparison_;
};

// What would fail after the work, before it. min_tokens: of each text.
absl::Status CheckBefore(const CompareOptions& options, const std::vector<CompareText>& texts,
                         size_t min_tokens) {
  if (texts.empty()) return InvalidArgument("nothing to compare on: texts={}", texts.size());
  for (const CompareText& text : texts) {
    if (text.ids.size() >= min_tokens) continue;
    return InvalidArgument("text is too short to compare on: text={} tokens={} min={}", text.name,
                           text.ids.size(), min_tokens);
  }
  if (!options.json_path.empty()) KVASIR_RETURN_IF_ERROR(MakeFolderOf(options.json_path));
  return options.plot_path.empty() ? absl::OkStatus() : CheckPlot(options.plot_path);
}

size_t MostTokens(const std::vector<CompareText>& texts) {
  size_t most = 0;
  for (const CompareText& text : texts) most = std::max(most, text.ids.size());
  return most;
}

absl::Status WriteOutputs(const CompareOptions& options,
                          const std::vector<RetentionSummary>& summaries) {
  if (!options.json_path.empty()) {
    KVASIR_RETURN_IF_ERROR(
        WriteWhole(options.json_path, SummaryJson(summaries, options.goals).dump(2) + "\n"));
  }
  return options.plot_path.empty() ? absl::OkStatus() : Plot(summaries, options.plot_path);
}

// The retentions of the grid that hold no more than allowed, by what they hold on a text of this
// length; those that hold less than half of it are left out, as others will be better.
absl::StatusOr<std::vector<std::string>> Affordable(Comparer& comparer,
                                                    const CompareOptions& options,
                                                    const CompareText& text) {
  KVASIR_ASSIGN_OR_RETURN(const TextResult full, comparer.comparison().Measure(text.ids, "full"));
  std::vector<std::string> fitting;
  for (const std::string& retention : RetentionGrid(text.ids.size())) {
    KVASIR_ASSIGN_OR_RETURN(const TextResult one,
                            comparer.comparison().Measure(text.ids, retention));
    const double share = one.held / full.held;
    if (share <= options.bytes && share >= options.bytes / 2) fitting.push_back(retention);
  }
  fmt::print(stderr, "{} of {} retentions hold at most {:.1f}% and at least half of that\n",
             fitting.size(), RetentionGrid(text.ids.size()).size(), 100 * options.bytes);
  return fitting;
}

// The `count` of least KL, the best first.
std::vector<std::string> Best(std::vector<RetentionSummary> summaries, size_t count) {
  summaries.erase(summaries.begin());  // full retention
  std::stable_sort(
      summaries.begin(), summaries.end(),
      [](const RetentionSummary& a, const RetentionSummary& b) { return a.kl < b.kl; });
  std::vector<std::string> names;
  for (const RetentionSummary& row : summaries) names.push_back(row.retention);
  names.resize(std::min(names.size(), std::max<size_t>(count, 1)));
  return names;
}

}  // namespace

absl::StatusOr<std::vector<RetentionSummary>> RunCompare(const GgufModel& model,
                                                         const Tokenizer& tokenizer,
                                                         const CompareOptions& options,
                                                         const std::vector<CompareText>& texts) {
  KVASIR_RETURN_IF_ERROR(CheckBefore(options, texts, kCompareTokensMin));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Comparer> comparer,
                          Comparer::Create(model, tokenizer, options));
  const std::vector<std::string> retentions =
      options.retentions.empty() ? DefaultRetentions() : options.retentions;
  KVASIR_ASSIGN_OR_RETURN(std::vector<RetentionSummary> summaries,
                          comparer->Compare(retentions, texts, MostTokens(texts)));
  fmt::print("{}", SummaryTable(summaries));
  std::fflush(stdout);
  KVASIR_RETURN_IF_ERROR(WriteOutputs(options, summaries));
  return summaries;
}

absl::Status RunRecommend(const GgufModel& model, const Tokenizer& tokenizer,
                          const CompareOptions& options, const std::vector<CompareText>& texts) {
  KVASIR_RETURN_IF_ERROR(CheckBefore(options, texts, kFirstPart * kCompareTokensMin));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Comparer> comparer,
                          Comparer::Create(model, tokenizer, options));
  KVASIR_ASSIGN_OR_RETURN(std::vector<std::string> left,
                          Affordable(*comparer, options, texts.front()));
  if (left.empty()) {
    return NotFound("no retention of the grid holds as little: bytes={:.3f} tokens={}",
                    options.bytes, texts.front().ids.size());
  }
  const size_t tokens = MostTokens(texts);
  std::vector<RetentionSummary> summaries;
  for (const size_t divisor : {4U, 2U, 1U}) {
    KVASIR_ASSIGN_OR_RETURN(summaries, comparer->Compare(left, texts, tokens / divisor));
    const size_t keep = divisor == 4 ? (left.size() + 1) / 2 : kFinalists;
    left = Best(summaries, divisor == 1 ? 1 : keep);
  }
  std::string evidence = fmt::format(
      "# Least KL to full retention within {:.1f}% of its bytes, on {} text(s) of {} tokens.\n",
      100 * options.bytes, texts.size(), tokens);
  const std::string table = SummaryTable(summaries);
  for (size_t at = 0; at < table.size();) {
    const size_t end = table.find('\n', at);
    evidence += "# " + table.substr(at, end - at) + "\n";
    at = end + 1;
  }
  fmt::print("{}[retention]\ndefault = \"{}\"\n", evidence, left.front());
  std::fflush(stdout);
  return WriteOutputs(options, summaries);
}

}  // namespace kvasir::engine
