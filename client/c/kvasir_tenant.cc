#include "client/c/kvasir_tenant.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "client/c/convert.h"
#include "client/c/handles.h"

using kvasir::c::Guarded;
using kvasir::c::Missing;

struct kvasir_lease {
  kvasir::c::DeviceRefs devices;  // as of a session
  kvasir::PrefixLease lease;
  std::vector<kvasir_leased_form> forms;
};

struct kvasir_text {
  std::string text;
};

struct kvasir_hold {
  kvasir::c::DeviceRefs devices;       // as of a session
  std::shared_ptr<const void> memory;  // shared with the session's map of extents
};

namespace {

absl::Status PutText(absl::StatusOr<std::string> said, kvasir_text** text) {
  if (said.ok()) *text = new kvasir_text{*std::move(said)};
  return said.status();
}

}  // namespace

extern "C" {

uint32_t kvasir_last_shortage(kvasir_shortage* shortage) {
  const kvasir_shortage* const last = kvasir::c::LastShortage();
  if (shortage == nullptr || last == nullptr) return 0;
  *shortage = *last;
  return 1;
}

kvasir_code kvasir_set_hints(kvasir_sequence* sequence, const kvasir_hints* hints,
                             kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (sequence == nullptr) return Missing("sequence");
    KVASIR_ASSIGN_OR_RETURN(const auto converted, kvasir::c::ToHints(hints));
    return sequence->sequence.SetHints(converted);
  });
}

uint32_t kvasir_suspend_wanted(const kvasir_sequence* sequence) {
  return sequence != nullptr && sequence->sequence.suspend_wanted() ? 1 : 0;
}
uint64_t kvasir_wanted_back(const kvasir_session* session) {
  return session == nullptr ? 0 : session->session->wanted_back_bytes();
}
uint32_t kvasir_session_id(const kvasir_session* session) {
  return session == nullptr ? 0 : session->session->id();
}
uint64_t kvasir_boot_epoch(const kvasir_session* session) {
  return session == nullptr ? 0 : session->session->boot_epoch();
}

kvasir_code kvasir_lease_prefix(kvasir_session* session, const kvasir_lease_options* options,
                                kvasir_lease** lease, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr || lease == nullptr) return Missing("session or lease");
    *lease = nullptr;
    KVASIR_ASSIGN_OR_RETURN(const auto converted, kvasir::c::ToLeaseOptions(options));
    KVASIR_ASSIGN_OR_RETURN(kvasir::PrefixLease taken, session->session->LeasePrefix(converted));
    auto made = std::make_unique<kvasir_lease>();
    made->devices = session->devices;
    made->lease = std::move(taken);
    for (const kvasir::LeasedForm& form : made->lease.forms()) {
      made->forms.push_back(
          {form.retention.c_str(), static_cast<int32_t>(form.quality), form.is_public ? 1U : 0U});
    }
    *lease = made.release();
    return absl::OkStatus();
  });
}

const uint8_t* kvasir_lease_id(const kvasir_lease* lease) {
  if (lease == nullptr || lease->lease.id().empty()) return nullptr;
  return reinterpret_cast<const uint8_t*>(lease->lease.id().data());
}
uint64_t kvasir_lease_rows(const kvasir_lease* lease) {
  return lease == nullptr ? 0 : lease->lease.rows();
}
uint64_t kvasir_lease_ttl_ms(const kvasir_lease* lease) {
  return lease == nullptr ? 0 : static_cast<uint64_t>(lease->lease.ttl().count());
}
const kvasir_leased_form* kvasir_lease_form(const kvasir_lease* lease, size_t index) {
  return lease == nullptr || index >= lease->forms.size() ? nullptr : &lease->forms[index];
}

kvasir_code kvasir_release_lease(kvasir_lease* lease, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    const std::unique_ptr<kvasir_lease> owned(lease);
    return owned == nullptr ? absl::OkStatus() : owned->lease.Release();
  });
}

kvasir_code kvasir_put_token_texts(kvasir_session* session, const kvasir_model* model,
                                   uint32_t first, const kvasir_bytes* texts, size_t count,
                                   kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr) return Missing("session");
    KVASIR_ASSIGN_OR_RETURN(const auto handle, kvasir::c::ToModel(model));
    KVASIR_ASSIGN_OR_RETURN(const auto converted, kvasir::c::ToTexts(texts, count));
    return session->session->PutTokenTexts(handle, first, converted);
  });
}

const char* kvasir_text_data(const kvasir_text* text) {
  return text == nullptr ? "" : text->text.c_str();
}
void kvasir_text_free(kvasir_text* text) { delete text; }

kvasir_code kvasir_describe_tenant(kvasir_session* session, kvasir_text** text,
                                   kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr || text == nullptr) return Missing("session or text");
    *text = nullptr;
    return PutText(session->session->DescribeTenant(), text);
  });
}

kvasir_code kvasir_describe_policies(kvasir_session* session, kvasir_text** text,
                                     kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr || text == nullptr) return Missing("session or text");
    *text = nullptr;
    return PutText(session->session->DescribePolicies(), text);
  });
}

kvasir_code kvasir_describe_rows(kvasir_session* session, uint64_t sequence_id, uint32_t layer,
                                 uint64_t first_row, uint32_t rows_max, kvasir_text** text,
                                 kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr || text == nullptr) return Missing("session or text");
    *text = nullptr;
    return PutText(session->session->DescribeRows(sequence_id, layer, first_row, rows_max), text);
  });
}

kvasir_code kvasir_hold_memory(kvasir_session* session, kvasir_hold** hold, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr || hold == nullptr) return Missing("session or hold");
    *hold = nullptr;
    *hold = new kvasir_hold{session->devices, session->session->HoldMemory()};
    return absl::OkStatus();
  });
}
void kvasir_let_go(kvasir_hold* hold) { delete hold; }

}  // extern "C"
