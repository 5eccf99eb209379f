// AdminService: the size of the host pool, and what tenants may have of it.
#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "daemon/control/admin_service.h"
#include "daemon/control/budget_convert.h"
#include "daemon/control/memory_counts.h"
#include "daemon/control/status_convert.h"

namespace kvasir {

grpc::Status AdminService::SetPoolSize(const Scope& scope, grpc::ServerContext* context,
                                       const v1::SetPoolSizeRequest* request,
                                       v1::SetPoolSizeResponse* response) {
  const grpc::Status set =
      Audited(scope, "resize", {{"pool_bytes", std::to_string(request->pool_bytes())}}, [&] {
        if (!scope.all) {
          return PermissionDenied("SetPoolSize is for administrators (admin.uids)");
        }
        return pool_size_.Set(request->pool_bytes(), [context] { return context->IsCancelled(); });
      });
  if (!set.ok()) return set;
  response->set_boot_epoch(boot_epoch_);
  response->set_asked_bytes(request->pool_bytes());
  uint64_t charged = 0;
  MutexLock lock(shared_.mutex);
  for (const core::TenantReport& tenant : shared_.core.TenantReports()) {
    charged += tenant.charged_bytes;
    if (tenant.charged_bytes == 0) continue;
    v1::PoolHolder* const holder = response->add_holders();
    holder->set_tenant(tenant.name);
    Fill(tenant, holder->mutable_host());
    holder->set_sessions(tenant.sessions);
    holder->set_sequences(tenant.sequences);
  }
  response->set_reached_bytes(std::max(request->pool_bytes(), charged));
  if (charged <= request->pool_bytes()) response->clear_holders();
  return grpc::Status::OK;
}

grpc::Status AdminService::SetTenantBudget(const Scope& scope,
                                           const v1::SetTenantBudgetRequest* request,
                                           v1::SetTenantBudgetResponse* response) {
  std::vector<std::pair<std::string_view, std::string>> arguments = {{"target", request->tenant()}};
  for (auto& field : FieldsOf(request->budget())) arguments.push_back(std::move(field));
  return Audited(scope, "set_budget", std::move(arguments), [&]() -> absl::Status {
    if (!scope.all) {
      return PermissionDenied("SetTenantBudget is for administrators (admin.uids)");
    }
    return SetBudget(*request, response);
  });
}

absl::Status AdminService::SetBudget(const v1::SetTenantBudgetRequest& request,
                                     v1::SetTenantBudgetResponse* response) {
  MutexLock lock(shared_.mutex);
  const auto report_of = [&]() -> std::optional<core::TenantReport> {
    shared_.mutex.AssertHeld();
    for (core::TenantReport& report : shared_.core.TenantReports()) {
      if (report.name == request.tenant()) return std::move(report);
    }
    return std::nullopt;
  };
  const std::optional<core::TenantReport> before = report_of();
  if (!before) return NotFound("unknown tenant: tenant={}", request.tenant());
  core::Budget budget = before->budget;
  KVASIR_RETURN_IF_ERROR(Apply(request.budget(), &budget));
  KVASIR_RETURN_IF_ERROR(shared_.core.SetBudgets({{request.tenant(), budget}}));
  if (shared_.core.TakeTierHint()) shared_.tier_work.NotifyAll();
  response->set_boot_epoch(boot_epoch_);
  Fill(*report_of(), response->mutable_host());
  Fill(budget, response->mutable_budget());
  return absl::OkStatus();
}

}  // namespace kvasir
