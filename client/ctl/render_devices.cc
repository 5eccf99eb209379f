// What people see of pools of devices.
#include "base/bytes.h"
#include "client/ctl/render.h"
#include "client/ctl/table.h"
#include "client/ctl/terminal_text.h"

#include <fmt/format.h>

namespace kvasir::ctl {

std::string RenderDevicePools(const v1::GetStatsResponse& stats) {
  constexpr auto kRight = Table::Align::kRight;
  Table pools({{"POOL"},
               {"DEVICE"},
               {"SIZE", kRight},
               {"CHARGED", kRight},
               {"WASTE", kRight},
               {"IDLE", kRight},
               {"GRANULARITY", kRight},
               {"EXTENTS", kRight},
               {"DEVICE FREE", kRight}});
  for (const v1::DevicePoolStats& pool : stats.device_pools()) {
    pools.AddRow({EscapeForTerminal(pool.pool()), EscapeForTerminal(pool.device_name()),
                  HumanBytes(pool.pool_bytes()), HumanBytes(pool.charged_bytes()),
                  HumanBytes(pool.waste_bytes()), HumanBytes(pool.idle_bytes()),
                  HumanBytes(pool.granularity_bytes()), fmt::format("{}", pool.extents()),
                  pool.lost().empty() ? HumanBytes(pool.device_free_bytes())
                                      : "lost: " + EscapeForTerminal(pool.lost())});
  }
  Table tenants({{"TENANT"},
                 {"POOL"},
                 {"HELD", kRight},
                 {"CHARGED", kRight},
                 {"WASTE", kRight},
                 {"OWN", kRight},
                 {"OFFLOADED", kRight},
                 {"LOADED", kRight}});
  for (const v1::TenantStats& tenant : stats.tenants()) {
    for (const v1::TenantDeviceStats& device : tenant.devices()) {
      tenants.AddRow({EscapeForTerminal(tenant.tenant()), EscapeForTerminal(device.pool()),
                      HumanBytes(device.held_bytes()), HumanBytes(device.charged_bytes()),
                      HumanBytes(device.waste_bytes()), HumanBytes(device.own_bytes()),
                      HumanBytes(device.offload_stored_bytes()),
                      HumanBytes(device.offload_loaded_bytes())});
    }
  }
  std::string text;
  if (!pools.empty()) text += "\n" + pools.Render();
  if (!tenants.empty()) text += "\n" + tenants.Render();
  return text;
}

}  // namespace kvasir::ctl
