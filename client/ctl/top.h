// kvasirctl top: what every tenant has and does, between two reports of the daemon. Pure functions.
#ifndef KVASIR_CLIENT_CTL_TOP_H_
#define KVASIR_CLIENT_CTL_TOP_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kvasir/v1/admin.pb.h"

namespace kvasir::ctl {

// What tenants are sorted by: the largest first, names ascending.
enum class TopSort { kTenant, kShare, kCharged, kHeld, kHit, kLookups, kCompactions, kRejected };

// "tenant", "share", ...: as --sort takes them.
std::string_view NameOf(TopSort sort);
std::optional<TopSort> TopSortOf(std::string_view name);
std::vector<std::string> TopSortNames();
TopSort NextSort(TopSort sort);

struct TopView {
  size_t columns = 0;  // of the terminal; 0: no bound, for files and pipes
  size_t lines = 0;    // likewise
  TopSort sort = TopSort::kShare;
  bool paused = false;
  bool keys = false;    // a last line says which there are
  std::string trouble;  // of the last call, "": none; shown where the keys are
};

// Of one tenant over the interval between two reports.
struct TenantRates {
  std::optional<double> hit_ratio;  // of the rows that were asked with; nothing: none were
  double lookups = 0;               // each a second
  double compactions = 0;
  double rejected = 0;
};

struct TopInterval {
  uint64_t ms = 0;  // 0: the two cannot be compared, and nothing has rates
  std::vector<std::optional<TenantRates>> rates;  // one for each tenant of the later report
};

// By the daemon's own clock (uptime_ms). A daemon that was started anew, one that went back in
// time, a tenant that was not there and a counter that fell have no rates.
TopInterval Between(const v1::GetStatsResponse& before, const v1::GetStatsResponse& now);

// Lines without line ends, none longer than view.columns and no more than view.lines: the daemon's
// memory, a title, a line for each tenant, keys. Columns that do not fit are left out, the least
// telling ones first. Whatever the daemon's strings say, it is printable.
std::vector<std::string> RenderTop(const v1::GetStatsResponse& before,
                                   const v1::GetStatsResponse& now, const TopView& view);

// One line of JSON: {"interval_ms", "stats": as `kvasirctl stats --output=json`, "rates": [...]};
// what there is no rate of is null.
std::string RenderTopJson(const v1::GetStatsResponse& before, const v1::GetStatsResponse& now);

}  // namespace kvasir::ctl

#endif  // KVASIR_CLIENT_CTL_TOP_H_
