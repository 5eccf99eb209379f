// Full retention and StreamingLLM: what stays does not depend on the tokens.
//
// Thread-compatible. Cost: Append O(1), NextPlan O(1) (O(start_size) once).
// Source: StreamingLLM (arXiv 2309.17453), sections 3.1 and 3.2.
#ifndef KVASIR_POLICIES_WINDOW_POLICIES_H_
#define KVASIR_POLICIES_WINDOW_POLICIES_H_

#include <memory>
#include <optional>
#include <span>

#include "policies/plan_ledger.h"
#include "policies/policy_definition.h"
#include "policies/policy_state.h"
#include "policies/retention_policy.h"

namespace kvasir {

// Every row stays and is visible to every later query.
class FullPolicy final : public RetentionPolicy {
 public:
  uint64_t rows() const override { return rows_; }
  void Append(std::span<const TokenId> ids) override { rows_ += ids.size(); }
  std::optional<RetentionPlan> NextPlan(const PlanHorizon& horizon) override;
  uint64_t RollbackFloor() const override { return 0; }
  Encodable encodable() const override { return {EncodableRows::kWindow, kNoRow}; }
  std::optional<RetentionPlan> LastTable() const override;
  absl::Status WriteState(StateWriter& writer) const override;
  absl::Status ReadState(StateReader& reader, uint64_t rows) override;
  absl::Status Truncate(uint64_t rows) override;
  std::unique_ptr<RetentionPolicy> Clone() const override {
    return std::make_unique<FullPolicy>(*this);
  }

 private:
  uint64_t rows_ = 0;
  bool returned_ = false;
};

struct StreamingLlmConfig {
  uint64_t start_size = 4;     // initial rows ("attention sinks"), >= 0
  uint64_t recent_size = 512;  // last rows, the query's own included, >= 1
  bool in_cache = true;        // positions are indices in the cache
};

// The first start_size rows and the last recent_size ones are visible. The first table holds until
// row start_size + recent_size, where a row becomes invisible for the first time; the initial rows
// are kept from then on, and recent_first follows in whole blocks.
class StreamingLlmPolicy final : public RetentionPolicy {
 public:
  explicit StreamingLlmPolicy(StreamingLlmConfig config) : config_(config) {}

  uint64_t rows() const override { return rows_; }
  void Append(std::span<const TokenId> ids) override;
  std::optional<RetentionPlan> NextPlan(const PlanHorizon& horizon) override;
  uint64_t RollbackFloor() const override { return ledger_.Floor(rows_); }
  Encodable encodable() const override { return {EncodableRows::kWindow, config_.start_size}; }
  std::optional<RetentionPlan> LastTable() const override;
  absl::Status WriteState(StateWriter& writer) const override;
  absl::Status ReadState(StateReader& reader, uint64_t rows) override;
  absl::Status Truncate(uint64_t rows) override;
  std::unique_ptr<RetentionPolicy> Clone() const override {
    return std::make_unique<StreamingLlmPolicy>(*this);
  }

 private:
  enum class Phase : uint64_t { kStart, kAllVisible, kWindowed };

  // First row whose query does not see all rows.
  uint64_t FullRow() const { return config_.start_size + config_.recent_size; }
  RetentionPlan Windowed(uint64_t recent_first);
  StateIdentity Identity() const;

  StreamingLlmConfig config_;
  PlanLedger ledger_;
  Phase phase_ = Phase::kStart;
  uint64_t rows_ = 0;
  uint64_t recent_first_ = 0;
};

PolicyDefinition FullDefinition();
PolicyDefinition StreamingLlmDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_WINDOW_POLICIES_H_
