// Any policy that loses rows through the end of its window alone, with that window's older rows in
// records.
//
// What is visible stays what the inner policy says; only how rows are stored changes. Rows from
// n_sink on become records, record_rows at a time, one behind the other: record [f, f + B) is in
// use from the query of row f + B + recent on, whenever the rows were written and however they were
// batched, so that an engine's results depend on neither. Its plan comes as soon as its rows are
// there, `recent` rows ahead. The first n_sink rows are kept as written with the first record; the
// inner policy may keep these rows and no others.
//
// Thread-compatible. Cost: that of the inner policy; O(n_sink) once.
#ifndef KVASIR_POLICIES_ENCODED_POLICY_H_
#define KVASIR_POLICIES_ENCODED_POLICY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "policies/plan_ledger.h"
#include "policies/policy_state.h"
#include "policies/retention_policy.h"

namespace kvasir {

struct EncodedPolicyConfig {
  uint32_t record_rows = 64;
  uint64_t recent = 32;
  uint64_t n_sink = 4;
};

class EncodedPolicy final : public RetentionPolicy {
 public:
  // REQUIRES: inner->encodable().rows is kWindow, record_rows > 0.
  EncodedPolicy(std::unique_ptr<RetentionPolicy> inner, EncodedPolicyConfig config);
  EncodedPolicy(const EncodedPolicy& other);
  EncodedPolicy& operator=(EncodedPolicy&&) = default;

  uint64_t rows() const override { return inner_->rows(); }
  void Append(std::span<const TokenId> ids) override;
  std::optional<RetentionPlan> NextPlan(const PlanHorizon& horizon) override;
  uint64_t RollbackFloor() const override;
  Encodable encodable() const override { return inner_->encodable(); }
  std::optional<RetentionPlan> LastTable() const override {
    return ledger_.empty() ? std::nullopt : std::optional(Table());
  }
  absl::Status WriteState(StateWriter& writer) const override;
  absl::Status ReadState(StateReader& reader, uint64_t rows) override;
  absl::Status Truncate(uint64_t rows) override;
  std::unique_ptr<RetentionPolicy> Clone() const override {
    return std::make_unique<EncodedPolicy>(*this);
  }

 private:
  // First query that uses the next record.
  uint64_t DueRow() const { return sealed_ + config_.record_rows + config_.recent; }
  // Takes the inner policy's next plan, if it has one and none waits.
  void AskInner(const PlanHorizon& horizon);
  // The next plan: the inner policy's, a record's, or one edit that is both.
  RetentionPlan TakeInner();
  RetentionPlan TakeRecord();
  RetentionPlan TakeBoth();
  RetentionPlan StartInner();
  void AddRecord(RetentionPlan& plan);
  // What the last plan says, by the inner policy's last one that was returned and the records.
  RetentionPlan Table() const;
  void Complete(RetentionPlan& plan);
  StateIdentity Identity() const;
  // The plan that waits here, and the inner table that is shown until then.
  void ReadPending(StateReader& reader);
  // Whether the records, the inner policy's tables and its plans can follow each other for ever.
  bool CanGoOn() const;

  std::unique_ptr<RetentionPolicy> inner_;
  EncodedPolicyConfig config_;
  PlanLedger ledger_;
  std::optional<RetentionPlan> pending_;  // of the inner policy, not returned yet
  // The inner policy's last plan that was returned, without what it moved.
  RetentionPlan inner_table_;
  uint64_t inner_kept_ = 0;
  bool sinks_kept_ = false;
  uint64_t sealed_;  // rows below are in records, were dropped, or are first rows
  uint64_t from_row_ = 0;
};

}  // namespace kvasir

#endif  // KVASIR_POLICIES_ENCODED_POLICY_H_
