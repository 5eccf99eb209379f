// Static (training-free) SepLLM: which keys a query sees, with all that the authors' masks do to
// padded prompts. StayPolicy carries the same rule out without them.
//
//   key j is visible to query i  iff  j <= i and (j is initial, or a separator, or i - j < window)
// The window counts the query itself. Rows below prefill_len may have another window and may hide
// padding keys; later rows hide none, as the authors' generation code does. With window 0 the
// authors' code is degenerate, and so is this: nothing near is visible in prefill, everything is
// later.
//
// Thread-compatible value. Source: SepLLM (arXiv 2412.12094), section 3.
#ifndef KVASIR_POLICIES_SEP_STATIC_H_
#define KVASIR_POLICIES_SEP_STATIC_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "policies/retention_policy.h"
#include "policies/separator_set.h"
#include "policies/stay_rules.h"

namespace kvasir {

struct SepStaticConfig {
  uint64_t init = 4;              // a: initial rows
  uint64_t window = 256;          // n for rows >= prefill_len
  uint64_t prefill_window = 256;  // n for rows below
  uint64_t prefill_len = 0;       // rows of the prompt
  std::optional<TokenId> pad_id;
  bool adaptive_init =
      false;  // initial rows start after as many rows as the prompt has padding ids
  bool prefill_hides_padding = false;
  SeparatorSet separators;
};

class SepStaticRule {
 public:
  // `prompt` is looked at for adaptive_init only: the first prefill_len ids of the row.
  SepStaticRule(SepStaticConfig config, std::span<const TokenId> prompt);

  // Visible to every later query, however far away. O(log separators).
  bool Stays(uint64_t row, TokenId id) const { return rule_->Stays(row, id); }

  // Window of a query.
  uint64_t WindowOf(uint64_t query) const {
    return query < config_.prefill_len ? config_.prefill_window : config_.window;
  }

  bool Sees(uint64_t query, uint64_t key, TokenId key_id) const;

  // All rows that the query sees, ascending. REQUIRES: ids.size() > query. O(query).
  std::vector<uint64_t> Visible(uint64_t query, std::span<const TokenId> ids) const;

  const SepStaticConfig& config() const { return config_; }

 private:
  SepStaticConfig config_;
  std::shared_ptr<const StayRule> rule_;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SEP_STATIC_H_
