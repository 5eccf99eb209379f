#include "client/prefix_lease.h"

#include <utility>

#include "client/session_state.h"

namespace kvasir {

PrefixLease::PrefixLease(PrefixLease&& other) noexcept { *this = std::move(other); }

PrefixLease& PrefixLease::operator=(PrefixLease&& other) noexcept {
  if (this == &other) return *this;
  (void)Release();
  session_ = std::exchange(other.session_, nullptr);
  id_ = std::exchange(other.id_, {});
  rows_ = std::exchange(other.rows_, 0);
  forms_ = std::exchange(other.forms_, {});
  ttl_ = other.ttl_;
  return *this;
}

PrefixLease::~PrefixLease() { (void)Release(); }

absl::Status PrefixLease::Release() {
  const std::shared_ptr<SessionState> session = std::exchange(session_, nullptr);
  if (session == nullptr) return absl::OkStatus();
  v1::ReleaseLeaseRequest request;
  request.set_lease_id(id_);
  v1::ReleaseLeaseResponse response;
  return session->channel->Call(&v1::KvCache::Stub::ReleaseLease, request, &response);
}

}  // namespace kvasir
