#include "policies/sep_stream_policy.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

// The policy computes the offset itself, because the machine runs ahead of the ids.
SepStreamConfig WithoutPadding(SepStreamConfig config) {
  config.pad_id.reset();
  return config;
}

}  // namespace

SepStreamPolicy::SepStreamPolicy(SepStreamPolicyConfig config)
    : config_(std::move(config)), stream_(WithoutPadding(config_.stream)) {
  const SepStreamConfig& k = config_.stream;
  KVASIR_CHECK(k.variant != SepStreamVariant::kStreamLlm, "StreamingLLM has its own policy");
  KVASIR_CHECK(k.a >= 0 && k.s >= 1 && k.w >= 1 && k.a + k.s + k.w < k.c, "a={} s={} w={} c={}",
               k.a, k.s, k.w, k.c);
}

void SepStreamPolicy::Append(std::span<const TokenId> ids) {
  stream_.Feed(0, ids);
  ledger_.Reached(rows());
}

uint64_t SepStreamPolicy::NextFromRow() const {
  const auto free =
      static_cast<uint64_t>(stream_.c() - std::min(stream_.c(), stream_.kept_length()));
  if (!IsSepCache()) return stream_.seen() + free + 1;
  if (!prefilled_) return std::max(config_.prompt_rows, static_cast<uint64_t>(stream_.c()) - 1);
  return stream_.seen() + (free == 0 ? 0 : free - 1);
}

int64_t SepStreamPolicy::PaddingOffset() const {
  const SepStreamConfig& k = config_.stream;
  if (!k.pad_id || !IsSepCache()) return 0;
  int64_t pads = 0;
  for (uint64_t row = 0; row < config_.prompt_rows; ++row) {
    pads += stream_.IdOf(0, row) == *k.pad_id ? 1 : 0;
  }
  return std::min(pads, PaddingOffsetMax());
}

int64_t SepStreamPolicy::PaddingOffsetMax() const {
  const SepStreamConfig& k = config_.stream;
  return k.pad_id && IsSepCache() ? k.c - 1 - k.a - k.s - k.w : 0;
}

uint64_t SepStreamPolicy::LastFromRow() const {
  if (stream_.compactions() == 0) return 0;
  return stream_.seen() - (IsSepCache() ? 1 : 0);
}

void SepStreamPolicy::Compact(uint64_t from_row) {
  const auto step = [this](int64_t count, bool prefill, std::optional<int64_t> offset) {
    const absl::Status status = stream_.Advance(count, prefill, offset);
    KVASIR_CHECK(status.ok(), "{}", MessageOf(status));
  };
  if (IsSepCache() && !prefilled_) {
    step(static_cast<int64_t>(config_.prompt_rows), true, PaddingOffset());
    prefilled_ = true;
  }
  const uint64_t before = stream_.compactions();
  const uint64_t last = IsSepCache() ? from_row : from_row - 1;  // the row whose step compacts
  while (stream_.seen() <= last) step(1, false, std::nullopt);
  KVASIR_CHECK(stream_.compactions() == before + 1, "from_row={}", from_row);
}

std::optional<RetentionPlan> SepStreamPolicy::LastTable() const {
  if (!returned_) return std::nullopt;
  RetentionPlan plan;
  plan.from_row = LastFromRow();
  plan.until_row = NextFromRow();
  plan.recent_first = stream_.run_first();
  const size_t total = stream_.front_size();
  if (!config_.in_cache) {
    if (total > 0) plan.spans.push_back({total, 0, kNoRow});
    return plan;
  }
  if (stream_.compactions() == 0) return plan;
  const auto head = static_cast<size_t>(stream_.head());
  const auto first = static_cast<int64_t>(plan.recent_first);
  if (head > 0) plan.spans.push_back({head, first - static_cast<int64_t>(total), kNoRow});
  if (total > head) {
    plan.spans.push_back({total - head, first - static_cast<int64_t>(separators_ever_), kNoRow});
  }
  return plan;
}

RetentionPlan SepStreamPolicy::Describe(size_t front_before) {
  const auto head = static_cast<size_t>(stream_.head());
  const size_t dropped = front_before == 0 ? 0 : stream_.last_dropped();
  std::vector<MovedRow> moved;
  for (size_t i = front_before - dropped; i < stream_.front_size(); ++i) {
    const uint64_t row = stream_.FrontRow(0, i);
    const bool initial = i < head;
    moved.push_back({row, config_.in_cache && !initial ? separators_ever_ : row});
    separators_ever_ += initial ? 0 : 1;
  }
  RetentionPlan plan = *LastTable();
  for (size_t i = 0; i < dropped; ++i) plan.drop.push_back(static_cast<uint32_t>(head + i));
  plan.append = std::move(moved);
  return plan;
}

std::optional<RetentionPlan> SepStreamPolicy::NextPlan(const PlanHorizon& horizon) {
  const uint64_t from_row = NextFromRow();
  if (!returned_) {
    returned_ = true;
    ledger_.Returned(*LastTable());
    return LastTable();
  }
  if (from_row > rows() + horizon.lead_rows) return std::nullopt;
  const uint64_t run_first =
      from_row + (IsSepCache() ? 1 : 0) - static_cast<uint64_t>(config_.stream.w);
  const bool counts_padding = config_.stream.pad_id && IsSepCache() && !prefilled_;
  const uint64_t needed = counts_padding ? std::max(run_first, config_.prompt_rows) : run_first;
  if (rows() < needed) return std::nullopt;
  const size_t front_before = stream_.front_size();
  Compact(from_row);
  RetentionPlan plan = Describe(front_before);
  ledger_.Returned(plan, needed);
  return plan;
}

StateIdentity SepStreamPolicy::Identity() const {
  const SepStreamConfig& k = config_.stream;
  const bool pads = k.pad_id && IsSepCache();
  return {IsSepCache() ? "sepcache" : "manager",
          {{"init_cache_size", static_cast<uint64_t>(k.a)},
           {"sep_cache_size", static_cast<uint64_t>(k.s)},
           {"local_size", static_cast<uint64_t>(k.w)},
           {"cache_size", static_cast<uint64_t>(k.c)},
           {"sep_accumulation", k.accumulate ? 1U : 0U},
           {"use_max_sep_cache", k.use_max ? 1U : 0U},
           {"separators", DigestOfIds(k.separators.ids())},
           {"in_cache", config_.in_cache ? 1U : 0U},
           {"prompt_rows", IsSepCache() ? config_.prompt_rows : 0},
           {"pad_id", pads ? uint64_t{1} + *k.pad_id : 0}}};
}

absl::Status SepStreamPolicy::WriteState(StateWriter& writer) const {
  WriteIdentity(Identity(), writer);
  writer.Flag(returned_);
  stream_.Write(writer);
  writer.Number(separators_ever_);
  ledger_.Write(rows(), writer);
  return absl::OkStatus();
}

absl::Status SepStreamPolicy::ReadState(StateReader& reader, uint64_t rows) {
  ExpectIdentity(Identity(), reader);
  SepStreamPolicy read(config_);
  read.returned_ = reader.Flag("returned");
  SepStream& stream = read.stream_;
  stream.Read(rows, PaddingOffsetMax(), reader);
  const bool compacted = stream.compactions() > 0;
  if (compacted && !read.returned_) {
    reader.Fail(DataLoss("policy state has compactions before its first table: compactions={}",
                         stream.compactions()));
  }
  read.prefilled_ = compacted && IsSepCache();
  const auto head = compacted ? static_cast<uint64_t>(stream.head()) : 0;
  read.separators_ever_ = reader.Number("separators_ever", stream.front_size() - head,
                                        compacted ? stream.run_first() - head : 0);
  read.ledger_ =
      PlanLedger::Read(rows, read.returned_ ? std::optional(read.LastFromRow()) : std::nullopt,
                       stream.run_first(), reader);
  KVASIR_RETURN_IF_ERROR(reader.Finish());
  *this = std::move(read);
  return absl::OkStatus();
}

absl::Status SepStreamPolicy::Truncate(uint64_t rows) {
  KVASIR_RETURN_IF_ERROR(ledger_.CheckTruncate(this->rows(), rows));
  stream_.Unfeed(rows);
  return absl::OkStatus();
}

}  // namespace kvasir
