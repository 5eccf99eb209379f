// A SepStream as bytes. Right after a compaction the cache is [head][separators][w rows], so that
// most of its numbers follow from few.
#include <algorithm>

#include "base/check.h"
#include "policies/policy_state.h"
#include "policies/sep_stream.h"

namespace kvasir {

void SepStream::Write(StateWriter& writer) const {
  const auto window = static_cast<uint64_t>(config_.w);
  KVASIR_CHECK(rows_.size() == 1 && !config_.pad_id, "batch={}", rows_.size());
  KVASIR_CHECK(seen_ == (compactions_ == 0 ? 0 : run_first_ + window), "seen={} run_first={} w={}",
               seen_, run_first_, config_.w);
  writer.Number(compactions_);
  writer.Number(static_cast<uint64_t>(offset_.value_or(0)));
  writer.Number(static_cast<uint64_t>(config_.s));
  writer.Number(run_first_);
  const BatchRow& row = rows_[0];
  const auto kept_first = compactions_ == 0 ? 0 : static_cast<size_t>(head());
  writer.Number(row.front.size() - kept_first);
  for (size_t i = kept_first; i < row.front.size(); ++i) writer.Number(row.front[i].row);
  for (const TokenId id : row.run) writer.Id(id);
}

void SepStream::Read(uint64_t rows, int64_t offset_max, StateReader& reader) {
  const bool sepcache = config_.variant == SepStreamVariant::kSepCache;
  compactions_ = reader.Number("compactions", 0, rows);
  const bool compacted = compactions_ > 0;
  const uint64_t offset =
      reader.Number("offset", 0, compacted ? static_cast<uint64_t>(offset_max) : 0);
  if (compacted && sepcache) offset_ = static_cast<int64_t>(offset);
  const auto s = static_cast<uint64_t>(config_.s);
  const auto first = compacted ? static_cast<uint64_t>(head()) : 0;
  // Where the oldest separators are not dropped the limit has grown to what was kept at most.
  const bool grows = compacted && !config_.use_max;
  const uint64_t limit = reader.Number("separator_limit", s, grows ? std::max(s, rows) : s);
  run_first_ = reader.Number("run_first", compacted ? first + 1 : 0, compacted ? rows : 0);
  BatchRow& row = rows_[0];
  const uint64_t separators = reader.Count("separators", 8, compacted ? limit : 0);
  for (uint64_t i = 0; compacted && i < first && reader.ok(); ++i) row.front.push_back({i, false});
  for (uint64_t i = 0; i < separators && reader.ok(); ++i) {
    const uint64_t min = i == 0 ? first : row.front.back().row + 1;
    row.front.push_back({reader.Number("separator", min, run_first_ - 1), false});
  }
  config_.c += static_cast<int64_t>(limit - std::min(s, limit));
  config_.s = static_cast<int64_t>(limit);
  separator_end_ = static_cast<int64_t>(row.front.size());
  seen_ = compacted ? run_first_ + static_cast<uint64_t>(config_.w) : 0;
  attend_length_ = kept_length();
  const uint64_t ids = rows - std::min(rows, run_first_);
  if (!reader.Holds("ids", ids, 4)) return;
  for (uint64_t i = 0; i < ids; ++i) row.run.push_back(reader.Id("id"));
}

}  // namespace kvasir
