// From TOML text to a Config whose values are each within their own bounds.
#ifndef KVASIR_DAEMON_CONFIG_READER_H_
#define KVASIR_DAEMON_CONFIG_READER_H_

#include <string>
#include <string_view>

#include "daemon/config.h"
#include "daemon/config_checks.h"

namespace kvasir {

// Checks of policy grammar; each may be null.
struct PolicyChecks {
  const RetentionCheck& retention;
  const LadderCheck& ladder;
};

// Reads `text` by the schema, adds everything that is wrong to `findings`, and fills in the
// defaults that depend on other keys. The result means something only if nothing was added. The one
// place that knows the TOML library; nothing that it throws gets out.
Config ReadConfigText(std::string_view text, const std::string& file_name,
                      const PolicyChecks& checks, ConfigLines* lines, ConfigFindings* findings);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONFIG_READER_H_
