// What one retention policy, or one rule, says about itself, and what a policy spec becomes.
//
// A policy lies in one file pair that exports a PolicyDefinition; policy_registry.cc has one line
// for it. Plain values; thread-safe once made.
#ifndef KVASIR_POLICIES_POLICY_DEFINITION_H_
#define KVASIR_POLICIES_POLICY_DEFINITION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "kernels/encoding/record.h"
#include "policies/retention_policy.h"
#include "policies/retrieval/infllm_config.h"
#include "policies/stay_rule.h"

namespace kvasir {

class ParameterReader;

struct PolicyParameterInfo {
  std::string name;  // the paper's
  std::string type;  // "integer", "real", "list", "boolean", "choice"
  std::string default_value;
  std::string bounds;
  std::string description;
  bool per_layer = false;  // takes a list with one entry a layer
};

struct PolicyInfo {
  std::string name;
  std::string summary;
  std::string source;  // paper
  std::vector<PolicyParameterInfo> parameters;
  std::string needs;  // what the engine must provide beyond rows and table reading
  // What is kept is a function of the tokens alone, so it may be shared under a prefix hash. Not so
  // where queries decide: the result is right for those queries only.
  bool shareable = false;
  bool accepts_rules = false;  // rules may stand before it: "sinks:size=4|NAME:..."
};

// What a spec is resolved against.
struct PolicyContext {
  uint32_t layers = 1;              // >= 1
  std::vector<TokenId> separators;  // the model's; empty: it names none
  uint64_t prompt_rows = 0;         // rows of the prefill, for policies that tell it apart
  std::optional<TokenId> pad_id;    // set only where prompts are padded (SepCache's offset)
  std::string dtype;                // e.g. "f16": also accepted as the encoding "as written"
  // Digest of the model's profile, 8 hexadecimal digits; "": it has none; nothing: not known.
  std::optional<std::string> profile = "";
};

enum class PositionMode {
  kOriginal,   // keys are stored rotated at the row number
  kInCache,    // positions are indices in the cache
  kUnrotated,  // keys are stored as before rotation; the engine rotates at each read, at the row
};

// Selection of prompt tokens, before anything is kept: the engine runs layers up to filter_layer,
// then prefills again with the chosen tokens alone. Source: GemFilter (arXiv 2409.17422).
struct GemFilterSpec {
  uint32_t filter_layer = 0;  // from 0, below the number of layers
  uint64_t topk = 1024;       // tokens chosen, those of n_sink and n_tail among them
  uint32_t kernel = 5;        // average pool over scores; odd
  uint64_t n_sink = 0;        // first and last tokens that are always chosen
  uint64_t n_tail = 0;
  friend bool operator==(const GemFilterSpec&, const GemFilterSpec&) = default;
};

// How rows lie in records; see encoding_spec.h.
struct EncodingSpec {
  kernels::Codec k = kernels::Codec::kAsWritten;
  kernels::Codec v = kernels::Codec::kAsWritten;
  uint32_t rows = 64;    // of a record: 32 or 64
  uint64_t n_sink = 4;   // first rows, which are never in a record; windows have their own
  uint64_t recent = 32;  // rows that a row is older than before it is encoded
  uint32_t k_bits = 0;   // token-mixed: code bits of an element, in 1/64 bit
  uint32_t v_bits = 0;
  bool profile = true;  // token-mixed: by the model's query weights and rates, where it has any
  // 2 or 3: V of kept rows is coded row by row (kernels/encoding/row_code.h), and there are no
  // records; 0: as the codecs say.
  uint32_t v_row_bits = 0;
  friend bool operator==(const EncodingSpec&, const EncodingSpec&) = default;
};

// A lane is the layers with equal settings: they share one policy.
struct PolicyLanes {
  std::vector<std::unique_ptr<RetentionPolicy>> lanes;
  std::vector<uint32_t> lane_of_layer;  // index into lanes, one entry a layer
  std::string spec;                     // in full, with every default; resolves to the same lanes
  PositionMode positions = PositionMode::kOriginal;
  std::optional<GemFilterSpec> selection;  // of the prompt's tokens, by the engine
  std::optional<InfLlmConfig> retrieval;   // of sealed blocks, while a step is computed
  std::optional<EncodingSpec> encoding;    // of records; none: rows stay as written
  bool shareable = false;                  // PolicyInfo::shareable
  bool by_prompt = false;                  // other prompt_rows make other decisions
};

struct PolicyDefinition {
  PolicyInfo info;
  // Called with parameters that `info` names and with rules only where it accepts them.
  absl::StatusOr<PolicyLanes> (*make)(ParameterReader& reader) = nullptr;
};

// A rule: rows that always stay, in front of a policy. `info.needs` and `source` may be empty.
struct RuleDefinition {
  PolicyInfo info;
  absl::StatusOr<std::shared_ptr<const StayRule>> (*make)(ParameterReader& reader) = nullptr;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_POLICY_DEFINITION_H_
