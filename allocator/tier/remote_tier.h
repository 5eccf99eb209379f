// RemoteTier: blocks as values of one Redis or Valkey server, over TCP or a Unix socket.
//
// Thread-safe: each call has a connection of its own, kept for the next one. Requests are
// pipelined. The server evicts by its own settings, and `maxmemory` is its capacity: an OOM answer
// refuses that block. Keys are "kvasir:<fingerprint>:" and the 40 bytes. Several servers: put
// RendezvousTier over one tier each; wrap each in GuardedTier, so that one that is gone costs its
// share alone and no waiting.
#ifndef KVASIR_ALLOCATOR_TIER_REMOTE_TIER_H_
#define KVASIR_ALLOCATOR_TIER_REMOTE_TIER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <absl/base/thread_annotations.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "allocator/tier/block_header.h"
#include "allocator/tier/remote_connection.h"
#include "allocator/tier/tier.h"
#include "allocator/tier/tier_counters.h"
#include "base/mutex.h"

namespace kvasir {

struct RemoteTierOptions {
  RemoteServer server;
  uint64_t fingerprint = 0;                         // of the layout
  std::chrono::milliseconds connect_timeout{1000};  // 1 ms to 60 s
  // Of a whole call: choose batches that a healthy server answers well within it. 1 ms to 10 min.
  std::chrono::milliseconds batch_timeout{5000};
  uint32_t requests_in_flight = 16;  // of one call; 1 to 1,024. The server holds as many blocks.
};

class RemoteTier final : public Tier {
 public:
  // Does not connect: a server that is down now may be up later. Errors: kInvalidArgument naming
  // the field and its bound.
  static absl::StatusOr<std::unique_ptr<RemoteTier>> Create(const RemoteTierOptions& options);

  // Asks first what is there, so that bytes that are there do not travel.
  void Write(std::span<const WriteItem> items, std::span<absl::Status> results,
             const CancelToken* cancel = nullptr) override;
  void Read(std::span<const ReadItem> items, std::span<ReadOutcome> results,
            const CancelToken* cancel = nullptr) override;
  absl::Status Erase(std::span<const TierKey> keys) override;
  // By SCAN: goes over all keys of the server. A value's length stands for its block's.
  absl::Status ForEach(const std::function<void(const TierKey&, uint64_t)>& visit) override;
  absl::Status Flush() override { return absl::OkStatus(); }
  // Nothing about capacity: the server is not asked.
  TierStats Stats() const override { return counters_.Read(); }

 private:
  explicit RemoteTier(const RemoteTierOptions& options);

  using Connection = std::unique_ptr<RemoteConnection>;
  absl::StatusOr<Connection> TakeConnection();
  // Kept only when `status` says that the stream is in step.
  void ReturnConnection(Connection connection, const absl::Status& status);

  std::string KeyText(const TierKey& key) const;
  // `command` for each key, pipelined; the numbers, 0 to `answer_max`, that it answers.
  absl::StatusOr<std::vector<int64_t>> Ask(RemoteConnection& connection, std::string_view command,
                                           std::span<const TierKey> keys, int64_t answer_max,
                                           Instant deadline);
  struct WriteBatch {
    std::span<absl::Status> results;
    std::vector<bool> answered;
    uint64_t blocks = 0;  // written
    uint64_t bytes = 0;
  };
  absl::Status WriteAll(RemoteConnection& connection, std::span<const WriteItem> items,
                        const CancelToken* cancel, Instant deadline, WriteBatch& batch);
  absl::Status SendBlock(RemoteConnection& connection, const WriteItem& item,
                         BlockChecksum& checksum, Instant deadline);
  absl::Status ReadAll(RemoteConnection& connection, std::span<const ReadItem> items,
                       std::span<ReadOutcome> results, const CancelToken* cancel, Instant deadline);
  absl::StatusOr<ReadOutcome> ReceiveBlock(RemoteConnection& connection, const ReadItem& item,
                                           BlockChecksum& checksum, Instant deadline);

  const RemoteTierOptions options_;
  const std::string prefix_;
  TierCounters counters_;
  Mutex idle_mutex_;  // leaf lock
  std::vector<Connection> idle_ ABSL_GUARDED_BY(idle_mutex_);
};

}  // namespace kvasir

#endif  // KVASIR_ALLOCATOR_TIER_REMOTE_TIER_H_
