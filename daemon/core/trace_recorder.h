// TraceRecorder: what sequences of a tenant ask for with their prefixes, as lines of a trace from
// which nothing of the content can be told.
//
// A line is a request: when, how many tokens it had, how many followed, and one id for each block
// of 512 tokens of the prompt, the last of which need not be full. Ids count in the order in which
// a recording first met a block; blocks are known by a hash under a salt of the recording's own, so
// two recordings have nothing in common but their times and lengths.
//
// A line is complete once its sequence has ended, and lines leave in the order in which they began.
// A recording holds kTraceLinesMax lines and kTraceIdsMax ids in them; where there is no room the
// oldest one is lost, and counted. Where kTraceBlocksMax different blocks were met it is full.
//
// Not thread-safe. Cost: about 150 ns a block for each recording; with none, a comparison. Memory
// of a recording: at most 16 MiB of lines and 64 MiB of known blocks.
#ifndef KVASIR_DAEMON_CORE_TRACE_RECORDER_H_
#define KVASIR_DAEMON_CORE_TRACE_RECORDER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <absl/container/flat_hash_map.h>
#include <absl/status/statusor.h>

#include "base/clock.h"
#include "index/chain_hasher.h"
#include "index/prefix_chain.h"

namespace kvasir::core {

inline constexpr uint32_t kTraceBlockTokens = 512;
inline constexpr size_t kTraceLinesMax = 8192;
inline constexpr size_t kTraceIdsMax = size_t{1} << 20;
inline constexpr size_t kTraceBlocksMax = size_t{1} << 20;
inline constexpr size_t kRecordingsMax = 4;

struct TraceLine {
  uint64_t timestamp_ms = 0;  // since the recording began
  uint64_t input_length = 0;
  uint64_t output_length = 0;
  std::vector<uint32_t> hash_ids;
};

class TraceRecorder;

// A recorded request while its sequence runs. Ends with it.
class TraceTicket {
 public:
  TraceTicket() = default;
  TraceTicket(TraceTicket&& other) noexcept { *this = std::move(other); }
  TraceTicket& operator=(TraceTicket&& other) noexcept;
  ~TraceTicket() { End(); }

  // Rows of the sequence so far.
  void set_rows(uint64_t rows) { rows_ = rows; }

 private:
  friend class TraceRecorder;
  void End();
  TraceRecorder* recorder_ = nullptr;
  uint64_t number_ = 0;
  uint64_t rows_ = 0;
};

class TraceRecorder {
 public:
  // `now`: the owner's, read at each call; it must outlive the recorder.
  explicit TraceRecorder(const Instant& now) : now_(now) {}
  TraceRecorder(const TraceRecorder&) = delete;
  TraceRecorder& operator=(const TraceRecorder&) = delete;

  // Starts a recording; `salt` is random. Errors: kResourceExhausted (kRecordingsMax).
  absl::StatusOr<uint64_t> Start(const std::string& tenant, const ChainHasher::Secret& salt);
  void Stop(uint64_t recording) { recordings_.erase(recording); }

  // A sequence begins with this prompt. The recorder must outlive the ticket.
  TraceTicket Begin(const std::string& tenant, const PrefixChain& chain);

  struct Batch {
    std::vector<TraceLine> lines;  // complete, in the order in which they began
    uint64_t lost = 0;             // since the last batch
    bool full = false;             // kTraceBlocksMax: nothing follows
  };
  // At most so many lines. REQUIRES: started, not stopped.
  Batch Take(uint64_t recording, size_t lines_max);
  // Requests that are not complete, nor taken.
  size_t Waiting(uint64_t recording) const;

 private:
  friend class TraceTicket;
  struct Pending {
    uint64_t number = 0;
    bool complete = false;
    TraceLine line;
  };
  struct Recording {
    std::string tenant;
    ChainHasher hasher;
    Instant began;
    absl::flat_hash_map<ChainKey, uint32_t> ids;
    std::deque<Pending> pending;  // by number
    size_t ids_pending = 0;
    uint64_t lost = 0;
    bool full = false;
  };

  static void Add(Recording& recording, const PrefixChain& chain, uint64_t number, Instant now);
  static void DropOldest(Recording& recording);
  void End(uint64_t number, uint64_t rows);

  const Instant& now_;
  std::map<uint64_t, Recording> recordings_;
  uint64_t next_recording_ = 1;
  uint64_t next_number_ = 1;
};

}  // namespace kvasir::core

#endif  // KVASIR_DAEMON_CORE_TRACE_RECORDER_H_
