// The modes --compare and --recommend of kvasir-generate.
#ifndef KVASIR_ENGINE_COMPARE_PROGRAM_H_
#define KVASIR_ENGINE_COMPARE_PROGRAM_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "engine/compare_results.h"
#include "engine/gguf_model.h"
#include "engine/make_kv_store.h"
#include "engine/tokenizer.h"

namespace kvasir::engine {

struct CompareText {
  std::string name;
  std::vector<uint32_t> ids;
};

struct CompareOptions {
  std::vector<std::string> retentions;  // empty: DefaultRetentions()
  uint32_t batch = 16;
  std::string json_path;                     // "": no file
  std::string plot_path;                     // "": no plot
  std::string resume_path;                   // "": nothing is remembered
  std::map<std::string, std::string> goals;  // by retention, for the JSON
  uint64_t bytes_at = 0;  // --compare: measure bytes of so many tokens too; 0: no
  double bytes = 0.25;    // --recommend: share of the bytes of full retention that may be held
  KvStoreOptions store;
  EngineOptions engine;
};

// Compares options.retentions on `texts`; a table goes to standard output, progress to standard
// error. Returns the summaries, full retention first. Errors: those of the parts.
absl::StatusOr<std::vector<RetentionSummary>> RunCompare(const GgufModel& model,
                                                         const Tokenizer& tokenizer,
                                                         const CompareOptions& options,
                                                         const std::vector<CompareText>& texts);

// Searches a grid of retentions, encodings and bits for the least KL within options.bytes over all
// texts, by successive halving: all that fit on a quarter of the tokens, the better half on half of
// them, the best four on all, with windows in proportion. Prints the winner, for texts of this
// length, as a piece of configuration with the evidence as comments. Errors: those of the parts;
// kInvalidArgument for texts of fewer than 4 * kCompareTokensMin tokens; kNotFound where nothing
// fits.
absl::Status RunRecommend(const GgufModel& model, const Tokenizer& tokenizer,
                          const CompareOptions& options, const std::vector<CompareText>& texts);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_COMPARE_PROGRAM_H_
