// InfLLM as a retention policy: initial rows and a window stay in view; what lies between is sealed
// into blocks that a lookup brings back.
//
// One lane for all layers. kept: the n_init first rows; recent: the remainder and the window. Block
// b is sealed when row n_init + (b + 1) * block_size + n_local is due: block_size rows lie behind
// the window then. Each table ends at the next sealing, so that the mass of the block's rows is
// complete. Keys are not rotated; rows outside the window are seen at one distance, n_local - 1.
// The lookup and the slots of blocks are the daemon's (policies/retrieval has the rules).
//
// Truncation is not possible below rows(): the mass that the truncated queries gave is summed.
// Thread-compatible. Cost: O(1), O(n_init) at the first sealing. Source: arXiv 2402.04617.
#ifndef KVASIR_POLICIES_INFLLM_H_
#define KVASIR_POLICIES_INFLLM_H_

#include <memory>
#include <optional>
#include <span>

#include "policies/policy_definition.h"
#include "policies/retention_policy.h"
#include "policies/retrieval/infllm_config.h"

namespace kvasir {

class InfLlmPolicy final : public RetentionPolicy {
 public:
  // REQUIRES: CheckInfLlmConfig() is OK.
  explicit InfLlmPolicy(const InfLlmConfig& config) : config_(config) {}

  uint64_t rows() const override { return rows_; }
  void Append(std::span<const TokenId> ids) override { rows_ += ids.size(); }
  std::optional<RetentionPlan> NextPlan(const PlanHorizon& horizon) override;
  uint64_t RollbackFloor() const override { return rows_; }
  absl::Status Truncate(uint64_t rows) override;
  ScoreNeeds Needs() const override;
  std::optional<RetentionPlan> LastTable() const override;
  std::unique_ptr<RetentionPolicy> Clone() const override {
    return std::make_unique<InfLlmPolicy>(*this);
  }

 private:
  // First row whose query may see block `block` only where a lookup finds it.
  uint64_t SealRow(uint64_t block) const {
    return config_.n_init + (block + 1) * config_.block_size + config_.n_local;
  }

  InfLlmConfig config_;
  uint64_t rows_ = 0;
  uint64_t sealed_ = 0;  // blocks
  bool started_ = false;
};

PolicyDefinition InfLlmDefinition();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_INFLLM_H_
