// RingCommand: one command of a ring between its submission and its completion, and what it does.
#ifndef KVASIR_DAEMON_SHM_RING_COMMAND_H_
#define KVASIR_DAEMON_SHM_RING_COMMAND_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include <absl/status/status.h>

#include "base/clock.h"
#include "daemon/core/kv_core.h"
#include "daemon/shared_core.h"
#include "daemon/shm/ring_ends.h"

namespace kvasir {

// Not thread-safe. One that has to wait is moved to its session's list; most never are.
class RingCommand {
 public:
  // `payload` is borrowed until KeepPayload().
  RingCommand(const ring::Command& command, Instant deadline)
      : entry_(command.entry),
        payload_(command.payload),
        ticket_(command.ticket),
        deadline_(deadline) {}
  RingCommand(RingCommand&&) = default;
  RingCommand& operator=(RingCommand&&) = default;

  // Does it, or as much as can be done now, and completes it where it is done. False: it has to
  // wait. `now` is past the deadline: it is done in any case. `*status` is what it was completed
  // with.
  bool Run(SharedCore& shared, core::Session& session, ring::CompletionProducer& completions,
           Instant now, absl::Status* status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shared.mutex);
  // Likewise under the share of the session's tenant alone. Nothing: it needs the whole lock, and
  // nothing has been completed.
  std::optional<bool> RunInShare(core::TenantVerbs& verbs, core::Session& session,
                                 ring::CompletionProducer& completions, Instant now,
                                 absl::Status* status);
  // RunInShare() may do it: what engines ask at a block border, or in a layer.
  bool MayRunInShare() const;
  // What has to be done before, and may take long: not under the core's lock.
  // Errors: the command's own, with which it is completed.
  absl::Status Prepare(SharedCore& shared, const core::SessionToken& token);

  // Prepare() would take so long that others should not wait for it.
  bool IsLong() const;
  // It was prepared, on whatever thread.
  bool prepared() const { return prepared_; }

  void Fail(ring::CompletionProducer& completions, const absl::Status& status) const;
  void KeepPayload();
  Instant deadline() const { return deadline_; }

 private:
  struct Outcome {
    absl::Status status;
    bool done = false;
    ring::Answer answer = {};
  };
  // `verbs`: KvCore, or a TenantVerbs, which may answer nothing.
  template <typename Verbs>
  std::optional<Outcome> Sync(Verbs& verbs, core::Session& session);
  template <typename Verbs>
  std::optional<Outcome> SyncMany(Verbs& verbs, core::Session& session,
                                  std::vector<std::byte>* bytes);
  template <typename Verbs>
  std::optional<Outcome> Retrieve(Verbs& verbs, core::Session& session,
                                  std::vector<std::byte>* bytes);
  template <typename Verbs>
  std::optional<Outcome> Truncate(Verbs& verbs, core::Session& session);
  template <typename Verbs>
  std::optional<Outcome> DoAtBorder(Verbs& verbs, core::Session& session,
                                    std::vector<std::byte>* bytes);
  Outcome Match(core::KvCore& core, core::Session& session, std::vector<std::byte>* bytes);
  Outcome Do(core::KvCore& core, core::Session& session, std::vector<std::byte>* bytes);

  shm::SubmissionEntry entry_;
  std::span<const std::byte> payload_;
  std::vector<std::byte> kept_;
  ring::CompletionTicket ticket_;
  Instant deadline_;
  bool prepared_ = false;
  bool asked_ = false;                                          // of verbs that ask once
  std::unique_ptr<std::optional<core::PrefixKeys>> keys_ = {};  // kMatchPrefix
};

}  // namespace kvasir

#endif  // KVASIR_DAEMON_SHM_RING_COMMAND_H_
