#include "client/sequence.h"

#include <utility>

#include "base/error.h"
#include "client/sequence_state.h"

namespace kvasir {

Sequence::Sequence() = default;
Sequence::Sequence(std::unique_ptr<SequenceState> state) : state_(std::move(state)) {}
Sequence::Sequence(Sequence&&) noexcept = default;

Sequence& Sequence::operator=(Sequence&& other) noexcept {
  if (this != &other) {
    if (state_) (void)state_->Close();
    state_ = std::move(other.state_);
  }
  return *this;
}

Sequence::~Sequence() {
  // Nobody is left to hear an error; the daemon frees the sequence with the session at the latest.
  if (state_) (void)state_->Close();
}

absl::StatusOr<StepView> Sequence::Begin(uint32_t want_rows) { return state_->Begin(want_rows); }
absl::Status Sequence::Commit(std::span<const uint32_t> ids) { return state_->Commit(ids); }
absl::Status Sequence::CommitAsync(std::span<const uint32_t> ids, const TimelinePoint& done) {
  return state_->CommitAsync(ids, done);
}
std::optional<uint32_t> Sequence::filter_layer() const { return state_->filter_layer(); }
absl::StatusOr<std::vector<uint32_t>> Sequence::SelectRows(std::span<const float> query) {
  return state_->SelectRows(query);
}
bool Sequence::retrieves() const { return state_->retrieves(); }
absl::StatusOr<std::span<const KeptRunView>> Sequence::Retrieve(uint32_t layer,
                                                                std::span<const float> query,
                                                                std::span<const float> mass) {
  return state_->Retrieve(layer, query, mass);
}
absl::StatusOr<Snapshot> Sequence::Save() { return state_->Save(); }
absl::Status Sequence::SetHints(const RequestHints& hints) { return state_->SetHints(hints); }
bool Sequence::suspend_wanted() const { return state_->suspend_wanted(); }
absl::StatusOr<Sequence::Published> Sequence::PublishPrefix() { return state_->PublishPrefix(); }
absl::Status Sequence::Truncate(uint64_t rows) { return state_->Truncate(rows); }
absl::Status Sequence::Close() { return state_->Close(); }
uint64_t Sequence::rows() const { return state_->rows(); }
uint64_t Sequence::id() const { return state_->id(); }
const std::string& Sequence::retention() const { return state_->retention(); }
const std::string& Sequence::condensed_from() const { return state_->condensed_from(); }
uint32_t Sequence::slots_per_block() const { return state_->slots_per_block(); }
absl::StatusOr<Sequence::Footprint> Sequence::MeasureFootprint() {
  return state_->MeasureFootprint();
}

}  // namespace kvasir
