#include "engine/compare_program.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/gnuplot.h"
#include "base/status_macros.h"
#include "engine/compare_grid.h"
#include "engine/compare_plot.h"
#include "engine/compare_results.h"
#include "engine/program_io.h"

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

  // Bytes of sequences of so many tokens, those of the text over and over, into the summaries.
  absl::Status MeasureAt(uint64_t tokens, std::span<const uint32_t> ids,
                         std::vector<RetentionSummary>& summaries) {
    std::vector<uint32_t> text(tokens);
    for (uint64_t row = 0; row < tokens; ++row) text[row] = ids[row % ids.size()];
    MeanBytes full;
    for (RetentionSummary& summary : summaries) {
      KVASIR_ASSIGN_OR_RETURN(const MeanBytes bytes, comparison_->Measure(text, summary.retention));
      if (&summary == &summaries.front()) full = bytes;
      summary.at_length = {tokens, bytes.held / full.held, bytes.needed / full.needed};
    }
    return absl::OkStatus();
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

  // What results of a text depend on, beside the retention.
  std::string KeyOf(std::span<const uint32_t> ids) const {
    const KvasirStoreOptions& store = options_.store.kvasir;
    return fmt::format("model={:016x} tokens={} ids={:016x} batch={} slots={} kv_type={} f32={}",
                       XXH3_64bits(model_digest_.data(), model_digest_.size()), ids.size(),
                       XXH3_64bits(ids.data(), ids.size_bytes()), options_.batch,
                       store.slots_per_block, static_cast<int>(store.kv_type),
                       store.expanded_weights);
  }

  // What a result of the retention depends on: `text` and the canonical spec, which is asked for
  // only where there is a file to remember it in.
  absl::StatusOr<std::string> KeyOf(const std::string& text, const std::string& retention) {
    if (options_.resume_path.empty()) return text;
    std::string& canonical = canonical_[retention];
    if (canonical.empty()) {
      KVASIR_ASSIGN_OR_RETURN(canonical, comparison_->Canonical(retention));
    }
    return text + " retention=" + canonical;
  }

  absl::Status CompareOn(const std::string& name, std::span<const uint32_t> ids,
                         const std::vector<std::string>& retentions,
                         std::vector<std::vector<TextResult>>& results) {
    const std::string text = KeyOf(ids);
    KVASIR_ASSIGN_OR_RETURN(const std::string full, KeyOf(text, "full"));
    std::vector<std::string> keys, missing;
    for (const std::string& retention : retentions) {
      KVASIR_ASSIGN_OR_RETURN(std::string key, KeyOf(text, retention));
      if (resume_->Find(key, retention) == nullptr) missing.push_back(retention);
      keys.push_back(std::move(key));
    }
    // Few at once: each is a session of the daemon and lies in its memory. Full retention, which
    // the others are compared with, is computed beside each group.
    for (size_t at = 0; at < missing.size() || resume_->Find(full, "full") == nullptr;
         at += kSequencesAtOnce) {
      const auto some =
          std::span(missing).subspan(at, std::min(kSequencesAtOnce, missing.size() - at));
      ProgressLine progress(fmt::format("{}: retentions {} to {} of {}", name, at + 1,
                                        at + some.size(), missing.size()));
      KVASIR_ASSIGN_OR_RETURN(const std::vector<TextResult> found,
                              comparison_->Run(ids, some, std::ref(progress)));
      for (const TextResult& result : found) {
        KVASIR_ASSIGN_OR_RETURN(const std::string key, KeyOf(text, result.retention));
        KVASIR_RETURN_IF_ERROR(resume_->Add(key, result));
      }
    }
    results[0].push_back(*resume_->Find(full, "full"));
    for (size_t i = 0; i < retentions.size(); ++i) {
      results[i + 1].push_back(*resume_->Find(keys[i], retentions[i]));
    }
    return absl::OkStatus();
  }

  const CompareOptions& options_;
  std::unique_ptr<LlamaEngine> engine_;
  std::unique_ptr<ResumeFile> resume_;
  std::map<std::string, std::string> canonical_;  // by retention as asked for
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

// Which of the grid hold no more than allowed over all texts, as indices; those that hold less than
// half of it are left out, as others will be better.
absl::StatusOr<std::vector<size_t>> Affordable(Comparer& comparer, double bytes,
                                               const std::vector<CompareText>& texts) {
  const auto held = [&](const std::string& retention) -> absl::StatusOr<double> {
    double sum = 0;
    for (const CompareText& text : texts) {
      KVASIR_ASSIGN_OR_RETURN(const MeanBytes one,
                              comparer.comparison().Measure(text.ids, retention));
      sum += one.held;
    }
    return sum;
  };
  KVASIR_ASSIGN_OR_RETURN(const double full, held("full"));
  const std::vector<std::string> grid = RetentionGrid(MostTokens(texts));
  std::vector<size_t> fitting;
  for (size_t i = 0; i < grid.size(); ++i) {
    KVASIR_ASSIGN_OR_RETURN(const double one, held(grid[i]));
    const double share = one / full;
    if (share <= bytes && share >= bytes / 2) fitting.push_back(i);
  }
  fmt::print(stderr, "{} of {} retentions hold at most {:.1f}% and at least half of that\n",
             fitting.size(), grid.size(), 100 * bytes);
  return fitting;
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
  if (options.bytes_at != 0) {
    KVASIR_RETURN_IF_ERROR(comparer->MeasureAt(options.bytes_at, texts.front().ids, summaries));
  }
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
  const size_t tokens = MostTokens(texts);
  KVASIR_ASSIGN_OR_RETURN(std::vector<size_t> left, Affordable(*comparer, options.bytes, texts));
  std::vector<RetentionSummary> summaries;
  std::string winner;
  for (size_t part = kFirstPart; part >= 1 && !left.empty(); part /= 2) {
    // Of the round's length: on a text that is shorter than a window, the window loses nothing.
    const std::vector<std::string> grid = RetentionGrid(tokens / part);
    std::vector<std::string> retentions;
    for (const size_t i : left) retentions.push_back(grid[i]);
    KVASIR_ASSIGN_OR_RETURN(summaries, comparer->Compare(retentions, texts, tokens / part));
    // Of short texts the unencoded rows are a larger share: only the last round counts bytes.
    const std::vector<size_t> best =
        BestWithin(std::span(summaries).subspan(1),
                   part == 1 ? options.bytes : std::numeric_limits<double>::infinity());
    const size_t keep = part == kFirstPart ? (left.size() + 1) / 2 : kFinalists;
    std::vector<size_t> kept;
    for (const size_t i : std::span(best).first(std::min(keep, best.size()))) {
      kept.push_back(left[i]);
    }
    left = std::move(kept);
    if (part == 1 && !best.empty()) winner = retentions[best.front()];
  }
  if (left.empty()) {
    return NotFound("no retention of the grid holds as little: bytes={:.3f} tokens={}",
                    options.bytes, tokens);
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
  fmt::print("{}[retention]\ndefault = \"{}\"\n", evidence, winner);
  std::fflush(stdout);
  return WriteOutputs(options, summaries);
}

}  // namespace kvasir::engine
