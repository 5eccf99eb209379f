// A tenant's budget for the wire, and what of it a request changes.
#ifndef KVASIR_DAEMON_CONTROL_BUDGET_CONVERT_H_
#define KVASIR_DAEMON_CONTROL_BUDGET_CONVERT_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/status/status.h>

#include "daemon/core/budget.h"
#include "kvasir/v1/admin.pb.h"

namespace kvasir {

void Fill(const core::Budget& budget, v1::Budget* out);
// What `change` leaves out stays. Errors: kNotFound for a pool that the tenant's budget has not.
absl::Status Apply(const v1::Budget& change, core::Budget* budget);
// Its fields by name, for people.
std::vector<std::pair<std::string_view, std::string>> FieldsOf(const v1::Budget& change);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONTROL_BUDGET_CONVERT_H_
