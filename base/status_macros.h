// KVASIR_RETURN_IF_ERROR(status_expr) and KVASIR_ASSIGN_OR_RETURN(declaration, statusor_expr).
#ifndef KVASIR_BASE_STATUS_MACROS_H_
#define KVASIR_BASE_STATUS_MACROS_H_

#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#define KVASIR_RETURN_IF_ERROR(expr)                 \
  do {                                               \
    absl::Status kvasir_status_ = (expr);            \
    if (!kvasir_status_.ok()) return kvasir_status_; \
  } while (false)

#define KVASIR_CONCAT_INNER_(a, b) a##b
#define KVASIR_CONCAT_(a, b) KVASIR_CONCAT_INNER_(a, b)
#define KVASIR_ASSIGN_OR_RETURN(lhs, expr) \
  KVASIR_ASSIGN_OR_RETURN_IMPL_(KVASIR_CONCAT_(kvasir_or_, __LINE__), lhs, expr)
#define KVASIR_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                  \
  if (!tmp.ok()) return tmp.status();                 \
  lhs = std::move(tmp).value()

#endif  // KVASIR_BASE_STATUS_MACROS_H_
