// FillConfigDefaults: defaults that depend on other keys.
#ifndef KVASIR_DAEMON_CONFIG_DEFAULTS_H_
#define KVASIR_DAEMON_CONFIG_DEFAULTS_H_

#include "daemon/config.h"
#include "daemon/config_checks.h"

namespace kvasir {

// Of what `lines` does not name. A default never makes a small pool invalid.
void FillConfigDefaults(const ConfigLines& lines, Config* config);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONFIG_DEFAULTS_H_
