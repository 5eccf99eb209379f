// The schema of the configuration file: one row for each key. The only place that knows a key's
// name, unit, bounds and description; defaults are those of the Config structs.
//
// Reading order: ConfigSchema() is the table, ConfigValue is how a row reaches its field.
#ifndef KVASIR_DAEMON_CONFIG_SCHEMA_H_
#define KVASIR_DAEMON_CONFIG_SCHEMA_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/byte_size.h"
#include "daemon/config.h"

namespace kvasir {

// Where the value of a key lives. An enumerator's number is the index of its word in `choices`.
using ConfigValue =
    std::variant<std::string*, bool*, int32_t*, uint32_t*, uint64_t*, std::vector<uint32_t>*,
                 LogFormat*, Config::Memory::Lock*, Config::Memory::HugePages*,
                 Config::Memory::Pressure*, Config::Memory::Handover*, std::vector<std::string>*>;

// The entry of an array of tables that a key is of.
struct ConfigEntry {
  Config::Tenant tenant;
  Config::Gpu gpu;
  Config::TenantGpu tenant_gpu;
};

// How the text of a value is read and checked, beyond the type of its field.
enum class ConfigKind {
  kInteger,    // TOML integer
  kBytes,      // TOML integer (bytes) or a string such as "512MiB"
  kFileMode,   // string of octal digits
  kBoolean,    // TOML boolean
  kChoice,     // string, one of `choices`
  kSocket,     // absolute path that fits sockaddr_un
  kFolder,     // "" or an absolute path
  kServers,    // text, checked as ParseServerAddresses() says
  kName,       // tenant name
  kListen,     // "" or "address:port" with a numeric address
  kRetention,  // policy grammar
  kIds,        // array of integers, uids or gids as `unit` says
  kCgroups,    // array of patterns, as CheckCgroupPattern() says
  kLadder,     // array of specs in policy grammar
  kDevice,     // "host", "cuda:<number>" or "GPU-<uuid>"
};

struct ConfigKey {
  std::string_view table;  // "server", ...; "gpu", "tenant", "tenant.gpu" are arrays of tables
  std::string_view name;
  ConfigKind kind;
  ConfigValue (*value)(Config& config, ConfigEntry& entry);
  std::string_view unit = {};  // "bytes", "ms", "rows", ...; "" for what has none
  int64_t min = 0;             // bounds of integers, inclusive; of strings: the length
  int64_t max = 0;
  int64_t multiple_of = 1;  // integers are multiples of this
  std::vector<std::string_view> choices = {};
  bool needs_restart = true;
  std::string_view description = {};   // sentences for people, wrapped by whoever prints them
  std::string_view default_note = {};  // when the default depends on another key
  std::string_view sample = {};        // text of the sample file where that is not the default
  std::string_view sample_note = {};   // and why
};

// All keys, in the order of the sample file: tables are contiguous, arrays of tables come last.
std::span<const ConfigKey> ConfigSchema();

// Whether the table is one of an array of tables.
bool IsConfigArray(std::string_view table);

// The row of a key, or null.
const ConfigKey* FindConfigKey(std::string_view table, std::string_view name);

// The value of a row as TOML text, e.g. `"512MiB"`, `[1000, 1001]`.
std::string FormatConfigValue(const ConfigKey& key, const ConfigValue& value);

// A commented file with every key, at its default or where `sample` says better;
// deploy/kvasird.example.toml is this text.
std::string SampleConfigToml();

// The same as a Markdown table, for docs/operations.md.
std::string ConfigReferenceMarkdown();

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONFIG_SCHEMA_H_
