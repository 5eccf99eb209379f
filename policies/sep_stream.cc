#include "policies/sep_stream.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace kvasir {
namespace {

template <typename Iterator>
int64_t CountPads(Iterator first, Iterator last) {
  return std::count_if(first, last, [](const auto& entry) { return entry.pad; });
}

}  // namespace

SepStream::SepStream(SepStreamConfig config, size_t batch)
    : config_(std::move(config)), rows_(batch) {
  KVASIR_CHECK(batch >= 1, "batch={}", batch);
}

uint64_t SepStream::known() const { return run_first_ + rows_[0].run.size(); }

int64_t SepStream::kept_length() const {
  return static_cast<int64_t>(front_size() + (seen_ - run_first_));
}

void SepStream::Feed(size_t b, std::span<const TokenId> ids) {
  rows_[b].run.insert(rows_[b].run.end(), ids.begin(), ids.end());
}

void SepStream::Unfeed(uint64_t row) {
  KVASIR_CHECK(row >= run_first_, "row={} run_first={}", row, run_first_);
  for (BatchRow& r : rows_) r.run.resize(std::min<size_t>(r.run.size(), row - run_first_));
}

absl::Status SepStream::Step(std::span<const std::vector<TokenId>> chunk, bool prefill) {
  if (chunk.size() != rows_.size()) {
    return InvalidArgument("chunk has another number of batch rows: rows={} batch={}", chunk.size(),
                           rows_.size());
  }
  for (size_t b = 0; b < chunk.size(); ++b) {
    if (chunk[b].size() != chunk[0].size()) {
      return InvalidArgument("chunk rows differ in length: row={} tokens={} first_row_tokens={}", b,
                             chunk[b].size(), chunk[0].size());
    }
  }
  for (size_t b = 0; b < chunk.size(); ++b) Feed(b, chunk[b]);
  return Advance(static_cast<int64_t>(chunk[0].size()), prefill);
}

absl::Status SepStream::Advance(int64_t count, bool prefill, std::optional<int64_t> offset) {
  if (config_.pad_id) {
    for (BatchRow& row : rows_) {
      const size_t at = seen_ - run_first_;
      for (size_t i = at; i < std::min(row.run.size(), at + static_cast<size_t>(count)); ++i) {
        row.pads += IsPad(row.run[i]) ? 1 : 0;
      }
    }
  }
  seen_ += static_cast<uint64_t>(count);
  const int64_t length = kept_length();
  attend_length_ = length;
  if (config_.variant == SepStreamVariant::kSepCache) {
    if (prefill) {
      int64_t pads = 0;
      for (const BatchRow& row : rows_) pads = std::max(pads, row.pads);
      offset_ = offset.value_or(pads);
    } else if (length >= config_.c) {
      KVASIR_RETURN_IF_ERROR(Compact(length));
    } else if (count != 1) {
      return FailedPrecondition(
          "decode chunk of more than one row below capacity: rows={} length={} cache_size={}",
          count, length, config_.c);
    }
    attend_length_ = kept_length();
    return absl::OkStatus();
  }
  if (length <= config_.c) return absl::OkStatus();
  if (config_.variant == SepStreamVariant::kManager) return Compact(length);
  return EvictStreamLlm(length);
}

absl::Status SepStream::CheckCompaction(int64_t length) {
  const SepStreamConfig& k = config_;
  if (k.variant == SepStreamVariant::kSepCache) {
    if (!offset_) return FailedPrecondition("compaction before any prefill step");
    if (k.a < 0 || k.s <= 0 || k.w <= 0 || k.c <= 0) {
      return FailedPrecondition("cache parameters out of bounds: a={} min=0 s={} w={} c={} min=1",
                                k.a, k.s, k.w, k.c);
    }
    if (k.a + k.s + k.w + *offset_ >= k.c) {
      return FailedPrecondition("a + s + w + offset must be below c: a={} s={} w={} offset={} c={}",
                                k.a, k.s, k.w, *offset_, k.c);
    }
  } else if (k.a < 0 || k.w < 0 || k.w > length || k.a > length) {
    return FailedPrecondition("cache parameters out of bounds: a={} w={} min=0 max={}", k.a, k.w,
                              length);
  }
  return absl::OkStatus();
}

SepStream::Entry SepStream::EntryAt(const BatchRow& row, size_t index) const {
  if (index < row.front.size()) return row.front[index];
  const size_t at = index - row.front.size();
  return {run_first_ + at, at < row.run.size() && IsPad(row.run[at])};
}

void SepStream::DropRun(size_t count) {
  for (BatchRow& row : rows_) {
    const auto end = row.run.begin() + static_cast<std::ptrdiff_t>(count);
    if (config_.pad_id) row.pads -= std::count(row.run.begin(), end, *config_.pad_id);
    row.run.erase(row.run.begin(), end);
  }
  run_first_ += count;
}

std::vector<size_t> SepStream::NewSeparators(const BatchRow& row, size_t first, size_t last) const {
  std::vector<size_t> found;
  for (size_t i = first; i < last; ++i) {
    if (config_.separators.Contains(row.run[i - row.front.size()])) found.push_back(i);
  }
  return found;
}

absl::Status SepStream::Compact(int64_t length) {
  KVASIR_RETURN_IF_ERROR(CheckCompaction(length));
  const int64_t head_signed = head();
  if (separator_end_ <= 0) separator_end_ = head_signed;
  const int64_t tail_signed = length - config_.w;
  if (tail_signed <= separator_end_) {
    return FailedPrecondition("empty past window: length={} w={} separator_end={}", length,
                              config_.w, separator_end_);
  }
  if (head_signed > length) {
    return FailedPrecondition("initial block longer than cache: initial={} length={}", head_signed,
                              length);
  }
  const bool first = separator_end_ == head_signed;
  if (config_.accumulate && !first && head_signed > separator_end_) {
    return FailedPrecondition(
        "initial block grew over the separator block: initial={} separator_end={}", head_signed,
        separator_end_);
  }
  const auto keep_head = static_cast<size_t>(head_signed);
  const auto end = static_cast<size_t>(separator_end_);
  const auto tail = static_cast<size_t>(tail_signed);
  const size_t front = front_size();
  for (const BatchRow& row : rows_) {
    if (row.run.size() < tail - front) {
      return FailedPrecondition("ids needed by the compaction are not known: known={} needed={}",
                                run_first_ + row.run.size(), run_first_ + tail - front);
    }
  }

  // Rows stay in lock step: one count of new separators for all of them.
  std::vector<std::vector<size_t>> fresh;
  size_t most = 0;
  size_t least = tail;
  for (const BatchRow& row : rows_) {
    fresh.push_back(NewSeparators(row, end, tail));
    most = std::max(most, fresh.back().size());
    least = std::min(least, fresh.back().size());
  }
  const size_t count = config_.pad_in_batch ? most : least;
  const size_t old = config_.accumulate && !first ? end - keep_head : 0;
  const auto total = static_cast<int64_t>(old + count);
  size_t drop = 0;
  if (total > config_.s) {
    if (config_.use_max) {
      drop = static_cast<size_t>(total - config_.s);
    } else {
      config_.c += total - config_.s;
      config_.s = total;
    }
  }
  last_dropped_ = old > 0 ? std::min(drop, old) : (front > keep_head ? front - keep_head : 0);
  for (size_t b = 0; b < rows_.size(); ++b) {
    BatchRow& row = rows_[b];
    for (size_t i = fresh[b].size(); i < count; ++i) {  // filled up with the last past entries
      fresh[b].push_back(tail - count + i);
    }
    std::vector<Entry> added;
    for (size_t i = front; i < keep_head; ++i) added.push_back(EntryAt(row, i));
    for (size_t i = drop > old ? drop - old : 0; i < count; ++i) {
      added.push_back(EntryAt(row, fresh[b][i]));
    }
    const size_t at = std::min(keep_head, front);
    const auto from = row.front.begin() + static_cast<std::ptrdiff_t>(at);
    const auto to = from + static_cast<std::ptrdiff_t>(last_dropped_);
    row.pads += CountPads(added.begin(), added.end()) - CountPads(from, to);
    row.front.erase(from, to);
    row.front.insert(row.front.end(), added.begin(), added.end());
  }
  separator_end_ = head_signed + total - static_cast<int64_t>(drop);
  DropRun(tail - front);
  ++compactions_;
  return absl::OkStatus();
}

absl::Status SepStream::EvictStreamLlm(int64_t length) {
  KVASIR_RETURN_IF_ERROR(CheckCompaction(length));
  const auto keep = static_cast<size_t>(config_.a);
  const auto tail = static_cast<size_t>(length - config_.w);
  const size_t front = front_size();
  for (BatchRow& row : rows_) {
    std::deque<Entry> next;
    for (size_t i = 0; i < keep; ++i) next.push_back(EntryAt(row, i));
    for (size_t i = tail; i < front; ++i) next.push_back(EntryAt(row, i));
    row.pads += CountPads(next.begin(), next.end()) - CountPads(row.front.begin(), row.front.end());
    row.front = std::move(next);
  }
  DropRun(tail > front ? tail - front : 0);
  return absl::OkStatus();
}

std::vector<uint64_t> SepStream::KeptRows(size_t b) const {
  std::vector<uint64_t> kept;
  kept.reserve(static_cast<size_t>(kept_length()));
  for (const Entry& entry : rows_[b].front) kept.push_back(entry.row);
  for (uint64_t row = run_first_; row < seen_; ++row) kept.push_back(row);
  return kept;
}

}  // namespace kvasir
