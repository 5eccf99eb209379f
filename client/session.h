// Session: this process's connection to kvasird, and the door for engine authors.
//
//   auto session = kvasir::Session::Connect({});
//   auto model   = (*session)->RegisterModel(spec);
//   auto seq     = (*session)->OpenSequence({.model = *model, .retention =
//   "sepllm:local_size=256"}); auto view    = seq->Begin(1);          // where the next row goes,
//   and what it may see
//   ... write K and V of the row into every layer, attend over the layer's view ...
//   seq->Commit(ids);
//
// docs/engine_guide.md has the attention loop. Errors are absl::Status; nothing throws, and every
// wait has a deadline. A dead daemon is kUnavailable at the next call, never a hang.
#ifndef KVASIR_CLIENT_SESSION_H_
#define KVASIR_CLIENT_SESSION_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "client/model_spec.h"
#include "client/prefix.h"
#include "client/prefix_lease.h"
#include "client/sequence.h"
#include "device/device.h"

namespace kvasir {

struct ConnectOptions {
  std::string control_socket = "/run/kvasir/control.sock";
  std::string data_socket = "/run/kvasir/data.sock";
  std::chrono::milliseconds deadline{10'000};  // of every call and every wait
  // What is called at block borders goes through shared memory, else by gRPC as all the rest.
  bool use_ring = true;
  // Devices of this process, for models whose rows lie in a device's memory
  // (ModelSpec::pool): extents are imported by the one with the daemon's uuid. They outlive the
  // session and what it gave.
  std::vector<device::Device*> devices = {};
  // How long a call looks for its answer before it sleeps; nothing: as the daemon says.
  std::optional<std::chrono::nanoseconds> spin = {};
};

struct ModelHandle {
  uint32_t id = 0;
  uint32_t slots_per_block = 0;
  std::string fingerprint;  // 16 bytes
  // Of ConnectOptions::devices, on which its rows lie; null: in host memory.
  device::Device* device = nullptr;
};

struct OpenOptions {
  ModelHandle model;
  std::string retention;  // policy grammar; "": the tenant's default
  uint64_t prompt_rows =
      0;                  // how many of the first rows are prefill, for policies that tell it apart
  std::string label;      // for people, at most 256 bytes
  uint64_t max_rows = 0;  // never more, up to a block's end; saves room for tables; 0: no bound
  // The engine attends LayerView::records and KeptRunView::v_bits. Without it a retention with an
  // encoding is refused; of a tenant's default the encoding is left out.
  bool reads_records = false;
  // Snapshot::id: go on from it, at its row. The model has to be the same in every field that
  // matters, `retention` the same or empty. Empty: begin at row 0.
  std::string snapshot = {};
  // At this row, where every row stays as written; 0: the snapshot's last.
  uint64_t snapshot_rows = 0;
  // Go on from the longest cached prefix of these tokens, and be free to publish. Without: the rows
  // are private.
  std::optional<PrefixOptions> prefix = {};
  // PrefixLease::id, with `prefix`: begin at exactly its rows. `retention` is empty or what the
  // lease's member of this model asked for, `prompt_rows` the lease's; least_quality is not looked
  // at. Empty: no lease.
  std::string lease = {};
  RequestHints hints = {};
};

// When to ask again what was refused with kResourceExhausted; nothing: the daemon has not said.
std::optional<std::chrono::milliseconds> RetryAfter(const absl::Status& status);

class SessionState;

// Thread-safe. Sequences keep what they need of it alive; the connection ends with the last of
// them.
class Session {
 public:
  // Errors: kNotFound or kUnavailable (no daemon), kPermissionDenied (no tenant for this uid),
  // kFailedPrecondition (no common protocol version), kResourceExhausted, kDeadlineExceeded.
  static absl::StatusOr<std::unique_ptr<Session>> Connect(const ConnectOptions& options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Registers the model and probes that both sides lay out its blocks alike.
  // Errors: kInvalidArgument naming field and bound, kFailedPrecondition when the layouts differ.
  absl::StatusOr<ModelHandle> RegisterModel(const ModelSpec& spec);

  // Errors: kInvalidArgument (retention), kResourceExhausted (with the figures); with a snapshot
  // kNotFound (unknown to this tenant) and kFailedPrecondition (names the field that differs); with
  // a lease likewise, and kFailedPrecondition where it has no member of this model or the prompt
  // does not lead to its rows.
  absl::StatusOr<Sequence> OpenSequence(const OpenOptions& options);

  // Every form of the prompt's beginning that is cached, the longest first, then the best; what
  // `least_quality` says is not looked at. Takes nothing: a later OpenSequence() may find less.
  // With `prefetch` the longest form that lies in a tier begins to come up, and nobody waits for
  // it. Errors: kInvalidArgument, kNotFound (model).
  absl::StatusOr<std::vector<PrefixForm>> MatchPrefix(const ModelHandle& model,
                                                      const PrefixOptions& prefix,
                                                      bool prefetch = false);

  // Leases the longest rows at which every member can go on: until the lease ends, each sequence
  // that is opened with it begins there, whatever is given up meanwhile. Waits for what lies in a
  // tier, up to the deadline. Errors: kInvalidArgument (members, ttl, retention, prefix), kNotFound
  // (names the member whose model no live session of the tenant has), kFailedPrecondition (a
  // retention that its member does not read), kResourceExhausted (limits.leases_per_session_max).
  absl::StatusOr<PrefixLease> LeasePrefix(const LeaseOptions& options);

  // Forgets a snapshot of this tenant. Errors: kNotFound.
  absl::Status DropSnapshot(const std::string& snapshot_id);

  // Texts of the ids first, first + 1, ..., so that `kvasirctl inspect` can show them. At most 64
  // bytes of each are sent.
  absl::Status PutTokenTexts(const ModelHandle& model, uint32_t first,
                             const std::vector<std::string>& texts);

  // What `kvasirctl --output=json` prints for the same question, for programs that are not C++: the
  // fields of proto/kvasir/v1/admin.proto, those of 64 bits as text. A session sees what is its
  // tenant's. Errors: kNotFound (sequence), kOutOfRange or kInvalidArgument (layer, rows).
  absl::StatusOr<std::string> DescribeTenant();    // GetStatsResponse
  absl::StatusOr<std::string> DescribePolicies();  // ListPoliciesResponse
  // InspectSequenceResponse: which rows of a layer are kept, from `first_row` on, at most
  // `rows_max` (0: 4096).
  absl::StatusOr<std::string> DescribeRows(uint64_t sequence_id, uint32_t layer, uint64_t first_row,
                                           uint32_t rows_max);

  // Keeps mapped what views of the sequences show now, for as long as it is held, whatever is
  // begun, committed or closed meanwhile; for programs that hand views on. What a held view shows
  // after its step may change, and reading it ends the process (SIGBUS) where the daemon has taken
  // the tenant's memory back. Cost: a lock. Memory that is held counts as the tenant's.
  std::shared_ptr<const void> HoldMemory() const;

  // Calls that this session has made of the daemon, those under way included. None is made between
  // block borders: engines and their tests look here whether that is so for them. Cost: two loads.
  struct CallCounts {
    uint64_t ring = 0;  // through shared memory
    uint64_t grpc = 0;
  };
  CallCounts calls() const;

  uint32_t id() const;
  uint64_t boot_epoch() const;

  // Bytes that the tenant has borrowed and that their owners want back now; 0: none. Sequences that
  // are closed, or saved and closed, give theirs back: which, Sequence::suspend_wanted() says. Else
  // the daemon ends sequences in the same order, after memory.take_back_ms. Cost: a load; meant to
  // be looked at every step.
  uint64_t wanted_back_bytes() const;

 private:
  explicit Session(std::shared_ptr<SessionState> state);
  std::shared_ptr<SessionState> state_;  // shared with sequences
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_SESSION_H_
