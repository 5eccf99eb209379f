// How rows of the schema reach their fields, for the files that have rows.
#ifndef KVASIR_DAEMON_CONFIG_SCHEMA_ROWS_H_
#define KVASIR_DAEMON_CONFIG_SCHEMA_ROWS_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "daemon/config_schema.h"

namespace kvasir::schema {

template <auto kTable, auto kField>
ConfigValue At(Config& config, ConfigEntry&) {
  return &((config.*kTable).*kField);
}

template <auto kField>
ConfigValue Of(Config&, ConfigEntry& entry) {
  return &(entry.tenant.*kField);
}

template <auto kField>
ConfigValue OfGpu(Config&, ConfigEntry& entry) {
  return &(entry.gpu.*kField);
}

template <auto kField>
ConfigValue OfTenantGpu(Config&, ConfigEntry& entry) {
  return &(entry.tenant_gpu.*kField);
}

using C = Config;
inline constexpr int64_t kMax32 = std::numeric_limits<uint32_t>::max();
inline constexpr auto kPage = static_cast<int64_t>(kPageBytes);
inline constexpr auto kMi = static_cast<int64_t>(kMiB);
inline constexpr auto kGi = static_cast<int64_t>(kGiB);
inline constexpr int64_t kTi = 1024 * kGi;
inline constexpr int64_t kSocketPathMax = 107;  // sun_path of sockaddr_un, less the closing zero
inline constexpr int64_t kPathMax = 4096;
inline constexpr int64_t kTenantSequencesMax = 65536 * 1024;
inline constexpr int64_t kTenantModelsMax = 65536 * 256;
inline constexpr int64_t kSpecMax = 4096;  // characters of a retention spec

std::vector<ConfigKey> GpuKeys();
std::vector<ConfigKey> MemoryKeys();
std::vector<ConfigKey> PeopleKeys();
std::vector<ConfigKey> TenantGpuKeys();
std::vector<ConfigKey> TierKeys();

}  // namespace kvasir::schema

#endif  // KVASIR_DAEMON_CONFIG_SCHEMA_ROWS_H_
