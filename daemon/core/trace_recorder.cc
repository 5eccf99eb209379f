#include "daemon/core/trace_recorder.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <span>

#include "base/check.h"
#include "base/error.h"

namespace kvasir::core {
namespace {

constexpr uint64_t kChunksOfBlock = kTraceBlockTokens / kChunkTokens;

// What a block of the recording is known by: the key of its last whole chunk, which stands for all
// before it, and the tokens behind that, with what they stand for.
ChainKey BlockKey(ChainHasher& hasher, const PrefixChain& chain, uint64_t block) {
  const std::span<const ChainKey> keys = chain.keys();
  const uint64_t chunks = std::min<uint64_t>(keys.size(), (block + 1) * kChunksOfBlock);
  std::vector<uint32_t> tokens = {static_cast<uint32_t>(
      std::min<uint64_t>(chain.rows() - block * kTraceBlockTokens, kTraceBlockTokens))};
  std::string extras;
  if (tokens.front() < kTraceBlockTokens) {
    tokens.insert(tokens.end(), chain.rest().begin(), chain.rest().end());
    for (const TokenExtra& extra : chain.ExtrasOf(chunks * kChunkTokens, chain.rows())) {
      tokens.push_back(static_cast<uint32_t>(extra.row));
      extras += extra.bytes;
    }
  }
  const absl::StatusOr<ChainKey> key =
      hasher.Hash(chunks == 0 ? ChainKey() : keys[chunks - 1], tokens,
                  {reinterpret_cast<const uint8_t*>(extras.data()), extras.size()});
  KVASIR_CHECK(key.ok(), "{}", MessageOf(key.status()));  // some 16 tokens and extras
  return *key;
}

}  // namespace

TraceTicket& TraceTicket::operator=(TraceTicket&& other) noexcept {
  End();
  recorder_ = std::exchange(other.recorder_, nullptr);
  number_ = other.number_;
  rows_ = other.rows_;
  return *this;
}

void TraceTicket::End() {
  if (recorder_ != nullptr) recorder_->End(number_, rows_);
  recorder_ = nullptr;
}

absl::StatusOr<uint64_t> TraceRecorder::Start(const std::string& tenant,
                                              const ChainHasher::Secret& salt) {
  if (recordings_.size() >= kRecordingsMax) {
    return ResourceExhausted("too many recordings: max={}", kRecordingsMax);
  }
  const uint64_t id = next_recording_++;
  recordings_.emplace(id, Recording{tenant, ChainHasher(salt, {}), now_, {}, {}, 0, 0, false});
  return id;
}

TraceTicket TraceRecorder::Begin(const std::string& tenant, const PrefixChain& chain) {
  TraceTicket ticket;
  if (chain.rows() == 0) return ticket;
  for (auto& [id, recording] : recordings_) {
    if (recording.tenant != tenant || recording.full) continue;
    Add(recording, chain, next_number_, now_);
    ticket.recorder_ = this;
  }
  if (ticket.recorder_ != nullptr) ticket.number_ = next_number_++;
  return ticket;
}

void TraceRecorder::Add(Recording& recording, const PrefixChain& chain, uint64_t number,
                        Instant now) {
  const uint64_t blocks = (chain.rows() + kTraceBlockTokens - 1) / kTraceBlockTokens;
  if (recording.ids.size() + blocks > kTraceBlocksMax) {
    recording.full = true;
    return;
  }
  Pending pending;
  pending.number = number;
  pending.line.timestamp_ms = static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now - recording.began).count());
  pending.line.input_length = chain.rows();
  for (uint64_t block = 0; block < blocks; ++block) {
    const auto [at, added] = recording.ids.try_emplace(BlockKey(recording.hasher, chain, block),
                                                       static_cast<uint32_t>(recording.ids.size()));
    pending.line.hash_ids.push_back(at->second);
  }
  recording.ids_pending += blocks;
  recording.pending.push_back(std::move(pending));
  while (recording.pending.size() > kTraceLinesMax ||
         (recording.ids_pending > kTraceIdsMax && recording.pending.size() > 1)) {
    DropOldest(recording);
    ++recording.lost;
  }
}

void TraceRecorder::DropOldest(Recording& recording) {
  recording.ids_pending -= recording.pending.front().line.hash_ids.size();
  recording.pending.pop_front();
}

void TraceRecorder::End(uint64_t number, uint64_t rows) {
  for (auto& [id, recording] : recordings_) {
    const auto at =
        std::lower_bound(recording.pending.begin(), recording.pending.end(), number,
                         [](const Pending& one, uint64_t value) { return one.number < value; });
    if (at == recording.pending.end() || at->number != number) continue;
    at->complete = true;
    at->line.output_length = rows - std::min(rows, at->line.input_length);
  }
}

TraceRecorder::Batch TraceRecorder::Take(uint64_t id, size_t lines_max) {
  Recording& recording = recordings_.at(id);
  Batch batch;
  batch.lost = std::exchange(recording.lost, 0);
  while (!recording.pending.empty() && recording.pending.front().complete &&
         batch.lines.size() < lines_max) {
    TraceLine line = std::move(recording.pending.front().line);
    recording.ids_pending -= line.hash_ids.size();
    recording.pending.pop_front();
    batch.lines.push_back(std::move(line));
  }
  batch.full = recording.full && recording.pending.empty();
  return batch;
}

size_t TraceRecorder::Waiting(uint64_t id) const { return recordings_.at(id).pending.size(); }

}  // namespace kvasir::core
