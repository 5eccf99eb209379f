// A policy beside a copy of itself, a clone or what its bytes were restored to: every call goes to
// both, and both must answer alike. Now and then the copy takes over and a new one is made of it,
// so that what is tested has been resumed many times.
#ifndef KVASIR_TESTS_POLICIES_SHADOWED_POLICY_H_
#define KVASIR_TESTS_POLICIES_SHADOWED_POLICY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "policies/retention_policy.h"

namespace kvasir::testing {

inline void ExpectSamePlan(const RetentionPlan& a, const RetentionPlan& b) {
  EXPECT_EQ(a.from_row, b.from_row);
  EXPECT_EQ(a.until_row, b.until_row);
  EXPECT_EQ(a.drop, b.drop);
  EXPECT_EQ(a.append, b.append);
  EXPECT_EQ(a.spans, b.spans);
  EXPECT_EQ(a.recent_first, b.recent_first);
  EXPECT_EQ(a.window, b.window);
  EXPECT_EQ(a.sticky, b.sticky);
  EXPECT_EQ(a.keep, b.keep);
  EXPECT_EQ(a.seal_first, b.seal_first);
  EXPECT_EQ(a.seal_last, b.seal_last);
  EXPECT_EQ(a.record_first, b.record_first);
  EXPECT_EQ(a.record_last, b.record_last);
  EXPECT_EQ(a.records_from, b.records_from);
  EXPECT_EQ(a.far_position, b.far_position);
}

using CopyPolicy = std::function<std::unique_ptr<RetentionPolicy>(const RetentionPolicy&)>;

inline std::unique_ptr<RetentionPolicy> ClonePolicy(const RetentionPolicy& policy) {
  return policy.Clone();
}

// A copy by way of bytes, restored into what `make` makes. Where the policy refuses to be saved for
// the moment, a clone.
inline CopyPolicy ByState(std::function<std::unique_ptr<RetentionPolicy>()> make) {
  return [make = std::move(make)](const RetentionPolicy& policy) {
    const absl::StatusOr<std::string> saved = policy.SaveState();
    if (absl::IsFailedPrecondition(saved.status())) return policy.Clone();
    EXPECT_TRUE(saved.ok()) << saved.status();
    std::unique_ptr<RetentionPolicy> copy = make();
    const absl::Status restored = copy->RestoreState(*saved, policy.rows());
    EXPECT_TRUE(restored.ok()) << restored;
    EXPECT_EQ(copy->SaveState().value(), *saved);
    return copy;
  };
}

class ShadowedPolicy final : public RetentionPolicy {
 public:
  ShadowedPolicy(std::unique_ptr<RetentionPolicy> policy, uint64_t seed,
                 CopyPolicy copy = ClonePolicy)
      : copy_(std::move(copy)),
        policy_(std::move(policy)),
        shadow_(copy_(*policy_)),
        random_(seed) {}

  uint64_t rows() const override { return policy_->rows(); }

  void Append(std::span<const TokenId> ids) override {
    policy_->Append(ids);
    shadow_->Append(ids);
    EXPECT_EQ(policy_->rows(), shadow_->rows());
    if (random_() % 3 == 0) TakeOver();
  }

  std::optional<RetentionPlan> NextPlan(const PlanHorizon& horizon) override {
    std::optional<RetentionPlan> plan = policy_->NextPlan(horizon);
    const std::optional<RetentionPlan> other = shadow_->NextPlan(horizon);
    EXPECT_EQ(plan.has_value(), other.has_value());
    if (plan && other) ExpectSamePlan(*plan, *other);
    if (random_() % 3 == 0) TakeOver();
    return plan;
  }

  uint64_t RollbackFloor() const override {
    EXPECT_EQ(policy_->RollbackFloor(), shadow_->RollbackFloor());
    return policy_->RollbackFloor();
  }

  ScoreNeeds Needs() const override { return policy_->Needs(); }

  std::shared_ptr<const Selector> Waiting() const override {
    EXPECT_EQ(policy_->Waiting() == nullptr, shadow_->Waiting() == nullptr);
    return policy_->Waiting();
  }

  uint64_t DecisionRow() const override {
    EXPECT_EQ(policy_->DecisionRow(), shadow_->DecisionRow());
    return policy_->DecisionRow();
  }

  void Decide(std::vector<KeepSet> keep) override {
    policy_->Decide(keep);
    shadow_->Decide(std::move(keep));
    if (random_() % 2 == 0) TakeOver();  // between the decision and its plan as well
  }

  absl::Status Truncate(uint64_t rows) override {
    const absl::Status status = policy_->Truncate(rows);
    EXPECT_EQ(status, shadow_->Truncate(rows));
    return status;
  }

  std::optional<RetentionPlan> LastTable() const override {
    const std::optional<RetentionPlan> table = policy_->LastTable();
    const std::optional<RetentionPlan> other = shadow_->LastTable();
    EXPECT_EQ(table.has_value(), other.has_value());
    if (table && other) ExpectSamePlan(*table, *other);
    return table;
  }

  std::unique_ptr<RetentionPolicy> Clone() const override { return policy_->Clone(); }

  uint64_t resumed() const { return resumed_; }

 private:
  void TakeOver() {
    policy_ = std::move(shadow_);
    shadow_ = copy_(*policy_);
    ++resumed_;
  }

  CopyPolicy copy_;
  std::unique_ptr<RetentionPolicy> policy_;
  std::unique_ptr<RetentionPolicy> shadow_;
  std::mt19937_64 random_;
  uint64_t resumed_ = 0;
};

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_POLICIES_SHADOWED_POLICY_H_
