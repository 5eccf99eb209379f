// Streaming SepLLM as a retention policy: the machine of sep_stream.h, one row a step.
//
// Forms. kSepCache: rows below prompt_rows are the prefill chunk and are never compacted; the first
// later row that fills the cache compacts everything in one go, before its own attention. kManager:
// the row that makes the cache longer than cache_size compacts after its attention; the prompt is
// no exception. Plans are made ahead: a compaction needs only ids that leave the window, so its
// plan (from_row R) is returned up to lead_rows rows before R. Each table holds until the next
// compaction, no sooner.
//
// In-cache positions: recent rows stay rotated at their row number and initial rows at their own;
// the separator kept as the u-th one ever gets the virtual index u. Per table, one query offset for
// the initial rows and one for the separators make every (query position - rotated_at) the distance
// in the cache, and dropping old separators changes offsets only.
//
// Thread-compatible. Cost: Append O(ids), NextPlan O(1) amortised a row plus O(size of the edit).
// Source: SepLLM (arXiv 2412.12094), section 3; SepCache (transformers).
#ifndef KVASIR_POLICIES_SEP_STREAM_POLICY_H_
#define KVASIR_POLICIES_SEP_STREAM_POLICY_H_

#include <memory>
#include <optional>
#include <span>

#include "policies/plan_ledger.h"
#include "policies/policy_state.h"
#include "policies/retention_policy.h"
#include "policies/sep_stream.h"

namespace kvasir {

struct SepStreamPolicyConfig {
  // kSepCache or kManager, with 0 <= a, 1 <= s, 1 <= w and a + s + w < c. pad_id set: the padding
  // ids of the prompt are counted and as many more initial rows are kept (kSepCache only), as far
  // as a + s + w + offset < c allows: where the reference would refuse, a running sequence must go
  // on.
  SepStreamConfig stream;
  uint64_t prompt_rows = 0;
  bool in_cache = false;
};

class SepStreamPolicy final : public RetentionPolicy {
 public:
  explicit SepStreamPolicy(SepStreamPolicyConfig config);

  uint64_t rows() const override { return stream_.known(); }
  void Append(std::span<const TokenId> ids) override;
  std::optional<RetentionPlan> NextPlan(const PlanHorizon& horizon) override;
  uint64_t RollbackFloor() const override { return ledger_.Floor(rows()); }
  Encodable encodable() const override { return {EncodableRows::kKept, 0}; }
  std::optional<RetentionPlan> LastTable() const override;
  absl::Status WriteState(StateWriter& writer) const override;
  absl::Status ReadState(StateReader& reader, uint64_t rows) override;
  absl::Status Truncate(uint64_t rows) override;
  std::unique_ptr<RetentionPolicy> Clone() const override {
    return std::make_unique<SepStreamPolicy>(*this);
  }

 private:
  bool IsSepCache() const { return config_.stream.variant == SepStreamVariant::kSepCache; }
  // First query after the next compaction.
  uint64_t NextFromRow() const;
  // Of the last plan. REQUIRES: one was returned.
  uint64_t LastFromRow() const;
  int64_t PaddingOffset() const;
  int64_t PaddingOffsetMax() const;
  void Compact(uint64_t from_row);
  RetentionPlan Describe(size_t front_before);
  StateIdentity Identity() const;

  SepStreamPolicyConfig config_;
  SepStream stream_;  // runs ahead of rows(): seen() may exceed known()
  PlanLedger ledger_;
  bool returned_ = false;
  bool prefilled_ = false;
  uint64_t separators_ever_ = 0;  // kept so far, the dropped ones included
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_SEP_STREAM_POLICY_H_
