// The form of texts in a configuration.
#ifndef KVASIR_DAEMON_CONFIG_FORMS_H_
#define KVASIR_DAEMON_CONFIG_FORMS_H_

#include <optional>
#include <string>
#include <utility>

#include "daemon/config_reader.h"
#include "daemon/config_schema.h"

namespace kvasir {

// What is wrong with the form of a string, and the rule; nothing if it is well.
std::optional<std::pair<std::string, std::string>> FormProblem(ConfigKind kind,
                                                               const std::string& text,
                                                               const PolicyChecks& checks);

}  // namespace kvasir

#endif  // KVASIR_DAEMON_CONFIG_FORMS_H_
