// PrefixLease: the row at which every rank of a request group goes on, held for them.
//
//   // in the process that schedules, which has connected as any other:
//   auto lease = session->LeasePrefix({.members = {{rank0.fingerprint}, {rank1.fingerprint}},
//                                      .prefix = {.tokens = prompt, .rows_max = prompt.size() -
//                                      1}});
//   ... hand lease->id() to the ranks ...
//   // in each of them:
//   open.prefix = PrefixOptions{.tokens = prompt};
//   open.lease = id;  // the sequence begins at lease->rows()
#ifndef KVASIR_CLIENT_PREFIX_LEASE_H_
#define KVASIR_CLIENT_PREFIX_LEASE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "client/prefix.h"

namespace kvasir {

class SessionState;

// A model that goes through the prompt, such as a rank's shard of the weights.
struct LeaseMember {
  std::string model_fingerprint;  // ModelHandle::fingerprint, of any session of the tenant
  std::string retention = {};     // policy grammar; "": the tenant's default
  // Also other forms than `retention` makes that are at least this good.
  std::optional<PrefixQuality> least_quality = {};
  bool reads_records = false;  // as OpenOptions::reads_records
};

struct LeaseOptions {
  std::vector<LeaseMember> members;  // 1 to 32, of different models
  PrefixOptions prefix;              // its least_quality is not looked at
  uint64_t prompt_rows = 0;          // as OpenOptions::prompt_rows
  // At most, and where it is 0 exactly, what the daemon allows (prefix.lease_ms_max).
  std::chrono::milliseconds ttl{0};
};

// What a member goes on from.
struct LeasedForm {
  std::string retention;
  PrefixQuality quality = PrefixQuality::kFull;
  bool is_public = false;  // of a public tenant
};

// Move-only; releases itself. It ends earlier with its time and with the session that took it,
// which it keeps open as a sequence does. Not thread-safe. Cost of Release(): one call.
class PrefixLease {
 public:
  PrefixLease() = default;  // none
  PrefixLease(PrefixLease&& other) noexcept;
  PrefixLease& operator=(PrefixLease&& other) noexcept;
  PrefixLease(const PrefixLease&) = delete;
  PrefixLease& operator=(const PrefixLease&) = delete;
  ~PrefixLease();

  // 16 bytes: OpenOptions::lease of any session of the tenant. "" with no rows: there is no lease.
  const std::string& id() const { return id_; }
  // At which every sequence that is opened with it begins; 0: the members have none in common.
  uint64_t rows() const { return rows_; }
  // Of the members, in their order; none with no rows.
  const std::vector<LeasedForm>& forms() const { return forms_; }
  std::chrono::milliseconds ttl() const { return ttl_; }  // when it was taken

  // Gives it back; sequences that were opened with it go on. Nothing where that was done before.
  // Errors: kNotFound (its time was over), kUnavailable; it is given back all the same.
  absl::Status Release();

 private:
  friend class Session;
  std::shared_ptr<SessionState> session_;  // shared with the session; null: nothing to release
  std::string id_;
  uint64_t rows_ = 0;
  std::vector<LeasedForm> forms_;
  std::chrono::milliseconds ttl_{0};
};

}  // namespace kvasir

#endif  // KVASIR_CLIENT_PREFIX_LEASE_H_
